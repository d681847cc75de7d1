//! The deliveries of one partition, their queues, and the steps on them. No lock and no clock here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use super::weight;
use crate::domain::{Delivery, DeliveryAttempt, DeliveryId, DeliveryState, NewDelivery, Timestamp};
use crate::store::{
    ATTEMPTS, BeginResult, ClaimedDelivery, DEAD_TTL, DeliveryQuery, FinishRequest, FinishResult,
    PendingQueue, QueueId, RedeliverResult, RetryDecision,
};

/// The deliveries of a partition.
#[derive(Default)]
pub(super) struct Deliveries {
    kept: BTreeMap<DeliveryId, Box<Kept>>,
    /// What is pending, each queue with the one that is attempted in front. None is empty.
    queues: HashMap<QueueId, VecDeque<DeliveryId>>,
    /// What is delivered or dead, by when it goes.
    settled: BTreeSet<(Timestamp, DeliveryId)>,
    /// The estimate of all this.
    bytes: usize,
}

/// A delivery and how it stands.
struct Kept {
    new: NewDelivery,
    standing: Standing,
    /// Since when it is tried.
    since: Timestamp,
    /// Attempts that ended.
    made: u32,
    /// Those of them that count in the schedule, since then.
    step: u32,
    reason: Option<Box<str>>,
    /// The newest, oldest first.
    attempts: VecDeque<DeliveryAttempt>,
}

#[derive(Clone, Copy)]
enum Standing {
    Pending {
        queue: QueueId,
        /// When it may be attempted once it is the first of its queue: with a token, when that attempt is over.
        due: Timestamp,
        /// Of the attempt in flight.
        token: Option<u64>,
    },
    Settled {
        delivered: bool,
        expires_at: Timestamp,
    },
}

impl Kept {
    fn weight(&self) -> usize {
        weight::delivery(&self.new)
            + self.reason.as_ref().map_or(0, |reason| reason.len())
            + self.attempts.iter().map(weight::attempt).sum::<usize>()
    }

    const fn state(&self) -> DeliveryState {
        match self.standing {
            Standing::Pending { .. } => DeliveryState::Pending,
            Standing::Settled { delivered: true, .. } => DeliveryState::Delivered,
            Standing::Settled { delivered: false, .. } => DeliveryState::Dead,
        }
    }

    /// Whether its time to be kept is over.
    fn has_expired(&self, now: Timestamp) -> bool {
        matches!(self.standing, Standing::Settled { expires_at, .. } if expires_at <= now)
    }
}

