//! The bounded channel from a replica's shards to its webhook dispatcher.
//!
//! Events only save time. The dispatcher reads a partition's outbox when it becomes the owner, and again after it
//! missed events. It therefore finds in the store what no event reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::{Fence, QueueId};
use crate::domain::{DeliveryAttempt, EndpointId, Partition};

/// The capacity of the channel.
const CAPACITY: usize = 4096;

/// An event of a partition's owner.
#[derive(Debug)]
pub enum OutboxEvent {
    /// The partition is ours. Its deliveries are to be attempted from now on.
    Assigned(Partition, Fence),
    /// The owner wrote a delivery.
    Due {
        /// Its partition.
        partition: Partition,
        /// The owner's fence.
        fence: Fence,
        /// Its queue.
        queue: QueueId,
        /// Its target.
        target: Box<str>,
    },
    /// Deliveries of the partition are to be attempted again.
    Redelivered(Partition),
    /// The partition is about to be released. No attempt begins any more, and attempts in flight end by the deadline.
    Revoking {
        /// The partition.
        partition: Partition,
        /// The owner's fence.
        fence: Fence,
        /// The time at which attempts in flight are aborted.
        by: Instant,
        /// The sender of the signal that no attempt is in flight.
        done: oneshot::Sender<()>,
    },
    /// The partition is no longer ours.
    Lost(Partition, Fence),
    /// The state of an endpoint was changed on this replica.
    EndpointsChanged,
    /// An endpoint is to be tested at once.
    TestRequested {
        /// The endpoint.
        endpoint: EndpointId,
        /// The sender for the result. It is dropped if the endpoint is not configured.
        answer: oneshot::Sender<DeliveryAttempt>,
    },
    /// Events were dropped: the outbox of every partition must be read.
    Missed,
}

/// The sender, for shards. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct OutboxEventSender {
    events: mpsc::Sender<OutboxEvent>,
    missed: Arc<MissedEvents>,
}

/// The receiver, for the dispatcher.
#[derive(Debug)]
pub struct OutboxEventReceiver {
    events: mpsc::Receiver<OutboxEvent>,
    missed: Arc<MissedEvents>,
}

#[derive(Debug, Default)]
struct MissedEvents {
    some: AtomicBool,
    wake: Notify,
}

/// Creates the channel.
pub fn outbox_events() -> (OutboxEventSender, OutboxEventReceiver) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let missed = Arc::new(MissedEvents::default());
    (
        OutboxEventSender { events: sender, missed: Arc::clone(&missed) },
        OutboxEventReceiver { events: receiver, missed },
    )
}

impl OutboxEventSender {
    /// Sends an event, and waits for room. The event is dropped if the receiver is gone.
    pub async fn tell(&self, event: OutboxEvent) {
        self.events.send(event).await.ok();
    }

    /// Sends an event without waiting. If the channel is full, it reports [`OutboxEvent::Missed`] instead.
    pub fn tell_now(&self, event: OutboxEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            self.missed.some.store(true, Ordering::Release);
            self.missed.wake.notify_one();
        }
    }
}

impl OutboxEventReceiver {
    /// Returns whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.missed.some.load(Ordering::Acquire)
    }

    /// Returns the next event if one is there. [`OutboxEventReceiver::next`] returns [`OutboxEvent::Missed`].
    pub fn try_next(&mut self) -> Option<OutboxEvent> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event. Returns `None` if all senders are gone.
    pub async fn next(&mut self) -> Option<OutboxEvent> {
        loop {
            if self.missed.some.swap(false, Ordering::AcqRel) {
                return Some(OutboxEvent::Missed);
            }
            tokio::select! {
                event = self.events.recv() => return event,
                () = self.missed.wake.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn event_beyond_the_capacity_is_reported_as_missed() {
        let (sender, mut receiver) = outbox_events();
        let partition = Partition::from_byte(7);
        for _ in 0..=CAPACITY {
            sender.tell_now(OutboxEvent::Redelivered(partition));
        }
        assert!(matches!(receiver.next().await, Some(OutboxEvent::Missed)));
        for _ in 0..CAPACITY {
            assert!(matches!(receiver.next().await, Some(OutboxEvent::Redelivered(_))));
        }
        drop(sender);
        assert!(receiver.next().await.is_none());
    }
}
