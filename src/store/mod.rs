//! The store: where accepted messages, their turns and the journals are kept, and what it promises.
//!
//! The contract, the same for every side of [`StoreConfig`]:
//!
//! * **One step.** Each operation is atomic and touches keys of one partition only, so that on Redis it is one
//!   script (docs/architecture.md, "Atomic by construction").
//! * **One writer.** An operation of an owner carries the [`Fence`] it claimed the partition with; if another
//!   claimed it since, the operation does nothing and says [`StoreError::Fenced`].
//! * **Safe to repeat.** Accept carries the message's id, a write its number; a repeat changes nothing and
//!   answers as the first did. A claim is repeated by claiming again, which gives a higher epoch.
//! * **The store's clock.** Every time in the store is the store's; answers carry it as `now`.
//! * **What is open stays.** Only what has ended expires: `message_ttl` after the end.
//! * **Hints may be lost.** What replicas tell each other ([`Hint`]) only makes them faster: whoever relies on it
//!   also reads in time.
//!
//! What it does not know: sockets, HTTP, who waits on a replica.

mod accept;
mod clock;
mod error;
mod estimate;
mod fleet;
mod hint;
mod lease;
mod memory;
mod news;
mod outbox;
mod ownership;
mod page;
mod redis;
mod schema;
mod state;
mod write;

use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use crate::domain::Cursor;
use crate::domain::{
    BotName, ConversationId, ConversationState, JournalPage, Message, MessageId, Partition, ReadStart,
    Timestamp,
};

pub use accept::{AcceptError, AcceptRequest, AcceptResult, IdempotencyRequest};
pub use clock::{Clock, ManualClock};
pub use error::{StoreError, StoreRefusal};
pub use estimate::StoreClock;
pub use fleet::{ConnectPermit, FleetStatus, Heartbeat, ReplicaIdentity};
pub use hint::Hint;
pub use lease::{ClaimMode, ClaimResult, Fence, Incarnation};
pub use memory::{MemoryLimits, MemoryStats, MemoryStore};
pub use news::{OutboxEvent, OutboxEventReceiver, OutboxEventSender, news};
pub use outbox::{
    ATTEMPTS, BeginResult, ClaimedDelivery, DEAD_TTL, DeliveryPage, DeliveryQuery, FinishRequest,
    FinishResult, OutboxPage, PendingQueue, QueueId, RedeliverResult, RetryDecision,
};
pub use ownership::{DrainReason, Ownership};
pub use redis::{
    HealthIssue, HintListener, MemoryUsage, MigrateError, MigrationReport, PrepareError, RedisHealth,
    RedisSetupError, RedisStore, Traffic,
};
pub use schema::{ForeignSchema, Migration, MigrationList, MigrationNumbers};
pub use write::{ConversationChange, ConversationSnapshot, ConversationWrite, OpenMessage, WriteResult};

/// How long a replica is hinted at new entries of a conversation after it asked for that, at least.
pub const OBSERVED: Duration = Duration::from_mins(1);

/// For how long an observer is noted. A note that still holds for [`OBSERVED`] is left as it is: who reads page after
/// page of a busy conversation writes nothing with most of them.
const NOTED: Duration = Duration::from_secs(75);

/// A store. Cheap to clone; used from any thread, by futures that stay on theirs.
#[derive(Debug, Clone)]
pub enum Store {
    /// Inside this process.
    Memory(Arc<MemoryStore>),
    /// On Redis, shared by all replicas.
    Redis(RedisStore),
}

impl Store {
    /// The embedded store, empty, by the time of this machine.
    pub fn memory(limits: MemoryLimits) -> Self {
        Self::Memory(MemoryStore::new(limits, Clock::wall()))
    }

