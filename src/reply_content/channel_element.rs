//! Replies in the form of the platform's webhook channel, version 2 (protocol.md 9.4).
//!
//! The door for callers of that channel answers with it, and the webhooks' format `kore-v2` posts it. RTM lacks some facts
//! of the channel, so the form is best effort:
//!
//! - `endOfTask` is the end of our turn. In the channel it is the end of the platform's task.
//! - `endReason` is `Fulfilled` for a complete turn and `interrupted` for a failed or cut one.
//! - A frame that tells these members, or the completed task, goes before both.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::lenient_json::{JsonMember, boolean, elements, members, string};

/// A reply with what the channel tells of it.
pub(crate) struct ChannelReply<'a> {
    pub(crate) message_id: Option<Cow<'a, str>>,
    pub(crate) text: Cow<'a, str>,
    pub(crate) created_on: Option<Cow<'a, str>>,
    /// The platform's frame.
    pub(crate) frame: JsonMember<'a>,
}

/// An element of `data`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelElement<'a> {
    r#type: &'static str,
    val: ChannelValue<'a>,
    created_on: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
}

/// The value of an element.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ChannelValue<'a> {
    Text(Cow<'a, str>),
    /// The payload of a template, unchanged.
    Template(&'a RawValue),
}

/// The `text` of version 1: one text, or a list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ChannelText<'a> {
    One(Cow<'a, str>),
    Several(Vec<Cow<'a, str>>),
}

/// The members that tell the end of a task.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelEnd<'a> {
    end_of_task: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_task_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_task_name: Option<Cow<'a, str>>,
}

impl ChannelReply<'_> {
    /// Returns the reply as elements: one for its text, or one for each element of the frame if it has templates. `happened`
    /// is the time of a reply that has none.
    pub(crate) fn elements<'a>(&'a self, happened: &'a str) -> Vec<ChannelElement<'a>> {
        let element = |r#type, val| ChannelElement {
            r#type,
            val,
            created_on: self.created_on.as_deref().unwrap_or(happened).into(),
            message_id: self.message_id.as_deref(),
        };
        let message = self.frame.and_then(|frame| member(frame, "message"));
        let parts = message.and_then(elements).unwrap_or_default();
        if !parts.iter().any(|part| template(part).is_some()) {
            return vec![element("text", ChannelValue::Text(Cow::Borrowed(&self.text)))];
        }
        let of_part = |part: &'a RawValue| match template(part) {
            Some(payload) => Some(element("template", ChannelValue::Template(payload))),
            None => Some(super::of_message(part).text)
                .filter(|text| !text.is_empty())
                .map(|text| element("text", ChannelValue::Text(text.into()))),
        };
        parts.into_iter().filter_map(of_part).collect()
    }
}

impl<'a> ChannelText<'a> {
    /// Returns the text of these elements. A single one is a text, unless a list is wanted.
    pub(crate) fn of(elements: Vec<ChannelElement<'a>>, as_list: bool) -> Self {
        let mut texts: Vec<_> = elements.into_iter().map(v1_text).collect();
        match texts.pop() {
            Some(only) if texts.is_empty() && !as_list => Self::One(only),
            last => {
                texts.extend(last);
                Self::Several(texts)
            }
        }
    }
}

impl<'a> ChannelEnd<'a> {
    /// Returns the end of a turn. `frame` is that of its last reply.
    pub(crate) fn of_turn(complete: bool, frame: JsonMember<'a>) -> Self {
        let names = ["endOfTask", "endReason", "completedTaskId", "completedTaskName"];
        let told = frame.and_then(|frame| members(frame.get(), names)).unwrap_or_default();
        let [ended, reason, id, name] = told;
        let end_of_task = ended.and_then(boolean).unwrap_or(true);
        let default = if complete { "Fulfilled" } else { "interrupted" };
        Self {
            end_of_task,
            end_reason: reason.and_then(string).or_else(|| end_of_task.then_some(Cow::Borrowed(default))),
            completed_task_id: id.and_then(string),
            completed_task_name: name.and_then(string),
        }
    }
}

/// Returns an element as version 1 writes it: a template as escaped JSON.
fn v1_text(element: ChannelElement<'_>) -> Cow<'_, str> {
    match element.val {
        ChannelValue::Text(text) => text,
        ChannelValue::Template(payload) => escaped(payload.get()).into(),
    }
}

/// Escapes the five characters as the platform does.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    for character in json.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            other => text.push(other),
        }
    }
    text
}

/// Returns the payload of a template element as its author wrote it: `{"type": …, "payload": {…}}` (protocol.md 7.3).
fn template(element: &RawValue) -> Option<&RawValue> {
    let payload = member(member(element, "component")?, "payload")?;
    let [kind, inner] = members(payload.get(), ["type", "payload"])?;
    let kind = string(kind?)?;
    (inner?.get().starts_with('{') && !matches!(&*kind, "text" | "error")).then_some(payload)
}

fn member<'a>(raw: &'a RawValue, name: &str) -> JsonMember<'a> {
    members(raw.get(), [name]).and_then(|[member]| member)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn end(complete: bool, frame: Option<&Value>) -> Value {
        let frame = frame.map(|frame| RawValue::from_string(frame.to_string()).unwrap());
        serde_json::to_value(ChannelEnd::of_turn(complete, frame.as_deref())).unwrap()
    }

    #[test]
    fn end_follows_the_turn_unless_its_frame_tells_one() {
        assert_eq!(end(true, None), json!({"endOfTask": true, "endReason": "Fulfilled"}));
        assert_eq!(end(false, Some(&json!({}))), json!({"endOfTask": true, "endReason": "interrupted"}));
        assert_eq!(end(true, Some(&json!({"endOfTask": false}))), json!({"endOfTask": false}));
        let told = json!({"endOfTask": true, "endReason": "Canceled", "completedTaskId": "dg-1", "completedTaskName": "Pay"});
        assert_eq!(end(true, Some(&told)), told);
    }
}
