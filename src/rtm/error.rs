//! Failures between the bridge and the platform, and the advice for each.
//!
//! A failure carries two texts. [`ConnectError::public_message`] is for callers and holds no secret: the platform's
//! text is cut and masked before. The error's sources are for logs.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::config::InvalidJwtKey;
use crate::tcp::ProxyError;

/// Advice after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAdvice {
    /// Retry at once; the retry begins with a new ticket.
    Now,
    /// Retry after a backoff, and not before the wait that the platform named. That wait may be zero, so the caller's
    /// own backoff is the lower bound.
    Backoff(Option<Duration>),
    /// The same request cannot succeed until an operator changes something.
    Never,
}

/// Step of a connect or of an upload, or the history call. A closed set, fit for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectPhase {
    /// The request to the bot's assertion service (protocol.md 2.3).
    Assertion,
    /// `POST …/oAuth/token/jwtgrant` (protocol.md 3).
    Grant,
    /// `POST …/rtm/start` (protocol.md 4).
    Start,
    /// The handshake of the web socket (protocol.md 5).
    Socket,
    /// `GET …/botmessages/rtm` (protocol.md 7.10).
    History,
    /// `POST …/attachment/file/token` (protocol.md 13.1).
    FileToken,
    /// `POST …/attachment/file`
    File,
    /// `POST …/attachment/file/{token}/chunk`
    Chunk,
    /// `PUT …/attachment/file/{token}`
    Complete,
    /// `GET …/attachment/v2/stream/{bot}/file/{file}/url`
    FileUrl,
}

impl ConnectPhase {
    /// Returns the name for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::Grant => "grant",
            Self::Start => "start",
            Self::Socket => "socket",
            Self::History => "history",
            Self::FileToken => "token",
            Self::File => "file",
            Self::Chunk => "chunk",
            Self::Complete => "complete",
            Self::FileUrl => "url",
        }
    }

    /// Returns the server that answers in this step, for callers.
    pub(super) const fn server(self) -> &'static str {
        if matches!(self, Self::Assertion) { "the assertion service" } else { "the platform" }
    }
}

