//! The form of every refusal: an RFC 9457 problem, with what belongs to this one response added to what
//! `domain` knows of the failure (field errors, the message, headers, instance, trace id).
//!
//! Every layer's error becomes a [`ApiError`] here, by a match without a catch-all: a new kind of failure does
//! not compile until somebody decides what the caller sees.

use std::borrow::Cow;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use serde::Serialize;

use super::trace_context::TraceContext;
use crate::domain::{InvalidMessage, InvalidName, Message, Problem, ProblemKind};
use crate::hub::HubError;
use crate::store::{AcceptError, StoreError, StoreRefusal};

/// When a repeat makes sense where nothing better is known.
pub(super) const RETRY_SOON: Duration = Duration::from_secs(1);

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FieldError {
    /// Where: a JSON pointer into the body, or `header/NAME`, `query/NAME`, `path/NAME`.
    pub(super) pointer: Cow<'static, str>,
    /// What would be accepted.
    pub(super) detail: Cow<'static, str>,
}

/// Everything that is wrong with a request, so that it is told at once.
#[derive(Debug, Default)]
pub(super) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub(super) fn add(
        &mut self,
        pointer: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.0.push(FieldError { pointer: pointer.into(), detail: detail.into() });
    }

    /// The value, or `None` with its mistake noted.
    pub(super) fn record<T, E: Into<Cow<'static, str>>>(
        &mut self,
        pointer: impl Into<Cow<'static, str>>,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(pointer, error)).ok()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}

/// Why a request is not answered as it hoped. Boxed: it is rare, and results should stay small.
#[derive(Debug)]
pub(super) struct ApiError(Box<ApiErrorParts>);

#[derive(Debug)]
struct ApiErrorParts {
    problem: Problem,
    errors: Vec<FieldError>,
    message: Option<Message>,
    instance: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    close: bool,
}

impl ApiError {
    /// A failure of this kind; `detail` says what happened and what to do next.
    pub(super) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::from(Problem::new(kind, detail))
    }

    /// The failure that a message ended with.
    pub(super) fn for_message(problem: Problem, message: Message, instance: String) -> Self {
        let mut failure = Self::from(problem);
        failure.0.message = Some(message);
        failure.0.instance = Some(instance);
        failure
    }

    /// The same, with a header more.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The same, and the connection ends after it.
    pub(super) fn closing_connection(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// What it is.
    pub(super) fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Whether a message was accepted and ended with it.
    pub(super) fn is_message_failure(&self) -> bool {
        self.0.message.is_some()
    }

    /// The response to the request with this path, in this trace.
    pub(super) fn response(&self, path: &str, trace: TraceContext) -> HttpResponse {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct ProblemBody<'a> {
            #[serde(flatten)]
            problem: &'a Problem,
            instance: &'a str,
            trace_id: String,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'a Message>,
        }
        let ApiErrorParts { problem, errors, message, instance, headers, close } = &*self.0;
        let body = ProblemBody {
            problem,
            instance: instance.as_deref().unwrap_or(path),
            trace_id: trace.to_string(),
            errors,
            message: message.as_ref(),
        };
        let status = StatusCode::from_u16(problem.kind.status());
        let mut response = HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(wait) = problem.retry_after {
            // Whole seconds, never so few that the repeat comes too early, never none.
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        for (name, value) in headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if *close {
            response.force_close();
        }
        // A problem is made of text and numbers: there is nothing in it that could fail to be written.
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(ApiErrorParts {
            problem,
            errors: Vec::new(),
            message: None,
            instance: None,
            headers: Vec::new(),
            close: false,
        }))
    }
}

impl From<FieldErrors> for ApiError {
    fn from(FieldErrors(errors): FieldErrors) -> Self {
        let detail = match errors.as_slice() {
            [one] => Cow::from(format!("{}: {}", display_pointer(&one.pointer), one.detail)),
            many => Cow::from(format!("{} things are wrong with the request; see `errors`.", many.len())),
        };
        let mut failure = Self::new(ProblemKind::InvalidRequest, detail);
        failure.0.errors = errors;
        failure
    }
}

/// The empty pointer is the whole body (RFC 6901), which nobody would read out of an empty text.
fn display_pointer(pointer: &str) -> &str {
    if pointer.is_empty() { "body" } else { pointer }
}

