//! A conversation as its owner reads it, and the owner's writes.

use std::sync::Arc;

use crate::domain::{
    AcceptedMessage, ConversationRecord, EntryBody, Fingerprint, JournalEntry, MessageId, MessageProgress,
    NewDelivery, Timestamp, TurnOutcome,
};
use crate::store::Incarnation;

/// One open message with its progress.
#[derive(Debug, Clone)]
pub struct OpenMessage {
    /// The accepted message.
    pub accepted: Arc<AcceptedMessage>,
    /// Its progress.
    pub progress: MessageProgress,
}

/// The state of a conversation that a new owner needs.
#[derive(Debug, Clone, Default)]
pub struct ConversationSnapshot {
    /// The record, which survives a move to another owner.
    pub record: ConversationRecord,
    /// The lane, head first.
    pub lane: Vec<OpenMessage>,
    /// The ids of the replies in the journal, oldest first. Empty if the record has all of them.
    pub journaled: Vec<Fingerprint>,
    /// The time at which the first message became the head; `None` for an empty lane.
    pub head_at: Option<Timestamp>,
    /// The position of the next accepted message.
    pub next_position: u64,
    /// The replicas that read the conversation live, as far as the store knows. An owner gets no hint at observers
    /// from before its claim.
    pub observers: Vec<Incarnation>,
}

/// One change of a conversation. A [`ConversationWrite`] carries them in order.
#[derive(Debug, Clone)]
pub enum ConversationChange {
    /// The message is about to go out. A resend repeats it, and the first time counts.
    Sent {
        /// The message.
        message: MessageId,
        /// The time.
        at: Timestamp,
    },
    /// The platform acknowledged the message.
    Acked {
        /// The message.
        message: MessageId,
        /// The time.
        at: Timestamp,
    },
    /// The first sign of a reply that is not complete yet (a stream).
    Answering {
        /// The message.
        message: MessageId,
        /// The time.
        at: Timestamp,
    },
    /// The head was not sent, for a reason on our side. It does not count as sent any more, and its deadline begins
    /// anew.
    HeadSince {
        /// The time.
        at: Timestamp,
    },
    /// A delivery, right after the entry that it reports. If that entry is a skipped end, the delivery is skipped
    /// too.
    Deliver(Box<NewDelivery>),
    /// A journal entry. A reply is joined to its message and counts as its first sign. An end removes its message
    /// from the lane. The next message becomes the head at the entry's time.
    Append(JournalEntry),
}

impl ConversationChange {
    /// Returns the weight that the change adds to the journal, by [`JournalEntry::weight`].
    pub(crate) fn weight(&self) -> usize {
        if let Self::Append(entry) = self { entry.weight() } else { 0 }
    }

    /// Returns the end that the change reports, if it is one.
    pub(crate) const fn ended(&self) -> Option<(MessageId, &TurnOutcome)> {
        match self {
            Self::Append(entry) => entry.ended(),
            _ => None,
        }
    }
}

/// An owner's write: changes and the record after them, in one step.
#[derive(Debug, Clone)]
pub struct ConversationWrite {
    /// The record. The write's number is `record.write` ([`ConversationRecord::number_write`]). A repeat of the last
    /// number changes nothing.
    pub record: ConversationRecord,
    /// The number of the previous write; 0 if the store has no record. The write is carried out only if that is the
    /// last one.
    pub follows: u64,
    /// The changes.
    pub changes: Vec<ConversationChange>,
    /// The time until which a new owner opens a link without an open message, because the bot may still be speaking.
    /// Without it
    /// the time of an earlier write stays.
    pub warm_until: Option<Timestamp>,
}

/// The result of a [`ConversationWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteResult {
    /// The store's time.
    pub now: Timestamp,
    /// Whether the store lost a message that was to be marked as sent or ended. The rest of the write was carried
    /// out.
    pub lost: bool,
}

impl JournalEntry {
    /// Returns the end that the entry reports, if it is one.
    pub(crate) const fn ended(&self) -> Option<(MessageId, &TurnOutcome)> {
        match &self.body {
            EntryBody::Ended { message, outcome } | EntryBody::Closed { message, outcome } => {
                Some((*message, outcome))
            }
            _ => None,
        }
    }
}
