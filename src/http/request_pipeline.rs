//! The pipeline of every request: limits, trace, span, metrics, and one form for all failures.
//!
//! Users' identities are personal data, so spans and events contain none. A request is found by its `trace_id`, a
//! message by its `message.id`. Only the store knows the user.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use actix_http::RequestHead;
use actix_web::body::{BodySize, MessageBody as _};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::ApiContext;
use super::api_error::{self, ApiError};
use super::auth::{AuthRefusal, CallerIdentity};
use super::concurrency_limit::ConcurrencyPermit;
use super::detachable_connection::DetachableConnection;
use super::expectation::CountedRequest;
use super::kore_webhook;
use super::rate_limit::RateLimitStatus;
use super::trace_context::TraceContext;
use crate::domain::{ProblemKind, SharePermit, TraceId};
use crate::hub::HubError;

/// Answers a request of this route with the result of `work`.
pub(super) fn serve(
    context: &ApiContext,
    route: &'static str,
    request: &HttpRequest,
    work: impl Future<Output = Result<HttpResponse, ApiError>>,
) -> impl Future<Output = HttpResponse> {
    let head = request.head();
    let trace = TraceContext::from_headers(head.headers());
    request.extensions_mut().insert(TraceId::from(trace));
    let counted = request.extensions().get::<CountedRequest>().cloned();
    let count = counted.map_or(RequestCount::Due(request), RequestCount::Done);
    let connection = DetachableConnection::of_request(request);
    // An async function would hold a second copy of `work`.
    respond(context, route, head, connection, trace, count, work)
}

/// The count of a request in the rate of its caller.
pub(super) enum RequestCount<'r> {
    /// It was counted when its head came.
    Done(CountedRequest),
    /// It is counted now, and remembers that.
    Due(&'r HttpRequest),
}

impl RequestCount<'_> {
    async fn get(self, context: &ApiContext) -> CountedRequest {
        let request = match self {
            Self::Done(counted) => return counted,
            Self::Due(request) => request,
        };
        let counted = context.count_request(request.head()).await;
        request.extensions_mut().insert(counted.clone());
        counted
    }
}

/// Answers a request with this head and this count with the result of `work`. Only tests have no connection.
pub(super) async fn respond(
    context: &ApiContext,
    route: &'static str,
    head: &RequestHead,
    connection: Option<&DetachableConnection>,
    trace: TraceContext,
    count: RequestCount<'_>,
    work: impl Future<Output = Result<HttpResponse, ApiError>>,
) -> HttpResponse {
    let started = Instant::now();
    if let Some(connection) = connection {
        connection.request_begun(&head.headers);
    }
    let counted = count.get(context).await;
    // At debug level, because a span costs microseconds. Events of higher levels carry the trace id themselves.
    let span = tracing::debug_span!(
        "request",
        http.request.method = %head.method,
        http.route = route,
        url.template = route,
        trace_id = %trace,
        message.id = field::Empty,
        bot = field::Empty,
        caller = field::Empty,
    );
    let work = async {
        counted.check_host(head)?;
        if let Some(refusal) = counted.rate_limit.as_ref().and_then(RateLimitStatus::refusal) {
            return Err(refusal);
        }
        tokio::select! {
            answered = work => answered,
            // The answer would be for a caller that is none any more.
            () = counted.revoked() => Err(AuthRefusal::UnknownKey.into()),
        }
    };
    let mut response = answer(context, route, head, connection, trace, work).instrument(span).await;
    if let Some(rate_limit) = &counted.rate_limit {
        rate_limit.write_headers(response.headers_mut());
    }
    if counted.caller.as_ref().is_ok_and(CallerIdentity::is_browser) {
        let any = HeaderValue::from_static("*");
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    }
    if context.draining.load(Ordering::Relaxed) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let status = response.status();
    context.metrics.request_answered(route, head.method.as_str(), status.as_str(), started.elapsed());
    match connection {
        Some(connection) => connection.answer(response),
        None => response,
    }
}

