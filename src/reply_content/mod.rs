//! Reads the parts of a message that a user sees: its text, the choices that it offers, and its media.
//!
//! One reader serves live frames, records of history and the format `kore-v2` of webhooks, so the same message reads the
//! same everywhere. The rules are in api.md 1, "The Reply", and the shapes in protocol.md 7.3. Reading never fails. A
//! caller gets the raw frame too, with every member that the reader leaves out.
//!
//! Most messages are plain text. Such a message is read without an allocation beside its text.

mod channel_element;
mod choices;
mod content_draft;
mod envelope;
mod html_entities;
mod json_members;
mod labels;
mod media;
mod message_marks;
mod read_depth;
mod tables;
mod templates;
#[cfg(test)]
mod tests;
mod unknown_templates;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub(crate) use self::channel_element::{ChannelElement, ChannelEnd, ChannelReply, ChannelText};
use self::content_draft::ContentDraft;
pub(crate) use self::message_marks::{announces_more, has_content, is_agent_line, is_template};
use self::read_depth::ReadDepth;
use crate::domain::lenient_json::{JsonMember, elements, members, only_members, string};
use crate::domain::{ReplyChoice, ReplyMedia};

/// The parts of a message that a user sees.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplyContent {
    pub(crate) text: String,
    pub(crate) choices: Vec<ReplyChoice>,
    pub(crate) media: Vec<ReplyMedia>,
}

/// Reads a `message`: a list of elements, or one of them.
pub(crate) fn of_message(message: &RawValue) -> ReplyContent {
    read_elements(Some(message), None, ReadDepth::MESSAGE)
}

/// Reads a record of the bot: its `components`, and the text that the user saw in place of the first one's words.
pub(crate) fn of_record(components: JsonMember<'_>, shown: Option<&str>) -> ReplyContent {
    read_elements(components, shown, ReadDepth::MESSAGE)
}

/// Returns the text of a record of the user.
pub(crate) fn of_user_record(components: JsonMember<'_>, shown: Option<&str>) -> String {
    read_elements(components, shown, ReadDepth::USER).text
}

/// Returns the text of a streamed frame's `message`, with its blanks. Here `cInfo.body` comes first. Only the Web SDK
/// appends pieces, and it takes them from there (protocol.md 7.3, 7.4).
pub(crate) fn of_piece(message: &RawValue) -> String {
    let mut text = String::new();
    for element in elements(message).unwrap_or_else(|| vec![message]) {
        let body = members(element.get(), ["cInfo"]).and_then(|[info]| body(info?));
        if let Some(body) = body.filter(|body| !body.is_empty()) {
            text.push_str(&ReadDepth::PIECE.plain(&body));
        } else {
            let mut draft = ContentDraft::default();
            draft.read_element(element, None, ReadDepth::PIECE);
            text.push_str(&draft.into_content().text);
        }
    }
    text
}

/// Returns the whole text that the last frame of a stream carries: a string, or an object with a text.
pub(crate) fn of_complete(complete: &RawValue) -> Option<String> {
    let mut draft = ContentDraft::default();
    draft.read_value(complete, None, ReadDepth::PIECE);
    Some(draft.into_content().text).filter(|text| !text.is_empty())
}

/// Returns the text of a bare string, read like an element's text.
pub(crate) fn of_string(text: &str) -> String {
    let mut draft = ContentDraft::default();
    draft.read_text(text, ReadDepth::USER);
    draft.into_content().text
}

fn read_elements(message: JsonMember<'_>, shown: Option<&str>, depth: ReadDepth) -> ReplyContent {
    let mut draft = ContentDraft::default();
    let all = message.map(|message| elements(message).unwrap_or_else(|| vec![message])).unwrap_or_default();
    let mut shown = shown;
    for element in all {
        draft.read_element(element, shown.take(), depth);
    }
    if let Some(shown) = shown {
        draft.read_text(shown, depth);
    }
    draft.into_content()
}

impl ContentDraft {
    /// Reads one element. `shown` is the text that the user saw in place of its words.
    fn read_element(&mut self, element: &RawValue, shown: Option<&str>, depth: ReadDepth) {
        if shown.is_none()
            && let Some(text) = plain_text(element)
        {
            self.push_text(&depth.plain(&text));
            self.end_element();
            return;
        }
        // History calls a component's payload `data`, and its type `cT` (protocol.md 7.10).
        let names = ["component", "data", "cInfo", "attachments", "cT"];
        let before = self.mark();
        let [component, data, info, files, kind] = members(element.get(), names).unwrap_or_default();
        let kind = kind.and_then(string).and_then(|kind| media::media_kind(&kind));
        for raw in [component, data].into_iter().flatten() {
            if self.mark() == before {
                self.read_value(raw, kind, depth);
            }
        }
        let [info_body, attached] =
            info.and_then(|info| members(info.get(), ["body", "attachments"])).unwrap_or_default();
        if self.mark() == before
            && let Some(raw) = info_body.filter(|raw| raw.get().starts_with('{'))
        {
            self.read_value(raw, None, depth);
        }
        let words = info.and_then(body);
        let body = shown.map(Cow::Borrowed).or(words).and_then(|body| self.readable(body, before, depth));
        self.take_body(&body.unwrap_or_default(), shown.is_some());
        if self.mark() == before {
            self.read_value(element, kind, depth);
        }
        for raw in [attached, files].into_iter().flatten() {
            self.read_attachments(raw, depth);
        }
        self.end_element();
    }

    /// Returns the body of an element as text for people. A body that is a template as JSON is read in place of a
    /// component without content, else only its words count.
    fn readable<'b>(
        &mut self,
        body: Cow<'b, str>,
        before: content_draft::DraftMark,
        depth: ReadDepth,
    ) -> Option<Cow<'b, str>> {
        if envelope::open(&body, depth).is_none() {
            return Some(depth.plain_cow(body));
        }
        if self.mark() == before {
            self.read_text(&body, depth);
            return None;
        }
        let mut other = Self::default();
        other.read_text(&body, depth);
        Some(Cow::Owned(other.words().to_owned()))
    }
}

/// Returns the text of `cInfo`, which is a member or `cInfo` itself.
fn body(info: &RawValue) -> Option<Cow<'_, str>> {
    match members(info.get(), ["body"]) {
        Some([body]) => string(body?),
        None => string(info),
    }
}

/// Returns the text of an element that has nothing else. Text that may be a message itself is left to the reader of
/// templates.
fn plain_text(element: &RawValue) -> Option<Cow<'_, str>> {
    let [component, data, info, files] =
        members(element.get(), ["component", "data", "cInfo", "attachments"])?;
    let payload = match (component, data, files) {
        (Some(component), None, None) => {
            Some(members(component.get(), ["payload"]).and_then(|[payload]| payload)?)
        }
        (None, data, None) => data,
        _ => return None,
    };
    let words = match info {
        Some(info) => only_members(info.get(), ["body"]).and_then(|[body]| string(body?)),
        None => None,
    };
    let text = match payload {
        Some(payload) if info.is_none() || words.is_some() => {
            only_members(payload.get(), ["text"]).and_then(|[text]| string(text?))
        }
        Some(_) => None,
        None => words,
    };
    let is_plain = |text: &Cow<'_, str>| {
        let text = text.trim_start();
        !text.is_empty() && !text.starts_with(['{', '[', '"', '&'])
    };
    text.filter(is_plain)
}
