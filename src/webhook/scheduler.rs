//! Decides which delivery is attempted next: the queues of this replica's partitions, by host.
//!
//! ```text
//!            due, its host's turn               the store: later, empty
//!  waiting ───────────────────────► in flight ─────────────────────────► waiting, or removed
//!     ▲  ▲                              │ the attempt ended: the store says when the next is due
//!     │  └──────────────────────────────┘
//!     └── held: the store did not answer for its partition, until its outbox has been read
//! ```
//!
//! The scheduler does no I/O. The dispatcher tells it the time and the events, and asks for the next action. It knows
//! queues and due times, not deliveries. The store has the last word about both, so an outdated entry costs one
//! operation of the store. Reading each outbox periodically finds deliveries whose event was lost.

mod expired;
mod host_rotation;
mod outbox_reads;
mod partition_queues;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use self::expired::ExpiredQueue;
pub(super) use self::host_rotation::host_of;
use self::host_rotation::{DueQueue, HostRotation};
use self::outbox_reads::MAX_READS;
use self::partition_queues::{PartitionQueues, QueueEntry, QueueState, active, owned};
use super::circuit_breaker::{BreakerTransition, HostHealth};
use crate::domain::{Partition, Timestamp, UrlPattern};
use crate::store::{Fence, Ownership, QueueId};

/// The delay of a queue whose due time by the store is already past by the local clock.
const CLOCK_SKEW_DELAY: Duration = Duration::from_millis(50);

/// The queues of all partitions of this replica, and the attempts in flight.
#[derive(Debug)]
pub(super) struct Scheduler {
    max_in_flight: usize,
    rng: fastrand::Rng,
    partitions: HashMap<Partition, PartitionQueues>,
    hosts: HostRotation,
    /// By token.
    attempts: HashMap<u64, InFlightAttempt>,
    /// The attempts that count towards the limits.
    in_flight: usize,
    /// The times of the next reads.
    planned_reads: BTreeSet<(Timestamp, Partition)>,
    /// The number of reads that are under way.
    reads: usize,
    /// Queues whose first delivery is to be dead-lettered without a request.
    expired: VecDeque<ExpiredQueue>,
    queues: usize,
}

/// An attempt to begin, with the arguments of [`crate::store::Store::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttemptStart {
    pub(super) partition: Partition,
    pub(super) fence: Fence,
    pub(super) queue: QueueId,
    pub(super) token: u64,
    /// Whether it begins only to dead-letter a delivery. The circuit of its host is open, or its endpoint is off.
    pub(super) expired: bool,
    /// Whether it begins before the delivery is due.
    pub(super) early: bool,
}

#[derive(Debug)]
struct InFlightAttempt {
    partition: Partition,
    fence: Fence,
    queue: QueueId,
    host: Rc<str>,
    probe: bool,
    /// Whether it counts towards the limits.
    counted: bool,
}

