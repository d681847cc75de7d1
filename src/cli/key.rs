//! `rtm-bridge key new`

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::domain::{BotName, Sha256};

/// Make keys for callers.
#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key. It is shown this once; the configuration keeps its hash only.
    #[command(after_help = "Example:\n  rtm-bridge key new --name crm")]
    New {
        /// What the caller is called in logs: a-z, A-Z, 0-9, '.', '_' and '-'.
        #[arg(long, default_value = "my-backend", value_parser = name)]
        name: String,
    },
}

/// Callers are named as bots are.
fn name(text: &str) -> Result<String, &'static str> {
    BotName::new(text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| "should be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'")
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        let KeyCommand::New { name } = self.command;
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::NoRandomness)?;
        Ok(print(&show(&name, &bytes))?)
    }
}

/// The prefix lets secret scanners, and people, know a key when they see one.
fn show(name: &str, bytes: &[u8; 32]) -> String {
    let key = format!("rtmb_{}", URL_SAFE_NO_PAD.encode(bytes));
    let mut hash = String::new();
    for byte in Sha256::digest(&key) {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    format!(
        "Key, for the caller; it is not shown again:\n\n    {key}\n\n\
         Sent as:  Authorization: Bearer {key}\n\n\
         For the configuration:\n\n\
         [[callers]]\nname = \"{name}\"\nkey_sha256 = \"{hash}\"\nscopes = [\"send\", \"read\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_key_as_it_is_sent() {
        let text = show("crm", &[7; 32]);
        // printf %s rtmb_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc | sha256sum
        assert!(text.contains("Bearer rtmb_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n"), "{text}");
        assert!(text.contains(EXPECTED), "{text}");
    }

    const EXPECTED: &str = "e60a1eeb3426d2663743d64d3614f340fd8f068612ec626d7fc518ae601ed79c";
}
