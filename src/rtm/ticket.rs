//! The ticket: the one-time address of a socket from `rtm/start` (protocol.md 4.2). Pure.
//! `connector` asks for it.
//!
//! Behind a proxy the ticket's host may be wrong, so a bot's `socket_base` can replace it. The query is the
//! platform's, and this file only appends to it.

use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;
use url::Url;

use super::error::{ConnectError, ConnectPhase};
use super::redaction::redact;
use crate::config::{BotConfig, ConnectionStyle};
use crate::domain::lenient_json::{members, string};

/// Life of a ticket (protocol.md 4.2).
const LIFETIME: Duration = Duration::from_secs(30);

/// Effect of a new socket on the platform's session (protocol.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectMode {
    /// Keeps a running session. The welcome comes only without one.
    Default,
    /// Ends the running session of bot and agent, and begins one.
    StartNew,
    /// Like `StartNew`, but a conversation with a human agent goes on.
    StartNewResumeAgent,
    /// Opens only the socket, without effect on the session and without welcome.
    Reconnect,
}

impl ConnectMode {
    /// Returns the parameter for the ticket's URL. The older style has one way to begin a session: a connect without
    /// parameter clears the session and welcomes.
    const fn parameter(self, style: ConnectionStyle) -> Option<&'static str> {
        match (style, self) {
            (ConnectionStyle::ConnectionMode, Self::Default) => Some("ConnectionMode=Default"),
            (ConnectionStyle::ConnectionMode, Self::StartNew) => Some("ConnectionMode=Start_New"),
            (ConnectionStyle::ConnectionMode, Self::StartNewResumeAgent) => {
                Some("ConnectionMode=Start_New_Resume_Agent")
            }
            (ConnectionStyle::ConnectionMode, Self::Reconnect) => Some("ConnectionMode=Reconnect"),
            (ConnectionStyle::IsReconnect, Self::Reconnect) => Some("isReconnect=true"),
            (ConnectionStyle::IsReconnect, _) => None,
        }
    }
}

/// Address of one socket, good once and for 30 s. Its URL is a credential, so it has no Debug.
pub(super) struct Ticket {
    /// URL of the socket, with its parameters.
    pub(super) url: Url,
    /// The platform's half of the secure handshake (protocol.md 5.2).
    pub(super) nonce: Option<SecretString>,
    /// Time of the request. The platform's 30 s begin a little later.
    asked: Instant,
}

impl Ticket {
    /// Parses the answer of `rtm/start`. Returns `None` if it is not JSON or has no `url`.
    pub(super) fn parse(
        body: &[u8],
        bot: &BotConfig,
        mode: ConnectMode,
        asked: Instant,
    ) -> Option<Result<Self, ConnectError>> {
        let [url, nonce] = members(str::from_utf8(body).ok()?, ["url", "nonce"])?;
        let url = string(url?)?;
        let nonce = nonce.and_then(string).filter(|nonce| !nonce.is_empty());
        let nonce = nonce.map(|nonce| nonce.into_owned().into());
        Some(address(&url, bot, mode).map(|url| Self { url, nonce, asked }))
    }

    /// Returns whether the ticket may still be used at `now`.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) < LIFETIME
    }
}

/// Builds the socket's URL: the ticket's path and query, at `socket_base` if there is one, with the mode.
fn address(url: &str, bot: &BotConfig, mode: ConnectMode) -> Result<Url, ConnectError> {
    let unusable = || ConnectError::Unavailable {
        phase: ConnectPhase::Start,
        public_message: "the platform's socket address is no URL".into(),
    };
    let given = Url::parse(url).map_err(|_| unusable())?;
    let mut url = match &bot.socket_base {
        None => given,
        Some(base) => {
            let mut url = base.clone();
            url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), given.path()));
            url.set_query(given.query());
            url
        }
    };
    url.set_fragment(None);
    let scheme = match url.scheme() {
        "wss" | "https" => "wss",
        "ws" | "http" if allows_plain_socket(bot) => "ws",
        "ws" | "http" => {
            let host = url.host_str().unwrap_or_default();
            let public_message = format!(
                "the platform offers an unencrypted socket at {host}; set `socket_base` to the wss:// address"
            );
            return Err(ConnectError::Rejected {
                phase: ConnectPhase::Start,
                public_message: redact(&public_message),
            });
        }
        _ => return Err(unusable()),
    };
    url.set_scheme(scheme).map_err(|()| unusable())?;
    // A reconnect brings no welcome.
    let skip = (bot.skip_welcome && mode != ConnectMode::Reconnect).then_some("isSkipOnConnect=true");
    for parameter in [mode.parameter(bot.connection_mode), skip].into_iter().flatten() {
        let query = match url.query() {
            None | Some("") => parameter.to_owned(),
            Some(query) => format!("{query}&{parameter}"),
        };
        url.set_query(Some(&query));
    }
    Ok(url)
}

/// Returns whether the operator accepts a socket without TLS for this bot.
fn allows_plain_socket(bot: &BotConfig) -> bool {
    let plain = |url: &Url| matches!(url.scheme(), "http" | "ws");
    bot.socket_base.as_ref().map_or_else(|| plain(&bot.platform), plain)
}
