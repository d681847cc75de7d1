//! The expected deliveries by callers and configuration, checked against every write.

use std::collections::HashMap;
use std::sync::Arc;

use rtm_bridge::config::BotWebhookConfig;
use rtm_bridge::domain::{
    AcceptedMessage, ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin, EntryBody, JournalEntry,
    Message, MessageId, NewDelivery, Reply, SessionRequest, TraceId,
};
use rtm_bridge::store::{ConversationChange, ConversationWrite};
use serde_json::{Value, json};

/// The delivery that an entry must have.
#[derive(Debug, PartialEq, Eq)]
struct ExpectedDelivery {
    kind: DeliveryKind,
    message: Option<MessageId>,
    target: Box<str>,
    origin: DeliveryOrigin,
    trace: TraceId,
}

/// The targets of deliveries, and the deliveries so far.
#[derive(Default, Clone)]
pub(super) struct ReceiverModel {
    /// The bot's endpoints.
    endpoints: Vec<BotWebhookConfig>,
    /// Every accepted message, even if the store lost it.
    posted: HashMap<MessageId, Arc<AcceptedMessage>>,
    /// The deliveries so far.
    delivered: HashMap<DeliveryId, String>,
}

impl ReceiverModel {
    /// Creates the model of a bot with these endpoints.
    pub(super) fn of(endpoints: Vec<BotWebhookConfig>) -> Self {
        Self { endpoints, ..Self::default() }
    }

    pub(super) fn on_accepted(&mut self, message: &Arc<AcceptedMessage>) {
        self.posted.insert(message.id, Arc::clone(message));
    }

    /// Checks that each entry is followed by exactly its deliveries.
    pub(super) fn check(&mut self, write: &ConversationWrite, exact: bool) -> Result<(), String> {
        let epoch = exact.then_some(write.record.epoch);
        let mut changes = write.changes.iter().peekable();
        while let Some(change) = changes.next() {
            match change {
                ConversationChange::Append(entry) => {
                    let mut delivered = Vec::new();
                    while let Some(ConversationChange::Deliver(delivery)) = changes.peek() {
                        self.on_delivery(delivery, entry, epoch)?;
                        delivered.push(ExpectedDelivery {
                            kind: delivery.kind,
                            message: delivery.message,
                            target: delivery.target.clone(),
                            origin: delivery.origin.clone(),
                            trace: delivery.trace,
                        });
                        changes.next();
                    }
                    let expected = self.expected(entry)?;
                    if delivered != expected {
                        return Err(format!(
                            "entry {entry:?} needs {expected:?}, but {delivered:?} is delivered"
                        ));
                    }
                }
                ConversationChange::Deliver(_) => return Err("a delivery that tells of no entry".to_owned()),
                _ => {}
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
        let expected = epoch.map(|epoch| {
            let of_entry = DeliveryId::of(conversation, epoch, entry.seq, entry.at);
            delivery.endpoint().map_or(of_entry, |name| of_entry.at_endpoint(name))
        });
        if expected.is_some_and(|expected| *id != expected) {
            return Err(format!("{id} is not the id of entry {}", entry.seq));
        }
        if let EntryBody::Reply(reply) = &entry.body
            && value(data.get()) != Ok(reply_of(conversation, reply))
        {
            return Err(format!("{id} tells {data} of {reply:?}"));
        }
        let delivered = format!("{} {data}", entry.seq);
        let first = self.delivered.entry(*id).or_insert_with(|| delivered.clone());
        if *first == delivered { Ok(()) } else { Err(format!("{id} held {first}, then {delivered}")) }
    }

    fn expected(&self, entry: &JournalEntry) -> Result<Vec<ExpectedDelivery>, String> {
        let (kind, message) = match &entry.body {
            EntryBody::Ended { message, outcome } => (DeliveryKind::from(outcome), Some(*message)),
            EntryBody::Reply(reply) if reply.late => (DeliveryKind::ReplyLate, reply.in_reply_to),
            EntryBody::Reply(reply) if reply.in_reply_to.is_none() => (DeliveryKind::ReplyUnsolicited, None),
            _ => return Ok(Vec::new()),
        };
        let posted = message
            .map(|id| self.posted.get(&id).ok_or_else(|| format!("{id} was never accepted")))
            .transpose()?;
        if posted.is_some_and(|posted| posted.new.session == SessionRequest::Close) {
            return Ok(Vec::new());
        }
        let trace = posted.map(|posted| posted.new.trace).unwrap_or_default();
        let callback = posted.and_then(|posted| posted.new.callback.as_ref());
        let wanted: Vec<(Box<str>, DeliveryOrigin)> = if let Some(callback) = callback {
            vec![(callback.url.clone(), DeliveryOrigin::Callback { signer: callback.signer.clone() })]
        } else {
            let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.types.contains(&kind));
            let target = |endpoint: &BotWebhookConfig| {
                let url = endpoint.url.as_ref()?.as_str().into();
                Some((url, DeliveryOrigin::Endpoint(endpoint.name.clone())))
            };
            endpoints.filter_map(target).collect()
        };
        let expected = |(target, origin)| ExpectedDelivery { kind, message, target, origin, trace };
        Ok(wanted.into_iter().map(expected).collect())
    }
}

/// Returns whether the delivery of an end holds the message as it ended.
pub(super) fn tells(delivery: &NewDelivery, message: &Message) -> bool {
    value(delivery.data.get())
        .is_ok_and(|delivered| serde_json::to_value(message).is_ok_and(|ended| ended == delivered))
}

/// A reply with its conversation.
pub(super) fn reply_of(conversation: &ConversationId, reply: &Reply) -> Value {
    let mut delivered = serde_json::to_value(reply).unwrap_or_default();
    delivered["bot"] = json!(conversation.bot());
    delivered["user"] = json!(conversation.user());
    delivered
}

fn value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
