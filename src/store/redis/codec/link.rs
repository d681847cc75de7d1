//! What replicas tell each other of a link: pieces of streamed replies, and how it stands.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Corrupt, is_default};
use crate::domain::{ConnectionStatus, LinkState, ReplyChunk, Timestamp};

const CHUNK: Corrupt = Corrupt("a piece of a reply");
const CONNECTION: Corrupt = Corrupt("the state of a connection");

#[derive(Serialize, Deserialize)]
struct KeptChunk<'a> {
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
struct KeptConnection<'a> {
    #[serde(rename = "s", borrow)]
    state: Cow<'a, str>,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(rename = "r", borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    retry_at: Option<u64>,
}

/// Writes a piece of a reply.
pub(in super::super) fn chunk(chunk: &ReplyChunk) -> Result<Vec<u8>, Corrupt> {
    let kept = KeptChunk {
        message_id: chunk.message_id.as_deref().map(Cow::Borrowed),
        index: chunk.index,
        text: Cow::Borrowed(&chunk.text),
        last: chunk.last,
    };
    serde_json::to_vec(&kept).map_err(|_| CHUNK)
}

/// Reads a piece of a reply.
pub(in super::super) fn read_chunk(bytes: &[u8]) -> Result<ReplyChunk, Corrupt> {
    let KeptChunk { message_id, index, text, last } = serde_json::from_slice(bytes).map_err(|_| CHUNK)?;
    Ok(ReplyChunk { message_id: message_id.map(Into::into), index, text: text.into(), last })
}

/// Writes how a connection stands.
pub(in super::super) fn connection(connection: &ConnectionStatus) -> Result<Vec<u8>, Corrupt> {
    let kept = KeptConnection {
        state: Cow::Borrowed(connection.state.as_str()),
        since: connection.since.map(Timestamp::as_millis),
        reason: connection.reason.as_deref().map(Cow::Borrowed),
        retry_at: connection.retry_at.map(Timestamp::as_millis),
    };
    serde_json::to_vec(&kept).map_err(|_| CONNECTION)
}

/// Reads how a connection stands.
pub(in super::super) fn read_connection(bytes: &[u8]) -> Result<ConnectionStatus, Corrupt> {
    let kept: KeptConnection<'_> = serde_json::from_slice(bytes).map_err(|_| CONNECTION)?;
    let state = LinkState::ALL.into_iter().find(|state| state.as_str() == kept.state).ok_or(CONNECTION)?;
    Ok(ConnectionStatus {
        state,
        since: kept.since.map(Timestamp::from_millis),
        reason: kept.reason.map(Into::into),
        retry_at: kept.retry_at.map(Timestamp::from_millis),
    })
}
