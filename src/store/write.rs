//! A conversation as its owner reads it, and what the owner writes.

use std::sync::Arc;

use crate::domain::{
    AcceptedMessage, ConversationRecord, EntryBody, JournalEntry, MessageId, MessageProgress, NewDelivery,
    Timestamp, TurnOutcome,
};
use crate::store::Incarnation;

/// What the owner is told of one open message.
#[derive(Debug, Clone)]
pub struct OpenMessage {
    /// What was accepted.
    pub accepted: Arc<AcceptedMessage>,
    /// How far it has come.
    pub progress: MessageProgress,
}

/// All the owner must know of a conversation to go on with it.
#[derive(Debug, Clone, Default)]
pub struct ConversationSnapshot {
    /// What survives a move.
    pub record: ConversationRecord,
    /// The lane, head first.
    pub lane: Vec<OpenMessage>,
    /// When the first of the lane became its head; none where the lane is empty.
    pub head_at: Option<Timestamp>,
    /// The position that the next accepted message will have.
    pub next_position: u64,
    /// The replicas at which somebody reads the conversation live, as far as the store knows: an owner that was not one
    /// when they said so was not told.
    pub observers: Vec<Incarnation>,
}

/// One change of a conversation. A [`ConversationWrite`] carries some of them, in order.
#[derive(Debug, Clone)]
pub enum ConversationChange {
    /// The message is about to go out. Repeated for a resend; the first time counts.
    Sent {
        /// Which.
        message: MessageId,
        /// When.
        at: Timestamp,
    },
    /// The platform acknowledged it.
    Acked {
        /// Which.
        message: MessageId,
        /// When.
        at: Timestamp,
    },
    /// The first sign of a reply, where the reply itself is not finished yet (a stream).
    Answering {
        /// Which.
        message: MessageId,
        /// When.
        at: Timestamp,
    },
    /// The head's time begins anew: it could not be sent for reasons that are ours.
    HeadSince {
        /// When.
        at: Timestamp,
    },
    /// A delivery, told of right after the entry that it tells of. Where that entry is an end which is left out, the
    /// delivery is left out too.
    Deliver(Box<NewDelivery>),
    /// Something for the journal. A reply is joined to its message, and is its first sign too. An end settles
    /// its message, which leaves the lane; the next one becomes the head at the entry's time.
    Append(JournalEntry),
}

impl ConversationChange {
    /// What it adds to the journal, by [`JournalEntry::weight`].
    pub(crate) fn weight(&self) -> usize {
        if let Self::Append(entry) = self { entry.weight() } else { 0 }
    }

    /// The end that the change tells, where it tells one.
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
    /// Its number is `record.write` ([`ConversationRecord::number_write`]). A repeat of the number that was carried out last
    /// changes nothing.
    pub record: ConversationRecord,
    /// The number of the write that this one continues; 0 where the store has no record. It is carried out only
    /// where that is the last one.
    pub follows: u64,
    /// What changes.
    pub changes: Vec<ConversationChange>,
    /// Until when, at least, a new owner of the partition should open a link although nothing is open: the bot may
    /// still be speaking. None leaves what an earlier write said.
    pub warm_until: Option<Timestamp>,
}

/// What became of a [`ConversationWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteResult {
    /// The store's time.
    pub now: Timestamp,
    /// A message that was to be marked as sent, or to end, is not in the lane although the owner knew it there:
    /// the store lost it. The rest of the write was carried out.
    pub lost: bool,
}

impl JournalEntry {
    /// The end that the entry tells, where it tells one.
    pub(crate) const fn ended(&self) -> Option<(MessageId, &TurnOutcome)> {
        match &self.body {
            EntryBody::Ended { message, outcome } | EntryBody::Closed { message, outcome } => {
                Some((*message, outcome))
            }
            _ => None,
        }
    }
}
