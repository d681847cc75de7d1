//! The format `kore-v2`: the body of the platform's own webhook channel, version 2 (protocol.md 9.4).
//!
//! The format is best effort, because RTM lacks some facts of that channel:
//!
//! - `endOfTask` is the end of our turn. In the channel it is the end of the platform's task.
//! - `endReason` is `Fulfilled` for a complete turn and `interrupted` for a failed or cut one.
//! - `completedTaskId` and `completedTaskName` are unknown and left out.
//! - One post carries the whole turn. The channel posts each message alone, and the end after them.
//! - `to` and `from` are those of the channel's synchronous answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{DeliveryKind, NewDelivery};

/// The needed fields of an ended Message.
#[derive(Deserialize)]
struct MessageData<'a> {
    #[serde(borrow)]
    replies: Vec<ReplyData<'a>>,
    complete: Option<bool>,
}

/// The needed fields of a Reply.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplyData<'a> {
    #[serde(borrow)]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow)]
    created_on: Option<Cow<'a, str>>,
    /// The platform's frame, of any shape.
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

/// Returns the body. `bot` is the id of the bot on the platform.
///
/// # Errors
/// The data is neither a Message nor a Reply.
pub(super) fn body(delivery: &NewDelivery, bot: &str) -> Result<Vec<u8>, serde_json::Error> {
    let data = delivery.data.get();
    let (replies, end_reason) = match delivery.kind {
        DeliveryKind::MessageAnswered | DeliveryKind::MessageFailed => {
            let message: MessageData<'_> = serde_json::from_str(data)?;
            let whole = message.complete == Some(true);
            (message.replies, Some(if whole { "Fulfilled" } else { "interrupted" }))
        }
        DeliveryKind::ReplyLate | DeliveryKind::ReplyUnsolicited => (vec![serde_json::from_str(data)?], None),
    };
    let happened = delivery.created_at.to_string();
    let payload = KorePayload {
        to: delivery.conversation.user().as_str(),
        from: bot,
        data: replies.iter().flat_map(|reply| elements(reply, &happened)).collect(),
        version: "v2",
        end_of_task: end_reason.is_some(),
        end_reason,
    };
    serde_json::to_vec(&payload)
}

/// Returns a reply as elements of the channel: one for its text, or one for each element if it has templates.
fn elements<'a>(reply: &'a ReplyData<'_>, happened: &'a str) -> Vec<KoreElement<'a>> {
    let kore_element = |r#type, val| KoreElement {
        r#type,
        val,
        created_on: reply.created_on.as_deref().unwrap_or(happened),
        message_id: reply.message_id.as_deref(),
    };
    let elements =
        reply.event.get("message").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if !elements.iter().any(|element| template(element).is_some()) {
        return vec![kore_element("text", Cow::Owned(Value::String(reply.text.as_ref().into())))];
    }
    let of_element = |element| match template(element) {
        Some(payload) => Some(kore_element("template", Cow::Borrowed(payload))),
        None => text(element).map(|text| kore_element("text", Cow::Borrowed(text))),
    };
    elements.iter().filter_map(of_element).collect()
}

/// Returns the payload of a template element as its author wrote it: `{"type": …, "payload": {…}}` (protocol.md 7.3).
fn template(element: &Value) -> Option<&Value> {
    let payload = element.get("component")?.get("payload")?;
    let kind = payload.get("type")?.as_str()?;
    (payload.get("payload")?.is_object() && !matches!(kind, "text" | "error")).then_some(payload)
}

/// Returns the text of an element without a template.
fn text(element: &Value) -> Option<&Value> {
    let component = || element.get("component")?.get("payload")?.get("text");
    let fallback = || element.get("cInfo")?.get("body");
    component().or_else(fallback).filter(|text| text.is_string())
}
