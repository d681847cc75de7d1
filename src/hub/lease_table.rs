//! The lease table: the leases of this replica, shared by its threads.
//!
//! The membership thread claims and renews leases, and shards act on them. The table is made of atomics, so no message
//! passes between the two: the membership thread writes the state and wakes the shard. The shard then compares the state
//! with its own. No change is lost to a full queue, and a slow shard delays no renewal of another partition.
//!
//! A lease is valid for two thirds of its lifetime after its renewal was *sent* (docs/adr/0013). No other replica can
//! have claimed the partition before that, however late the answer of the store arrives.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Partition;
use crate::store::{DrainReason, Fence, Incarnation, Ownership};

/// The leases of this replica.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    incarnation: Incarnation,
    ttl: Duration,
    origin: Instant,
    cells: Vec<LeaseCell>,
    shards: Vec<Notify>,
    /// Signals that a partition is drained and can be released.
    pub(crate) drained: Notify,
    /// Signals that a lease is suspect and has to be renewed at once.
    pub(crate) suspected: Notify,
    /// Starts the next heartbeat before its time.
    pub(crate) heartbeat_now: Notify,
    leaving: AtomicBool,
    /// Whether this replica has got its share of the partitions since its start.
    settled: AtomicBool,
    /// The end of the reservations of a shutdown, in milliseconds since the origin.
    reserve_deadline: AtomicU64,
    /// The deadline of the shutdown, in milliseconds since the origin.
    leave_deadline: AtomicU64,
    refusing: AtomicBool,
    /// Live replicas at the last heartbeat.
    replicas: AtomicUsize,
    /// Rises when waiters and subscribers have to read the store, because hints may be lost.
    resync_generation: AtomicU64,
    /// Faults that tests inject into the membership thread.
    #[cfg(test)]
    pub(crate) faults: MembershipFaults,
}

/// Faults that tests inject into the membership thread.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct MembershipFaults {
    /// The thread stands still.
    pub(crate) frozen: AtomicBool,
    /// The thread drops all hints.
    pub(crate) deaf: AtomicBool,
}

