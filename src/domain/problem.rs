//! The kinds of failure a caller can see: slug, title and status in one table.
//!
//! A Problem (RFC 9457) is part of a Message that failed: it is stored with it, returned by HTTP and told to
//! webhooks. That is why the table stands here and not in the HTTP layer, which only adds what belongs to one
//! response (instance, trace id, field errors, headers).

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

            /// The last part of the problem's `type`, such as `no-reply`.
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }

            /// One line for people, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

problem_kinds! {
    /// Malformed JSON, or a field or header that is missing, unknown or out of range.
    InvalidRequest = 400, "invalid-request", "The request is not valid";
    /// No key, or one that is not known.
    Unauthorized = 401, "unauthorized", "A valid caller key is needed";
    /// The key does not cover this.
    Forbidden = 403, "forbidden", "The caller key does not cover this";
    /// No such route, bot, message or delivery.
    NotFound = 404, "not-found", "There is no such thing";
    /// The route exists, the method does not.
    MethodNotAllowed = 405, "method-not-allowed", "The method is not allowed here";
    /// The body is over our limit, or the platform closed with 1009.
    PayloadTooLarge = 413, "payload-too-large", "The payload is too large";
    /// The body is not JSON.
    UnsupportedMediaType = 415, "unsupported-media-type", "The body must be JSON";
    /// The same idempotency key came with another body.
    IdempotencyMismatch = 422, "idempotency-mismatch", "The idempotency key was used for another request";
    /// The callback URL is not allowed.
    CallbackRefused = 422, "callback-refused", "The callback is not allowed";
    /// This replica or the store is at its limit.
    Overloaded = 503, "overloaded", "The bridge is at its limit";
    /// Too many open messages in this conversation.
    LaneFull = 429, "lane-full", "Too many open messages in this conversation";
    /// The caller's budget is spent.
    RateLimited = 429, "rate-limited", "The caller's rate limit is reached";
    /// The platform refused the grant or the start for good.
    PlatformRejected = 502, "platform-rejected", "The platform refused the bridge";
    /// No connection before the deadline.
    PlatformUnavailable = 502, "platform-unavailable", "The platform could not be reached in time";
    /// The platform closed with 1008.
    BotBlocked = 502, "bot-blocked", "The platform blocks this bot or user for now";
    /// The link broke after sending and nothing proves receipt.
    Uncertain = 502, "uncertain", "The message may or may not have reached the bot";
    /// No acknowledgement before the deadline.
    NoAck = 504, "no-ack", "The platform did not acknowledge the message in time";
    /// Acknowledged, but no reply before the deadline.
    NoReply = 504, "no-reply", "The bot did not reply in time";
    /// The store did not answer.
    StoreUnavailable = 503, "store-unavailable", "The store did not answer";
    /// The store lost the message after accepting it.
    MessageLost = 500, "message-lost", "The store lost the message after accepting it";
    /// This replica is going away.
    Draining = 503, "draining", "This replica is shutting down";
    /// A bug.
    Internal = 500, "internal", "Something went wrong inside the bridge";
}

impl ProblemKind {
    /// The kind with this slug.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.slug() == slug)
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slug())
    }
}

/// One failure: its kind, what happened this time, and when it is worth trying again.
///
/// `detail` is read by callers: it must hold no secret and no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of failure.
    pub kind: ProblemKind,
    /// What happened this time and what to do next, in one or two sentences.
    pub detail: Cow<'static, str>,
    /// How long to wait before trying again, where that is known.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A failure of this kind with this detail.
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// The same, with the time after which a repeat makes sense.
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
    fn slugs_are_unique_and_found_again() {
        for &kind in ProblemKind::ALL {
            assert_eq!(ProblemKind::from_slug(kind.slug()), Some(kind));
            assert!((400..600).contains(&kind.status()));
        }
        assert_eq!(ProblemKind::from_slug("nonsense"), None);
    }

    #[test]
    fn is_written_as_rfc_9457() {
        let problem = Problem::new(ProblemKind::NoReply, "nothing came");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "/problems/no-reply");
        assert_eq!(json["status"], 504);
        assert_eq!(json["detail"], "nothing came");
    }
}
