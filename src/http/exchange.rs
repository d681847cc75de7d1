//! What every request goes through: admission, trace, span, metrics, and one form for whatever goes wrong.
//!
//! Users' identities are personal: neither span nor event holds one. A request is found by `trace_id`, a
//! message by `message.id`; whose it is, is known to the store alone.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use actix_web::http::header;
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::Front;
use super::admission::Admission;
use super::problem::{self, Failure};
use super::quota::Spent;
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
        http.request.method = %request.method(),
        http.route = route,
        trace_id = %trace,
        message.id = field::Empty,
        bot = field::Empty,
        caller = field::Empty,
    );
    request.extensions_mut().insert(TraceId::from(trace));
    let spent = front.quotas.spend(&front.config.callers, request.headers());
    let work = async {
        match spent.as_ref().and_then(Spent::refusal) {
            Some(refusal) => Err(refusal),
            None => work.await,
        }
    };
    let mut response = answer(front, request, trace, work).instrument(span).await;
    if let Some(spent) = spent {
        spent.tell(response.headers_mut());
    }
    if front.draining.load(Ordering::Relaxed) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let (method, status) = (request.method().as_str(), response.status());
    front.metrics.request_answered(route, method, status.as_str(), started.elapsed());
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
        log(&failure, trace);
        failure.response(request.uri().path(), trace)
    })
}

/// Logs a failure once, where it leaves the bridge. Only an internal one may be a bug of the bridge.
fn log(failure: &Failure, trace: Trace) {
    let problem = failure.problem();
    let (slug, status) = (problem.kind.slug(), problem.kind.status());
    match problem.kind {
        // The link has logged the failed turn already.
        _ if failure.is_of_message() => {
            tracing::debug!("error.type" = slug, http.response.status_code = status, "message failed");
        }
        kind if status < 500 || kind == ProblemKind::Draining => {
            tracing::debug!("error.type" = slug, http.response.status_code = status, "refused");
        }
        _ => tracing::error!(
            trace_id = %trace, "error.type" = slug, http.response.status_code = status, detail = %problem.detail,
            "failed"
        ),
    }
}

/// Adds to the span of this request what is known by now.
pub(super) fn note(name: &'static str, value: &impl std::fmt::Display) {
    Span::current().record(name, field::display(value));
}

/// A resource as a response. It belongs to its caller alone: no cache may keep it.
pub(super) fn resource(status: StatusCode, resource: &impl Serialize) -> Result<HttpResponse, Failure> {
    let body = serde_json::to_vec(resource).map_err(|_| problem::internal())?;
    Ok(HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body))
}
