//! The echo of our `clientMessageId` in what a bot says (protocol.md 6.1, docs/exact-correlation.md).
//!
//! A bot that wants its replies joined without doubt writes the number back. Where in the frame it ends up depends on
//! the prompt it is written in, and the platform may turn JSON into text on the way, once or twice. So the frame is
//! not taken apart: the name is looked for in its text, in quotes however they are escaped, with a colon and a number
//! behind it. That costs one search of a frame, whatever its nesting, and nothing more for one without the name.
//!
//! What it does not know: whether the number is one of ours.

use memchr::memmem;

use super::lenient_json::{digits, whole};

/// What both spellings of the name begin with.
const BEGINNING: &str = "client";
/// How they go on.
const ENDINGS: [&str; 2] = ["MessageId", "_message_id"];
/// A quote in a text that was escaped for HTML (protocol.md 7.3).
const HTML_QUOTE: &str = "&quot;";

/// The id that the frame echoes: the value of `clientMessageId` or `client_message_id` anywhere in it, also inside
/// of texts that are JSON; a whole number, a float that is one, or a string of digits. None where it names none, or
/// names several that differ: then it does not say which of them it answers.
pub(super) fn echo(frame: &str) -> Option<u64> {
    let mut echoed = None;
    for at in memmem::find_iter(frame.as_bytes(), BEGINNING) {
        let (Some(before), Some(after)) = (frame.get(..at), frame.get(at + BEGINNING.len()..)) else {
            continue;
        };
        let Some(id) = named(before, after) else { continue };
        if echoed.is_some_and(|other| other != id) {
            return None;
        }
        echoed = Some(id);
    }
    echoed
}

/// The number under the name that stands between these two, where it is the name of a member.
fn named(before: &str, after: &str) -> Option<u64> {
    if !before.ends_with('"') && !before.ends_with(HTML_QUOTE) {
        return None;
    }
    let behind = ENDINGS.iter().find_map(|ending| after.strip_prefix(ending))?;
    let value = unquoted(behind)?.trim_start().strip_prefix(':')?.trim_start();
    if let Some(text) = unquoted(value) {
        let text = text.trim_start();
        let (number, behind) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        unquoted(behind.trim_start())?;
        return digits(number);
    }
    let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let (number, behind) = value.split_at(value.find(|c| !is_of_number(c))?);
    // A backslash begins the line feed of a text that is JSON over several lines.
    let ends = behind.starts_with([',', '}', ']', ' ', '\n', '\r', '\t', '\\']);
    ends.then(|| whole(number)).flatten()
}

/// What stands behind a quote; none where there is none.
fn unquoted(text: &str) -> Option<&str> {
    text.trim_start_matches('\\').strip_prefix('"').or_else(|| text.strip_prefix(HTML_QUOTE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ID: u64 = 1_763_845_000_123;

    #[test]
    fn numbers_come_in_every_shape_and_under_both_names() {
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
                    assert_eq!(echo(&text), Some(ID), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_of_ours_is_no_echo() {
        for value in
            ["null", "-1", "1.5", "true", "{}", "[1]", "\"\"", "\"a-uuid\"", "\"1.0\"", "\"7", "7x", "\"7x\""]
        {
            let frame = format!(r#"{{"clientMessageId":{value}}}"#);
            assert_eq!(echo(&frame), None, "{frame}");
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
            assert_eq!(echo(frame), None, "{frame}");
        }
    }

    #[test]
    fn several_count_where_they_agree() {
        assert_eq!(
            echo(r#"{"clientMessageId":7,"x":{"client_message_id":"7","clientMessageId":null}}"#),
            Some(7)
        );
        assert_eq!(echo(r#"{"clientMessageId":7,"x":{"clientMessageId":8}}"#), None);
    }

    #[test]
    fn a_name_without_end_costs_no_more_than_its_length() {
        let frame = format!(r#"{{"clientMessageId":{}"#, "\"clientMessageId\":".repeat(50_000));
        assert_eq!(echo(&frame), None);
    }

    /// Wraps a value as a bot or the platform might: as a member, an element, JSON in a text, HTML in a text.
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
        fn it_is_found_however_deep_it_lies(id: u64, how in prop::collection::vec(0..5_u8, 0..8)) {
            let frame = wrapped(json!({ "clientMessageId": id }), &how);
            prop_assert_eq!(echo(&json!({ "type": "bot_response", "message": frame }).to_string()), Some(id));
        }

        #[test]
        fn it_is_found_in_escaped_html(id: u64, how in prop::collection::vec(0..2_u8, 0..4)) {
            let text = wrapped(json!({ "clientMessageId": id.to_string() }), &how).to_string().replace('"', "&quot;");
            prop_assert_eq!(echo(&json!({ "text": text }).to_string()), Some(id));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(client|MessageId|_message_id|[\"\\\\: ,}0-9eé.]|&quot;){0,30}") {
            let _ = echo(&text);
        }
    }
}
