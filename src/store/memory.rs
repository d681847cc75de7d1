//! The embedded store. It lives inside this process and ends with it.
//!
//! It keeps the whole contract of [`super::Store`], with fences, expiry and write numbers. Tests on it therefore hold
//! for Redis too. An operation touches one partition. It holds that partition's mutex for one step, never over an
//! await.
//!
//! # Limits and eviction
//!
//! [`MemoryLimits::bytes`] bounds everything, by estimate. [`MemoryStore::sweep`] removes what has expired. Expired
//! things are invisible even before that.
//!
//! Near the limit the store evicts before it refuses anything. The first to go are the messages that ended first,
//! with their idempotency keys and the journal up to their end. Delivered and dead deliveries go in the same order,
//! by their expiry. The conversations that were idle longest come next. The partition that needs the room gives
//! first.
//!
//! Open messages and pending deliveries always stay. If only they are left, accepts are refused at nine tenths of
//! the limit. The last tenth is for replies and ends of open messages.
//!
//! An idle conversation after one turn takes about 1.5 KiB and the platform's frame. Record and lane take 0.5 KiB,
//! the message 0.7, two journal entries 0.3. Message and journal share reply and frame.
//!
//! A conversation without an open message is forgotten `journal_ttl` after its last change. Its `clientMessageId` is
//! a time and rises all the same. Positions and places begin anew.

mod accept;
mod conversation;
mod conversation_index;
mod delivery_table;
mod endpoint_table;
mod erasure;
mod expiry;
mod journal_page;
mod outbox;
mod partition_contents;
mod partition_lease;
mod replica_table;
mod rhythm_table;
mod shared_callers;
mod weight;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::endpoint_table::EndpointTable;
use self::partition_contents::PartitionContents;
use self::replica_table::ReplicaTable;
use self::rhythm_table::RhythmTable;
use self::shared_callers::SharedCallers;
use super::{
    AcceptError, AcceptRequest, AcceptResult, ClaimMode, ClaimResult, Clock, ConnectPermit,
    ConversationSnapshot, ConversationWrite, Fence, FleetStatus, Heartbeat, Hint, Incarnation,
    ReadTokenSecret, RequestGrant, RequestWish, StoreError, StoredRhythm, WriteResult,
};
use crate::domain::{BotName, ConversationId, Message, MessageId, Partition, Timestamp, UserSignal};

/// The limits of the embedded store: size and lifetimes.
#[derive(Debug, Clone)]
pub struct MemoryLimits {
    /// The limit of bytes over all partitions, by estimate.
    pub bytes: usize,
    /// The lifetime of an ended message and its idempotency key.
    pub message_ttl: Duration,
    /// The limit of entries of one journal.
    pub journal_entries: usize,
    /// The limit of bytes of one journal, by [`JournalEntry::weight`](crate::domain::JournalEntry::weight). The
    /// newest entry stays at any size.
    pub journal_bytes: usize,
    /// The lifetime of a journal after its last entry, and of an idle conversation after its last change.
    pub journal_ttl: Duration,
}

impl MemoryLimits {
    /// Creates limits with the journal bounds of api.md 3: 1000 entries, 4 MiB, 24 h.
    pub const fn new(bytes: usize, message_ttl: Duration) -> Self {
        Self {
            bytes,
            message_ttl,
            journal_entries: 1000,
            journal_bytes: 4 * 1024 * 1024,
            journal_ttl: Duration::from_hours(24),
        }
    }

    /// Returns the size up to which messages are accepted. The rest is for their ends.
    const fn accept_bytes(&self) -> usize {
        self.bytes - self.bytes / 10
    }
}

/// The contents of the store at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// The estimate that is compared with the limit.
    pub bytes: usize,
    /// Open messages.
    pub open: usize,
    /// Ended messages that are not swept yet.
    pub ended: usize,
    /// Conversations, idle ones included.
    pub conversations: usize,
    /// Deliveries that wait for an attempt, or are in flight.
    pub pending: usize,
    /// Delivered and dead deliveries that are not swept yet.
    pub settled: usize,
}

/// The embedded store; see the module.
pub struct MemoryStore {
    partitions: [Mutex<PartitionContents>; Partition::COUNT],
    /// The sum over the partitions.
    bytes: AtomicUsize,
    limits: MemoryLimits,
    clock: Clock,
    replicas: Mutex<ReplicaTable>,
    rhythms: Mutex<RhythmTable>,
    endpoints: Mutex<EndpointTable>,
    shared_callers: Mutex<SharedCallers>,
}

