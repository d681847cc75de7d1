//! The encoding of replies. Their place in the journal is stored beside them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CorruptData, id, is_default};
use crate::domain::{Correlation, Fingerprint, MediaKind, Reply, ReplyChoice, ReplyMedia, Timestamp};

const WHAT: CorruptData = CorruptData("a reply");

#[derive(Serialize, Deserialize)]
struct StoredReply<'a> {
    #[serde(rename = "m", borrow, default, skip_serializing_if = "Option::is_none")]
    message_id: Option<Cow<'a, str>>,
    #[serde(rename = "i", borrow, default, skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<Cow<'a, str>>,
    #[serde(rename = "c", borrow)]
    correlation: Cow<'a, str>,
    #[serde(rename = "l", default, skip_serializing_if = "is_default")]
    late: bool,
    #[serde(rename = "t", borrow, default)]
    text: Cow<'a, str>,
    #[serde(rename = "h", borrow, default, skip_serializing_if = "Vec::is_empty")]
    choices: Vec<StoredChoice<'a>>,
    #[serde(rename = "d", borrow, default, skip_serializing_if = "Vec::is_empty")]
    media: Vec<StoredMedia<'a>>,
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    partial: bool,
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    agent: bool,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    created_on: Option<u64>,
    #[serde(rename = "e", borrow)]
    event: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct StoredChoice<'a> {
    #[serde(rename = "t", borrow)]
    title: Cow<'a, str>,
    #[serde(rename = "p", borrow)]
    payload: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct StoredMedia<'a> {
    #[serde(rename = "k", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "u", borrow, default, skip_serializing_if = "Option::is_none")]
    url: Option<Cow<'a, str>>,
    #[serde(rename = "t", borrow, default, skip_serializing_if = "Option::is_none")]
    title: Option<Cow<'a, str>>,
}

impl<'a> From<&'a ReplyChoice> for StoredChoice<'a> {
    fn from(choice: &'a ReplyChoice) -> Self {
        Self { title: Cow::Borrowed(&choice.title), payload: Cow::Borrowed(&choice.payload) }
    }
}

impl<'a> From<&'a ReplyMedia> for StoredMedia<'a> {
    fn from(media: &'a ReplyMedia) -> Self {
        Self {
            kind: Cow::Borrowed(media.kind.as_str()),
            url: media.url.as_deref().map(Cow::Borrowed),
            title: media.title.as_deref().map(Cow::Borrowed),
        }
    }
}

impl From<StoredChoice<'_>> for ReplyChoice {
    fn from(stored: StoredChoice<'_>) -> Self {
        Self { title: stored.title.into(), payload: stored.payload.into() }
    }
}

impl From<StoredMedia<'_>> for ReplyMedia {
    fn from(stored: StoredMedia<'_>) -> Self {
        // A later version may know more kinds.
        let kind = MediaKind::ALL.into_iter().find(|kind| kind.as_str() == stored.kind);
        Self {
            kind: kind.unwrap_or(MediaKind::File),
            url: stored.url.map(Into::into),
            title: stored.title.map(Into::into),
        }
    }
}

/// Encodes a reply.
pub(super) fn write(reply: &Reply, into: &mut Vec<u8>) -> Result<(), CorruptData> {
    let stored = StoredReply {
        message_id: reply.message_id.as_deref().map(Cow::Borrowed),
        in_reply_to: reply.in_reply_to.map(|id| Cow::Owned(id.to_string())),
        correlation: Cow::Borrowed(reply.correlation.as_str()),
        late: reply.late,
        text: Cow::Borrowed(&reply.text),
        choices: reply.choices.iter().map(StoredChoice::from).collect(),
        media: reply.media.iter().map(StoredMedia::from).collect(),
        partial: reply.partial,
        agent: reply.agent,
        created_on: reply.created_on.map(Timestamp::as_millis),
        event: &reply.event,
    };
    serde_json::to_writer(into, &stored).map_err(|_| WHAT)
}

/// Decodes a reply at this place.
pub(super) fn read(seq: u64, bytes: &[u8]) -> Result<Reply, CorruptData> {
    let stored: StoredReply<'_> = serde_json::from_slice(bytes).map_err(|_| WHAT)?;
    Ok(Reply {
        seq,
        message_id: stored.message_id.map(Into::into),
        in_reply_to: stored.in_reply_to.map(|text| id(&text)).transpose()?,
        correlation: correlation(&stored.correlation)?,
        late: stored.late,
        text: stored.text.into(),
        choices: stored.choices.into_iter().map(ReplyChoice::from).collect(),
        media: stored.media.into_iter().map(ReplyMedia::from).collect(),
        partial: stored.partial,
        agent: stored.agent,
        created_on: stored.created_on.map(Timestamp::from_millis),
        event: stored.event.to_owned(),
    })
}

/// Decodes the ids of replies, which `open.lua` joins by commas.
pub(in super::super) fn reply_ids(joined: &[u8]) -> Result<Vec<Fingerprint>, CorruptData> {
    let ids: Vec<Cow<'_, str>> = serde_json::from_slice(&[b"[", joined, b"]"].concat()).map_err(|_| WHAT)?;
    Ok(ids.iter().map(|id| Fingerprint::of(id)).collect())
}

fn correlation(word: &str) -> Result<Correlation, CorruptData> {
    use Correlation::{Exact, History, Unsolicited, Window};
    [Exact, Window, History, Unsolicited]
        .into_iter()
        .find(|correlation| correlation.as_str() == word)
        .ok_or(WHAT)
}
