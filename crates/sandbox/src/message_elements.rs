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
            "title": title, "subtitle": subtitle, "image_url": "https://example.com/parcel.png",
            "buttons": [{"type": "postback", "title": "Track", "payload": format!("Track {title}")}],
        })
    };
    let elements = [element("Order 4711", "Arrives today"), element("Order 4712", "Being packed")];
    template(
        &json!({"template_type": kind, "text": "Your orders", "elements": elements}),
        "Your orders: 4711 arrives today, 4712 is being packed",
    )
}

fn media(kind: &str, payload: &Value) -> Value {
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
        "image" => media("image", &json!({"url": "https://example.com/parcel.png", "text": "Your parcel"})),
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
    fn template_has_a_double_payload_and_a_readable_body() {
        let element = quick_replies("Tea?", &["Yes", "No"]);
        assert_eq!(
            element.pointer("/component/payload/payload/template_type"),
            Some(&json!("quick_replies"))
        );
        assert_eq!(element.pointer("/cInfo/body"), Some(&json!("Tea? \r\n\r\n a) Yes \r\n b) No \r\n")));
    }
}