impl Deliveries {
    /// The estimate of what is kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are pending, and how many are delivered or dead.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.kept.len() - self.settled.len(), self.settled.len())
    }

    /// Takes a delivery at the end of its queue. One that is here already stays as it is: its owner writes it anew
    /// where it cannot know whether the store still has it.
    pub(super) fn push(&mut self, new: &NewDelivery, now: Timestamp) {
        if self.kept(new.id, now).is_some() {
            return;
        }
        // What expired but was not yet swept.
        self.remove(new.id);
        let queue = QueueId::of(&new.conversation, &new.target);
        let kept = Kept {
            new: new.clone(),
            standing: Standing::Pending { queue, due: now, token: None },
            since: new.created_at,
            made: 0,
            step: 0,
            reason: None,
            attempts: VecDeque::new(),
        };
        self.queues.entry(queue).or_default().push_back(new.id);
        self.bytes += kept.weight();
        self.kept.insert(new.id, Box::new(kept));
    }

    /// Every queue.
    pub(super) fn queues(&self) -> impl Iterator<Item = PendingQueue> {
        self.queues.keys().filter_map(|&queue| {
            let (id, due, _) = self.first(queue)?;
            let Kept { new, since, .. } = &**self.kept.get(&id)?;
            Some(PendingQueue { queue, target: new.target.clone(), due, since: *since })
        })
    }

    /// Notes that the first of the queue is attempted.
    pub(super) fn begin(
        &mut self,
        queue: QueueId,
        token: u64,
        window: Duration,
        now: Timestamp,
    ) -> BeginResult {
        let Some((id, due, in_flight)) = self.first(queue) else { return BeginResult::Empty };
        if now < due && in_flight != Some(token) {
            return BeginResult::Later(due);
        }
        let Some(kept) = self.kept.get_mut(&id) else { return BeginResult::Empty };
        kept.standing = Standing::Pending { queue, due: now + window, token: Some(token) };
        let Kept { since, made, step, .. } = **kept;
        BeginResult::Taken(Box::new(ClaimedDelivery {
            delivery: kept.new.clone(),
            since,
            made,
            step,
            token,
            now,
        }))
    }

    /// Notes how an attempt ended, if it is the one in flight.
    pub(super) fn finish(
        &mut self,
        queue: QueueId,
        finish: &FinishRequest,
        message_ttl: Duration,
        now: Timestamp,
    ) -> FinishResult {
        if self.attempts(queue, finish) {
            self.end_attempt(queue, finish, message_ttl, now);
        }
        FinishResult { next: self.first(queue).map(|(_, due, _)| due), now }
    }

    /// Whether this attempt is the one in flight of this queue.
    fn attempts(&self, queue: QueueId, finish: &FinishRequest) -> bool {
        self.first(queue).is_some_and(|(id, _, token)| id == finish.id && token == Some(finish.token))
    }

    fn end_attempt(&mut self, queue: QueueId, finish: &FinishRequest, message_ttl: Duration, now: Timestamp) {
        let Some(kept) = self.kept.get_mut(&finish.id) else { return };
        self.bytes -= kept.weight();
        kept.made += 1;
        if kept.attempts.len() >= ATTEMPTS {
            kept.attempts.pop_front();
        }
        kept.attempts.push_back(finish.attempt.clone());
        let again = |wait| Standing::Pending { queue, due: now + wait, token: None };
        let settled = |delivered, ttl| Standing::Settled { delivered, expires_at: now + ttl };
        (kept.standing, kept.reason) = match &finish.verdict {
            RetryDecision::Delivered => (settled(true, message_ttl), None),
            RetryDecision::Bury(reason) => (settled(false, DEAD_TTL), Some(reason.clone())),
            RetryDecision::Again => (again(Duration::ZERO), finish.attempt.error.clone()),
            RetryDecision::Retry(wait) => {
                kept.step += 1;
                (again(*wait), finish.attempt.error.clone())
            }
        };
        self.bytes += kept.weight();
        if let Standing::Settled { expires_at, .. } = kept.standing {
            self.settled.insert((expires_at, finish.id));
            self.leave(queue, finish.id);
        }
    }

    /// A delivery as it stands.
    pub(super) fn delivery(&self, id: DeliveryId, now: Timestamp) -> Option<Delivery> {
        let kept = self.kept(id, now)?;
        let next_attempt_at = match kept.standing {
            Standing::Pending { queue, .. } => {
                self.first(queue).filter(|(first, ..)| *first == id).map(|(_, due, _)| due)
            }
            Standing::Settled { .. } => None,
        };
        Some(Delivery {
            new: kept.new.clone(),
            state: kept.state(),
            next_attempt_at,
            reason: kept.reason.clone(),
            attempts: kept.attempts.iter().cloned().collect(),
        })
    }

    /// Those that are asked for, newest first.
    pub(super) fn list(&self, query: &DeliveryQuery, now: Timestamp) -> impl Iterator<Item = DeliveryId> {
        let before = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        self.kept
            .range((Bound::Unbounded, before))
            .rev()
            .filter(move |(_, kept)| {
                !kept.has_expired(now)
                    && query.state.is_none_or(|state| state == kept.state())
                    && query.since.is_none_or(|since| since <= kept.new.created_at)
                    && query.covers(&kept.new.conversation)
            })
            .map(|(id, _)| *id)
    }

    /// Puts a delivery into a queue of its own, due now.
    pub(super) fn redeliver(&mut self, id: DeliveryId, now: Timestamp) -> RedeliverResult {
        let Some(kept) = self.kept(id, now) else { return RedeliverResult::Unknown };
        match kept.standing {
            Standing::Pending { due, token: Some(_), .. } if now < due => return RedeliverResult::InFlight,
            Standing::Pending { queue, .. } => self.leave(queue, id),
            Standing::Settled { expires_at, .. } => {
                self.settled.remove(&(expires_at, id));
            }
        }
        let Some(kept) = self.kept.get_mut(&id) else { return RedeliverResult::Unknown };
        self.bytes -= kept.weight();
        let queue = QueueId::alone(id);
        kept.standing = Standing::Pending { queue, due: now, token: None };
        (kept.since, kept.step, kept.reason) = (now, 0, None);
        self.bytes += kept.weight();
        self.queues.entry(queue).or_default().push_back(id);
        RedeliverResult::Queued
    }

    /// When the first of the settled ones goes.
    pub(super) fn first_expiry(&self) -> Option<Timestamp> {
        self.settled.first().map(|(expires_at, _)| *expires_at)
    }

    /// Removes the first of the settled ones.
    pub(super) fn remove_first(&mut self) {
        if let Some((_, id)) = self.settled.pop_first() {
            self.remove(id);
        }
    }

    /// Gives back what a burst left behind.
    pub(super) fn shrink(&mut self) {
        if self.queues.capacity() > 64 && self.queues.len() * 4 < self.queues.capacity() {
            self.queues.shrink_to_fit();
        }
    }

    /// The first of a queue, when it is due and the token of its attempt in flight.
    fn first(&self, queue: QueueId) -> Option<(DeliveryId, Timestamp, Option<u64>)> {
        let id = *self.queues.get(&queue)?.front()?;
        match self.kept.get(&id)?.standing {
            Standing::Pending { due, token, .. } => Some((id, due, token)),
            Standing::Settled { .. } => None,
        }
    }

    fn kept(&self, id: DeliveryId, now: Timestamp) -> Option<&Kept> {
        self.kept.get(&id).map(|kept| &**kept).filter(|kept| !kept.has_expired(now))
    }

    /// Forgets one that is settled.
    fn remove(&mut self, id: DeliveryId) {
        let Some(kept) = self.kept.remove(&id) else { return };
        self.bytes -= kept.weight();
        if let Standing::Settled { expires_at, .. } = kept.standing {
            self.settled.remove(&(expires_at, id));
        }
    }

    /// Takes a delivery out of a queue, and the queue away with its last.
    fn leave(&mut self, queue: QueueId, id: DeliveryId) {
        let Some(waiting) = self.queues.get_mut(&queue) else { return };
        // Nearly always the first.
        if let Some(place) = waiting.iter().position(|waits| *waits == id) {
            waiting.remove(place);
        }
        if waiting.is_empty() {
            self.queues.remove(&queue);
        }
    }
}
