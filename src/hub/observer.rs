//! Who reads a conversation live: a queue between the shard that tells and the HTTP worker that reads.
//!
//! It carries no entries. A reader is told to look, reads the store's next page behind its cursor, and so reads each
//! entry once and in order, whatever it was told and however often. One [`LiveSignal::Look`] is enough for any number of new
//! entries, so at most one waits; pieces of streamed replies wait up to a bound. A reader that lets them pile up is let
//! go of: what it missed of them is not kept anywhere, what counts is in the journal.
//!
//! Thousands of readers wait at a time, most of them for nothing. A channel of tokio's takes a block of 32 places with
//! the first value and cannot merge looks, so this is a queue of its own: no buffer while it is empty, behind a mutex.
//! The mutex is no lock on the hot path in the sense of docs/architecture.md: it belongs to one reader, its two sides
//! hold it for a push or a pop, and no message that is posted waits for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::domain::{LiveSignal, ReplyChunk};

/// Pieces that may wait for a reader: some seconds of a bot that types fast.
const PIECES: usize = 64;

/// A reader's end: what it is told of a conversation between two pages. Dropping it ends the observing.
#[derive(Debug)]
pub struct Subscription(Arc<Mutex<Queue>>);

/// The shard's end. Dropping it ends the queue: the reader gets what waits, then nothing more.
#[derive(Debug)]
pub(crate) struct Publisher(Weak<Mutex<Queue>>);

/// What waits for a reader.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Arc<ReplyChunk>>,
    /// There may be new entries; that is told behind so many of the pieces, which came before.
    look: Option<usize>,
    /// Nothing comes any more.
    closed: bool,
    reader: Option<Waker>,
}

/// What became of telling a reader something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// It will know.
    Done,
    /// Nobody reads any more.
    Gone,
    /// It has not read for too long.
    Slow,
}

/// The two ends of a new queue.
pub(crate) fn observer() -> (Publisher, Subscription) {
    let queue = Arc::default();
    (Publisher(Arc::downgrade(&queue)), Subscription(queue))
}

impl Subscription {
    /// What comes next, however long that takes. None where this reader was too slow, or the replica goes away: go
    /// with your cursor, here or to another replica.
    ///
    /// A piece of a reply comes before the [`LiveSignal::Look`] that the finished reply is told by. Where that was read
    /// already, for another entry's sake, it may come behind. Nothing is lost where the future is dropped.
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
        match &mut queue.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            reader => *reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Queue {
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
            // A reader that waits keeps no buffer.
            self.pieces = VecDeque::new();
        }
        Some(LiveSignal::Chunk(piece))
    }
}

impl Publisher {
    /// There may be new entries.
    pub(crate) fn look(&self) -> Telling {
        self.tell(|queue| {
            queue.look = Some(queue.pieces.len());
            Telling::Done
        })
    }