impl fmt::Debug for MemoryStore {
    // The contents are users' words, which must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    /// Creates an empty store.
    pub fn new(limits: MemoryLimits, clock: Clock) -> Arc<Self> {
        let partitions = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self {
            partitions,
            bytes: AtomicUsize::new(0),
            limits,
            clock,
            replicas: Mutex::default(),
            rhythms: Mutex::default(),
            endpoints: Mutex::default(),
            shared_callers: Mutex::default(),
        })
    }

    pub fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        let partition = Partition::of(&accept.message.conversation);
        let mut tried = false;
        loop {
            let mut step = self.step(partition);
            let now = step.now;
            // Keeps the store small without a sweep: one message comes, two may go.
            step.sweep(now, &self.limits, 2);
            let room = self.room(&step);
            match step.check_accept(&accept, room, now) {
                Ok(None) => {
                    let by = accept.by;
                    let accepted = step.insert(accept, now, &self.limits);
                    let owner = step.lease.owner().filter(|&owner| owner != by);
                    drop(step);
                    if let (Some(owner), AcceptResult::New(message)) = (owner, &accepted) {
                        self.replicas().hint(owner, Hint::Accepted(Arc::clone(message)));
                    }
                    return Ok(accepted);
                }
                Ok(Some(earlier)) => return Ok(earlier),
                Err(AcceptError::Full) if !tried => tried = true,
                Err(refused) => return Err(refused),
            }
            drop(step);
            self.make_room(partition, weight::accept(&accept), self.limits.accept_bytes());
        }
    }

    pub fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
    ) -> Option<Message> {
        let mut step = self.step(Partition::of(conversation));
        let now = step.now;
        step.message(conversation, id, watcher, now)
    }

    pub fn claim(
        &self,
        partition: Partition,
        incarnation: Incarnation,
        lease: Duration,
        claiming: ClaimMode,
    ) -> ClaimResult {
        let mut step = self.step(partition);
        let now = step.now;
        step.lease.claim(incarnation, now, lease, claiming)
    }

    pub fn renew(
        &self,
        partition: Partition,
        fence: Fence,
        lease: Duration,
    ) -> Result<Timestamp, StoreError> {
        let mut step = self.step(partition);
        let now = step.now;
        step.lease.renew(fence, now, lease).map(|()| now)
    }

    pub fn release(&self, partition: Partition, fence: Fence) -> Result<(), StoreError> {
        self.step(partition).lease.release(fence)?;
        self.replicas().hint_all();
        Ok(())
    }

    pub fn ready(
        &self,
        partition: Partition,
        fence: Fence,
        warm: bool,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let step = self.step(partition);
        step.ready(fence, warm, step.now)
    }

    pub fn open(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<(ConversationSnapshot, Timestamp), StoreError> {
        let mut step = self.step(Partition::of(conversation));
        let now = step.now;
        step.open(fence, conversation, now, &self.limits).map(|open| (open, now))
    }

    pub fn write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
    ) -> Result<WriteResult, StoreError> {
        let partition = Partition::of(conversation);
        let mut step = self.step(partition);
        let now = step.now;
        let mut hints = Vec::new();
        let lost = step.write(fence, conversation, write, now, &self.limits, &mut hints)?;
        drop(step);
        if !hints.is_empty() {
            let replicas = self.replicas();
            for (to, hint) in hints {
                replicas.hint(to, hint);
            }
        }
        self.evict_excess(partition);
        Ok(WriteResult { now, lost })
    }

    pub fn signal(&self, conversation: &ConversationId, signal: &UserSignal) -> bool {
        let owner = self.step(Partition::of(conversation)).lease.owner();
        if let Some(owner) = owner {
            self.replicas().hint(owner, Hint::Signal(conversation.clone(), signal.clone()));
        }
        owner.is_some()
    }

    pub fn hint(&self, to: Incarnation, hint: &Hint) {
        self.replicas().hint(to, hint.clone());
    }

    pub fn heartbeat(&self, heartbeat: &Heartbeat) -> FleetStatus {
        let now = self.clock.now();
        self.replicas().heartbeat(heartbeat, now)
    }

    pub fn leave(&self, incarnation: Incarnation) {
        self.replicas().leave(incarnation);
    }

    pub fn permit(&self, bot: &BotName, limit: u32, token: u64, reserved: Option<u64>) -> ConnectPermit {
        let now = self.clock.now();
        self.replicas().permit(bot, limit, token, reserved, now)
    }

    pub fn listen(&self, incarnation: Incarnation) -> tokio::sync::mpsc::Receiver<Hint> {
        self.replicas().listen(incarnation)
    }

    pub fn read_token_secret(&self, day: u64, fresh: Option<ReadTokenSecret>) -> Option<ReadTokenSecret> {
        self.shared_callers().read_token_secret(day, fresh, self.clock.now())
    }

    pub fn take_requests(&self, wish: RequestWish<'_>) -> RequestGrant {
        self.shared_callers().take_requests(wish, self.clock.now())
    }

    fn shared_callers(&self) -> MutexGuard<'_, SharedCallers> {
        self.shared_callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn rhythm(&self, bot: &BotName) -> Option<StoredRhythm> {
        self.rhythms().get(bot, self.clock.now())
    }

    pub fn put_rhythm(&self, bot: &BotName, expected: Option<u64>, state: &[u8]) -> bool {
        self.rhythms().put(bot, expected, state, self.clock.now())
    }

    pub fn forget_rhythm(&self, bot: &BotName) {
        self.rhythms().forget(bot);
    }

    fn rhythms(&self) -> MutexGuard<'_, RhythmTable> {
        self.rhythms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replicas(&self) -> MutexGuard<'_, ReplicaTable> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Removes expired things, about `budget` of each partition, and returns how many it looked at. It runs once a
    /// second. The next call removes the rest.
    pub fn sweep(&self, budget: usize) -> usize {
        let sweep = |partition| {
            let mut step = self.step(partition);
            let now = step.now;
            step.sweep(now, &self.limits, budget)
        };
        Partition::all().map(sweep).sum()
    }

    /// Counts the contents. It visits every partition, so it is for metrics and tests only.
    pub fn stats(&self) -> MemoryStats {
        Partition::all().fold(MemoryStats::default(), |sum, partition| {
            let step = self.step(partition);
            let (open, ended, conversations) = step.counts();
            let (pending, settled) = step.deliveries.counts();
            MemoryStats {
                bytes: sum.bytes + step.weight(),
                open: sum.open + open,
                ended: sum.ended + ended,
                conversations: sum.conversations + conversations,
                pending: sum.pending + pending,
                settled: sum.settled + settled,
            }
        })
    }

    /// Returns how many bytes may still be accepted in this step.
    fn room(&self, step: &PartitionStep<'_>) -> usize {
        let others = self.bytes.load(Ordering::Relaxed).saturating_sub(step.before);
        self.limits.accept_bytes().saturating_sub(others + step.weight())
    }

    /// Evicts after an owner's write. A write is never refused, so it may exceed the limit for a moment.
    fn evict_excess(&self, partition: Partition) {
        if self.bytes.load(Ordering::Relaxed) > self.limits.bytes {
            self.make_room(partition, 0, self.limits.bytes);
        }
    }

    /// Evicts until `need` more bytes fit under `line`, from this partition first and then from the following ones.
    /// It frees a little more than needed, so that not every accept comes here.
    fn make_room(&self, first: Partition, need: usize, line: usize) {
        if need > line {
            return;
        }
        let goal = (line - need).saturating_sub(line / 64);
        let partitions = Partition::all().chain(Partition::all());
        for partition in partitions.skip(first.index()).take(Partition::COUNT) {
            let mut step = self.step(partition);
            let now = step.now;
            let others = self.bytes.load(Ordering::Relaxed).saturating_sub(step.before);
            while others + step.weight() > goal {
                if !step.evict(now, &self.limits) {
                    break;
                }
            }
            if others + step.weight() <= goal {
                return;
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a partition's number is below COUNT by its type")]
    fn step(&self, partition: Partition) -> PartitionStep<'_> {
        // A panic in a step is a bug. The partition's other conversations go on.
        let contents = self.partitions[partition.index()].lock().unwrap_or_else(PoisonError::into_inner);
        // The time is read under the lock, so the times of a partition's steps never go back.
        PartitionStep { before: contents.weight(), now: self.clock.now(), total: &self.bytes, contents }
    }
}

/// One step on one partition at one time. Its end updates the store's sum.
struct PartitionStep<'a> {
    contents: MutexGuard<'a, PartitionContents>,
    now: Timestamp,
    before: usize,
    total: &'a AtomicUsize,
}

impl Deref for PartitionStep<'_> {
    type Target = PartitionContents;

    fn deref(&self) -> &PartitionContents {
        &self.contents
    }
}

impl DerefMut for PartitionStep<'_> {
    fn deref_mut(&mut self) -> &mut PartitionContents {
        &mut self.contents
    }
}

impl Drop for PartitionStep<'_> {
    fn drop(&mut self) {
        // The sum wraps around too, so adding a negative difference is exact.
        self.total.fetch_add(self.contents.weight().wrapping_sub(self.before), Ordering::Relaxed);
    }
}
