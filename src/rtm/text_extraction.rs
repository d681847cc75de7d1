//! The best plain text of what a bot says (protocol.md 7.3, "Safe text rule"; api.md 1, "Reply").
//!
//! A message is a list of elements of open shape, so this walks along the names that are known to lead to
//! text and takes the first text it finds: the component's payload, payloads within payloads from the inside
//! out, then `cInfo.body`. Text that is itself a component written as JSON is walked the same way. Raw frames
//! are kept elsewhere; what is lost here is not lost to the caller.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::html_entities::unescape;
use super::lenient_json::{elements, label, pick, string};

/// How many steps a walk goes down: twice what any known shape needs.
const MAX_STEPS: u8 = 12;

/// The template that says "another response will follow".
const WAIT_TEMPLATE: &str = "wait_for_response";

/// How texts are taken on one walk.
#[derive(Clone, Copy)]
struct Walk {
    /// Steps that are left.
    steps: u8,
    /// Whether texts still carry HTML entities; false once the JSON around them was unescaped.
    escaped: bool,
    /// Whether a text may be a component written as JSON.
    embedded: bool,
}

impl Walk {
    const REPLY: Self = Self { steps: MAX_STEPS, escaped: true, embedded: true };
    /// A piece of a stream is a part of a text, so looking like JSON means nothing.
    const PIECE: Self = Self { embedded: false, ..Self::REPLY };

    fn down(self) -> Option<Self> {
        Some(Self { steps: self.steps.checked_sub(1)?, ..self })
    }
}

/// The text of a `message`: that of its elements, one a line; empty where there is none.
pub(super) fn of_message(message: &RawValue) -> String {
    joined(message, "\n", |element| of_element(element, Walk::REPLY))
}

/// The text of a streamed frame's `message`, blanks kept. `cInfo.body` comes first here: of the SDKs only the
/// Web's appends pieces, and that is where it takes them from (protocol.md 7.3, 7.4).
pub(super) fn of_piece(message: &RawValue) -> String {
    joined(message, "", |element| of_info(element, Walk::PIECE).or_else(|| of_element(element, Walk::PIECE)))
}

/// Whether any element of a `message` is a template, so that its text is no piece of a longer one.
pub(super) fn is_template(message: &RawValue) -> bool {
    elements(message).is_some_and(|elements| elements.into_iter().any(is_template_element))
}

fn is_template_element(element: &RawValue) -> bool {
    let component = pick(element.get(), ["component"]).and_then(|[component]| component);
    let Some([kind, payload]) = component.and_then(|component| pick(component.get(), ["type", "payload"]))
    else {
        return false;
    };
    let inner = payload.and_then(|payload| pick(payload.get(), ["type"])).and_then(|[kind]| kind);
    [kind, inner].into_iter().flatten().filter_map(string).any(|kind| kind == "template")
}

/// The whole text that the last frame of a stream carries: a string, or an object with a text.
pub(super) fn of_complete(complete: &RawValue) -> Option<String> {
    of_value(complete, Walk::PIECE)
}

