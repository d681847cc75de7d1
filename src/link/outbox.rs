//! Who is told of what, by webhook (api.md 4): decides where a delivery goes and renders what it tells.
//!
//! A message's end and its late replies go where its caller wanted them, else to the bot's own webhook; what the bot
//! says unasked goes to the bot's. Without a target there is no delivery, and nothing is rendered. The end of a session
//! (`DELETE`) is no message of anybody's. Pure: whoever appends an entry pushes its delivery right behind it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, BotName, Callback, ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin,
    JournalPosition, LastTurn, Message, MessageProgress, NewDelivery, Reply, SessionRequest, Timestamp,
    TraceId, UserId,
};
use crate::store::ConversationChange;

/// The delivery of a message's end, whose entry stands at this place; none where nobody is to be told.
pub(crate) fn of_end(
    bot: &BotConfig,
    accepted: &Arc<AcceptedMessage>,
    progress: &MessageProgress,
    place: JournalPosition,
    at: Timestamp,
) -> Option<ConversationChange> {
    let new = &accepted.new;
    if new.session == SessionRequest::Close {
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

/// The delivery of a reply, whose entry stands at this place; none where its turn's end will tell of it, or nobody is to
/// be told. `last` is the turn that late replies are joined to.
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
        data: render(&ReplyOf { bot: &conversation.bot, user: &conversation.user, reply })?,
    };
    Some(ConversationChange::Deliver(Box::new(delivery)))
}

/// To the callback if there is one, else to the bot's own webhook.
fn address(bot: &BotConfig, callback: Option<&Callback>) -> Option<(Box<str>, DeliveryOrigin)> {
    match (callback, &bot.webhook) {
        (Some(Callback { url, signer }), _) => {
            Some((url.clone(), DeliveryOrigin::Callback { signer: signer.clone() }))
        }
        (None, webhook) => Some((webhook.as_ref()?.url.as_ref()?.as_str().into(), DeliveryOrigin::Bot)),
    }
}

/// A reply, and whose conversation it belongs to.
#[derive(Debug, Serialize)]
struct ReplyOf<'a> {
    bot: &'a BotName,
    user: &'a UserId,
    #[serde(flatten)]
    reply: &'a Reply,
}

/// As JSON. None where it has none, which no Message and no Reply is: all their keys are text.
fn render(data: &impl Serialize) -> Option<Box<RawValue>> {
    to_raw_value(data).ok()
}
