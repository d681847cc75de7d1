//! The words of single values: a title, a cell of a table.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json_members::JsonMembers;
use super::read_depth::ReadDepth;
use crate::domain::lenient_json::{elements, string, string_or_number};

/// Names of titles, the first one wins.
pub(super) const TITLES: [&str; 19] = [
    "title",
    "text",
    "label",
    "heading",
    "name",
    "displayName",
    "sectionHeader",
    "collectionTitle",
    "cardHeading",
    "snippet_title",
    "page_title",
    "answer_fragment",
    "question",
    "header",
    "fileName",
    "file_title",
    "faq_question",
    "inlines",
    "placeholder",
];
/// Names of what an object has in place of a title.
const VALUES: [&str; 4] = ["value", "link", "url", "items"];
/// Names of the words below a title.
pub(super) const SUBTITLES: [&str; 8] = [
    "subtitle",
    "sub_title",
    "subText",
    "description",
    "sectionHeaderDesc",
    "snippet_content",
    "faq_answer",
    "text",
];

/// Returns the words of a value on one line, or `None` without words.
pub(super) fn label(raw: &RawValue, depth: ReadDepth) -> Option<String> {
    if let Some(text) = string_or_number(raw) {
        let text = depth.plain(&text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        return (!lines.is_empty()).then(|| lines.join(" "));
    }
    let depth = depth.down()?;
    if let Some(all) = elements(raw) {
        let words: Vec<String> = all.into_iter().filter_map(|raw| label(raw, depth)).collect();
        return (!words.is_empty()).then(|| words.join(" "));
    }
    let object = JsonMembers::read(raw.get())?;
    let title = first_label(&object, &TITLES, depth).or_else(|| first_label(&object, &VALUES, depth));
    let mut parts: Vec<String> = title.into_iter().chain(first_label(&object, &SUBTITLES, depth)).collect();
    parts.dedup();
    (!parts.is_empty()).then(|| parts.join(" – "))
}

/// Returns the words of the first of these members that has any.
pub(super) fn first_label(object: &JsonMembers<'_>, names: &[&str], depth: ReadDepth) -> Option<String> {
    object.of(names).find_map(|raw| label(raw, depth))
}

/// Returns the words of a table's cell, empty without any. A cell may be a list of its words and their alignment.
pub(super) fn cell(raw: &RawValue, depth: ReadDepth) -> String {
    let first = elements(raw).and_then(|all| all.first().copied());
    let raw = first.unwrap_or(raw);
    let literal = matches!(raw.get(), "true" | "false").then(|| raw.get().to_owned());
    literal.or_else(|| label(raw, depth)).unwrap_or_default()
}

/// Returns the text that a choice sends: a string as it is, another value as its JSON.
pub(super) fn sent_text(raw: &RawValue) -> Cow<'_, str> {
    string(raw).unwrap_or(Cow::Borrowed(raw.get()))
}
