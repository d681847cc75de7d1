//! A conversation as a resource: how it stands, and ending it (api.md 2).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde::Serialize;

use super::address::Address;
use super::auth::Scope;
use super::exchange::{note, resource, serve};
use super::problem::{self, Failure, Mistakes};
use super::{CONVERSATION, Front};
use crate::domain::{
    BotName, ConnectionStatus, ConversationState, MessageContent, NewMessage, Problem, ProblemKind,
    ResendPolicy, SessionRequest, Timestamp, TraceId, TurnOutcome, TurnRules, UserId,
};
use crate::store::AcceptRequest;

/// How long a caller is kept waiting for the end of a conversation.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands for the text of a message that is none. It is never sent.
const NO_TEXT: &str = "close";

/// `GET /conversations/{user}`
pub(super) async fn get(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    serve(&front, CONVERSATION, &request, read(&front, &request)).await
}

/// `DELETE /conversations/{user}`
pub(super) async fn delete(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    serve(&front, CONVERSATION, &request, close(&front, &request)).await
}

async fn read(front: &Front, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct View<'a> {
        bot: &'a BotName,
        user: &'a UserId,
        connection: &'a ConnectionStatus,
        session_id: Option<&'a str>,
        last_seq: u64,
        open_messages: u64,
        last_activity_at: Option<Timestamp>,
    }
    let (caller, _place) = front.enter(request.headers(), Scope::Read)?;
    let mut mistakes = Mistakes::default();
    let address = Address::read(&front.config, caller, request.uri(), &mut mistakes)?;
    let Some(Address { conversation, bot }) = address else { return Err(mistakes.into()) };
    note("bot", &bot.name);
    note("caller", &caller.name());
    let state = front.hub.state(&conversation).await?;
    let ConversationState { connection, session_id, last_seq, open_messages, last_activity_at } = &state;
    let view = View {
        bot: &conversation.bot,
        user: &conversation.user,
        connection,
        session_id: session_id.as_deref(),
        last_seq: *last_seq,
        open_messages: *open_messages,
        last_activity_at: *last_activity_at,
    };
    resource(StatusCode::OK, &view)
}

/// Closing takes its place in the lane like a message: what was accepted before is answered first.
async fn close(front: &Front, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    let (caller, _place) = front.enter(request.headers(), Scope::Send)?;
    let mut mistakes = Mistakes::default();
    let address = Address::read(&front.config, caller, request.uri(), &mut mistakes)?;
    let Some(Address { conversation, bot }) = address else { return Err(mistakes.into()) };
    let id = front.new_id()?;
    note("message.id", &id);
    note("bot", &bot.name);
    note("caller", &caller.name());
    let message = NewMessage {
        conversation,
        content: MessageContent::new(NO_TEXT).map_err(|_| problem::internal())?,
        session: SessionRequest::Close,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: request.extensions().get::<TraceId>().copied().unwrap_or_default(),
    };
    let accept = AcceptRequest {
        id,
        message,
        idempotency: None,
        max_open: bot.max_open_messages,
        by: front.hub.incarnation(),
        watched: true,
        sends: None,
    };
    let posted = front.hub.post(accept, Some(PATIENCE)).await?;
    match posted.message.progress.outcome {
        Some(TurnOutcome::Answered(_)) => Ok(HttpResponse::NoContent().finish()),
        Some(TurnOutcome::Failed(problem)) => Err(problem.into()),
        None => {
            let detail = "The conversation could not be ended in time: earlier messages are still open, or the \
                          platform does not answer. It stays in line, and is ended when its turn comes.";
            Err(Problem::new(ProblemKind::PlatformUnavailable, detail).retry_after(problem::SOON).into())
        }
    }
}
