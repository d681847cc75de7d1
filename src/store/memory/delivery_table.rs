//! The deliveries of one partition and their queues. There is no lock and no clock here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use super::weight;
use crate::domain::{
    ConversationId, Delivery, DeliveryAttempt, DeliveryId, DeliveryState, EndpointId, NewDelivery, Timestamp,
};
use crate::store::{
    ATTEMPTS, BeginResult, ClaimedDelivery, DEAD_TTL, DeliveryQuery, FinishRequest, FinishResult,
    PendingQueue, QueueId, RedeliverResult, RetryDecision,
};

/// The deliveries of a partition.
#[derive(Default)]
pub(super) struct DeliveryTable {
    entries: BTreeMap<DeliveryId, Box<DeliveryEntry>>,
    /// The pending deliveries. The first of each queue is the one to attempt. No queue is empty.
    queues: HashMap<QueueId, VecDeque<DeliveryId>>,
    /// The delivered and dead deliveries, by their expiry.
    settled: BTreeSet<(Timestamp, DeliveryId)>,
    /// The estimated size of all of them.
    bytes: usize,
}

/// A delivery and its state.
struct DeliveryEntry {
    new: NewDelivery,
    status: DeliveryStatus,
    /// The start of its attempts.
    since: Timestamp,
    /// Ended attempts.
    made: u32,
    /// Ended attempts since then that count in the schedule.
    step: u32,
    reason: Option<Box<str>>,
    /// The newest attempts, oldest first.
    attempts: VecDeque<DeliveryAttempt>,
}

#[derive(Clone, Copy)]
enum DeliveryStatus {
    Pending {
        queue: QueueId,
        /// The time at which it may be attempted as the first of its queue. With a token, it is the end of that
        /// attempt.
        due: Timestamp,
        /// The token of the attempt in flight.
        token: Option<u64>,
    },
    Settled {
        delivered: bool,
        expires_at: Timestamp,
    },
}

impl DeliveryEntry {
    fn weight(&self) -> usize {
        weight::delivery(&self.new)
            + self.reason.as_ref().map_or(0, |reason| reason.len())
            + self.attempts.iter().map(weight::attempt).sum::<usize>()
    }

    const fn state(&self) -> DeliveryState {
        match self.status {
            DeliveryStatus::Pending { .. } => DeliveryState::Pending,
            DeliveryStatus::Settled { delivered: true, .. } => DeliveryState::Delivered,
            DeliveryStatus::Settled { delivered: false, .. } => DeliveryState::Dead,
        }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        matches!(self.status, DeliveryStatus::Settled { expires_at, .. } if expires_at <= now)
    }
}

