//! The `pollId` of an answer: the message, its user, and how many replies were told.
//!
//! Pure. The platform's ids are hexadecimal, so these are too. An id is no secret, and it gives no right: a poll needs the
//! token of the client that posted the message.

use std::fmt;
use std::str::FromStr;

use crate::domain::{Message, MessageId, UserId};

/// The length of a message's id as text.
const MESSAGE_BYTES: usize = 26;
/// The length of the number before it.
const COUNT_BYTES: usize = 2;
/// The longest user, in bytes.
const USER_MAX: usize = 256;

/// A place in the replies of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PollId {
    /// The message.
    pub(super) message: MessageId,
    /// Its user.
    pub(super) user: UserId,
    /// The number of replies before this place.
    pub(super) told: u16,
}

/// The text is no id of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no pollId of this bridge")]
pub(super) struct InvalidPollId;

impl PollId {
    /// Returns the place behind all replies of a message.
    pub(super) fn of(message: &Message) -> Self {
        Self {
            message: message.accepted.id,
            user: message.accepted.new.conversation.user().clone(),
            told: u16::try_from(message.progress.replies.len()).unwrap_or(u16::MAX),
        }
    }
}

impl fmt::Display for PollId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.to_string();
        let user = self.user.as_str().as_bytes();
        self.told
            .to_be_bytes()
            .iter()
            .chain(message.as_bytes())
            .chain(user)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PollId {
    type Err = InvalidPollId;

    fn from_str(text: &str) -> Result<Self, InvalidPollId> {
        if text.len() > 2 * (COUNT_BYTES + MESSAGE_BYTES + USER_MAX) {
            return Err(InvalidPollId);
        }
        let digit = |digit: &u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        let bytes = bytes.filter(|_| rest.is_empty()).ok_or(InvalidPollId)?;
        let (told, bytes) = bytes.split_first_chunk::<COUNT_BYTES>().ok_or(InvalidPollId)?;
        let (message, user) = bytes.split_first_chunk::<MESSAGE_BYTES>().ok_or(InvalidPollId)?;
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| InvalidPollId);
        Ok(Self {
            message: text(message)?.parse().map_err(|_| InvalidPollId)?,
            user: UserId::new(text(user)?).map_err(|_| InvalidPollId)?,
            told: u16::from_be_bytes(*told),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Timestamp;

    proptest! {
        #[test]
        fn poll_id_as_text_reads_back(at in 0_u64..1 << 48, random: u128, told: u16, user in "[^\\p{Cc}]{1,60}") {
            prop_assume!(UserId::new(&user).is_ok());
            let message = MessageId::new(Timestamp::from_millis(at), random);
            let id = PollId { message, user: UserId::new(&user).unwrap(), told };
            let text = id.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
            prop_assert_eq!(text.parse(), Ok(id));
        }

        #[test]
        fn other_text_never_panics(text in "[0-9a-f]{0,80}|\\PC{0,40}") {
            let _read = text.parse::<PollId>();
        }
    }

    #[test]
    fn other_text_is_refused() {
        let platform = "d41d8cd98f00b204e9800998ecf8427e";
        for text in ["", "0", platform, &platform.repeat(30), &"ff".repeat(40), &"00".repeat(40)] {
            assert_eq!(text.parse::<PollId>(), Err(InvalidPollId), "{text}");
        }
    }
}
