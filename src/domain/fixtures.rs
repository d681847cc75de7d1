//! Values that the unit tests of several layers share.

use serde_json::value::RawValue;

use super::{
    AcceptedMessage, BotName, ConversationId, Correlation, MessageContent, MessageId, NewMessage, Reply,
    ResendPolicy, SessionRequest, Timestamp, TraceId, TurnRules, UserId,
};

/// Returns the identity of a conversation.
pub(crate) fn conversation(bot: &str, user: &str) -> ConversationId {
    ConversationId::new(BotName::new(bot).unwrap(), UserId::new(user).unwrap())
}

/// Returns a message with this text and every default.
pub(crate) fn new_message(conversation: ConversationId, text: &str) -> NewMessage {
    NewMessage {
        conversation,
        content: MessageContent::new(text).unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: TraceId::default(),
    }
}

/// Returns the message as the first of its lane, accepted 1 ms after the epoch.
pub(crate) fn accepted_message(new: NewMessage) -> AcceptedMessage {
    let accepted_at = Timestamp::from_millis(1);
    AcceptedMessage {
        id: MessageId::new(accepted_at, 1),
        position: 0,
        client_message_id: 1,
        accepted_at,
        new,
    }
}

/// Returns a reply to a message, with the text as its event.
pub(crate) fn reply(seq: u64, in_reply_to: Option<MessageId>, text: &str) -> Reply {
    Reply {
        seq,
        message_id: None,
        in_reply_to,
        correlation: Correlation::Window,
        late: false,
        text: text.into(),
        agent: false,
        created_on: None,
        event: RawValue::from_string(serde_json::Value::from(text).to_string()).unwrap(),
    }
}
