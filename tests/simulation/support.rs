//! Values that the tests of the machine share.

use std::sync::Arc;

use rtm_bridge::config::{BotConfig, BotWebhookConfig, PayloadFormat};
use rtm_bridge::domain::{
    AcceptedMessage, BotName, Callback, ConversationId, LastTurn, MessageContent, MessageId, NewMessage,
    ResendPolicy, SessionRequest, Timestamp, TraceId, TurnRules, UserId,
};
use rtm_bridge::rtm::{BotResponse, StreamInfo};
use serde_json::value::RawValue;

/// A bot with the defaults of api.md 9, but without rate limits.
pub(crate) fn bot() -> BotConfig {
    let platform = "https://platform.example".parse().unwrap();
    BotConfig {
        user_rate_per_minute: 0,
        connects_per_minute: 0,
        ..BotConfig::new(BotName::new("support").unwrap(), platform)
    }
}

/// A message of a caller without special settings.
pub(crate) fn plain() -> NewMessage {
    NewMessage {
        conversation: ConversationId::new(BotName::new("support").unwrap(), UserId::new("alice").unwrap()),
        content: MessageContent::new("Where is my order?").unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: TraceId::default(),
    }
}

/// The bot's webhook.
pub(crate) fn webhook() -> BotWebhookConfig {
    BotWebhookConfig {
        url: Some("https://bot.example/hook".parse().unwrap()),
        secrets: Vec::new(),
        form: PayloadFormat::Standard,
        bearer_token: None,
        headers: Vec::new(),
        legacy_signature: None,
    }
}

/// The callback of a caller, signed with its own secrets or the bot's.
pub(crate) fn callback(signer: Option<&str>) -> Callback {
    Callback { url: "https://caller.example/hook".into(), signer: signer.map(Into::into) }
}

/// The accepted message at this position of the lane.
pub(crate) fn accepted(position: u64, at: Timestamp, new: NewMessage) -> Arc<AcceptedMessage> {
    Arc::new(AcceptedMessage {
        id: MessageId::new(at, position.into()),
        position,
        client_message_id: at.as_millis().max(1_000_000_000) + position,
        accepted_at: at,
        new,
    })
}

/// The last turn as an earlier version stored it.
pub(crate) fn last_turn(message: MessageId, ended_at: Timestamp) -> LastTurn {
    LastTurn { message, ended_at, client_message_id: None, callback: None, trace: TraceId::default() }
}

/// A plain reply of the bot.
pub(crate) fn reply(id: &str, text: &str) -> BotResponse {
    BotResponse {
        message_id: Some(id.into()),
        text: text.into(),
        agent: false,
        created_on: None,
        stream: None,
        more_follows: false,
        session_id: None,
        correlation_id: None,
        event: event(),
    }
}

/// A frame whose content does not matter.
pub(crate) fn event() -> Box<RawValue> {
    RawValue::from_string("{}".into()).unwrap()
}

/// A reply to this message, with its echo.
pub(crate) fn echo(id: &str, message: &AcceptedMessage) -> BotResponse {
    BotResponse { correlation_id: Some(message.client_message_id), ..reply(id, id) }
}

/// A chunk of a streamed reply.
pub(crate) fn piece(id: &str, text: &str, last: bool) -> BotResponse {
    BotResponse { stream: Some(StreamInfo { last, complete: None }), ..reply(id, text) }
}
