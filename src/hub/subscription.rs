//! A subscription to a conversation: a queue from its shard to a request.
//!
//! The queue carries no entries. A subscriber that gets [`LiveSignal::Look`] reads the next page of the store behind its
//! cursor. It so reads each entry once and in order, however many signals it gets. At most one look waits, because it
//! stands for any number of new entries. Chunks of streamed replies wait up to a limit. A subscriber that exceeds the limit
//! is dropped. Its chunks are lost, but the journal has the whole reply.
//!
//! Thousands of subscriptions wait at a time, most of them idle. A channel of tokio allocates 32 places with the first value
//! and cannot merge looks. This queue has no buffer while it is empty. Its mutex is no lock on the hot path in the sense of
//! docs/architecture.md. It belongs to one subscriber, is held for a push or a pop, and delays no posted message.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use serde_json::value::RawValue;

use crate::domain::{LiveSignal, ReplyChunk};

/// Chunks and frames that may wait for a subscriber: some seconds of a fast bot.
const MAX_PIECES: usize = 64;

/// The subscriber's end: the live signals of a conversation. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription(Arc<Mutex<SignalQueue>>);

/// The shard's end. Dropping it closes the queue: the subscriber gets the waiting signals, then `None`.
#[derive(Debug)]
pub(crate) struct Publisher(Weak<Mutex<SignalQueue>>);

/// The signals that wait for a subscriber.
#[derive(Debug, Default)]
struct SignalQueue {
    /// Chunks of replies, and frames that the journal does not keep.
    pieces: VecDeque<LiveSignal>,
    /// A look, behind this number of earlier pieces.
    look: Option<usize>,
    /// The publisher is dropped.
    closed: bool,
    waker: Option<Waker>,
}

/// The result of a signal to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishResult {
    /// The queue has the signal.
    Sent,
    /// The subscription was dropped.
    Unsubscribed,
    /// The queue is full.
    TooSlow,
}

/// Returns the two ends of a new queue.
pub(crate) fn subscription() -> (Publisher, Subscription) {
    let queue = Arc::default();
    (Publisher(Arc::downgrade(&queue)), Subscription(queue))
}

