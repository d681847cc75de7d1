//! Dead-letters expired deliveries behind an open circuit, and deliveries to endpoints that are switched off.
//!
//! A host that fails gets one probe a minute, and one probe ends one delivery at most. Thousands of deliveries may wait
//! behind it. The read of an outbox shows their age.
//!
//! Every delivery gets one attempt, unless its host has failed for as long as a delivery is tried. A backlog after an
//! outage of the replicas may be that old while its host failed only a minute ago. That host may be back soon.

use std::rc::Rc;

use super::partition_queues::{QueueEntry, QueueState, owned};
use super::{AttemptStart, InFlightAttempt, Scheduler};
use crate::domain::{Partition, Timestamp};
use crate::store::{Fence, QueueId};
use crate::webhook::retry_schedule::AGE_MAX;

/// A queue whose first delivery is to be dead-lettered.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpiredQueue {
    partition: Partition,
    fence: Fence,
    queue: QueueId,
    /// Whether its endpoint is switched off. Due time and host do not matter then.
    off: bool,
}

impl Scheduler {
    /// Takes note of a queue whose endpoint is switched off.
    pub(in super::super) fn note_off(&mut self, partition: Partition, fence: Fence, queue: QueueId) {
        self.expired.push_back(ExpiredQueue { partition, fence, queue, off: true });
    }

    /// Takes note of a queue if its first delivery is due and has expired. That delivery is tried since `since`.
    pub(super) fn note_expired(
        &mut self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        (since, due): (Timestamp, Timestamp),
        now: Timestamp,
    ) {
        if due <= now && now.since(since) >= AGE_MAX {
            self.expired.push_back(ExpiredQueue { partition, fence, queue, off: false });
        }
    }

    /// Returns the attempt to begin for a delivery that is dead-lettered without a request.
    pub(super) fn next_expired(&mut self, now: Timestamp) -> Option<AttemptStart> {
        while self.in_flight < self.max_in_flight {
            let ExpiredQueue { partition, fence, queue, off } = *self.expired.front()?;
            let known = owned(&mut self.partitions, partition, fence).filter(|known| !known.store_silent);
            let known = known.and_then(|known| Some((known.queues.get_mut(&queue)?, &mut known.in_flight)));
            if let Some((QueueEntry { host, state: state @ QueueState::Waiting(_) }, in_flight)) = known
                && let QueueState::Waiting(due) = *state
                && (off || due <= now)
                && (off || self.hosts.failing_since(host).is_some_and(|since| now.since(since) >= AGE_MAX))
            {
                if !self.hosts.take_slot(host) {
                    return None;
                }
                let host = Rc::clone(host);
                *state = QueueState::InFlight { notified: false };
                *in_flight += 1;
                self.in_flight += 1;
                self.expired.pop_front();
                self.hosts.unschedule(&host, due, queue, partition);
                let token = self.rng.u64(..);
                self.attempts.insert(
                    token,
                    InFlightAttempt { partition, fence, queue, host, probe: true, counted: true },
                );
                return Some(AttemptStart { partition, fence, queue, token, expired: true, early: off });
            }
            // A usual attempt has handled the queue, or will.
            self.expired.pop_front();
        }
        None
    }
}
