//! The encoding of deliveries and their attempts.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CorruptData, conversation, id, is_default, number};
use crate::domain::{
    ConversationId, Delivery, DeliveryAttempt, DeliveryId, DeliveryKind, DeliveryOrigin, DeliveryState,
    NewDelivery, Timestamp, TraceId,
};
use crate::store::QueueId;

const WHAT: CorruptData = CorruptData("a delivery");

/// The fields of a delivery except conversation, target and data.
#[derive(Serialize, Deserialize)]
struct StoredDelivery<'a> {
    #[serde(rename = "k", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "m", borrow, default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    /// The name of the endpoint. A callback has none.
    #[serde(rename = "ep", borrow, default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Cow<'a, str>>,
    #[serde(rename = "cs", borrow, default, skip_serializing_if = "Option::is_none")]
    signer: Option<Cow<'a, str>>,
    /// 32 hexadecimal digits.
    #[serde(rename = "tr", borrow, default, skip_serializing_if = "Option::is_none")]
    trace: Option<Cow<'a, str>>,
    #[serde(rename = "a")]
    created_at: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredAttempt<'a> {
    #[serde(rename = "a")]
    at: u64,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "e", borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(rename = "d", default, skip_serializing_if = "is_default")]
    duration_ms: u64,
    #[serde(rename = "r", borrow, default, skip_serializing_if = "Option::is_none")]
    response: Option<Cow<'a, str>>,
}

/// Parses a delivery's id.
pub(in super::super) fn delivery_id(text: &str) -> Result<DeliveryId, CorruptData> {
    text.parse().map_err(|_| CorruptData("a delivery's id"))
}

/// Encodes the fields of a new delivery except conversation, target and data.
pub(in super::super) fn new_delivery(new: &NewDelivery) -> Result<Vec<u8>, CorruptData> {
    let signer = match &new.origin {
        DeliveryOrigin::Endpoint(_) => None,
        DeliveryOrigin::Callback { signer } => signer.as_deref(),
    };
    let stored = StoredDelivery {
        kind: Cow::Borrowed(new.kind.as_str()),
        message: new.message.map(|id| Cow::Owned(id.to_string())),
        endpoint: new.endpoint().map(Cow::Borrowed),
        signer: signer.map(Cow::Borrowed),
        trace: (new.trace != TraceId::default()).then(|| Cow::Owned(new.trace.to_string())),
        created_at: new.created_at.as_millis(),
    };
    serde_json::to_vec(&stored).map_err(|_| WHAT)
}

/// Encodes the status of a delivery before its first attempt. The token of the attempt is its last word.
pub(in super::super) fn untried_status(queue: QueueId, created_at: Timestamp) -> String {
    format!("{} {queue} {} 0 0 ", DeliveryState::Pending.as_str(), created_at.as_millis())
}

/// Encodes the status of a delivery whose first attempt succeeded.
pub(in super::super) fn delivered_status(queue: QueueId, created_at: Timestamp) -> String {
    format!("{} {queue} {} 1 1 ", DeliveryState::Delivered.as_str(), created_at.as_millis())
}

/// Decodes a delivery as it was written.
pub(in super::super) fn read_new_delivery(
    of: DeliveryId,
    conversation: ConversationId,
    target: String,
    told: &[u8],
    data: String,
) -> Result<NewDelivery, CorruptData> {
    let stored: StoredDelivery<'_> = serde_json::from_slice(told).map_err(|_| WHAT)?;
    let kind = DeliveryKind::ALL.into_iter().find(|kind| kind.as_str() == stored.kind).ok_or(WHAT)?;
    let trace = stored.trace.map(|trace| u128::from_str_radix(&trace, 16).map(TraceId).map_err(|_| WHAT));
    Ok(NewDelivery {
        id: of,
        kind,
        conversation,
        message: stored.message.map(|message| id(&message)).transpose()?,
        target: target.into(),
        origin: match stored.endpoint {
            Some(name) => DeliveryOrigin::Endpoint(name.into()),
            None => DeliveryOrigin::Callback { signer: stored.signer.map(Into::into) },
        },
        trace: trace.transpose()?.unwrap_or_default(),
        created_at: Timestamp::from_millis(stored.created_at),
        data: RawValue::from_string(data).map_err(|_| WHAT)?,
    })
}

/// Encodes an attempt.
pub(in super::super) fn attempt(attempt: &DeliveryAttempt) -> Result<Vec<u8>, CorruptData> {
    let stored = StoredAttempt {
        at: attempt.at.as_millis(),
        status: attempt.status,
        error: attempt.error.as_deref().map(Cow::Borrowed),
        duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        response: attempt.response.as_deref().map(Cow::Borrowed),
    };
    serde_json::to_vec(&stored).map_err(|_| WHAT)
}

fn read_attempt(bytes: &[u8]) -> Result<DeliveryAttempt, CorruptData> {
    let stored: StoredAttempt<'_> = serde_json::from_slice(bytes).map_err(|_| WHAT)?;
    Ok(DeliveryAttempt {
        at: Timestamp::from_millis(stored.at),
        status: stored.status,
        error: stored.error.map(Into::into),
        duration: Duration::from_millis(stored.duration_ms),
        response: stored.response.map(Into::into),
    })
}

/// Parses the state, the first word of the status. The rest belongs to the scripts.
fn state(stands: &[u8]) -> Result<DeliveryState, CorruptData> {
    let word = stands.split(|&byte| byte == b' ').next().unwrap_or_default();
    DeliveryState::ALL.into_iter().find(|state| state.as_str().as_bytes() == word).ok_or(WHAT)
}

/// Decodes a delivery from the fields of its hash and the time when it is due.
pub(in super::super) fn delivery(
    of: DeliveryId,
    due: Option<Timestamp>,
    fields: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), CorruptData>>,
) -> Result<Delivery, CorruptData> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| WHAT);
    let (mut talk, mut target, mut told, mut data, mut stands) = (None, None, None, None, None);
    let (mut reason, mut attempts) = (None, Vec::new());
    for field in fields {
        let (field, value) = field?;
        match field.as_slice() {
            b"c" => talk = Some(conversation(&text(value)?)?),
            b"t" => target = Some(text(value)?),
            b"n" => told = Some(value),
            b"b" => data = Some(text(value)?),
            b"s" => stands = Some(state(&value)?),
            b"r" => reason = Some(text(value)?.into()),
            [b'a', place @ ..] if !place.is_empty() => attempts.push((number(place)?, read_attempt(&value)?)),
            _ => {}
        }
    }
    attempts.sort_unstable_by_key(|(place, _)| *place);
    let (Some(talk), Some(target), Some(told), Some(data), Some(stands)) = (talk, target, told, data, stands)
    else {
        return Err(WHAT);
    };
    Ok(Delivery {
        new: read_new_delivery(of, talk, target, &told, data)?,
        state: stands,
        next_attempt_at: due,
        reason,
        attempts: attempts.into_iter().map(|(_, attempt)| attempt).collect(),
    })
}