    /// A piece of a streamed reply came.
    pub(crate) fn chunk(&self, chunk: &Arc<ReplyChunk>) -> Telling {
        self.tell(|queue| {
            if queue.pieces.len() >= PIECES {
                return Telling::Slow;
            }
            queue.pieces.push_back(Arc::clone(chunk));
            Telling::Done
        })
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    fn tell(&self, change: impl FnOnce(&mut Queue) -> Telling) -> Telling {
        let Some(queue) = self.0.upgrade() else { return Telling::Gone };
        let mut queue = lock(&queue);
        let telling = change(&mut queue);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        telling
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.tell(|queue| {
            queue.closed = true;
            Telling::Done
        });
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // No step in it is left half done by a panic.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::task::noop_waker_ref;
    use proptest::prelude::*;

    use super::*;

    fn piece(index: u32) -> Arc<ReplyChunk> {
        Arc::new(ReplyChunk { message_id: None, index, text: "…".into(), last: false })
    }

    /// All that can be had at once: the indexes of pieces, none for a look; and whether the queue has ended.
    fn read(observer: &mut Subscription) -> (Vec<Option<u32>>, bool) {
        let mut told = Vec::new();
        loop {
            match observer.next().now_or_never() {
                Some(Some(LiveSignal::Look)) => told.push(None),
                Some(Some(LiveSignal::Chunk(chunk))) => told.push(Some(chunk.index)),
                Some(None) => return (told, true),
                None => return (told, false),
            }
        }
    }

    #[test]
    fn an_idle_reader_takes_less_than_a_hundred_bytes() {
        let (teller, mut observer) = observer();
        let counts = 2 * size_of::<usize>();
        let size = size_of::<Mutex<Queue>>() + counts;
        assert!(size <= 100, "{size}");
        assert_eq!(size_of::<Subscription>() + size_of::<Publisher>(), 2 * size_of::<usize>());
        for index in 0..8 {
            assert_eq!(teller.chunk(&piece(index)), Telling::Done);
        }
        assert_eq!(read(&mut observer).0.len(), 8);
        assert_eq!(lock(&observer.0).pieces.capacity(), 0, "what was read leaves no buffer behind");
    }

    #[test]
    fn pieces_come_before_the_look_that_tells_of_their_reply() {
        let (teller, mut observer) = observer();
        teller.look();
        teller.chunk(&piece(0));
        teller.look();
        teller.chunk(&piece(1));
        assert_eq!(read(&mut observer), (vec![Some(0), None, Some(1)], false));
    }

    #[test]
    fn a_reader_that_lets_pieces_pile_up_gets_what_waits_and_then_nothing() {
        let (teller, mut observer) = observer();
        let pieces = u32::try_from(PIECES).unwrap();
        assert!((0..pieces).all(|index| teller.chunk(&piece(index)) == Telling::Done));
        for _ in 0..10_000 {
            assert_eq!(teller.look(), Telling::Done, "looks do not pile up");
        }
        assert_eq!(teller.chunk(&piece(pieces)), Telling::Slow);
        assert!(lock(&observer.0).pieces.len() <= PIECES);
        drop(teller);
        let told: Vec<_> = (0..pieces).map(Some).chain([None]).collect();
        assert_eq!(read(&mut observer), (told, true));
    }

    #[test]
    fn a_reader_that_goes_is_known_to_be_gone() {
        let (teller, observer) = observer();
        assert!(!teller.is_gone());
        drop(observer);
        assert!(teller.is_gone());
        assert_eq!((teller.look(), teller.chunk(&piece(0))), (Telling::Gone, Telling::Gone));
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_each_kind_of_news() {
        let (teller, mut observer) = observer();
        // It was polled elsewhere before: the last waker counts.
        assert!(observer.poll_next(&Context::from_waker(noop_waker_ref())).is_pending());
        let telling = async {
            tokio::task::yield_now().await;
            teller.look();
            tokio::task::yield_now().await;
            teller.chunk(&piece(7));
            tokio::task::yield_now().await;
            drop(teller);
        };
        let reading = async {
            assert!(matches!(observer.next().await, Some(LiveSignal::Look)));
            assert!(matches!(observer.next().await, Some(LiveSignal::Chunk(_))));
            assert!(observer.next().await.is_none());
            assert!(observer.next().await.is_none(), "it stays ended");
        };
        tokio::join!(reading, telling);
    }

    #[derive(Debug, Clone, Copy)]
    enum Deed {
        Look,
        Chunk,
        Read,
    }

    proptest! {
        #[test]
        fn nothing_is_told_twice_or_out_of_order_and_a_look_follows_every_append(
            deeds in proptest::collection::vec(
                prop_oneof![Just(Deed::Look), Just(Deed::Chunk), Just(Deed::Read)], 0..200),
        ) {
            let (teller, mut observer) = observer();
            let (mut pushed, mut popped) = (0, 0);
            // How many pieces had come at the last look that is to come.
            let mut look = None;
            for deed in deeds {
                match deed {
                    Deed::Look => {
                        teller.look();
                        look = Some(pushed);
                    }
                    Deed::Chunk => {
                        let full = pushed - popped >= u32::try_from(PIECES).unwrap();
                        prop_assert_eq!(teller.chunk(&piece(pushed)) == Telling::Slow, full);
                        pushed += u32::from(!full);
                    }
                    Deed::Read => match observer.next().now_or_never() {
                        Some(Some(LiveSignal::Chunk(chunk))) => {
                            prop_assert_eq!(chunk.index, popped);
                            prop_assert!(look != Some(popped), "the look comes first");
                            popped += 1;
                        }
                        Some(Some(LiveSignal::Look)) => prop_assert_eq!(look.take(), Some(popped)),
                        Some(None) => prop_assert!(false, "nobody ended it"),
                        None => prop_assert!(look.is_none() && pushed == popped, "something waits"),
                    },
                }
            }
        }
    }
}