#[cfg(test)]
impl MembershipFaults {
    /// Returns when the membership thread does not stand still.
    pub(crate) async fn thawed(&self) {
        while self.frozen.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[derive(Debug, Default)]
struct LeaseCell {
    /// The ownership; see [`pack`].
    word: AtomicU64,
    /// Milliseconds since the origin.
    valid_until: AtomicU64,
    /// The epoch whose sockets are all closed.
    drained: AtomicU64,
    suspect: AtomicBool,
    /// The drain that the rebalance wants for an active partition: 0 for none, else a [`DrainReason`].
    wanted_drain: AtomicU8,
}

/// Packs an ownership into the word of a cell: the epoch, shifted by two bits for the state. A partition of another
/// replica is 0.
const fn pack(ownership: Ownership) -> u64 {
    let (fence, bits) = match ownership {
        Ownership::Active(fence) => (fence, 1),
        Ownership::Draining(fence, DrainReason::Rebalance) => (fence, 2),
        Ownership::Draining(fence, DrainReason::Shutdown) => (fence, 3),
        Ownership::None | Ownership::Revoked => return 0,
    };
    fence.epoch << 2 | bits
}

const fn unpack(incarnation: Incarnation, word: u64) -> Ownership {
    let fence = Fence { incarnation, epoch: word >> 2 };
    match word & 3 {
        1 => Ownership::Active(fence),
        2 => Ownership::Draining(fence, DrainReason::Rebalance),
        3 => Ownership::Draining(fence, DrainReason::Shutdown),
        _ => Ownership::None,
    }
}

impl LeaseTable {
    pub(crate) fn new(incarnation: Incarnation, ttl: Duration, shards: usize) -> Self {
        Self {
            incarnation,
            ttl,
            origin: Instant::now(),
            cells: Partition::all().map(|_| LeaseCell::default()).collect(),
            shards: std::iter::repeat_with(Notify::new).take(shards).collect(),
            drained: Notify::new(),
            suspected: Notify::new(),
            heartbeat_now: Notify::new(),
            leaving: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            reserve_deadline: AtomicU64::new(0),
            leave_deadline: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
            replicas: AtomicUsize::new(0),
            resync_generation: AtomicU64::new(0),
            #[cfg(test)]
            faults: MembershipFaults::default(),
        }
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the age of the table, which is the clock of rebalance decisions.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Returns the number of shards, at least one.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len().max(1)
    }

    /// Returns the index of the shard that serves a partition.
    pub(crate) fn shard(&self, partition: Partition) -> usize {
        partition.index() % self.shards()
    }

    /// Returns this replica's ownership of a partition.
    pub(crate) fn ownership(&self, partition: Partition) -> Ownership {
        let word = self.cell(partition).map_or(0, |cell| cell.word.load(Ordering::Acquire));
        unpack(self.incarnation, word)
    }

    /// Returns whether this replica owns the partition under `fence`, and the lease is valid at this moment.
    pub(crate) fn is_lease_valid(&self, partition: Partition, fence: Fence) -> bool {
        self.ownership(partition).fence() == Some(fence)
            && self
                .cell(partition)
                .is_some_and(|cell| self.millis() < cell.valid_until.load(Ordering::Acquire))
    }

    /// Returns whether the partition is active here and its lease is valid.
    #[cfg(test)]
    pub(crate) fn works(&self, partition: Partition) -> bool {
        self.ownership(partition).active().is_some_and(|fence| self.is_lease_valid(partition, fence))
    }

    /// Returns all partitions of this replica with their fences.
    pub(crate) fn held(&self) -> impl Iterator<Item = (Partition, Fence)> {
        Partition::all().filter_map(|partition| Some((partition, self.ownership(partition).fence()?)))
    }

    // Written by the membership thread.

    /// Records a successful claim that was sent at `sent`.
    pub(crate) fn claimed(&self, partition: Partition, fence: Fence, sent: Instant) {
        let Some(cell) = self.cell(partition) else { return };
        cell.suspect.store(false, Ordering::Relaxed);
        cell.wanted_drain.store(0, Ordering::Relaxed);
        cell.valid_until.store(self.valid_until(sent), Ordering::Release);
        cell.word.store(pack(Ownership::Active(fence)), Ordering::Release);
        self.wake(partition);
    }

    /// Records a successful renewal that was sent at `sent`.
    pub(crate) fn renewed(&self, partition: Partition, sent: Instant) {
        let Some(cell) = self.cell(partition) else { return };
        let before = cell.valid_until.fetch_max(self.valid_until(sent), Ordering::AcqRel);
        if before <= self.millis() {
            self.wake(partition);
        }
    }

    /// Returns when the last successful renewal was sent, on the clock of [`Self::elapsed`].
    pub(crate) fn renewed_at(&self, partition: Partition) -> Duration {
        let valid_until = self.cell(partition).map_or(0, |cell| cell.valid_until.load(Ordering::Acquire));
        Duration::from_millis(valid_until).saturating_sub(self.ttl * 2 / 3)
    }

    /// Records whether the rebalance wants to give an active partition away. Its shard starts the drain when the users of
    /// the partition may connect elsewhere.
    pub(crate) fn want_drain(&self, partition: Partition, reason: Option<DrainReason>) {
        let wanted = match reason {
            None => 0,
            Some(DrainReason::Rebalance) => 1,
            Some(DrainReason::Shutdown) => 2,
        };
        if let Some(cell) = self.cell(partition)
            && cell.wanted_drain.swap(wanted, Ordering::AcqRel) != wanted
        {
            self.wake(partition);
        }
    }

    /// Returns the drain that the rebalance wants for an active partition.
    pub(crate) fn wanted_drain(&self, partition: Partition) -> Option<DrainReason> {
        match self.cell(partition)?.wanted_drain.load(Ordering::Acquire) {
            0 => None,
            1 => Some(DrainReason::Rebalance),
            _ => Some(DrainReason::Shutdown),
        }
    }

    /// Records that this replica has its share of the partitions, or that it waits for no live replica.
    pub(crate) fn set_settled(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// Returns whether this replica has once had its share of the partitions.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Starts the drain of a partition, or changes its reason.
    pub(crate) fn drain(&self, partition: Partition, reason: DrainReason) {
        if let (Some(cell), Some(fence)) = (self.cell(partition), self.ownership(partition).fence()) {
            cell.word.store(pack(Ownership::Draining(fence, reason)), Ordering::Release);
            self.wake(partition);
        }
    }

    /// Records that this replica does not own the partition any more.
    pub(crate) fn remove(&self, partition: Partition) {
        if let Some(cell) = self.cell(partition) {
            cell.word.store(pack(Ownership::None), Ordering::Release);
            self.wake(partition);
        }
    }

    /// Has waiters and subscribers of all shards read the store, because hints may be lost.
    pub(crate) fn request_resync(&self) {
        self.resync_generation.fetch_add(1, Ordering::AcqRel);
        self.shards.iter().for_each(Notify::notify_one);
    }

    /// Refuses new messages, waits and subscriptions from now on.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::Release);
        self.shards.iter().for_each(Notify::notify_one);
    }

    /// Returns whether new messages are refused.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// Sets the number of live replicas, this one included.
    pub(crate) fn set_replicas(&self, count: usize) {
        self.replicas.store(count, Ordering::Relaxed);
    }

    /// Returns the number of live replicas at the last heartbeat.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.load(Ordering::Relaxed)
    }

    /// Returns whether this replica is leaving the fleet.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Returns the deadline given to [`Self::leave`].
    pub(crate) fn leave_deadline(&self) -> Instant {
        self.origin + Duration::from_millis(self.leave_deadline.load(Ordering::Acquire))
    }

    /// Returns when a shutdown stops to wait for reservations of connects.
    pub(crate) fn reserve_deadline(&self) -> Instant {
        self.origin + Duration::from_millis(self.reserve_deadline.load(Ordering::Acquire))
    }

    /// Starts to leave the fleet, until `deadline` at the latest. Connects of the next owners are reserved in the first three
    /// quarters of the time. The rest is for open turns.
    pub(crate) fn leave(&self, deadline: Instant) {
        let now = Instant::now();
        let reserve_deadline = now + deadline.saturating_duration_since(now) * 3 / 4;
        self.reserve_deadline
            .store(millis(reserve_deadline.saturating_duration_since(self.origin)), Ordering::Release);
        self.leave_deadline.store(millis(deadline.saturating_duration_since(self.origin)), Ordering::Release);
        self.leaving.store(true, Ordering::Release);
        self.heartbeat_now.notify_one();
    }

    // Written by shards.

    /// Returns when the state may have changed for this shard.
    pub(crate) async fn changed(&self, shard: usize) {
        match self.shards.get(shard) {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Returns how often a resync was requested.
    pub(crate) fn resync_generation(&self) -> u64 {
        self.resync_generation.load(Ordering::Acquire)
    }

    /// Has the shard of a partition compare its state with the table again.
    pub(crate) fn wake(&self, partition: Partition) {
        if let Some(shard) = self.shards.get(self.shard(partition)) {
            shard.notify_one();
        }
    }

    /// Records that all sockets of the partition are closed and no conversation of it is in memory.
    pub(crate) fn set_drained(&self, partition: Partition, fence: Fence) {
        if let Some(cell) = self.cell(partition) {
            cell.drained.store(fence.epoch, Ordering::Release);
            self.drained.notify_one();
        }
    }

    /// Returns whether the shard drained the partition under this fence.
    pub(crate) fn is_drained(&self, partition: Partition, fence: Fence) -> bool {
        self.cell(partition).is_some_and(|cell| cell.drained.load(Ordering::Acquire) == fence.epoch)
    }

    /// Marks the lease as suspect: the store refused its fence, or lost data.
    pub(crate) fn suspect(&self, partition: Partition, fence: Fence) {
        if self.ownership(partition).fence() == Some(fence)
            && let Some(cell) = self.cell(partition)
        {
            cell.suspect.store(true, Ordering::Release);
            self.suspected.notify_one();
        }
    }

    /// Returns whether the lease is suspect, and clears the mark.
    pub(crate) fn take_suspect(&self, partition: Partition) -> bool {
        self.cell(partition).is_some_and(|cell| cell.suspect.swap(false, Ordering::AcqRel))
    }

    fn cell(&self, partition: Partition) -> Option<&LeaseCell> {
        self.cells.get(partition.index())
    }

    fn valid_until(&self, sent: Instant) -> u64 {
        millis(sent.saturating_duration_since(self.origin) + self.ttl * 2 / 3)
    }

    fn millis(&self) -> u64 {
        millis(self.elapsed())
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(9);

    fn lease() -> (LeaseTable, Partition, Fence) {
        let leases = LeaseTable::new(Incarnation(7), TTL, 2);
        (
            leases,
            Partition::all().nth(3).unwrap(),
            Fence { incarnation: Incarnation(7), epoch: u64::MAX >> 2 },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_valid_for_two_thirds_after_its_renewal_was_sent() {
        let (leases, partition, fence) = lease();
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        leases.claimed(partition, fence, sent);
        assert!(leases.works(partition));
        tokio::time::advance(Duration::from_millis(3999)).await;
        assert!(leases.works(partition));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!leases.works(partition), "the way of the answer counts");
        assert_eq!(leases.ownership(partition), Ownership::Active(fence), "the lease is not lost");
        leases.renewed(partition, Instant::now());
        assert!(leases.works(partition));
        leases.renewed(partition, sent);
        assert!(leases.works(partition), "an older renewal does not shorten the lease");
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_valid_under_its_own_fence_only() {
        let (leases, partition, fence) = lease();
        leases.claimed(partition, fence, Instant::now());
        let older = Fence { epoch: fence.epoch - 1, ..fence };
        assert!(leases.is_lease_valid(partition, fence) && !leases.is_lease_valid(partition, older));
        leases.suspect(partition, older);
        assert!(!leases.take_suspect(partition), "the new lease is not suspect");
        leases.set_drained(partition, older);
        assert!(!leases.is_drained(partition, fence));
        leases.drain(partition, DrainReason::Rebalance);
        assert!(leases.is_lease_valid(partition, fence) && !leases.works(partition));
        leases.remove(partition);
        assert!(!leases.is_lease_valid(partition, fence));
    }
}
