//! How what we talk about is written into Redis, and read again.
//!
//! JSON of structures of its own, so that neither the API's nor the domain's shape binds what is stored. Names
//! are short, what is usual is left out, and fields that are not known are passed over: while a new version is
//! rolled out, old and new read each other's. A frame of the platform and a caller's object are kept byte for byte.

mod delivery;
mod entry;
mod link;
mod message;
mod outcome;
mod record;
mod reply;

use crate::domain::{BotName, ConversationId, MessageId, Timestamp, UserId};
use crate::store::Incarnation;

pub(super) use delivery::{attempt, delivery, delivery_id, new_delivery, read_new_delivery};
pub(super) use entry::{entry, tell};
pub(super) use link::{chunk, connection, read_chunk, read_connection};
pub(super) use message::{Stamp, accepted, message, new_message};
pub(super) use record::{read_record, record};

/// Something in the store that cannot be read: written by something else, or cut off. It names the kind only,
/// since what it holds belongs to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not as it should be; was it written by a newer version or by something else?")]
pub(super) struct Corrupt(pub(super) &'static str);

/// A decimal number.
pub(super) fn number(digits: &[u8]) -> Result<u64, Corrupt> {
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Corrupt("a number"))
}

/// A time in milliseconds.
fn time(digits: &[u8]) -> Result<Timestamp, Corrupt> {
    number(digits).map(Timestamp::from_millis)
}

/// A message's id.
pub(super) fn id(text: &str) -> Result<MessageId, Corrupt> {
    text.parse().map_err(|_| Corrupt("a message's id"))
}

/// A replica's incarnation.
pub(super) fn incarnation(text: &str) -> Result<Incarnation, Corrupt> {
    text.parse().map_err(|_| Corrupt("an incarnation"))
}

/// A conversation as keys name it, `bot/user`. Bots have no slash in their names.
pub(super) fn conversation(name: &str) -> Result<ConversationId, Corrupt> {
    const WHAT: Corrupt = Corrupt("a conversation's name");
    let (bot, user) = name.split_once('/').ok_or(WHAT)?;
    let bot = BotName::new(bot).map_err(|_| WHAT)?;
    let user = UserId::new(user).map_err(|_| WHAT)?;
    Ok(ConversationId::new(bot, user))
}

/// What stands before the first space, and what behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == b' ')?;
    let (word, rest) = text.split_at(at);
    Some((word, rest.get(1..)?))
}

/// What is left out where it is what it usually is.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
