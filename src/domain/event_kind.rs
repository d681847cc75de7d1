//! The events that subscribers of a conversation receive, in the terms of api.md section 3.

use super::{EntryBody, TurnOutcome};

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A reply of the bot.
    Reply,
    /// A part of a streamed reply. Only live subscribers get it.
    Chunk,
    /// A message's turn ended with an answer.
    Answered,
    /// A message failed.
    Failed,
    /// A message that the same user sent in another session.
    UserMessage,
    /// Any other event of the platform.
    Platform,
    /// A place where events may be missing.
    Gap,
    /// A message waits for a reply far longer than its bot ever took.
    Stuck,
}

impl EventKind {
    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::Reply,
        Self::Chunk,
        Self::Answered,
        Self::Failed,
        Self::UserMessage,
        Self::Platform,
        Self::Gap,
        Self::Stuck,
    ];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Chunk => "chunk",
            Self::Answered => "message.answered",
            Self::Failed => "message.failed",
            Self::UserMessage => "userMessage",
            Self::Platform => "platform",
            Self::Gap => "gap",
            Self::Stuck => "stuck",
        }
    }
}

impl EventKind {
    /// Returns the event's type for an entry, or `None` for an entry that subscribers do not get.
    pub const fn of(body: &EntryBody) -> Option<Self> {
        Some(match body {
            EntryBody::Reply(_) => Self::Reply,
            EntryBody::Ended { outcome: TurnOutcome::Answered(_), .. } => Self::Answered,
            EntryBody::Ended { outcome: TurnOutcome::Failed(_), .. } => Self::Failed,
            EntryBody::Closed { .. } => return None,
            EntryBody::UserMessage(_) => Self::UserMessage,
            EntryBody::Platform(_) => Self::Platform,
            EntryBody::Gap(_) => Self::Gap,
            EntryBody::Stuck { .. } => Self::Stuck,
        })
    }
}
