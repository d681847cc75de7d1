//! The embedded store: inside this process, gone with it.
//!
//! It keeps the whole contract of [`super::StoreConfig`], fences, expiry and write numbers included, so that what is
//! true here is true on Redis. One mutex per partition is held for one step and never over an await; an
//! operation touches one partition.
//!
//! ## What it keeps, and how much
//!
//! All is bounded by [`MemoryLimits::bytes`], estimated, not measured. What expires goes by [`MemoryStore::sweep`],
//! and is not seen from the moment it expired. Towards the limit, before anything is refused, the messages that
//! ended first go early, with their idempotency keys and what the journal told until their end; then the
//! conversations that were idle longest. Deliveries that are delivered or dead go early like messages that ended, in
//! the order in which they would expire. The partition that needs the room gives first. Open messages and pending
//! deliveries never go: when nothing else is left, accepts are refused at nine tenths of the limit and the last tenth
//! is for what becomes of them.
//!
//! An idle conversation after one turn keeps about 1.5 KiB and the platform's frame: its record and lane 0.5, the
//! message 0.7, two entries of the journal 0.3. Reply and frame are shared by message and journal.
//!
//! A conversation is forgotten `journal_ttl` after its last change if it has no open message. Its
//! `clientMessageId` rises all the same, being a time; positions and places begin anew.

mod contents;
mod conversation;
mod deliveries;
mod expiry;
mod fleet;
mod lease;
mod outbox;
mod reading;
mod weight;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::contents::Contents;
use self::fleet::Replicas;
use super::{
    AcceptError, AcceptRequest, AcceptResult, ClaimMode, ClaimResult, Clock, ConnectPermit,
    ConversationSnapshot, ConversationWrite, Fence, FleetStatus, Heartbeat, Hint, Incarnation, StoreError,
    WriteResult,
};
use crate::domain::{BotName, ConversationId, Message, MessageId, Partition, Timestamp};

/// How much is kept, and for how long.
#[derive(Debug, Clone)]
pub struct MemoryLimits {
    /// The most bytes, estimated, over all partitions.
    pub bytes: usize,
    /// How long an ended message is kept, and its idempotency key with it.
    pub message_ttl: Duration,
    /// Entries of one journal.
    pub journal_entries: usize,
    /// Bytes of one journal, by [`JournalEntry::weight`](crate::domain::Entry::weight). The newest entry stays whatever its size.
    pub journal_bytes: usize,
    /// How long a journal is kept after its last entry, and an idle conversation after its last change.
    pub journal_ttl: Duration,
}

impl MemoryLimits {
    /// These, and journals as api.md 3 bounds them: 1000 entries, 4 MiB, 24 h.
    pub const fn new(bytes: usize, message_ttl: Duration) -> Self {
        Self {
            bytes,
            message_ttl,
            journal_entries: 1000,
            journal_bytes: 4 * 1024 * 1024,
            journal_ttl: Duration::from_hours(24),
        }
    }

    /// Up to where messages are accepted; the rest is for their ends.
    const fn accept_bytes(&self) -> usize {
        self.bytes - self.bytes / 10
    }
}

/// What is in the store at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// The estimate that the limit is compared with.
    pub bytes: usize,
    /// Messages without an end.
    pub open: usize,
    /// Messages with an end, not yet swept.
    pub ended: usize,
    /// Conversations, idle ones included.
    pub conversations: usize,
    /// Deliveries that wait for an attempt or for its end.
    pub pending: usize,
    /// Deliveries that are delivered or dead, not yet swept.
    pub settled: usize,
}

/// The embedded store; see the module.
pub struct MemoryStore {
    partitions: [Mutex<Contents>; Partition::COUNT],
    /// The sum over the partitions.
    bytes: AtomicUsize,
    limits: MemoryLimits,
    clock: Clock,
    replicas: Mutex<Replicas>,
}

impl fmt::Debug for MemoryStore {
    // The contents are what users said: they do not belong into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[expect(missing_docs, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    /// An empty store.
    pub fn new(limits: MemoryLimits, clock: Clock) -> Arc<Self> {
        let partitions = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { partitions, bytes: AtomicUsize::new(0), limits, clock, replicas: Mutex::default() })
    }

    pub fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        let partition = Partition::of(&accept.message.conversation);
        let mut tried = false;
        loop {
            let mut step = self.step(partition);
            let now = step.now;
            // So that even a store that nobody sweeps stays small: one comes, two may go.
            step.sweep(now, &self.limits, 2);
            let room = self.room(&step);
            match step.judge(&accept, room, now) {
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
        self.replicas().tell_all();
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
        self.settle_up(partition);
        Ok(WriteResult { now, lost })
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

    pub fn permit(&self, bot: &BotName, limit: u32, token: u64) -> ConnectPermit {
        let now = self.clock.now();
        self.replicas().permit(bot, limit, token, now)
    }

    pub fn listen(&self, incarnation: Incarnation) -> tokio::sync::mpsc::Receiver<Hint> {
        self.replicas().listen(incarnation)
    }

    fn replicas(&self) -> MutexGuard<'_, Replicas> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Removes what has expired, at most about `budget` messages and conversations of each partition, and tells
    /// how many it looked at. Call it once a second; a rest is left for the next call.
    pub fn sweep(&self, budget: usize) -> usize {
        let sweep = |partition| {
            let mut step = self.step(partition);
            let now = step.now;
            step.sweep(now, &self.limits, budget)
        };
        Partition::all().map(sweep).sum()
    }

    /// What is in the store. It visits every partition: for metrics and tests, not for each request.
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

    /// How many bytes may still be accepted, as this step sees it.
    fn room(&self, step: &Step<'_>) -> usize {
        let others = self.bytes.load(Ordering::Relaxed).saturating_sub(step.before);
        self.limits.accept_bytes().saturating_sub(others + step.weight())
    }

    /// What an owner notes is never refused: it may go over the limit for a moment, and is paid for here.
    fn settle_up(&self, partition: Partition) {
        if self.bytes.load(Ordering::Relaxed) > self.limits.bytes {
            self.make_room(partition, 0, self.limits.bytes);
        }
    }

    /// Evicts until `need` more bytes fit under `line`: from this partition first, then from the ones after it,
    /// one at a time. A little more than needed, so that not every accept has to come here.
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
    fn step(&self, partition: Partition) -> Step<'_> {
        // A panic in a step is a bug in it, but no reason to lose every conversation of the partition.
        let contents = self.partitions[partition.index()].lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the times of a partition's steps do not go back.
        Step { before: contents.weight(), now: self.clock.now(), total: &self.bytes, contents }
    }
}

/// One step on one partition, at one time. When it is over, the store's sum is brought up to date.
struct Step<'a> {
    contents: MutexGuard<'a, Contents>,
    now: Timestamp,
    before: usize,
    total: &'a AtomicUsize,
}

impl Deref for Step<'_> {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.contents
    }
}

impl DerefMut for Step<'_> {
    fn deref_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        // Wraps around like the sum itself: adding the difference is exact also where it is negative.
        self.total.fetch_add(self.contents.weight().wrapping_sub(self.before), Ordering::Relaxed);
    }
}
