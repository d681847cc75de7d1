//! The encoding of conversation records. It is small, because every idle conversation has a record.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{CorruptData, id, is_default};
use crate::domain::{
    Callback, ConversationRecord, Fingerprint, FirstGap, LastTurn, LateReplies, RateWindow, RecentReplies,
    Timestamp, TraceId,
};

const WHAT: CorruptData = CorruptData("the record of a conversation");

#[derive(Serialize, Deserialize)]
struct StoredRecord<'a> {
    #[serde(rename = "e", default, skip_serializing_if = "is_default")]
    epoch: u64,
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    seq: u64,
    #[serde(rename = "w", default, skip_serializing_if = "is_default")]
    write: u64,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    connected_at: Option<u64>,
    #[serde(rename = "d", borrow, default, skip_serializing_if = "Option::is_none")]
    session_done: Option<Cow<'a, str>>,
    #[serde(rename = "m", borrow, default, skip_serializing_if = "Option::is_none")]
    context: Option<Cow<'a, str>>,
    #[serde(rename = "p", borrow, default, skip_serializing_if = "Option::is_none")]
    last_platform_message: Option<Cow<'a, str>>,
    /// The time and the message's number.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    first_gap: Option<(u64, Option<u64>)>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    said_at: Option<u64>,
    /// Eight bytes each, big-endian, in Base64: half the size of their digits.
    #[serde(rename = "f", borrow, default, skip_serializing_if = "is_default")]
    recent: Cow<'a, str>,
    #[serde(rename = "i", borrow, default, skip_serializing_if = "Option::is_none")]
    session_id: Option<Cow<'a, str>>,
    #[serde(rename = "t", borrow, default, skip_serializing_if = "Option::is_none")]
    last_turn: Option<(Cow<'a, str>, u64)>,
    /// The number that the last turn's replies may echo, as the step to the turn's end: a few digits.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    last_echo: Option<i64>,
    #[serde(rename = "cb", borrow, default, skip_serializing_if = "Option::is_none")]
    last_callback: Option<Cow<'a, str>>,
    #[serde(rename = "cs", borrow, default, skip_serializing_if = "Option::is_none")]
    last_signer: Option<Cow<'a, str>>,
    /// Sixteen bytes, big-endian, in Base64.
    #[serde(rename = "tr", borrow, default, skip_serializing_if = "Option::is_none")]
    last_trace: Option<Cow<'a, str>>,
    /// The number and the bytes of the last turn's late replies.
    #[serde(rename = "l", default, skip_serializing_if = "is_default")]
    late: (u32, u64),
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    agent: bool,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    blocked_until: Option<u64>,
    /// Each time as the step from the one before.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    sends: Vec<i64>,
}

/// Encodes a record.
pub(in super::super) fn record(record: &ConversationRecord) -> Result<Vec<u8>, CorruptData> {
    let recent: Vec<u8> = record.recent.iter().flat_map(|reply| reply.bits().to_be_bytes()).collect();
    let steps = record.sends.iter().scan(0_u64, |last, at| {
        let at = at.as_millis();
        let step = at.wrapping_sub(*last).cast_signed();
        *last = at;
        Some(step)
    });
    let last = record.last_turn.as_ref();
    let callback = last.and_then(|turn| turn.callback.as_ref());
    let stored = StoredRecord {
        epoch: record.epoch,
        seq: record.seq,
        write: record.write,
        connected_at: record.connected_at.map(Timestamp::as_millis),
        session_done: record.session_done.map(|id| Cow::Owned(id.to_string())),
        context: record.context.map(|id| Cow::Owned(id.to_string())),
        last_platform_message: record.last_platform_message.as_deref().map(Cow::Borrowed),
        first_gap: record.first_gap.map(|gap| (gap.since.as_millis(), gap.own)),
        said_at: record.said_at.map(Timestamp::as_millis),
        recent: Cow::Owned(URL_SAFE_NO_PAD.encode(recent)),
        session_id: record.session_id.as_deref().map(Cow::Borrowed),
        last_turn: last.map(|turn| (Cow::Owned(turn.message.to_string()), turn.ended_at.as_millis())),
        last_echo: last.and_then(|turn| {
            let echo = turn.client_message_id?;
            Some(turn.ended_at.as_millis().wrapping_sub(echo).cast_signed())
        }),
        last_callback: callback.map(|callback| Cow::Borrowed(&*callback.url)),
        last_signer: callback.and_then(|callback| callback.signer.as_deref()).map(Cow::Borrowed),
        last_trace: last
            .filter(|turn| turn.trace != TraceId::default())
            .map(|turn| Cow::Owned(URL_SAFE_NO_PAD.encode(turn.trace.0.to_be_bytes()))),
        late: last.map(|turn| (turn.late.count, turn.late.bytes)).unwrap_or_default(),
        agent: record.agent,
        blocked_until: record.blocked_until.map(Timestamp::as_millis),
        sends: steps.collect(),
    };
    serde_json::to_vec(&stored).map_err(|_| WHAT)
}

/// Decodes a record.
pub(in super::super) fn read_record(bytes: &[u8]) -> Result<ConversationRecord, CorruptData> {
    let stored: StoredRecord<'_> = serde_json::from_slice(bytes).map_err(|_| WHAT)?;
    let recent = URL_SAFE_NO_PAD.decode(stored.recent.as_bytes()).map_err(|_| WHAT)?;
    let (recent, []) = recent.as_chunks::<8>() else { return Err(WHAT) };
    let recent: RecentReplies =
        recent.iter().map(|bytes| Fingerprint::from_bits(u64::from_be_bytes(*bytes))).collect();
    let sends: RateWindow = stored
        .sends
        .into_iter()
        .scan(0_u64, |last, step| {
            *last = last.wrapping_add(step.cast_unsigned());
            Some(Timestamp::from_millis(*last))
        })
        .collect();
    let (count, bytes) = stored.late;
    let (echo, signer) = (stored.last_echo, stored.last_signer);
    let callback =
        stored.last_callback.map(|url| Callback { url: url.into(), signer: signer.map(Into::into) });
    let trace = stored.last_trace.map(|text| trace(&text)).transpose()?;
    let last_turn = stored.last_turn.map(|(message, ended_at)| {
        Ok(LastTurn {
            message: id(&message)?,
            ended_at: Timestamp::from_millis(ended_at),
            client_message_id: echo.map(|step| ended_at.wrapping_sub(step.cast_unsigned())),
            callback,
            trace: trace.unwrap_or_default(),
            late: LateReplies { count, bytes },
        })
    });
    Ok(ConversationRecord {
        epoch: stored.epoch,
        seq: stored.seq,
        write: stored.write,
        connected_at: stored.connected_at.map(Timestamp::from_millis),
        session_done: stored.session_done.map(|text| id(&text)).transpose()?,
        context: stored.context.map(|text| id(&text)).transpose()?,
        last_platform_message: stored.last_platform_message.map(Into::into),
        first_gap: stored
            .first_gap
            .map(|(since, own)| FirstGap { since: Timestamp::from_millis(since), own }),
        said_at: stored.said_at.map(Timestamp::from_millis),
        recent,
        session_id: stored.session_id.map(Into::into),
        last_turn: last_turn.transpose()?,
        agent: stored.agent,
        blocked_until: stored.blocked_until.map(Timestamp::from_millis),
        sends,
    })
}

fn trace(text: &str) -> Result<TraceId, CorruptData> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| WHAT)?;
    bytes.try_into().map(|bytes| TraceId(u128::from_be_bytes(bytes))).map_err(|_| WHAT)
}
