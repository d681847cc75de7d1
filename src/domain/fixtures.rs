//! Values that tests of several layers share.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests give valid values")]

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    AcceptedMessage, BotName, ConversationId, Correlation, DeliveryId, DeliveryKind, DeliveryOrigin, Message,
    MessageContent, MessageId, MessageProgress, NewDelivery, NewMessage, Reply, ResendPolicy, SessionRequest,
    Timestamp, TraceId, TurnOutcome, TurnRules, UserId,
};

/// The time at which tests begin.
pub const START: Timestamp = Timestamp::from_millis(1_763_845_000_000);

/// Returns the identity of a conversation.
pub fn conversation(bot: &str, user: &str) -> ConversationId {
    ConversationId::new(BotName::new(bot).unwrap(), UserId::new(user).unwrap())
}

/// Returns the conversation of a user with the simulated bot.
pub fn sandbox_conversation(user: &str) -> ConversationId {
    ConversationId::new(BotName::sandbox(), UserId::new(user).unwrap())
}

/// Returns a message with this text and every default.
pub fn new_message(conversation: ConversationId, text: &str) -> NewMessage {
    NewMessage {
        conversation,
        content: MessageContent::new(text).unwrap(),
        event: None,
        user_details: None,
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: TraceId::default(),
        caller: None,
    }
}

/// Returns the message as the first of its lane, accepted 1 ms after the epoch.
pub fn accepted_message(new: NewMessage) -> AcceptedMessage {
    let accepted_at = Timestamp::from_millis(1);
    AcceptedMessage {
        id: MessageId::new(accepted_at, 1),
        position: 0,
        client_message_id: 1,
        accepted_at,
        new,
    }
}

/// Returns the message with this outcome and no other progress.
pub fn message(accepted: AcceptedMessage, outcome: Option<TurnOutcome>) -> Message {
    let progress = MessageProgress { outcome, ..MessageProgress::default() };
    Message { accepted: Arc::new(accepted), progress }
}

/// Returns a reply to a message, with the text as its event.
pub fn reply(seq: u64, in_reply_to: Option<MessageId>, text: &str) -> Reply {
    Reply {
        seq,
        message_id: None,
        in_reply_to,
        correlation: Correlation::Window,
        late: false,
        text: text.into(),
        choices: Box::default(),
        media: Box::default(),
        agent: false,
        partial: false,
        created_on: None,
        event: raw_json(&serde_json::Value::from(text).to_string()),
    }
}

/// Returns the delivery of an unsolicited reply to the endpoint `main`, for an entry of the first journal.
pub fn new_delivery(conversation: &ConversationId, seq: u64, at: Timestamp, target: &str) -> NewDelivery {
    NewDelivery {
        id: DeliveryId::of(conversation, 1, seq, at),
        kind: DeliveryKind::ReplyUnsolicited,
        conversation: conversation.clone(),
        message: None,
        target: target.into(),
        origin: DeliveryOrigin::Endpoint("main".into()),
        trace: TraceId::default(),
        created_at: at,
        data: raw_json("{}"),
    }
}

/// Returns the JSON as it is written.
pub fn raw_json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}
