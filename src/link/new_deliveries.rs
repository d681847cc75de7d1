//! The deliveries of a conversation to webhooks (api.md 4): where each goes, and its body.
//!
//! A message's end and its late replies go to the callback of its caller, else to the bot's webhook. Unsolicited
//! replies go to the bot's webhook. Without a target there is no delivery and no body. The end of a session
//! (`DELETE`) is not delivered.
//!
//! This file is pure. The appender of an entry pushes the entry's delivery right behind it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, BotName, Callback, ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin,
    JournalPosition, LastTurn, Message, MessageProgress, NewDelivery, Reply, Timestamp, TraceId, UserId,
};
use crate::store::ConversationChange;

/// Returns the delivery of a message's end, whose entry is at `place`, or none without a target.
pub(crate) fn of_end(
    bot: &BotConfig,
    accepted: &Arc<AcceptedMessage>,
    progress: &MessageProgress,
    place: JournalPosition,
    at: Timestamp,
) -> Option<ConversationChange> {
    let new = &accepted.new;
    if new.session.is_end() {
        return None;
    }
    let kind = progress.outcome.as_ref()?.into();
    let (target, origin) = address(bot, new.callback.as_ref())?;
    let message = Message { accepted: Arc::clone(accepted), progress: progress.clone() };
    let delivery = NewDelivery {
        id: DeliveryId::of(&new.conversation, place.epoch, place.seq, at),
        kind,
        conversation: new.conversation.clone(),
        message: Some(accepted.id),
        target,
        origin,
        trace: new.trace,
        created_at: at,
        data: render(&message)?,
    };
    Some(ConversationChange::Deliver(Box::new(delivery)))
}

/// Returns the delivery of a reply, whose entry is at `place`. A reply within its turn has none, because the turn's
/// end tells of it. `last` is the turn that late replies are joined to.
pub(crate) fn of_reply(
    bot: &BotConfig,
    conversation: &ConversationId,
    reply: &Reply,
    last: Option<&LastTurn>,
    place: JournalPosition,
    at: Timestamp,
) -> Option<ConversationChange> {
    let (kind, last) = match reply.in_reply_to {
        None => (DeliveryKind::ReplyUnsolicited, None),
        Some(message) if reply.late => (DeliveryKind::ReplyLate, last.filter(|last| last.message == message)),
        Some(_) => return None,
    };
    let (target, origin) = address(bot, last.and_then(|last| last.callback.as_ref()))?;
    let delivery = NewDelivery {
        id: DeliveryId::of(conversation, place.epoch, place.seq, at),
        kind,
        conversation: conversation.clone(),
        message: reply.in_reply_to,
        target,
        origin,
        trace: last.map_or_else(TraceId::default, |last| last.trace),
        created_at: at,
        data: render(&DeliveredReply { bot: conversation.bot(), user: conversation.user(), reply })?,
    };
    Some(ConversationChange::Deliver(Box::new(delivery)))
}

/// Returns the callback if there is one, else the bot's webhook.
fn address(bot: &BotConfig, callback: Option<&Callback>) -> Option<(Box<str>, DeliveryOrigin)> {
    match (callback, &bot.webhook) {
        (Some(Callback { url, signer }), _) => {
            Some((url.clone(), DeliveryOrigin::Callback { signer: signer.clone() }))
        }
        (None, webhook) => Some((webhook.as_ref()?.url.as_ref()?.as_str().into(), DeliveryOrigin::Bot)),
    }
}

/// The body of a reply: the reply and its conversation.
#[derive(Debug, Serialize)]
struct DeliveredReply<'a> {
    bot: &'a BotName,
    user: &'a UserId,
    #[serde(flatten)]
    reply: &'a Reply,
}

/// Serialises the data as JSON. This cannot fail for messages and replies, because all their keys are text.
fn render(data: &impl Serialize) -> Option<Box<RawValue>> {
    to_raw_value(data).ok()
}
