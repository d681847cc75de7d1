//! The leases of a replica, as its threads share them.
//!
//! The keeper claims and renews; shards act on what they own. Between them stands this table of atomics, and
//! nothing is sent: the keeper writes how it is and wakes the shard, which compares that with what it did last.
//! So no change is lost to a full queue, none has to wait for one, and a shard that stands still keeps nobody
//! else's leases from being renewed.
//!
//! A lease is sure for two thirds of its life after the renewal was *sent* (docs/adr/0013): up to then nobody
//! else can have claimed it, however the store's answer travelled.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Partition;
use crate::store::{Fence, Incarnation};

/// What is to be done with a partition that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Work.
    Owned,
    /// Another replica should own it: finish quickly.
    Moving,
    /// This replica goes away: finish what is open, for as long as that may take.
    Leaving,
}

/// The leases of this replica.
#[derive(Debug)]
pub(crate) struct Leases {
    incarnation: Incarnation,
    ttl: Duration,
    origin: Instant,
    cells: Vec<Lease>,
    shards: Vec<Notify>,
    /// Something is calm: it can be released.
    pub(crate) calmed: Notify,
    /// Something is doubted: it is to be renewed at once.
    pub(crate) doubted: Notify,
    /// Wakes the keeper for a round before its time.
    pub(crate) round: Notify,
    leaving: AtomicBool,
    /// Milliseconds since the origin at which a replica that leaves is gone at the latest.
    gone_by: AtomicU64,
    /// Whether nothing is accepted any more.
    refusing: AtomicBool,
    /// Replicas that lived at the last heartbeat.
    replicas: AtomicUsize,
    /// Rises when whoever waits should be read again.
    missed: AtomicU64,
    /// Whether the keeper stands still; tests stop it.
    #[cfg(test)]
    frozen: AtomicBool,
}

#[derive(Debug, Default)]
struct Lease {
    /// The epoch, shifted by two bits for the phase; 0 where it is not ours.
    word: AtomicU64,
    /// Milliseconds since the origin.
    sure_until: AtomicU64,
    /// The epoch whose sockets are all closed.
    calm: AtomicU64,
    doubt: AtomicBool,
}

const fn pack(epoch: u64, phase: Phase) -> u64 {
    let bits = match phase {
        Phase::Owned => 1,
        Phase::Moving => 2,
        Phase::Leaving => 3,
    };
    epoch << 2 | bits
}

const fn unpack(word: u64) -> Option<(u64, Phase)> {
    let phase = match word & 3 {
        1 => Phase::Owned,
        2 => Phase::Moving,
        3 => Phase::Leaving,
        _ => return None,
    };
    Some((word >> 2, phase))
}

impl Leases {
    pub(crate) fn new(incarnation: Incarnation, ttl: Duration, shards: usize) -> Self {
        Self {
            incarnation,
            ttl,
            origin: Instant::now(),
            cells: Partition::all().map(|_| Lease::default()).collect(),
            shards: std::iter::repeat_with(Notify::new).take(shards).collect(),
            calmed: Notify::new(),
            doubted: Notify::new(),
            round: Notify::new(),
            leaving: AtomicBool::new(false),
            gone_by: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
            replicas: AtomicUsize::new(0),
            missed: AtomicU64::new(0),
            #[cfg(test)]
            frozen: AtomicBool::new(false),
        }
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The time since the table was made: the clock of decisions.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// How many shards there are; one at least.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len().max(1)
    }

    /// The shard that a partition is dealt to.
    pub(crate) fn shard(&self, partition: Partition) -> usize {
        partition.index() % self.shards()
    }

    /// Whose partition it is and what is to be done with it; none where it is not ours.
    pub(crate) fn state(&self, partition: Partition) -> Option<(Fence, Phase)> {
        let (epoch, phase) = unpack(self.cell(partition)?.word.load(Ordering::Acquire))?;
        Some((Fence { incarnation: self.incarnation, epoch }, phase))
    }

