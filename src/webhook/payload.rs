//! What is posted: the body in the receiver's form, and the headers around it.
//!
//! A body is made of what is stored and nothing else, so every attempt carries the same bytes; what differs from attempt
//! to attempt is in headers.

mod kore;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::sender::{HeaderMap, HeaderName, HeaderValue, header};
use super::signature;
use super::target_table::DeliveryOptions;
use crate::config::PayloadFormat;
use crate::domain::{NewDelivery, TraceId};
use crate::store::ClaimedDelivery;

/// The header that names a delivery, the same in every attempt.
const ID: HeaderName = HeaderName::from_static("webhook-id");
/// When the attempt was made, in seconds since 1970.
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures.
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// The number of the attempt, from 1.
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
/// In which trace (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: &str = concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"));

/// What a part of a path keeps as it is (RFC 3986, unreserved).
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What was stored is not what this version stores: a bug, or another program wrote it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    /// The data is no Message and no Reply.
    #[error("what is stored of the delivery cannot be read as a Message or a Reply")]
    Data(#[from] serde_json::Error),
    /// Something in it fits into no header.
    #[error("what is stored of the delivery fits into no header")]
    Header,
}

/// The body and the headers of an attempt; `span` names it in its trace.
///
/// # Errors
/// [`PayloadError`].
pub(super) fn compose(
    taken: &ClaimedDelivery,
    manner: &DeliveryOptions<'_>,
    span: u64,
) -> Result<(HeaderMap, Bytes), PayloadError> {
    let delivery = &taken.delivery;
    let body = body(delivery, manner)?;
    let mut headers = HeaderMap::with_capacity(16);
    let mut set = |name: HeaderName, value: &str| {
        HeaderValue::from_str(value)
            .map(|value| drop(headers.insert(name, value)))
            .map_err(|_| PayloadError::Header)
    };

    let id = delivery.id.to_string();
    let seconds = taken.now.as_millis() / 1000;
    set(ID, &id)?;
    set(TIMESTAMP, &seconds.to_string())?;
    set(SIGNATURE, &signature::sign(manner.secrets, &id, seconds, &body))?;
    set(ATTEMPT, &taken.made.saturating_add(1).to_string())?;
    set(header::USER_AGENT, USER_AGENT)?;
    set(header::CONTENT_TYPE, "application/json")?;
    if delivery.trace != TraceId::default() {
        set(TRACEPARENT, &format!("00-{}-{span:016x}-01", delivery.trace))?;
    }
    if manner.form == PayloadFormat::CloudEvents {
        let event = |name| HeaderName::from_static(name);
        set(event("ce-specversion"), "1.0")?;
        set(event("ce-id"), &id)?;
        set(event("ce-type"), delivery.kind.as_str())?;
        set(event("ce-source"), &source(delivery))?;
        set(event("ce-time"), &delivery.created_at.to_string())?;
        if let Some(message) = delivery.message {
            set(event("ce-subject"), &message.to_string())?;
        }
    }
    if let Some(extras) = manner.extras {
        if let Some((name, key)) = &extras.legacy {
            set(name.clone(), &key.sign(&body))?;
        }
        for (name, value) in &extras.headers {
            headers.append(name.clone(), value.clone());
        }
    }
    Ok((headers, body))
}

/// The same bytes in every attempt.
fn body(delivery: &NewDelivery, manner: &DeliveryOptions<'_>) -> Result<Bytes, PayloadError> {
    let data = delivery.data.get();
    Ok(match manner.form {
        PayloadFormat::Standard => {
            let mut body = String::with_capacity(data.len() + 96);
            // None of the words needs escaping, and a `String` takes all that is written to it.
            let _ = write!(
                body,
                r#"{{"type":"{}","timestamp":"{}","data":{data}}}"#,
                delivery.kind.as_str(),
                delivery.created_at
            );
            body.into()
        }
        PayloadFormat::CloudEvents => Bytes::copy_from_slice(data.as_bytes()),
        PayloadFormat::KoreV2 => kore::body(delivery, manner.bot)?.into(),
    })
}

/// The conversation, as a reference into our API.
fn source(delivery: &NewDelivery) -> String {
    let encoded = |text| utf8_percent_encode(text, KEPT);
    let conversation = &delivery.conversation;
    format!(
        "/conversations/{}?bot={}",
        encoded(conversation.user.as_str()),
        encoded(conversation.bot.as_str())
    )
}
