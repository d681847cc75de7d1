//! `rtm-bridge webhook secret`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::{CommandError, print};
use crate::webhook::signature::generate_key_pair;

/// Create a secret that signs deliveries. The output is a complete file of secrets.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    (umask 077; rtm-bridge webhook secret > webhook.secret)\n  \
    (umask 077; rtm-bridge webhook secret --asymmetric > webhook.key)")]
pub(super) struct SecretCommand {
    /// Create a key pair (ed25519) instead of a shared secret. Receivers get the public key, which cannot sign.
    #[arg(long)]
    asymmetric: bool,
}

impl SecretCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        const BRIDGE: &str = "# Signs webhooks. Bridge: name this file as `secrets_file` of [[bots.webhooks]] or \
                              `webhook_secrets_file` of\n# [[callers]]; put the newest secret first.";
        let text = if self.asymmetric {
            let (private, public) = generate_key_pair().map_err(|_| CommandError::NoRandomBytes)?;
            let private = private.expose_secret();
            format!(
                "{BRIDGE} Keep the private key here.\n# Receiver: verify `v1a` with the public key {public}\n{private}\n"
            )
        } else {
            let secret = generate_secret()?;
            let secret = secret.expose_secret();
            format!("{BRIDGE} Receiver: give the next line to a Standard Webhooks library.\n{secret}\n")
        };
        Ok(print(&text)?)
    }
}

/// Returns a new secret of 32 random bytes.
pub(in crate::cli) fn generate_secret() -> Result<SecretString, CommandError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CommandError::NoRandomBytes)?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)).into())
}