    /// Whether the partition is ours under this fence, and surely so at this moment.
    pub(crate) fn is_sure(&self, partition: Partition, fence: Fence) -> bool {
        self.state(partition).is_some_and(|(ours, _)| ours == fence)
            && self
                .cell(partition)
                .is_some_and(|cell| self.millis() < cell.sure_until.load(Ordering::Acquire))
    }

    /// Whether the partition is ours, surely, and not on its way to somebody else.
    #[cfg(test)]
    pub(crate) fn works(&self, partition: Partition) -> bool {
        self.state(partition)
            .is_some_and(|(fence, phase)| phase == Phase::Owned && self.is_sure(partition, fence))
    }

    /// All that is ours.
    pub(crate) fn held(&self) -> impl Iterator<Item = (Partition, Fence, Phase)> {
        Partition::all().filter_map(|partition| {
            let (fence, phase) = self.state(partition)?;
            Some((partition, fence, phase))
        })
    }

    // What the keeper says.

    /// The partition is ours: the claim that was sent then succeeded.
    pub(crate) fn own(&self, partition: Partition, fence: Fence, sent: Instant) {
        let Some(cell) = self.cell(partition) else { return };
        cell.doubt.store(false, Ordering::Relaxed);
        cell.sure_until.store(self.sure_until(sent), Ordering::Release);
        cell.word.store(pack(fence.epoch, Phase::Owned), Ordering::Release);
        self.wake(partition);
    }

    /// The renewal that was sent then succeeded.
    pub(crate) fn renewed(&self, partition: Partition, sent: Instant) {
        let Some(cell) = self.cell(partition) else { return };
        let before = cell.sure_until.fetch_max(self.sure_until(sent), Ordering::AcqRel);
        if before <= self.millis() {
            self.wake(partition);
        }
    }

    /// When the renewal was sent that the lease is sure by.
    pub(crate) fn renewed_at(&self, partition: Partition) -> Duration {
        let sure_until = self.cell(partition).map_or(0, |cell| cell.sure_until.load(Ordering::Acquire));
        Duration::from_millis(sure_until).saturating_sub(self.ttl * 2 / 3)
    }

    /// The partition is to be drained. One that leaves does not come back to merely move.
    pub(crate) fn drain(&self, partition: Partition, phase: Phase) {
        if let (Some(cell), Some((fence, _))) = (self.cell(partition), self.state(partition)) {
            cell.word.store(pack(fence.epoch, phase), Ordering::Release);
            self.wake(partition);
        }
    }

    /// The partition is no longer ours.
    pub(crate) fn drop(&self, partition: Partition) {
        if let Some(cell) = self.cell(partition) {
            cell.word.store(0, Ordering::Release);
            self.wake(partition);
        }
    }

    /// Whoever waits may have missed its end: it is to be read again.
    pub(crate) fn missed(&self) {
        self.missed.fetch_add(1, Ordering::AcqRel);
        self.shards.iter().for_each(Notify::notify_one);
    }

