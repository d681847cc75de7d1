//! Polls of version 2: the replies of a turn that goes on.
//!
//! A poll is held as a call is, so that a client rarely sees `Inprogress`. Reading consumes nothing. A client whose answer
//! was lost on the way reads it again.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::super::ApiContext;
use super::super::api_error::ApiError;
use super::super::request_pipeline::{json_response, record};
use super::call_answer::{self, CallAnswer};
use super::poll_id::PollId;
use super::{DoorClient, POLL, serve};
use crate::domain::{ConversationId, Message, ProblemKind, TurnOutcome};

/// Serves a poll.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, POLL, &request, |client| Box::pin(poll(&context, &request, client))).await
}

async fn poll(
    context: &ApiContext,
    request: &HttpRequest,
    client: DoorClient<'_>,
) -> Result<HttpResponse, ApiError> {
    let text = request.match_info().get("poll").unwrap_or_default();
    let PollId { message: id, user, told } = text.parse().map_err(|_| no_data())?;
    // An id tells nothing to a client that may not read its user, nor to one that did not post its message.
    client.caller().check_user(&user).map_err(|_| no_data())?;
    record("message.id", &id);
    let conversation = ConversationId::new(client.bot.name.clone(), user);
    let message = context.hub.message(&conversation, id, Some(client.door.hold)).await?;
    let caller = client.caller().entry().and_then(|entry| entry.sharing_name.clone());
    let is_own = |message: &Message| {
        let new = &message.accepted.new;
        let is_posted_by_it =
            new.caller.as_ref().zip(caller.as_ref()).is_none_or(|(poster, reader)| poster == reader);
        is_posted_by_it && !new.session.is_end()
    };
    let message = message.filter(is_own).ok_or_else(no_data)?;
    if let Some(TurnOutcome::Failed(problem)) = &message.progress.outcome {
        return Err(ApiError::for_message(problem.clone(), message.clone(), String::new()));
    }
    let (told, ended) = (usize::from(told), message.progress.has_ended());
    let answer = CallAnswer::new(&message, &client.bot.task_bot_id, told);
    if ended {
        return json_response(StatusCode::OK, &answer.v2(None));
    }
    if message.progress.replies.len() <= told {
        return json_response(StatusCode::OK, &call_answer::in_progress(text));
    }
    json_response(StatusCode::OK, &answer.v2(Some(&PollId::of(&message).to_string())))
}

fn no_data() -> ApiError {
    ApiError::new(
        ProblemKind::NotFound,
        "There is no such poll of this client: it never existed, or its message has expired.",
    )
}
