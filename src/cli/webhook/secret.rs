//! `rtm-bridge webhook secret`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::{Failure, print};

/// Make a secret that signs deliveries. What is printed is a file of secrets as it stands.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  (umask 077; rtm-bridge webhook secret > webhook.secret)")]
pub(super) struct NewSecret {}

impl NewSecret {
    #[expect(clippy::unused_self, reason = "commands are run as what was asked for")]
    pub(super) fn run(self) -> Result<(), Failure> {
        let secret = new()?;
        Ok(print(&format!(
            "# Signs webhooks. The bridge reads it with `secrets_file` of [bots.webhook] or `webhook_secrets_file` of\n\
             # [[callers]], newest first; the receiver gives the line below to its Standard Webhooks library.\n{}\n",
            secret.expose_secret()
        ))?)
    }
}

/// A new secret of 32 random bytes.
pub(in crate::cli) fn new() -> Result<SecretString, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::NoRandomness)?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)).into())
}
