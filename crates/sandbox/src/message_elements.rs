//! Builds elements of a response's `message` array, in every known shape (protocol.md 7.3).

use serde_json::{Value, json};

/// The names that [`named`] knows.
pub const NAMES: [&str; 21] = [
    "text",
    "minimal",
    "differing",
    "buttons",
    "quick_replies",
    "carousel",
    "list",
    "table",
    "template_in_body",
    "payload_string",
    "payload_plain",
    "json_text",
    "quot",
    "error",
    "image",
    "link",
    "attachment",
    "wait_for_response",
    "live_agent",
    "empty",
    "two",
];

/// Address in place of the sandbox's own, in elements that are built before it is known.
pub const SITE: &str = "http://sandbox.invalid";

/// Returns the elements with the sandbox's own address in their URLs.
pub(super) fn at_site(elements: &[Value], site: &str) -> Vec<Value> {
    elements.iter().map(|element| with_strings(element, &|text| text.replace(SITE, site))).collect()
}

/// Returns the elements with `&`, `<`, `>`, `"` and `'` of their texts escaped.
pub(super) fn escaped(elements: &[Value]) -> Vec<Value> {
    let mut elements = elements.to_vec();
    for element in &mut elements {
        for place in ["/cInfo/body", "/component/payload/text"] {
            if let Some(Value::String(text)) = element.pointer_mut(place) {
                *text = escape_html(text);
            }
        }
    }
    elements
}

/// Escapes the five characters that the platform escapes.
pub(super) fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns a value with each of its strings replaced.
pub(super) fn with_strings(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|item| with_strings(item, change)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), with_strings(field, change))).collect()
        }
        other => other.clone(),
    }
}

/// Builds a text element with the same text in both places, as the platform does.
pub fn text(text: &str) -> Value {
    differing(text, text)
}

/// Builds the oldest shape: no component.
pub fn minimal(text: &str) -> Value {
    json!({"type": "text", "cInfo": {"body": text}})
}

/// Builds a text element whose two texts differ.
pub fn differing(payload: &str, body: &str) -> Value {
    json!({"type": "text", "component": {"type": "text", "payload": {"text": payload}}, "cInfo": {"body": body}})
}

/// Builds a template. Its payload is nested twice, and its body is a readable fallback.
pub fn template(payload: &Value, body: &str) -> Value {
    json!({
        "type": "text",
        "component": {"type": "template", "payload": {"type": "template", "payload": payload}},
        "cInfo": {"body": body},
    })
}

/// Builds a line of a human agent, as desks of other vendors send it.
pub fn agent_line(text: &str) -> Value {
    template(&json!({"template_type": "live_agent", "text": text}), text)
}

/// Builds a question with buttons.
pub fn buttons(question: &str, titles: &[&str]) -> Value {
    let buttons: Vec<Value> =
        titles.iter().map(|title| json!({"type": "postback", "title": title, "payload": title})).collect();
    template(
        &json!({"template_type": "button", "text": question, "buttons": buttons}),
        &choices(question, titles),
    )
}

/// Builds a question with quick replies.
pub fn quick_replies(question: &str, titles: &[&str]) -> Value {
    let replies: Vec<Value> = titles
        .iter()
        .map(|title| json!({"content_type": "text", "title": title, "payload": title}))
        .collect();
    let payload = json!({"template_type": "quick_replies", "text": question, "quick_replies": replies});
    template(&payload, &choices(question, titles))
}

fn choices(question: &str, titles: &[&str]) -> String {
    use std::fmt::Write as _;

    let mut body = format!("{question} \r\n\r\n");
    for (letter, title) in ('a'..='z').zip(titles) {
        let _infallible = write!(body, " {letter}) {title} \r\n");
    }
    body
}

/// Builds a template with two parcels.
fn parcels(kind: &str) -> Value {
    let element = |title: &str, subtitle: &str| {
        json!({
            "title": title, "subtitle": subtitle, "image_url": parcel_picture(),
            "buttons": [{"type": "postback", "title": "Track", "payload": format!("Track {title}")}],
        })
    };
    let elements = [element("Order 4711", "Arrives today"), element("Order 4712", "Being packed")];
    template(
        &json!({"template_type": kind, "text": "Your orders", "elements": elements}),
        "Your orders: 4711 arrives today, 4712 is being packed",
    )
}

/// Returns the URL of the picture that the sandbox serves.
fn parcel_picture() -> String {
    format!("{SITE}/sandbox/parcel.png")
}

