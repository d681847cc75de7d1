//! The form of every refusal: an RFC 9457 problem.
//!
//! The problem comes from `domain`. This module adds what belongs to one response: field errors, the message, headers,
//! instance and trace id. Each layer's error becomes an [`ApiError`] by a match without a catch-all. A new kind of
//! failure does not compile until its response is decided.

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

/// Most errors of an answer. The reading of a request stops at the last of them.
pub(super) const MAX_ERRORS: usize = 50;

/// Most bytes of a pointer. Longer ones hold a name that the caller made up.
const MAX_POINTER_BYTES: usize = 80;

/// Most bytes of `instance`.
const MAX_INSTANCE_BYTES: usize = 2048;

/// Time until a retry, unless a better one is known.
pub(super) const RETRY_SOON: Duration = Duration::from_secs(1);

/// One invalid part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FieldError {
    /// Place of the error: a JSON pointer into the body, or `header/NAME`, `query/NAME`, `path/NAME`.
    pub(super) pointer: Cow<'static, str>,
    /// Description of a valid value.
    pub(super) detail: Cow<'static, str>,
}

/// The invalid parts of a request, which the caller learns at once: the first [`MAX_ERRORS`] of them.
///
/// The bound keeps the answer small and ends the work on a hostile request.
#[derive(Debug, Default)]
pub(super) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub(super) fn add(
        &mut self,
        pointer: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        if !self.is_full() {
            self.0.push(FieldError { pointer: shortened(pointer.into()), detail: detail.into() });
        }
    }

    /// Returns true if the answer has room for no further error.
    pub(super) const fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    /// Returns the value, or adds the error and returns `None`.
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

/// A refused or failed request. The box keeps results small, as failures are rare.
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
    /// Creates an error of this kind; `detail` describes the cause and the next step.
    pub(super) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::from(Problem::new(kind, detail))
    }

    /// Creates the error of an accepted message that failed.
    pub(super) fn for_message(problem: Problem, message: Message, instance: String) -> Self {
        let mut failure = Self::from(problem);
        failure.0.message = Some(message);
        failure.0.instance = Some(instance);
        failure
    }

    /// Adds the challenge that tells a client how to authenticate (RFC 6750, 3). Characters outside of a header are left out.
    pub(super) fn with_challenge(self, challenge: &str) -> Self {
        let visible: String = challenge.chars().filter(|c| matches!(c, ' '..='~')).collect();
        match HeaderValue::try_from(visible) {
            Ok(value) => self.with_header(header::WWW_AUTHENTICATE, value),
            Err(_) => self,
        }
    }

    /// Adds a header to the response.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Closes the connection after the response.
    pub(super) fn closing_connection(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// Returns the problem.
    pub(super) fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Returns true for the failure of an accepted message.
    pub(super) fn is_message_failure(&self) -> bool {
        self.0.message.is_some()
    }

    /// Builds the response to a request with this path and trace.
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
        let ApiErrorParts { problem, errors, message, instance, .. } = &*self.0;
        let body = ProblemBody {
            problem,
            instance: instance.as_deref().unwrap_or_else(|| prefix(path, MAX_INSTANCE_BYTES)),
            trace_id: trace.to_string(),
            errors,
            message: message.as_ref(),
        };
        let status = StatusCode::from_u16(problem.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem consists of text and numbers, so its serialisation cannot fail.
        self.response_with(status, "application/problem+json", serde_json::to_vec(&body).unwrap_or_default())
    }

    /// Builds a response with this body, and the headers of the error.
    pub(super) fn response_with(
        &self,
        status: StatusCode,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> HttpResponse {
        let ApiErrorParts { problem, headers, close, .. } = &*self.0;
        let mut response = HttpResponse::build(status);
        response.insert_header((header::CONTENT_TYPE, content_type));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(wait) = problem.retry_after {
            // Whole seconds, at least one, rounded up: a retry must not come too early.
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        for (name, value) in headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if *close {
            response.force_close();
        }
        response.body(body)
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
            many if many.len() >= MAX_ERRORS => {
                Cow::from(format!("The request has {MAX_ERRORS} errors or more; see `errors`."))
            }
            many => Cow::from(format!("The request has {} errors; see `errors`.", many.len())),
        };
        let mut failure = Self::new(ProblemKind::InvalidRequest, detail);
        failure.0.errors = errors;
        failure
    }
}

/// Returns the first bytes of a text, up to a whole character.
fn prefix(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

/// Cuts a pointer that is too long.
fn shortened(pointer: Cow<'static, str>) -> Cow<'static, str> {
    if pointer.len() <= MAX_POINTER_BYTES {
        return pointer;
    }
    Cow::Owned(format!("{}…", prefix(&pointer, MAX_POINTER_BYTES)))
}

/// Returns a readable name of a place. The empty pointer means the whole body (RFC 6901).
fn display_pointer(pointer: &str) -> &str {
    if pointer.is_empty() { "body" } else { pointer }
}

impl From<HubError> for ApiError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Draining => {
                let detail = "This replica is shutting down and accepted nothing. Send the request again \
                 over a new connection.";
                Self::from(Problem::new(ProblemKind::Draining, detail).retry_after(RETRY_SOON))
                    .closing_connection()
            }
            HubError::Overloaded(what) => {
                let detail =
                    format!("This replica is at its limit ({what}) and accepted nothing. Try again later.");
                Self::from(Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_SOON))
            }
            HubError::CallerLimit(most) => {
                let detail = format!(
                    "This key already has {most} open messages on this replica. Retry when one of them has ended."
                );
                Self::from(Problem::new(ProblemKind::RateLimited, detail).retry_after(RETRY_SOON))
            }
            HubError::Accept(error) => error.into(),
            HubError::Store(error) => error.into(),
            HubError::Lost => Self::new(
                ProblemKind::MessageLost,
                "The store lost the message after its acceptance. The message may have reached the bot. Send \
                 it again if a duplicate does no harm.",
            ),
            HubError::Unowned => {
                let detail = "No replica has the conversation at the moment: a failover takes seconds. Try again later.";
                Self::from(Problem::new(ProblemKind::PlatformUnavailable, detail).retry_after(RETRY_SOON))
            }
            HubError::Erased => Self::new(
                ProblemKind::Erased,
                "The conversation was erased while the message was open. The message may have reached the bot, and no \
                 answer follows.",
            ),
        }
    }
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::LaneFull(open) => {
                let detail = format!(
                    "The conversation already has {open} open messages. Wait until one has ended, then try \
                     again."
                );
                Self::from(Problem::new(ProblemKind::LaneFull, detail).retry_after(RETRY_SOON))
            }
            AcceptError::IdempotencyMismatch => Self::new(
                ProblemKind::IdempotencyMismatch,
                "This Idempotency-Key was used in this conversation for another body. Use a new key for a \
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
            // Only owners send fences. No caller's request carries one.
            StoreError::Fenced | StoreError::Lost | StoreError::OutOfStep => internal(),
            StoreError::Unknown(_) | StoreError::Halfway(_) | StoreError::Unavailable(_) => {
                let detail = match error {
                    // In these cases the message may be accepted, and the caller must know it.
                    StoreError::Unavailable(StoreRefusal::TooFewReplicas) => {
                        "Too few of the store's replicas confirmed the write: a message may or may not have \
                         been accepted. \
                         Send it again with the same Idempotency-Key."
                    }
                    StoreError::Unknown(_) => {
                        "The store did not answer in time: a message may or may not have been accepted. \
                         Send it again with the same Idempotency-Key."
                    }
                    StoreError::Halfway(_) => {
                        "The store failed in the middle of the write: a message may or may not have been accepted. \
                         Send it again with the same Idempotency-Key."
                    }
                    _ => "The store is unavailable and accepted nothing. Send the request again later.",
                };
                Self::from(Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(RETRY_SOON))
            }
        }
    }
}

