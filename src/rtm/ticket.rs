//! The ticket: the one-time address of a socket, as `rtm/start` gives it (protocol.md 4.2).
//!
//! Pure. The host in it is not trustworthy behind proxies, so a bot's `socket_base` may replace it; the query is
//! the platform's and is only added to.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::error::{ConnectError, ConnectPhase};
use super::refusal::fit;
use crate::config::{BotConfig, ConnectionStyle};

/// How long a ticket may be used (protocol.md 4.2).
const LIFETIME: Duration = Duration::from_secs(30);

/// What a new socket shall do to the platform's session (protocol.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectMode {
    /// Keep a running session; welcome only where there is none.
    Default,
    /// End the running session, bot's and agent's, and begin one.
    StartNew,
    /// As `StartNew`, but a conversation with a human agent goes on.
    StartNewResumeAgent,
    /// The socket only; session untouched, no welcome.
    Reconnect,
}

impl ConnectMode {
    /// What it adds to the query of the ticket's URL. The older style knows no difference between the modes
    /// that begin a session: a connect without parameter clears it and welcomes.
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

/// The address of one socket, good once and for 30 s. Its URL is a credential, hence no Debug.
pub(super) struct Ticket {
    /// Where to connect, parameters included.
    pub(super) url: Url,
    /// The platform's half of the secure handshake (protocol.md 5.2).
    pub(super) nonce: Option<SecretString>,
    /// When it was asked for: the platform's 30 s begin somewhat later.
    asked: Instant,
}

#[derive(Deserialize)]
struct Started {
    url: Box<str>,
    #[serde(default)]
    nonce: Option<String>,
}

impl Ticket {
    /// Reads the answer of `rtm/start`; `None` where it is not JSON or has no `url`.
    pub(super) fn read(
        body: &[u8],
        bot: &BotConfig,
        mode: ConnectMode,
        asked: Instant,
    ) -> Option<Result<Self, ConnectError>> {
        let started: Started = serde_json::from_slice(body).ok()?;
        let nonce = started.nonce.filter(|nonce| !nonce.is_empty());
        Some(address(&started.url, bot, mode).map(|url| Self { url, nonce: nonce.map(Into::into), asked }))
    }

    /// Whether it may still be used at `now`.
    pub(super) fn fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) < LIFETIME
    }
}

/// Where to connect: the ticket's path and query, at `socket_base` where there is one, with the mode.
fn address(url: &str, bot: &BotConfig, mode: ConnectMode) -> Result<Url, ConnectError> {
    let unusable = || ConnectError::Unavailable {
        phase: ConnectPhase::Start,
        words: "the platform's socket address is no URL".into(),
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
        "ws" | "http" if plain_allowed(bot) => "ws",
        "ws" | "http" => {
            let host = url.host_str().unwrap_or_default();
            let words = format!(
                "the platform offers an unencrypted socket at {host}; set `socket_base` to the wss:// address"
            );
            return Err(ConnectError::Rejected { phase: ConnectPhase::Start, words: fit(&words) });
        }
        _ => return Err(unusable()),
    };
    url.set_scheme(scheme).map_err(|()| unusable())?;
    if let Some(parameter) = mode.parameter(bot.connection_mode) {
        let query = match url.query() {
            None | Some("") => parameter.to_owned(),
            Some(query) => format!("{query}&{parameter}"),
        };
        url.set_query(Some(&query));
    }
    Ok(url)
}

/// Whether the operator accepts a socket without TLS for this bot.
fn plain_allowed(bot: &BotConfig) -> bool {
    let plain = |url: &Url| matches!(url.scheme(), "http" | "ws");
    bot.socket_base.as_ref().map_or_else(|| plain(&bot.platform), plain)
}