impl Scheduler {
    /// Creates a scheduler without partitions. It has at most `max_in_flight` attempts in flight, and at most
    /// `max_per_host` to one host. The hosts of one wildcard of `allowed` share the room of one. `rng` makes the tokens of
    /// attempts.
    pub(super) fn new(
        max_in_flight: usize,
        max_per_host: usize,
        allowed: &[UrlPattern],
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            max_in_flight: max_in_flight.max(1),
            rng,
            partitions: HashMap::new(),
            hosts: HostRotation::new(max_per_host, allowed),
            attempts: HashMap::new(),
            in_flight: 0,
            planned_reads: BTreeSet::new(),
            reads: 0,
            expired: VecDeque::new(),
            queues: 0,
        }
    }

    /// Adds a partition of this replica.
    pub(super) fn assign(&mut self, partition: Partition, fence: Fence, now: Timestamp) {
        match self.partitions.get(&partition).and_then(|known| known.ownership.fence()) {
            Some(known) if known == fence => return self.request_read(partition, now),
            Some(earlier) => self.unassign(partition, earlier),
            None => {}
        }
        self.partitions.insert(partition, PartitionQueues::new(fence, now));
        self.planned_reads.insert((now, partition));
    }

    /// Takes note of a new delivery.
    pub(super) fn notify_due(
        &mut self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        target: &str,
        now: Timestamp,
    ) {
        let Some(known) = active(&mut self.partitions, partition, fence) else { return };
        match known.queues.get_mut(&queue) {
            Some(QueueEntry { state: QueueState::InFlight { notified }, .. }) => *notified = true,
            // Earlier deliveries of the queue decide when it is due.
            Some(_) => {}
            None => self.add_queue(partition, queue, target, now),
        }
    }

    /// Returns an attempt to begin now. The caller reports the end by [`Scheduler::attempt_ended`] or
    /// [`Scheduler::begin_unanswered`].
    pub(super) fn next_attempt(&mut self, now: Timestamp) -> Option<AttemptStart> {
        if let Some(start) = self.next_expired(now) {
            return Some(start);
        }
        loop {
            let room = self.max_in_flight - self.in_flight;
            if room == 0 {
                return None;
            }
            let DueQueue { host, queue, partition, due, probe } = self.hosts.next_due(now, room)?;
            let known = self.partitions.get_mut(&partition).and_then(|known| {
                let silent = known.store_silent;
                let state = &mut known.queues.get_mut(&queue)?.state;
                Some((state, known.ownership.fence()?, silent, &mut known.in_flight, &mut known.unanswered))
            });
            let Some((state, fence, silent, in_flight, unanswered)) = known else {
                self.hosts.release_slot(&host);
                continue;
            };
            if silent {
                *state = QueueState::Held(due);
                self.hosts.release_slot(&host);
                continue;
            }
            *state = QueueState::InFlight { notified: false };
            *in_flight += 1;
            self.in_flight += 1;
            let token = unanswered.remove(&queue).unwrap_or_else(|| self.rng.u64(..));
            self.attempts
                .insert(token, InFlightAttempt { partition, fence, queue, host, probe, counted: true });
            return Some(AttemptStart { partition, fence, queue, token, expired: false, early: false });
        }
    }

    /// Holds a queue whose begin the store did not answer. The attempt may have begun, so it is repeated with the same
    /// token as soon as the store answers for the partition.
    pub(super) fn begin_unanswered(&mut self, token: u64, now: Timestamp) {
        let Some(attempt) = self.attempts.remove(&token) else { return };
        self.release_slot(&attempt);
        let Some(known) = owned(&mut self.partitions, attempt.partition, attempt.fence) else { return };
        known.in_flight -= 1;
        if known.ownership.active().is_none() {
            return self.remove_queue(attempt.partition, attempt.queue);
        }
        if let Some(queue) = known.queues.get_mut(&attempt.queue) {
            queue.state = QueueState::Held(now);
            known.unanswered.insert(attempt.queue, token);
        }
        self.write_failed(attempt.partition, attempt.fence, now);
    }

    /// Stops counting an attempt whose finish the store did not answer. The worker repeats the finish, and other
    /// attempts use the place meanwhile.
    pub(super) fn finish_unanswered(&mut self, token: u64, now: Timestamp) {
        let Some(attempt) = self.attempts.get_mut(&token) else { return };
        let before = InFlightAttempt { host: Rc::clone(&attempt.host), ..*attempt };
        attempt.counted = false;
        self.release_slot(&before);
        self.write_failed(before.partition, before.fence, now);
    }

    /// Ends an attempt that was made or did not begin. `next_due` is the time of the queue's next delivery by the
    /// store. Returns the host if its circuit opened or closed.
    pub(super) fn attempt_ended(
        &mut self,
        token: u64,
        next_due: Option<Timestamp>,
        health: Option<HostHealth>,
        now: Timestamp,
    ) -> Option<(Rc<str>, BreakerTransition)> {
        let attempt = self.attempts.remove(&token)?;
        let transition =
            health.and_then(|health| self.hosts.record_health(&attempt.host, health, attempt.probe, now));
        self.release_slot(&attempt);
        if let Some(known) = owned(&mut self.partitions, attempt.partition, attempt.fence) {
            known.in_flight -= 1;
            known.write_succeeded();
            let is_active = known.ownership.active().is_some();
            let state = known.queues.get_mut(&attempt.queue).map(|queue| &mut queue.state);
            let notified = matches!(state, Some(QueueState::InFlight { notified: true }));
            match (state, next_due.or(notified.then_some(now))) {
                (Some(state), Some(due)) if is_active => {
                    *state = QueueState::Waiting(due);
                    self.hosts.schedule(&attempt.host, due, attempt.queue, attempt.partition);
                }
                _ => self.remove_queue(attempt.partition, attempt.queue),
            }
        }
        transition.map(|transition| (attempt.host, transition))
    }

    /// Ends an attempt that did not begin because its queue is due later by the store.
    pub(super) fn attempt_deferred(&mut self, token: u64, due: Timestamp, now: Timestamp) {
        // The local clock may be ahead of the store's. Without a delay the store would be asked in a busy loop.
        let due = if due <= now { now + CLOCK_SKEW_DELAY } else { due };
        self.attempt_ended(token, Some(due), None, now);
    }

    /// Begins no further attempt in the partition.
    pub(super) fn drain(&mut self, partition: Partition, fence: Fence) {
        let Some(known) = owned(&mut self.partitions, partition, fence) else { return };
        known.ownership = Ownership::Draining(fence, ());
        if let Some(at) = known.read_at.take() {
            self.planned_reads.remove(&(at, partition));
        }
        let rest = known.take_idle();
        self.drop_queues(partition, rest);
    }

    /// Returns whether no attempt of the partition is in flight.
    pub(super) fn is_drained(&self, partition: Partition, fence: Fence) -> bool {
        self.partitions
            .get(&partition)
            .is_none_or(|known| known.ownership.fence() != Some(fence) || known.in_flight == 0)
    }

    /// Removes a partition that this replica no longer owns under this fence. Its attempts in flight count until they
    /// end.
    pub(super) fn unassign(&mut self, partition: Partition, fence: Fence) {
        if owned(&mut self.partitions, partition, fence).is_none() {
            return;
        }
        let Some(known) = self.partitions.remove(&partition) else { return };
        if let Some(at) = known.read_at {
            self.planned_reads.remove(&(at, partition));
        }
        self.drop_queues(partition, known.queues);
    }

    /// Returns the time of the next read or attempt if no event comes before.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let read = self.planned_reads.first().map(|(at, _)| *at).filter(|_| self.reads < MAX_READS);
        let host = self.hosts.wake_at().filter(|_| self.in_flight < self.max_in_flight);
        read.into_iter().chain(host).min()
    }

    /// Returns whether every due delivery was attempted and the store has answered. A delivery behind an open circuit
    /// is not due.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        let reading = self.reads > 0 || self.planned_reads.first().is_some_and(|(at, _)| *at <= now);
        self.attempts.is_empty() && self.expired.is_empty() && !reading && !self.hosts.has_due(now)
    }

    /// Returns the number of queues that are not empty.
    pub(super) const fn queues(&self) -> usize {
        self.queues
    }

    /// Returns the number of attempts that have begun and not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.attempts.len()
    }

    /// Returns the number of hosts whose circuit is open.
    pub(super) const fn open_circuits(&self) -> usize {
        self.hosts.open_circuits()
    }

    fn add_queue(&mut self, partition: Partition, queue: QueueId, target: &str, due: Timestamp) {
        let Some(known) = self.partitions.get_mut(&partition) else { return };
        let host = self.hosts.add_queue(target);
        known.queues.insert(queue, QueueEntry { host: Rc::clone(&host), state: QueueState::Waiting(due) });
        self.queues += 1;
        self.hosts.schedule(&host, due, queue, partition);
    }

    /// Removes a queue that is not in state `Waiting`.
    fn remove_queue(&mut self, partition: Partition, queue: QueueId) {
        let Some(known) = self.partitions.get_mut(&partition) else { return };
        let Some(removed) = known.remove(queue) else { return };
        self.hosts.remove_queue(&removed.host);
        self.queues -= 1;
    }

    fn drop_queues(&mut self, partition: Partition, queues: impl IntoIterator<Item = (QueueId, QueueEntry)>) {
        for (id, QueueEntry { host, state }) in queues {
            if let QueueState::Waiting(due) = state {
                self.hosts.unschedule(&host, due, id, partition);
            }
            self.hosts.remove_queue(&host);
            self.queues -= 1;
        }
    }

    fn release_slot(&mut self, attempt: &InFlightAttempt) {
        if attempt.counted {
            self.in_flight -= 1;
            self.hosts.release_slot(&attempt.host);
        }
    }
}
