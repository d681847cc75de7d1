//! Calls of the channel: a message, a connect, or the end of a session.
//!
//! A call is answered when its turn ends, or when `hold` has passed and there is a reply. Clients repeat a call on any status
//! but 200, so an identical call is the same message as long as that one is open.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde_json::json;
use tokio::time::Instant;

use super::super::api_error::{ApiError, FieldErrors};
use super::super::request_pipeline::{json_response, record};
use super::super::{ApiContext, conversations, request_body};
use super::call_answer::{self, CallAnswer};
use super::call_request::{self, CallAction, CallMessage, ChannelCall};
use super::poll_id::PollId;
use super::{ApiVersion, DoorClient, V1, V2, serve, unauthorized};
use crate::domain::{
    ConversationId, Message, NewMessage, ProblemKind, ResendPolicy, TraceId, TurnOutcome, TurnRules, UserId,
};
use crate::hub::HubError;
use crate::store::{AcceptRequest, IdempotencyKey, IdempotencyRequest};

/// Longest time until an answer. Load balancers end silent requests after 60 s.
const LONGEST: Duration = Duration::from_secs(55);
/// Time between two looks for the first reply of a slow bot.
const LOOK: Duration = Duration::from_secs(1);

/// Serves a call of version 1.
pub(super) async fn post_v1(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    // Boxed, because each layer of the pipeline would make room for it and move it.
    let work = |client| Box::pin(call(&context, &request, payload, client, ApiVersion::V1));
    serve(&context, V1, &request, work).await
}

/// Serves a call of version 2.
pub(super) async fn post_v2(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let work = |client| Box::pin(call(&context, &request, payload, client, ApiVersion::V2));
    serve(&context, V2, &request, work).await
}

async fn call(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
    client: DoorClient<'_>,
    version: ApiVersion,
) -> Result<HttpResponse, ApiError> {
    let body = request_body::read(context, client.caller(), request, payload).await?;
    let ChannelCall { user, content, digest } = call_request::read(&body, version).map_err(|error| {
        let mut errors = FieldErrors::default();
        errors.add(error.pointer(), error.to_string());
        ApiError::from(errors)
    })?;
    drop(body);
    if client.token.user_identity.as_deref().is_some_and(|identity| identity != user.as_str()) {
        return Err(unauthorized());
    }
    client.caller().check_user(&user)?;
    let conversation = ConversationId::new(client.bot.name.clone(), user);
    let message = match content {
        CallAction::Message(message) => *message,
        CallAction::SessionClosure => return close(context, request, &client, conversation).await,
    };
    let trace = request.extensions().get::<TraceId>().copied().unwrap_or_default();
    let accept = accept_request(context, &client, conversation, message, digest, trace)?;
    record("message.id", &accept.id);
    if client.door.is_asynchronous {
        context.hub.post(AcceptRequest { watched: false, ..accept }, None).await?;
        return match version {
            ApiVersion::V1 => json_response(StatusCode::OK, &json!({})),
            ApiVersion::V2 => json_response(StatusCode::OK, &call_answer::acknowledgement(trace)),
        };
    }
    let message = answered(context, accept, client.door.hold).await?;
    answer(&message, &client, version)
}

fn accept_request(
    context: &ApiContext,
    client: &DoorClient<'_>,
    conversation: ConversationId,
    message: CallMessage,
    digest: [u8; 32],
    trace: TraceId,
) -> Result<AcceptRequest, ApiError> {
    let CallMessage { content, event, session, mut details, merges_identity } = message;
    let caller = client.caller();
    let merge_with = client.token.merge_with.as_deref().filter(|_| merges_identity);
    let merge_with = merge_with.and_then(|user| UserId::new(user).ok());
    details.merge_with = merge_with.filter(|identity| identity != conversation.user());
    if let Some(identity) = &details.merge_with {
        caller.check_merge(identity)?;
    }
    Ok(AcceptRequest {
        id: context.new_id()?,
        message: NewMessage {
            conversation,
            content,
            event,
            user_details: (!details.is_empty()).then(|| Box::new(details)),
            session,
            rules: TurnRules::default(),
            resend: ResendPolicy::Never,
            callback: None,
            trace,
            caller: caller.entry().and_then(|entry| entry.sharing_name.clone()),
        },
        idempotency: Some(IdempotencyRequest {
            key: IdempotencyKey::Call { client: caller.name().into(), digest },
            body: digest,
        }),
        max_open: client.bot.max_open_messages,
        by: context.hub.incarnation(),
        watched: true,
        owner: None,
        send_at_accept: false,
    })
}

/// Accepts a message, and returns it when its turn has ended, or when `hold` has passed and there is a reply.
async fn answered(context: &ApiContext, accept: AcceptRequest, hold: Duration) -> Result<Message, ApiError> {
    let (begun, conversation) = (Instant::now(), accept.message.conversation.clone());
    let mut message = context.hub.post(accept, Some(hold)).await?.message;
    let is_open = |message: &Message| !message.progress.has_ended() && message.progress.replies.is_empty();
    // A replica that shuts down does not wait.
    while is_open(&message) && !context.hub.is_draining() && begun.elapsed() + LOOK < LONGEST {
        let id = message.accepted.id;
        message = context.hub.message(&conversation, id, Some(LOOK)).await?.ok_or(HubError::Lost)?;
    }
    Ok(message)
}

/// Answers with all replies so far.
fn answer(message: &Message, client: &DoorClient<'_>, version: ApiVersion) -> Result<HttpResponse, ApiError> {
    if let Some(TurnOutcome::Failed(problem)) = &message.progress.outcome {
        return Err(ApiError::for_message(problem.clone(), message.clone(), String::new()));
    }
    let replies = message.progress.replies.len();
    let answer = CallAnswer::new(message, &client.bot.task_bot_id, 0);
    match version {
        ApiVersion::V1 if replies == 0 && !message.progress.has_ended() => Err(ApiError::new(
            ProblemKind::NoReply,
            "The bot has not replied yet. Version 1 has no polls, so its replies cannot be read here any more.",
        )),
        ApiVersion::V1 => json_response(StatusCode::OK, &answer.v1(client.door.v1_text)),
        ApiVersion::V2 => {
            let poll = (!message.progress.has_ended()).then(|| PollId::of(message).to_string());
            json_response(StatusCode::OK, &answer.v2(poll.as_deref()))
        }
    }
}

/// Ends the platform's session.
async fn close(
    context: &ApiContext,
    request: &HttpRequest,
    client: &DoorClient<'_>,
    conversation: ConversationId,
) -> Result<HttpResponse, ApiError> {
    let ended =
        conversations::end_session(context, client.caller(), request, client.bot, conversation).await?;
    // A message that ends a session is sent only if there is one.
    let had_session = ended.progress.sent_at.is_some();
    let user = ended.accepted.new.conversation.user().as_str();
    json_response(StatusCode::OK, &call_answer::closure(user, &client.bot.task_bot_id, had_session))
}
