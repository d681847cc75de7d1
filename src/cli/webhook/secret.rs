//! `rtm-bridge webhook secret`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::{CommandError, print};

/// Create a secret that signs deliveries. The output is a complete file of secrets.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  (umask 077; rtm-bridge webhook secret > webhook.secret)")]
pub(super) struct SecretCommand {}

impl SecretCommand {
    #[expect(clippy::unused_self, reason = "every command runs by value")]
    pub(super) fn run(self) -> Result<(), CommandError> {
        let secret = generate_secret()?;
        Ok(print(&format!(
            "# Signs webhooks. Bridge: name this file as `secrets_file` of [[bots.webhooks]] or `webhook_secrets_file` of\n\
             # [[callers]]; put the newest secret first. Receiver: give the next line to a Standard Webhooks library.\n{}\n",
            secret.expose_secret()
        ))?)
    }
}

/// Returns a new secret of 32 random bytes.
pub(in crate::cli) fn generate_secret() -> Result<SecretString, CommandError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CommandError::NoRandomBytes)?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)).into())
}
