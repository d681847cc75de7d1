//! `Expect: 100-continue` (RFC 9110, 10.1.1): a caller asks whether to send its body.
//!
//! The server would say yes to every stranger. Here the head is checked first, in the order of the handlers: host, rate,
//! key, scope, address, type and length. A request that passes goes on to its handler, which checks all of it again.

use actix_http::{HttpMessage as _, Request, RequestHead, Response};
use actix_web::body::BoxBody;
use actix_web::http::Method;

use super::api_error::{ApiError, FieldErrors};
use super::auth::{AuthRefusal, CallerIdentity, RequiredScope};
use super::conversation_address::ConversationAddress;
use super::detachable_connection::DetachableConnection;
use super::local_host;
use super::rate_limit::RateLimitStatus;
use super::request_body;
use super::request_pipeline::{RequestCount, respond};
use super::request_places::CallerPlaces;
use super::trace_context::TraceContext;
use super::{ATTACHMENTS, ApiContext, MESSAGES, OTHER, REDRIVE, SIGNALS, TOKENS, attachments, kore_webhook};
use crate::hub::HubError;

/// A request that was counted in the rate of its caller. It is counted once, when its head is checked.
#[derive(Clone, Debug)]
pub(super) struct CountedRequest {
    /// Its caller.
    pub(super) caller: Result<CallerIdentity, AuthRefusal>,
    /// The rate of the caller.
    pub(super) rate_limit: Option<RateLimitStatus>,
}

impl CountedRequest {
    /// Refuses a request for another host if the bridge has no callers.
    ///
    /// # Errors
    /// `misdirected-request`.
    pub(super) fn check_host(&self, head: &RequestHead) -> Result<(), ApiError> {
        match self.caller {
            Ok(CallerIdentity::Anonymous) => local_host::check(head),
            _ => Ok(()),
        }
    }

    /// Returns when a reload takes the caller away, or its rights.
    pub(super) async fn revoked(&self) {
        match self.caller.as_ref().ok().and_then(CallerIdentity::entry) {
            Some(entry) => entry.revoked.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Returns the caller with the places of its request, after a check of its scope.
    fn admit(
        &self,
        context: &ApiContext,
        scope: RequiredScope,
    ) -> Result<(CallerIdentity, CallerPlaces), ApiError> {
        let caller = self.caller.clone()?;
        let places = context.admit_caller(&caller, scope)?;
        Ok((caller, places))
    }
}

/// Returns the request if its body is wanted, else the refusal.
pub(super) async fn admit(context: &ApiContext, request: Request) -> Result<Request, Response<BoxBody>> {
    let head = request.head();
    let (route, counted, checked) = if let Some(checked) = kore_webhook::check_head(context, head).await {
        checked
    } else {
        let counted = context.count_request(head).await;
        let (route, checked) = check(context, head, &counted);
        (route, counted, checked)
    };
    let checked = counted.check_host(head).and(checked);
    let refused = counted.rate_limit.as_ref().is_some_and(|status| status.refusal().is_some());
    let failure = match checked {
        Ok(()) if !refused && context.has_room() => {
            request.extensions_mut().insert(counted);
            return Ok(request);
        }
        // The pipeline refuses these by itself.
        Ok(()) => HubError::Overloaded("open requests").into(),
        Err(failure) => failure,
    };
    let trace = TraceContext::from_headers(head.headers());
    // The caller may send its body all the same.
    let work = async { Err(failure.closing_connection()) };
    let connection = request.conn_data::<DetachableConnection>();
    let mut response =
        respond(context, route, head, connection, trace, RequestCount::Done(counted), work).await;
    response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    Err(response.into())
}

/// Checks what a handler checks before it reads a body. Returns the route for metrics too.
///
/// A route that is not named here needs a known caller. So a stranger is never asked for a body.
fn check(
    context: &ApiContext,
    head: &RequestHead,
    counted: &CountedRequest,
) -> (&'static str, Result<(), ApiError>) {
    let mut segments = head.uri.path().split('/').skip(1);
    let path = [(); 4].map(|()| segments.next());
    match (&head.method, path) {
        (&Method::POST, [Some("conversations"), Some(_), Some("messages"), None]) => {
            (MESSAGES, check_message(context, head, counted))
        }
        (&Method::POST, [Some("conversations"), Some(_), Some("attachments"), None]) => {
            (ATTACHMENTS, check_upload(context, head, counted))
        }
        (&Method::POST, [Some("conversations"), Some(_), Some("signals"), None]) => {
            let authorized = counted.admit(context, RequiredScope::Send);
            (SIGNALS, authorized.and_then(|_| request_body::check_head(head.headers())))
        }
        (&Method::POST, [Some("tokens"), None, ..]) => {
            let authorized = counted.admit(context, RequiredScope::Read);
            (TOKENS, authorized.and_then(|_| request_body::check_head(head.headers())))
        }
        (&Method::POST, [Some("deliveries"), Some("redrive"), None, _]) => {
            let authorized = counted.admit(context, RequiredScope::Admin);
            (REDRIVE, authorized.and_then(|_| request_body::check_head(head.headers())))
        }
        (
            _,
            [Some("conversations"), None, ..]
            | [Some("conversations"), _, Some("erase"), _]
            | [Some("bots" | "deliveries" | "webhooks"), ..],
        ) => (OTHER, counted.admit(context, RequiredScope::Admin).map(drop)),
        (method, [Some("conversations"), ..]) => {
            let writes = matches!(*method, Method::POST | Method::DELETE);
            let scope = if writes { RequiredScope::Send } else { RequiredScope::Read };
            (OTHER, counted.admit(context, scope).map(drop))
        }
        (
            &Method::GET | &Method::HEAD,
            [Some("openapi.json" | "docs" | "problems" | "livez" | "readyz"), ..],
        ) => (OTHER, Ok(())),
        _ => (OTHER, counted.caller.clone().map(drop).map_err(ApiError::from)),
    }
}

fn check_upload(context: &ApiContext, head: &RequestHead, counted: &CountedRequest) -> Result<(), ApiError> {
    let (caller, _places) = counted.admit(context, RequiredScope::Send)?;
    let mut errors = FieldErrors::default();
    attachments::check_head(context, &caller, &head.uri, head.headers(), &mut errors)?;
    // The rest of the body would only be thrown away.
    if errors.is_empty() { Ok(()) } else { Err(errors.into()) }
}

fn check_message(context: &ApiContext, head: &RequestHead, counted: &CountedRequest) -> Result<(), ApiError> {
    let (caller, _places) = counted.admit(context, RequiredScope::Send)?;
    // Field errors are left to the handler, which reports them together with those of the body.
    let mut errors = FieldErrors::default();
    ConversationAddress::read(&context.config, &caller, &head.uri, &mut errors)?;
    request_body::check_head(head.headers())?;
    if context.hub.is_draining() {
        return Err(HubError::Draining.into());
    }
    Ok(())
}
