//! The progress of a message and the outcome of its turn.

use std::sync::Arc;
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::{Problem, Reply, Timestamp};

/// The status of a message. It only moves forward: `queued`, `sent`, `acked`, `answering`, then `answered`. A message can
/// turn `failed` from any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageStatus {
    /// The store has the message, and the bridge has not sent it.
    Queued,
    /// The bridge sent it, and the platform has not reacted.
    Sent,
    /// The platform acknowledged it.
    Acked,
    /// At least one reply arrived.
    Answering,
    /// The turn ended with an answer, which may be empty.
    Answered,
    /// The turn ended with a Problem.
    Failed,
}

impl MessageStatus {
    /// Returns its name in the API.
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

/// The rule that ended an answered turn (api.md 1, "When a turn begins and ends").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The number of replies that the caller expected.
    ReplyCount,
    /// The bot waits for the user.
    InputWait,
    /// The platform ended the session.
    SessionEnd,
    /// A human agent took over.
    Agent,
    /// No reply for this quiet time. Ends of earlier versions do not know it.
    Quiet(Option<QuietWait>),
    /// The bot had nothing to say of itself to a message that only connects.
    Silence,
    /// The deadline, in a turn that had replies.
    Deadline,
    /// Too many replies, or too large ones.
    Limit,
}

impl EndedBy {
    /// Every rule, for metrics and tests. The quiet time has no length.
    pub const ALL: [Self; 8] = [
        Self::ReplyCount,
        Self::InputWait,
        Self::SessionEnd,
        Self::Agent,
        Self::Quiet(None),
        Self::Silence,
        Self::Deadline,
        Self::Limit,
    ];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplyCount => "replyCount",
            Self::InputWait => "inputWait",
            Self::SessionEnd => "sessionEnd",
            Self::Agent => "agent",
            Self::Quiet(_) => "quiet",
            Self::Silence => "silence",
            Self::Deadline => "deadline",
            Self::Limit => "limit",
        }
    }

    /// Returns the quiet time that ended the turn.
    pub const fn quiet(self) -> Option<QuietWait> {
        if let Self::Quiet(wait) = self { wait } else { None }
    }

    /// Returns whether the bot had finished at this end: by a positive sign, or by the quiet time.
    pub const fn is_complete(self) -> bool {
        !matches!(self, Self::Deadline | Self::Limit)
    }
}

/// A quiet time: the silence after a reply that ends its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuietWait {
    /// Its length.
    pub wait: Duration,
    /// Its source.
    pub by: QuietSource,
}

impl QuietWait {
    /// Returns its length in whole milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Serialize for QuietWait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("QuietWait", 2)?;
        fields.serialize_field("ms", &self.millis())?;
        fields.serialize_field("by", &self.by)?;
        fields.end()
    }
}

/// The source of a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuietSource {
    /// The rhythm of the bot.
    Learned,
    /// A default of the bridge: the rhythm of the bot is unknown, or the bot has announced more.
    Default,
    /// The rules of the message.
    Caller,
    /// The fixed time of the configuration.
    Configured,
}

impl QuietSource {
    /// Every source.
    pub const ALL: [Self; 4] = [Self::Learned, Self::Default, Self::Caller, Self::Configured];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Default => "default",
            Self::Caller => "caller",
            Self::Configured => "configured",
        }
    }
}

/// The outcome of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnOutcome {
    /// The turn ended with an answer, which may be empty.
    Answered(EndedBy),
    /// The turn ended with a Problem.
    Failed(Problem),
}

/// The progress of a message. Its status follows from it.
#[derive(Clone, Debug, Default)]
pub struct MessageProgress {
    /// The time just before the first send.
    pub sent_at: Option<Timestamp>,
    /// The time of the platform's acknowledgement. Replies may come without one.
    pub acked_at: Option<Timestamp>,
    /// The time of the first reply.
    pub first_reply_at: Option<Timestamp>,
    /// The end of the turn.
    pub ended_at: Option<Timestamp>,
    /// The replies so far, late ones included.
    pub replies: Vec<Arc<Reply>>,
    /// The outcome, once the turn has ended.
    pub outcome: Option<TurnOutcome>,
}

impl MessageProgress {
    /// Returns the status of the message.
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

    /// Returns whether the turn is over.
    pub const fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }
}
