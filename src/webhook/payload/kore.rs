//! The format `kore-v2`: the body of the platform's own webhook channel, version 2 (protocol.md 9.4).
//!
//! The format is best effort, because RTM lacks some facts of that channel:
//!
//! - `endOfTask` is the end of our turn. In the channel it is the end of the platform's task.
//! - `endReason` is `Fulfilled` for a complete turn and `interrupted` for a failed or cut one.
//! - `completedTaskId` and `completedTaskName` are unknown and left out.
//! - One post carries the whole turn. The channel posts each message alone, and the end after them.
//! - `to` and `from` are those of the channel's synchronous answers.
//!
//! The platform's frames are read leniently, as in `rtm`: any frame that was accepted has a body.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::PayloadError;
use crate::domain::lenient_json::{JsonMember, elements, is_true, members, string};
use crate::domain::{DeliveryKind, NewDelivery};
use crate::reply_content;

/// The needed fields of a Reply.
struct ReplyData<'a> {
    message_id: Option<Cow<'a, str>>,
    text: Cow<'a, str>,
    created_on: Option<Cow<'a, str>>,
    /// The elements of the platform's frame.
    elements: Vec<&'a RawValue>,
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
    val: KoreValue<'a>,
    created_on: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum KoreValue<'a> {
    Text(Cow<'a, str>),
    /// The payload of a template, unchanged.
    Template(&'a RawValue),
}

/// Returns the body. `bot` is the id of the bot on the platform.
///
/// # Errors
/// The data is neither a Message nor a Reply.
pub(super) fn body(delivery: &NewDelivery, bot: &str) -> Result<Vec<u8>, PayloadError> {
    let (replies, end_reason) = match delivery.kind {
        DeliveryKind::MessageAnswered | DeliveryKind::MessageFailed => {
            let [replies, complete] =
                members(delivery.data.get(), ["replies", "complete"]).ok_or(PayloadError::Data)?;
            let replies = replies.and_then(elements).ok_or(PayloadError::Data)?;
            (replies, Some(if is_true(complete) { "Fulfilled" } else { "interrupted" }))
        }
        // The data of a test has the text of a reply.
        DeliveryKind::ReplyLate | DeliveryKind::ReplyUnsolicited | DeliveryKind::Test => {
            (vec![&*delivery.data], None)
        }
        // The configuration admits none of these for this form. It may have changed since.
        DeliveryKind::AgentStarted
        | DeliveryKind::AgentEnded
        | DeliveryKind::SessionStarted
        | DeliveryKind::SessionEnded
        | DeliveryKind::Gap
        | DeliveryKind::UserMessage
        | DeliveryKind::DeliveryDead => return Err(PayloadError::Data),
    };
    let replies: Option<Vec<_>> = replies.into_iter().map(reply).collect();
    let replies = replies.ok_or(PayloadError::Data)?;
    let happened = delivery.created_at.to_string();
    let payload = KorePayload {
        to: delivery.conversation.user().as_str(),
        from: bot,
        data: replies.iter().flat_map(|reply| kore_elements(reply, &happened)).collect(),
        version: "v2",
        end_of_task: end_reason.is_some(),
        end_reason,
    };
    serde_json::to_vec(&payload).map_err(|_| PayloadError::Data)
}

/// Reads a Reply. Returns `None` if it has no text.
fn reply(raw: &RawValue) -> Option<ReplyData<'_>> {
    let [message_id, text, created_on, event] =
        members(raw.get(), ["messageId", "text", "createdOn", "event"])?;
    let message = event.and_then(|event| members(event.get(), ["message"])).and_then(|[message]| message);
    Some(ReplyData {
        message_id: message_id.and_then(string),
        text: text.and_then(string)?,
        created_on: created_on.and_then(string),
        elements: message.and_then(elements).unwrap_or_default(),
    })
}

/// Returns a reply as elements of the channel: one for its text, or one for each element if it has templates.
fn kore_elements<'a>(reply: &'a ReplyData<'_>, happened: &'a str) -> Vec<KoreElement<'a>> {
    let kore_element = |r#type, val| KoreElement {
        r#type,
        val,
        created_on: reply.created_on.as_deref().unwrap_or(happened),
        message_id: reply.message_id.as_deref(),
    };
    if !reply.elements.iter().any(|element| template(element).is_some()) {
        return vec![kore_element("text", KoreValue::Text(Cow::Borrowed(&reply.text)))];
    }
    let of_element = |element: &&'a RawValue| match template(element) {
        Some(payload) => Some(kore_element("template", KoreValue::Template(payload))),
        None => Some(reply_content::of_message(element).text)
            .filter(|text| !text.is_empty())
            .map(|text| kore_element("text", KoreValue::Text(text.into()))),
    };
    reply.elements.iter().filter_map(of_element).collect()
}

/// Returns the payload of a template element as its author wrote it: `{"type": …, "payload": {…}}` (protocol.md 7.3).
fn template(element: &RawValue) -> Option<&RawValue> {
    let payload = nested(element, ["component", "payload"])?;
    let [kind, inner] = members(payload.get(), ["type", "payload"])?;
    let kind = string(kind?)?;
    (inner?.get().starts_with('{') && !matches!(&*kind, "text" | "error")).then_some(payload)
}

fn nested<'a>(raw: &'a RawValue, path: [&str; 2]) -> JsonMember<'a> {
    path.into_iter().try_fold(raw, member)
}

fn member<'a>(raw: &'a RawValue, name: &str) -> JsonMember<'a> {
    members(raw.get(), [name]).and_then(|[member]| member)
}
