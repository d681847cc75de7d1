//! Values that the tests of the machine share.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::{self, BotConfig, BotWebhookConfig, QuietRule};
use rtm_bridge::domain::fixtures::{conversation, new_message, raw_json};
use rtm_bridge::domain::{
    AcceptedMessage, Callback, ConversationRecord, LastTurn, LateReplies, MessageId, MessageProgress,
    NewMessage, Timestamp, TraceId,
};
use rtm_bridge::link::Machine;
use rtm_bridge::rtm::{BotResponse, StreamInfo};
use rtm_bridge::store::{ConversationSnapshot, OpenMessage};
use serde_json::value::RawValue;

/// A bot with the defaults of api.md 9, but without rate limits.
pub(crate) fn bot() -> BotConfig {
    let quiet = QuietRule::Fixed(Duration::from_secs(1));
    BotConfig { quiet, user_rate_per_minute: 0, connects_per_minute: 0, ..config::fixtures::bot("support") }
}

/// A message of a caller without special settings.
pub(crate) fn plain() -> NewMessage {
    new_message(conversation("support", "alice"), "Where is my order?")
}

/// The bot's webhook.
pub(crate) fn webhook() -> BotWebhookConfig {
    BotWebhookConfig { url: Some("https://bot.example/hook".parse().unwrap()), ..BotWebhookConfig::default() }
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

/// The progress of a message that was sent.
pub(crate) fn sent(at: Timestamp) -> MessageProgress {
    MessageProgress { sent_at: Some(at), ..MessageProgress::default() }
}

/// A stored conversation with these open messages. The first one became the head at its accept.
pub(crate) fn snapshot<const N: usize>(
    record: ConversationRecord,
    lane: [(&Arc<AcceptedMessage>, MessageProgress); N],
) -> ConversationSnapshot {
    let lane = lane.map(|(accepted, progress)| OpenMessage { accepted: Arc::clone(accepted), progress });
    ConversationSnapshot {
        record,
        head_at: lane.first().map(|head| head.accepted.accepted_at),
        next_position: lane.last().map_or(0, |last| last.accepted.position + 1),
        lane: lane.into(),
        ..ConversationSnapshot::default()
    }
}

/// Advances the time to the next tick that the machine asks for, but at most to `end`. Returns whether a tick is due.
pub(crate) fn advance(now: &mut Timestamp, machine: &Machine, end: Timestamp) -> bool {
    let due = machine.wake_at().filter(|wake| *wake <= end);
    *now = due.map_or(end, |wake| wake.max(*now));
    due.is_some()
}

/// The last turn as an earlier version stored it.
pub(crate) fn last_turn(message: MessageId, ended_at: Timestamp) -> LastTurn {
    LastTurn {
        message,
        ended_at,
        client_message_id: None,
        callback: None,
        trace: TraceId::default(),
        late: LateReplies::default(),
    }
}

/// A plain reply of the bot.
pub(crate) fn reply(id: &str, text: &str) -> BotResponse {
    BotResponse {
        message_id: Some(id.into()),
        text: text.into(),
        choices: Box::default(),
        media: Box::default(),
        is_blank: text.is_empty(),
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
    raw_json("{}")
}

/// A reply to this message, with its echo.
pub(crate) fn echo(id: &str, message: &AcceptedMessage) -> BotResponse {
    BotResponse { correlation_id: Some(message.client_message_id), ..reply(id, id) }
}

/// A chunk of a streamed reply.
pub(crate) fn piece(id: &str, text: &str, last: bool) -> BotResponse {
    BotResponse { stream: Some(StreamInfo { last, complete: None }), ..reply(id, text) }
}
