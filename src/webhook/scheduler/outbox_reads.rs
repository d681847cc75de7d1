//! The reads of the outboxes. They find deliveries whose event was lost, and show whether the store answers again.

use std::rc::Rc;
use std::time::Duration;

use super::Scheduler;
use super::partition_queues::{QueueEntry, QueueState, active, owned};
use crate::domain::{Partition, Timestamp};
use crate::store::{Fence, PendingQueue};

/// The interval between two reads of an outbox. It can be long because events tell of new deliveries.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(30);
/// The most outboxes that are read at the same time.
pub(super) const MAX_READS: usize = 32;

impl Scheduler {
    /// Plans a read of the partition's outbox as soon as possible.
    pub(in super::super) fn request_read(&mut self, partition: Partition, now: Timestamp) {
        let Some(known) = self.partitions.get_mut(&partition) else { return };
        match known.read_at {
            None => known.read_again = true,
            // The planned read comes as soon as the store is expected to answer.
            Some(_) if known.store_silent => {}
            Some(_) => self.plan_read(partition, now),
        }
    }

    /// Plans a read of every outbox as soon as possible.
    pub(in super::super) fn request_all_reads(&mut self, now: Timestamp) {
        let partitions: Vec<_> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.request_read(partition, now);
        }
    }

    /// Returns an outbox to read now. The caller reports the end by [`Scheduler::page_read`] or
    /// [`Scheduler::read_failed`].
    pub(in super::super) fn next_read(&mut self, now: Timestamp) -> Option<(Partition, Fence)> {
        if self.reads >= MAX_READS {
            return None;
        }
        self.planned_reads.first().filter(|(at, _)| *at <= now)?;
        let (_, partition) = self.planned_reads.pop_first()?;
        let known = self.partitions.get_mut(&partition)?;
        let fence = known.ownership.fence()?;
        known.read_at = None;
        self.reads += 1;
        Some((partition, fence))
    }

    /// Takes in a page of an outbox. `more` tells whether another page follows. Returns whether to read that page.
    pub(in super::super) fn page_read(
        &mut self,
        partition: Partition,
        fence: Fence,
        page: &[PendingQueue],
        more: bool,
        now: Timestamp,
    ) -> bool {
        for PendingQueue { queue, target, due, since, .. } in page {
            let Some(known) = active(&mut self.partitions, partition, fence) else { break };
            match known.queues.get_mut(queue) {
                // An attempt that may have begun is repeated in any case.
                Some(_) if known.unanswered.contains_key(queue) => {}
                // The page is from before the attempt began or from after its end. Then another delivery is due.
                Some(QueueEntry { state: QueueState::InFlight { notified }, .. }) => *notified |= *due <= now,
                Some(QueueEntry { state: QueueState::Held(at), .. }) => *at = *due,
                // The page may be from before the last attempt. If the due time is too early, `begin` corrects it.
                Some(QueueEntry { state: QueueState::Waiting(at), .. }) if *at <= *due => {}
                Some(QueueEntry { state: QueueState::Waiting(at), host }) => {
                    let (before, host) = (std::mem::replace(at, *due), Rc::clone(host));
                    self.hosts.unschedule(&host, before, *queue, partition);
                    self.hosts.schedule(&host, *due, *queue, partition);
                }
                None => self.add_queue(partition, *queue, target, *due),
            }
            self.note_expired(partition, fence, *queue, (*since, *due), now);
        }
        let Some(known) = owned(&mut self.partitions, partition, fence) else {
            self.reads -= 1;
            return false;
        };
        if more && known.ownership.active().is_some() {
            return true;
        }
        self.reads -= 1;
        known.store_silent = false;
        if !known.writes_fail {
            known.store_backoff.reset();
        }
        let again = std::mem::take(&mut known.read_again);
        for (queue, QueueEntry { host, state }) in &mut known.queues {
            if let QueueState::Held(due) = *state {
                *state = QueueState::Waiting(due);
                self.hosts.schedule(host, due, *queue, partition);
            }
        }
        // The spread separates the reads of partitions that were assigned together.
        let spread = READ_INTERVAL.mul_f64(0.75 + self.rng.f64() / 2.0);
        self.plan_read(partition, if again { now } else { now + spread });
        false
    }

    /// Plans the next read after the store did not answer one.
    pub(in super::super) fn read_failed(&mut self, partition: Partition, fence: Fence, now: Timestamp) {
        self.reads -= 1;
        let Some(known) = owned(&mut self.partitions, partition, fence) else { return };
        let delay = known.store_failed(self.rng.f64());
        self.plan_read(partition, now + delay);
    }

    /// Begins no attempt in the partition until its outbox has been read, because the store did not answer a write.
    pub(super) fn write_failed(&mut self, partition: Partition, fence: Fence, now: Timestamp) {
        let Some(known) = active(&mut self.partitions, partition, fence) else { return };
        known.writes_fail = true;
        if known.store_silent {
            return;
        }
        let delay = known.store_failed(self.rng.f64());
        // A read that is under way may still show that the store answers.
        if known.read_at.is_some() {
            self.plan_read(partition, now + delay);
        }
    }

    fn plan_read(&mut self, partition: Partition, at: Timestamp) {
        let Some(known) = self.partitions.get_mut(&partition) else { return };
        if known.ownership.active().is_none() {
            return;
        }
        if let Some(before) = known.read_at.replace(at) {
            self.planned_reads.remove(&(before, partition));
        }
        self.planned_reads.insert((at, partition));
    }
}