impl Subscription {
    /// Returns the next signal, without a timeout. It returns `None` if this subscriber was too slow or the replica shuts
    /// down. The caller then subscribes again with its cursor, here or at another replica.
    ///
    /// A chunk comes before the [`LiveSignal::Look`] of its finished reply, unless an earlier look has read the reply
    /// already. Dropping the future loses no signal.
    pub async fn next(&mut self) -> Option<LiveSignal> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<LiveSignal>> {
        let mut queue = lock(&self.0);
        if let Some(live) = queue.pop() {
            return Poll::Ready(Some(live));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        match &mut queue.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl SignalQueue {
    fn pop(&mut self) -> Option<LiveSignal> {
        if let Some(before) = &mut self.look {
            let Some(rest) = before.checked_sub(1) else {
                self.look = None;
                return Some(LiveSignal::Look);
            };
            *before = rest;
        }
        let piece = self.pieces.pop_front()?;
        if self.pieces.is_empty() {
            // An idle subscription has no buffer.
            self.pieces = VecDeque::new();
        }
        Some(piece)
    }
}

impl Publisher {
    /// Has the subscriber look for new entries.
    pub(crate) fn look(&self) -> PublishResult {
        self.change(|queue| {
            queue.look = Some(queue.pieces.len());
            PublishResult::Sent
        })
    }

    /// Sends a chunk of a streamed reply.
    pub(crate) fn chunk(&self, chunk: &Arc<ReplyChunk>) -> PublishResult {
        self.change(|queue| {
            if queue.pieces.len() >= MAX_PIECES {
                return PublishResult::TooSlow;
            }
            queue.pieces.push_back(LiveSignal::Chunk(Arc::clone(chunk)));
            PublishResult::Sent
        })
    }

    /// Sends a frame that the journal does not keep. A full queue drops it, because the next one replaces it.
    pub(crate) fn platform(&self, frame: &Arc<RawValue>) -> PublishResult {
        self.change(|queue| {
            if queue.pieces.len() < MAX_PIECES {
                queue.pieces.push_back(LiveSignal::Platform(Arc::clone(frame)));
            }
            PublishResult::Sent
        })
    }

    /// Returns whether the subscription was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.strong_count() == 0
    }

    fn change(&self, change: impl FnOnce(&mut SignalQueue) -> PublishResult) -> PublishResult {
        let Some(queue) = self.0.upgrade() else { return PublishResult::Unsubscribed };
        let mut queue = lock(&queue);
        let result = change(&mut queue);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.change(|queue| {
            queue.closed = true;
            PublishResult::Sent
        });
    }
}

fn lock(queue: &Mutex<SignalQueue>) -> MutexGuard<'_, SignalQueue> {
    // A panic cannot leave the queue in an inconsistent state.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::task::noop_waker_ref;
    use proptest::prelude::*;

    use super::*;

    fn chunk(index: u32) -> Arc<ReplyChunk> {
        Arc::new(ReplyChunk { message_id: None, index, text: "…".into(), last: false })
    }

    /// Reads all waiting signals: the index of a chunk, or `None` for a look. Also returns whether the queue is closed.
    fn read(subscription: &mut Subscription) -> (Vec<Option<u32>>, bool) {
        let mut signals = Vec::new();
        loop {
            match subscription.next().now_or_never() {
                Some(Some(LiveSignal::Look)) => signals.push(None),
                Some(Some(LiveSignal::Chunk(chunk))) => signals.push(Some(chunk.index)),
                Some(Some(LiveSignal::Platform(_))) => {}
                Some(None) => return (signals, true),
                None => return (signals, false),
            }
        }
    }

    #[test]
    fn idle_subscription_takes_less_than_a_hundred_bytes() {
        let (publisher, mut subscription) = subscription();
        let counts = 2 * size_of::<usize>();
        let size = size_of::<Mutex<SignalQueue>>() + counts;
        assert!(size <= 100, "{size}");
        assert_eq!(size_of::<Subscription>() + size_of::<Publisher>(), 2 * size_of::<usize>());
        for index in 0..8 {
            assert_eq!(publisher.chunk(&chunk(index)), PublishResult::Sent);
        }
        assert_eq!(read(&mut subscription).0.len(), 8);
        assert_eq!(lock(&subscription.0).pieces.capacity(), 0, "an empty queue has no buffer");
    }

    #[test]
    fn chunks_come_before_the_look_of_their_reply() {
        let (publisher, mut subscription) = subscription();
        publisher.look();
        publisher.chunk(&chunk(0));
        publisher.look();
        publisher.chunk(&chunk(1));
        assert_eq!(read(&mut subscription), (vec![Some(0), None, Some(1)], false));
    }

    #[test]
    fn slow_subscriber_gets_waiting_chunks_then_the_end() {
        let (publisher, mut subscription) = subscription();
        let limit = u32::try_from(MAX_PIECES).unwrap();
        assert!((0..limit).all(|index| publisher.chunk(&chunk(index)) == PublishResult::Sent));
        for _ in 0..10_000 {
            assert_eq!(publisher.look(), PublishResult::Sent, "looks do not pile up");
        }
        assert_eq!(publisher.chunk(&chunk(limit)), PublishResult::TooSlow);
        assert!(lock(&subscription.0).pieces.len() <= MAX_PIECES);
        drop(publisher);
        let signals: Vec<_> = (0..limit).map(Some).chain([None]).collect();
        assert_eq!(read(&mut subscription), (signals, true));
    }

    #[test]
    fn frame_that_finds_no_place_is_dropped() {
        let (publisher, mut subscription) = subscription();
        let frame: Arc<RawValue> = Arc::from(RawValue::from_string("{}".to_owned()).unwrap());
        assert!((0..2 * MAX_PIECES).all(|_| publisher.platform(&frame) == PublishResult::Sent));
        assert_eq!(lock(&subscription.0).pieces.len(), MAX_PIECES);
        assert!(matches!(subscription.next().now_or_never(), Some(Some(LiveSignal::Platform(_)))));
        assert_eq!(publisher.chunk(&chunk(0)), PublishResult::Sent, "the subscriber is not too slow");
    }

    #[test]
    fn dropped_subscription_is_closed() {
        let (publisher, subscription) = subscription();
        assert!(!publisher.is_closed());
        drop(subscription);
        assert!(publisher.is_closed());
        assert_eq!(
            (publisher.look(), publisher.chunk(&chunk(0))),
            (PublishResult::Unsubscribed, PublishResult::Unsubscribed)
        );
    }

    #[tokio::test]
    async fn waiting_subscriber_is_woken_by_each_kind_of_signal() {
        let (publisher, mut subscription) = subscription();
        // Another task polled it before; the last waker counts.
        assert!(subscription.poll_next(&Context::from_waker(noop_waker_ref())).is_pending());
        let publishing = async {
            tokio::task::yield_now().await;
            publisher.look();
            tokio::task::yield_now().await;
            publisher.chunk(&chunk(7));
            tokio::task::yield_now().await;
            drop(publisher);
        };
        let reading = async {
            assert!(matches!(subscription.next().await, Some(LiveSignal::Look)));
            assert!(matches!(subscription.next().await, Some(LiveSignal::Chunk(_))));
            assert!(subscription.next().await.is_none());
            assert!(subscription.next().await.is_none(), "it stays ended");
        };
        tokio::join!(reading, publishing);
    }

    #[derive(Debug, Clone, Copy)]
    enum SubscriptionStep {
        Look,
        Chunk,
        Read,
    }

    proptest! {
        #[test]
        fn signals_keep_their_order_and_every_append_gets_a_look(
            steps in proptest::collection::vec(
                prop_oneof![Just(SubscriptionStep::Look), Just(SubscriptionStep::Chunk), Just(SubscriptionStep::Read)], 0..200),
        ) {
            let (publisher, mut subscription) = subscription();
            let (mut pushed, mut popped) = (0, 0);
            // The number of chunks before the pending look.
            let mut look = None;
            for step in steps {
                match step {
                    SubscriptionStep::Look => {
                        publisher.look();
                        look = Some(pushed);
                    }
                    SubscriptionStep::Chunk => {
                        let full = pushed - popped >= u32::try_from(MAX_PIECES).unwrap();
                        prop_assert_eq!(publisher.chunk(&chunk(pushed)) == PublishResult::TooSlow, full);
                        pushed += u32::from(!full);
                    }
                    SubscriptionStep::Read => match subscription.next().now_or_never() {
                        Some(Some(LiveSignal::Chunk(chunk))) => {
                            prop_assert_eq!(chunk.index, popped);
                            prop_assert!(look != Some(popped), "the look comes first");
                            popped += 1;
                        }
                        Some(Some(LiveSignal::Look)) => prop_assert_eq!(look.take(), Some(popped)),
                        Some(Some(LiveSignal::Platform(_))) => prop_assert!(false, "no frame was sent"),
                        Some(None) => prop_assert!(false, "the publisher is alive"),
                        None => prop_assert!(look.is_none() && pushed == popped, "a signal waits"),
                    },
                }
            }
        }
    }
}
