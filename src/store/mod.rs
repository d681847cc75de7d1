//! The store: where accepted messages, their turns and the journals are kept, and what it promises.
//!
//! The contract, the same for every side of [`Store`]:
//!
//! * **One step.** Each operation is atomic and touches keys of one partition only, so that on Redis it is one
//!   script (docs/architecture.md, "Atomic by construction").
//! * **One writer.** An operation of an owner carries the [`Fence`] it claimed the partition with; if another
//!   claimed it since, the operation does nothing and says [`StoreError::Fenced`].
//! * **Safe to repeat.** Accept carries the message's id, a write its number; a repeat changes nothing and
//!   answers as the first did. A claim is repeated by claiming again, which gives a higher epoch.
//! * **The store's clock.** Every time in the store is the store's; answers carry it as `now`.
//! * **What is open stays.** Only what has ended expires: `message_ttl` after the end.
//!
//! What it does not know: sockets, HTTP, who waits.

mod clock;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{
    AcceptedMessage, ConversationId, Entry, Message, MessageId, NewMessage, Outcome, Partition, Progress,
    Record, Timestamp,
};

pub use clock::{Clock, ManualClock};
pub use memory::{Memory, MemoryLimits, MemoryStats};

/// What an owner proves itself with: a random incarnation and the epoch it claimed. Compared for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Chosen at random by the owner when it started.
    pub incarnation: u64,
    /// Rises with every claim of the partition, over restarts too.
    pub epoch: u64,
}

/// A caller's wish for exactly one message per key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Idempotency {
    /// The caller's name; keys of different callers never meet.
    pub caller: Box<str>,
    /// The caller's key.
    pub key: Box<str>,
    /// SHA-256 of the body's JSON value after defaults.
    pub body: [u8; 32],
}

/// A message to accept.
#[derive(Debug, Clone)]
pub struct Accept {
    /// Its id, chosen by the replica that took it.
    pub id: MessageId,
    /// What was posted.
    pub message: NewMessage,
    /// The caller's key, if it gave one.
    pub idempotency: Option<Idempotency>,
    /// Open messages the conversation may have, this one included.
    pub max_open: usize,
}

/// How an accept ended.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// It is durable, and will end.
    New(Arc<AcceptedMessage>),
    /// The idempotency key was used before, with the same body: this is that message as it stands.
    Replayed(Message),
}

/// Why an accept was refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The conversation has as many open messages as it may have.
    #[error("the conversation already has {0} open messages")]
    LaneFull(usize),
    /// The idempotency key was used before, with another body.
    #[error("the idempotency key was used for another body")]
    IdempotencyMismatch,
    /// The store is at its limit, and what is open must be able to end.
    #[error("the store is full")]
    Full,
    /// The store could not carry it out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the owner is told of one open message.
#[derive(Debug, Clone)]
pub struct OpenMessage {
    /// What was accepted.
    pub accepted: Arc<AcceptedMessage>,
    /// How far it has come.
    pub progress: Progress,
}

/// All the owner must know of a conversation to go on with it.
#[derive(Debug, Clone, Default)]
pub struct Open {
    /// What survives a move.
    pub record: Record,
    /// The lane, head first.
    pub lane: Vec<OpenMessage>,
    /// When the first of the lane became its head; none where the lane is empty.
    pub head_at: Option<Timestamp>,
    /// The position that the next accepted message will have.
    pub next_position: u64,
}

/// One change of a conversation. A [`Write`] carries some of them, in order.
#[derive(Debug, Clone)]
pub enum Change {
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
    /// Something for the journal. A reply is joined to its message, and is its first sign too. An end settles
    /// its message, which leaves the lane; the next one becomes the head at the entry's time.
    Append(Entry),
}

/// An owner's write: changes and the record after them, in one step.
#[derive(Debug, Clone)]
pub struct Write {
    /// Its number, `record.write`: one more than the last. A repeat of a number that was carried out changes
    /// nothing.
    pub record: Record,
    /// What changes.
    pub changes: Vec<Change>,
}

