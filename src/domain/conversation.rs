//! Who talks to whom: a bot, a user, and the partition their conversation lives in.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Sha256;

/// Why a name was refused. The text says what would be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A user identity outside 1 to 256 bytes.
    #[error("a user is 1 to 256 bytes long")]
    UserLength,
    /// A user identity with a control character in it.
    #[error("a user has no control characters")]
    UserControl,
    /// A bot name outside 1 to 64 bytes, or with characters that a metric label or an environment variable
    /// could not carry.
    #[error("a bot name is 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'")]
    Bot,
}

/// A bot's name in our configuration; it never reaches the platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BotName(Arc<str>);

impl BotName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// [`InvalidName::Bot`].
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits { Ok(Self(name.into())) } else { Err(InvalidName::Bot) }
    }

    /// `sandbox`, the bot of the simulated platform.
    pub fn sandbox() -> Self {
        Self("sandbox".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for BotName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The end user's identity; it becomes the JWT's `sub` (protocol.md 2.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks and keeps an identity: 1 to 256 bytes, no control characters.
    ///
    /// # Errors
    /// [`InvalidName::UserLength`] and [`InvalidName::UserControl`].
    pub fn new(user: &str) -> Result<Self, InvalidName> {
        if !(1..=256).contains(&user.len()) {
            Err(InvalidName::UserLength)
        } else if user.chars().any(char::is_control) {
            Err(InvalidName::UserControl)
        } else {
            Ok(Self(user.into()))
        }
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({})", self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A conversation: one bot and one user. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId {
    /// The bot, by its configured name.
    pub bot: BotName,
    /// The end user.
    pub user: UserId,
}

impl ConversationId {
    /// The conversation of these two.
    pub const fn new(bot: BotName, user: UserId) -> Self {
        Self { bot, user }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bot, self.user)
    }
}

/// One of the 256 parts that conversations are dealt onto; a part has one writer at a time.
///
/// The number is the first byte of `SHA-256(bot NUL user)`. Neither the count nor the hash may ever change
/// under a store that holds data, because keys are grouped by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// How many there are.
    pub const COUNT: usize = 256;

    /// The partition a conversation lives in.
    pub fn of(conversation: &ConversationId) -> Self {
        let mut hash = Sha256::default();
        hash.update(conversation.bot.as_str());
        hash.update([0]);
        hash.update(conversation.user.as_str());
        let [first, ..] = hash.finish();
        Self(first)
    }

    /// Every partition, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The partition of this number.
    pub const fn from_byte(number: u8) -> Self {
        Self(number)
    }

    /// Its number, 0 to 255.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(bot: &str, user: &str) -> ConversationId {
        ConversationId::new(BotName::new(bot).unwrap(), UserId::new(user).unwrap())
    }

    #[test]
    fn users_are_bounded_and_printable() {
        assert_eq!(UserId::new(""), Err(InvalidName::UserLength));
        assert_eq!(UserId::new(&"x".repeat(257)), Err(InvalidName::UserLength));
        assert_eq!(UserId::new("a\u{7f}"), Err(InvalidName::UserControl));
        assert_eq!(UserId::new("a\u{85}"), Err(InvalidName::UserControl));
        assert_eq!(UserId::new("Zoë / +49 1").unwrap().as_str(), "Zoë / +49 1");
    }

    #[test]
    fn bot_names_are_plain() {
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(BotName::new(bad), Err(InvalidName::Bot), "{bad}");
        }
        assert!(BotName::new("support-2.eu_1").is_ok());
    }

    #[test]
    fn the_partition_of_a_conversation_never_changes() {
        // Fixed for ever: stores hold data under these numbers.
        assert_eq!(Partition::of(&conversation("support", "alice")).index(), 14);
        assert_eq!(Partition::of(&conversation("support", "bob")).index(), 57);
        assert_ne!(Partition::of(&conversation("a", "bc")), Partition::of(&conversation("ab", "c")));
        assert_eq!(Partition::all().count(), Partition::COUNT);
    }
}
