//! `rtm-bridge webhook`: tools for building a receiver of webhooks.

mod listen;
mod received;
mod render;
mod secret;
mod test;
mod verify;

use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};

use self::received::DeliveryCheckError;
pub(super) use self::secret::generate_secret;
use super::{CommandError, warn_of_open_file};
use crate::config;
use crate::webhook::signature::{InvalidSignatureKey, SignatureKey, VerificationError};

const SECRET_VARIABLE: &str = "RTM_BRIDGE_WEBHOOK_SECRET";
/// The most bytes of a file of secrets or headers.
const SMALL_FILE_MAX: usize = 64 << 10;
/// The most bytes of a body. The largest delivery has less than half of this.
const BODY_MAX: usize = 16 << 20;

/// Build a receiver of webhooks: create a secret, print deliveries, verify a captured delivery, test an endpoint.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook secret > webhook.secret\n  \
    rtm-bridge webhook listen --secret-file webhook.secret\n  \
    rtm-bridge webhook verify --secret-file webhook.secret --headers headers.txt body.json\n  \
    rtm-bridge webhook test --config /etc/rtm-bridge.toml")]
pub(super) struct WebhookCommand {
    #[command(subcommand)]
    command: WebhookSubcommand,
}

#[derive(Debug, Subcommand)]
enum WebhookSubcommand {
    Secret(secret::SecretCommand),
    Listen(listen::ListenCommand),
    Verify(verify::VerifyCommand),
    Test(test::TestCommand),
}

impl WebhookCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.command {
            WebhookSubcommand::Secret(secret) => secret.run(),
            WebhookSubcommand::Listen(listen) => listen.run(),
            WebhookSubcommand::Verify(verify) => verify.run(),
            WebhookSubcommand::Test(test) => test.run(),
        }
    }
}

/// Why a webhook command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookCommandError {
    #[error("{0} holds no secret; put one whsec_ on each line, as `rtm-bridge webhook secret` prints it")]
    EmptySecretFile(String),
    #[error("{0}: {1}")]
    InvalidSecret(String, InvalidSignatureKey),
    #[error("there is no secret to verify with; give --secret-file FILE, or set {SECRET_VARIABLE}")]
    NoSecret,
    #[error("cannot read {origin}; give a readable file")]
    Unreadable { origin: String, source: io::Error },
    #[error("{0} is longer than {1} bytes; give the file of one delivery")]
    TooLong(String, usize),
    #[error("not verified: {0}{next_step}", next_step = next_step(.0))]
    NotVerified(DeliveryCheckError),
    #[error("there is no such endpoint with a `url`; look at [[bots.webhooks]] in the configuration")]
    NoEndpoint,
    #[error("there are several endpoints; name one of them, as BOT NAME: {0}")]
    SeveralEndpoints(String),
    #[error("the endpoint has no `url`; give it one in the configuration")]
    NoUrl,
    #[error("{0}; correct the configuration")]
    Setup(String),
    #[error("the test event is not taken: {0}; look at the log of the receiver")]
    NotTaken(String),
    #[error("cannot listen on {0}; choose another address with --addr")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("the receiver stopped with an error; start it again")]
    Server(#[source] io::Error),
}

fn next_step(error: &DeliveryCheckError) -> &'static str {
    match error {
        DeliveryCheckError::MissingHeader(_) => "; give --headers FILE, or --id, --timestamp and --signature",
        DeliveryCheckError::ExtraLineEnd => "; save the body byte for byte, without `echo` or an editor",
        DeliveryCheckError::Signature(VerificationError::TooOld(_)) => {
            "; the signature itself is valid: --any-age ignores the age"
        }
        DeliveryCheckError::Signature(_) => "",
    }
}

