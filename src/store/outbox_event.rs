//! What a replica's shards tell its dispatcher of deliveries: a bounded channel of the owner's news.
//!
//! News are hints, as everything but the store is: the dispatcher finds in the store what it was not told, because it
//! reads a partition's outbox whenever it comes to own it, and again after news went missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::{Fence, QueueId};
use crate::domain::Partition;

/// News that may wait.
const WAITING: usize = 4096;

/// What the owner of partitions tells.
#[derive(Debug)]
pub enum OutboxEvent {
    /// The partition is ours: its deliveries are to be attempted from now on.
    Owned(Partition, Fence),
    /// A delivery was written.
    Due {
        /// Its partition.
        partition: Partition,
        /// What the partition is owned under.
        fence: Fence,
        /// Its queue.
        queue: QueueId,
        /// Where it goes.
        target: Box<str>,
    },
    /// Somebody asked for deliveries to be attempted again.
    Redelivered(Partition),
    /// The partition is about to be released: nothing more is begun, and what is in flight is over by then.
    Releasing {
        /// Which.
        partition: Partition,
        /// What it is owned under.
        fence: Fence,
        /// When attempts in flight are broken off.
        by: Instant,
        /// Told when none is in flight.
        done: oneshot::Sender<()>,
    },
    /// The partition is no longer ours.
    Lost(Partition, Fence),
    /// Some news went missing: every partition's outbox is to be read.
    Missed,
}

/// The side of the shards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OutboxEventSender {
    news: mpsc::Sender<OutboxEvent>,
    missed: Arc<MissedEvents>,
}

/// The side of the dispatcher.
#[derive(Debug)]
pub struct OutboxEventReceiver {
    news: mpsc::Receiver<OutboxEvent>,
    missed: Arc<MissedEvents>,
}

#[derive(Debug, Default)]
struct MissedEvents {
    some: AtomicBool,
    wake: Notify,
}

/// A channel for news, which holds some thousands.
pub fn news() -> (OutboxEventSender, OutboxEventReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let missed = Arc::new(MissedEvents::default());
    (
        OutboxEventSender { news: sender, missed: Arc::clone(&missed) },
        OutboxEventReceiver { news: receiver, missed },
    )
}

impl OutboxEventSender {
    /// Tells, however long that takes; nothing where nobody listens any more.
    pub async fn tell(&self, news: OutboxEvent) {
        self.news.send(news).await.ok();
    }

    /// Tells at once, or notes that something went missing.
    pub fn tell_now(&self, news: OutboxEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.news.try_send(news) {
            self.missed.some.store(true, Ordering::Release);
            self.missed.wake.notify_one();
        }
    }
}

impl OutboxEventReceiver {
    /// Whether there are no news at the moment.
    pub fn is_empty(&self) -> bool {
        self.news.is_empty() && !self.missed.some.load(Ordering::Acquire)
    }

    /// The next news, however long that takes; none where nobody tells any more.
    pub async fn next(&mut self) -> Option<OutboxEvent> {
        loop {
            if self.missed.some.swap(false, Ordering::AcqRel) {
                return Some(OutboxEvent::Missed);
            }
            tokio::select! {
                news = self.news.recv() => return news,
                () = self.missed.wake.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_known_to_be_missed() {
        let (teller, mut listening) = news();
        let partition = Partition::from_byte(7);
        for _ in 0..=WAITING {
            teller.tell_now(OutboxEvent::Redelivered(partition));
        }
        assert!(matches!(listening.next().await, Some(OutboxEvent::Missed)));
        for _ in 0..WAITING {
            assert!(matches!(listening.next().await, Some(OutboxEvent::Redelivered(_))));
        }
        drop(teller);
        assert!(listening.next().await.is_none());
    }
}
