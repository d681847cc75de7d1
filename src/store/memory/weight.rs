//! Roughly how many bytes things keep, allocator and map overhead included.
//!
//! The fixed parts are rounded up from the sizes of the structures on 64 bits. A reply is shared by its message
//! and its journal entry and is counted once, for as long as one of the two is there.

use crate::domain::{
    AcceptedMessage, ConversationId, ConversationRecord, DeliveryAttempt, EntryBody, Fingerprint,
    JournalEntry, NewDelivery, NewMessage, Reply,
};
use crate::store::AcceptRequest;

/// A conversation without its journal: maps, record, lane, the sends of the last minute.
const CONVERSATION: usize = 512;
/// A message without what the caller wrote.
const MESSAGE: usize = 768;
/// A note that somebody observes a conversation, whose names it may be the only one to keep.
const OBSERVER: usize = 224;
/// What a delivery takes beside itself: its places in the maps, and a queue that it may be alone in.
const DELIVERY: usize = 256;
/// An attempt without its texts, and what a list keeps free behind it.
const ATTEMPT: usize = 144;
/// An idempotency key: digests only, whatever the key's length.
pub(super) const KEY: usize = 160;

pub(super) fn conversation(id: &ConversationId) -> usize {
    CONVERSATION + id.bot.as_str().len() + id.user.as_str().len()
}

/// A note that somebody observes a conversation.
pub(super) fn observer(id: &ConversationId) -> usize {
    OBSERVER + id.bot.as_str().len() + id.user.as_str().len()
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
    let content = &new.content;
    let objects = [&content.custom_data, &content.meta_tags, &content.meta];
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    MESSAGE
        + content.text().len()
        + text(&content.display_text)
        + objects.into_iter().flatten().map(|object| object.raw().get().len()).sum::<usize>()
        + content
            .attachments
            .iter()
            .map(|file| 64 + file.file_id.len() + text(&file.file_name) + text(&file.file_type))
            .sum::<usize>()
        + new.callback.as_ref().map_or(0, |callback| callback.url.len())
}

pub(super) fn reply(reply: &Reply) -> usize {
    reply.event.get().len() + reply.text.len()
}

/// An entry without the reply in it.
pub(super) fn bare_entry(entry: &JournalEntry) -> usize {
    match &entry.body {
        EntryBody::Reply(shared) => entry.weight().saturating_sub(reply(shared)),
        _ => entry.weight(),
    }
}

/// A delivery without its attempts.
pub(super) fn delivery(new: &NewDelivery) -> usize {
    DELIVERY + new.weight()
}

pub(super) fn attempt(attempt: &DeliveryAttempt) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    ATTEMPT + text(&attempt.error) + text(&attempt.response)
}
