//! The operations of the worker that are under way. Each is a future that ends with an event.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus::IntCounter;
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, error};

use crate::domain::{Backoff, DeliveryAttempt, EndpointId, EndpointState, Partition};
use crate::store::{
    BeginResult, ClaimedDelivery, Fence, FinishRequest, FinishResult, OutboxPage, Store, StoreError,
};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::endpoint_board::BoardChanges;
use crate::webhook::scheduler::AttemptStart;

pub(super) type WorkFuture = Pin<Box<dyn Future<Output = WorkEvent>>>;

/// The end of an operation.
pub(super) enum WorkEvent {
    /// The store answered the read of a page of an outbox.
    Read { partition: Partition, fence: Fence, result: Result<OutboxPage, StoreError> },
    /// The store answered `begin`, which was called at `asked`.
    Begun { start: AttemptStart, asked: Instant, result: Result<BeginResult, StoreError> },
    /// An attempt ended. `result` is `None` if it was cancelled.
    Attempted {
        start: AttemptStart,
        claimed: Box<ClaimedDelivery>,
        span: Span,
        result: Option<AttemptResult>,
        took: Duration,
    },
    /// The store answered `finish`.
    Finished { ended: Box<UnreportedAttempt>, result: Result<FinishResult, StoreError> },
    /// The store took the changes of endpoints, and answered with their states.
    Endpoints { changes: BoardChanges, result: Result<BTreeMap<EndpointId, EndpointState>, StoreError> },
    /// A test of an endpoint ended.
    Tested { answer: oneshot::Sender<DeliveryAttempt>, attempt: DeliveryAttempt },
    /// The attempts in flight in a draining partition must end now.
    DrainTimeout(Partition, Fence),
}

/// An attempt that has ended and that the store has not confirmed yet.
pub(super) struct UnreportedAttempt {
    pub(super) start: AttemptStart,
    pub(super) finish: FinishRequest,
    /// `None` if no request was sent.
    pub(super) outcome: Option<AttemptOutcome>,
    pub(super) span: Span,
    /// The delays between repeats of `finish`.
    pub(super) backoff: Backoff,
}

/// Reads a page of an outbox.
pub(super) fn read(store: &Store, partition: Partition, fence: Fence, from: usize) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        WorkEvent::Read { partition, fence, result: store.outbox(partition, fence, from).await }
    })
}

/// Asks the store for the first delivery of a queue.
pub(super) fn begin(store: &Store, start: AttemptStart, window: Duration) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        let asked = Instant::now();
        let AttemptStart { partition, fence, queue, token, early, .. } = start;
        let result = if early {
            store.begin_early(partition, fence, queue, token, window).await
        } else {
            store.begin(partition, fence, queue, token, window).await
        };
        WorkEvent::Begun { start, asked, result }
    })
}

/// Makes an attempt until it is cancelled. An attempt that panics counts as failed, so the delivery is retried and
/// dead-lettered in the end. Other attempts continue.
pub(super) fn attempt<A>(
    send: &Rc<A>,
    start: AttemptStart,
    claimed: Box<ClaimedDelivery>,
    span: Span,
    cancellation: CancellationToken,
    panics: IntCounter,
) -> WorkFuture
where
    A: AsyncFn(&ClaimedDelivery) -> AttemptResult + 'static,
{
    let send = Rc::clone(send);
    let inside = span.clone();
    let attempt = async move {
        let began = Instant::now();
        let result = if cancellation.is_cancelled() {
            None
        } else {
            select! {
                biased;
                result = AssertUnwindSafe((*send)(&claimed)).catch_unwind() => {
                    Some(result.unwrap_or_else(|_| {
                        panics.inc();
                        panicked(&claimed, began.elapsed())
                    }))
                }
                () = cancellation.cancelled() => None,
            }
        };
        WorkEvent::Attempted { start, claimed, span, result, took: began.elapsed() }
    };
    Box::pin(attempt.instrument(inside))
}

fn panicked(claimed: &ClaimedDelivery, duration: Duration) -> AttemptResult {
    error!("an attempt panicked; this is a bug");
    let error = Some("the bridge failed; this is a bug".into());
    AttemptResult {
        attempt: DeliveryAttempt { at: claimed.now, status: None, error, duration, response: None },
        outcome: AttemptOutcome::Forbidden,
    }
}

/// Reports the end of an attempt to the store. A repeat has a delay.
pub(super) fn finish(store: &Store, ended: Box<UnreportedAttempt>, delay: Option<Duration>) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        if let Some(delay) = delay {
            sleep(delay).await;
        }
        let AttemptStart { partition, fence, queue, .. } = ended.start;
        let result = store.finish(partition, fence, queue, &ended.finish).await;
        WorkEvent::Finished { ended, result }
    })
}

/// Carries changes of endpoints to the store, and reads the states of all.
pub(super) fn exchange_endpoints(store: &Store, changes: BoardChanges) -> WorkFuture {
    let store = store.clone();
    Box::pin(async move {
        let exchange = async {
            for (id, report) in &changes.reports {
                store.report_endpoint(id, report).await?;
            }
            for (id, reason) in &changes.switches {
                store.switch_endpoint_off(id, reason).await?;
            }
            store.endpoint_states().await
        };
        let result = exchange.await;
        WorkEvent::Endpoints { changes, result }
    })
}

/// Posts a test event.
pub(super) fn test<A>(
    send: &Rc<A>,
    claimed: ClaimedDelivery,
    answer: oneshot::Sender<DeliveryAttempt>,
) -> WorkFuture
where
    A: AsyncFn(&ClaimedDelivery) -> AttemptResult + 'static,
{
    let send = Rc::clone(send);
    Box::pin(async move { WorkEvent::Tested { attempt: (*send)(&claimed).await.attempt, answer } })
}

/// Waits for the deadline of a draining partition.
pub(super) fn drain_timeout(partition: Partition, fence: Fence, by: Instant) -> WorkFuture {
    Box::pin(async move {
        sleep_until(by).await;
        WorkEvent::DrainTimeout(partition, fence)
    })
}