/// Creates the error of a bug in the bridge.
pub(super) fn internal() -> ApiError {
    ApiError::new(
        ProblemKind::Internal,
        "The bridge has a bug. Please report it with this `traceId` and the log lines of the trace.",
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
    fn errors_become_their_problem() {
        use ProblemKind as K;
        assert_eq!(kind(HubError::Draining), (K::Draining, Some(RETRY_SOON)));
        assert_eq!(kind(HubError::Overloaded("sockets")), (K::Overloaded, Some(RETRY_SOON)));
        assert_eq!(kind(HubError::CallerLimit(3)), (K::RateLimited, Some(RETRY_SOON)));
        assert_eq!(kind(HubError::Lost), (K::MessageLost, None));
        assert_eq!(kind(HubError::Erased), (K::Erased, None));
        assert_eq!(kind(HubError::Unowned), (K::PlatformUnavailable, Some(RETRY_SOON)));
        assert_eq!(kind(AcceptError::LaneFull(32)), (K::LaneFull, Some(RETRY_SOON)));
        assert_eq!(kind(AcceptError::IdempotencyMismatch), (K::IdempotencyMismatch, None));
        assert_eq!(kind(AcceptError::Full), (K::Overloaded, Some(RETRY_SOON)));
        assert_eq!(kind(StoreError::Unknown(RETRY_SOON)), (K::StoreUnavailable, Some(RETRY_SOON)));
        assert_eq!(kind(StoreError::Fenced), (K::Internal, None));
    }

    #[test]
    fn only_unknown_results_are_reported_as_uncertain() {
        let open = |error: StoreError| ApiError::from(error).problem().detail.contains("may or may not");
        assert!(open(StoreError::Unknown(RETRY_SOON)));
        assert!(open(StoreError::Halfway(StoreRefusal::NoChannels)));
        assert!(open(StoreError::Unavailable(StoreRefusal::TooFewReplicas)));
        assert!(!open(StoreError::Unavailable(StoreRefusal::OutOfMemory)));
    }

    #[test]
    fn errors_are_limited_in_number_and_length() {
        let mut errors = FieldErrors::default();
        for _ in 0..=MAX_ERRORS {
            errors.add(format!("/{}", "é".repeat(1000)), "is unknown");
        }
        let failure = ApiError::from(errors);
        assert!(failure.problem().detail.contains("50 errors or more"));
        assert_eq!(failure.0.errors.len(), MAX_ERRORS);
        assert!(failure.0.errors.iter().all(|error| error.pointer.len() <= MAX_POINTER_BYTES + 3));
    }

    #[test]
    fn retry_after_rounds_up_to_whole_seconds() {
        for (wait, header) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (61_500, "62")] {
            let problem = Problem::new(ProblemKind::BotBlocked, "x").retry_after(Duration::from_millis(wait));
            let trace = TraceContext::from_headers(&header::HeaderMap::new());
            let response = ApiError::from(problem).response("/", trace);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), header);
        }
    }
}
