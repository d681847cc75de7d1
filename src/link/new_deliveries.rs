//! The deliveries of a conversation to webhooks (api.md 4): where each goes, and its body.
//!
//! A message's end and its late replies go to the callback of its caller, else to the bot's endpoints. Unsolicited
//! replies go to the bot's endpoints. Each endpoint gets the kinds of its `types`, by a delivery of its own. Without a
//! target there is no delivery and no body. The end of a session (`DELETE`) is not delivered.
//!
//! This file is pure. The appender of an entry pushes the entry's deliveries right behind it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, BotName, Callback, ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin,
    JournalPosition, LastTurn, Message, MessageId, MessageProgress, NewDelivery, Reply, Timestamp, TraceId,
    UserId,
};
use crate::store::ConversationChange;

/// Returns the deliveries of a message's end, whose entry is at `place`: one for each target.
pub(crate) fn of_end(
    bot: &BotConfig,
    accepted: &Arc<AcceptedMessage>,
    progress: &MessageProgress,
    place: JournalPosition,
    at: Timestamp,
) -> Vec<ConversationChange> {
    let new = &accepted.new;
    let Some(outcome) = progress.outcome.as_ref().filter(|_| !new.session.is_end()) else {
        return Vec::new();
    };
    let message = Message { accepted: Arc::clone(accepted), progress: progress.clone() };
    let event = DeliveredEvent {
        kind: outcome.into(),
        conversation: &new.conversation,
        message: Some(accepted.id),
        trace: new.trace,
        place,
        at,
    };
    event.deliveries(bot, new.callback.as_ref(), &message)
}

/// Returns the deliveries of a reply, whose entry is at `place`. A reply within its turn has none, because the turn's
/// end tells of it. `last` is the turn that late replies are joined to.
pub(crate) fn of_reply(
    bot: &BotConfig,
    conversation: &ConversationId,
    reply: &Reply,
    last: Option<&LastTurn>,
    place: JournalPosition,
    at: Timestamp,
) -> Vec<ConversationChange> {
    let (kind, last) = match reply.in_reply_to {
        None => (DeliveryKind::ReplyUnsolicited, None),
        Some(message) if reply.late => (DeliveryKind::ReplyLate, last.filter(|last| last.message == message)),
        Some(_) => return Vec::new(),
    };
    let trace = last.map_or_else(TraceId::default, |last| last.trace);
    let event = DeliveredEvent { kind, conversation, message: reply.in_reply_to, trace, place, at };
    let data = DeliveredReply { bot: conversation.bot(), user: conversation.user(), reply };
    event.deliveries(bot, last.and_then(|last| last.callback.as_ref()), &data)
}

/// An event that is delivered: all that its deliveries share but the data.
struct DeliveredEvent<'a> {
    kind: DeliveryKind,
    conversation: &'a ConversationId,
    message: Option<MessageId>,
    trace: TraceId,
    place: JournalPosition,
    at: Timestamp,
}

impl DeliveredEvent<'_> {
    /// Returns the delivery to the callback if there is one, else one to each endpoint of the bot that takes the kind.
    fn deliveries(
        &self,
        bot: &BotConfig,
        callback: Option<&Callback>,
        data: &impl Serialize,
    ) -> Vec<ConversationChange> {
        let targets: Vec<(Box<str>, DeliveryOrigin)> = match callback {
            Some(Callback { url, signer }) => {
                vec![(url.clone(), DeliveryOrigin::Callback { signer: signer.clone() })]
            }
            None => bot.endpoints_of(self.kind).collect(),
        };
        // Without a target no body is made.
        let Some(data) = targets.first().and_then(|_| render(data)) else { return Vec::new() };
        let of_target = |(target, origin)| {
            ConversationChange::Deliver(Box::new(self.delivery(target, origin, data.clone())))
        };
        targets.into_iter().map(of_target).collect()
    }

    fn delivery(&self, target: Box<str>, origin: DeliveryOrigin, data: Box<RawValue>) -> NewDelivery {
        let id = DeliveryId::of(self.conversation, self.place.epoch, self.place.seq, self.at);
        NewDelivery {
            id: match &origin {
                DeliveryOrigin::Endpoint(name) => id.at_endpoint(name),
                DeliveryOrigin::Callback { .. } => id,
            },
            kind: self.kind,
            conversation: self.conversation.clone(),
            message: self.message,
            target,
            origin,
            trace: self.trace,
            created_at: self.at,
            data,
        }
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
