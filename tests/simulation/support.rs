//! Values that every test of the machine needs.

use std::sync::Arc;

use rtm_bridge::config::{Bot, Form, Webhook};
use rtm_bridge::domain::{
    AcceptedMessage, BotName, Callback, Content, ConversationId, LastTurn, MessageId, NewMessage, Resend,
    SessionRequest, Timestamp, TraceId, TurnRules, UserId,
};
use rtm_bridge::rtm::{Response, Stream};
use serde_json::value::RawValue;

/// A bot with the defaults of api.md 9, but without limits on rates.
pub(crate) fn bot() -> Bot {
    let platform = "https://platform.example".parse().unwrap();
    Bot {
        user_rate_per_minute: 0,
        connects_per_minute: 0,
        ..Bot::new(BotName::new("support").unwrap(), platform)
    }
}

/// What a caller posts where it says nothing special.
pub(crate) fn plain() -> NewMessage {
    NewMessage {
        conversation: ConversationId::new(BotName::new("support").unwrap(), UserId::new("alice").unwrap()),
        content: Content::new("Where is my order?").unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: Resend::Never,
        callback: None,
        trace: TraceId::default(),
    }
}

/// The bot's own webhook.
pub(crate) fn webhook() -> Webhook {
    Webhook {
        url: Some("https://bot.example/hook".parse().unwrap()),
        secrets: Vec::new(),
        form: Form::Standard,
        bearer_token: None,
        headers: Vec::new(),
        legacy_signature: None,
    }
}

/// Where a caller wants to be told, signed with its own secrets or the bot's.
pub(crate) fn callback(signer: Option<&str>) -> Callback {
    Callback { url: "https://caller.example/hook".into(), signer: signer.map(Into::into) }
}

/// The accepted message of this place in the lane.
pub(crate) fn accepted(position: u64, at: Timestamp, new: NewMessage) -> Arc<AcceptedMessage> {
    Arc::new(AcceptedMessage {
        id: MessageId::new(at, position.into()),
        position,
        client_message_id: at.as_millis().max(1_000_000_000) + position,
        accepted_at: at,
        new,
    })
}

/// The turn that ended last, as an earlier version kept it.
pub(crate) fn last_turn(message: MessageId, ended_at: Timestamp) -> LastTurn {
    LastTurn { message, ended_at, client_message_id: None, callback: None, trace: TraceId::default() }
}

/// A plain reply of the bot.
pub(crate) fn reply(id: &str, text: &str) -> Response {
    Response {
        message_id: Some(id.into()),
        text: text.into(),
        agent: false,
        created_on: None,
        stream: None,
        more_follows: false,
        session_id: None,
        echoes: None,
        event: event(),
    }
}

/// A frame of which only that it is there matters.
pub(crate) fn event() -> Box<RawValue> {
    RawValue::from_string("{}".into()).unwrap()
}

/// What the bot says to this message, and that it does.
pub(crate) fn echo(id: &str, message: &AcceptedMessage) -> Response {
    Response { echoes: Some(message.client_message_id), ..reply(id, id) }
}

/// A piece of a streamed reply.
pub(crate) fn piece(id: &str, text: &str, last: bool) -> Response {
    Response { stream: Some(Stream { last, complete: None }), ..reply(id, text) }
}
