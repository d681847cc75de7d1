//! Messages: the caller's request, the accepted message, and its progress.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use ulid::Ulid;

use super::{
    BotName, ConversationId, EndedBy, JsonObject, MessageProgress, MessageStatus, Problem, QuietWait, Reply,
    Timestamp, TurnOutcome, UserDetails, UserId,
};

/// The longest text a caller may send, in bytes of UTF-8.
pub const TEXT_MAX_BYTES: usize = 64 * 1024;

/// A message's id: a ULID, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Ulid);

impl MessageId {
    /// Creates an id from a time and random bits. The id uses 80 of the bits.
    pub const fn new(at: Timestamp, random: u128) -> Self {
        Self(Ulid::from_parts(at.as_millis(), random))
    }

    /// Returns the time of the id, by the clock of the replica that made it.
    pub const fn at(self) -> Timestamp {
        Timestamp::from_millis(self.0.timestamp_ms())
    }
}

impl FromStr for MessageId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.write_str(self.0.array_to_str(&mut buffer))
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; ulid::ULID_LEN];
        serializer.serialize_str(self.0.array_to_str(&mut buffer))
    }
}

/// The reason why a part of a message was refused. The text says which values are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The text is over [`TEXT_MAX_BYTES`], or empty without attachments.
    #[error("must be 1 byte to 64 KiB of text; only beside attachments it may be empty")]
    Text,
    /// `expectReplies` is out of range.
    #[error("must be a whole number from 1 to 50")]
    ExpectReplies,
    /// `quietMs` is out of range.
    #[error("must be a whole number of milliseconds from 50 to 60000")]
    Quiet,
    /// `deadlineMs` is out of range.
    #[error("must be a whole number of milliseconds from 500 to 600000")]
    Deadline,
    /// A value that must be a JSON object is something else.
    #[error("must be a JSON object")]
    NotAnObject,
    /// A name of the user is out of bounds.
    #[error("must be 1 to 256 bytes without control characters")]
    Name,
}

/// A file that was uploaded to the platform beforehand (protocol.md 6.1).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The platform's id of the file.
    pub file_id: Box<str>,
    /// The file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<Box<str>>,
    /// The file's type, in the platform's terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_type: Option<Box<str>>,
    /// Other members, forwarded unchanged. Clients of the platform send different ones, such as `fileUrl`.
    #[serde(flatten)]
    pub other_members: BTreeMap<Box<str>, Box<RawValue>>,
}

/// The content of a message.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageContent {
    text: Box<str>,
    /// The text that the user saw if it differs, such as a button's title.
    pub display_text: Option<Box<str>>,
    /// The attached files.
    pub attachments: Vec<Attachment>,
    /// Data for the bot, forwarded unchanged.
    pub custom_data: Option<JsonObject>,
    /// Tags for the bot, forwarded unchanged.
    pub meta_tags: Option<JsonObject>,
    /// Time zone, locale and the like, forwarded unchanged.
    pub meta: Option<JsonObject>,
    /// More members for the top of the frame, forwarded unchanged. A bot reads the frame as its `messagePayload`.
    pub payload_members: Option<JsonObject>,
}

impl MessageContent {
    /// Creates content that holds only a text.
    ///
    /// # Errors
    /// [`InvalidMessage::Text`] outside 1 byte to [`TEXT_MAX_BYTES`].
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidMessage> {
        Self::with_attachments(text, Vec::new())
    }

    /// Creates content that holds a text and files. The text may be empty if there is a file.
    ///
    /// # Errors
    /// [`InvalidMessage::Text`] for a longer text, or an empty one without a file.
    pub fn with_attachments(
        text: impl Into<Box<str>>,
        attachments: Vec<Attachment>,
    ) -> Result<Self, InvalidMessage> {
        let text = text.into();
        if text.len() > TEXT_MAX_BYTES || (text.is_empty() && attachments.is_empty()) {
            return Err(InvalidMessage::Text);
        }
        Ok(Self { text, attachments, ..Self::without_text() })
    }

    /// Creates content without a text, for a message that is an event.
    pub fn without_text() -> Self {
        let text = Box::default();
        Self {
            text,
            display_text: None,
            attachments: Vec::new(),
            custom_data: None,
            meta_tags: None,
            meta: None,
            payload_members: None,
        }
    }

    /// Returns whether it has a context for its connection: custom data or tags.
    pub const fn has_context(&self) -> bool {
        self.custom_data.is_some() || self.meta_tags.is_some()
    }

    /// Returns the caller's text. It may be empty beside attachments.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text that the bot gets: that of the caller, or the names of the files if it is empty.
    ///
    /// A message of files without a text stalls some bots (protocol.md 13.4). A file without a name goes by its id.
    pub fn body(&self) -> Cow<'_, str> {
        if !self.text.is_empty() {
            return Cow::Borrowed(&self.text);
        }
        let name = |file: &'_ Attachment| {
            let name = file.file_name.as_deref().filter(|name| !name.trim().is_empty());
            name.unwrap_or(&file.file_id).to_owned()
        };
        let mut names = self.attachments.iter().map(name).collect::<Vec<_>>().join(", ");
        names.truncate(names.floor_char_boundary(TEXT_MAX_BYTES));
        Cow::Owned(names)
    }
}

