//! `kore-v2`: what the platform's own webhook channel, version 2, posts to a receiver (protocol.md 9.4).
//!
//! Best effort, since that channel knows what RTM does not say. `endOfTask` is the end of the platform's task there, and
//! the end of our turn here; `endReason` tells a turn that was complete (`Fulfilled`) from one that failed or was cut
//! (`interrupted`); `completedTaskId` and `completedTaskName` are unknown and left out. The channel posts each message by
//! itself and the end after them: here one post carries the turn. `to` and `from` are those of its synchronous answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{DeliveryKind, NewDelivery};

#[derive(Deserialize)]
struct MessageData<'a> {
    #[serde(borrow)]
    replies: Vec<ReplyData<'a>>,
    complete: Option<bool>,
}

/// What is needed of a Reply.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplyData<'a> {
    #[serde(borrow)]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow)]
    created_on: Option<Cow<'a, str>>,
    /// The platform's frame, whatever its shape.
    event: Value,
}

#[derive(Serialize)]
struct KorePayload<'a> {
    to: &'a str,
    from: &'a str,
    data: Vec<KoreElement<'a>>,
    #[serde(rename = "_v")]
    version: &'static str,
    #[serde(rename = "endOfTask")]
    end_of_task: bool,
    #[serde(rename = "endReason", skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KoreElement<'a> {
    r#type: &'static str,
    val: Cow<'a, Value>,
    created_on: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
}

/// The body; `bot` is the bot's id on the platform.
///
/// # Errors
/// The data is no Message or Reply.
pub(super) fn body(delivery: &NewDelivery, bot: &str) -> Result<Vec<u8>, serde_json::Error> {
    let data = delivery.data.get();
    let (replies, end_reason) = match delivery.kind {
        DeliveryKind::MessageAnswered | DeliveryKind::MessageFailed => {
            let ended: MessageData<'_> = serde_json::from_str(data)?;
            let whole = ended.complete == Some(true);
            (ended.replies, Some(if whole { "Fulfilled" } else { "interrupted" }))
        }
        DeliveryKind::ReplyLate | DeliveryKind::ReplyUnsolicited => (vec![serde_json::from_str(data)?], None),
    };
    let happened = delivery.created_at.to_string();
    let push = KorePayload {
        to: delivery.conversation.user.as_str(),
        from: bot,
        data: replies.iter().flat_map(|said| parts(said, &happened)).collect(),
        version: "v2",
        end_of_task: end_reason.is_some(),
        end_reason,
    };
    serde_json::to_vec(&push)
}

/// A reply as the channel has it: its text, or where it holds templates each element by itself.
fn parts<'a>(said: &'a ReplyData<'_>, happened: &'a str) -> Vec<KoreElement<'a>> {
    let part = |r#type, val| KoreElement {
        r#type,
        val,
        created_on: said.created_on.as_deref().unwrap_or(happened),
        message_id: said.message_id.as_deref(),
    };
    let elements = said.event.get("message").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if !elements.iter().any(|element| template(element).is_some()) {
        return vec![part("text", Cow::Owned(Value::String(said.text.as_ref().into())))];
    }
    let of_element = |element| match template(element) {
        Some(payload) => Some(part("template", Cow::Borrowed(payload))),
        None => text(element).map(|text| part("text", Cow::Borrowed(text))),
    };
    elements.iter().filter_map(of_element).collect()
}

/// The payload of an element that is more than text, as its author wrote it: `{"type": …, "payload": {…}}`
/// (protocol.md 7.3).
fn template(element: &Value) -> Option<&Value> {
    let payload = element.get("component")?.get("payload")?;
    let kind = payload.get("type")?.as_str()?;
    (payload.get("payload")?.is_object() && !matches!(kind, "text" | "error")).then_some(payload)
}

/// The text of an element beside a template.
fn text(element: &Value) -> Option<&Value> {
    let component = || element.get("component")?.get("payload")?.get("text");
    let fallback = || element.get("cInfo")?.get("body");
    component().or_else(fallback).filter(|text| text.is_string())
}
