//! POST and GET of messages (api.md 1).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{Data, Payload};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};

use super::address::{self, Address};
use super::auth::Scope;
use super::body::{self, Draft};
use super::callback;
use super::exchange::{note, resource, serve};
use super::idempotency;
use super::prefer::{PREFERENCE_APPLIED, Prefer, applied_wait};
use super::problem::{self, Failure, Mistakes};
use super::{Front, MESSAGE, MESSAGES};
use crate::domain::{MessageId, NewMessage, ProblemKind, SessionRequest, TraceId, TurnOutcome};
use crate::hub::PostResult;
use crate::store::{AcceptRequest, IdempotencyRequest};

const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// `POST /conversations/{user}/messages`
pub(super) async fn post(front: Data<Front>, request: HttpRequest, payload: Payload) -> HttpResponse {
    serve(&front, MESSAGES, &request, accept(&front, &request, payload)).await
}

/// `GET /conversations/{user}/messages/{id}`
pub(super) async fn get(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    serve(&front, MESSAGE, &request, read(&front, &request)).await
}

async fn accept(front: &Front, request: &HttpRequest, payload: Payload) -> Result<HttpResponse, Failure> {
    let headers = request.headers();
    let config = &*front.config;
    let (caller, _place) = front.enter(headers, Scope::Send)?;
    let mut mistakes = Mistakes::default();
    let address = Address::read(config, caller, request.uri(), &mut mistakes)?;
    let prefer = Prefer::of(headers, &mut mistakes);
    let key = idempotency::key(headers, &mut mistakes);
    let body = body::read(headers, payload).await?;
    let draft = body::parse(&body, &mut mistakes);
    let (Some(address), Some(prefer), Some(draft), true) = (address, prefer, draft, mistakes.is_empty())
    else {
        return Err(mistakes.into());
    };
    let admit = |callback| callback::admit(callback, caller, address.bot, &config.webhooks.allowed);
    let callback = draft.callback.clone().map(admit).transpose()?;
    let (wait, applied) = choose_wait(prefer, callback.is_some(), config.reply.default_wait)?;
    let id = front.new_id()?;
    note("message.id", &id);
    note("bot", &address.bot.name);
    note("caller", &caller.name());
    let idempotency = key.map(|key| IdempotencyRequest {
        caller: caller.name().into(),
        key,
        body: idempotency::digest(&draft),
    });
    let Draft { content, session, rules, resend, .. } = draft;
    let trace = request.extensions().get::<TraceId>().copied().unwrap_or_default();
    let conversation = address.conversation;
    let message = NewMessage { conversation, content, session, rules, resend, callback, trace };
    let accept = AcceptRequest {
        id,
        message,
        idempotency,
        max_open: address.bot.max_open_messages,
        by: front.hub.incarnation(),
        watched: wait.is_some(),
        sends: None,
    };
    let posted = front.hub.post(accept, wait).await?;
    if posted.replayed {
        note("message.id", &posted.message.accepted.id);
    }
    posted_response(posted, applied)
}

async fn read(front: &Front, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    let uri = request.uri();
    let config = &*front.config;
    let (caller, _place) = front.enter(request.headers(), Scope::Read)?;
    let mut mistakes = Mistakes::default();
    let address = Address::read(config, caller, uri, &mut mistakes)?;
    let prefer = Prefer::of(request.headers(), &mut mistakes);
    let (Some(address), Some(prefer), true) = (address, prefer, mistakes.is_empty()) else {
        return Err(mistakes.into());
    };
    // What is no id of ours is the id of no message.
    let id: MessageId = uri.path().split('/').nth(4).and_then(|id| id.parse().ok()).ok_or_else(no_message)?;
    note("message.id", &id);
    note("bot", &address.bot.name);
    note("caller", &caller.name());
    let wait = prefer.wait.filter(|wait| !wait.is_zero());
    let message = front.hub.message(&address.conversation, id, wait).await?;
    // What closes a conversation stands in the lane like a message, and is none for callers.
    let message = message.filter(|message| message.accepted.new.session != SessionRequest::Close);
    let mut response = resource(StatusCode::OK, &message.ok_or_else(no_message)?)?;
    if let Some(wait) = prefer.wait {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied_wait(wait)?);
    }
    Ok(response)
}

/// How long a POST waits, and which preference that honours. No wait means: as soon as it is durable.
fn choose_wait(
    prefer: Prefer,
    has_callback: bool,
    default: Duration,
) -> Result<(Option<Duration>, Option<HeaderValue>), Failure> {
    let (wait, applied) = match prefer {
        Prefer { wait: Some(wait), .. } => (wait, Some(applied_wait(wait)?)),
        Prefer { respond_async: true, .. } => {
            (Duration::ZERO, Some(HeaderValue::from_static("respond-async")))
        }
        _ if has_callback => (Duration::ZERO, None),
        _ => (default, None),
    };
    Ok(((!wait.is_zero()).then_some(wait), applied))
}

/// The answer to a POST whose message is in the store.
fn posted_response(posted: PostResult, applied: Option<HeaderValue>) -> Result<HttpResponse, Failure> {
    let PostResult { message, replayed } = posted;
    let location = address::location(&message);
    let replayed = replayed.then(|| (IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true")));
    let applied = applied.map(|applied| (PREFERENCE_APPLIED, applied));
    let headers =
        [(header::LOCATION, header_value(location.clone())?)].into_iter().chain(replayed).chain(applied);
    let status = match &message.progress.outcome {
        Some(TurnOutcome::Answered(_)) => StatusCode::OK,
        None => StatusCode::ACCEPTED,
        Some(TurnOutcome::Failed(problem)) => {
            let failure = Failure::of_message(problem.clone(), message, location);
            return Err(headers.fold(failure, |failure, (name, value)| failure.with(name, value)));
        }
    };
    let mut response = resource(status, &message)?;
    if status == StatusCode::ACCEPTED {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    headers.for_each(|(name, value)| {
        response.headers_mut().insert(name, value);
    });
    Ok(response)
}

fn header_value(text: String) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(text).map_err(|_| problem::internal())
}

fn no_message() -> Failure {
    Failure::new(
        ProblemKind::NotFound,
        "There is no such message in this conversation: it never was, or its time to be kept is over.",
    )
}

#[cfg(test)]
mod tests;
