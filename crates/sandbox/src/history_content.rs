//! The content of a message as the history stores it (protocol.md 7.10).

use serde_json::{Value, json};

use super::behaviour::HistoryTextStyle;

/// Stored content of a message. Templates and media are JSON text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HistoryContent {
    /// Members `data` of the record's components.
    components: Vec<Value>,
    /// Text to show in place of the components.
    alternative: Option<String>,
    /// Files of the message.
    attachments: Option<Value>,
}

impl HistoryContent {
    /// Returns the content of a plain text.
    pub(super) fn text(text: &str) -> Self {
        Self { components: vec![json!({"text": text})], ..Self::default() }
    }

    /// Returns the content of a user's message.
    pub(super) fn of_user(text: &str, attachments: Option<&Value>) -> Self {
        let attachments = attachments.filter(|files| files.as_array().is_some_and(|files| !files.is_empty()));
        let mut content = Self { attachments: attachments.cloned(), ..Self::text(text) };
        if let (Some(files), Some(data)) = (&content.attachments, content.components.first_mut()) {
            data["attachments"] = files.clone();
        }
        content
    }

    /// Returns the content of a response's `message` array.
    pub(super) fn of_elements(elements: &[Value], style: HistoryTextStyle) -> Self {
        let components = elements.iter().map(|element| data(element, style)).collect();
        let alternative = elements.iter().find_map(alternative);
        let attachments = elements.iter().find_map(|element| element.pointer("/cInfo/attachments")).cloned();
        Self { components, alternative, attachments }
    }

    /// Returns the member `components` of the record.
    pub(super) fn components(&self) -> Value {
        self.components.iter().map(|data| json!({"cT": "text", "data": data})).collect()
    }

    /// Returns the member `tags.altText` of the record.
    pub(super) fn alternatives(&self) -> Value {
        self.alternative.iter().map(|text| json!({"value": text})).collect()
    }

    /// Returns the files of the message.
    pub(super) fn attachments(&self) -> Option<&Value> {
        self.attachments.as_ref()
    }
}

/// Returns the stored data of one element.
fn data(element: &Value, style: HistoryTextStyle) -> Value {
    let body = element.pointer("/cInfo/body").and_then(Value::as_str).unwrap_or_default();
    let payload = element.pointer("/component/payload");
    let text = match payload {
        Some(payload) if is_structured(element) => json_text(payload),
        Some(payload) => {
            let text = payload.as_str().or_else(|| payload.get("text")?.as_str()).unwrap_or_default();
            let (first, second) = match style {
                HistoryTextStyle::Payload => (text, body),
                HistoryTextStyle::Body => (body, text),
            };
            (if first.is_empty() { second } else { first }).to_owned()
        }
        None => body.to_owned(),
    };
    match element.pointer("/cInfo/attachments") {
        Some(files) => json!({"text": text, "attachments": files}),
        None => json!({"text": text}),
    }
}

/// Returns whether the element is stored as JSON text: a template or a medium.
fn is_structured(element: &Value) -> bool {
    let kind = element.pointer("/component/type").and_then(Value::as_str);
    kind.is_some_and(|kind| {
        matches!(kind, "template" | "image" | "audio" | "video" | "message" | "link" | "file")
    })
}

fn json_text(payload: &Value) -> String {
    payload.as_str().map_or_else(|| payload.to_string(), str::to_owned)
}

/// Returns the readable form of a structured element, if it has one.
fn alternative(element: &Value) -> Option<String> {
    let places = ["/cInfo/body", "/component/payload/payload/text", "/component/payload/payload/title"];
    let text =
        places.into_iter().filter_map(|place| element.pointer(place)?.as_str()).find(|text| !text.is_empty());
    text.filter(|_| is_structured(element)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message_elements;

    fn texts(name: &str, style: HistoryTextStyle) -> (Vec<String>, Value) {
        let content = HistoryContent::of_elements(&message_elements::named(name).unwrap(), style);
        let components = content.components();
        let texts = components.as_array().unwrap().iter();
        (
            texts.map(|part| part["data"]["text"].as_str().unwrap().to_owned()).collect(),
            content.alternatives(),
        )
    }

    #[test]
    fn each_shape_has_a_text_in_the_history() {
        for name in message_elements::NAMES.into_iter().filter(|name| *name != "empty") {
            let (texts, _) = texts(name, HistoryTextStyle::Payload);
            assert!(!texts.is_empty() && texts.iter().all(|text| !text.is_empty()), "{name}: {texts:?}");
        }
        let first = |name| texts(name, HistoryTextStyle::Payload).0.swap_remove(0);
        assert_eq!(first("payload_plain"), "You are number 2 in the queue");
        assert!(first("payload_string").starts_with(r#"{"type":"template""#));
        assert_eq!(first("error"), "Something went wrong");
    }

    #[test]
    fn differing_texts_follow_the_style() {
        assert_eq!(texts("differing", HistoryTextStyle::Payload).0, ["Hello "]);
        assert_eq!(texts("differing", HistoryTextStyle::Body).0, ["Hi there!  "]);
        assert_eq!(texts("minimal", HistoryTextStyle::Payload).0, ["Text without a component"]);
    }

    #[test]
    fn medium_is_json_text_with_an_alternative() {
        for (name, alternative) in [("image", "Your parcel"), ("link", "Track your parcel")] {
            let (texts, alternatives) = texts(name, HistoryTextStyle::Payload);
            let stored: Value = serde_json::from_str(&texts[0]).unwrap();
            assert_eq!((&stored["type"], alternatives), (&json!(name), json!([{"value": alternative}])));
        }
    }

    #[test]
    fn elements_and_files_are_kept() {
        let (both, alternatives) = texts("two", HistoryTextStyle::Payload);
        assert_eq!(both, ["The first of two elements", "The second of two elements"]);
        assert_eq!(alternatives, json!([]));
        let invoice = message_elements::named("attachment").unwrap();
        let content = HistoryContent::of_elements(&invoice, HistoryTextStyle::Payload);
        assert_eq!(content.attachments().unwrap()[0]["fileName"], "invoice.pdf");
        let files = json!([{"fileId": "f-1"}]);
        let content = HistoryContent::of_user("", Some(&files));
        assert_eq!(content.components()[0]["data"], json!({"text": "", "attachments": files}));
        assert_eq!(HistoryContent::of_user("Hi", Some(&json!([]))), HistoryContent::text("Hi"));
    }
}
