//! Entries of a conversation's journal.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{AcceptedMessage, MessageId, Reply, SessionRequest, Timestamp, TurnOutcome};

/// One entry: everything worth telling, in the order in which it happened.
#[derive(Clone, Debug)]
pub struct JournalEntry {
    /// Its place; rises by one per entry of the conversation.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub body: EntryBody,
}

/// What an entry tells.
#[derive(Clone, Debug)]
pub enum EntryBody {
    /// The bot said something. The reply is joined to its message, if it has one.
    Reply(Arc<Reply>),
    /// A message's turn ended.
    Ended {
        /// The message.
        message: MessageId,
        /// How.
        outcome: TurnOutcome,
    },
    /// The same of a message that asks for the session's end. Readers are not told of it: it says nothing to the bot,
    /// and what it did shows in the conversation.
    Closed {
        /// The message.
        message: MessageId,
        /// How.
        outcome: TurnOutcome,
    },
    /// Another session of the same user said something.
    UserMessage(Box<RawValue>),
    /// Any other event of the platform.
    Platform(Box<RawValue>),
    /// Entries may be missing here, for good.
    Gap(GapReason),
}

/// Why entries may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The link was down for a while, and the platform's history could not be read.
    HistoryUnreadable,
    /// The link was down for a while, and the platform's history did not reach back so far.
    HistoryTooShort,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::HistoryUnreadable, Self::HistoryTooShort];

    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HistoryUnreadable => "historyUnreadable",
            Self::HistoryTooShort => "historyTooShort",
        }
    }
}

impl EntryBody {
    /// The end of this message.
    pub fn end_of(accepted: &AcceptedMessage, outcome: TurnOutcome) -> Self {
        let message = accepted.id;
        if accepted.new.session == SessionRequest::Close {
            Self::Closed { message, outcome }
        } else {
            Self::Ended { message, outcome }
        }
    }
}

impl JournalEntry {
    /// Roughly how many bytes it keeps; bounds are counted with this.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 160;
        FIXED
            + match &self.body {
                EntryBody::Reply(reply) => reply.event.get().len() + reply.text.len(),
                EntryBody::Ended { .. } | EntryBody::Closed { .. } | EntryBody::Gap(_) => 0,
                EntryBody::UserMessage(raw) | EntryBody::Platform(raw) => raw.get().len(),
            }
    }
}
