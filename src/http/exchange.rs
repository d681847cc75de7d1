//! What every request goes through: admission, trace, span, metrics, and one form for whatever goes wrong.
//!
//! Users' identities are personal: neither span nor event holds one. A request is found by `trace_id`, a
//! message by `message.id`; whose it is, is known to the store alone.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::Front;
use super::problem::{self, Failure};
use super::trace::Trace;
use crate::domain::{ProblemKind, TraceId};
use crate::hub::HubError;

/// Answers a request of this route: with what `work` says, or with the problem it ran into.
pub(super) async fn serve(
    front: &Front,
    route: &'static str,
    request: &HttpRequest,
    work: impl Future<Output = Result<HttpResponse, Failure>>,
) -> HttpResponse {
    let started = Instant::now();
    let trace = Trace::of(request.headers());
    // At debug level: a span costs microseconds, and what is said at higher levels names its trace itself.
    let span = tracing::debug_span!(
        "request",
        http.method = %request.method(),
        http.route = route,
        trace_id = %trace,
        message.id = field::Empty,
        bot = field::Empty,
        caller = field::Empty,
    );
    request.extensions_mut().insert(TraceId::from(trace));
    let response = answer(front, request, trace, work).instrument(span).await;
    if let Some(metrics) = front.metrics.route(route) {
        metrics.answered(request.method().as_str(), response.status().as_u16(), started.elapsed());
    }
    response
}

async fn answer(
    front: &Front,
    request: &HttpRequest,
    trace: Trace,
    work: impl Future<Output = Result<HttpResponse, Failure>>,
) -> HttpResponse {
    let result = match Admission::of(&front.open, front.config.server.max_requests) {
        Some(_open) => AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
            front.metrics.panics.inc();
            Err(problem::internal())
        }),
        None => Err(HubError::Overloaded("open requests").into()),
    };
    result.unwrap_or_else(|failure| {
        tell(&failure, trace);
        failure.response(request.uri().path(), trace)
    })
}

/// Logs a failure, once, here where it leaves us. Only an internal one may be a bug of ours.
fn tell(failure: &Failure, trace: Trace) {
    let problem = failure.problem();
    match problem.kind {
        // A lost turn is logged where it is lost; this only hands it on.
        kind if failure.is_of_message() => tracing::debug!(problem = kind.slug(), "message failed"),
        kind if kind.status() < 500 => tracing::debug!(problem = kind.slug(), "refused"),
        // Said on purpose by a replica that goes away.
        ProblemKind::Draining => tracing::debug!(problem = problem.kind.slug(), "refused"),
        kind => tracing::error!(trace_id = %trace, problem = kind.slug(), detail = %problem.detail, "failed"),
    }
}

/// Adds to the span of this request what is known by now.
pub(super) fn note(name: &'static str, value: &impl std::fmt::Display) {
    Span::current().record(name, field::display(value));
}

/// One of the requests that are open at the same time.
struct Admission<'a>(&'a AtomicUsize);

impl<'a> Admission<'a> {
    fn of(open: &'a AtomicUsize, limit: usize) -> Option<Self> {
        // Counted first and given back when dropped: two that come at once cannot both take the last place.
        let admission = Self(open);
        (open.fetch_add(1, Ordering::Relaxed) < limit).then_some(admission)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_up_to_the_limit_and_again_after_an_end() {
        let open = AtomicUsize::new(0);
        let first = Admission::of(&open, 2);
        let second = Admission::of(&open, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Admission::of(&open, 2).is_none());
        drop(first);
        assert!(Admission::of(&open, 2).is_some());
        drop(second);
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
