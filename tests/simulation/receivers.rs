//! Who is to be told of what, as callers and the configuration want it: a strict reader of every delivery.

use std::collections::HashMap;
use std::sync::Arc;

use rtm_bridge::domain::{
    AcceptedMessage, ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin, EntryBody, JournalEntry,
    Message, MessageId, NewDelivery, Reply, SessionRequest, TraceId,
};
use rtm_bridge::store::{ConversationChange, ConversationWrite};
use serde_json::{Value, json};

/// What is to be delivered of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Owed {
    kind: DeliveryKind,
    message: Option<MessageId>,
    target: Box<str>,
    origin: DeliveryOrigin,
    trace: TraceId,
}

/// Who wants to be told, and what they were told.
#[derive(Default, Clone)]
pub(super) struct Receivers {
    /// The bot's own webhook.
    webhook: Option<Box<str>>,
    /// Everything that was ever accepted, whether or not the store still has it.
    posted: HashMap<MessageId, Arc<AcceptedMessage>>,
    /// What each delivery told.
    told: HashMap<DeliveryId, String>,
}

impl Receivers {
    /// Where the bot has this webhook, or none.
    pub(super) fn of(webhook: Option<Box<str>>) -> Self {
        Self { webhook, ..Self::default() }
    }

    pub(super) fn on_accepted(&mut self, message: &Arc<AcceptedMessage>) {
        self.posted.insert(message.id, Arc::clone(message));
    }

    /// Each entry has exactly what it owes right behind it, and nothing else is delivered.
    pub(super) fn check(&mut self, write: &ConversationWrite, exact: bool) -> Result<(), String> {
        let mut before = None;
        let mut changes = write.changes.iter().peekable();
        while let Some(change) = changes.next() {
            match change {
                ConversationChange::Append(entry) => {
                    let owed = self.owed(entry)?;
                    let delivery = match changes.peek() {
                        Some(ConversationChange::Deliver(delivery)) => Some(delivery),
                        _ => None,
                    };
                    let told = delivery.map(|told| Owed {
                        kind: told.kind,
                        message: told.message,
                        target: told.target.clone(),
                        origin: told.origin.clone(),
                        trace: told.trace,
                    });
                    if told != owed {
                        return Err(format!("entry {entry:?} owes {owed:?}, and {told:?} is delivered"));
                    }
                    before = Some(entry);
                }
                ConversationChange::Deliver(delivery) => {
                    let entry = before.take().ok_or("a delivery that tells of no entry")?;
                    let epoch = exact.then_some(write.record.epoch);
                    self.on_delivery(delivery, entry, epoch)?;
                }
                _ => before = None,
            }
        }
        Ok(())
    }

    fn on_delivery(
        &mut self,
        delivery: &NewDelivery,
        entry: &JournalEntry,
        epoch: Option<u64>,
    ) -> Result<(), String> {
        let NewDelivery { id, conversation, created_at, data, .. } = delivery;
        if *created_at != entry.at {
            return Err(format!("{id} was created at another time than its entry"));
        }
        if epoch.is_some_and(|epoch| *id != DeliveryId::of(conversation, epoch, entry.seq, entry.at)) {
            return Err(format!("{id} is not the id of entry {}", entry.seq));
        }
        if let EntryBody::Reply(reply) = &entry.body
            && value(data.get()) != Ok(reply_of(conversation, reply))
        {
            return Err(format!("{id} tells {data} of {reply:?}"));
        }
        let told = format!("{} {data}", entry.seq);
        let first = self.told.entry(*id).or_insert_with(|| told.clone());
        if *first == told { Ok(()) } else { Err(format!("{id} told {first}, then {told}")) }
    }

    fn owed(&self, entry: &JournalEntry) -> Result<Option<Owed>, String> {
        let (kind, message) = match &entry.body {
            EntryBody::Ended { message, outcome } => (DeliveryKind::from(outcome), Some(*message)),
            EntryBody::Reply(reply) if reply.late => (DeliveryKind::ReplyLate, reply.in_reply_to),
            EntryBody::Reply(reply) if reply.in_reply_to.is_none() => (DeliveryKind::ReplyUnsolicited, None),
            _ => return Ok(None),
        };
        let posted = message
            .map(|id| self.posted.get(&id).ok_or_else(|| format!("{id} was never accepted")))
            .transpose()?;
        if posted.is_some_and(|posted| posted.new.session == SessionRequest::Close) {
            return Ok(None);
        }
        let trace = posted.map(|posted| posted.new.trace).unwrap_or_default();
        let callback = posted.and_then(|posted| posted.new.callback.as_ref());
        let wanted = match (callback, &self.webhook) {
            (Some(callback), _) => {
                Some((callback.url.clone(), DeliveryOrigin::Callback { signer: callback.signer.clone() }))
            }
            (None, webhook) => webhook.clone().map(|url| (url, DeliveryOrigin::Bot)),
        };
        Ok(wanted.map(|(target, origin)| Owed { kind, message, target, origin, trace }))
    }
}

/// Whether what is delivered of an end is the Message as it ended.
pub(super) fn tells(delivery: &NewDelivery, message: &Message) -> bool {
    value(delivery.data.get())
        .is_ok_and(|told| serde_json::to_value(message).is_ok_and(|ended| ended == told))
}

/// A Reply with whose it is.
pub(super) fn reply_of(conversation: &ConversationId, reply: &Reply) -> Value {
    let mut told = serde_json::to_value(reply).unwrap_or_default();
    told["bot"] = json!(conversation.bot);
    told["user"] = json!(conversation.user);
    told
}

fn value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
