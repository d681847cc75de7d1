//! A conversation as a resource: its state, and its end (api.md 2).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde::Serialize;

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::RequiredScope;
use super::conversation_address::ConversationAddress;
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, CONVERSATION};
use crate::domain::{
    BotName, ConnectionStatus, ConversationState, MessageContent, NewMessage, Problem, ProblemKind,
    ResendPolicy, SessionRequest, Timestamp, TraceId, TurnOutcome, TurnRules, UserId,
};
use crate::store::AcceptRequest;

/// Longest wait of a caller for the end of a conversation.
const CLOSE_WAIT: Duration = Duration::from_secs(30);

/// Text of the message that ends a conversation. It is never sent.
const CLOSE_TEXT: &str = "close";

/// Serves `GET /conversations/{user}`.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, CONVERSATION, &request, read(&context, &request)).await
}

/// Serves `DELETE /conversations/{user}`.
pub(super) async fn delete(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, CONVERSATION, &request, close(&context, &request)).await
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
    let address = ConversationAddress::read(&context.config, caller, request.uri(), &mut errors)?;
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
    let address = ConversationAddress::read(&context.config, caller, request.uri(), &mut errors)?;
    let Some(ConversationAddress { conversation, bot }) = address else { return Err(errors.into()) };
    let id = context.new_id()?;
    record("message.id", &id);
    record("bot", &bot.name);
    record("caller", &caller.name());
    let message = NewMessage {
        conversation,
        content: MessageContent::new(CLOSE_TEXT).map_err(|_| api_error::internal())?,
        event: None,
        user_details: None,
        session: SessionRequest::Close,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: request.extensions().get::<TraceId>().copied().unwrap_or_default(),
        caller: context.sharing_caller(caller),
    };
    let accept = AcceptRequest {
        id,
        message,
        idempotency: None,
        max_open: bot.max_open_messages,
        by: context.hub.incarnation(),
        watched: true,
        owner: None,
        send_at_accept: false,
    };
    let posted = context.hub.post(accept, Some(CLOSE_WAIT)).await?;
    match posted.message.progress.outcome {
        Some(TurnOutcome::Answered(_)) => Ok(HttpResponse::NoContent().finish()),
        Some(TurnOutcome::Failed(problem)) => Err(problem.into()),
        None => {
            let detail = "The conversation could not end in time: earlier messages are open, or the platform \
             does not answer. The end keeps its place in the lane and follows later.";
            Err(Problem::new(ProblemKind::PlatformUnavailable, detail)
                .retry_after(api_error::RETRY_SOON)
                .into())
        }
    }
}
