//! The deliveries of a conversation to webhooks (api.md 4): where each goes, and its body.
//!
//! A message's end and its late replies go to the callback of its caller, else to the bot's endpoints. Unsolicited
//! replies go to the bot's endpoints. Each endpoint gets the kinds of its `types`, by a delivery of its own. Without a
//! target there is no delivery and no body. The end of a session (`DELETE`) is not delivered.
//!
//! Sessions, human agents, gaps and messages of other sessions go to the endpoints whose `types` name them.
//!
//! This file is pure. The appender of an entry pushes the entry's deliveries right behind it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::config::{BotConfig, BotWebhookConfig, PayloadExtent};
use crate::domain::{
    AcceptedMessage, BotName, Callback, ConversationId, Cursor, DeliveryId, DeliveryKind, DeliveryOrigin,
    EntryBody, JournalPosition, LastTurn, Message, MessageId, MessageProgress, NewDelivery, Reply, Timestamp,
    TraceId, UserId,
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

/// Returns the deliveries of a reply, whose entry is at `place`. The end of a turn tells of the replies within it, so these go
/// only to endpoints that ask for them. `last` is the turn that late replies are joined to.
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
        Some(_) => (DeliveryKind::Reply, None),
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
        let deliver = |delivery| ConversationChange::Deliver(Box::new(delivery));
        if let Some(Callback { url, signer }) = callback {
            let origin = DeliveryOrigin::Callback { signer: signer.clone() };
            let delivery = render(data).map(|data| self.delivery(url.clone(), origin, data));
            return delivery.map(deliver).into_iter().collect();
        }
        // Each body is made once, and only if an endpoint takes it.
        let (mut full, mut thin) = (None, None);
        let of_endpoint = |endpoint: &BotWebhookConfig| {
            let data = match endpoint.payload {
                PayloadExtent::Full => full.get_or_insert_with(|| render(data)),
                PayloadExtent::Thin => thin.get_or_insert_with(|| render(&self.thin())),
            };
            let target = endpoint.url.as_ref()?.as_str().into();
            Some(self.delivery(target, DeliveryOrigin::Endpoint(endpoint.name.clone()), data.clone()?))
        };
        bot.endpoints_of(self.kind).filter_map(of_endpoint).map(deliver).collect()
    }

    /// Returns the body without content: ids and links.
    fn thin(&self) -> ThinEvent<'_> {
        let conversation = self.conversation;
        let Self { message, place: JournalPosition { epoch, seq }, .. } = *self;
        let before = Cursor { epoch, seq: seq.saturating_sub(1), at: None };
        ThinEvent {
            bot: conversation.bot(),
            user: conversation.user(),
            seq,
            message_id: message,
            links: EventLinks {
                conversation: conversation.path(),
                event: format!("{}&after={before}", conversation.path_below("events")),
                message: message.map(|message| conversation.path_below(&format!("messages/{message}"))),
            },
        }
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

/// Returns the deliveries of an event that belongs to no message, whose entry is at `place`.
pub(crate) fn of_event(
    bot: &BotConfig,
    conversation: &ConversationId,
    kind: DeliveryKind,
    body: &EntryBody,
    place: JournalPosition,
    at: Timestamp,
) -> Vec<ConversationChange> {
    let event = DeliveredEvent { kind, conversation, message: None, trace: TraceId::default(), place, at };
    let (frame, reason) = match body {
        EntryBody::UserMessage(frame) | EntryBody::Platform(frame) => (Some(&**frame), None),
        EntryBody::Gap(reason) => (None, Some(reason.as_str())),
        EntryBody::Reply(_)
        | EntryBody::Ended { .. }
        | EntryBody::Closed { .. }
        | EntryBody::Stuck { .. } => return Vec::new(),
    };
    let (bot_name, user) = (conversation.bot(), conversation.user());
    event.deliveries(
        bot,
        None,
        &ConversationEvent { bot: bot_name, user, seq: place.seq, reason, event: frame },
    )
}

/// The body of an event that belongs to no message.
#[derive(Debug, Serialize)]
struct ConversationEvent<'a> {
    bot: &'a BotName,
    user: &'a UserId,
    /// The position in the journal.
    seq: u64,
    /// The reason of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The untouched frame of the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
}

/// The body of an event for endpoints that get no content.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinEvent<'a> {
    bot: &'a BotName,
    user: &'a UserId,
    seq: u64,
    message_id: Option<MessageId>,
    links: EventLinks,
}

/// References into our API.
#[derive(Debug, Serialize)]
struct EventLinks {
    conversation: String,
    /// The events from this one on.
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
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
