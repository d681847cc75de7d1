//! What readers of a conversation are told, in the words of api.md section 3.

use super::{EntryBody, TurnOutcome};

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The bot said something.
    Reply,
    /// A piece of a streamed reply; live readers only.
    Chunk,
    /// A message's turn ended with what the bot said.
    Answered,
    /// A message failed.
    Failed,
    /// Another session of the same user said something.
    UserMessage,
    /// Any other event of the platform.
    Platform,
    /// Something may be missing here.
    Gap,
}

impl EventKind {
    /// Every type.
    pub const ALL: [Self; 7] = [
        Self::Reply,
        Self::Chunk,
        Self::Answered,
        Self::Failed,
        Self::UserMessage,
        Self::Platform,
        Self::Gap,
    ];

    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Chunk => "chunk",
            Self::Answered => "message.answered",
            Self::Failed => "message.failed",
            Self::UserMessage => "userMessage",
            Self::Platform => "platform",
            Self::Gap => "gap",
        }
    }
}

impl EventKind {
    /// What an entry is told as; none of what readers are not told.
    pub const fn of(body: &EntryBody) -> Option<Self> {
        Some(match body {
            EntryBody::Reply(_) => Self::Reply,
            EntryBody::Ended { outcome: TurnOutcome::Answered(_), .. } => Self::Answered,
            EntryBody::Ended { outcome: TurnOutcome::Failed(_), .. } => Self::Failed,
            EntryBody::Closed { .. } => return None,
            EntryBody::UserMessage(_) => Self::UserMessage,
            EntryBody::Platform(_) => Self::Platform,
            EntryBody::Gap(_) => Self::Gap,
        })
    }
}
