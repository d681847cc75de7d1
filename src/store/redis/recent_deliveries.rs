//! The deliveries that the owner wrote a moment ago. Their first attempts need not read them from Redis.
//!
//! An entry is only a guess: its write may have failed, or another delivery is ahead in the queue. `claim_delivery.lua` compares
//! it with Redis, and a wrong guess costs a second call.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::{NewDelivery, Partition, Timestamp};
use crate::store::QueueId;

/// The limit of deliveries of one partition, and of their bytes. The oldest go first: their queue does not move.
const ENTRIES: usize = 32;
const BYTES: usize = 64 * 1024;

/// The newest deliveries of each partition.
#[derive(Debug)]
pub(super) struct RecentDeliveries(Box<[Mutex<RecentPartition>]>);

#[derive(Debug, Default)]
struct RecentPartition {
    /// The oldest first, each with the time at which it was due.
    entries: VecDeque<(QueueId, NewDelivery, Timestamp)>,
    bytes: usize,
}

impl RecentDeliveries {
    pub(super) fn new() -> Self {
        Self(Partition::all().map(|_| Mutex::default()).collect())
    }

    /// Keeps a delivery until its first attempt. It is due from `due` on.
    pub(super) fn insert(&self, queue: QueueId, new: &NewDelivery, due: Timestamp) {
        let weight = new.weight();
        if weight > BYTES {
            return;
        }
        let mut partition = self.partition(new.id.partition());
        while partition.entries.len() >= ENTRIES || partition.bytes + weight > BYTES {
            partition.remove(0);
        }
        partition.bytes += weight;
        partition.entries.push_back((queue, new.clone(), due));
    }

    /// Takes out the oldest delivery of a queue, if it is due by now.
    pub(super) fn take(&self, partition: Partition, queue: QueueId, now: Timestamp) -> Option<NewDelivery> {
        let mut partition = self.partition(partition);
        let index = partition.entries.iter().position(|(of, ..)| *of == queue)?;
        partition.remove(index).filter(|(_, due)| *due <= now).map(|(new, _)| new)
    }

    /// Forgets the deliveries of a queue, because one of them was not the first of the queue.
    pub(super) fn forget_queue(&self, partition: Partition, queue: QueueId) {
        let mut partition = self.partition(partition);
        while let Some(index) = partition.entries.iter().position(|(of, ..)| *of == queue) {
            partition.remove(index);
        }
    }

    /// Forgets the deliveries of a partition that has no owner here any more.
    pub(super) fn forget(&self, partition: Partition) {
        *self.partition(partition) = RecentPartition::default();
    }

    #[expect(clippy::indexing_slicing, reason = "there is one of each partition")]
    fn partition(&self, partition: Partition) -> MutexGuard<'_, RecentPartition> {
        self.0[partition.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecentPartition {
    fn remove(&mut self, index: usize) -> Option<(NewDelivery, Timestamp)> {
        let (_, new, due) = self.entries.remove(index)?;
        self.bytes -= new.weight();
        Some((new, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeliveryId;
    use crate::domain::fixtures::{new_delivery, raw_json, sandbox_conversation};

    const NOW: Timestamp = Timestamp::from_millis(1_763_845_000_123);

    /// Returns a delivery with that many bytes of data.
    fn delivery(seq: u64, bytes: usize) -> (QueueId, NewDelivery) {
        let conversation = sandbox_conversation("alice");
        let id = DeliveryId::of(&conversation, 7, seq, NOW);
        let data = raw_json(&format!("\"{}\"", "x".repeat(bytes)));
        let new = NewDelivery { id, data, ..new_delivery(&conversation, seq, NOW, "https://one.example/") };
        (QueueId::of_delivery(&new), new)
    }

    #[test]
    fn delivery_of_a_queue_is_taken_once_in_order() {
        let recent = RecentDeliveries::new();
        let (queue, first) = delivery(1, 9);
        let (_, second) = delivery(2, 9);
        let partition = first.id.partition();
        recent.insert(queue, &first, NOW);
        recent.insert(queue, &second, NOW);
        let take = |queue| recent.take(partition, queue, NOW).map(|new| new.id);
        assert_eq!(take(QueueId::alone(first.id)), None, "another queue");
        assert_eq!([take(queue), take(queue), take(queue)], [Some(first.id), Some(second.id), None]);
        recent.insert(queue, &first, NOW);
        recent.insert(queue, &second, NOW);
        recent.forget_queue(partition, queue);
        assert_eq!(take(queue), None, "the guess was wrong");
        recent.insert(queue, &first, NOW);
        recent.forget(partition);
        assert_eq!(take(queue), None, "the partition was released");
        recent.insert(queue, &first, NOW + std::time::Duration::from_secs(1));
        assert_eq!(take(queue), None, "the clock was set back, so a script looks when it is due");
    }

    #[test]
    fn oldest_delivery_beyond_the_limits_is_forgotten() {
        let recent = RecentDeliveries::new();
        let queues: Vec<_> = (0..40)
            .map(|seq| {
                let new = delivery(seq, 9).1;
                recent.insert(QueueId::alone(new.id), &new, NOW);
                (new.id.partition(), QueueId::alone(new.id))
            })
            .collect();
        let kept = queues.iter().filter(|(partition, queue)| recent.take(*partition, *queue, NOW).is_some());
        assert_eq!(kept.count(), ENTRIES);
        for seq in 0..4 {
            let (queue, large) = delivery(seq, BYTES / 2);
            recent.insert(queue, &large, NOW);
            let partition = recent.partition(large.id.partition());
            assert_eq!((partition.entries.len(), partition.bytes), (1, large.weight()));
        }
        let (queue, huge) = delivery(9, BYTES);
        recent.insert(queue, &huge, NOW);
        assert!(recent.take(huge.id.partition(), queue, NOW).is_some_and(|kept| kept.id != huge.id));
    }
}
