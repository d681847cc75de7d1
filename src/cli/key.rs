//! `rtm-bridge key new`

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use super::{CommandError, print};
use crate::domain::{BotName, Sha256};

/// Create keys for callers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rtm-bridge key new --name crm")]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    command: KeySubcommand,
}

#[derive(Debug, Subcommand)]
enum KeySubcommand {
    /// Create a key. It is printed only this once; the configuration holds its hash.
    #[command(after_help = "Example:\n  rtm-bridge key new --name crm")]
    New {
        /// The caller's name in logs: a-z, A-Z, 0-9, '.', '_' and '-'.
        #[arg(long, default_value = "my-backend", value_parser = caller_name)]
        name: String,
    },
}

/// Callers' names follow the rules of bots' names.
fn caller_name(text: &str) -> Result<String, &'static str> {
    BotName::new(text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| "give 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'")
}

impl KeyCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let KeySubcommand::New { name } = self.command;
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CommandError::NoRandomBytes)?;
        Ok(print(&describe_key(&name, &bytes))?)
    }
}

/// Returns the printed text. The key's prefix lets secret scanners and people recognise it.
fn describe_key(name: &str, bytes: &[u8; 32]) -> String {
    let key = format!("rtmb_{}", URL_SAFE_NO_PAD.encode(bytes));
    let mut hash = String::new();
    for byte in Sha256::digest(&key) {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    format!(
        "Give this key to the caller. It is not printed again:\n\n    {key}\n\n\
         The caller sends it as:  Authorization: Bearer {key}\n\n\
         Add this to the configuration:\n\n\
         [[callers]]\nname = \"{name}\"\nkey_sha256 = \"{hash}\"\nscopes = [\"send\", \"read\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_of_the_whole_key() {
        // printf %s rtmb_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc | sha256sum
        const HASH: &str = "e60a1eeb3426d2663743d64d3614f340fd8f068612ec626d7fc518ae601ed79c";
        let text = describe_key("crm", &[7; 32]);
        assert!(text.contains("Bearer rtmb_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n"), "{text}");
        assert!(text.contains(HASH), "{text}");
    }
}
