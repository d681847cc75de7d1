//! Refusals and failures in the platform's form (protocol.md 9.4), with the trace id of the bridge.
//!
//! Pure. `msg` has the platform's words where it has any, and `detail` those of the bridge.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

use super::super::api_error::ApiError;
use super::super::trace_context::TraceContext;
use super::{POLL, V2, cors};
use crate::domain::ProblemKind;

#[derive(Serialize)]
struct ErrorBody<'a> {
    errors: [ChannelError<'a>; 1],
    #[serde(rename = "_v", skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(rename = "_t")]
    trace: String,
}

#[derive(Serialize)]
struct ChannelError<'a> {
    msg: &'a str,
    code: u16,
    /// Uploads have the status a second time, as a text (protocol.md 13.3).
    #[serde(rename = "httpStatus", skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    detail: &'a str,
}

/// Builds the answer of a request that failed on a route of the door.
pub(in super::super) fn error_response(failure: &ApiError, route: &str, trace: TraceContext) -> HttpResponse {
    let problem = failure.problem();
    let (status, msg) = match problem.kind {
        // A poll of an unknown id: the platform has no 404 here.
        ProblemKind::NotFound if route == POLL => (400, "No data found"),
        ProblemKind::InvalidRequest => (400, "Invalid Request Payload"),
        ProblemKind::Unauthorized => (401, "Invalid Access token"),
        ProblemKind::RateLimited | ProblemKind::LaneFull => (429, "Too Many requests"),
        ProblemKind::NoReply | ProblemKind::NoAck => (504, "The request has been timed-out"),
        kind => (kind.status(), kind.title()),
    };
    let error = ChannelError {
        msg,
        code: status,
        status: route.contains("/attachments/").then(|| status.to_string()),
        detail: &problem.detail,
    };
    let body = ErrorBody {
        errors: [error],
        version: [V2, POLL].contains(&route).then_some("v2"),
        trace: trace_id(trace),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The body consists of text and numbers, so its serialisation cannot fail.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    cors::allowed(failure.response_with(status, "application/json", body))
}

/// Returns a trace as the platform writes its own.
fn trace_id(trace: TraceContext) -> String {
    format!("RTM-TRACE-{trace}")
}
