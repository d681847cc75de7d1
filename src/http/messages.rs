//! POST and GET of messages (api.md 1).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{Data, Payload};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::RequiredScope;
use super::callback_policy;
use super::conversation_address::{self, ConversationAddress};
use super::idempotency_key;
use super::prefer_header::{PREFERENCE_APPLIED, PreferHeader};
use super::request_body::{self, MessageDraft};
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, MESSAGE, MESSAGES};
use crate::domain::{MessageId, NewMessage, ProblemKind, TraceId, TurnOutcome};
use crate::hub::PostResult;
use crate::store::{AcceptRequest, IdempotencyKey, IdempotencyRequest};

const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Serves `POST /conversations/{user}/messages`.
pub(super) async fn post(context: Data<ApiContext>, request: HttpRequest, payload: Payload) -> HttpResponse {
    // Boxed, because each layer of the pipeline would make room for it and move it.
    serve(&context, MESSAGES, &request, Box::pin(accept(&context, &request, payload))).await
}

/// Serves `GET /conversations/{user}/messages/{id}`.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, MESSAGE, &request, read(&context, &request)).await
}

async fn accept(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let headers = request.headers();
    let (config, live) = (&*context.config, context.live());
    let caller = context.authorize(request, RequiredScope::Send)?;
    let mut errors = FieldErrors::default();
    let address = ConversationAddress::read(config, &caller, request.uri(), &mut errors)?;
    let prefer = PreferHeader::from_headers(headers);
    let key = idempotency_key::key(headers, &mut errors);
    let body = request_body::read(context, &caller, request, payload).await?;
    let draft = request_body::parse_message(&body, &mut errors);
    drop(body);
    let merged = draft.as_ref().and_then(|draft| draft.user_details.as_ref()?.merge_with.as_ref());
    if let Some(merged) = merged {
        caller.check_merge(merged)?;
        if address.as_ref().is_some_and(|address| address.conversation.user() == merged) {
            errors.add("/mergeWith", "must be another identity than the user in the path");
        }
    }
    let (Some(address), Some(draft), true) = (address, draft, errors.is_empty()) else {
        return Err(errors.into());
    };
    let check_callback = |callback| callback_policy::check(callback, &caller, address.bot, &live.allowed);
    let callback = draft.callback.clone().map(check_callback).transpose()?;
    let wait = choose_wait(prefer, callback.is_some(), config.reply.default_wait);
    let applied = prefer.applied()?;
    let id = context.new_id()?;
    record("message.id", &id);
    record("bot", &address.bot.name);
    record("caller", &caller.name());
    let idempotency = key.map(|key| IdempotencyRequest {
        key: IdempotencyKey::Chosen { caller: caller.name().into(), key },
        body: idempotency_key::digest(&draft),
    });
    let MessageDraft { content, event, user_details, session, rules, resend, .. } = draft;
    let trace = request.extensions().get::<TraceId>().copied().unwrap_or_default();
    let (conversation, caller) =
        (address.conversation, caller.entry().and_then(|entry| entry.sharing_name.clone()));
    let message = NewMessage {
        conversation,
        content,
        event,
        user_details,
        session,
        rules,
        resend,
        callback,
        trace,
        caller,
    };
    let accept = AcceptRequest {
        id,
        message,
        idempotency,
        max_open: address.bot.max_open_messages,
        by: context.hub.incarnation(),
        watched: wait.is_some(),
        owner: None,
        send_at_accept: false,
    };
    let posted = context.hub.post(accept, wait).await?;
    if posted.replayed {
        record("message.id", &posted.message.accepted.id);
    }
    posted_response(posted, applied)
}

async fn read(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let uri = request.uri();
    let config = &*context.config;
    let caller = context.authorize(request, RequiredScope::Read)?;
    let mut errors = FieldErrors::default();
    let address = ConversationAddress::read(config, &caller, uri, &mut errors)?;
    let prefer = PreferHeader::from_headers(request.headers()).of_read();
    let (Some(address), true) = (address, errors.is_empty()) else {
        return Err(errors.into());
    };
    // An invalid id names no message, so the answer is 404.
    let id: MessageId =
        uri.path().split('/').nth(4).and_then(|id| id.parse().ok()).ok_or_else(message_not_found)?;
    record("message.id", &id);
    record("bot", &address.bot.name);
    record("caller", &caller.name());
    let wait = prefer.wait.filter(|wait| !wait.is_zero());
    let message = context.hub.message(&address.conversation, id, wait).await?;
    // The end of a conversation has a place in the lane like a message, but callers do not see it.
    let message = message.filter(|message| !message.accepted.new.session.is_end());
    let mut response = json_response(StatusCode::OK, &message.ok_or_else(message_not_found)?)?;
    if let Some(applied) = prefer.applied()? {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// Returns the wait of a POST. Without a wait the answer comes as soon as the message is durable.
fn choose_wait(prefer: PreferHeader, has_callback: bool, default: Duration) -> Option<Duration> {
    let wait = match prefer {
        PreferHeader { wait: Some(wait), .. } => wait,
        PreferHeader { respond_async: true, .. } => Duration::ZERO,
        _ if has_callback => Duration::ZERO,
        _ => default,
    };
    (!wait.is_zero()).then_some(wait)
}

/// Builds the answer to a POST whose message is in the store.
fn posted_response(posted: PostResult, applied: Option<HeaderValue>) -> Result<HttpResponse, ApiError> {
    let PostResult { message, replayed } = posted;
    let location = conversation_address::location(&message);
    let replayed = replayed.then(|| (IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true")));
    let applied = applied.map(|applied| (PREFERENCE_APPLIED, applied));
    let headers =
        [(header::LOCATION, header_value(location.clone())?)].into_iter().chain(replayed).chain(applied);
    let status = match &message.progress.outcome {
        Some(TurnOutcome::Answered(_)) => StatusCode::OK,
        None => StatusCode::ACCEPTED,
        Some(TurnOutcome::Failed(problem)) => {
            let failure = ApiError::for_message(problem.clone(), message, location);
            return Err(headers.fold(failure, |failure, (name, value)| failure.with_header(name, value)));
        }
    };
    let mut response = json_response(status, &message)?;
    if status == StatusCode::ACCEPTED {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    headers.for_each(|(name, value)| {
        response.headers_mut().insert(name, value);
    });
    Ok(response)
}

fn header_value(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(text).map_err(|_| api_error::internal())
}

fn message_not_found() -> ApiError {
    ApiError::new(
        ProblemKind::NotFound,
        "There is no such message in this conversation: it never existed, or it has expired.",
    )
}

#[cfg(test)]
mod tests;