/// The event that a message is in place of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MessageEvent {
    /// The user opens the chat. The bridge connects and sends no frame. The turn takes what the bot says by itself.
    Connect,
}

/// The session that a message asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionRequest {
    /// The running session, or a new one if there is no running one.
    #[default]
    Continue,
    /// A new session. The running one ends, for the bot and for a human agent.
    New,
    /// A new session. A running conversation with a human agent stays.
    NewKeepAgent,
    /// The end of the running session. Callers cannot ask for it with a message. The deletion of a conversation is such a
    /// message, without a text.
    Close,
    /// The same, and then the erasure of all that the store has of the conversation, this message included. It goes before
    /// all other messages.
    Erase,
}

impl SessionRequest {
    /// Returns whether the message only ends the session. It sends no text to the bot.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Close | Self::Erase)
    }
}

/// The policy for a message if the link broke and the platform may or may not have received it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResendPolicy {
    /// The message fails as `uncertain`.
    #[default]
    Never,
    /// The bridge sends it again under the same `clientMessageId`. The bot may see it twice.
    Auto,
}

/// The caller's rules for the end of a turn. The bot's defaults apply to absent ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnRules {
    expect_replies: Option<u8>,
    quiet_ms: Option<u16>,
    deadline_ms: Option<u32>,
}

impl TurnRules {
    /// Checks the three numbers: replies 1 to 50, quiet 50 to 60000 ms, deadline 500 to 600000 ms.
    ///
    /// # Errors
    /// [`InvalidMessage`] for the first number that is out of range.
    pub fn new(
        expect_replies: Option<u64>,
        quiet_ms: Option<u64>,
        deadline_ms: Option<u64>,
    ) -> Result<Self, InvalidMessage> {
        use InvalidMessage as E;
        Ok(Self {
            expect_replies: within(expect_replies, 1, 50, E::ExpectReplies)?,
            quiet_ms: within(quiet_ms, 50, 60_000, E::Quiet)?,
            deadline_ms: within(deadline_ms, 500, 600_000, E::Deadline)?,
        })
    }

    /// Returns the number of replies that ends the turn at once.
    pub fn expect_replies(self) -> Option<usize> {
        self.expect_replies.map(usize::from)
    }

    /// Returns the quiet time that ends the turn.
    pub fn quiet(self) -> Option<Duration> {
        self.quiet_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// Returns the longest time that the turn may take after sending.
    pub fn deadline(self) -> Option<Duration> {
        self.deadline_ms.map(|ms| Duration::from_millis(ms.into()))
    }
}

fn within<T: TryFrom<u64>>(
    value: Option<u64>,
    least: u64,
    most: u64,
    error: InvalidMessage,
) -> Result<Option<T>, InvalidMessage> {
    match value {
        None => Ok(None),
        Some(value) if (least..=most).contains(&value) => T::try_from(value).map(Some).map_err(|_| error),
        Some(_) => Err(error),
    }
}

/// The receiver of a delivery about a message's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The receiver's URL.
    pub url: Box<str>,
    /// The caller whose secrets sign the deliveries, unless the bot's secrets sign them. Callers neither set nor see it.
    #[serde(skip)]
    pub signer: Option<Box<str>>,
}

/// The trace that a message belongs to (W3C Trace Context). Logs carry it. Zero means no trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A caller's message after validation.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The conversation.
    pub conversation: ConversationId,
    /// The content.
    pub content: MessageContent,
    /// The event that the message is. Its content then has no text.
    pub event: Option<MessageEvent>,
    /// The details of its user that the message tells.
    pub user_details: Option<Box<UserDetails>>,
    /// The session that the message asks for.
    pub session: SessionRequest,
    /// The rules for the end of the turn.
    pub rules: TurnRules,
    /// The policy for a second send.
    pub resend: ResendPolicy,
    /// The receiver of a delivery about its end.
    pub callback: Option<Callback>,
    /// The trace of the request.
    pub trace: TraceId,
    /// The caller that posted it, if there are several. They share the bot's connects.
    pub caller: Option<Arc<str>>,
}

impl NewMessage {
    /// Returns whether the message only connects: it sends no frame, and the bot speaks first.
    pub fn is_connect(&self) -> bool {
        self.event == Some(MessageEvent::Connect)
    }

    /// Returns the approximate number of bytes of the caller's texts.
    pub fn text_weight(&self) -> usize {
        let content = &self.content;
        let objects = [&content.custom_data, &content.meta_tags, &content.meta, &content.payload_members];
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        content.text().len()
            + text(&content.display_text)
            + objects.into_iter().flatten().map(|object| object.raw().get().len()).sum::<usize>()
            + content
                .attachments
                .iter()
                .map(|file| {
                    let others = file.other_members.iter();
                    64 + file.file_id.len()
                        + text(&file.file_name)
                        + text(&file.file_type)
                        + others.map(|(name, value)| 64 + name.len() + value.get().len()).sum::<usize>()
                })
                .sum::<usize>()
            + self.callback.as_ref().map_or(0, |callback| callback.url.len())
            + self.user_details.as_ref().map_or(0, |details| details.weight())
    }
}

