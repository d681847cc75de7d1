//! Estimates of memory, with the overhead of allocator and maps.
//!
//! The fixed parts are the sizes of the structures on 64 bits, rounded up. A message and its journal entry share a
//! reply. It is counted once, as long as one of the two exists.

use crate::domain::{
    AcceptedMessage, ConversationId, ConversationRecord, DeliveryAttempt, EntryBody, Fingerprint,
    JournalEntry, NewDelivery, NewMessage, Reply,
};
use crate::store::AcceptRequest;

/// A conversation without its journal: maps, record, lane, the sends of the last minute.
const CONVERSATION: usize = 512;
/// A message without the caller's texts.
const MESSAGE: usize = 768;
/// An observer's note. It may hold the only copy of the conversation's names.
const OBSERVER: usize = 224;
/// A delivery's places in the maps, and a queue of its own.
const DELIVERY: usize = 256;
/// An attempt without its texts, and the spare room of a list.
const ATTEMPT: usize = 144;
/// An idempotency key: digests only, for any length of the key.
pub(super) const KEY: usize = 160;

pub(super) fn conversation(id: &ConversationId) -> usize {
    CONVERSATION + id.bot().as_str().len() + id.user().as_str().len()
}

/// Returns the weight of an observer's note.
pub(super) fn observer(id: &ConversationId) -> usize {
    OBSERVER + id.bot().as_str().len() + id.user().as_str().len()
}

pub(super) fn record(record: Option<&ConversationRecord>) -> usize {
    record.map_or(0, |record| {
        record.last_platform_message.as_ref().map_or(0, |id| id.len())
            + size_of::<Fingerprint>() * record.recent.iter().len()
            + record.session_id.as_ref().map_or(0, |id| id.len())
            + record
                .last_turn
                .as_ref()
                .and_then(|turn| turn.callback.as_ref())
                .map_or(0, |callback| callback.url.len())
    })
}

pub(super) fn accept(accept: &AcceptRequest) -> usize {
    conversation(&accept.message.conversation)
        + new_message(&accept.message)
        + accept.idempotency.as_ref().map_or(0, |_| KEY)
}

pub(super) fn message(accepted: &AcceptedMessage) -> usize {
    new_message(&accepted.new)
}

fn new_message(new: &NewMessage) -> usize {
    MESSAGE + new.text_weight()
}

pub(super) fn reply(reply: &Reply) -> usize {
    reply.weight()
}

/// Returns the weight of an entry without its reply.
pub(super) fn bare_entry(entry: &JournalEntry) -> usize {
    match &entry.body {
        EntryBody::Reply(shared) => entry.weight().saturating_sub(reply(shared)),
        _ => entry.weight(),
    }
}

/// Returns the weight of a delivery without its attempts.
pub(super) fn delivery(new: &NewDelivery) -> usize {
    DELIVERY + new.weight()
}

pub(super) fn attempt(attempt: &DeliveryAttempt) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    ATTEMPT + text(&attempt.error) + text(&attempt.response)
}
