//! The nature of a message, apart from its words: a template, a line of a human agent, an announcement, or nothing.

use serde_json::value::RawValue;

use super::html_entities::unescape;
use crate::domain::lenient_json::{elements, members, string, strings};

/// Most levels of a search: twice the depth of any known shape.
const MAX_DEPTH: u8 = 12;

/// The template that announces another response.
const WAIT_TEMPLATE: &str = "wait_for_response";
/// The template with a line of a human agent (protocol.md 7.11).
const AGENT_TEMPLATE: &str = "live_agent";

/// Returns whether any element of a `message` is a template. The text of a template is no piece of a longer one.
pub(crate) fn is_template(message: &RawValue) -> bool {
    elements(message).is_some_and(|elements| elements.into_iter().any(is_template_element))
}

fn is_template_element(element: &RawValue) -> bool {
    let component = members(element.get(), ["component"]).and_then(|[component]| component);
    let Some([kind, payload]) = component.and_then(|component| members(component.get(), ["type", "payload"]))
    else {
        return false;
    };
    let inner = payload.and_then(|payload| members(payload.get(), ["type"])).and_then(|[kind]| kind);
    [kind, inner].into_iter().flatten().filter_map(string).any(|kind| kind == "template")
}

/// Returns whether any element of a `message` is the template that announces another response.
pub(crate) fn announces_more(message: &RawValue) -> bool {
    has_template(message, WAIT_TEMPLATE)
}

/// Returns whether any element of a `message`, or of a record's `components`, is a line of a human agent.
pub(crate) fn is_agent_line(message: &RawValue) -> bool {
    has_template(message, AGENT_TEMPLATE)
}

fn has_template(message: &RawValue, name: &str) -> bool {
    // Few frames contain the word, so few need a search.
    message.get().contains(name) && holds_template(message, name, MAX_DEPTH)
}

fn holds_template(raw: &RawValue, name: &str, steps: u8) -> bool {
    let Some(steps) = steps.checked_sub(1) else { return false };
    if let Some(elements) = elements(raw) {
        return elements.into_iter().any(|element| holds_template(element, name, steps));
    }
    let holds = match string(raw) {
        None => object_holds_template(raw.get(), name, steps),
        Some(text) => object_holds_template(&text, name, steps)
            .or_else(|| object_holds_template(&unescape(&text), name, steps)),
    };
    holds == Some(true)
}

/// Returns `None` if the text is no object.
fn object_holds_template(object: &str, name: &str, steps: u8) -> Option<bool> {
    let names = ["template_type", "component", "payload", "cInfo", "body", "data", "text"];
    let [template, ways @ ..] = members(object, names)?;
    let is_it = template.and_then(string).is_some_and(|template| template == name);
    Some(is_it || ways.into_iter().flatten().any(|way| holds_template(way, name, steps)))
}

/// Returns whether a `message` without a text carries anything for a person: a string that is neither blank nor the
/// name of a kind.
pub(crate) fn has_content(message: &RawValue) -> bool {
    const NAMES: [&str; 4] = ["\"type\"", "\"cT\"", "\"id\"", "\"_id\""];
    let is_blank = |text: &str| {
        let raw: Option<&RawValue> = serde_json::from_str(text).ok();
        raw.and_then(string).is_none_or(|text| text.trim().is_empty())
    };
    strings(message.get()).any(|(key, text)| !key.is_some_and(|key| NAMES.contains(&key)) && !is_blank(text))
}
