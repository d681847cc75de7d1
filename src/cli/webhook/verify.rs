//! `rtm-bridge webhook verify`

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::arrived::{Headers, judge};
use super::{BODY_MAX, NoWebhook, SMALL_MAX, Secrets, bounded, file};
use crate::cli::{Failure, print};
use crate::store::Clock;

/// Verify a delivery that was captured, and say what is wrong with it.
///
/// The body must be what arrived, byte for byte. The exit code is 0 where the signature is right and not older than
/// five minutes, else 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook verify --secret-file webhook.secret --headers headers.txt body.json\n  \
    rtm-bridge webhook verify --secret-file webhook.secret \\\n    \
      --id \"$ID\" --timestamp \"$TIME\" --signature \"$SIGNATURE\" < body.json")]
pub(super) struct Verify {
    #[command(flatten)]
    secrets: Secrets,
    /// A file with the headers as they arrived, one `name: value` a line; others are skipped.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "timestamp", "signature"])]
    headers: Option<PathBuf>,
    /// The header `webhook-id`.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The header `webhook-timestamp`: seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<String>,
    /// The header `webhook-signature`, all of it.
    #[arg(long, value_name = "SIGNATURES")]
    signature: Option<String>,
    /// Judge the signature alone, however old it is: for what was captured a while ago.
    #[arg(long)]
    any_age: bool,
    /// The body; without it, or as `-`, standard input.
    #[arg(value_name = "BODY")]
    body: Option<PathBuf>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let secrets = self.secrets.read()?;
        if secrets.is_empty() {
            return Err(NoWebhook::NoSecret.into());
        }
        let headers = self.headers()?;
        let body = match &self.body {
            Some(path) if path.as_os_str() != "-" => file(path, BODY_MAX)?,
            _ => bounded(io::stdin().lock(), "standard input", BODY_MAX)?,
        };
        let now = Clock::wall().now();
        let genuine = judge(&secrets, &headers, &body, (!self.any_age).then_some(now))
            .map_err(|why| NoWebhook::Untrusted { why })?;
        let age = if genuine.signed > now {
            "just now".to_owned()
        } else {
            format!("{} s ago", now.since(genuine.signed).as_secs())
        };
        Ok(print(&format!("verified: signed {age} with secret {} of {}\n", genuine.secret, secrets.len()))?)
    }

    fn headers(&self) -> Result<Headers, NoWebhook> {
        if let Some(path) = &self.headers {
            let bytes = file(path, SMALL_MAX)?;
            return Ok(Headers::parse(&String::from_utf8_lossy(&bytes)));
        }
        let given = [
            ("webhook-id", &self.id),
            ("webhook-timestamp", &self.timestamp),
            ("webhook-signature", &self.signature),
        ];
        Ok(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect())
    }
}
