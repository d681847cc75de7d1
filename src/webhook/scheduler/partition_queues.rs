//! The queues of one partition.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::domain::{Backoff, Partition, Timestamp};
use crate::store::{Fence, Ownership, QueueId};

/// The capacity that an empty table keeps, in entries. Most tables fill again at once.
const SPARE_CAPACITY: usize = 64;

/// The state of a partition that this replica owns.
#[derive(Debug)]
pub(super) struct PartitionQueues {
    pub(super) ownership: Ownership<()>,
    pub(super) queues: HashMap<QueueId, QueueEntry>,
    /// The number of attempts in flight.
    pub(super) in_flight: usize,
    /// The time of the next read; `None` during a read.
    pub(super) read_at: Option<Timestamp>,
    /// Whether another read was requested during the read.
    pub(super) read_again: bool,
    /// Whether the store did not answer the last operation. No attempt begins until it does.
    pub(super) store_silent: bool,
    /// Whether the store failed the last write. It may answer reads all the same.
    pub(super) writes_fail: bool,
    /// The backoff of reads while the store is silent. A read that succeeds does not end it while writes fail.
    pub(super) store_backoff: Backoff,
    /// The tokens of attempts that may have begun. The store recognises a repeat by the token.
    pub(super) unanswered: HashMap<QueueId, u64>,
}

/// A queue that is not empty.
#[derive(Debug)]
pub(super) struct QueueEntry {
    pub(super) host: Rc<str>,
    pub(super) state: QueueState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueState {
    /// Waits until this time, and then for the turn of its host.
    Waiting(Timestamp),
    /// As `Waiting`, but the store must answer for the partition first.
    Held(Timestamp),
    /// An attempt is in flight.
    InFlight {
        /// Whether a delivery was written meanwhile.
        notified: bool,
    },
}

impl PartitionQueues {
    /// Creates a partition without queues, whose outbox is to be read now.
    pub(super) fn new(fence: Fence, now: Timestamp) -> Self {
        Self {
            ownership: Ownership::Active(fence),
            queues: HashMap::new(),
            in_flight: 0,
            read_at: Some(now),
            read_again: false,
            store_silent: false,
            writes_fail: false,
            store_backoff: Backoff::for_store(),
            unanswered: HashMap::new(),
        }
    }

    /// Counts an operation that the store did not answer, and returns the delay before the next read. `draw` is uniform
    /// in 0..1.
    pub(super) fn store_failed(&mut self, draw: f64) -> Duration {
        self.store_silent = true;
        self.store_backoff.next(draw)
    }

    /// Notes that the store carried out a write.
    pub(super) const fn write_succeeded(&mut self) {
        self.writes_fail = false;
        self.store_backoff.reset();
    }

    /// Removes a queue.
    pub(super) fn remove(&mut self, queue: QueueId) -> Option<QueueEntry> {
        let removed = self.queues.remove(&queue);
        if self.queues.is_empty() && self.queues.capacity() > SPARE_CAPACITY {
            self.queues.shrink_to_fit();
        }
        removed
    }

    /// Removes and returns all queues without an attempt in flight.
    pub(super) fn take_idle(&mut self) -> Vec<(QueueId, QueueEntry)> {
        let idle = |queue: &QueueEntry| !matches!(queue.state, QueueState::InFlight { .. });
        self.unanswered.clear();
        self.queues.extract_if(|_, queue| idle(queue)).collect()
    }
}

/// Returns the partition if this replica owns it under this fence.
pub(super) fn owned(
    partitions: &mut HashMap<Partition, PartitionQueues>,
    partition: Partition,
    fence: Fence,
) -> Option<&mut PartitionQueues> {
    partitions.get_mut(&partition).filter(|known| known.ownership.fence() == Some(fence))
}

/// Returns the partition if this replica owns it under this fence and does not drain it.
pub(super) fn active(
    partitions: &mut HashMap<Partition, PartitionQueues>,
    partition: Partition,
    fence: Fence,
) -> Option<&mut PartitionQueues> {
    partitions.get_mut(&partition).filter(|known| known.ownership.active() == Some(fence))
}
