//! How far a message has come and how its turn ended.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Problem, Reply, Timestamp};

/// Where a message stands. It moves to the right only: `queued`, `sent`, `acked`, `answering`, then
/// `answered`, or `failed` from any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageStatus {
    /// In the store, not yet sent.
    Queued,
    /// Sent, nothing heard.
    Sent,
    /// The platform acknowledged it.
    Acked,
    /// At least one reply is there.
    Answering,
    /// The turn ended with what the bot said.
    Answered,
    /// The turn ended with a Problem.
    Failed,
}

impl MessageStatus {
    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Acked => "acked",
            Self::Answering => "answering",
            Self::Answered => "answered",
            Self::Failed => "failed",
        }
    }
}

impl Serialize for MessageStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The rule that ended an answered turn (api.md 1, "When a turn begins and ends").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// As many replies as the caller expected.
    ReplyCount,
    /// The bot waits for the user.
    InputWait,
    /// The platform ended the session.
    SessionEnd,
    /// A human agent took over.
    Agent,
    /// Nothing more came for the quiet time.
    Quiet,
    /// The deadline cut a turn that had replies.
    Deadline,
    /// Too many replies, or too large.
    Limit,
}

impl EndedBy {
    /// Every rule, for metrics.
    pub const ALL: [Self; 7] = [
        Self::ReplyCount,
        Self::InputWait,
        Self::SessionEnd,
        Self::Agent,
        Self::Quiet,
        Self::Deadline,
        Self::Limit,
    ];

    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplyCount => "replyCount",
            Self::InputWait => "inputWait",
            Self::SessionEnd => "sessionEnd",
            Self::Agent => "agent",
            Self::Quiet => "quiet",
            Self::Deadline => "deadline",
            Self::Limit => "limit",
        }
    }

    /// Whether such an end means that the bot had said all: a positive sign, or the quiet time.
    pub const fn is_complete(self) -> bool {
        !matches!(self, Self::Deadline | Self::Limit)
    }
}

impl Serialize for EndedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnOutcome {
    /// With what the bot said, which may be nothing.
    Answered(EndedBy),
    /// With a Problem.
    Failed(Problem),
}

/// How far a message has come. The status follows from it.
#[derive(Clone, Debug, Default)]
pub struct MessageProgress {
    /// When it was first about to go out.
    pub sent_at: Option<Timestamp>,
    /// When the platform's ack arrived; replies may come without one.
    pub acked_at: Option<Timestamp>,
    /// When the first reply arrived.
    pub first_reply_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What the bot said, late replies included.
    pub replies: Vec<Arc<Reply>>,
    /// How it ended; none while it runs.
    pub outcome: Option<TurnOutcome>,
}

impl MessageProgress {
    /// Where the message stands.
    pub const fn status(&self) -> MessageStatus {
        match self.outcome {
            Some(TurnOutcome::Answered(_)) => MessageStatus::Answered,
            Some(TurnOutcome::Failed(_)) => MessageStatus::Failed,
            None if self.first_reply_at.is_some() => MessageStatus::Answering,
            None if self.acked_at.is_some() => MessageStatus::Acked,
            None if self.sent_at.is_some() => MessageStatus::Sent,
            None => MessageStatus::Queued,
        }
    }

    /// Whether the turn is over.
    pub const fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }
}
