//! What is to be delivered next: the queues of this replica's partitions, by host.
//!
//! ```text
//!            due, its host's turn               the store: later, empty
//!  waiting ───────────────────────► in flight ─────────────────────────► waiting, or forgotten
//!     ▲  ▲                              │ the attempt ended: the store says when the next is due
//!     │  └──────────────────────────────┘
//!     └── held: the store did not answer for its partition, until its outbox has been read
//! ```
//!
//! A value that waits for nothing: the dispatcher tells it the time and what happened, and asks what to do. It knows
//! queues and when they are due, not deliveries; the store has the last word about both, so what is noted here may be
//! out of date and costs one question then. What a replica's shards did not tell is found by reading each outbox again
//! from time to time.

mod expired;
mod host_rotation;
mod partition_queues;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

pub(super) use self::host_rotation::name_of as host_of;
use self::host_rotation::{DueQueue, HostRotation};
use self::partition_queues::{PartitionQueues, QueueEntry, QueueState, part};
use super::circuit_breaker::{BreakerTransition, HostHealth};
use crate::domain::{Partition, Timestamp};
use crate::store::{Fence, PendingQueue, QueueId};

/// Between two readings of an outbox whose owner is told of everything, as it should be.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// Outboxes that are read at a time.
const READINGS: usize = 32;
/// How long a queue is left alone that the store says is due later, when by our reckoning it is due now.
const SOON: Duration = Duration::from_millis(50);

/// The agenda.
#[derive(Debug)]
pub(super) struct Scheduler {
    in_all: usize,
    rng: fastrand::Rng,
    parts: HashMap<Partition, PartitionQueues>,
    hosts: HostRotation,
    flights: HashMap<u64, InFlightAttempt>,
    /// Flights that count towards the limits.
    in_flight: usize,
    /// When outboxes are to be read.
    readings: BTreeSet<(Timestamp, Partition)>,
    reading: usize,
    /// Queues to bury from, whose hosts are left alone.
    overdue: VecDeque<(Partition, Fence, QueueId)>,
    queues: usize,
}

/// An attempt to begin, by the words of [`crate::store::StoreConfig::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttemptStart {
    pub(super) partition: Partition,
    pub(super) fence: Fence,
    pub(super) queue: QueueId,
    pub(super) token: u64,
    /// Its time was over when its outbox was read, and its host is left alone: it is no attempt that is wanted.
    pub(super) overdue: bool,
}

#[derive(Debug)]
struct InFlightAttempt {
    partition: Partition,
    fence: Fence,
    queue: QueueId,
    host: Rc<str>,
    probe: bool,
    /// It counts towards the limits.
    counts: bool,
}

impl Scheduler {
    /// Empty. Never more than `in_all` attempts are in flight, never more than `per_host` to one host. The generator
    /// makes the attempts' tokens.
    pub(super) fn new(in_all: usize, per_host: usize, rng: fastrand::Rng) -> Self {
        Self {
            in_all: in_all.max(1),
            rng,
            parts: HashMap::new(),
            hosts: HostRotation::new(per_host),
            flights: HashMap::new(),
            in_flight: 0,
            readings: BTreeSet::new(),
            reading: 0,
            overdue: VecDeque::new(),
            queues: 0,
        }
    }

    /// The partition is ours.
    pub(super) fn own(&mut self, partition: Partition, fence: Fence, now: Timestamp) {
        match self.parts.get(&partition).map(|part| part.fence) {
            Some(known) if known == fence => return self.look(partition, now),
            Some(earlier) => self.lose(partition, earlier),
            None => {}
        }
        self.parts.insert(partition, PartitionQueues::new(fence, now));
        self.readings.insert((now, partition));
    }

    /// A delivery was written.
    pub(super) fn ring(
        &mut self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        target: &str,
        now: Timestamp,
    ) {
        let Some(part) = part(&mut self.parts, partition, fence).filter(|part| !part.releasing) else {
            return;
        };
        match part.queues.get_mut(&queue) {
            Some(QueueEntry { state: QueueState::InFlight { rung }, .. }) => *rung = true,
            // Others are before it.
            Some(_) => {}
            None => self.note(partition, queue, target, now),
        }
    }