/// The text of a bare string, read as an element's text would be.
pub(super) fn of_string(text: &str) -> Option<String> {
    said(text, Walk::REPLY)
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

fn of_element(element: &RawValue, walk: Walk) -> Option<String> {
    // `data` is what history calls a component's payload (protocol.md 7.10).
    let Some([component, data]) = pick(element.get(), ["component", "data"]) else {
        return of_value(element, walk);
    };
    component
        .and_then(|component| of_value(component, walk))
        .or_else(|| data.and_then(|data| of_value(data, walk)))
        .or_else(|| of_info(element, walk))
        .or_else(|| of_value(element, walk))
}

fn of_info(element: &RawValue, walk: Walk) -> Option<String> {
    let [info] = pick(element.get(), ["cInfo"])?;
    let info = info?;
    match pick(info.get(), ["body"]) {
        Some([body]) => of_value(body?, walk),
        None => of_value(info, walk),
    }
}

fn of_value(raw: &RawValue, walk: Walk) -> Option<String> {
    match of_object(raw.get(), walk) {
        Some(component) => component.text,
        None => said(&string(raw)?, walk),
    }
}

/// An object that leads to text, by its shape.
struct Component {
    text: Option<String>,
}

/// None where the object is no component.
fn of_object(object: &str, walk: Walk) -> Option<Component> {
    let [payload, template, text, text_message, title, heading] =
        pick(object, ["payload", "template_type", "text", "text_message", "title", "heading"])?;
    let own = [text, text_message, title, heading];
    if payload.or(template).is_none() && own.iter().all(Option::is_none) {
        return None;
    }
    let Some(walk) = walk.down() else { return Some(Component { text: None }) };
    // A payload that is plain text comes last: next to a title it is what a button sends, not what is seen.
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
        .or_else(|| own.into_iter().flatten().find_map(|raw| said(&label(raw)?, walk)))
        .or_else(|| said(&plain?, walk));
    Some(Component { text })
}

/// What a text says: the text of the component that it is, or itself. None where that is nothing.
fn said(text: &str, walk: Walk) -> Option<String> {
    if let Some(component) = component_in(text, walk) {
        return component.text;
    }
    let plain = if walk.escaped { unescape(text) } else { Cow::Borrowed(text) };
    (!plain.is_empty()).then(|| plain.into_owned())
}

/// None where the text is no component written as JSON, HTML-escaped or not.
fn component_in(text: &str, walk: Walk) -> Option<Component> {
    if !walk.embedded || !text.trim_start().starts_with('{') {
        return None;
    }
    of_object(text, walk).or_else(|| {
        let Cow::Owned(plain) = unescape(text) else { return None };
        walk.escaped.then(|| of_object(&plain, Walk { escaped: false, ..walk })).flatten()
    })
}

/// Whether any element of a `message` is the template that announces another response.
pub(super) fn announces_more(message: &RawValue) -> bool {
    // Nearly no frame has the word, so nearly none is walked.
    message.get().contains(WAIT_TEMPLATE) && announces(message, MAX_STEPS)
}

fn announces(raw: &RawValue, steps: u8) -> bool {
    let Some(steps) = steps.checked_sub(1) else { return false };
    if let Some(elements) = elements(raw) {
        return elements.into_iter().any(|element| announces(element, steps));
    }
    let announced = match string(raw) {
        None => announces_in(raw.get(), steps),
        Some(text) => announces_in(&text, steps).or_else(|| announces_in(&unescape(&text), steps)),
    };
    announced == Some(true)
}

/// None where the text is no object.
fn announces_in(object: &str, steps: u8) -> Option<bool> {
    let names = ["template_type", "component", "payload", "cInfo", "body", "data", "text"];
    let [template, ways @ ..] = pick(object, names)?;
    let is_it = template.and_then(string).is_some_and(|template| template == WAIT_TEMPLATE);
    Some(is_it || ways.into_iter().flatten().any(|way| announces(way, steps)))
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

    /// One element whose component's payload is this.
    fn payload(payload: &str) -> String {
        text(&format!(r#"[{{"type":"text","component":{{"type":"template","payload":{payload}}}}}]"#))
    }

    #[test]
    fn the_payload_wins_over_the_body_and_blanks_stay() {
        let element = r#"{"component":{"payload":{"text":"Hello "}},"cInfo":{"body":"Hi there!  "}}"#;
        assert_eq!(text(&format!("[{element}]")), "Hello ");
        assert_eq!(text(element), "Hello ", "an element without its list");
    }

    #[test]
    fn the_body_helps_out() {
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
    fn every_key_of_the_rule_is_found_one_payload_down() {
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
    fn payloads_that_are_strings_are_json_or_text() {
        assert_eq!(payload(r#""Please wait""#), "Please wait");
        assert_eq!(payload(r#""{\"text\":\"in JSON\"}""#), "in JSON");
        assert_eq!(payload(r#""{\"type\":\"template\",\"payload\":{\"text\":\"deep\"}}""#), "deep");
    }

    #[test]
    fn texts_that_are_components_are_read_as_such() {
        let json = r#"{\"type\":\"template\",\"payload\":{\"template_type\":\"button\",\"text\":\"Pick &quot;1&quot;\"}}"#;
        assert_eq!(payload(&format!(r#"{{"text":"{json}"}}"#)), "Pick \"1\"");
        assert_eq!(text(&format!(r#"[{{"cInfo":{{"body":" {json} "}}}}]"#)), "Pick \"1\"");
        let html = "{&quot;type&quot;:&quot;template&quot;,&quot;payload&quot;:{&quot;text&quot;:&quot;a &amp;amp; b&quot;}}";
        assert_eq!(payload(&format!(r#"{{"text":"{html}"}}"#)), "a &amp; b", "unescaped once, not twice");
        let wordless = r#"{\"type\":\"template\",\"payload\":{\"template_type\":\"table\"}}"#;
        assert_eq!(payload(&format!(r#"{{"text":"{wordless}"}}"#)), "");
    }

    #[test]
    fn texts_that_only_look_like_components_stay() {
        for other in [r#"{\"orderId\":5}"#, "{not json}", "[1,2]", r#"{\"text\":\"cut"#, "{}"] {
            let expected: String = serde_json::from_str(&format!("\"{other}\"")).unwrap();
            assert_eq!(payload(&format!(r#"{{"text":"{other}"}}"#)), expected);
        }
    }

    #[test]
    fn elements_are_joined_by_line_feeds_and_the_silent_ones_skipped() {
        let [a, b] = ["a", "b"].map(|body| format!(r#"{{"cInfo":{{"body":"{body}"}}}}"#));
        let image = r#"{"component":{"payload":{"url":"x"}}}"#;
        assert_eq!(text(&format!("[{a},{image},null,7.5,{b}]")), "a\nb");
        assert_eq!(text(&format!("[{a},{{}},{b}]")), "a\nb");
    }

    #[test]
    fn messages_of_any_shape_have_a_text() {
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
    fn pieces_keep_blanks_and_are_never_json() {
        let whole = r#""component":{"payload":{"text":"whole"}}"#;
        let piece = |body: &str| of_piece(raw(&format!(r#"[{{{whole},"cInfo":{{"body":"{body}"}}}}]"#)));
        assert_eq!(piece(" a \\n"), " a \n");
        assert_eq!(piece(r#"{\"text\":\"x\"}"#), r#"{"text":"x"}"#);
        assert_eq!(of_piece(raw(r#"[{"component":{"payload":{"text":" b"}}}]"#)), " b");
        assert_eq!(of_complete(raw(r#"" all ""#)).unwrap(), " all ");
        assert_eq!(of_complete(raw(r#"{"text":"all"}"#)).unwrap(), "all");
        assert_eq!(of_complete(raw("\"\"")), None);
        assert_eq!(of_complete(raw("{}")), None);
    }

    #[test]
    fn templates_are_told_from_texts() {
        assert!(is_template(raw(r#"[{"component":{"type":"template","payload":{}}}]"#)));
        assert!(is_template(raw(r#"[{},{"component":{"payload":{"type":"template"}}}]"#)));
        assert!(!is_template(raw(r#"[{"type":"template","component":{"type":"text"}}]"#)));
        assert!(!is_template(raw("\"template\"")));
    }

    #[test]
    fn the_wait_template_is_found_where_templates_stand() {
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
    fn nesting_without_end_ends() {
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
        fn any_plain_text_comes_through(words in "[a-zäß0-9 .,!?\"'\\\\/\n]{1,40}") {
            let json = serde_json::to_string(&words).unwrap();
            let written = format!(r#"{{"text":{json}}}"#);
            prop_assert_eq!(&payload(&written), &words);
            let piece = format!(r#"[{{"cInfo":{{"body":{json}}}}}]"#);
            prop_assert_eq!(of_piece(raw(&piece)), words);
        }
    }
}
