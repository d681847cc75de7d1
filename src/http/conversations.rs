//! A conversation as a resource: its state, its end and its erasure (api.md 2).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde::Serialize;

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::conversation_address::ConversationAddress;
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, CONVERSATION, ERASE};
use crate::config::BotConfig;
use crate::domain::{
    BotName, ConnectionStatus, ConversationId, ConversationState, Message, MessageContent, NewMessage,
    Problem, ProblemKind, ResendPolicy, SessionRequest, Timestamp, TraceId, TurnOutcome, TurnRules, UserId,
};
use crate::hub::HubError;
use crate::store::AcceptRequest;

/// Longest wait of a caller for the end of a conversation.
const CLOSE_WAIT: Duration = Duration::from_secs(30);

/// Longest wait of a caller for an erasure: the end of the session, and a failover before it.
const ERASE_WAIT: Duration = Duration::from_secs(50);

/// Text of the message that ends a conversation. It is never sent.
const CLOSE_TEXT: &str = "close";

/// Requests for erasures that find a place in a full lane.
const ERASURES: usize = 16;

/// Serves `GET /conversations/{user}`.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, CONVERSATION, &request, read(&context, &request)).await
}

/// Serves `DELETE /conversations/{user}`.
pub(super) async fn delete(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, CONVERSATION, &request, Box::pin(close(&context, &request))).await
}

/// Serves `POST /conversations/{user}/erase`.
pub(super) async fn erase(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    Box::pin(serve(&context, ERASE, &request, erase_all(&context, &request))).await
}

async fn read(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ConversationView<'a> {
        bot: &'a BotName,
        user: &'a UserId,
        connection: &'a ConnectionStatus,
        session_id: Option<&'a str>,
        last_seq: u64,
        open_messages: u64,
        last_activity_at: Option<Timestamp>,
    }
    let caller = context.authorize(request, RequiredScope::Read)?;
    let mut errors = FieldErrors::default();
    let address = ConversationAddress::read(&context.config, &caller, request.uri(), &mut errors)?;
    let Some(ConversationAddress { conversation, bot }) = address else { return Err(errors.into()) };
    record("bot", &bot.name);
    record("caller", &caller.name());
    let state = context.hub.state(&conversation).await?;
    let ConversationState { connection, session_id, last_seq, open_messages, last_activity_at } = &state;
    let view = ConversationView {
        bot: conversation.bot(),
        user: conversation.user(),
        connection,
        session_id: session_id.as_deref(),
        last_seq: *last_seq,
        open_messages: *open_messages,
        last_activity_at: *last_activity_at,
    };
    json_response(StatusCode::OK, &view)
}

/// Ends a conversation. The end has a place in the lane like a message, so earlier messages are answered first.
async fn close(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Send)?;
    let mut errors = FieldErrors::default();
    let address = ConversationAddress::read(&context.config, &caller, request.uri(), &mut errors)?;
    let Some(ConversationAddress { conversation, bot }) = address else { return Err(errors.into()) };
    record("bot", &bot.name);
    record("caller", &caller.name());
    end_session(context, &caller, request, bot, conversation).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends the platform's session. Returns the message that did so.
///
/// # Errors
/// The problem of that message, and `platform-unavailable` if it has not ended in time.
pub(super) async fn end_session(
    context: &ApiContext,
    caller: &CallerIdentity,
    request: &HttpRequest,
    bot: &BotConfig,
    conversation: ConversationId,
) -> Result<Message, ApiError> {
    let accept = AcceptRequest {
        max_open: bot.max_open_messages,
        ..end_request(context, caller, request, conversation, SessionRequest::Close)?
    };
    let message = context.hub.post(accept, Some(CLOSE_WAIT)).await?.message;
    match &message.progress.outcome {
        Some(TurnOutcome::Answered(_)) => Ok(message),
        Some(TurnOutcome::Failed(problem)) => Err(problem.clone().into()),
        None => {
            let detail = "The conversation could not end in time: earlier messages are open, or the platform \
             does not answer. The end keeps its place in the lane and follows later.";
            Err(Problem::new(ProblemKind::PlatformUnavailable, detail)
                .retry_after(api_error::RETRY_SOON)
                .into())
        }
    }
}

/// Erases a conversation. The request has a place in the lane, so it survives its replica.
async fn erase_all(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let mut errors = FieldErrors::default();
    let address = ConversationAddress::read(&context.config, &caller, request.uri(), &mut errors)?;
    let Some(ConversationAddress { conversation, bot }) = address else { return Err(errors.into()) };
    record("bot", &bot.name);
    record("caller", &caller.name());
    let accept = AcceptRequest {
        max_open: bot.max_open_messages + ERASURES,
        ..end_request(context, &caller, request, conversation, SessionRequest::Erase)?
    };
    match context.hub.erase(accept, ERASE_WAIT).await {
        Ok(()) => {
            tracing::info!(bot = %bot.name, caller = caller.name(), "a conversation was erased");
            Ok(HttpResponse::NoContent().finish())
        }
        Err(HubError::Store(error)) if error.is_passing() => {
            let detail =
                "The store did not confirm the erasure in time. It may follow later. Repeat the request.";
            Err(Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(api_error::RETRY_SOON).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the message that ends a conversation, without a place in its lane.
fn end_request(
    context: &ApiContext,
    caller: &CallerIdentity,
    request: &HttpRequest,
    conversation: ConversationId,
    session: SessionRequest,
) -> Result<AcceptRequest, ApiError> {
    let id = context.new_id()?;
    record("message.id", &id);
    let message = NewMessage {
        conversation,
        content: MessageContent::new(CLOSE_TEXT).map_err(|_| api_error::internal())?,
        event: None,
        user_details: None,
        session,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: request.extensions().get::<TraceId>().copied().unwrap_or_default(),
        caller: caller.entry().and_then(|entry| entry.sharing_name.clone()),
    };
    Ok(AcceptRequest {
        id,
        message,
        idempotency: None,
        max_open: 0,
        by: context.hub.incarnation(),
        watched: true,
        owner: None,
        send_at_accept: false,
    })
}
