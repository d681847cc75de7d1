//! The failures that a caller can see: slug, title and status in one table.
//!
//! A Problem (RFC 9457) is part of a failed Message: the store keeps it, HTTP returns it and webhooks deliver it. So
//! the table belongs to this layer. The HTTP layer adds only the members of one response: instance, trace id, field
//! errors and headers.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

macro_rules! problem_kinds {
    ($($(#[$doc:meta])* $kind:ident = $status:literal, $slug:literal, $title:literal;)*) => {
        /// A kind of failure. The slug is its identity for callers and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemKind { $($(#[$doc])* $kind,)* }

        impl ProblemKind {
            /// Every kind, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns the last part of the problem's `type`, such as `no-reply`.
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)* }
            }

            /// Returns the HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }

            /// Returns the title: one line for people, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

problem_kinds! {
    /// Malformed JSON, or a field or header that is missing, unknown or out of range.
    InvalidRequest = 400, "invalid-request", "The request is not valid";
    /// The request has no key, or an unknown one.
    Unauthorized = 401, "unauthorized", "A valid key or token is needed";
    /// The key does not cover the request.
    Forbidden = 403, "forbidden", "The key or token does not cover this request";
    /// No such route, bot, message or delivery.
    NotFound = 404, "not-found", "The resource does not exist";
    /// The route exists, the method does not.
    MethodNotAllowed = 405, "method-not-allowed", "The path does not allow this method";
    /// The head of the request did not arrive in time.
    RequestTimeout = 408, "request-timeout", "The request did not arrive in time";
    /// The conversation was erased while the message was open.
    Erased = 410, "erased", "The message was erased with its conversation";
    /// The body is over our limit, or the platform closed with 1009.
    PayloadTooLarge = 413, "payload-too-large", "The payload is too large";
    /// The body has a type or an encoding that the route does not take.
    UnsupportedMediaType = 415, "unsupported-media-type", "The route does not take this type of body";
    /// The request names a host that this bridge does not serve.
    Misdirected = 421, "misdirected-request", "The bridge does not serve this host";
    /// The same idempotency key came with another body.
    IdempotencyMismatch = 422, "idempotency-mismatch", "The idempotency key belongs to another request";
    /// The callback URL is not allowed.
    CallbackRefused = 422, "callback-refused", "The callback is not allowed";
    /// The head of the request is over the limit of the HTTP server.
    HeadTooLarge = 431, "head-too-large", "The head of the request is too large";
    /// This replica or the store is at its limit.
    Overloaded = 503, "overloaded", "The bridge is at its limit; retry later";
    /// The conversation has too many open messages.
    LaneFull = 429, "lane-full", "The conversation has too many open messages";
    /// The caller used up its requests of the last minute.
    RateLimited = 429, "rate-limited", "The caller reached its rate limit; retry later";
    /// The platform refused the token or the start of a connection, and a retry would not help.
    PlatformRejected = 502, "platform-rejected", "The platform refused the bridge";
    /// The bridge had no connection before the deadline.
    PlatformUnavailable = 502, "platform-unavailable", "The platform did not accept a connection in time";
    /// The platform closed with 1008.
    BotBlocked = 502, "bot-blocked", "The platform blocks this bot or user for now";
    /// The link broke after sending, and the bridge cannot tell whether the platform received the message.
    Uncertain = 502, "uncertain", "The message may or may not have reached the bot";
    /// The platform sent no acknowledgement before the deadline.
    NoAck = 504, "no-ack", "The platform did not acknowledge the message in time";
    /// The bot sent no reply to an acknowledged message before the deadline.
    NoReply = 504, "no-reply", "The bot did not reply in time";
    /// The store did not answer in time.
    StoreUnavailable = 503, "store-unavailable", "The store did not answer";
    /// The keys that verify the caller's token are not known yet.
    IssuerUnavailable = 503, "issuer-unavailable", "The token cannot be verified now; retry later";
    /// The store lost the message after acceptance.
    MessageLost = 500, "message-lost", "The store lost the message after accepting it";
    /// The replica shuts down.
    Draining = 503, "draining", "The replica shuts down; retry with another one";
    /// The bridge has a bug.
    Internal = 500, "internal", "The bridge failed unexpectedly";
}

impl ProblemKind {
    /// Returns the kind with this slug.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.slug() == slug)
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slug())
    }
}

/// One failure: its kind, its circumstances, and the time for a retry.
///
/// Callers read `detail`, so it must hold no secret and no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of failure.
    pub kind: ProblemKind,
    /// The circumstances and the next step for the caller, in one or two sentences.
    pub detail: Cow<'static, str>,
    /// The time to wait before a retry, if known.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// Creates a failure of this kind with this detail.
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// Sets the time to wait before a retry.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Problem", 4)?;
        out.serialize_field("type", &format_args!("/problems/{}", self.kind.slug()))?;
        out.serialize_field("title", self.kind.title())?;
        out.serialize_field("status", &self.kind.status())?;
        out.serialize_field("detail", &self.detail)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slug_of_each_kind_is_unique_and_found_again() {
        for &kind in ProblemKind::ALL {
            assert_eq!(ProblemKind::from_slug(kind.slug()), Some(kind));
            assert!((400..600).contains(&kind.status()));
        }
        assert_eq!(ProblemKind::from_slug("nonsense"), None);
    }

    #[test]
    fn problem_as_json_follows_rfc_9457() {
        let problem = Problem::new(ProblemKind::NoReply, "nothing came");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "/problems/no-reply");
        assert_eq!(json["status"], 504);
        assert_eq!(json["detail"], "nothing came");
    }
}
