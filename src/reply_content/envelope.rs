//! Messages written as JSON within a text: templates of the platform, and messages of other bot frameworks.
//!
//! A script of a bot may print such a text (protocol.md 7.3). Other JSON in a text is what its author wrote, and stays.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::read_depth::ReadDepth;
use crate::domain::lenient_json::{elements, is_true, members, string, string_or_number};

/// A message within a text.
pub(super) struct TextEnvelope<'t> {
    pub(super) json: Cow<'t, str>,
    pub(super) depth: ReadDepth,
    /// Whether it is a message for certain, even if it has no words.
    pub(super) is_certain: bool,
}

/// Whether an object is a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EnvelopeSign {
    Certain,
    /// It is one if it has words, choices or media.
    Probable,
}

/// Finds the message that the text is: JSON, JSON escaped for HTML, or a JSON string that holds one of these.
pub(super) fn open(text: &str, depth: ReadDepth) -> Option<TextEnvelope<'_>> {
    if !depth.opens_texts || !text.trim_start().starts_with(['{', '[', '"', '&']) {
        return None;
    }
    open_json(Cow::Borrowed(text), depth).or_else(|| {
        let Cow::Owned(plain) = depth.plain(text) else { return None };
        open_json(Cow::Owned(plain), depth.unescaped())
    })
}

fn open_json(json: Cow<'_, str>, depth: ReadDepth) -> Option<TextEnvelope<'_>> {
    if json.trim_start().starts_with('"') {
        let text = serde_json::from_str::<&RawValue>(&json).ok().and_then(string)?.into_owned();
        let inner = open(&text, depth.down()?)?;
        let (depth, is_certain) = (inner.depth, inner.is_certain);
        return Some(TextEnvelope { json: Cow::Owned(inner.json.into_owned()), depth, is_certain });
    }
    let sign = recognise(&json)?;
    Some(TextEnvelope { json, depth, is_certain: sign == EnvelopeSign::Certain })
}

fn recognise(json: &str) -> Option<EnvelopeSign> {
    if json.trim_start().starts_with('[') {
        let all = serde_json::from_str(json).ok().and_then(elements)?;
        let is_message = |element: &&RawValue| recognise_object(element.get()).is_some();
        return (!all.is_empty() && all.iter().all(is_message)).then_some(EnvelopeSign::Probable);
    }
    recognise_object(json)
}

/// Judges an object by its names. Members of the platform's own messages are certain signs. Names of other frameworks
/// are signs beside a fitting value only.
fn recognise_object(json: &str) -> Option<EnvelopeSign> {
    recognise_message(json).or_else(|| {
        let around = ["message", "output", "queryResult", "fulfillmentResponse", "fulfillment_response"];
        let mut inner = members(json, around)?.into_iter().flatten();
        let has_message = inner.any(|raw| recognise_message(raw.get()).is_some());
        has_message.then_some(EnvelopeSign::Probable)
    })
}

/// Judges an object that is a message itself.
fn recognise_message(json: &str) -> Option<EnvelopeSign> {
    let mut words = members(json, ["text", "text_message", "title", "heading"])?.into_iter().flatten();
    let has_words = words.any(|raw| string_or_number(raw).is_some());
    if has_words || members(json, ["payload", "template_type"])?.iter().any(Option::is_some) {
        return Some(EnvelopeSign::Certain);
    }
    let lists = [
        "quick_replies",
        "buttons",
        "elements",
        "attachments",
        "blocks",
        "fulfillmentMessages",
        "messages",
        "richContent",
        "generic",
    ];
    let has_list = members(json, lists)?.into_iter().flatten().any(|raw| raw.get().starts_with('['));
    let parts = ["text", "attachment", "file", "interactive", "richContent", "overrideMessagePayload"];
    let has_part = members(json, parts)?.into_iter().flatten().any(|raw| raw.get().starts_with('{'));
    let [kind, role, message, content, body, fulfilment, is_template, recipient] = members(
        json,
        ["type", "role", "message", "content", "body", "fulfillmentText", "isTemplate", "recipient_id"],
    )?;
    let kind = kind.and_then(string);
    let has_kind = kind.is_some() || role.and_then(string).is_some() || is_true(is_template);
    let has_kind = has_kind && message.or(content).or(body).is_some();
    // Some name the member with their content by its kind: `{"type": "image", "image": {…}}`.
    let has_own_part = || {
        let part = members(json, [kind.as_deref()?]).and_then(|[part]| part)?;
        Some(part.get().starts_with('{'))
    };
    let is_message = has_list || has_part || has_kind || fulfilment.or(recipient).is_some();
    (is_message || has_own_part() == Some(true)).then_some(EnvelopeSign::Probable)
}
