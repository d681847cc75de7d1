//! `rtm-bridge webhook verify`

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::received::{DeliveryHeaders, verify_delivery};
use super::{BODY_MAX, SMALL_FILE_MAX, SecretArgs, WebhookCommandError, read_bounded, read_file};
use crate::cli::{CommandError, print};
use crate::store::Clock;

/// Verify a captured delivery, and print what is wrong with it.
///
/// The body must be the received bytes without a change. The exit code is 0 if the signature is valid and not older than
/// five minutes, else 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook verify --secret-file webhook.secret --headers headers.txt body.json\n  \
    rtm-bridge webhook verify --secret-file webhook.secret \\\n    \
      --id \"$ID\" --timestamp \"$TIME\" --signature \"$SIGNATURE\" < body.json")]
pub(super) struct VerifyCommand {
    #[command(flatten)]
    secrets: SecretArgs,
    /// A file of the received headers, one `name: value` a line. Other lines are skipped.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "timestamp", "signature"])]
    headers: Option<PathBuf>,
    /// The header `webhook-id`.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The header `webhook-timestamp`: seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<String>,
    /// The whole header `webhook-signature`.
    #[arg(long, value_name = "SIGNATURES")]
    signature: Option<String>,
    /// Ignore the age of the signature.
    #[arg(long)]
    any_age: bool,
    /// The file of the body. Without it, or with `-`, the body is read from standard input.
    #[arg(value_name = "BODY")]
    body: Option<PathBuf>,
}

impl VerifyCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let secrets = self.secrets.read()?;
        if secrets.is_empty() {
            return Err(WebhookCommandError::NoSecret.into());
        }
        let headers = self.headers()?;
        let body = match &self.body {
            Some(path) if path.as_os_str() != "-" => read_file(path, BODY_MAX)?,
            _ => read_bounded(io::stdin().lock(), "standard input", BODY_MAX)?,
        };
        let now = Clock::wall().now();
        let verified = verify_delivery(&secrets, &headers, &body, (!self.any_age).then_some(now))
            .map_err(WebhookCommandError::NotVerified)?;
        let age = if verified.signed_at > now {
            "just now".to_owned()
        } else {
            format!("{} s ago", now.since(verified.signed_at).as_secs())
        };
        Ok(print(&format!("verified: signed {age} with secret {} of {}\n", verified.secret, secrets.len()))?)
    }

    fn headers(&self) -> Result<DeliveryHeaders, WebhookCommandError> {
        if let Some(path) = &self.headers {
            let bytes = read_file(path, SMALL_FILE_MAX)?;
            return Ok(DeliveryHeaders::parse(&String::from_utf8_lossy(&bytes)));
        }
        let given = [
            ("webhook-id", &self.id),
            ("webhook-timestamp", &self.timestamp),
            ("webhook-signature", &self.signature),
        ];
        Ok(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect())
    }
}
