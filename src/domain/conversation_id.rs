//! The identity of a conversation (a bot and a user) and the partition that it belongs to.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Sha256;

/// The characters that a segment of a path escapes: all but the unreserved (RFC 3986).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The reason why a name was refused. The text says which names are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A user identity outside 1 to 256 bytes.
    #[error("a user is 1 to 256 bytes long")]
    UserLength,
    /// A user identity with a control character in it.
    #[error("a user has no control characters")]
    UserControl,
    /// A user identity that a path of a URL cannot hold: clients and proxies resolve it as the same or the upper folder.
    #[error("a user is neither `.` nor `..`, which URLs cannot carry")]
    UserDots,
    /// A bot name outside 1 to 64 bytes, or with a character that metric labels or environment variables cannot carry.
    #[error("a bot name is 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'")]
    Bot,
}

/// A bot's name in the bridge's configuration. The platform never sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BotName(Arc<str>);

impl BotName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName::Bot`].
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits { Ok(Self(name.into())) } else { Err(InvalidName::Bot) }
    }

    /// Returns `sandbox`, the bot of the simulated platform.
    pub fn sandbox() -> Self {
        Self("sandbox".into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The end user's identity, which becomes the JWT's `sub` (protocol.md 2.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks an identity: 1 to 256 bytes, no control characters, neither `.` nor `..`.
    ///
    /// # Errors
    /// [`InvalidName::UserLength`], [`InvalidName::UserControl`], [`InvalidName::UserDots`].
    pub fn new(user: &str) -> Result<Self, InvalidName> {
        if !(1..=256).contains(&user.len()) {
            Err(InvalidName::UserLength)
        } else if user.chars().any(char::is_control) {
            Err(InvalidName::UserControl)
        } else if matches!(user, "." | "..") {
            Err(InvalidName::UserDots)
        } else {
            Ok(Self(user.into()))
        }
    }

    /// Returns the identity as text.
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

/// The identity of a conversation: one bot and one user. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId {
    bot: BotName,
    user: UserId,
    /// Computed once: a turn asks for it a dozen times.
    partition: Partition,
}

impl ConversationId {
    /// Returns the identity of the conversation between this bot and this user.
    pub fn new(bot: BotName, user: UserId) -> Self {
        let partition = Partition::hashed(&bot, &user);
        Self { bot, user, partition }
    }

    /// Returns the conversation as a reference into our API.
    pub fn path(&self) -> String {
        self.reference("")
    }

    /// Returns something below the conversation as a reference into our API.
    pub fn path_below(&self, rest: &str) -> String {
        self.reference(&format!("/{rest}"))
    }

    fn reference(&self, rest: &str) -> String {
        let encoded = |text| utf8_percent_encode(text, ESCAPED);
        format!("/conversations/{}{rest}?bot={}", encoded(self.user().as_str()), encoded(self.bot().as_str()))
    }

    /// Returns the bot, by its configured name.
    pub const fn bot(&self) -> &BotName {
        &self.bot
    }

    /// Returns the end user.
    pub const fn user(&self) -> &UserId {
        &self.user
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bot, self.user)
    }
}

/// One of the 256 partitions that conversations are hashed to. A partition has one writer at a time.
///
/// The number is the first byte of `SHA-256(bot NUL user)`. Count and hash must never change for a store that holds
/// data, because the partition is part of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// The number of partitions.
    pub const COUNT: usize = 256;

    /// Returns the partition of a conversation.
    pub const fn of(conversation: &ConversationId) -> Self {
        conversation.partition
    }

    fn hashed(bot: &BotName, user: &UserId) -> Self {
        let mut hash = Sha256::default();
        hash.update(bot.as_str());
        hash.update([0]);
        hash.update(user.as_str());
        let [first, ..] = hash.finish();
        Self(first)
    }

    /// Returns every partition, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// Returns the partition with this number.
    pub const fn from_byte(number: u8) -> Self {
        Self(number)
    }

    /// Returns its number, 0 to 255.
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
    use crate::domain::fixtures::conversation;

    #[test]
    fn user_id_too_long_or_unprintable_is_refused() {
        assert_eq!(UserId::new(""), Err(InvalidName::UserLength));
        assert_eq!(UserId::new(&"x".repeat(257)), Err(InvalidName::UserLength));
        assert_eq!(UserId::new("a\u{7f}"), Err(InvalidName::UserControl));
        assert_eq!(UserId::new("a\u{85}"), Err(InvalidName::UserControl));
        assert_eq!(UserId::new("."), Err(InvalidName::UserDots));
        assert_eq!(UserId::new(".."), Err(InvalidName::UserDots));
        assert!(UserId::new("...").is_ok() && UserId::new(".a").is_ok());
        assert_eq!(UserId::new("Zoë / +49 1").unwrap().as_str(), "Zoë / +49 1");
    }

    #[test]
    fn bot_name_with_other_characters_is_refused() {
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(BotName::new(bad), Err(InvalidName::Bot), "{bad}");
        }
        assert!(BotName::new("support-2.eu_1").is_ok());
    }

    #[test]
    fn partition_of_a_conversation_never_changes() {
        // These numbers never change, because stores hold data under them.
        assert_eq!(Partition::of(&conversation("support", "alice")).index(), 14);
        assert_eq!(Partition::of(&conversation("support", "bob")).index(), 57);
        assert_ne!(Partition::of(&conversation("a", "bc")), Partition::of(&conversation("ab", "c")));
        assert_eq!(Partition::all().count(), Partition::COUNT);
    }
}
