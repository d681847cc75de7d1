//! Messages written as JSON within a text: templates of the platform, and messages of other bot frameworks.
//!
//! A script of a bot may print such a text (protocol.md 7.3). Other JSON in a text is what its author wrote, and stays.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::read_depth::ReadDepth;
use crate::domain::lenient_json::{elements, is_true, members, string};

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
    let own = ["payload", "template_type", "text", "text_message", "title", "heading"];
    if members(json, own)?.iter().any(Option::is_some) {
        return Some(EnvelopeSign::Certain);
    }
    let lists =
        ["quick_replies", "buttons", "elements", "attachments", "blocks", "fulfillmentMessages", "messages"];
    let has_list = members(json, lists)?.into_iter().flatten().any(|raw| raw.get().starts_with('['));
    let parts = ["attachment", "file", "interactive", "richContent", "overrideMessagePayload"];
    let has_part = members(json, parts)?.into_iter().flatten().any(|raw| raw.get().starts_with('{'));
    let [kind, message, content, body, fulfilment, is_template] =
        members(json, ["type", "message", "content", "body", "fulfillmentText", "isTemplate"])?;
    let has_kind = kind.and_then(string).is_some() || is_true(is_template);
    let has_kind = has_kind && message.or(content).or(body).is_some();
    (has_list || has_part || has_kind || fulfilment.is_some()).then_some(EnvelopeSign::Probable)
}