/// Why the store could not carry out an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another owner claimed the partition; nothing was written.
    #[error("the partition belongs to another owner")]
    Fenced,
    /// No answer in time: it may or may not have been carried out. Repeat it.
    #[error("the store did not answer within {0:?}")]
    Unknown(Duration),
}

/// A store. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Store {
    /// Inside this process.
    Memory(Arc<Memory>),
}

impl Store {
    /// The embedded store, empty, by the time of this machine.
    pub fn memory(limits: MemoryLimits) -> Self {
        Self::Memory(Memory::new(limits, Clock::wall()))
    }

    /// Accepts a message: idempotency, lane, `clientMessageId` and position in one step.
    ///
    /// The same id again is a repeat and answers as the first did, [`Accepted::New`], before anything else is
    /// looked at; the id of another conversation's message is refused as [`AcceptError::IdempotencyMismatch`].
    ///
    /// # Errors
    /// [`AcceptError`]; nothing was stored then, except perhaps with [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn accept(&self, accept: Accept) -> Result<Accepted, AcceptError> {
        match self {
            Self::Memory(memory) => memory.accept(accept),
        }
    }

    /// A message as it stands; `None` where it never was or has expired.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
    ) -> Result<Option<Message>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.message(conversation, id)),
        }
    }

    /// Takes a partition that nobody owns, whose lease has run out, or that this incarnation owns already.
    /// `None` where somebody else owns it. Each claim has a new epoch, so an owner that claims again fences off
    /// whatever it still had on its way.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn claim(
        &self,
        partition: Partition,
        incarnation: u64,
        lease: Duration,
    ) -> Result<Option<Fence>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.claim(partition, incarnation, lease)),
        }
    }

    /// Renews the lease, also one that has run out, as long as nobody else claimed the partition.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where it is no longer ours, [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn renew(
        &self,
        partition: Partition,
        fence: Fence,
        lease: Duration,
    ) -> Result<Timestamp, StoreError> {
        match self {
            Self::Memory(memory) => memory.renew(partition, fence, lease),
        }
    }

    /// Gives the partition back: it is free at once.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where it is no longer ours, [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn release(&self, partition: Partition, fence: Fence) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => memory.release(partition, fence),
        }
    }

    /// The conversations of the partition that have open messages.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn ready(&self, partition: Partition, fence: Fence) -> Result<Vec<ConversationId>, StoreError> {
        match self {
            Self::Memory(memory) => memory.ready(partition, fence),
        }
    }

    /// The record and the lane of a conversation, and the store's time.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn open(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<(Open, Timestamp), StoreError> {
        match self {
            Self::Memory(memory) => memory.open(fence, conversation),
        }
    }

    /// Carries out an owner's write and tells the store's time.
    ///
    /// Changes that come too late are left out, each by itself: progress of a message that has ended, and the
    /// end of a message that is not open, which the journal does not tell a second time either. Where the store
    /// has no record of the conversation (never had, expired, lost), a write of any number begins the count.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]: nothing was written. It is also the answer to a number that is neither the last
    /// one nor one more: the owner does not know what the store knows, and must open the conversation again.
    /// [`StoreError::Unknown`]: repeat the same write.
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &Write,
    ) -> Result<Timestamp, StoreError> {
        match self {
            Self::Memory(memory) => memory.write(fence, conversation, write),
        }
    }

    /// The entries of the journal after a place, oldest first, `limit` at most. The journal keeps its newest
    /// 1000 entries or 4 MiB, until 24 h after the last one; then the conversation is forgotten and places
    /// begin anew.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn journal(
        &self,
        conversation: &ConversationId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.journal(conversation, after, limit)),
        }
    }

    /// The store's clock.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    #[expect(clippy::unused_async, reason = "the contract is async: a store over the network must be")]
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.now()),
        }
    }
}

/// The end that an entry tells, where it tells one.
pub(crate) fn ended(entry: &Entry) -> Option<(MessageId, &Outcome)> {
    match &entry.body {
        crate::domain::EntryBody::Ended { message, outcome } => Some((*message, outcome)),
        _ => None,
    }
}
