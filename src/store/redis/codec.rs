//! The encoding of domain values in Redis.
//!
//! It has JSON structures of its own, so neither the API's nor the domain's shape binds what is stored. Names are
//! short, and usual values are left out. Unknown fields are ignored, so old and new versions read each other's data
//! in a rollout. Frames of the platform and callers' objects are kept byte for byte.

mod delivery;
mod entry;
mod link;
mod message;
mod outcome;
mod record;
mod reply;

use crate::domain::{BotName, ConversationId, MessageId, Timestamp, UserId};
use crate::store::Incarnation;

pub(super) use delivery::{
    attempt, delivered_status, delivery, delivery_id, new_delivery, read_new_delivery, untried_status,
};
pub(super) use entry::{EncodedEntry, encode_entry, read_entry};
pub(super) use link::{chunk, connection, read_chunk, read_connection};
pub(super) use message::{AcceptStamp, accepted, accepted_message, message, new_message};
pub(super) use record::{read_record, record};
pub(super) use reply::reply_ids;

/// Data in the store that cannot be read: cut off, or written by something else. It names only the kind, because the
/// content belongs to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not as it should be; was it written by a newer version or by something else?")]
pub(super) struct CorruptData(pub(super) &'static str);

/// Parses a decimal number.
pub(super) fn number(digits: &[u8]) -> Result<u64, CorruptData> {
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(CorruptData("a number"))
}

/// Parses a time in milliseconds.
fn time(digits: &[u8]) -> Result<Timestamp, CorruptData> {
    number(digits).map(Timestamp::from_millis)
}

/// Parses a message's id.
pub(super) fn id(text: &str) -> Result<MessageId, CorruptData> {
    text.parse().map_err(|_| CorruptData("a message's id"))
}

/// Parses a replica's incarnation.
pub(super) fn incarnation(text: &str) -> Result<Incarnation, CorruptData> {
    text.parse().map_err(|_| CorruptData("an incarnation"))
}

/// Parses a conversation as keys name it, `bot/user`. The name of a bot has no slash.
pub(super) fn conversation(name: &str) -> Result<ConversationId, CorruptData> {
    const WHAT: CorruptData = CorruptData("a conversation's name");
    let (bot, user) = name.split_once('/').ok_or(WHAT)?;
    let bot = BotName::new(bot).map_err(|_| WHAT)?;
    let user = UserId::new(user).map_err(|_| WHAT)?;
    Ok(ConversationId::new(bot, user))
}

/// Splits a text at the first space.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == b' ')?;
    let (word, rest) = text.split_at(at);
    Some((word, rest.get(1..)?))
}

/// Returns whether a value is its default, which is left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
