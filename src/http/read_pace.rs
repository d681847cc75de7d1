//! The pace at which a connection reads.
//!
//! A read takes long, because the system copies the bytes into fresh memory, and hundreds of connections may be ready at once.
//! So a connection in the middle of a long body rests if such reads took much of its thread.

use std::cell::RefCell;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::work_debt::WorkDebt;

/// Most bytes that a connection reads before other tasks of its thread run.
const READ_MAX: usize = 64 << 10;
/// A connection with more bytes than these at once is in the middle of a long body.
const SHORT_READ: usize = 8 << 10;
/// Reads of long bodies that take this long together need no rest.
const BURST: Duration = Duration::from_millis(1);

thread_local! {
    /// The reads of long bodies on this thread.
    static LONG_READS: RefCell<WorkDebt> = RefCell::new(WorkDebt::new(BURST));
}

/// The pace of one connection.
#[derive(Debug, Default)]
pub(super) struct ReadPace {
    /// Bytes that were read since other tasks ran.
    read: usize,
    /// True if the last bytes were those of a long body.
    long_read: bool,
    /// The rest before more of a long body.
    rest: Option<Pin<Box<Sleep>>>,
}

impl ReadPace {
    /// Begins a round of the thread's tasks.
    pub(super) fn begin_round(&mut self) {
        if self.rest.is_none() {
            self.long_read = self.read > SHORT_READ;
        }
        self.read = 0;
    }

    /// Waits until the connection may read. Returns the time if the read belongs to a long body.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        if self.read >= READ_MAX {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let is_long = self.long_read || self.rest.is_some() || self.read > SHORT_READ;
        if !is_long {
            return Poll::Ready(None);
        }
        loop {
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            let now = Instant::now();
            let rest = LONG_READS.with_borrow_mut(|debt| debt.rest(now));
            if rest.is_zero() {
                return Poll::Ready(Some(now));
            }
            self.rest = Some(Box::pin(sleep_until(now + rest)));
        }
    }

    /// Notes a read of this many bytes. `begun` is the answer of [`ReadPace::poll_turn`].
    pub(super) fn on_read(&mut self, bytes: usize, begun: Option<Instant>) {
        self.read += bytes;
        if let Some(begun) = begun {
            LONG_READS.with_borrow_mut(|debt| debt.add(begun, Instant::now()));
        }
    }

    /// Counts reads of long bodies on this thread that took this many times as long as needs no rest.
    #[cfg(test)]
    pub(super) fn count_bursts(bursts: u32) {
        let now = Instant::now();
        for _ in 0..bursts {
            LONG_READS.with_borrow_mut(|debt| debt.add(now, now + BURST));
        }
    }
}
