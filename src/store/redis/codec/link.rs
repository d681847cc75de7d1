//! The encoding of hints about a link: chunks of streamed replies, and the status of the connection.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{CorruptData, is_default};
use crate::domain::{ConnectionStatus, LinkState, ReplyChunk, Timestamp};

const CHUNK: CorruptData = CorruptData("a piece of a reply");
const CONNECTION: CorruptData = CorruptData("the state of a connection");

#[derive(Serialize, Deserialize)]
struct StoredChunk<'a> {
    #[serde(rename = "m", borrow, default, skip_serializing_if = "Option::is_none")]
    message_id: Option<Cow<'a, str>>,
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    index: u32,
    #[serde(rename = "t", borrow)]
    text: Cow<'a, str>,
    #[serde(rename = "l", default, skip_serializing_if = "is_default")]
    last: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredConnection<'a> {
    #[serde(rename = "s", borrow)]
    state: Cow<'a, str>,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(rename = "r", borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    retry_at: Option<u64>,
}

/// Encodes a chunk of a reply.
pub(in super::super) fn chunk(chunk: &ReplyChunk) -> Result<Vec<u8>, CorruptData> {
    let stored = StoredChunk {
        message_id: chunk.message_id.as_deref().map(Cow::Borrowed),
        index: chunk.index,
        text: Cow::Borrowed(&chunk.text),
        last: chunk.last,
    };
    serde_json::to_vec(&stored).map_err(|_| CHUNK)
}

/// Decodes a chunk of a reply.
pub(in super::super) fn read_chunk(bytes: &[u8]) -> Result<ReplyChunk, CorruptData> {
    let StoredChunk { message_id, index, text, last } = serde_json::from_slice(bytes).map_err(|_| CHUNK)?;
    Ok(ReplyChunk { message_id: message_id.map(Into::into), index, text: text.into(), last })
}

/// Encodes the status of a connection.
pub(in super::super) fn connection(connection: &ConnectionStatus) -> Result<Vec<u8>, CorruptData> {
    let stored = StoredConnection {
        state: Cow::Borrowed(connection.state.as_str()),
        since: connection.since.map(Timestamp::as_millis),
        reason: connection.reason.as_deref().map(Cow::Borrowed),
        retry_at: connection.retry_at.map(Timestamp::as_millis),
    };
    serde_json::to_vec(&stored).map_err(|_| CONNECTION)
}

/// Decodes the status of a connection.
pub(in super::super) fn read_connection(bytes: &[u8]) -> Result<ConnectionStatus, CorruptData> {
    let stored: StoredConnection<'_> = serde_json::from_slice(bytes).map_err(|_| CONNECTION)?;
    let state = LinkState::ALL.into_iter().find(|state| state.as_str() == stored.state).ok_or(CONNECTION)?;
    Ok(ConnectionStatus {
        state,
        since: stored.since.map(Timestamp::from_millis),
        reason: stored.reason.map(Into::into),
        retry_at: stored.retry_at.map(Timestamp::from_millis),
    })
}