    /// The partition's outbox is to be read.
    pub(super) fn look(&mut self, partition: Partition, now: Timestamp) {
        let Some(part) = self.parts.get_mut(&partition) else { return };
        match part.read_at {
            None => part.read_again = true,
            // It is read as soon as the store answers again.
            Some(_) if part.is_silent() => {}
            Some(_) => self.read_at(partition, now),
        }
    }

    /// Every outbox is to be read.
    pub(super) fn look_everywhere(&mut self, now: Timestamp) {
        let partitions: Vec<_> = self.parts.keys().copied().collect();
        for partition in partitions {
            self.look(partition, now);
        }
    }

    /// An outbox to read now. Whoever is given one says how that ended: [`Agenda::read`], [`Agenda::not_read`].
    pub(super) fn next_reading(&mut self, now: Timestamp) -> Option<(Partition, Fence)> {
        if self.reading >= READINGS {
            return None;
        }
        self.readings.first().filter(|(at, _)| *at <= now)?;
        let (_, partition) = self.readings.pop_first()?;
        let part = self.parts.get_mut(&partition)?;
        part.read_at = None;
        self.reading += 1;
        Some((partition, part.fence))
    }

    /// A part of an outbox, and whether there is more. Returns whether to read on.
    pub(super) fn read(
        &mut self,
        partition: Partition,
        fence: Fence,
        waiting: &[PendingQueue],
        more: bool,
        now: Timestamp,
    ) -> bool {
        for PendingQueue { queue, target, due, since } in waiting {
            let Some(part) = part(&mut self.parts, partition, fence).filter(|part| !part.releasing) else {
                break;
            };
            match part.queues.get_mut(queue) {
                // What may have begun is repeated, whatever it looks like.
                Some(_) if part.unanswered.contains_key(queue) => {}
                // It was read before the attempt was noted, or after its end: then there is more.
                Some(QueueEntry { state: QueueState::InFlight { rung }, .. }) => *rung |= *due <= now,
                Some(QueueEntry { state: QueueState::Held(at), .. }) => *at = *due,
                // What was read may be from before the last attempt; a time that is too early is put right by `begin`.
                Some(QueueEntry { state: QueueState::Waiting(at), .. }) if *at <= *due => {}
                Some(QueueEntry { state: QueueState::Waiting(at), host }) => {
                    let (before, host) = (std::mem::replace(at, *due), Rc::clone(host));
                    self.hosts.recall(&host, before, *queue, partition);
                    self.hosts.wait(&host, *due, *queue, partition);
                }
                None => self.note(partition, *queue, target, *due),
            }
            self.look_at_age(partition, fence, *queue, (*since, *due), now);
        }
        let Some(part) = part(&mut self.parts, partition, fence) else {
            self.reading -= 1;
            return false;
        };
        if more && !part.releasing {
            return true;
        }
        self.reading -= 1;
        part.backoff.reset();
        let again = std::mem::take(&mut part.read_again);
        for (queue, QueueEntry { host, state }) in &mut part.queues {
            if let QueueState::Held(due) = *state {
                *state = QueueState::Waiting(due);
                self.hosts.wait(host, due, *queue, partition);
            }
        }
        // Spread, so that outboxes that came together are not read together for ever.
        let spread = READ_AGAIN.mul_f64(0.75 + self.rng.f64() / 2.0);
        self.read_at(partition, if again { now } else { now + spread });
        false
    }

    /// An outbox could not be read: the store did not answer.
    pub(super) fn not_read(&mut self, partition: Partition, fence: Fence, now: Timestamp) {
        self.reading -= 1;
        let Some(part) = part(&mut self.parts, partition, fence) else { return };
        let delay = part.backoff.next(self.rng.f64());
        self.read_at(partition, now + delay);
    }