/// A message that the store has accepted. It ends exactly once.
#[derive(Clone, Debug)]
pub struct AcceptedMessage {
    /// The bridge's id.
    pub id: MessageId,
    /// The position in the conversation's lane, which rises by one with each message.
    pub position: u64,
    /// The id that the platform acknowledges. It is unique and rises within a conversation.
    pub client_message_id: u64,
    /// The time of acceptance, by the store's clock.
    pub accepted_at: Timestamp,
    /// The caller's message.
    pub new: NewMessage,
}

/// An accepted message with its progress: the Message of the API.
#[derive(Clone, Debug)]
pub struct Message {
    /// The accepted message.
    pub accepted: Arc<AcceptedMessage>,
    /// The progress so far.
    pub progress: MessageProgress,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct MessageFields<'a> {
            id: MessageId,
            bot: &'a BotName,
            user: &'a UserId,
            client_message_id: u64,
            status: MessageStatus,
            complete: Option<bool>,
            ended_by: Option<EndedBy>,
            quiet: Option<QuietWait>,
            #[serde(skip_serializing_if = "Option::is_none")]
            event: Option<MessageEvent>,
            text: &'a str,
            replies: &'a [Arc<Reply>],
            error: Option<&'a Problem>,
            callback: Option<&'a Callback>,
            accepted_at: Timestamp,
            sent_at: Option<Timestamp>,
            acked_at: Option<Timestamp>,
            first_reply_at: Option<Timestamp>,
            ended_at: Option<Timestamp>,
        }
        let Self { accepted, progress } = self;
        let (complete, ended_by, error) = match &progress.outcome {
            None => (None, None, None),
            Some(TurnOutcome::Answered(by)) => (Some(by.is_complete()), Some(*by), None),
            Some(TurnOutcome::Failed(problem)) => (Some(false), None, Some(problem)),
        };
        MessageFields {
            id: accepted.id,
            bot: accepted.new.conversation.bot(),
            user: accepted.new.conversation.user(),
            client_message_id: accepted.client_message_id,
            status: progress.status(),
            complete,
            ended_by,
            quiet: ended_by.and_then(EndedBy::quiet),
            event: accepted.new.event,
            text: accepted.new.content.text(),
            replies: &progress.replies,
            error,
            callback: accepted.new.callback.as_ref(),
            accepted_at: accepted.accepted_at,
            sent_at: progress.sent_at,
            acked_at: progress.acked_at,
            first_reply_at: progress.first_reply_at,
            ended_at: progress.ended_at,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_out_of_bounds_is_refused() {
        assert_eq!(MessageContent::new("").unwrap_err(), InvalidMessage::Text);
        assert_eq!(MessageContent::new("x".repeat(TEXT_MAX_BYTES + 1)).unwrap_err(), InvalidMessage::Text);
        assert!(MessageContent::new("x".repeat(TEXT_MAX_BYTES)).is_ok());
    }

    #[test]
    fn body_of_files_alone_is_their_names() {
        let file = |name: Option<&str>| Attachment {
            file_id: "f-1".into(),
            file_name: name.map(Into::into),
            file_type: None,
            other_members: BTreeMap::new(),
        };
        let body = |text: &str, names: &[Option<&str>]| {
            let files = names.iter().map(|name| file(*name)).collect();
            let content = MessageContent::with_attachments(text, files).unwrap();
            assert_eq!(content.text(), text);
            content.body().into_owned()
        };
        assert_eq!(body("look", &[Some("a.png")]), "look");
        assert_eq!(body("", &[Some("a.png"), None, Some(" "), Some("b.pdf")]), "a.png, f-1, f-1, b.pdf");
        let long = "é".repeat(40_000);
        assert_eq!(body("", &[Some(&long)]).len(), TEXT_MAX_BYTES);
        assert!(MessageContent::with_attachments("x".repeat(TEXT_MAX_BYTES + 1), vec![file(None)]).is_err());
    }

    #[test]
    fn turn_rule_out_of_range_is_refused() {
        use InvalidMessage as E;
        assert_eq!(TurnRules::new(Some(0), None, None), Err(E::ExpectReplies));
        assert_eq!(TurnRules::new(Some(51), None, None), Err(E::ExpectReplies));
        assert_eq!(TurnRules::new(None, Some(49), None), Err(E::Quiet));
        assert_eq!(TurnRules::new(None, Some(60_001), None), Err(E::Quiet));
        assert_eq!(TurnRules::new(None, None, Some(499)), Err(E::Deadline));
        assert_eq!(TurnRules::new(None, None, Some(600_001)), Err(E::Deadline));
        let rules = TurnRules::new(Some(50), Some(60_000), Some(600_000)).unwrap();
        assert_eq!(rules.expect_replies(), Some(50));
        assert_eq!(rules.quiet(), Some(Duration::from_mins(1)));
        assert_eq!(rules.deadline(), Some(Duration::from_mins(10)));
    }
}
