//! The store: messages, turns, journals, leases and the outbox, and the contract for them.
//!
//! The contract is the same for both variants of [`Store`]:
//!
//! * **One step.** Each operation is atomic and touches the keys of one partition only. On Redis it is one script
//!   (docs/architecture.md, "Atomic by construction").
//! * **One writer.** An owner's operation carries the [`Fence`] of its claim. After another claim the operation
//!   does nothing and fails with [`StoreError::Fenced`].
//! * **Idempotent.** An accept carries the message's id, a write its number. A repeat changes nothing and returns
//!   the first answer. A repeated claim returns a higher epoch.
//! * **The store's clock.** Every time in the store is the store's. Answers carry it as `now`.
//! * **Open messages stay.** Only ended messages expire, `message_ttl` after their end.
//! * **Hints may be lost.** A [`Hint`] from another replica only saves time. Its receiver also reads the store in
//!   time.
//!
//! The store does not know sockets, HTTP, or the callers that wait on a replica.

mod accept_request;
mod clock;
mod conversation_index;
mod conversation_state;
mod endpoint_state;
mod error;
#[cfg(any(test, feature = "test-support"))]
pub mod fixtures;
mod fleet;
mod hint;
mod journal_page;
mod lease;
mod memory;
mod outbox;
mod outbox_event;
mod ownership;
mod read_token_secret;
mod redis;
mod request_rate;
mod rhythm;
mod schema;
mod store_clock;
mod write;

use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use crate::domain::Cursor;
use crate::domain::{
    BotName, ConversationId, ConversationState, JournalPage, Message, MessageId, Partition, ReadStart,
    Timestamp, UserSignal,
};

pub use accept_request::{AcceptError, AcceptRequest, AcceptResult, IdempotencyKey, IdempotencyRequest};
pub use clock::{Clock, ManualClock};
pub use conversation_index::{
    ConversationOrder, ConversationPage, ConversationPlace, ConversationQuery, ConversationSummary,
};
pub use error::{StoreError, StoreRefusal};
pub use fleet::{ConnectPermit, FleetStatus, Heartbeat, ReplicaIdentity};
pub use hint::{Hint, HintStream};
pub use lease::{ClaimMode, ClaimResult, Fence, Incarnation};
pub use memory::{MemoryLimits, MemoryStats, MemoryStore};
pub use outbox::{
    ATTEMPTS, BeginResult, ClaimedDelivery, DEAD_TTL, DeliveryPage, DeliveryQuery, FinishRequest,
    FinishResult, OutboxPage, PendingQueue, QueueId, RedeliverResult, RetryDecision,
};
pub use outbox_event::{OutboxEvent, OutboxEventReceiver, OutboxEventSender, outbox_events};
pub use ownership::{DrainReason, Ownership};
pub use read_token_secret::{READ_TOKEN_SECRET_TTL, ReadTokenSecret};
pub use redis::{
    HealthIssue, HintListener, KindMismatch, MemoryUsage, MigrateError, MigrationReport, PrepareError,
    RedisHealth, RedisSetupError, RedisStore, RedisSurvey,
};
pub use request_rate::{RequestGrant, RequestWish};
pub use rhythm::{RHYTHM_MAX_BYTES, RHYTHM_TTL, StoredRhythm};
pub use schema::{ForeignSchema, Migration, MigrationList, MigrationNumbers};
pub use store_clock::StoreClock;
pub use write::{ConversationChange, ConversationSnapshot, ConversationWrite, OpenMessage, WriteResult};

/// The shortest time for which an observer gets hints after it asked for them.
pub const OBSERVED: Duration = Duration::from_mins(1);

/// The lifetime of an observer's note. A note that holds for [`OBSERVED`] or longer is not written again, so most
/// pages of a busy conversation are read without a write.
const NOTED: Duration = Duration::from_secs(75);

/// The store in one of its two forms. It is cheap to clone. Any thread may use it; its futures stay on their thread.
#[derive(Debug, Clone)]
pub enum Store {
    /// The store inside this process.
    Memory(Arc<MemoryStore>),
    /// The store on Redis, shared by all replicas.
    Redis(RedisStore),
}