    /// An attempt to begin now. Whoever is given one says how that ended: [`Agenda::ended`], [`Agenda::unanswered`].
    pub(super) fn next(&mut self, now: Timestamp) -> Option<AttemptStart> {
        if let Some(begin) = self.next_overdue(now) {
            return Some(begin);
        }
        loop {
            let room = self.in_all - self.in_flight;
            if room == 0 {
                return None;
            }
            let DueQueue { host, queue, partition, due, probe } = self.hosts.pick(now, room)?;
            let known = self.parts.get_mut(&partition).and_then(|part| {
                let silent = part.is_silent();
                let state = &mut part.queues.get_mut(&queue)?.state;
                Some((state, part.fence, silent, &mut part.flights, &mut part.unanswered))
            });
            let Some((state, fence, silent, flights, unanswered)) = known else {
                self.hosts.free(&host);
                continue;
            };
            if silent {
                *state = QueueState::Held(due);
                self.hosts.free(&host);
                continue;
            }
            *state = QueueState::InFlight { rung: false };
            *flights += 1;
            self.in_flight += 1;
            let token = unanswered.remove(&queue).unwrap_or_else(|| self.rng.u64(..));
            self.flights
                .insert(token, InFlightAttempt { partition, fence, queue, host, probe, counts: true });
            return Some(AttemptStart { partition, fence, queue, token, overdue: false });
        }
    }

    /// The store did not answer whether the attempt has begun: it is asked again, when it answers for the partition.
    pub(super) fn unanswered(&mut self, token: u64, now: Timestamp) {
        let Some(flight) = self.flights.remove(&token) else { return };
        self.free(&flight);
        let Some(part) = part(&mut self.parts, flight.partition, flight.fence) else { return };
        part.flights -= 1;
        if part.releasing {
            return self.forget(flight.partition, flight.queue);
        }
        if let Some(queue) = part.queues.get_mut(&flight.queue) {
            queue.state = QueueState::Held(now);
            part.unanswered.insert(flight.queue, token);
        }
        self.silence(flight.partition, flight.fence, now);
    }

    /// The store does not answer how it took the attempt's end. Whoever waits for that goes on; meanwhile others may
    /// take its place.
    pub(super) fn delayed(&mut self, token: u64, now: Timestamp) {
        let Some(flight) = self.flights.get_mut(&token) else { return };
        let before = InFlightAttempt { host: Rc::clone(&flight.host), ..*flight };
        flight.counts = false;
        self.free(&before);
        self.silence(before.partition, before.fence, now);
    }

    /// The attempt ended, or did not begin: when the queue's first delivery is due by the store, if it has one, and
    /// what the attempt showed of the host. Returns the host whose breaker went over.
    pub(super) fn ended(
        &mut self,
        token: u64,
        next: Option<Timestamp>,
        health: Option<HostHealth>,
        now: Timestamp,
    ) -> Option<(Rc<str>, BreakerTransition)> {
        let flight = self.flights.remove(&token)?;
        let switched = health.and_then(|health| self.hosts.tell(&flight.host, health, flight.probe, now));
        self.free(&flight);
        if let Some(part) = part(&mut self.parts, flight.partition, flight.fence) {
            part.flights -= 1;
            let releasing = part.releasing;
            let state = part.queues.get_mut(&flight.queue).map(|queue| &mut queue.state);
            let rung = matches!(state, Some(QueueState::InFlight { rung: true }));
            match (state, next.or(rung.then_some(now))) {
                (Some(state), Some(due)) if !releasing => {
                    *state = QueueState::Waiting(due);
                    self.hosts.wait(&flight.host, due, flight.queue, flight.partition);
                }
                _ => self.forget(flight.partition, flight.queue),
            }
        }
        switched.map(|switched| (flight.host, switched))
    }

    /// The store says that nothing is due in the queue before then.
    pub(super) fn later(&mut self, token: u64, due: Timestamp, now: Timestamp) {
        // Our reckoning may be ahead of the store's clock: asking at once would be asking without end.
        let due = if due <= now { now + SOON } else { due };
        self.ended(token, Some(due), None, now);
    }

