//! What is to be buried although nobody comes to it: its time is over, and its host is left alone.
//!
//! A host that fails is probed by one attempt a minute, which ends one delivery's time at most; thousands may wait
//! behind it. How old they are is seen where their outbox is read. One attempt is made of each, unless its host has
//! failed for as long as any of them is tried: a host that fell over a minute ago, under what an outage had piled up, may
//! be back in another.

use std::rc::Rc;

use super::partition_queues::{QueueEntry, QueueState, part};
use super::{AttemptStart, InFlightAttempt, Scheduler};
use crate::domain::{Partition, Timestamp};
use crate::store::{Fence, QueueId};
use crate::webhook::retry_schedule::AGE_MAX;

impl Scheduler {
    /// A queue was read whose first delivery is tried since then, and due.
    pub(super) fn look_at_age(
        &mut self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        (since, due): (Timestamp, Timestamp),
        now: Timestamp,
    ) {
        if due <= now && now.since(since) >= AGE_MAX {
            self.overdue.push_back((partition, fence, queue));
        }
    }

    /// What to begin for the sake of burying: while a host is left alone nobody else would come to it.
    pub(super) fn next_overdue(&mut self, now: Timestamp) -> Option<AttemptStart> {
        while self.in_flight < self.in_all {
            let (partition, fence, queue) = *self.overdue.front()?;
            let part = part(&mut self.parts, partition, fence).filter(|part| !part.is_silent());
            let known = part.and_then(|part| Some((part.queues.get_mut(&queue)?, &mut part.flights)));
            if let Some((QueueEntry { host, state: state @ QueueState::Waiting(_) }, flights)) = known
                && let QueueState::Waiting(due) = *state
                && due <= now
                && self.hosts.failing_since(host).is_some_and(|since| now.since(since) >= AGE_MAX)
            {
                if !self.hosts.admit(host) {
                    return None;
                }
                let host = Rc::clone(host);
                *state = QueueState::InFlight { rung: false };
                *flights += 1;
                self.in_flight += 1;
                self.overdue.pop_front();
                self.hosts.recall(&host, due, queue, partition);
                let token = self.rng.u64(..);
                self.flights.insert(
                    token,
                    InFlightAttempt { partition, fence, queue, host, probe: true, counts: true },
                );
                return Some(AttemptStart { partition, fence, queue, token, overdue: true });
            }
            // Others have come to it, or will.
            self.overdue.pop_front();
        }
        None
    }
}