impl From<HubError> for ApiError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Draining => {
                let detail = "This replica is shutting down and accepted nothing. Send the request again; \
                              another replica will take it.";
                Self::from(Problem::new(ProblemKind::Draining, detail).retry_after(RETRY_SOON))
                    .closing_connection()
            }
            HubError::Overloaded(what) => {
                let detail =
                    format!("This replica is at its limit ({what}) and accepted nothing. Try again later.");
                Self::from(Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_SOON))
            }
            HubError::Accept(error) => error.into(),
            HubError::Store(error) => error.into(),
            HubError::Lost => Self::new(
                ProblemKind::MessageLost,
                "The store lost the message after it was accepted. It may have reached the bot; nothing more \
                 will be known of it.",
            ),
        }
    }
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::LaneFull(open) => {
                let detail = format!(
                    "The conversation already has {open} open messages. Wait until one has ended, then try again."
                );
                Self::from(Problem::new(ProblemKind::LaneFull, detail).retry_after(RETRY_SOON))
            }
            AcceptError::IdempotencyMismatch => Self::new(
                ProblemKind::IdempotencyMismatch,
                "This Idempotency-Key was used in this conversation for another body. Take a new key for a \
                 new message.",
            ),
            AcceptError::Full => {
                let detail = "The store is full and accepted nothing. Try again later.";
                Self::from(Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_SOON))
            }
            AcceptError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // Fences are the owner's affair: no caller's request carries one.
            StoreError::Fenced | StoreError::Lost | StoreError::OutOfStep => internal(),
            StoreError::Unknown(_) | StoreError::Unavailable(_) => {
                let detail = match error {
                    // Of these two no caller may believe that nothing happened.
                    StoreError::Unavailable(StoreRefusal::TooFewReplicas) => {
                        "Too few of the store's replicas confirmed it: a message may or may not have been accepted. \
                         Send it again with the same Idempotency-Key."
                    }
                    StoreError::Unknown(_) => {
                        "The store did not answer in time: a message may or may not have been accepted. \
                         Send it again with the same Idempotency-Key."
                    }
                    _ => "The store cannot be used at the moment: nothing was accepted. Send it again later.",
                };
                Self::from(Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(RETRY_SOON))
            }
        }
    }
}

/// A bug of ours.
pub(super) fn internal() -> ApiError {
    ApiError::new(
        ProblemKind::Internal,
        "Something went wrong inside the bridge. Report it with the `traceId`; the log has more.",
    )
}

impl From<InvalidMessage> for Cow<'static, str> {
    fn from(error: InvalidMessage) -> Self {
        Cow::Owned(error.to_string())
    }
}

impl From<InvalidName> for Cow<'static, str> {
    fn from(error: InvalidName) -> Self {
        Cow::Owned(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(failure: impl Into<ApiError>) -> (ProblemKind, Option<Duration>) {
        let failure = failure.into();
        (failure.problem().kind, failure.problem().retry_after)
    }

    #[test]
    fn each_error_has_its_row() {
        use ProblemKind as K;
        assert_eq!(kind(HubError::Draining), (K::Draining, Some(RETRY_SOON)));
        assert_eq!(kind(HubError::Overloaded("sockets")), (K::Overloaded, Some(RETRY_SOON)));
        assert_eq!(kind(HubError::Lost), (K::MessageLost, None));
        assert_eq!(kind(AcceptError::LaneFull(32)), (K::LaneFull, Some(RETRY_SOON)));
        assert_eq!(kind(AcceptError::IdempotencyMismatch), (K::IdempotencyMismatch, None));
        assert_eq!(kind(AcceptError::Full), (K::Overloaded, Some(RETRY_SOON)));
        assert_eq!(kind(StoreError::Unknown(RETRY_SOON)), (K::StoreUnavailable, Some(RETRY_SOON)));
        assert_eq!(kind(StoreError::Fenced), (K::Internal, None));
    }

    #[test]
    fn only_what_may_have_been_carried_out_is_said_to_be() {
        let open = |error: StoreError| ApiError::from(error).problem().detail.contains("may or may not");
        assert!(open(StoreError::Unknown(RETRY_SOON)));
        assert!(open(StoreError::Unavailable(StoreRefusal::TooFewReplicas)));
        assert!(!open(StoreError::Unavailable(StoreRefusal::OutOfMemory)));
    }

    #[test]
    fn a_retry_is_rounded_up_to_whole_seconds() {
        for (wait, header) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (61_500, "62")] {
            let problem = Problem::new(ProblemKind::BotBlocked, "x").retry_after(Duration::from_millis(wait));
            let trace = TraceContext::from_headers(&header::HeaderMap::new());
            let response = ApiError::from(problem).response("/", trace);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), header);
        }
    }
}
