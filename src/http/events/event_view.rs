//! A journal entry as callers see it (api.md 3).

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{
    BotName, ConversationId, Cursor, EndedBy, EntryBody, EntryWithMessage, EventKind, Message, MessageId,
    MessageStatus, Problem, QuietWait, Reply, ReplyChunk, Timestamp, TurnOutcome, UserId,
};

/// An event for callers.
#[derive(Debug, Serialize)]
pub(super) struct EventView<'a> {
    /// Position in the journal. Events outside the journal have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(rename = "type", serialize_with = "kind_as_str")]
    pub(super) kind: EventKind,
    /// Time of the event, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    data: EventData<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum EventData<'a> {
    Reply(&'a Reply),
    Message(&'a Message),
    Expired(ExpiredMessageView<'a>),
    Raw(&'a RawValue),
    Platform { event: &'a RawValue },
    Gap { reason: &'static str },
    Chunk(ChunkView<'a>),
}

/// The remains of an ended message that has expired.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExpiredMessageView<'a> {
    id: MessageId,
    bot: &'a BotName,
    user: &'a UserId,
    status: MessageStatus,
    complete: bool,
    ended_by: Option<EndedBy>,
    quiet: Option<QuietWait>,
    error: Option<&'a Problem>,
    ended_at: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChunkView<'a> {
    message_id: Option<&'a str>,
    index: u32,
    text: &'a str,
    last: bool,
}

impl<'a> EventView<'a> {
    /// Converts an entry, or returns `None` for an entry that callers do not see.
    pub(super) fn from_entry(item: &'a EntryWithMessage, conversation: &'a ConversationId) -> Option<Self> {
        let EntryWithMessage { entry, message } = item;
        let kind = EventKind::of(&entry.body)?;
        let data = match (&entry.body, message) {
            (EntryBody::Reply(reply), _) => EventData::Reply(reply),
            (EntryBody::Ended { .. } | EntryBody::Closed { .. }, Some(message)) => {
                EventData::Message(message)
            }
            (EntryBody::Ended { message, outcome } | EntryBody::Closed { message, outcome }, None) => {
                EventData::Expired(ExpiredMessageView::new(*message, outcome, conversation, entry.at))
            }
            (EntryBody::UserMessage(raw), _) => EventData::Raw(raw),
            (EntryBody::Platform(raw), _) => EventData::Platform { event: raw },
            (EntryBody::Gap(gap), _) => EventData::Gap { reason: gap.as_str() },
        };
        Some(Self { seq: Some(entry.seq), kind, at: Some(entry.at), data })
    }

    /// Converts a chunk of a streamed reply.
    pub(super) fn from_chunk(chunk: &'a ReplyChunk) -> Self {
        let ReplyChunk { message_id, index, text, last } = chunk;
        let data = EventData::Chunk(ChunkView {
            message_id: message_id.as_deref(),
            index: *index,
            text,
            last: *last,
        });
        Self { seq: None, kind: EventKind::Chunk, at: None, data }
    }

    /// Converts a frame of the platform that the journal does not keep.
    pub(super) const fn from_live(frame: &'a RawValue) -> Self {
        Self { seq: None, kind: EventKind::Platform, at: None, data: EventData::Platform { event: frame } }
    }

    /// Returns the event for entries that have expired or that the store lost.
    pub(super) const fn gap() -> Self {
        Self { seq: None, kind: EventKind::Gap, at: None, data: EventData::Gap { reason: "notKept" } }
    }

    /// Appends the event to a stream, after the cursor behind it.
    pub(super) fn write(&self, id: Option<Cursor>, stream: &mut Vec<u8>) {
        if let Some(cursor) = id {
            write_id(cursor, stream);
        }
        stream.extend_from_slice(b"event: ");
        stream.extend_from_slice(self.kind.as_str().as_bytes());
        stream.extend_from_slice(b"\ndata: ");
        let start = stream.len();
        // An event consists of text and numbers, so its serialisation cannot fail.
        if serde_json::to_writer(&mut *stream, self).is_err() {
            stream.truncate(start);
            stream.extend_from_slice(b"null");
        }
        // The platform's frames are written unchanged. A line break between two JSON tokens is white space, and strings
        // contain none.
        for byte in stream.iter_mut().skip(start).filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        stream.extend_from_slice(b"\n\n");
    }
}

/// Appends the line with a reader's cursor.
pub(super) fn write_id(cursor: Cursor, stream: &mut Vec<u8>) {
    stream.extend_from_slice(b"id: ");
    stream.extend_from_slice(cursor.to_string().as_bytes());
    stream.push(b'\n');
}

impl<'a> ExpiredMessageView<'a> {
    fn new(
        id: MessageId,
        outcome: &'a TurnOutcome,
        conversation: &'a ConversationId,
        ended_at: Timestamp,
    ) -> Self {
        let (status, complete, ended_by, error) = match outcome {
            TurnOutcome::Answered(by) => (MessageStatus::Answered, by.is_complete(), Some(*by), None),
            TurnOutcome::Failed(problem) => (MessageStatus::Failed, false, None, Some(problem)),
        };
        let (bot, user) = (conversation.bot(), conversation.user());
        let quiet = ended_by.and_then(EndedBy::quiet);
        Self { id, bot, user, status, complete, ended_by, quiet, error, ended_at }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn kind_as_str<S: serde::Serializer>(kind: &EventKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

#[cfg(test)]
mod tests;