/// The secrets to verify with.
#[derive(Debug, Args)]
struct SecretArgs {
    /// A file of secrets, one whsec_ (or public key, whpk_) a line, such as the bridge's `secrets_file`. Without it and
    /// --secret, the secret is read from `RTM_BRIDGE_WEBHOOK_SECRET`.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A secret or a public key (whpk_). Other users of this machine can see it, and the shell's history keeps it.
    #[arg(long = "secret", value_name = "WHSEC")]
    secrets: Vec<SecretString>,
}

impl SecretArgs {
    /// Returns all secrets, those of the file first. The list may be empty.
    fn read(&self) -> Result<Vec<SignatureKey>, WebhookCommandError> {
        let mut all = Vec::new();
        if let Some(path) = &self.secret_file {
            let text =
                SecretString::from(String::from_utf8_lossy(&read_file(path, SMALL_FILE_MAX)?).into_owned());
            all = parse_secrets(&path.display().to_string(), text.expose_secret())?;
            warn_of_open_file(path);
        }
        if !self.secrets.is_empty() {
            // A closed standard error leaves no other place for the warning.
            let _closed = writeln!(
                io::stderr(),
                "rtm-bridge: other users of this machine can see a secret on the command line, and the shell's history \
                 keeps it; --secret-file FILE is safer"
            );
        }
        for secret in &self.secrets {
            all.extend(parse_secrets("--secret", secret.expose_secret())?);
        }
        if all.is_empty()
            && let Some((_, value)) = config::environment()
                .into_iter()
                .find(|(name, value)| name == SECRET_VARIABLE && !value.is_empty())
        {
            let value = SecretString::from(value.into_string().unwrap_or_default());
            all = parse_secrets(SECRET_VARIABLE, value.expose_secret())?;
        }
        Ok(all)
    }
}

/// Reads a file of at most `limit` bytes.
fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, WebhookCommandError> {
    let origin = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(file) => read_bounded(file, &origin, limit),
        Err(source) => Err(WebhookCommandError::Unreadable { origin, source }),
    }
}

/// Reads at most `limit` bytes to the end.
fn read_bounded(input: impl Read, origin: &str, limit: usize) -> Result<Vec<u8>, WebhookCommandError> {
    let mut bytes = Vec::new();
    let read = input.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| WebhookCommandError::Unreadable { origin: origin.to_owned(), source })?;
    if bytes.len() > limit { Err(WebhookCommandError::TooLong(origin.to_owned(), limit)) } else { Ok(bytes) }
}

/// Parses secrets as the bridge does: one a line, without empty lines and lines that begin with `#`.
fn parse_secrets(origin: &str, text: &str) -> Result<Vec<SignatureKey>, WebhookCommandError> {
    let mut secrets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place =
            if text.trim().contains('\n') { format!("{origin}, line {number}") } else { origin.to_owned() };
        secrets.push(
            SignatureKey::parse(&line.into())
                .map_err(|error| WebhookCommandError::InvalidSecret(place, error))?,
        );
    }
    if secrets.is_empty() {
        Err(WebhookCommandError::EmptySecretFile(origin.to_owned()))
    } else {
        Ok(secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn secrets_are_parsed_without_comments_and_blanks() {
        let text = format!("# the new one\n{GOOD}\n\n  {GOOD}\r\n");
        assert_eq!(parse_secrets("x", &text).unwrap().len(), 2);
        assert_eq!(parse_secrets("x", GOOD).unwrap().len(), 1);
    }

    #[test]
    fn invalid_secret_is_reported_by_line_without_its_text() {
        let error =
            parse_secrets("webhook.secret", &format!("{GOOD}\nwhsec_hush!\n")).unwrap_err().to_string();
        assert!(error.starts_with("webhook.secret, line 2: ") && !error.contains("hush"), "{error}");
        let error = parse_secrets("--secret", "hush").unwrap_err().to_string();
        assert!(error.starts_with("--secret: a webhook secret is whsec_"), "{error}");
        assert!(matches!(parse_secrets("f", "# none\n"), Err(WebhookCommandError::EmptySecretFile(_))));
    }
}
