//! Templates, and objects of other shapes: their own words, their lists, and what a click on them does.
//!
//! The set of templates is open, because customers write their own (protocol.md 7.3). So this file knows names of
//! members, not templates, and it reads what it knows wherever it stands.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::choices::{CHOICES, is_choice};
use super::content_draft::ContentDraft;
use super::envelope;
use super::json_members::JsonMembers;
use super::labels::{SUBTITLES, TITLES, first_label, label};
use super::media::media_kind;
use super::read_depth::ReadDepth;
use crate::domain::MediaKind;
use crate::domain::lenient_json::{elements, string, string_or_number};

/// Names of an object's own words, the first one with words wins. Behind the first five stand those of other frameworks.
pub(super) const WORDS: [&str; 10] = [
    "text",
    "text_message",
    "title",
    "heading",
    "welcome_message",
    "message",
    "body",
    "content",
    "fulfillmentText",
    "caption",
];
/// Names of the words of a picker. Its `text` is a word for programs.
const PICKER_WORDS: [&str; 4] = ["text_message", "title", "heading", "text"];
const PICKERS: [&str; 3] = ["dateTemplate", "daterange", "clockTemplate"];
/// Names of words beside the own ones.
const DETAILS: [&str; 8] = [
    "subText",
    "label",
    "subtitle",
    "description",
    "mobileNumber",
    "enterPinTitle",
    "reEnterPinTitle",
    "snippet_content",
];
/// Members that only lead to others.
pub(super) const WRAPPERS: [&str; 36] = [
    "component",
    "overrideMessagePayload",
    "attachment",
    "file",
    "header",
    "message",
    "content",
    "body",
    "footer",
    "interactive",
    "action",
    "data",
    "graph_answer",
    "answer_payload",
    "center_panel",
    "results",
    "web",
    "formData",
    "richContent",
    "reply_markup",
    "suggestedActions",
    "quickReplies",
    "answer",
    "card",
    "output",
    "queryResult",
    "fulfillmentResponse",
    "fulfillment_response",
    "custom",
    "document",
    "audio",
    "video",
    "location",
    "parameters",
    "faq",
    "page",
];
/// Those of them that may be a file.
const FILES: [&str; 3] = ["document", "audio", "video"];
/// Members that hold a list of items.
pub(super) const ITEMS: [&str; 27] = [
    "headerOptions",
    "elements",
    "cards",
    "listItems",
    "subListItems",
    "subElements",
    "rowItems",
    "tableListData",
    "cardDescription",
    "textInformation",
    "subInformation",
    "values",
    "details",
    "formFields",
    "snippet_content",
    "sources",
    "sections",
    "items",
    "blocks",
    "messages",
    "fulfillmentMessages",
    "generic",
    "facts",
    "topSection",
    "middleSection",
    "bottomSection",
    "collection",
];
/// Templates whose items are choices.
const SELECTIONS: [&str; 4] =
    ["dropdown_template", "multi_select", "advanced_multi_select", "radioOptionTemplate"];
/// The template of two thumbs, and what they send.
const THUMBS: (&str, [(&str, &str); 2]) = ("like_dislike", [("Like", "like"), ("Dislike", "dislike")]);
/// Members that make a table.
pub(super) const TABLE: [&str; 5] = ["columns", "rows", "X_axis", "x_axis", "headers"];

impl ContentDraft {
    /// Reads any value. `kind` is what the objects around it call themselves.
    pub(super) fn read_value(&mut self, raw: &RawValue, kind: Option<MediaKind>, depth: ReadDepth) {
        if let Some(text) = string(raw) {
            self.read_text(&text, depth);
        } else if let Some(object) = JsonMembers::read(raw.get()) {
            self.read_object(&object, kind, depth);
        } else if let Some(all) = elements(raw)
            && let Some(depth) = depth.down()
        {
            for raw in all {
                self.read_value(raw, kind, depth);
            }
        }
    }

    /// Reads a text: the message that is written in it, or itself.
    pub(super) fn read_text(&mut self, text: &str, depth: ReadDepth) {
        if !self.read_envelope(text, depth) {
            self.push_text(&depth.plain(text));
        }
    }

