//! `Expect: 100-continue` (RFC 9110, 10.1.1): a caller asks whether to send its body.
//!
//! The server would say yes to every stranger. Here the head is checked first, in the order of the handlers: host, rate,
//! key, scope, address, type and length. A request that passes goes on to its handler, which checks all of it again.

use actix_http::{HttpMessage as _, Request, RequestHead, Response};
use actix_web::body::BoxBody;
use actix_web::http::Method;

use super::api_error::{ApiError, FieldErrors};
use super::auth::RequiredScope;
use super::conversation_address::ConversationAddress;
use super::detachable_connection::DetachableConnection;
use super::local_host;
use super::rate_limit::RateLimitStatus;
use super::request_body;
use super::request_pipeline::respond;
use super::trace_context::TraceContext;
use super::{ATTACHMENTS, ApiContext, MESSAGES, OTHER, REDRIVE, attachments};
use crate::hub::HubError;

/// The count of a request whose head was checked here. Its handler must not count it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedRequest(pub(super) Option<RateLimitStatus>);

/// Returns the request if its body is wanted, else the refusal.
pub(super) async fn admit(context: &ApiContext, request: Request) -> Result<Request, Response<BoxBody>> {
    let head = request.head();
    let rate_limit = context.rate_limits.consume(&context.config.callers, head.headers());
    let (route, checked) = check(context, head);
    let checked = local_host::check(&context.config.callers, head).and(checked);
    let refused = rate_limit.as_ref().is_some_and(|status| status.refusal().is_some());
    let failure = match checked {
        Ok(()) if !refused && context.has_room() => {
            request.extensions_mut().insert(CountedRequest(rate_limit));
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
    let mut response = respond(context, route, head, connection, trace, rate_limit, work).await;
    response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    Err(response.into())
}

/// Checks what a handler checks before it reads a body. Returns the route for metrics too.
fn check(context: &ApiContext, head: &RequestHead) -> (&'static str, Result<(), ApiError>) {
    let mut segments = head.uri.path().split('/').skip(1);
    let path = [(); 4].map(|()| segments.next());
    match (&head.method, path) {
        (&Method::POST, [Some("conversations"), Some(_), Some("messages"), None]) => {
            (MESSAGES, check_message(context, head))
        }
        (&Method::POST, [Some("conversations"), Some(_), Some("attachments"), None]) => {
            (ATTACHMENTS, check_upload(context, head))
        }
        (&Method::POST, [Some("deliveries"), Some("redrive"), None, _]) => {
            let authorized = context.authorize_head(head.headers(), RequiredScope::Admin);
            (REDRIVE, authorized.and_then(|_| request_body::check_head(head.headers())))
        }
        (
            _,
            [Some("conversations"), None, ..]
            | [Some("conversations"), _, Some("erase"), _]
            | [Some("deliveries"), ..],
        ) => (OTHER, context.authorize_head(head.headers(), RequiredScope::Admin).map(drop)),
        (method, [Some("conversations"), ..]) => {
            let writes = matches!(*method, Method::POST | Method::DELETE);
            let scope = if writes { RequiredScope::Send } else { RequiredScope::Read };
            (OTHER, context.authorize_head(head.headers(), scope).map(drop))
        }
        _ => (OTHER, Ok(())),
    }
}

fn check_upload(context: &ApiContext, head: &RequestHead) -> Result<(), ApiError> {
    let (caller, _places) = context.authorize_head(head.headers(), RequiredScope::Send)?;
    let mut errors = FieldErrors::default();
    attachments::check_head(context, caller, &head.uri, head.headers(), &mut errors)?;
    // The rest of the body would only be thrown away.
    if errors.is_empty() { Ok(()) } else { Err(errors.into()) }
}

fn check_message(context: &ApiContext, head: &RequestHead) -> Result<(), ApiError> {
    let (caller, _places) = context.authorize_head(head.headers(), RequiredScope::Send)?;
    // Field errors are left to the handler, which reports them together with those of the body.
    let mut errors = FieldErrors::default();
    ConversationAddress::read(&context.config, caller, &head.uri, &mut errors)?;
    request_body::check_head(head.headers())?;
    if context.hub.is_draining() {
        return Err(HubError::Draining.into());
    }
    Ok(())
}
