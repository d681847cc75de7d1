//! What can go wrong between us and the platform, and what to do about it.
//!
//! A failure carries two texts. [`ConnectError::words`] is for callers: it holds no secret, because whatever the
//! platform said is cut and masked before it gets here. The error's sources are for logs.

use std::fmt;
use std::io;
use std::time::Duration;

use super::jwt::SignerError;

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAdvice {
    /// Try again at once; the next try begins with a new ticket.
    Now,
    /// Try again later; where the platform named a wait, not before it is over. The wait may be zero, so the
    /// caller's own backoff stays the least.
    Backoff(Option<Duration>),
    /// The same request cannot succeed; somebody has to change something.
    Never,
}

/// The step in which something failed; a closed set, fit for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectPhase {
    /// `POST …/oAuth/token/jwtgrant` (protocol.md 3).
    Grant,
    /// `POST …/rtm/start` (protocol.md 4).
    Start,
    /// The handshake of the web socket (protocol.md 5).
    Socket,
    /// `GET …/botmessages/rtm` (protocol.md 7.10).
    History,
}

impl ConnectPhase {
    /// Its word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Start => "start",
            Self::Socket => "socket",
            Self::History => "history",
        }
    }
}

impl fmt::Display for ConnectPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there was no answer to read.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The host's name has no address.
    #[error("the platform's host name cannot be resolved")]
    Dns,
    /// No TCP connection, or it broke before the answer was there.
    #[error("the connection to the platform cannot be opened or broke")]
    Connection(#[source] io::Error),
    /// No TLS: the certificate, the protocol version or the name does not fit.
    #[error("TLS with the platform failed; check its certificate and the configured host")]
    Tls(#[source] io::Error),
    /// A deadline of ours passed.
    #[error("the platform did not answer in time")]
    Deadline,
    /// The platform closed the connection instead of answering.
    #[error("the platform hung up before it answered")]
    HungUp,
    /// What came is not HTTP/1.1, or its head broke off.
    #[error("the platform's answer broke off or is not valid HTTP")]
    NotHttp,
    /// The body is larger than we take.
    #[error("the platform's answer is too large")]
    TooLarge,
}

impl CallError {
    const fn words(&self) -> &'static str {
        match self {
            Self::Dns => "the platform's host name cannot be resolved",
            Self::Connection(_) => "the connection to the platform cannot be opened or broke",
            Self::Tls(_) => "TLS with the platform failed; check its certificate and the configured host",
            Self::Deadline => "the platform did not answer in time",
            Self::HungUp => "the platform hung up before it answered",
            Self::NotHttp => "the platform's answer broke off or is not valid HTTP",
            Self::TooLarge => "the platform's answer is too large",
        }
    }
}

/// Why there is no socket, or no page of history.
///
/// `words` are at most 300 characters, masked (see [`ConnectError::words`]).
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The platform, or a rule of ours, says no for good.
    #[error("{phase}: {words}")]
    Rejected {
        /// Where.
        phase: ConnectPhase,
        /// What a caller may be told.
        words: Box<str>,
    },
    /// The access token counts as expired, the renewed one too.
    #[error("{phase}: {words}")]
    TokenExpired {
        /// Where.
        phase: ConnectPhase,
        /// What a caller may be told.
        words: Box<str>,
    },
    /// Too many calls (HTTP 429).
    #[error("{phase}: {words}")]
    Limited {
        /// Where.
        phase: ConnectPhase,
        /// What a caller may be told.
        words: Box<str>,
        /// The wait that `Retry-After` asks for, an hour at most.
        after: Option<Duration>,
    },
    /// The platform answered, but not with what is needed: 5xx, HTML, JSON without the field, a refused upgrade.
    #[error("{phase}: {words}")]
    Unavailable {
        /// Where.
        phase: ConnectPhase,
        /// What a caller may be told.
        words: Box<str>,
    },
    /// There was no answer.
    #[error("{phase}: {fault}")]
    Unreachable {
        /// Where.
        phase: ConnectPhase,
        /// Why.
        #[source]
        fault: CallError,
    },
    /// The ticket got too old before it could be used; URLs of `rtm/start` live for 30 s (protocol.md 4.2).
    #[error("socket: the ticket got too old before it could be used")]
    StaleTicket,
    /// No JWT can be signed with the bot's key.
    #[error("grant: {0}")]
    Signer(#[from] SignerError),
}

impl ConnectError {
    /// What to do next.
    pub const fn retry(&self) -> RetryAdvice {
        match self {
            Self::Rejected { .. } | Self::Signer(_) => RetryAdvice::Never,
            Self::Limited { after, .. } => RetryAdvice::Backoff(*after),
            Self::TokenExpired { .. } | Self::Unavailable { .. } | Self::Unreachable { .. } => {
                RetryAdvice::Backoff(None)
            }
            Self::StaleTicket => RetryAdvice::Now,
        }
    }

    /// What a caller may be told: at most 300 characters, without tokens, JWTs or keys.
    pub fn words(&self) -> &str {
        match self {
            Self::Rejected { words, .. }
            | Self::TokenExpired { words, .. }
            | Self::Limited { words, .. }
            | Self::Unavailable { words, .. } => words,
            Self::Unreachable { fault, .. } => fault.words(),
            Self::StaleTicket => "the platform's socket address expired before it could be used",
            Self::Signer(error) => error.words(),
        }
    }

    /// The step that failed, for metrics: `grant`, `start`, `socket` or `history`.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Rejected { phase, .. }
            | Self::TokenExpired { phase, .. }
            | Self::Limited { phase, .. }
            | Self::Unavailable { phase, .. }
            | Self::Unreachable { phase, .. } => phase.as_str(),
            Self::StaleTicket => ConnectPhase::Socket.as_str(),
            Self::Signer(_) => ConnectPhase::Grant.as_str(),
        }
    }
}
