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

/// An answer that the bot offers: a button, a quick reply, an option of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplyChoice {
    /// The words that the user sees.
    pub title: Box<str>,
    /// The text of the message that chooses it.
    pub payload: Box<str>,
}

/// A picture, sound, film, file or link of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplyMedia {
    /// The kind of it.
    pub kind: MediaKind,
    /// Its address. A file that the platform names by its id alone has none.
    pub url: Option<Box<str>>,
    /// Its name or description, if the reply has one.
    pub title: Option<Box<str>>,
}

impl ReplyMedia {
    fn weight(&self) -> usize {
        let bytes = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        size_of::<Self>() + bytes(&self.url) + bytes(&self.title)
    }
}

/// The kind of a [`ReplyMedia`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A film.
    Video,
    /// A file of another kind.
    File,
    /// An address to open.
    Link,
}

impl MediaKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Image, Self::Audio, Self::Video, Self::File, Self::Link];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::File => "file",
            Self::Link => "link",
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
    /// The plain text that the user would read. Empty if the frame has no words (api.md 1, "The Reply").
    pub text: Box<str>,
    /// Whether a part of the text is missing: a streamed reply that was cut, and that history did not tell whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether a human agent wrote it.
    pub agent: bool,
    /// The platform's time of the reply, if the frame has one.
    pub created_on: Option<Timestamp>,
    /// The answers that the bot offers, in their order.
    pub choices: Box<[ReplyChoice]>,
    /// The media of it, in their order.
    pub media: Box<[ReplyMedia]>,
    /// The platform's frame, unchanged.
    pub event: Box<RawValue>,
}

impl Reply {
    /// Returns the approximate number of bytes that it takes beside its fixed fields.
    pub fn weight(&self) -> usize {
        let choice =
            |choice: &ReplyChoice| size_of::<ReplyChoice>() + choice.title.len() + choice.payload.len();
        self.event.get().len()
            + self.text.len()
            + self.choices.iter().map(choice).sum::<usize>()
            + self.media.iter().map(ReplyMedia::weight).sum::<usize>()
    }
}
