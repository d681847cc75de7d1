//! Replies of the bot, and the evidence for the message that each one answers.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{MessageId, Timestamp};

/// The evidence that joins a reply to a turn. A `bot_response` does not name the message that it answers
/// (protocol.md 7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Correlation {
    /// The bot echoed our `clientMessageId`.
    Exact,
    /// It arrived while the turn was open, or late but before the next message.
    Window,
    /// The platform's history held it after a broken link.
    History,
    /// No turn was open.
    Unsolicited,
}

impl Correlation {
    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Window => "window",
            Self::History => "history",
            Self::Unsolicited => "unsolicited",
        }
    }
}

/// One reply of the bot. A streamed reply is one Reply with its last frame and its whole text.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The position in the conversation's journal.
    pub seq: u64,
    /// The platform's id of the reply (`ms-…`). Frames of old platforms have none.
    pub message_id: Option<Box<str>>,
    /// The message that it answers. Empty for an unsolicited reply.
    pub in_reply_to: Option<MessageId>,
    /// The evidence for that message.
    pub correlation: Correlation,
    /// Whether it came after its turn had ended.
    pub late: bool,
    /// The best plain text of it. Empty if the frame has no text (protocol.md 7.3).
    pub text: Box<str>,
    /// Whether a part of the text is missing: a streamed reply that was cut, and that history did not tell whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether a human agent wrote it.
    pub agent: bool,
    /// The platform's time of the reply, if the frame has one.
    pub created_on: Option<Timestamp>,
    /// The platform's frame, unchanged.
    pub event: Box<RawValue>,
}
