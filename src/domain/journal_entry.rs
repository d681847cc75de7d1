//! Entries of a conversation's journal.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::{AcceptedMessage, MessageId, Reply, Timestamp, TurnOutcome};

/// One entry of a conversation's journal. Entries keep the order of the events.
#[derive(Clone, Debug)]
pub struct JournalEntry {
    /// The position, which rises by one with each entry of the conversation.
    pub seq: u64,
    /// The time of the event.
    pub at: Timestamp,
    /// The event.
    pub body: EntryBody,
}

/// The event of a journal entry.
#[derive(Clone, Debug)]
pub enum EntryBody {
    /// A reply of the bot, with its message if it has one.
    Reply(Arc<Reply>),
    /// A message's turn ended.
    Ended {
        /// The message.
        message: MessageId,
        /// The outcome of the turn.
        outcome: TurnOutcome,
    },
    /// A message that asks for the session's end has ended. Subscribers get no event for it: the message sends no text to
    /// the bot, and its effect shows in the conversation.
    Closed {
        /// The message.
        message: MessageId,
        /// The outcome of the turn.
        outcome: TurnOutcome,
    },
    /// A message that the same user sent in another session.
    UserMessage(Box<RawValue>),
    /// Any other event of the platform.
    Platform(Box<RawValue>),
    /// A place where entries are missing and stay missing, if there were any.
    Gap(GapReason),
    /// A message waits for a reply far longer than its bot ever took.
    Stuck {
        /// The message.
        message: MessageId,
        /// The time since it was sent.
        waited: Duration,
    },
}

/// The reason why entries may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The link was down for some time, and the platform's history could not be read.
    HistoryUnreadable,
    /// The link was down for some time, and the platform's history did not reach back far enough.
    HistoryTooShort,
    /// A part of the text of the streamed reply before it is missing.
    ReplyCut,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::HistoryUnreadable, Self::HistoryTooShort, Self::ReplyCut];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HistoryUnreadable => "historyUnreadable",
            Self::HistoryTooShort => "historyTooShort",
            Self::ReplyCut => "replyCut",
        }
    }
}

impl EntryBody {
    /// Returns the entry for the end of this message.
    pub fn end_of(accepted: &AcceptedMessage, outcome: TurnOutcome) -> Self {
        let message = accepted.id;
        if accepted.new.session.is_end() {
            Self::Closed { message, outcome }
        } else {
            Self::Ended { message, outcome }
        }
    }
}

impl JournalEntry {
    /// Returns the approximate number of bytes that the store keeps. The limits count with it.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 160;
        FIXED
            + match &self.body {
                EntryBody::Reply(reply) => reply.weight(),
                EntryBody::Ended { .. }
                | EntryBody::Closed { .. }
                | EntryBody::Gap(_)
                | EntryBody::Stuck { .. } => 0,
                EntryBody::UserMessage(raw) | EntryBody::Platform(raw) => raw.get().len(),
            }
    }
}
