//! `rtm-bridge webhook`: for people who build a receiver.

mod arrived;
mod listen;
mod secret;
mod shown;
mod verify;

use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};

use self::arrived::Untrusted;
pub(super) use self::secret::new as new_secret;
use super::Failure;
use crate::config;
use crate::webhook::signature::{InvalidSecret, SigningSecret, VerificationError};

/// The variable that may hold secrets.
const SECRET: &str = "RTM_BRIDGE_WEBHOOK_SECRET";
/// The longest file of secrets or headers.
const SMALL_MAX: usize = 64 << 10;
/// The longest body that is taken. A message with all that it may hold takes less than half of it.
const BODY_MAX: usize = 16 << 20;

/// Build a receiver of webhooks: make a secret, see what arrives, verify what was captured.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook secret > webhook.secret\n  \
    rtm-bridge webhook listen --secret-file webhook.secret\n  \
    rtm-bridge webhook verify --secret-file webhook.secret --headers headers.txt body.json")]
pub(super) struct Webhook {
    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    Secret(secret::NewSecret),
    Listen(listen::Listen),
    Verify(verify::Verify),
}

impl Webhook {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            WebhookCommand::Secret(secret) => secret.run(),
            WebhookCommand::Listen(listen) => listen.run(),
            WebhookCommand::Verify(verify) => verify.run(),
        }
    }
}

/// Why there is nothing to show, or nothing to trust.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoWebhook {
    #[error("{0} holds no secret: one whsec_ a line is expected, as `rtm-bridge webhook secret` prints it")]
    NoSecretIn(String),
    #[error("{0}: {1}")]
    Secret(String, InvalidSecret),
    #[error("there is no secret to verify with: give --secret-file FILE, or set {SECRET}")]
    NoSecret,
    #[error("{what} cannot be read")]
    Unreadable { what: String, source: io::Error },
    #[error("{0} is longer than {1} bytes: that is no delivery of a bridge")]
    TooLong(String, usize),
    #[error("not verified: {why}{}", next_step(.why))]
    Untrusted { why: Untrusted },
    #[error("cannot listen on {0}; choose another address with --addr")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("the receiver ended by itself")]
    Deaf(#[source] io::Error),
}

/// What to do about it at the command line.
fn next_step(why: &Untrusted) -> &'static str {
    match why {
        Untrusted::Missing(_) => "; give --headers FILE, or --id, --timestamp and --signature",
        Untrusted::LineEnd => ". Save the body as it arrives, with no `echo` and no editor in between",
        Untrusted::Unverified(VerificationError::TooOld(_)) => {
            ". The signature is right: with --any-age that alone is judged"
        }
        Untrusted::Unverified(_) => "",
    }
}

/// The secrets to verify with.
#[derive(Debug, Args)]
struct Secrets {
    /// A file of secrets, one whsec_ a line, such as the bridge's `secrets_file`. Without it, and without `--secret`,
    /// the environment's `RTM_BRIDGE_WEBHOOK_SECRET` is taken.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A secret. Others on this machine can read it here, and the shell remembers it.
    #[arg(long = "secret", value_name = "WHSEC")]
    secrets: Vec<SecretString>,
}

impl Secrets {
    /// All of them, the file's first; none where there are none.
    fn read(&self) -> Result<Vec<SigningSecret>, NoWebhook> {
        let mut all = Vec::new();
        if let Some(path) = &self.secret_file {
            let text = SecretString::from(String::from_utf8_lossy(&file(path, SMALL_MAX)?).into_owned());
            all = parse(&path.display().to_string(), text.expose_secret())?;
        }
        if !self.secrets.is_empty() {
            // Where standard error is closed there is nobody to tell.
            let _closed = writeln!(
                io::stderr(),
                "rtm-bridge: a secret on the command line is seen by others on this machine, and stays in the \
                 shell's history; --secret-file FILE is safer"
            );
        }
        for secret in &self.secrets {
            all.extend(parse("--secret", secret.expose_secret())?);
        }
        if all.is_empty()
            && let Some((_, value)) =
                config::environment().into_iter().find(|(name, value)| name == SECRET && !value.is_empty())
        {
            let value = SecretString::from(value.into_string().unwrap_or_default());
            all = parse(SECRET, value.expose_secret())?;
        }
        Ok(all)
    }
}

/// What a file holds, if it is not too long.
fn file(path: &Path, most: usize) -> Result<Vec<u8>, NoWebhook> {
    let what = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(file) => bounded(file, &what, most),
        Err(source) => Err(NoWebhook::Unreadable { what, source }),
    }
}

/// All of it, if it is not too long.
fn bounded(from: impl Read, what: &str, most: usize) -> Result<Vec<u8>, NoWebhook> {
    let mut bytes = Vec::new();
    let read = from.take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| NoWebhook::Unreadable { what: what.to_owned(), source })?;
    if bytes.len() > most { Err(NoWebhook::TooLong(what.to_owned(), most)) } else { Ok(bytes) }
}

/// Reads secrets as the bridge does: one a line; empty lines and lines with `#` are skipped.
fn parse(origin: &str, text: &str) -> Result<Vec<SigningSecret>, NoWebhook> {
    let mut secrets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place =
            if text.trim().contains('\n') { format!("{origin}, line {number}") } else { origin.to_owned() };
        secrets.push(SigningSecret::parse(&line.into()).map_err(|error| NoWebhook::Secret(place, error))?);
    }
    if secrets.is_empty() { Err(NoWebhook::NoSecretIn(origin.to_owned())) } else { Ok(secrets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn secrets_are_read_as_the_bridge_reads_them() {
        let text = format!("# the new one\n{GOOD}\n\n  {GOOD}\r\n");
        assert_eq!(parse("x", &text).unwrap().len(), 2);
        assert_eq!(parse("x", GOOD).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_secret_is_said_with_its_place_and_not_shown() {
        let error = parse("webhook.secret", &format!("{GOOD}\nwhsec_hush!\n")).unwrap_err().to_string();
        assert!(error.starts_with("webhook.secret, line 2: ") && !error.contains("hush"), "{error}");
        let error = parse("--secret", "hush").unwrap_err().to_string();
        assert!(error.starts_with("--secret: a webhook secret is whsec_"), "{error}");
        assert!(matches!(parse("f", "# none\n"), Err(NoWebhook::NoSecretIn(_))));
    }
}