    /// Makes sure that the store has this version's schema, before anything else is asked of it and again when
    /// it was emptied ([`FleetStatus::prepared`]). An empty store is set up; one with an older schema is not touched.
    /// Where another process is migrating it waits for up to 40 s, so do not hold up leases for it; it may be dropped
    /// at any point.
    ///
    /// # Errors
    /// [`PrepareError`]: nothing may be asked of the store then. Only [`MigrateError::Store`],
    /// [`MigrateError::Busy`] and [`MigrateError::LockLost`] may pass by themselves.
    pub async fn prepare(&self) -> Result<(), PrepareError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.prepare().await,
        }
    }

    /// Accepts a message: idempotency, lane, `clientMessageId` and position in one step.
    ///
    /// The same id again is a repeat and answers as the first did, before anything else is looked at; it answers
    /// [`AcceptResult::SentAtAccept`] only while [`AcceptRequest::send_at_accept`] holds. The id of another conversation's message is refused
    /// as [`AcceptError::IdempotencyMismatch`].
    ///
    /// # Errors
    /// [`AcceptError`]; nothing was stored then, except perhaps with [`StoreError::Unknown`].
    pub async fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        match self {
            Self::Memory(memory) => memory.accept(accept),
            Self::Redis(redis) => redis.accept(accept).await,
        }
    }

    /// A message as it stands; `None` where it never was or has expired. While it is open, `watcher` is noted
    /// in the same step, and is hinted at its end.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
    ) -> Result<Option<Message>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.message(conversation, id, watcher)),
            Self::Redis(redis) => redis.message(conversation, id, watcher).await,
        }
    }

    /// Takes a partition that nobody owns, that this incarnation owns already, or, where that is wanted, whose
    /// lease has run out. Each claim has a new epoch, so an owner that claims again fences off whatever it still
    /// had on its way.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn claim(
        &self,
        partition: Partition,
        incarnation: Incarnation,
        lease: Duration,
        claiming: ClaimMode,
    ) -> Result<ClaimResult, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.claim(partition, incarnation, lease, claiming)),
            Self::Redis(redis) => redis.claim(partition, incarnation, lease, claiming).await,
        }
    }

    /// Renews the lease, also one that has run out, as long as nobody else claimed the partition.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] and [`StoreError::Lost`] where it is no longer ours; [`StoreError::Unavailable`],
    /// [`StoreError::Unknown`].
    pub async fn renew(
        &self,
        partition: Partition,
        fence: Fence,
        lease: Duration,
    ) -> Result<Timestamp, StoreError> {
        match self {
            Self::Memory(memory) => memory.renew(partition, fence, lease),
            Self::Redis(redis) => redis.renew(partition, fence, lease).await,
        }
    }

    /// Gives the partition back: it is free at once, and all replicas are hinted at it ([`Hint::Fleet`]).
    ///
    /// # Errors
    /// As [`StoreConfig::renew`].
    pub async fn release(&self, partition: Partition, fence: Fence) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => memory.release(partition, fence),
            Self::Redis(redis) => redis.release(partition, fence).await,
        }
    }

    /// The conversations of the partition that have open messages; with `warm` also those whose
    /// [`ConversationWrite::warm_until`] has not come, which a new owner asks for once.
    ///
    /// # Errors
    /// As [`StoreConfig::renew`].
    pub async fn ready(
        &self,
        partition: Partition,
        fence: Fence,
        warm: bool,
    ) -> Result<Vec<ConversationId>, StoreError> {
        match self {
            Self::Memory(memory) => memory.ready(partition, fence, warm),
            Self::Redis(redis) => redis.ready(partition, fence, warm).await,
        }
    }

    /// The record and the lane of a conversation, and the store's time.
    ///
    /// # Errors
    /// As [`StoreConfig::renew`].
    pub async fn open(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<(ConversationSnapshot, Timestamp), StoreError> {
        match self {
            Self::Memory(memory) => memory.open(fence, conversation),
            Self::Redis(redis) => redis.open(fence, conversation).await,
        }
    }

    /// Carries out an owner's write. Replicas that watch a message that it ends are hinted at that.
    ///
    /// Changes that come too late are left out, each by itself: progress of a message that has ended, and the
    /// end of a message that is not open, which the journal does not tell a second time either. Where the store
    /// has no record of the conversation (never had, expired, lost), its last write counts as 0.
    /// A repeat answers as the first did, [`WriteResult::lost`] included.
    ///
    /// # Errors
    /// [`StoreError::OutOfStep`] and those of [`StoreConfig::renew`].
    pub async fn write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
    ) -> Result<WriteResult, StoreError> {
        match self {
            Self::Memory(memory) => memory.write(fence, conversation, write),
            Self::Redis(redis) => redis.write(fence, conversation, write).await,
        }
    }

    /// The entries of the journal after a place, oldest first, `limit` at most (1 to 1000) and 4 MiB or so, with what
    /// has become of the messages whose ends they tell, and where the next read begins. The journal keeps its newest
    /// 1000 entries or 4 MiB, until 24 h after the last one; then the conversation is forgotten and places begin anew.
    ///
    /// A place of another journal than is kept, behind its end or before its beginning is answered with the oldest
    /// entries and [`JournalPage::gap`]; [`Cursor::default`], the place before everything, only where the first entries are
    /// gone. Where there is nothing to read, the place stays as it is. Where places are missing inside the journal, the
    /// page ends before them and the next one has a gap.
    ///
    /// With `observer`, that replica is hinted at new entries ([`Hint::Appended`]) for [`OBSERVED`] from now on, and
    /// the owner at the observer ([`Hint::Observed`]), in the same step: no entry falls between read and hint. Where
    /// that was asked for within the last 15 s, neither is done again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn page(
        &self,
        conversation: &ConversationId,
        after: ReadStart,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> Result<JournalPage, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.page(conversation, after, limit, observer)),
            Self::Redis(redis) => redis.page(conversation, after, limit, observer).await,
        }
    }

    /// Goes on being hinted at what [`StoreConfig::page`] says, for these conversations; in one round trip for each of the
    /// store's servers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn observe(
        &self,
        conversations: &[ConversationId],
        observer: Incarnation,
    ) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.observe(conversations, observer);
                Ok(())
            }
            Self::Redis(redis) => redis.observe(conversations, observer).await,
        }
    }

    /// How a conversation stands as far as the store knows, and who owns it; [`ConversationState::connection`] is the
    /// owner's to tell, and is left as it is by default, but for a block that the record tells of. Where the owner is
    /// another replica than `by`, it is hinted at the question ([`Hint::Asked`]) in the same step.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn state(
        &self,
        conversation: &ConversationId,
        by: Incarnation,
        number: u64,
    ) -> Result<(ConversationState, Option<Incarnation>), StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.state(conversation, by, number)),
            Self::Redis(redis) => redis.state(conversation, by, number).await,
        }
    }

    /// Hints at something: [`Hint::Chunk`] or [`Hint::Answered`]. Of the others the store itself tells, in the step
    /// that they tell of, and nobody else may.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`]; with [`StoreRefusal::Unexpected`] a hint of another kind.
    pub async fn hint(&self, to: Incarnation, hint: &Hint) -> Result<(), StoreError> {
        let (Hint::Chunk(..) | Hint::Answered(..)) = hint else {
            tracing::error!("a hint that only the store may give is not passed on; this is a bug");
            return Err(StoreError::Unavailable(StoreRefusal::Unexpected));
        };
        match self {
            Self::Memory(memory) => {
                memory.hint(to, hint.clone());
                Ok(())
            }
            Self::Redis(redis) => redis.hint(to, hint).await,
        }
    }

    /// Says that a replica lives, and asks who else does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<FleetStatus, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.heartbeat(heartbeat)),
            Self::Redis(redis) => redis.heartbeat(heartbeat).await,
        }
    }

    /// Takes a replica that goes away out of the fleet; the others are hinted at it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.leave(incarnation);
                Ok(())
            }
            Self::Redis(redis) => redis.leave(incarnation).await,
        }
    }

    /// Counts a connect of this bot, if that keeps it at `limit` in any 60 seconds over the whole fleet; 0 is no
    /// limit. `token` is the connect's own: the same again is counted once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn permit(&self, bot: &BotName, limit: u32, token: u64) -> Result<ConnectPermit, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.permit(bot, limit, token)),
            Self::Redis(redis) => redis.permit(bot, limit, token).await,
        }
    }

    /// What is hinted to a replica from now on. Call it once per incarnation.
    pub fn listen(&self, incarnation: Incarnation) -> HintStream {
        match self {
            Self::Memory(memory) => HintStream::Memory(memory.listen(incarnation)),
            Self::Redis(redis) => HintStream::Redis(redis.listen(incarnation)),
        }
    }

    /// The store's clock.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.now()),
            Self::Redis(redis) => redis.now().await,
        }
    }

    /// What an operator should change about the store, as far as it is known; sentences.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Redis(redis) => redis.health().warnings.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The hints of one replica, as they come.
#[derive(Debug)]
pub enum HintStream {
    /// Of the embedded store.
    Memory(tokio::sync::mpsc::Receiver<Hint>),
    /// Of Redis.
    Redis(HintListener),
}

impl HintStream {
    /// The next one, however long that takes. Hints that come faster than they are taken are lost.
    pub async fn next(&mut self) -> Hint {
        match self {
            Self::Memory(hints) => match hints.recv().await {
                Some(hint) => hint,
                None => std::future::pending().await,
            },
            Self::Redis(listener) => listener.next().await,
        }
    }
}
