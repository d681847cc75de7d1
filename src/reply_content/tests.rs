//! Shapes of messages, as documents and recordings have them, and the words that a user reads of each.

mod frameworks;
mod properties;
mod shapes;
mod templates;

use serde_json::{Value, json};

use super::*;

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

fn text(message: &str) -> String {
    of_message(raw(message)).text
}

/// Reads a message of one element with this component payload and this body.
fn sent(payload: &Value, body: &str) -> ReplyContent {
    let component = json!({"type": "template", "payload": {"type": "template", "payload": payload}});
    of_message(raw(&json!([{"type": "text", "component": component, "cInfo": {"body": body}}]).to_string()))
}

/// Reads the same message in each form in which the platform may send or keep it. All forms must read the same.
fn template(payload: &Value) -> ReplyContent {
    let wrapped = json!({"type": "template", "payload": payload}).to_string();
    let escaped = wrapped.replace('"', "&quot;");
    let quoted = Value::from(wrapped.as_str()).to_string();
    let as_text =
        |text: &str| json!([{"type": "text", "component": {"type": "text", "payload": {"text": text}}}]);
    let forms = [
        as_text(&wrapped),
        as_text(&escaped),
        as_text(&quoted),
        json!([{"cInfo": {"body": wrapped}}]),
        json!([{"type": "text", "component": {"type": "template", "payload": wrapped}}]),
    ];
    let read = sent(payload, &wrapped);
    assert_eq!(sent(payload, ""), read, "without a body");
    for form in forms {
        assert_eq!(of_message(raw(&form.to_string())), read, "{form}");
    }
    let record = json!([{"cT": "text", "data": {"text": wrapped}}]).to_string();
    assert_eq!(of_record(Some(raw(&record)), None), read, "a record of history");
    read
}

fn pairs(content: &ReplyContent) -> Vec<(&str, &str)> {
    content.choices.iter().map(|choice| (&*choice.title, &*choice.payload)).collect()
}

/// Returns kind, address and title of each of the media.
fn media(content: &ReplyContent) -> Vec<(&str, &str, &str)> {
    let word = |text: &'_ Option<Box<str>>| -> &'static str {
        text.as_deref().map_or("-", |text| Box::leak(text.to_owned().into_boxed_str()))
    };
    content.media.iter().map(|media| (media.kind.as_str(), word(&media.url), word(&media.title))).collect()
}