/// Runs an operation on the variant. Memory answers at once; `Ok` wraps the answer of an operation that cannot fail
/// there.
macro_rules! dispatch {
    ($store:ident.$operation:ident($($argument:expr),*) $(, $ok:ident)?) => {
        match $store {
            Self::Memory(memory) => dispatch!(@answer memory.$operation($($argument),*) $(, $ok)?),
            Self::Redis(redis) => redis.$operation($($argument),*).await,
        }
    };
    (@answer $answer:expr) => { $answer };
    (@answer $answer:expr, $ok:ident) => { $ok($answer) };
}
use dispatch;

/// The operations of the contract. Each one may fail with [`StoreError::Unavailable`], [`StoreError::Unknown`] or [`StoreError::Halfway`]. An
/// operation with a fence may also fail with [`StoreError::Fenced`] or [`StoreError::Lost`], if the partition
/// belongs to another owner by then.
#[expect(clippy::missing_errors_doc, reason = "the errors that all operations share are named above")]
impl Store {
    /// Creates an empty embedded store that goes by this machine's clock.
    pub fn memory(limits: MemoryLimits) -> Self {
        Self::Memory(MemoryStore::new(limits, Clock::wall()))
    }

    /// Checks that the store has this version's schema, and sets up an empty store.
    ///
    /// It comes before every other operation, and again after the store was emptied ([`FleetStatus::prepared`]). A
    /// store with an older schema stays as it is. The call waits up to 40 s for another process that migrates the
    /// store, so leases must not depend on it. It may be dropped at any point.
    ///
    /// # Errors
    /// [`PrepareError`]: the store must not be used. Only [`MigrateError::Store`], [`MigrateError::Busy`] and
    /// [`MigrateError::LockLost`] may pass by themselves.
    pub async fn prepare(&self) -> Result<(), PrepareError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.prepare().await,
        }
    }

    /// Accepts a message: idempotency, lane, `clientMessageId` and position in one step.
    ///
    /// A known id is a repeat and returns the first answer before any other check. It returns
    /// [`AcceptResult::SentAtAccept`] only as long as [`AcceptRequest::send_at_accept`] holds. The id of another conversation's message
    /// is refused with [`AcceptError::IdempotencyMismatch`].
    ///
    /// # Errors
    /// [`AcceptError`]. The message was not stored, except perhaps with [`StoreError::Unknown`] and
    /// [`StoreError::Halfway`].
    pub async fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        dispatch!(self.accept(accept))
    }

    /// Returns a message with its progress, or `None` if it never existed or has expired.
    ///
    /// If the message is open, the same step notes `watcher`, which gets a hint at the end.
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
    ) -> Result<Option<Message>, StoreError> {
        dispatch!(self.message(conversation, id, watcher), Ok)
    }

    /// Claims a partition that is free or already ours. With [`ClaimMode::Expired`] it also claims one whose lease has
    /// expired.
    ///
    /// Each claim has a new epoch. A second claim by the same owner therefore fences off the operations that are still
    /// on their way.
    pub async fn claim(
        &self,
        partition: Partition,
        incarnation: Incarnation,
        lease: Duration,
        mode: ClaimMode,
    ) -> Result<ClaimResult, StoreError> {
        dispatch!(self.claim(partition, incarnation, lease, mode), Ok)
    }

    /// Renews the lease, also an expired one, as long as no other owner claimed the partition.
    pub async fn renew(
        &self,
        partition: Partition,
        fence: Fence,
        lease: Duration,
    ) -> Result<Timestamp, StoreError> {
        let renewed = self.renew_all(&[(partition, fence)], lease).await;
        renewed.into_iter().next().unwrap_or(Err(StoreError::Unavailable(StoreRefusal::Unexpected)))
    }

    /// Renews leases as [`Store::renew`] does, in as few commands as the topology allows. The results are in the order of
    /// the leases. Each lease is a step of its own.
    pub async fn renew_all(
        &self,
        leases: &[(Partition, Fence)],
        lease: Duration,
    ) -> Vec<Result<Timestamp, StoreError>> {
        match self {
            Self::Memory(memory) => {
                leases.iter().map(|&(partition, fence)| memory.renew(partition, fence, lease)).collect()
            }
            Self::Redis(redis) => redis.renew(leases, lease).await,
        }
    }

    /// Releases the partition: it is free at once, and all replicas get a hint ([`Hint::Fleet`]).
    pub async fn release(&self, partition: Partition, fence: Fence) -> Result<(), StoreError> {
        dispatch!(self.release(partition, fence))
    }

    /// Returns the conversations of the partition that have open messages. A new owner asks once for the `warm` ones too,
    /// those whose [`ConversationWrite::warm_until`] lies ahead.
    pub async fn ready(
        &self,
        partition: Partition,
        fence: Fence,
        warm: bool,
    ) -> Result<Vec<ConversationId>, StoreError> {
        dispatch!(self.ready(partition, fence, warm))
    }

    /// Lets idle conversations expire. An owner calls it about once a second, and mostly it sends no command.
    pub async fn rest(&self, partition: Partition, fence: Fence) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.rest(partition, fence).await,
        }
    }

    /// Returns the seconds between two looks for open messages whose hints were lost.
    pub const fn look_interval(&self) -> u32 {
        match self {
            Self::Memory(_) => 1,
            Self::Redis(_) => 15,
        }
    }

    /// Notes that the conversation has left the owner's memory.
    pub fn leave_memory(&self, conversation: &ConversationId) {
        if let Self::Redis(redis) = self {
            redis.leave_memory(conversation);
        }
    }

    /// Returns the record and the lane of a conversation, and the store's time.
    pub async fn open(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<(ConversationSnapshot, Timestamp), StoreError> {
        dispatch!(self.open(fence, conversation))
    }

    /// Carries out an owner's write. Replicas that watch a message which ends with it get a hint.
    ///
    /// Late changes are skipped one by one: progress of an ended message, and the end of a message that is not open. A
    /// skipped end is not appended to the journal again. If the store has no record of the conversation (new,
    /// expired, lost), its last write counts as 0. A repeat returns the first answer, [`WriteResult::lost`]
    /// included.
    ///
    /// # Errors
    /// [`StoreError::OutOfStep`] too.
    pub async fn write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
    ) -> Result<WriteResult, StoreError> {
        dispatch!(self.write(fence, conversation, write))
    }

    /// Returns journal entries after a place, oldest first, with the messages whose ends they report.
    ///
    /// A page has at most `limit` entries (1 to 1000) and about 4 MiB. The journal keeps its newest 1000 entries or
    /// 4 MiB until 24 h after the last entry, and longer while a message is open. Then the store forgets the
    /// conversation, and places begin anew.
    ///
    /// An unknown place returns the oldest entries and [`JournalPage::gap`]: one of another journal, one behind the
    /// end, or one before the oldest entry. [`Cursor::default`] has a gap only if the first entries are gone.
    /// If there is nothing to read, the place stays as it is. If places are missing inside the journal, the page ends
    /// before them, and the next page has a gap.
    ///
    /// With `observer`, that replica gets hints at new entries ([`Hint::Appended`]) for [`OBSERVED`], and the owner
    /// gets one at the observer ([`Hint::Observed`]). Both happen in the same step, so no entry falls between read
    /// and hint. A repeat within 15 s does neither.
    pub async fn page(
        &self,
        conversation: &ConversationId,
        after: ReadStart,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> Result<JournalPage, StoreError> {
        dispatch!(self.page(conversation, after, limit, observer), Ok)
    }

    /// Prolongs the hints of [`Store::page`] for these conversations, in one round trip for each server.
    pub async fn observe(
        &self,
        conversations: &[ConversationId],
        observer: Incarnation,
    ) -> Result<(), StoreError> {
        dispatch!(self.observe(conversations, observer), Ok)
    }

    /// Returns the state of a conversation as far as the store knows it, and the owner.
    ///
    /// [`ConversationState::connection`] is known to the owner alone. It keeps its default here, except for a block
    /// that the record names. If the owner is another replica than `by`, the same step hints the question to
    /// it ([`Hint::Asked`]).
    pub async fn state(
        &self,
        conversation: &ConversationId,
        by: Incarnation,
        number: u64,
    ) -> Result<(ConversationState, Option<Incarnation>), StoreError> {
        dispatch!(self.state(conversation, by, number), Ok)
    }

    /// Returns conversations from the index: those of the last 24 h, and those whose socket stays open. A page may have
    /// fewer than `limit` and still a next one.
    ///
    /// While conversations do not change, pages have each match once. A conversation that changes moves in
    /// [`ConversationOrder::NewestFirst`], so later pages may repeat or miss it. By name it stays where it is. A page asks
    /// all partitions unless the query names one.
    pub async fn conversations(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError> {
        dispatch!(self.conversations(query), Ok)
    }

    /// Deletes all that the store has of a conversation: messages, journal, deliveries of any state, idempotency keys,
    /// subscriptions and places in indexes. A later accept begins a new one.
    ///
    /// Replicas that watch a message of the lane get a hint ([`Hint::Erased`]). Returns these messages for the owner
    /// itself. The record and the lane go last, in one step. So a call that failed halfway leaves them, and a repeat
    /// deletes the rest. The owner has no write of the conversation under way.
    pub async fn erase(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<Vec<MessageId>, StoreError> {
        dispatch!(self.erase(fence, conversation))
    }

    /// Passes a signal of a user on to the owner of its conversation ([`Hint::Signal`]), and stores nothing. Returns
    /// whether there is an owner.
    pub async fn signal(
        &self,
        conversation: &ConversationId,
        signal: &UserSignal,
    ) -> Result<bool, StoreError> {
        dispatch!(self.signal(conversation, signal), Ok)
    }

    /// Passes on a hint of one replica to another: [`Hint::Chunk`], [`Hint::Platform`], [`Hint::UserErased`], and
    /// questions and answers about the status of conversations. The store itself gives all other hints, each in the step that causes
    /// it.
    ///
    /// # Errors
    /// [`StoreRefusal::Unexpected`] too, for another kind of hint.
    pub async fn hint(&self, to: Incarnation, hint: &Hint) -> Result<(), StoreError> {
        if !hint.is_of_replicas() {
            tracing::error!("a hint that only the store may give is not passed on; this is a bug");
            return Err(StoreError::Unavailable(StoreRefusal::Unexpected));
        }
        dispatch!(self.hint(to, hint), Ok)
    }

    /// Records that a replica is alive, and returns the live replicas.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<FleetStatus, StoreError> {
        dispatch!(self.heartbeat(heartbeat), Ok)
    }

    /// Removes a replica that stops from the fleet. The others get a hint.
    pub async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        dispatch!(self.leave(incarnation), Ok)
    }

    /// Counts a connect of this bot, if the fleet stays within `limit` connects in any 60 seconds. 0 is no limit.
    ///
    /// `token` identifies the connect: a repeat with the same token is counted once. If the token `reserved` was counted in
    /// the last 60 seconds, this connect takes its place and is granted.
    pub async fn permit(
        &self,
        bot: &BotName,
        limit: u32,
        token: u64,
        reserved: Option<u64>,
    ) -> Result<ConnectPermit, StoreError> {
        dispatch!(self.permit(bot, limit, token, reserved), Ok)
    }

    /// Subscribes a replica to its hints. Each incarnation calls it once.
    pub fn listen(&self, incarnation: Incarnation) -> HintStream {
        match self {
            Self::Memory(memory) => HintStream::Memory(memory.listen(incarnation)),
            Self::Redis(redis) => HintStream::Redis(Box::new(redis.listen(incarnation))),
        }
    }

    /// Returns the store's time.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        dispatch!(self.now(), Ok)
    }

    /// Checks that the store does what a replica needs: it carries out scripts and passes hints on.
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.check_ready().await,
        }
    }

    /// Returns sentences about what an operator should change about the store, as far as it is known.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Redis(redis) => redis.health().warnings.iter().map(ToString::to_string).collect(),
        }
    }
}
