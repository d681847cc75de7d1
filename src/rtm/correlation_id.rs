//! The correlation id of a reply: our `clientMessageId`, returned by a bot (protocol.md 6.1,
//! docs/exact-correlation.md).
//!
//! A bot can return the number of the message that it answers. The place in the frame depends on the prompt, and the
//! platform may turn JSON into text on the way, once or twice. So this file searches the text of the frame instead of
//! parsing it. It looks for the quoted name, in any escaping, followed by a colon and a number. The search is linear
//! in the length of the frame.
//!
//! This file does not know whether the number is one of ours.

use memchr::memmem;

use crate::domain::lenient_json::{parse_digits, parse_whole};

/// Common start of both spellings of the name.
const NAME_START: &str = "client";
/// Ends of the two spellings.
const NAME_ENDINGS: [&str; 2] = ["MessageId", "_message_id"];
/// Quote in a text that was escaped for HTML (protocol.md 7.3).
const HTML_QUOTE: &str = "&quot;";

/// Returns the value of `clientMessageId` or `client_message_id`, from anywhere in the frame. Both names count inside
/// of texts that are JSON too. The value is a whole number, a float without fraction or a string of digits. Returns
/// `None` if the frame has no such value, or several different ones.
pub(super) fn correlation_id(frame: &str) -> Option<u64> {
    let mut found = None;
    for at in memmem::find_iter(frame.as_bytes(), NAME_START) {
        let (Some(before), Some(after)) = (frame.get(..at), frame.get(at + NAME_START.len()..)) else {
            continue;
        };
        let Some(id) = member_value(before, after) else { continue };
        if found.is_some_and(|other| other != id) {
            return None;
        }
        found = Some(id);
    }
    found
}

/// Returns the number behind a name whose surroundings are `before` and `after`, if the name is that of a member.
fn member_value(before: &str, after: &str) -> Option<u64> {
    if !before.ends_with('"') && !before.ends_with(HTML_QUOTE) {
        return None;
    }
    let behind = NAME_ENDINGS.iter().find_map(|ending| after.strip_prefix(ending))?;
    let value = after_quote(behind)?.trim_start().strip_prefix(':')?.trim_start();
    if let Some(text) = after_quote(value) {
        let text = text.trim_start();
        let (number, behind) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        after_quote(behind.trim_start())?;
        return parse_digits(number);
    }
    let is_number_char = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let (number, behind) = value.split_at(value.find(|c| !is_number_char(c))?);
    // A backslash begins the line feed of JSON text over several lines.
    let ends = behind.starts_with([',', '}', ']', ' ', '\n', '\r', '\t', '\\']);
    ends.then(|| parse_whole(number)).flatten()
}

/// Returns the text behind a quote, or `None` if `text` begins with none.
fn after_quote(text: &str) -> Option<&str> {
    text.trim_start_matches('\\').strip_prefix('"').or_else(|| text.strip_prefix(HTML_QUOTE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ID: u64 = 1_763_845_000_123;

    #[test]
    fn correlation_id_in_any_number_form_is_found() {
        for name in ["clientMessageId", "client_message_id"] {
            for value in [
                "1763845000123",
                "1763845000123.0",
                "1.763845000123e12",
                "\"1763845000123\"",
                "\" 1763845000123 \"",
            ] {
                for text in [
                    format!(r#"{{"{name}":{value}}}"#),
                    format!(r#"{{"a":[{{"{name}" : {value} , "b":1}}]}}"#),
                    format!("{{\n\t\"{name}\":\t{value}\n}}"),
                ] {
                    assert_eq!(correlation_id(&text), Some(ID), "{text}");
                }
            }
        }
    }

    #[test]
    fn correlation_id_of_another_form_is_ignored() {
        for value in
            ["null", "-1", "1.5", "true", "{}", "[1]", "\"\"", "\"a-uuid\"", "\"1.0\"", "\"7", "7x", "\"7x\""]
        {
            let frame = format!(r#"{{"clientMessageId":{value}}}"#);
            assert_eq!(correlation_id(&frame), None, "{frame}");
        }
        for frame in [
            "",
            r#"{"client":"sdk"}"#,
            r#"{"clientMessageIds":7}"#,
            r#"{"myclientMessageId":7}"#,
            r#"{"text":"clientMessageId: 7 "}"#,
            r#"{"text":"the clientMessageId"}"#,
            r#"{"clientmessageid":7}"#,
            r#"{"clientMessageId":7"#,
        ] {
            assert_eq!(correlation_id(frame), None, "{frame}");
        }
    }

    #[test]
    fn correlation_ids_that_differ_are_ignored() {
        assert_eq!(
            correlation_id(r#"{"clientMessageId":7,"x":{"client_message_id":"7","clientMessageId":null}}"#),
            Some(7)
        );
        assert_eq!(correlation_id(r#"{"clientMessageId":7,"x":{"clientMessageId":8}}"#), None);
    }

    #[test]
    fn repeated_name_without_value_is_searched_once() {
        let frame = format!(r#"{{"clientMessageId":{}"#, "\"clientMessageId\":".repeat(50_000));
        assert_eq!(correlation_id(&frame), None);
    }

    /// Wraps a value as a member, an element, JSON in a text or HTML in a text.
    fn wrapped(value: Value, how: &[u8]) -> Value {
        how.iter().fold(value, |inner, how| match how {
            0 => json!({ "payload": inner, "type": "template" }),
            1 => json!(["before", inner]),
            2 => Value::String(inner.to_string()),
            3 => Value::String(serde_json::to_string_pretty(&inner).unwrap()),
            _ => json!({ "text": "Größe 5", "component": { "payload": inner } }),
        })
    }

    proptest! {
        #[test]
        fn nested_correlation_id_is_found(id: u64, how in prop::collection::vec(0..5_u8, 0..8)) {
            let frame = wrapped(json!({ "clientMessageId": id }), &how);
            prop_assert_eq!(correlation_id(&json!({ "type": "bot_response", "message": frame }).to_string()), Some(id));
        }

        #[test]
        fn html_escaped_correlation_id_is_found(id: u64, how in prop::collection::vec(0..2_u8, 0..4)) {
            let text = wrapped(json!({ "clientMessageId": id.to_string() }), &how).to_string().replace('"', "&quot;");
            prop_assert_eq!(correlation_id(&json!({ "text": text }).to_string()), Some(id));
        }

        #[test]
        fn random_text_does_not_panic(text in "(client|MessageId|_message_id|[\"\\\\: ,}0-9eé.]|&quot;){0,30}") {
            let _ = correlation_id(&text);
        }
    }
}