async fn answer(
    context: &ApiContext,
    route: &str,
    head: &RequestHead,
    connection: Option<&DetachableConnection>,
    trace: TraceContext,
    work: impl Future<Output = Result<HttpResponse, ApiError>>,
) -> HttpResponse {
    let result = match admit(context, connection) {
        Ok(()) => AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
            context.metrics.panics.inc();
            Err(api_error::internal())
        }),
        Err(refused) => Err(refused.into()),
    };
    let result = result.and_then(|response| match connection {
        Some(connection) => hold_answer(context, head, connection, response).map_err(ApiError::from),
        None => Ok(response),
    });
    result.unwrap_or_else(|failure| {
        log(&failure, trace);
        if kore_webhook::is_route(route) {
            kore_webhook::error_response(&failure, route, trace)
        } else {
            failure.response(head.uri.path(), trace)
        }
    })
}

/// Takes a place among all requests, which the request holds until its answer is taken.
fn admit(context: &ApiContext, connection: Option<&DetachableConnection>) -> Result<(), HubError> {
    let permit = ConcurrencyPermit::acquire(&context.open_requests, context.live().max_requests)
        .ok_or(HubError::Overloaded("open requests"))?;
    if context.memory.taken() >= context.memory.limit() {
        return Err(HubError::Overloaded("memory of requests"));
    }
    if let Some(connection) = connection {
        connection.with_places(|places| places.request = Some(permit));
    }
    Ok(())
}

/// Takes memory for an answer. A read without room for its answer is refused, as it has changed nothing. Any other
/// answer exists already, and its caller must get it.
fn hold_answer(
    context: &ApiContext,
    head: &RequestHead,
    connection: &DetachableConnection,
    response: HttpResponse,
) -> Result<HttpResponse, HubError> {
    let BodySize::Sized(length) = response.body().size() else { return Ok(response) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    connection.with_places(|places| {
        let holder = places.caller.share.as_ref().and_then(SharePermit::holder);
        let mut memory = context.memory().empty_permit(holder);
        if !head.method.is_safe() {
            memory.charge(length);
        } else if !memory.try_grow(length) {
            return Err(HubError::Overloaded("memory of answers"));
        }
        places.answer = Some(memory);
        Ok(response)
    })
}

/// Logs a failure once, where it leaves the bridge. Only an internal one may be a bug of the bridge.
fn log(failure: &ApiError, trace: TraceContext) {
    let problem = failure.problem();
    let (slug, status) = (problem.kind.slug(), problem.kind.status());
    match problem.kind {
        // The link has logged the failed turn already.
        _ if failure.is_message_failure() => {
            tracing::debug!("error.type" = slug, http.response.status_code = status, "message failed");
        }
        // Strangers can cause these, and a line for each would bury the others. The metric of answers counts them.
        kind if status < 500
            || matches!(
                kind,
                ProblemKind::Draining | ProblemKind::Overloaded | ProblemKind::IssuerUnavailable
            ) =>
        {
            tracing::debug!("error.type" = slug, http.response.status_code = status, "refused");
        }
        _ => tracing::error!(
            trace_id = %trace, "error.type" = slug, http.response.status_code = status, detail = %problem.detail,
            "failed"
        ),
    }
}

/// Records a field in the span of this request.
pub(super) fn record(name: &'static str, value: &impl std::fmt::Display) {
    Span::current().record(name, field::display(value));
}

/// Builds a JSON response. The resource belongs to its caller, so caches must not store it.
pub(super) fn json_response(status: StatusCode, resource: &impl Serialize) -> Result<HttpResponse, ApiError> {
    serde_json::to_vec(resource).map(|body| json_bytes(status, body)).map_err(|_| api_error::internal())
}

/// Returns a response with this JSON.
pub(super) fn json_bytes(status: StatusCode, json: Vec<u8>) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(json)
}