    /// Reads the message that is written in a text. Returns false if there is none.
    fn read_envelope(&mut self, text: &str, depth: ReadDepth) -> bool {
        let Some(envelope) = envelope::open(text, depth) else { return false };
        let before = self.mark();
        if let Ok(raw) = serde_json::from_str::<&RawValue>(&envelope.json) {
            self.read_value(raw, None, envelope.depth);
        }
        envelope.is_certain || self.mark() != before
    }

    /// Reads a component, a template, or an object around one.
    fn read_object(&mut self, object: &JsonMembers<'_>, kind: Option<MediaKind>, depth: ReadDepth) {
        let Some(depth) = depth.down() else { return };
        let before = self.mark();
        let kind = object.kind().and_then(|kind| media_kind(&kind)).or(kind);
        let template = object.string("template_type");
        if template.is_some() {
            self.on_template();
        }
        // A payload that is plain text comes last: beside a title it is the value that a button sends.
        let mut plain = None;
        if let Some(payload) = object.get("payload") {
            match string(payload) {
                Some(text) if !self.read_envelope(&text, depth) => plain = Some(text),
                Some(_) => {}
                None => self.read_value(payload, kind, depth),
            }
        }
        let has_words = |draft: &Self| draft.mark().text != before.text;
        let lists = object.has_any(&ITEMS) || object.has_any(&CHOICES) || object.has_any(&TABLE);
        if !has_words(self) {
            self.read_words(object, template.as_deref().unwrap_or_default(), lists, depth);
        } else if self.words().trim().is_empty() {
            // The inner object has lists without words.
            let mut outer = Self::default();
            outer.read_words(object, "", false, depth);
            self.set_words(outer.words());
        }
        let own = self.mark();
        self.read_lists(object, template.as_deref().unwrap_or_default(), depth);
        if template.as_deref() == Some(THUMBS.0) && self.mark() == own {
            for (title, payload) in THUMBS.1 {
                self.push_line(&[title], "");
                self.push_choice(title, payload);
            }
        }
        self.read_media(object, kind, true, depth);
        if let Some(action) = object.get("default_action") {
            self.read_action(action, None, depth);
        }
        if !has_words(self)
            && let Some(plain) = plain
        {
            self.push_text(&depth.plain(&plain));
        }
        if let Some(template) = &template {
            let is_silent = self.mark() == before;
            self.read_unknown(object, template, self.mark() == own, is_silent, depth);
        }
    }

    /// Reads the words of an object. Beside lists, a title tells more than the text.
    fn read_words(&mut self, object: &JsonMembers<'_>, template: &str, lists: bool, depth: ReadDepth) {
        let before = self.mark();
        let names = if PICKERS.contains(&template) { &PICKER_WORDS[..] } else { &WORDS[..] };
        for name in names {
            let Some(raw) = object.get(name) else { continue };
            if let Some(text) = string_or_number(raw) {
                self.read_text(&text, depth);
            } else if !WRAPPERS.contains(name) {
                let inner = || first_label(&JsonMembers::read(raw.get())?, &WORDS, depth);
                self.push_text(&label(raw, depth).or_else(inner).unwrap_or_default());
            }
            if self.mark() != before {
                break;
            }
        }
        let more: &[&str] = if lists || PICKERS.contains(&template) { &["title", "heading"] } else { &[] };
        for raw in object.of(more).chain(object.of(&DETAILS)).filter(|raw| string_or_number(raw).is_some()) {
            let words = label(raw, depth).unwrap_or_default();
            if !self.told_since(before).contains(&words) {
                self.push_text(&words);
            }
        }
    }

    fn read_lists(&mut self, object: &JsonMembers<'_>, template: &str, depth: ReadDepth) {
        for (name, raw) in WRAPPERS.iter().filter_map(|name| Some((*name, object.get(name)?))) {
            if FILES.contains(&name) && self.read_file(raw, media_kind(name), depth) {
                continue;
            }
            if raw.get().starts_with('{') {
                self.read_value(raw, None, depth);
            } else if name == "quickReplies" {
                self.read_choice(raw, depth);
            } else if name == "richContent" {
                // One list for each card.
                for raw in elements(raw).unwrap_or_default() {
                    self.read_items(raw, false, depth);
                }
            } else {
                self.read_items(raw, false, depth);
            }
        }
        if object.has_any(&TABLE) {
            self.read_table(object, depth);
        }
        let selects = SELECTIONS.contains(&template);
        for name in ITEMS {
            if let Some(raw) = object.get(name) {
                let selects = selects || name == "collection";
                self.read_items(raw, selects, depth);
                self.read_words_of_list(raw, selects, depth);
            }
        }
        for raw in object.of(&CHOICES) {
            self.read_choice(raw, depth);
        }
        if let Some(raw) = object.get("attachments") {
            self.read_attachments(raw, depth);
        }
    }

