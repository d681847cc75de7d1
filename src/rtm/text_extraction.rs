//! Extracts the best plain text of a bot's message (protocol.md 7.3, "Safe text rule"; api.md 1, "Reply").
//!
//! A message is a list of elements of open shape. The extraction takes the first text in this order: the component's
//! payload, payloads within payloads from the inside out, then `cInfo.body`. A text that is a component written as
//! JSON is searched in the same way. Callers get the raw frame too, so they lose nothing.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::html_entities::unescape;
use crate::domain::lenient_json::{elements, members, string, string_or_number, strings};

/// Most levels of a search: twice the depth of any known shape.
const MAX_DEPTH: u8 = 12;

/// The template that announces another response.
const WAIT_TEMPLATE: &str = "wait_for_response";
/// The template with a line of a human agent (protocol.md 7.11).
const AGENT_TEMPLATE: &str = "live_agent";

/// Settings of one search.
#[derive(Clone, Copy)]
struct WalkState {
    /// Remaining levels.
    steps: u8,
    /// Whether texts still carry HTML entities. False once the JSON around them is unescaped.
    escaped: bool,
    /// Whether a text may be a component written as JSON.
    embedded: bool,
}

impl WalkState {
    const REPLY: Self = Self { steps: MAX_DEPTH, escaped: true, embedded: true };
    /// A piece of a stream is part of a text, so JSON syntax in it has no meaning.
    const PIECE: Self = Self { embedded: false, ..Self::REPLY };

    fn down(self) -> Option<Self> {
        Some(Self { steps: self.steps.checked_sub(1)?, ..self })
    }
}

/// Returns the text of a `message`: one line for each element, or an empty text.
pub(super) fn of_message(message: &RawValue) -> String {
    joined(message, "\n", |element| of_element(element, WalkState::REPLY))
}

/// Returns the text of a streamed frame's `message`, with its blanks. Here `cInfo.body` comes first. Only the Web SDK
/// appends pieces, and it takes them from there (protocol.md 7.3, 7.4).
pub(super) fn of_piece(message: &RawValue) -> String {
    joined(message, "", |element| {
        of_info(element, WalkState::PIECE).or_else(|| of_element(element, WalkState::PIECE))
    })
}

