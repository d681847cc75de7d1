//! A message: what a caller posts, what the store accepted, and how far it has come.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use ulid::Ulid;

use super::{
    BotName, ConversationId, EndedBy, MessageProgress, MessageStatus, Problem, Reply, Timestamp, TurnOutcome,
    UserId,
};

/// The longest text a caller may send, in bytes of UTF-8.
pub const TEXT_MAX_BYTES: usize = 64 * 1024;

/// A message's id: a ULID, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Ulid);

impl MessageId {
    /// The id made of this time and these random bits (80 of them count).
    pub const fn new(at: Timestamp, random: u128) -> Self {
        Self(Ulid::from_parts(at.as_millis(), random))
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

/// Why a part of a message was refused. The text names what would be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The text is empty or over [`TEXT_MAX_BYTES`].
    #[error("must be 1 byte to 64 KiB of text")]
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
    /// Something that has to be a JSON object is not.
    #[error("must be a JSON object")]
    NotAnObject,
}

/// A JSON object that we pass on without reading it.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct JsonObject(Box<RawValue>);

impl JsonObject {
    /// Keeps the text of an object.
    ///
    /// # Errors
    /// [`InvalidMessage::NotAnObject`].
    pub fn new(raw: Box<RawValue>) -> Result<Self, InvalidMessage> {
        if raw.get().starts_with('{') { Ok(Self(raw)) } else { Err(InvalidMessage::NotAnObject) }
    }

    /// The object as it was written.
    pub fn raw(&self) -> &RawValue {
        &self.0
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Box::<RawValue>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A file that was uploaded to the platform beforehand (protocol.md 6.1).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// The platform's id of the file.
    pub file_id: Box<str>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<Box<str>>,
    /// Its type, in the platform's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<Box<str>>,
}

/// What is said.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageContent {
    text: Box<str>,
    /// What the user saw, where that differs: a button's title.
    pub display_text: Option<Box<str>>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// Handed to the bot untouched.
    pub custom_data: Option<JsonObject>,
    /// Handed to the bot untouched.
    pub meta_tags: Option<JsonObject>,
    /// Time zone, locale and the like; handed to the bot untouched.
    pub meta: Option<JsonObject>,
}

impl MessageContent {
    /// Content with nothing but a text.
    ///
    /// # Errors
    /// [`InvalidMessage::Text`] outside 1 byte to [`TEXT_MAX_BYTES`].
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidMessage> {
        let text = text.into();
        if !(1..=TEXT_MAX_BYTES).contains(&text.len()) {
            return Err(InvalidMessage::Text);
        }
        Ok(Self {
            text,
            display_text: None,
            attachments: Vec::new(),
            custom_data: None,
            meta_tags: None,
            meta: None,
        })
    }

    /// What is said.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The session a message wants to be said in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionRequest {
    /// The running one, or a new one where none runs.
    #[default]
    Continue,
    /// A new one; the running one is closed, bot and agent.
    New,
    /// A new one; a running agent conversation stays.
    NewKeepAgent,
    /// None: the running one is to be ended. Callers cannot ask for it with a message; deleting a conversation is
    /// such a message, with no text that would be sent.
    Close,
}

/// What to do where a link broke and nothing proves that the platform got the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResendPolicy {
    /// Fail as `uncertain`.
    #[default]
    Never,
    /// Send again under the same `clientMessageId`; the bot may see it twice.
    Auto,
}

/// When the caller wants the turn to end. What is not said is the bot's default.
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
    /// The first that is out of range, as [`InvalidMessage`].
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

    /// How many replies end the turn at once.
    pub fn expect_replies(self) -> Option<usize> {
        self.expect_replies.map(usize::from)
    }

    /// The quiet time that ends the turn.
    pub fn quiet(self) -> Option<Duration> {
        self.quiet_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// The longest the turn may take after sending.
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

/// Where a message's end is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The receiver.
    pub url: Box<str>,
    /// The caller whose secrets sign what goes there; none where the bot's do. Callers neither set nor see it.
    #[serde(skip)]
    pub signer: Option<Box<str>>,
}

/// The trace that a message was posted in (W3C Trace Context): it is followed by it through logs. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a caller posts, checked.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Who talks to whom.
    pub conversation: ConversationId,
    /// What is said.
    pub content: MessageContent,
    /// In which session.
    pub session: SessionRequest,
    /// When the turn is to end.
    pub rules: TurnRules,
    /// Whether it may be sent twice.
    pub resend: ResendPolicy,
    /// Where its end is told.
    pub callback: Option<Callback>,
    /// In which trace it was posted.
    pub trace: TraceId,
}

/// A message that the store has accepted: from here on it will end, exactly once.
#[derive(Clone, Debug)]
pub struct AcceptedMessage {
    /// Our id of it.
    pub id: MessageId,
    /// Its place in the conversation's lane; rises by one per message.
    pub position: u64,
    /// The platform's handle for the ack; unique and rising per conversation.
    pub client_message_id: u64,
    /// When it was accepted, by the store's clock.
    pub accepted_at: Timestamp,
    /// What was posted.
    pub new: NewMessage,
}

/// The Message of the API: what was accepted and how far it has come.
#[derive(Clone, Debug)]
pub struct Message {
    /// What was accepted.
    pub accepted: Arc<AcceptedMessage>,
    /// How far it has come.
    pub progress: MessageProgress,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct View<'a> {
            id: MessageId,
            bot: &'a BotName,
            user: &'a UserId,
            client_message_id: u64,
            status: MessageStatus,
            complete: Option<bool>,
            ended_by: Option<EndedBy>,
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
        View {
            id: accepted.id,
            bot: &accepted.new.conversation.bot,
            user: &accepted.new.conversation.user,
            client_message_id: accepted.client_message_id,
            status: progress.status(),
            complete,
            ended_by,
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
    fn texts_are_bounded() {
        assert_eq!(MessageContent::new("").unwrap_err(), InvalidMessage::Text);
        assert_eq!(MessageContent::new("x".repeat(TEXT_MAX_BYTES + 1)).unwrap_err(), InvalidMessage::Text);
        assert!(MessageContent::new("x".repeat(TEXT_MAX_BYTES)).is_ok());
    }

    #[test]
    fn rules_are_bounded() {
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

    #[test]
    fn objects_only() {
        assert!(serde_json::from_str::<JsonObject>(r#" {"a": [1 ]} "#).is_ok());
        assert!(serde_json::from_str::<JsonObject>("[1]").is_err());
        assert!(serde_json::from_str::<JsonObject>("\"{\"").is_err());
    }
}
