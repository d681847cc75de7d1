//! What the desk has under way: each a future of its own, which ends as an event.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus::IntCounter;
use tokio::select;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, error};

use crate::domain::{Backoff, DeliveryAttempt, Partition};
use crate::store::{
    BeginResult, ClaimedDelivery, Fence, FinishRequest, FinishResult, OutboxPage, Store, StoreError,
};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::scheduler::AttemptStart;

/// Something under way.
pub(super) type WorkFuture = Pin<Box<dyn Future<Output = WorkEvent>>>;

/// What happened.
pub(super) enum WorkEvent {
    /// A part of an outbox was read.
    Read { partition: Partition, fence: Fence, answer: Result<OutboxPage, StoreError> },
    /// The store was asked whether an attempt may begin, at that time.
    Begun { begin: AttemptStart, asked: Instant, answer: Result<BeginResult, StoreError> },
    /// An attempt ended; without having been made where it was broken off.
    Attempted {
        begin: AttemptStart,
        taken: Box<ClaimedDelivery>,
        span: Span,
        made: Option<AttemptResult>,
        took: Duration,
    },
    /// The store was told how an attempt ended.
    Finished { flight: Box<UnreportedAttempt>, answer: Result<FinishResult, StoreError> },
    /// What is in flight in the partition had its time.
    Overdue(Partition, Fence),
}

/// An attempt that is over, until the store knows.
pub(super) struct UnreportedAttempt {
    pub(super) begin: AttemptStart,
    pub(super) taken: Box<ClaimedDelivery>,
    pub(super) finish: FinishRequest,
    /// None where it was not made.
    pub(super) fate: Option<AttemptOutcome>,
    pub(super) span: Span,
    /// Before the store is told once more.
    pub(super) backoff: Backoff,
}

pub(super) fn read(store: &Store, partition: Partition, fence: Fence, from: usize) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        WorkEvent::Read { partition, fence, answer: store.outbox(partition, fence, from).await }
    })
}

pub(super) fn begin(store: &Store, begin: AttemptStart, window: Duration) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        let asked = Instant::now();
        let AttemptStart { partition, fence, queue, token, .. } = begin;
        WorkEvent::Begun { begin, asked, answer: store.begin(partition, fence, queue, token, window).await }
    })
}

/// Makes an attempt until `breaking` is cancelled. One that panics has failed: its delivery is tried again and buried
/// in the end, as if the receiver did not answer, and no other suffers.
pub(super) fn attempt<A>(
    send: &Rc<A>,
    begin: AttemptStart,
    taken: Box<ClaimedDelivery>,
    span: Span,
    breaking: CancellationToken,
    panics: IntCounter,
) -> WorkFuture
where
    A: AsyncFn(&ClaimedDelivery) -> AttemptResult + 'static,
{
    let send = Rc::clone(send);
    let inside = span.clone();
    let making = async move {
        let started = Instant::now();
        let made = if breaking.is_cancelled() {
            None
        } else {
            select! {
                biased;
                made = AssertUnwindSafe((*send)(&taken)).catch_unwind() => {
                    Some(made.unwrap_or_else(|_| {
                        panics.inc();
                        panicked(&taken, started.elapsed())
                    }))
                }
                () = breaking.cancelled() => None,
            }
        };
        WorkEvent::Attempted { begin, taken, span, made, took: started.elapsed() }
    };
    Box::pin(making.instrument(inside))
}

fn panicked(taken: &ClaimedDelivery, duration: Duration) -> AttemptResult {
    error!("an attempt panicked; this is a bug");
    let error = Some("the bridge failed; this is a bug".into());
    AttemptResult {
        attempt: DeliveryAttempt { at: taken.now, status: None, error, duration, response: None },
        fate: AttemptOutcome::Forbidden,
    }
}

/// Tells the store how an attempt ended, after a delay if it was told before.
pub(super) fn finish(store: &Store, flight: Box<UnreportedAttempt>, delay: Option<Duration>) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        if let Some(delay) = delay {
            sleep(delay).await;
        }
        let AttemptStart { partition, fence, queue, .. } = flight.begin;
        let answer = store.finish(partition, fence, queue, &flight.finish).await;
        WorkEvent::Finished { flight, answer }
    })
}

pub(super) fn overdue(partition: Partition, fence: Fence, by: Instant) -> WorkFuture {
    Box::pin(async move {
        sleep_until(by).await;
        WorkEvent::Overdue(partition, fence)
    })
}
