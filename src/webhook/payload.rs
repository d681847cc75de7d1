//! Composes a request: the body in the receiver's format, and the headers.
//!
//! The body depends only on the stored delivery, so every attempt carries the same bytes. Values that differ between
//! attempts are in headers.

mod kore;
mod kore_channel;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::sender::{HeaderMap, HeaderName, HeaderValue, header};
use super::signature;
use super::target_table::DeliveryOptions;
use crate::config::PayloadFormat;
use crate::domain::{DeliveryId, MessageId, NewDelivery, Timestamp, TraceId};
use crate::store::ClaimedDelivery;

/// The header with the id of the delivery, the same in every attempt.
const ID: HeaderName = HeaderName::from_static("webhook-id");
/// The header with the time of the attempt, in seconds since 1970.
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The header with the signatures.
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// The header with the number of the attempt, from 1.
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
/// The header with the trace (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: &str = concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"));

/// The prefix of the types of `CloudEvents`, in reverse-DNS form.
const EVENT_TYPE_PREFIX: &str = "io.github.rtm-bridge.";

/// The stored delivery cannot be composed: a bug, or another program wrote it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    /// The data is neither a Message nor a Reply.
    #[error("the stored delivery cannot be read as a Message or a Reply")]
    Data,
    /// A value is not allowed in a header.
    #[error("a value of the stored delivery is not allowed in a header")]
    Header,
}

/// Returns the headers and the body of an attempt. `span` is the id of the attempt in its trace. `signed_at` is the wall
/// clock's time, with which receivers compare their own.
///
/// # Errors
/// [`PayloadError`].
pub(super) fn compose(
    claimed: &ClaimedDelivery,
    options: &DeliveryOptions<'_>,
    span: u64,
    signed_at: Timestamp,
) -> Result<(HeaderMap, Bytes), PayloadError> {
    let delivery = &claimed.delivery;
    let body = body(delivery, options)?;
    let mut headers = HeaderMap::with_capacity(16);
    let mut set = |name: HeaderName, value: &str| {
        HeaderValue::from_str(value)
            .map(|value| drop(headers.insert(name, value)))
            .map_err(|_| PayloadError::Header)
    };

    let id = delivery.id.to_string();
    let seconds = signed_at.as_millis() / 1000;
    set(ID, &id)?;
    set(TIMESTAMP, &seconds.to_string())?;
    // The posts of the webhook channel may have no secret.
    if !options.secrets.is_empty() {
        set(SIGNATURE, &signature::sign(options.secrets, &id, seconds, &body))?;
    }
    set(ATTEMPT, &claimed.made.saturating_add(1).to_string())?;
    set(header::USER_AGENT, USER_AGENT)?;
    set(header::ACCEPT_ENCODING, "identity")?;
    set(header::CONTENT_TYPE, content_type(options.format))?;
    if delivery.trace != TraceId::default() {
        set(TRACEPARENT, &format!("00-{}-{span:016x}-01", delivery.trace))?;
    }
    if options.format == PayloadFormat::CloudEvents {
        let event = |name| HeaderName::from_static(name);
        set(event("ce-specversion"), "1.0")?;
        set(event("ce-id"), &id)?;
        set(event("ce-type"), &event_type(delivery))?;
        set(event("ce-source"), &delivery.conversation.path())?;
        set(event("ce-time"), &delivery.created_at.to_string())?;
        if let Some(message) = delivery.message {
            set(event("ce-subject"), &message.to_string())?;
        }
    }
    if let Some(extra) = options.extra_headers {
        if let Some((name, key)) = &extra.legacy {
            set(name.clone(), &key.sign(&body))?;
        }
        for (name, value) in &extra.headers {
            headers.append(name.clone(), value.clone());
        }
    }
    // Firewalls expect it of each request. An operator may have set another.
    if !headers.contains_key(header::ACCEPT) {
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    }
    Ok((headers, body))
}

/// Returns the body, the same in every attempt.
fn body(delivery: &NewDelivery, options: &DeliveryOptions<'_>) -> Result<Bytes, PayloadError> {
    let data = delivery.data.get();
    Ok(match options.format {
        PayloadFormat::Standard => {
            let mut body = String::with_capacity(data.len() + 96);
            // Type and timestamp need no escaping, and a write to a `String` cannot fail.
            let _ = write!(
                body,
                r#"{{"type":"{}","timestamp":"{}","data":{data}}}"#,
                delivery.kind.as_str(),
                delivery.created_at
            );
            body.into()
        }
        PayloadFormat::CloudEvents => Bytes::copy_from_slice(data.as_bytes()),
        PayloadFormat::CloudEventsStructured => {
            let event = StructuredEvent {
                specversion: "1.0",
                id: delivery.id,
                r#type: event_type(delivery),
                source: delivery.conversation.path(),
                subject: delivery.message,
                time: delivery.created_at,
                datacontenttype: "application/json",
                data: &delivery.data,
            };
            serde_json::to_vec(&event).map_err(|_| PayloadError::Data)?.into()
        }
        PayloadFormat::KoreV2 => kore::body(delivery, options.platform_bot)?.into(),
        PayloadFormat::KoreChannel(version) => {
            kore_channel::body(delivery, options.platform_bot, version)?.into()
        }
    })
}

/// An event in the structured mode of `CloudEvents`.
#[derive(Serialize)]
struct StructuredEvent<'a> {
    specversion: &'static str,
    id: DeliveryId,
    r#type: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<MessageId>,
    time: Timestamp,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

fn event_type(delivery: &NewDelivery) -> String {
    format!("{EVENT_TYPE_PREFIX}{}", delivery.kind.as_str())
}

const fn content_type(format: PayloadFormat) -> &'static str {
    match format {
        PayloadFormat::CloudEventsStructured => "application/cloudevents+json",
        PayloadFormat::Standard
        | PayloadFormat::CloudEvents
        | PayloadFormat::KoreV2
        | PayloadFormat::KoreChannel(_) => "application/json",
    }
}