impl fmt::Display for ConnectPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reason why a call has no readable answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.public_message())]
pub enum CallError {
    /// The host's name has no address.
    Dns,
    /// No TCP connection opened, or it broke before the answer.
    Connection(#[source] io::Error),
    /// The TLS handshake failed: the certificate, the protocol version or the name does not fit.
    Tls(#[source] io::Error),
    /// One of our timeouts passed.
    Timeout,
    /// The platform closed the connection instead of answering.
    HungUp,
    /// The proxy opened no connection to the platform.
    Proxy {
        /// Cause.
        cause: ProxyError,
        /// Text for callers.
        public_message: Box<str>,
    },
    /// The answer is not HTTP/1.1, or its head broke off.
    NotHttp,
    /// The body exceeds our limit.
    TooLarge,
}

impl CallError {
    pub(super) fn of_proxy(cause: ProxyError) -> Self {
        let public_message = cause.to_string().into();
        Self::Proxy { cause, public_message }
    }

    /// Returns whether the platform or the proxy did not answer in time.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout | Self::Proxy { cause: ProxyError::Timeout, .. })
    }

    const fn public_message(&self) -> &str {
        match self {
            Self::Proxy { public_message, .. } => public_message,
            Self::Dns => "the platform's host name cannot be resolved",
            Self::Connection(_) => "the connection to the platform cannot be opened or broke",
            Self::Tls(_) => "TLS with the platform failed; check its certificate and the configured host",
            Self::Timeout => "the platform did not answer in time",
            Self::HungUp => "the platform hung up before it answered",
            Self::NotHttp => "the platform's answer broke off or is not valid HTTP",
            Self::TooLarge => "the platform's answer is too large",
        }
    }

    /// Returns the same of the assertion service.
    const fn assertion_message(&self) -> &str {
        match self {
            Self::Proxy { public_message, .. } => public_message,
            Self::Dns => "the assertion service's host name cannot be resolved",
            Self::Connection(_) => "the connection to the assertion service cannot be opened or broke",
            Self::Tls(_) => "TLS with the assertion service failed; check its certificate and assertion_url",
            Self::Timeout => "the assertion service did not answer in time",
            Self::HungUp => "the assertion service hung up before it answered",
            Self::NotHttp => "the assertion service's answer broke off or is not valid HTTP",
            Self::TooLarge => "the assertion service's answer is too large",
        }
    }
}

/// Reason why there is no socket, or no page of history. Each `public_message` has at most 300 characters and is
/// masked (see [`ConnectError::public_message`]).
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The platform, or a rule of ours, refused for good.
    #[error("{phase}: {public_message}")]
    Rejected {
        /// Failed step.
        phase: ConnectPhase,
        /// Text for callers.
        public_message: Box<str>,
    },
    /// The assertion service refuses a body of this format, or what it says.
    #[error("assertion: {public_message}")]
    BodyRefused {
        /// Text for callers.
        public_message: Box<str>,
    },
    /// The access token counts as expired, even after its renewal.
    #[error("{phase}: {public_message}")]
    TokenExpired {
        /// Failed step.
        phase: ConnectPhase,
        /// Text for callers.
        public_message: Box<str>,
    },
    /// The platform answered 429.
    #[error("{phase}: {public_message}")]
    RateLimited {
        /// Failed step.
        phase: ConnectPhase,
        /// Text for callers.
        public_message: Box<str>,
        /// Wait from `Retry-After`, an hour at most.
        retry_after: Option<Duration>,
    },
    /// The platform answered 413.
    #[error("{phase}: {public_message}")]
    TooLarge {
        /// Failed step.
        phase: ConnectPhase,
        /// Text for callers.
        public_message: Box<str>,
    },
    /// The platform lacks chunks of a file.
    #[error("complete: the platform lost chunks of the file")]
    ChunksLost {
        /// Their numbers, from 0.
        numbers: Vec<usize>,
    },
    /// The answer is unusable: 5xx, HTML, JSON without the field, or a refused upgrade.
    #[error("{phase}: {public_message}")]
    Unavailable {
        /// Failed step.
        phase: ConnectPhase,
        /// Text for callers.
        public_message: Box<str>,
    },
    /// The platform did not answer.
    #[error("{phase}: {error}")]
    Unreachable {
        /// Failed step.
        phase: ConnectPhase,
        /// Cause.
        #[source]
        error: CallError,
    },
    /// The ticket grew too old before its use; URLs of `rtm/start` live for 30 s (protocol.md 4.2).
    #[error("socket: the ticket got too old before it could be used")]
    StaleTicket,
    /// The bot's key cannot sign a JWT.
    #[error("grant: {0}")]
    Signer(#[from] InvalidJwtKey),
}

impl ConnectError {
    /// Returns the advice for the next step.
    pub const fn retry(&self) -> RetryAdvice {
        match self {
            // Lost chunks are sent before the next try.
            Self::Rejected { .. }
            | Self::BodyRefused { .. }
            | Self::TooLarge { .. }
            | Self::ChunksLost { .. }
            | Self::Signer(_) => RetryAdvice::Never,
            Self::RateLimited { retry_after, .. } => RetryAdvice::Backoff(*retry_after),
            Self::TokenExpired { .. } | Self::Unavailable { .. } | Self::Unreachable { .. } => {
                RetryAdvice::Backoff(None)
            }
            Self::StaleTicket => RetryAdvice::Now,
        }
    }

    /// Returns the text for callers: at most 300 characters, without tokens, JWTs or keys.
    pub fn public_message(&self) -> &str {
        match self {
            Self::Rejected { public_message, .. }
            | Self::BodyRefused { public_message }
            | Self::TokenExpired { public_message, .. }
            | Self::RateLimited { public_message, .. }
            | Self::TooLarge { public_message, .. }
            | Self::Unavailable { public_message, .. } => public_message,
            Self::Unreachable { phase: ConnectPhase::Assertion, error } => error.assertion_message(),
            Self::ChunksLost { .. } => "the platform lost parts of the file",
            Self::Unreachable { error, .. } => error.public_message(),
            Self::StaleTicket => "the platform's socket address expired before it could be used",
            Self::Signer(_) => {
                "the bridge's key for this bot cannot sign; `rtm-bridge check-config` says why"
            }
        }
    }

    /// Returns the name of the failed step for metrics, such as `grant`, or `proxy` for any of them.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Unreachable { error: CallError::Proxy { .. }, .. } => "proxy",
            _ => self.failed_phase().as_str(),
        }
    }

    /// Returns the failed step.
    pub(super) const fn failed_phase(&self) -> ConnectPhase {
        match self {
            Self::Rejected { phase, .. }
            | Self::TokenExpired { phase, .. }
            | Self::RateLimited { phase, .. }
            | Self::TooLarge { phase, .. }
            | Self::Unavailable { phase, .. }
            | Self::Unreachable { phase, .. } => *phase,
            Self::BodyRefused { .. } => ConnectPhase::Assertion,
            Self::ChunksLost { .. } => ConnectPhase::Complete,
            Self::StaleTicket => ConnectPhase::Socket,
            Self::Signer(_) => ConnectPhase::Grant,
        }
    }
}