/// Returns whether any element of a `message` is a template. The text of a template is no piece of a longer one.
pub(super) fn is_template(message: &RawValue) -> bool {
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

/// Returns the whole text that the last frame of a stream carries: a string, or an object with a text.
pub(super) fn of_complete(complete: &RawValue) -> Option<String> {
    of_value(complete, WalkState::PIECE)
}

/// Returns the text of a bare string, read like an element's text.
pub(super) fn of_string(text: &str) -> Option<String> {
    plain_or_component(text, WalkState::REPLY)
}

fn joined(message: &RawValue, separator: &str, text: impl Fn(&RawValue) -> Option<String>) -> String {
    match elements(message) {
        None => text(message).unwrap_or_default(),
        Some(elements) => {
            let texts: Vec<String> = elements.into_iter().filter_map(text).collect();
            texts.join(separator)
        }
    }
}

fn of_element(element: &RawValue, walk: WalkState) -> Option<String> {
    // History calls a component's payload `data` (protocol.md 7.10).
    let Some([component, data]) = members(element.get(), ["component", "data"]) else {
        return of_value(element, walk);
    };
    component
        .and_then(|component| of_value(component, walk))
        .or_else(|| data.and_then(|data| of_value(data, walk)))
        .or_else(|| of_info(element, walk))
        .or_else(|| of_value(element, walk))
}

fn of_info(element: &RawValue, walk: WalkState) -> Option<String> {
    let [info] = members(element.get(), ["cInfo"])?;
    let info = info?;
    match members(info.get(), ["body"]) {
        Some([body]) => of_value(body?, walk),
        None => of_value(info, walk),
    }
}

fn of_value(raw: &RawValue, walk: WalkState) -> Option<String> {
    match of_object(raw.get(), walk) {
        Some(component) => component.text,
        None => plain_or_component(&string(raw)?, walk),
    }
}

/// Text of an object that has the shape of a component.
struct ComponentText {
    text: Option<String>,
}

/// Searches an object. Returns `None` if it is no component.
fn of_object(object: &str, walk: WalkState) -> Option<ComponentText> {
    let [payload, template, text, text_message, title, heading] =
        members(object, ["payload", "template_type", "text", "text_message", "title", "heading"])?;
    let own = [text, text_message, title, heading];
    if payload.or(template).is_none() && own.iter().all(Option::is_none) {
        return None;
    }
    let Some(walk) = walk.down() else { return Some(ComponentText { text: None }) };
    // A payload that is plain text comes last: beside a title it is the value that a button sends.
    let (mut inner, mut plain) = (None, None);
    if let Some(text) = payload.and_then(string) {
        match component_in(&text, walk) {
            Some(component) => inner = component.text,
            None => plain = Some(text),
        }
    } else if let Some(payload) = payload {
        inner = of_object(payload.get(), walk).and_then(|component| component.text);
    }
    let text = inner
        .or_else(|| {
            own.into_iter().flatten().find_map(|raw| plain_or_component(&string_or_number(raw)?, walk))
        })
        .or_else(|| plain_or_component(&plain?, walk));
    Some(ComponentText { text })
}

/// Returns the text of the component in `text`, or `text` itself. Returns `None` if that is empty.
fn plain_or_component(text: &str, walk: WalkState) -> Option<String> {
    if let Some(component) = component_in(text, walk) {
        return component.text;
    }
    let plain = if walk.escaped { unescape(text) } else { Cow::Borrowed(text) };
    (!plain.is_empty()).then(|| plain.into_owned())
}

/// Searches a component written as JSON, HTML-escaped or not. Returns `None` if the text is none.
fn component_in(text: &str, walk: WalkState) -> Option<ComponentText> {
    if !walk.embedded || !text.trim_start().starts_with('{') {
        return None;
    }
    of_object(text, walk).or_else(|| {
        let Cow::Owned(plain) = unescape(text) else { return None };
        walk.escaped.then(|| of_object(&plain, WalkState { escaped: false, ..walk })).flatten()
    })
}

/// Returns whether any element of a `message` is the template that announces another response.
pub(super) fn announces_more(message: &RawValue) -> bool {
    has_template(message, WAIT_TEMPLATE)
}

/// Returns whether any element of a `message`, or of a record's `components`, is a line of a human agent.
pub(super) fn is_agent_line(message: &RawValue) -> bool {
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
pub(super) fn has_content(message: &RawValue) -> bool {
    const NAMES: [&str; 4] = ["\"type\"", "\"cT\"", "\"id\"", "\"_id\""];
    let is_blank = |text: &str| {
        let raw: Option<&RawValue> = serde_json::from_str(text).ok();
        raw.and_then(string).is_none_or(|text| text.trim().is_empty())
    };
    strings(message.get()).any(|(key, text)| !key.is_some_and(|key| NAMES.contains(&key)) && !is_blank(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn text(message: &str) -> String {
        of_message(raw(message))
    }

    /// Returns the text of one element whose component has this payload.
    fn payload(payload: &str) -> String {
        text(&format!(r#"[{{"type":"text","component":{{"type":"template","payload":{payload}}}}}]"#))
    }

    #[test]
    fn payload_text_wins_over_the_body_and_keeps_blanks() {
        let element = r#"{"component":{"payload":{"text":"Hello "}},"cInfo":{"body":"Hi there!  "}}"#;
        assert_eq!(text(&format!("[{element}]")), "Hello ");
        assert_eq!(text(element), "Hello ", "an element without its list");
    }

    #[test]
    fn body_text_is_used_without_payload_text() {
        for component in ["", r#""component":null,"#, r#""component":{},"#, r#""component":{"payload":{}},"#]
        {
            assert_eq!(text(&format!(r#"[{{{component}"cInfo":{{"body":"Hi"}}}}]"#)), "Hi", "{component}");
        }
        let empty = r#"[{"component":{"payload":{"text":""}},"cInfo":{"body":"Hi"}}]"#;
        assert_eq!(text(empty), "Hi", "an empty text is none");
        let template = r#"{"type":"template","payload":{"template_type":"table","rows":[1]}}"#;
        let body = r#""cInfo":{"body":"a) A \r\n b) B"}"#;
        assert_eq!(text(&format!(r#"[{{"component":{{"payload":{template}}},{body}}}]"#)), "a) A \r\n b) B");
    }

    #[test]
    fn each_text_key_is_found_one_payload_down() {
        for key in ["text", "text_message", "title", "heading"] {
            assert_eq!(payload(&format!(r#"{{"{key}":"x"}}"#)), "x");
            assert_eq!(payload(&format!(r#"{{"type":"error","payload":{{"{key}":"x","color":1}}}}"#)), "x");
        }
        assert_eq!(payload(r#"{"heading":"4","title":"3","text_message":"2","text":"1"}"#), "1");
        assert_eq!(payload(r#"{"text":"outer","payload":{"text":"inner"}}"#), "inner");
        assert_eq!(payload(r#"{"text":"outer","payload":{"url":"x"}}"#), "outer");
        assert_eq!(payload(r#"{"title":"Yes","payload":"YES_1"}"#), "Yes");
        assert_eq!(payload(r#"{"text":5}"#), "5");
    }

    #[test]
    fn payload_string_is_read_as_json_or_text() {
        assert_eq!(payload(r#""Please wait""#), "Please wait");
        assert_eq!(payload(r#""{\"text\":\"in JSON\"}""#), "in JSON");
        assert_eq!(payload(r#""{\"type\":\"template\",\"payload\":{\"text\":\"deep\"}}""#), "deep");
    }

    #[test]
    fn text_that_is_a_json_component_is_searched() {
        let json = r#"{\"type\":\"template\",\"payload\":{\"template_type\":\"button\",\"text\":\"Pick &quot;1&quot;\"}}"#;
        assert_eq!(payload(&format!(r#"{{"text":"{json}"}}"#)), "Pick \"1\"");
        assert_eq!(text(&format!(r#"[{{"cInfo":{{"body":" {json} "}}}}]"#)), "Pick \"1\"");
        let html = "{&quot;type&quot;:&quot;template&quot;,&quot;payload&quot;:{&quot;text&quot;:&quot;a &amp;amp; b&quot;}}";
        assert_eq!(payload(&format!(r#"{{"text":"{html}"}}"#)), "a &amp; b", "unescaped once, not twice");
        let wordless = r#"{\"type\":\"template\",\"payload\":{\"template_type\":\"table\"}}"#;
        assert_eq!(payload(&format!(r#"{{"text":"{wordless}"}}"#)), "");
    }

    #[test]
    fn text_that_resembles_a_component_stays() {
        for other in [r#"{\"orderId\":5}"#, "{not json}", "[1,2]", r#"{\"text\":\"cut"#, "{}"] {
            let expected: String = serde_json::from_str(&format!("\"{other}\"")).unwrap();
            assert_eq!(payload(&format!(r#"{{"text":"{other}"}}"#)), expected);
        }
    }

    #[test]
    fn elements_with_text_are_joined_by_line_feeds() {
        let [a, b] = ["a", "b"].map(|body| format!(r#"{{"cInfo":{{"body":"{body}"}}}}"#));
        let image = r#"{"component":{"payload":{"url":"x"}}}"#;
        assert_eq!(text(&format!("[{a},{image},null,7.5,{b}]")), "a\nb");
        assert_eq!(text(&format!("[{a},{{}},{b}]")), "a\nb");
    }

    #[test]
    fn message_of_any_shape_has_a_text() {
        for silent in ["[]", "{}", "true", "5", "[[]]", "[{}]", r#"[{"component":[1]}]"#, r#""""#] {
            assert_eq!(text(silent), "", "{silent}");
        }
        for hi in [
            r#""Hi""#,
            r#"["Hi"]"#,
            r#"[{"cInfo":"Hi"}]"#,
            r#"[{"component":"Hi"}]"#,
            r#"[{"type":"text","text":"Hi"}]"#,
        ] {
            assert_eq!(text(hi), "Hi", "{hi}");
        }
    }

    #[test]
    fn stream_piece_keeps_blanks_and_is_never_json() {
        let component = r#""component":{"payload":{"text":"whole"}}"#;
        let piece = |body: &str| of_piece(raw(&format!(r#"[{{{component},"cInfo":{{"body":"{body}"}}}}]"#)));
        assert_eq!(piece(" a \\n"), " a \n");
        assert_eq!(piece(r#"{\"text\":\"x\"}"#), r#"{"text":"x"}"#);
        assert_eq!(of_piece(raw(r#"[{"component":{"payload":{"text":" b"}}}]"#)), " b");
        assert_eq!(of_complete(raw(r#"" all ""#)).unwrap(), " all ");
        assert_eq!(of_complete(raw(r#"{"text":"all"}"#)).unwrap(), "all");
        assert_eq!(of_complete(raw("\"\"")), None);
        assert_eq!(of_complete(raw("{}")), None);
    }

    #[test]
    fn template_is_distinguished_from_text() {
        assert!(is_template(raw(r#"[{"component":{"type":"template","payload":{}}}]"#)));
        assert!(is_template(raw(r#"[{},{"component":{"payload":{"type":"template"}}}]"#)));
        assert!(!is_template(raw(r#"[{"type":"template","component":{"type":"text"}}]"#)));
        assert!(!is_template(raw("\"template\"")));
    }

    #[test]
    fn wait_template_is_found_in_every_template_place() {
        let template = r#"{"type":"template","payload":{"template_type":"wait_for_response"}}"#;
        let quoted = serde_json::to_string(template).unwrap();
        let html = quoted.replace("\\\"", "&quot;");
        for payload in [template, &quoted, &html] {
            let message = format!(r#"[{{}},{{"component":{{"payload":{payload}}}}}]"#);
            assert!(announces_more(raw(&message)), "{payload}");
        }
        assert!(announces_more(raw(&format!(r#"[{{"cInfo":{{"body":{quoted}}}}}]"#))));
        assert!(!announces_more(raw(r#"[{"cInfo":{"body":"wait_for_response"}}]"#)));
        assert!(!announces_more(raw(r#"[{"component":{"payload":{"template_type":"button"}}}]"#)));
    }

    #[test]
    fn deep_nesting_ends_the_search() {
        let core = r#"{"text":"x","template_type":"wait_for_response"}"#;
        let deep = format!("{}{core}{}", r#"{"payload":"#.repeat(5_000), "}".repeat(5_000));
        assert_eq!(of_message(raw(&deep)), "");
        assert!(!announces_more(raw(&deep)));
        let quoted = |times: u8| {
            (0..times).fold(core.to_owned(), |inner, _| {
                format!(r#"{{"text":{}}}"#, serde_json::to_string(&inner).unwrap())
            })
        };
        assert_eq!(of_message(raw(&quoted(8))), "x");
        assert_eq!(of_message(raw(&quoted(14))), "");
    }

    proptest! {
        #[test]
        fn plain_text_comes_through_unchanged(words in "[a-zäß0-9 .,!?\"'\\\\/\n]{1,40}") {
            let json = serde_json::to_string(&words).unwrap();
            let written = format!(r#"{{"text":{json}}}"#);
            prop_assert_eq!(&payload(&written), &words);
            let piece = format!(r#"[{{"cInfo":{{"body":{json}}}}}]"#);
            prop_assert_eq!(of_piece(raw(&piece)), words);
        }
    }
}