    /// Nothing more begins in the partition.
    pub(super) fn release(&mut self, partition: Partition, fence: Fence) {
        let Some(part) = part(&mut self.parts, partition, fence) else { return };
        part.releasing = true;
        if let Some(at) = part.read_at.take() {
            self.readings.remove(&(at, partition));
        }
        let rest = part.leave_in_flight();
        self.drop_all(partition, rest);
    }

    /// Whether nothing of the partition is in flight.
    pub(super) fn is_quiet(&self, partition: Partition, fence: Fence) -> bool {
        self.parts.get(&partition).is_none_or(|part| part.fence != fence || part.flights == 0)
    }

    /// The partition is no longer ours under this fence. What is in flight counts until it has ended.
    pub(super) fn lose(&mut self, partition: Partition, fence: Fence) {
        if self.parts.get(&partition).is_none_or(|part| part.fence != fence) {
            return;
        }
        let Some(part) = self.parts.remove(&partition) else { return };
        if let Some(at) = part.read_at {
            self.readings.remove(&(at, partition));
        }
        self.drop_all(partition, part.queues);
    }

    /// When there is something to do although nothing happens.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let reading = self.readings.first().map(|(at, _)| *at).filter(|_| self.reading < READINGS);
        let hosts = self.hosts.wake_at().filter(|_| self.in_flight < self.in_all);
        reading.into_iter().chain(hosts).min()
    }

    /// Whether all that is due was attempted, and the stores' answers are known. What a breaker keeps back is not due.
    pub(super) fn is_calm(&self, now: Timestamp) -> bool {
        let reading = self.reading > 0 || self.readings.first().is_some_and(|(at, _)| *at <= now);
        self.flights.is_empty() && self.overdue.is_empty() && !reading && !self.hosts.has_due(now)
    }

    /// Queues that are not empty.
    pub(super) const fn queues(&self) -> usize {
        self.queues
    }

    /// Attempts that have begun and not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Hosts whose breaker is open.
    pub(super) const fn open_breakers(&self) -> usize {
        self.hosts.open()
    }

    /// A queue is known from now on.
    fn note(&mut self, partition: Partition, queue: QueueId, target: &str, due: Timestamp) {
        let Some(part) = self.parts.get_mut(&partition) else { return };
        let host = self.hosts.enter(target);
        part.queues.insert(queue, QueueEntry { host: Rc::clone(&host), state: QueueState::Waiting(due) });
        self.queues += 1;
        self.hosts.wait(&host, due, queue, partition);
    }

    /// A queue that does not wait is known no more.
    fn forget(&mut self, partition: Partition, queue: QueueId) {
        let Some(part) = self.parts.get_mut(&partition) else { return };
        let Some(gone) = part.forget(queue) else { return };
        self.hosts.leave(&gone.host);
        self.queues -= 1;
    }

    fn drop_all(&mut self, partition: Partition, queues: impl IntoIterator<Item = (QueueId, QueueEntry)>) {
        for (id, QueueEntry { host, state }) in queues {
            if let QueueState::Waiting(due) = state {
                self.hosts.recall(&host, due, id, partition);
            }
            self.hosts.leave(&host);
            self.queues -= 1;
        }
    }

    fn free(&mut self, flight: &InFlightAttempt) {
        if flight.counts {
            self.in_flight -= 1;
            self.hosts.free(&flight.host);
        }
    }

    /// The store did not answer for the partition: nothing begins there until its outbox has been read.
    fn silence(&mut self, partition: Partition, fence: Fence, now: Timestamp) {
        let Some(part) = part(&mut self.parts, partition, fence).filter(|part| !part.releasing) else {
            return;
        };
        if part.is_silent() {
            return;
        }
        let delay = part.backoff.next(self.rng.f64());
        // One that is under way may still say that the store answers.
        if part.read_at.is_some() {
            self.read_at(partition, now + delay);
        }
    }

    fn read_at(&mut self, partition: Partition, at: Timestamp) {
        let Some(part) = self.parts.get_mut(&partition).filter(|part| !part.releasing) else { return };
        if let Some(before) = part.read_at.replace(at) {
            self.readings.remove(&(before, partition));
        }
        self.readings.insert((at, partition));
    }
}

#[cfg(test)]
mod tests;
