//! Buttons, quick replies and other answers that a bot offers (protocol.md 7.3).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::content_draft::ContentDraft;
use super::json_members::JsonMembers;
use super::labels::{first_label, label, sent_text};
use super::read_depth::ReadDepth;
use crate::domain::MediaKind;
use crate::domain::lenient_json::{elements, string_or_number};

/// Members that hold choices.
pub(super) const CHOICES: [&str; 22] = [
    "quick_replies",
    "radioOptions",
    "tasks",
    "dropdownOptions",
    "optionsData",
    "buttons",
    "button",
    "otpButtons",
    "resetButtons",
    "starArrays",
    "smileyArrays",
    "numbersArrays",
    "thumpsUpDownArrays",
    "menu",
    "actions",
    "replies",
    "options",
    "choices",
    "chips",
    "suggestions",
    "inline_keyboard",
    "keyboard",
];

/// Names of a choice's words, the first one wins.
const TITLES: [&str; 8] =
    ["title", "label", "displayText", "text", "reviewText", "name", "displayName", "value"];
/// Names of the text that a choice sends, the first one wins.
const PAYLOADS: [&str; 8] =
    ["payload", "postback", "callback_data", "value", "postback_value", "data", "id", "utterance"];

/// Returns whether an object of this kind is a choice or a link.
pub(super) fn is_choice(kind: &str) -> bool {
    is_link(kind)
        || is_view(kind)
        || ["postback", "button", "quick_reply", "reply", "phone_number", "imBack", "Action.Submit"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(kind))
}

fn is_link(kind: &str) -> bool {
    ["web_url", "url", "data-url", "openUrl", "Action.OpenUrl"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(kind))
}

/// Returns whether an object of this kind only changes what the window shows.
fn is_view(kind: &str) -> bool {
    ["Action.ShowCard", "Action.ToggleVisibility"].iter().any(|known| known.eq_ignore_ascii_case(kind))
}

impl ContentDraft {
    /// Reads a choice, or a list of them. Each is a line of the text.
    pub(super) fn read_choice(&mut self, raw: &RawValue, depth: ReadDepth) {
        let Some(depth) = depth.down() else { return };
        if let Some(words) = string_or_number(raw) {
            if let Some(title) = label(raw, depth) {
                self.push_line(&[&title], "");
                self.push_choice(&title, &words);
            }
        } else if let Some(all) = elements(raw) {
            for raw in all {
                self.read_choice(raw, depth);
            }
        } else if let Some(choice) = JsonMembers::read(raw.get()) {
            self.read_choice_object(&choice, depth);
        }
    }

    fn read_choice_object(&mut self, choice: &JsonMembers<'_>, depth: ReadDepth) {
        if let Some(reply) = choice.get("reply").filter(|reply| reply.get().starts_with('{')) {
            self.read_choice(reply, depth);
            return;
        }
        let Some(title) = first_label(choice, &TITLES, depth) else {
            for raw in choice.of(&CHOICES) {
                self.read_choice(raw, depth);
            }
            return;
        };
        match target(choice, depth) {
            ChoiceTarget::Address(url) => {
                self.push_line(&[&title], "");
                if !title.contains(&*url) {
                    self.push_part(": ");
                    self.push_part(&url);
                }
                self.push_media(MediaKind::Link, Some(&url), Some(&title), false);
            }
            ChoiceTarget::Nothing => self.push_line(&[&title], ""),
            ChoiceTarget::Message(payload) => {
                // A radio button shows its value too if it sends another text.
                let value = choice.has_any(&["postback"]).then(|| first_label(choice, &["value"], depth));
                let value = value.flatten().filter(|value| *value != title);
                let parts: Vec<&str> =
                    [Some(title.as_str()), value.as_deref()].into_iter().flatten().collect();
                self.push_line(&parts, " – ");
                self.push_choice(&title, payload.as_deref().unwrap_or(&title));
            }
        }
    }

    /// Reads what a click on an item does. The item's own line has its title.
    pub(super) fn read_action(&mut self, raw: &RawValue, title: Option<&str>, depth: ReadDepth) {
        let Some(action) = JsonMembers::read(raw.get()) else { return };
        let own_title = first_label(&action, &["title"], depth);
        let Some(title) = title.or(own_title.as_deref()) else { return };
        match target(&action, depth) {
            ChoiceTarget::Address(url) => self.push_media(MediaKind::Link, Some(&url), Some(title), false),
            ChoiceTarget::Message(payload) => {
                if let Some(sent) = payload.as_deref().or(own_title.as_deref()) {
                    self.push_choice(title, sent);
                }
            }
            ChoiceTarget::Nothing => {}
        }
    }
}

/// The effect of a choice.
enum ChoiceTarget<'a> {
    /// It opens an address.
    Address(Cow<'a, str>),
    /// It sends a text, by default the title.
    Message(Option<Cow<'a, str>>),
    /// It sends no text: it changes the view, or would open an address and has none.
    Nothing,
}

fn target<'a>(choice: &JsonMembers<'a>, depth: ReadDepth) -> ChoiceTarget<'a> {
    if let Some(click) = clicked(choice) {
        return click;
    }
    let kind = choice.kind().unwrap_or_default();
    let payload = payload(choice);
    let url =
        ["url", "link", "uri"].iter().find_map(|name| choice.string(name)).map(|url| depth.plain_cow(url));
    match (url, payload) {
        (Some(url), payload) if payload.is_none() || is_link(&kind) => ChoiceTarget::Address(url),
        (None, Some(payload)) if is_link(&kind) && payload.contains("://") => ChoiceTarget::Address(payload),
        (None, None) if is_link(&kind) || is_view(&kind) => ChoiceTarget::Nothing,
        (_, Some(number)) if kind == "phone_number" => ChoiceTarget::Address(format!("tel:{number}").into()),
        (_, payload) => ChoiceTarget::Message(payload),
    }
}

/// Returns the target of a button of structured content, as other chat systems write it (`click.actions`).
fn clicked<'a>(choice: &JsonMembers<'a>) -> Option<ChoiceTarget<'a>> {
    let click = JsonMembers::read(choice.get("click")?.get())?;
    let action = elements(click.get("actions")?)?.first().copied()?;
    let action = JsonMembers::read(action.get())?;
    if let Some(text) = action.string("text") {
        return Some(ChoiceTarget::Message(Some(text)));
    }
    let web = action.get("web").and_then(|web| JsonMembers::read(web.get()));
    let url = action.string("uri").or_else(|| web?.string("uri"))?;
    Some(ChoiceTarget::Address(url))
}

/// Returns the text that the choice sends, as the platform wrote it.
fn payload<'a>(choice: &JsonMembers<'a>) -> Option<Cow<'a, str>> {
    let postback = || {
        let postback = JsonMembers::read(choice.get("postback")?.get())?;
        postback.of(&["value", "payload", "title"]).find_map(string_or_number)
    };
    let input = || {
        let input = JsonMembers::read(JsonMembers::read(choice.get("value")?.get())?.get("input")?.get())?;
        input.string("text")
    };
    let sent = || choice.of(&PAYLOADS).map(sent_text).find(|text| !text.is_empty());
    choice.string("payload").or_else(postback).or_else(input).or_else(sent)
}
