//! What the bot said, and how sure we are what it answers.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{MessageId, Timestamp};

/// Why a reply is joined to a turn. A `bot_response` names no message it answers (protocol.md 7.5), so this
/// says what the join rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Correlation {
    /// The bot echoed our `clientMessageId`.
    Exact,
    /// It arrived while the turn was open, or late but before the next message.
    Window,
    /// Found in the platform's history after a broken link.
    History,
    /// No turn was open.
    Unsolicited,
}

impl Correlation {
    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Window => "window",
            Self::History => "history",
            Self::Unsolicited => "unsolicited",
        }
    }
}

impl Serialize for Correlation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One reply of the bot. A streamed reply is one Reply, made of its last frame and its whole text.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// Its place in the conversation's journal.
    pub seq: u64,
    /// The platform's id of it (`ms-…`); frames of old platforms have none.
    pub message_id: Option<Box<str>>,
    /// The message it is joined to; none where it is unsolicited.
    pub in_reply_to: Option<MessageId>,
    /// What that join rests on.
    pub correlation: Correlation,
    /// Whether it came after its turn had ended.
    pub late: bool,
    /// The best plain text of it, empty where there is none (protocol.md 7.3).
    pub text: Box<str>,
    /// Whether a human agent said it.
    pub agent: bool,
    /// The platform's own time of it, where it gave one.
    pub created_on: Option<Timestamp>,
    /// The platform's frame, untouched.
    pub event: Box<RawValue>,
}