impl DeliveryTable {
    /// Returns the estimated size.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the numbers of pending and of settled deliveries.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.entries.len() - self.settled.len(), self.settled.len())
    }

    /// Adds a delivery to the end of its queue. A known one stays as it is: its owner writes it anew if it cannot
    /// know whether the store has it.
    pub(super) fn push(&mut self, new: &NewDelivery, now: Timestamp) {
        if self.live(new.id, now).is_some() {
            return;
        }
        // An expired one may not be swept yet.
        self.remove(new.id);
        let queue = QueueId::of_delivery(new);
        let entry = DeliveryEntry {
            new: new.clone(),
            status: DeliveryStatus::Pending { queue, due: now, token: None },
            since: new.created_at,
            made: 0,
            step: 0,
            reason: None,
            attempts: VecDeque::new(),
        };
        self.queues.entry(queue).or_default().push_back(new.id);
        self.bytes += entry.weight();
        self.entries.insert(new.id, Box::new(entry));
    }

    /// Returns every queue.
    pub(super) fn queues(&self) -> impl Iterator<Item = PendingQueue> {
        self.queues.keys().filter_map(|&queue| {
            let (id, due, _) = self.first(queue)?;
            let DeliveryEntry { new, since, .. } = &**self.entries.get(&id)?;
            Some(PendingQueue {
                queue,
                target: new.target.clone(),
                endpoint: new.endpoint_id(),
                due,
                since: *since,
            })
        })
    }

    /// Returns the endpoint of each pending delivery that goes to one.
    pub(super) fn pending_endpoints(&self) -> impl Iterator<Item = EndpointId> {
        let pending = self.queues.values().flatten();
        pending.filter_map(|id| self.entries.get(id)?.new.endpoint_id())
    }

    /// Records an attempt of the first delivery of the queue. `early` begins it before it is due too.
    pub(super) fn begin(
        &mut self,
        queue: QueueId,
        token: u64,
        window: Duration,
        early: bool,
        now: Timestamp,
    ) -> BeginResult {
        let Some((id, due, in_flight)) = self.first(queue) else { return BeginResult::Empty };
        let waits = now < due && !(early && in_flight.is_none());
        if waits && in_flight != Some(token) {
            return BeginResult::Later(due);
        }
        let Some(entry) = self.entries.get_mut(&id) else { return BeginResult::Empty };
        entry.status = DeliveryStatus::Pending { queue, due: now + window, token: Some(token) };
        let DeliveryEntry { since, made, step, .. } = **entry;
        BeginResult::Taken(Box::new(ClaimedDelivery {
            delivery: entry.new.clone(),
            since,
            made,
            step,
            token,
            now,
        }))
    }

    /// Records the end of an attempt, if it is the one in flight.
    pub(super) fn finish(
        &mut self,
        queue: QueueId,
        finish: &FinishRequest,
        message_ttl: Duration,
        now: Timestamp,
    ) -> FinishResult {
        if self.is_in_flight(queue, finish) {
            self.end_attempt(queue, finish, message_ttl, now);
        }
        FinishResult { next: self.first(queue).map(|(_, due, _)| due), now }
    }

    /// Returns whether this attempt is the one in flight in this queue.
    fn is_in_flight(&self, queue: QueueId, finish: &FinishRequest) -> bool {
        self.first(queue).is_some_and(|(id, _, token)| {
            id == finish.claimed.delivery.id && token == Some(finish.claimed.token)
        })
    }

    fn end_attempt(&mut self, queue: QueueId, finish: &FinishRequest, message_ttl: Duration, now: Timestamp) {
        let id = finish.claimed.delivery.id;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.bytes -= entry.weight();
        entry.made += 1;
        if entry.attempts.len() >= ATTEMPTS {
            entry.attempts.pop_front();
        }
        entry.attempts.push_back(finish.attempt.clone());
        let again = |wait| DeliveryStatus::Pending { queue, due: now + wait, token: None };
        let settled = |delivered, ttl| DeliveryStatus::Settled { delivered, expires_at: now + ttl };
        (entry.status, entry.reason) = match &finish.decision {
            RetryDecision::Delivered => (settled(true, message_ttl), None),
            RetryDecision::DeadLetter(reason) => (settled(false, DEAD_TTL), Some(reason.clone())),
            RetryDecision::Again => (again(Duration::ZERO), finish.attempt.error.clone()),
            RetryDecision::Retry(wait) => {
                entry.step += 1;
                (again(*wait), finish.attempt.error.clone())
            }
        };
        self.bytes += entry.weight();
        if let DeliveryStatus::Settled { expires_at, .. } = entry.status {
            self.settled.insert((expires_at, id));
            self.dequeue(queue, id);
            for report in &finish.reports {
                self.push(report, now);
            }
        }
    }

    /// Returns a delivery with its state.
    pub(super) fn delivery(&self, id: DeliveryId, now: Timestamp) -> Option<Delivery> {
        let entry = self.live(id, now)?;
        let next_attempt_at = match entry.status {
            DeliveryStatus::Pending { queue, .. } => {
                self.first(queue).filter(|(first, ..)| *first == id).map(|(_, due, _)| due)
            }
            DeliveryStatus::Settled { .. } => None,
        };
        Some(Delivery {
            new: entry.new.clone(),
            state: entry.state(),
            next_attempt_at,
            reason: entry.reason.clone(),
            attempts: entry.attempts.iter().cloned().collect(),
        })
    }

    /// Returns the deliveries that match, newest first.
    pub(super) fn list(&self, query: &DeliveryQuery, now: Timestamp) -> impl Iterator<Item = DeliveryId> {
        let before = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((Bound::Unbounded, before))
            .rev()
            .filter(move |(_, entry)| {
                !entry.has_expired(now)
                    && query.state.is_none_or(|state| state == entry.state())
                    && query.endpoint.as_deref().is_none_or(|name| entry.new.endpoint() == Some(name))
                    && query.message.is_none_or(|message| entry.new.message == Some(message))
                    && query.since.is_none_or(|since| since <= entry.new.created_at)
                    && query.covers(&entry.new.conversation)
            })
            .map(|(id, _)| *id)
    }

    /// Moves a delivery to a queue of its own, due now.
    pub(super) fn redeliver(&mut self, id: DeliveryId, now: Timestamp) -> RedeliverResult {
        let Some(entry) = self.live(id, now) else { return RedeliverResult::Unknown };
        match entry.status {
            DeliveryStatus::Pending { due, token: Some(_), .. } if now < due => {
                return RedeliverResult::InFlight;
            }
            DeliveryStatus::Pending { queue, .. } => self.dequeue(queue, id),
            DeliveryStatus::Settled { expires_at, .. } => {
                self.settled.remove(&(expires_at, id));
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return RedeliverResult::Unknown };
        self.bytes -= entry.weight();
        let queue = QueueId::alone(id);
        entry.status = DeliveryStatus::Pending { queue, due: now, token: None };
        (entry.since, entry.step, entry.reason) = (now, 0, None);
        self.bytes += entry.weight();
        self.queues.entry(queue).or_default().push_back(id);
        RedeliverResult::Queued
    }

    /// Returns the first expiry of a settled delivery.
    pub(super) fn first_expiry(&self) -> Option<Timestamp> {
        self.settled.first().map(|(expires_at, _)| *expires_at)
    }

    /// Removes the settled delivery that expires first.
    pub(super) fn remove_first(&mut self) {
        if let Some((_, id)) = self.settled.pop_first() {
            self.remove(id);
        }
    }

    /// Removes all deliveries of a conversation.
    pub(super) fn erase(&mut self, name: &ConversationId) {
        let of_conversation = self.entries.iter().filter(|(_, entry)| entry.new.conversation == *name);
        let ids: Vec<_> = of_conversation.map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(DeliveryStatus::Pending { queue, .. }) =
                self.entries.get(&id).map(|entry| entry.status)
            {
                self.dequeue(queue, id);
            }
            self.remove(id);
        }
    }

    /// Gives back the memory of a burst.
    pub(super) fn shrink(&mut self) {
        if self.queues.capacity() > 64 && self.queues.len() * 4 < self.queues.capacity() {
            self.queues.shrink_to_fit();
        }
    }

    /// Returns the first delivery of a queue, the time when it is due, and the token of its attempt in flight.
    fn first(&self, queue: QueueId) -> Option<(DeliveryId, Timestamp, Option<u64>)> {
        let id = *self.queues.get(&queue)?.front()?;
        match self.entries.get(&id)?.status {
            DeliveryStatus::Pending { due, token, .. } => Some((id, due, token)),
            DeliveryStatus::Settled { .. } => None,
        }
    }

    fn live(&self, id: DeliveryId, now: Timestamp) -> Option<&DeliveryEntry> {
        self.entries.get(&id).map(|entry| &**entry).filter(|entry| !entry.has_expired(now))
    }

    /// Forgets a delivery that is in no queue.
    fn remove(&mut self, id: DeliveryId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.bytes -= entry.weight();
        if let DeliveryStatus::Settled { expires_at, .. } = entry.status {
            self.settled.remove(&(expires_at, id));
        }
    }

    /// Removes a delivery from a queue, and the queue with its last one.
    fn dequeue(&mut self, queue: QueueId, id: DeliveryId) {
        let Some(queued) = self.queues.get_mut(&queue) else { return };
        // It is nearly always the first.
        if let Some(place) = queued.iter().position(|queued| *queued == id) {
            queued.remove(place);
        }
        if queued.is_empty() {
            self.queues.remove(&queue);
        }
    }
}
