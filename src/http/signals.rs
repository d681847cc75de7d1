//! Signals of a user's window: typing and receipts (api.md 2).

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::api_error::{ApiError, FieldErrors};
use super::auth::RequiredScope;
use super::conversation_address::ConversationAddress;
use super::field_validator::FieldValidator;
use super::request_pipeline::{record, serve};
use super::{ApiContext, SIGNALS, request_body};
use crate::domain::{SignalKind, UserSignal};

/// Most characters of a platform's id of a message.
const MAX_ID_CHARACTERS: usize = 256;

/// Serves `POST /conversations/{user}/signals`.
pub(super) async fn post(context: Data<ApiContext>, request: HttpRequest, payload: Payload) -> HttpResponse {
    serve(&context, SIGNALS, &request, pass_on(&context, &request, payload)).await
}

async fn pass_on(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Send)?;
    let mut errors = FieldErrors::default();
    let address = ConversationAddress::read(&context.config, &caller, request.uri(), &mut errors)?;
    let body = request_body::read(context, &caller, request, payload).await?;
    let signal = parse(&body, &mut errors);
    let (Some(ConversationAddress { conversation, bot }), Some(signal), true) =
        (address, signal, errors.is_empty())
    else {
        return Err(errors.into());
    };
    record("bot", &bot.name);
    record("caller", &caller.name());
    context.hub.signal(&conversation, signal).await?;
    Ok(HttpResponse::Accepted().finish())
}

fn parse(body: &[u8], errors: &mut FieldErrors) -> Option<UserSignal> {
    FieldValidator::validate(body, errors, |check, body| {
        let [kind, message_id] = check.object("", body, ["type", "messageId"])?;
        let kind = check.required("/type", kind).and_then(|kind| {
            let choices = "must be `typing`, `stopTyping`, `delivered`, `read` or `closeAgentChat`";
            check.choice("/type", kind, choices)
        });
        let message_id = message_id.and_then(|id| check.string("/messageId", id));
        if message_id.as_ref().is_some_and(|id| !(1..=MAX_ID_CHARACTERS).contains(&id.chars().count())) {
            check.add("/messageId", "must have 1 to 256 characters");
        }
        if kind == Some(SignalKind::Delivered) && message_id.is_none() {
            check.add("/messageId", "is required for `delivered`");
        }
        Some(UserSignal { kind: kind?, message_id })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<UserSignal, Vec<String>> {
        let mut errors = FieldErrors::default();
        let signal = parse(body.as_bytes(), &mut errors);
        signal.ok_or_else(|| errors.into_vec().into_iter().map(|error| error.pointer.into_owned()).collect())
    }

    #[test]
    fn signals_of_the_contract_are_read() {
        let signal =
            |kind, message_id: Option<&str>| Ok(UserSignal { kind, message_id: message_id.map(Into::into) });
        assert_eq!(read(r#"{"type":"typing"}"#), signal(SignalKind::Typing, None));
        assert_eq!(read(r#"{"type":"stopTyping","messageId":null}"#), signal(SignalKind::StopTyping, None));
        let delivered = r#"{"type":"delivered","messageId":"ms-1"}"#;
        assert_eq!(read(delivered), signal(SignalKind::Delivered, Some("ms-1")));
        let longest = "é".repeat(256);
        let read_to = read(&format!(r#"{{"type":"read","messageId":"{longest}"}}"#));
        assert_eq!(read_to, signal(SignalKind::Read, Some(&longest)));
        assert_eq!(read(r#"{"type":"read"}"#), signal(SignalKind::Read, None));
        assert_eq!(read(r#"{"type":"closeAgentChat"}"#), signal(SignalKind::CloseAgentChat, None));
    }

    #[test]
    fn other_bodies_are_refused_with_their_place() {
        let long = format!(r#"{{"type":"read","messageId":"{}"}}"#, "é".repeat(257));
        for (body, expected) in [
            ("{}", "/type"),
            (r#"{"type":"shout"}"#, "/type"),
            (r#"{"type":7}"#, "/type"),
            (r#"{"type":"delivered"}"#, "/messageId"),
            (r#"{"type":"delivered","messageId":""}"#, "/messageId"),
            (r#"{"type":"read","messageId":7}"#, "/messageId"),
            (long.as_str(), "/messageId"),
            (r#"{"type":"typing","text":"hi"}"#, "/text"),
            ("[]", ""),
            ("", ""),
        ] {
            assert_eq!(read(body), Err(vec![expected.to_owned()]), "{body}");
        }
    }
}