/// Builds a medium: a picture, a sound, a film or a link.
pub(super) fn media(kind: &str, payload: &Value) -> Value {
    json!({"type": "text", "component": {"type": kind, "payload": {"type": kind, "payload": payload}}, "cInfo": {"body": ""}})
}

/// Returns a `message` array by its name, for `/template`.
pub fn named(name: &str) -> Option<Vec<Value>> {
    let raw = r#"{"type":"template","payload":{"template_type":"button","text":"Say \"yes\"?","buttons":[{"type":"postback","title":"Yes","payload":"yes"}]}}"#;
    let element = match name {
        "empty" => return Some(Vec::new()),
        "two" => return Some(vec![text("The first of two elements"), text("The second of two elements")]),
        "text" => text("Plain text"),
        "minimal" => minimal("Text without a component"),
        "differing" => differing("Hello ", "Hi there!  "),
        "buttons" => buttons("Which order do you mean?", &["4711", "4712"]),
        "quick_replies" => quick_replies("Was that helpful?", &["Yes", "No"]),
        "carousel" | "list" => parcels(name),
        "table" => template(
            &json!({
                "template_type": "table", "text": "Your orders",
                "columns": [["Order", "left"], ["Status", "left"]],
                "elements": [{"Values": ["4711", "on its way"]}, {"Values": ["4712", "being packed"]}],
            }),
            "4711 is on its way, 4712 is being packed",
        ),
        "template_in_body" => {
            let mut element = buttons("Is the body readable?", &["No"]);
            if let Some(payload) = element.pointer("/component/payload").map(Value::to_string)
                && let Some(body) = element.pointer_mut("/cInfo/body")
            {
                *body = Value::String(payload);
            }
            element
        }
        "payload_string" => {
            json!({"type": "text", "component": {"type": "template", "payload": raw}, "cInfo": {"body": ""}})
        }
        "payload_plain" => {
            json!({"type": "text", "component": {"type": "text", "payload": "You are number 2 in the queue"}, "cInfo": {"body": ""}})
        }
        "json_text" => text(raw),
        "quot" => text("Your parcel &quot;4711&quot; is on its way"),
        "error" => {
            json!({
                "type": "text",
                "component": {"type": "error", "payload": {"type": "error", "payload": {"text": "Something went wrong", "color": "red"}}},
                "cInfo": {"body": "Something went wrong"},
            })
        }
        "image" => media("image", &json!({"url": parcel_picture(), "text": "Your parcel"})),
        "link" => {
            media("link", &json!({"url": "https://example.com/track/4711", "title": "Track your parcel"}))
        }
        "attachment" => json!({
            "type": "text",
            "cInfo": {"body": "Your invoice", "attachments": [{"type": "file", "fileId": "f-1", "fileName": "invoice.pdf"}]},
        }),
        "live_agent" => agent_line("Hi, this is Alex"),
        "wait_for_response" => {
            template(&json!({"template_type": "wait_for_response", "text": "One moment"}), "One moment")
        }
        _ => return None,
    };
    Some(vec![element])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_elements() {
        for name in NAMES {
            assert!(named(name).is_some(), "{name}");
        }
        assert_eq!(named("unheard of"), None);
    }

    #[test]
    fn pictures_are_at_the_sandbox_itself() {
        for name in ["carousel", "list", "image"] {
            let at_home = at_site(&named(name).unwrap(), "http://127.0.0.1:4000");
            let text = Value::from(at_home).to_string();
            assert!(text.contains("http://127.0.0.1:4000/sandbox/parcel.png"), "{text}");
            assert!(!text.contains(SITE), "{text}");
        }
    }

    #[test]
    fn five_characters_are_escaped() {
        let escaped = escaped(&[differing("5 < 7 & \"a\"", "it's > 1"), minimal("<b>")]);
        assert_eq!(escaped[0], differing("5 &lt; 7 &amp; &quot;a&quot;", "it&#39;s &gt; 1"));
        assert_eq!(escaped[1], minimal("&lt;b&gt;"));
    }

    #[test]
    fn template_has_a_double_payload_and_a_readable_body() {
        let element = quick_replies("Tea?", &["Yes", "No"]);
        assert_eq!(
            element.pointer("/component/payload/payload/template_type"),
            Some(&json!("quick_replies"))
        );
        assert_eq!(element.pointer("/cInfo/body"), Some(&json!("Tea? \r\n\r\n a) Yes \r\n b) No \r\n")));
    }
}