    /// Reads the items of a list that are plain words.
    fn read_words_of_list(&mut self, raw: &RawValue, selects: bool, depth: ReadDepth) {
        for raw in elements(raw).unwrap_or_default() {
            let Some(sent) = string_or_number(raw) else { continue };
            if let Some(words) = label(raw, depth) {
                self.push_line(&[&words], "");
                if selects {
                    self.push_choice(&words, &sent);
                }
            }
        }
    }

    /// Reads a list of items. A list without objects and rows is none.
    pub(super) fn read_items(&mut self, raw: &RawValue, selects: bool, depth: ReadDepth) {
        if raw.get().starts_with('{') {
            self.read_item(raw, selects, depth);
        }
        for raw in elements(raw).unwrap_or_default() {
            if self.is_full() {
                return;
            }
            if raw.get().starts_with(['{', '[']) {
                self.read_item(raw, selects, depth);
            }
        }
    }

    /// Reads one item: a line with its title, its subtitle and its value, then its lists and actions.
    pub(super) fn read_item(&mut self, raw: &RawValue, selects: bool, depth: ReadDepth) {
        let Some(depth) = depth.down() else { return };
        let Some(item) = JsonMembers::read(raw.get()) else {
            self.read_row(None, raw, depth);
            return;
        };
        let before = self.mark();
        let kind = item.kind().unwrap_or_default();
        let has_title = item.has_any(&["title", "text", "label"]);
        if !selects && has_title && is_choice(&kind) {
            self.read_choice(raw, depth);
            return;
        }
        let media = media_kind(&kind);
        let is_row = self.read_cells(&item, depth);
        let words = || item.of(&WORDS).filter(|raw| string(raw).is_some()).find_map(|raw| label(raw, depth));
        let title = first_label(&item, &TITLES, depth).or_else(words);
        if !is_row {
            self.read_item_line(&item, title.as_deref(), selects, depth);
        }
        if selects
            && !item.has_any(&["collection"])
            && let Some(title) = &title
        {
            let payload = item.of(&["value", "payload", "id"]).find_map(string_or_number);
            self.push_choice(title, payload.as_deref().unwrap_or(title));
        }
        self.read_media(&item, media, media.is_some() || title.is_none(), depth);
        if let Some(payload) = item.get("payload").filter(|raw| string(raw).is_none()) {
            self.read_value(payload, media, depth);
        }
        if let Some(menu) = item.get("value").and_then(|value| JsonMembers::read(value.get())) {
            for raw in menu.of(&CHOICES) {
                self.read_choice(raw, depth);
            }
        }
        if let Some(action) = item.get("default_action") {
            self.read_action(action, title.as_deref(), depth);
        }
        if !is_row {
            self.read_lists(&item, "", depth);
        }
        if self.is_in_template() && self.mark() == before {
            self.read_values(&item, depth);
        }
    }

    fn read_item_line(
        &mut self,
        item: &JsonMembers<'_>,
        title: Option<&str>,
        selects: bool,
        depth: ReadDepth,
    ) {
        let subtitle = item.of(&SUBTITLES).filter(|raw| !raw.get().starts_with('['));
        let subtitle = subtitle.into_iter().find_map(|raw| label(raw, depth));
        // The value of a choice is what it sends.
        let values: &[&str] = if selects { &[] } else { &["displayValue", "value", "taskProgress"] };
        let value = first_label(item, values, depth);
        let mut parts: Vec<Cow<'_, str>> = Vec::with_capacity(3);
        for part in [title.map(Cow::Borrowed), subtitle.map(Cow::Owned), value.map(Cow::Owned)] {
            if let Some(part) = part
                && !parts.contains(&part)
            {
                parts.push(part);
            }
        }
        self.push_line(&parts, " – ");
    }
}