    /// From now on nothing is accepted here, and nobody begins to wait or to read.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::Release);
        self.shards.iter().for_each(Notify::notify_one);
    }

    /// Whether nothing is accepted here any more.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// So many replicas live, this one included.
    pub(crate) fn set_replicas(&self, count: usize) {
        self.replicas.store(count, Ordering::Relaxed);
    }

    /// How many replicas lived at the last heartbeat.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.load(Ordering::Relaxed)
    }

    /// Whether this replica is about to go away.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// When this replica is gone at the latest, where it is about to go away.
    pub(crate) fn gone_by(&self) -> Instant {
        self.origin + Duration::from_millis(self.gone_by.load(Ordering::Acquire))
    }

    /// This replica goes away, until then at the latest.
    pub(crate) fn leave(&self, by: Instant) {
        self.gone_by.store(millis(by.saturating_duration_since(self.origin)), Ordering::Release);
        self.leaving.store(true, Ordering::Release);
        self.round.notify_one();
    }

    // What shards say.

    /// Comes back when there may be something new for this shard.
    pub(crate) async fn changed(&self, shard: usize) {
        match self.shards.get(shard) {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
        }
    }

    /// How often somebody may have missed something.
    pub(crate) fn misses(&self) -> u64 {
        self.missed.load(Ordering::Acquire)
    }

    /// Wakes the shard of a partition for another look.
    pub(crate) fn wake(&self, partition: Partition) {
        if let Some(shard) = self.shards.get(self.shard(partition)) {
            shard.notify_one();
        }
    }

    /// All sockets of the partition are closed and nothing of it is in memory.
    pub(crate) fn calm(&self, partition: Partition, fence: Fence) {
        if let Some(cell) = self.cell(partition) {
            cell.calm.store(fence.epoch, Ordering::Release);
            self.calmed.notify_one();
        }
    }

    /// Whether a shard said so of this fence.
    pub(crate) fn is_calm(&self, partition: Partition, fence: Fence) -> bool {
        self.cell(partition).is_some_and(|cell| cell.calm.load(Ordering::Acquire) == fence.epoch)
    }

    /// The store refused this fence.
    pub(crate) fn doubt(&self, partition: Partition, fence: Fence) {
        if self.state(partition).is_some_and(|(ours, _)| ours == fence)
            && let Some(cell) = self.cell(partition)
        {
            cell.doubt.store(true, Ordering::Release);
            self.doubted.notify_one();
        }
    }

    /// Whether the partition was doubted since this was asked last.
    pub(crate) fn take_doubt(&self, partition: Partition) -> bool {
        self.cell(partition).is_some_and(|cell| cell.doubt.swap(false, Ordering::AcqRel))
    }

    /// Stops the keeper, or lets it go on.
    #[cfg(test)]
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// Comes back when the keeper does not stand still.
    #[cfg(test)]
    pub(crate) async fn thawed(&self) {
        while self.frozen.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn cell(&self, partition: Partition) -> Option<&Lease> {
        self.cells.get(partition.index())
    }

    fn sure_until(&self, sent: Instant) -> u64 {
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

    fn lease() -> (Leases, Partition, Fence) {
        let leases = Leases::new(Incarnation(7), TTL, 2);
        (
            leases,
            Partition::all().nth(3).unwrap(),
            Fence { incarnation: Incarnation(7), epoch: u64::MAX >> 2 },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_sure_for_two_thirds_since_its_renewal_was_sent() {
        let (leases, partition, fence) = lease();
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        leases.own(partition, fence, sent);
        assert!(leases.works(partition));
        tokio::time::advance(Duration::from_millis(3999)).await;
        assert!(leases.works(partition));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!leases.works(partition), "the answer's way is part of it");
        assert_eq!(leases.state(partition), Some((fence, Phase::Owned)), "it is doubtful, not lost");
        leases.renewed(partition, Instant::now());
        assert!(leases.works(partition));
        leases.renewed(partition, sent);
        assert!(leases.works(partition), "an older renewal takes nothing away");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_sure_under_its_own_fence_only() {
        let (leases, partition, fence) = lease();
        leases.own(partition, fence, Instant::now());
        let older = Fence { epoch: fence.epoch - 1, ..fence };
        assert!(leases.is_sure(partition, fence) && !leases.is_sure(partition, older));
        leases.doubt(partition, older);
        assert!(!leases.take_doubt(partition), "nobody doubts the new lease for the old one's sake");
        leases.calm(partition, older);
        assert!(!leases.is_calm(partition, fence));
        leases.drain(partition, Phase::Moving);
        assert!(leases.is_sure(partition, fence) && !leases.works(partition));
        leases.drop(partition);
        assert!(!leases.is_sure(partition, fence));
    }
}
