//! The printed form of a delivery: text for people, JSON for programs. This module does no I/O.

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::received::DeliveryHeaders;
use crate::domain::{Timestamp, lenient_json};
use crate::telemetry::{escaped_json, masked_line};

/// The most characters of one text.
const TEXT_MAX: usize = 2000;
/// The most lines of one text.
const LINES_MAX: usize = 20;

/// A received delivery with its verification and its answer.
#[derive(Debug)]
pub(super) struct DeliveryReport<'a> {
    pub(super) at: Timestamp,
    pub(super) path: &'a str,
    pub(super) headers: &'a DeliveryHeaders,
    pub(super) body: &'a [u8],
    pub(super) check: SignatureCheck,
    /// Whether a delivery with the same id was accepted before.
    pub(super) repeated: bool,
    /// The status of the answer.
    pub(super) status: u16,
}

/// The result of a delivery's verification.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SignatureCheck {
    /// There is no secret to verify with.
    Skipped,
    Valid,
    /// The signature is invalid or missing, for this reason.
    Failed(String),
}

impl DeliveryReport<'_> {
    /// Returns the text for people: a line about the delivery, then its content, indented.
    pub(super) fn text(&self, coloured: bool) -> String {
        let body = self.value();
        let kind = self.kind(body.as_ref()).unwrap_or("(of no known type)");
        // The reader knows the day.
        let at = self.at.to_string();
        let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time).trim_end_matches('Z');
        let mut text = format!("{time}  {}", masked_line(kind));
        for (word, header) in [("", "webhook-id"), ("attempt ", "webhook-attempt")] {
            if let Some(value) = self.headers.get(header) {
                let _ = write!(text, "  {word}{}", masked_line(value));
            }
        }
        let (words, colour) = match &self.check {
            SignatureCheck::Skipped => ("not checked", AnsiColor::Yellow),
            SignatureCheck::Valid => ("verified", AnsiColor::Green),
            SignatureCheck::Failed(_) => ("NOT VERIFIED", AnsiColor::Red),
        };
        let style = if coloured { colour.on_default() } else { Style::new() };
        let _ = write!(text, "  {style}{words}{style:#}  -> {}", self.status);
        if self.repeated {
            text.push_str("  (repeated: a receiver should ignore it)");
        }
        text.push('\n');
        if let SignatureCheck::Failed(reason) = &self.check {
            indent(&mut text, "", reason);
        }
        match body.as_ref().map(|body| content(body, kind)) {
            Some(content) if !content.is_empty() => {
                for (label, words) in content {
                    indent(&mut text, &label, &words);
                }
            }
            _ => indent(&mut text, "", &String::from_utf8_lossy(self.body)),
        }
        text
    }

    /// Returns a JSON object on one line, for programs. It may be printed on a terminal all the same.
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct DeliveryJson<'a> {
            at: Timestamp,
            path: &'a str,
            r#type: Option<&'a str>,
            id: Option<&'a str>,
            attempt: Option<u64>,
            verified: Option<bool>,
            reason: Option<&'a str>,
            repeated: bool,
            status: u16,
            headers: serde_json::Map<String, Value>,
            body: Box<RawValue>,
        }
        let body = self.value();
        // Recorded lines hold no credentials.
        let value =
            |name: &str, value: &str| if name == "authorization" { "…".into() } else { value.into() };
        let json = DeliveryJson {
            at: self.at,
            path: self.path,
            r#type: self.kind(body.as_ref()),
            id: self.headers.get("webhook-id"),
            attempt: self.headers.get("webhook-attempt").and_then(|attempt| attempt.parse().ok()),
            verified: match self.check {
                SignatureCheck::Skipped => None,
                SignatureCheck::Valid => Some(true),
                SignatureCheck::Failed(_) => Some(false),
            },
            reason: match &self.check {
                SignatureCheck::Failed(reason) => Some(reason),
                _ => None,
            },
            repeated: self.repeated,
            status: self.status,
            headers: self.headers.iter().map(|(name, text)| (name.to_owned(), value(name, text))).collect(),
            body: raw_body(self.body, body.as_ref()),
        };
        escaped_json(&serde_json::to_string(&json).unwrap_or_default()).into_owned() + "\n"
    }

    /// Returns the body, if it is JSON. The platform's frames in it may be odd.
    fn value(&self) -> Option<Value> {
        lenient_json::value(str::from_utf8(self.body).ok()?)
    }

    /// Returns the type of the event in any of the forms.
    fn kind<'a>(&'a self, body: Option<&'a Value>) -> Option<&'a str> {
        let from_body = |body: &'a Value| match body.get("type").and_then(Value::as_str) {
            None if body.get("_v").is_some_and(|version| version == "v2") => Some("kore-v2"),
            kind => kind,
        };
        self.headers.get("ce-type").or_else(|| from_body(body?))
    }
}

/// Returns the body as JSON on one line, unchanged if it is that already. Another body becomes a JSON string.
fn raw_body(bytes: &[u8], body: Option<&Value>) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let written = match body {
        Some(body) if text.contains(['\n', '\r']) => serde_json::value::to_raw_value(body),
        Some(_) => RawValue::from_string(text),
        None => serde_json::value::to_raw_value(&text),
    };
    written.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Returns labelled texts: the user's message, the bot's replies, the failure. Other types of events have none.
fn content(body: &Value, kind: &str) -> Vec<(String, String)> {
    // The standard form has it in `data`. In CloudEvents' binary mode the body is the data.
    let data = match kind {
        "kore-v2" => body,
        _ => body.get("data").filter(|_| body.get("type").is_some()).unwrap_or(body),
    };
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut all = Vec::new();
    match kind {
        "kore-v2" => {
            for part in data.get("data").and_then(Value::as_array).into_iter().flatten() {
                let words = match part.get("val") {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => continue,
                };
                all.push(("bot: ".to_owned(), words));
            }
        }
        "message.answered" | "message.failed" => {
            all.push((format!("{}: ", text(data, "user")), text(data, "text")));
            let replies = data.get("replies").and_then(Value::as_array).into_iter().flatten();
            all.extend(replies.map(|reply| (format!("{}: ", speaker(reply)), text(reply, "text"))));
            if let Some(problem) = data.get("error").filter(|error| !error.is_null()) {
                all.push((
                    "failed: ".to_owned(),
                    format!("{}. {}", text(problem, "title"), text(problem, "detail")),
                ));
            }
        }
        "reply.late" | "reply.unsolicited" => {
            let user = text(data, "user");
            all.push((format!("{}, to {user}: ", speaker(data)), text(data, "text")));
        }
        _ => {}
    }
    all
}

fn speaker(reply: &Value) -> &'static str {
    if reply.get("agent").is_some_and(|agent| agent == true) { "agent" } else { "bot" }
}

/// Appends a text with indented lines. A long text is cut.
fn indent(to: &mut String, label: &str, words: &str) {
    let cut: String = words.chars().take(TEXT_MAX).collect();
    let mut lines = cut.lines();
    let _ = writeln!(to, "    {}{}", masked_line(label), masked_line(lines.next().unwrap_or("(no text)")));
    for line in lines.by_ref().take(LINES_MAX - 1) {
        let _ = writeln!(to, "      {}", masked_line(line));
    }
    if cut.len() < words.len() || lines.next().is_some() {
        let _ = writeln!(to, "      … ({} bytes in all)", words.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn headers(more: &[(&str, &str)]) -> DeliveryHeaders {
        let all = [("webhook-id", "01M"), ("webhook-attempt", "2"), ("authorization", "Bearer hush")];
        all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn render(headers: &DeliveryHeaders, body: &[u8], check: SignatureCheck) -> (String, Value) {
        let at = Timestamp::from_millis(1_795_426_048_123);
        let report = DeliveryReport { at, path: "/hook", headers, body, check, repeated: false, status: 204 };
        let line = report.json();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        (report.text(false), serde_json::from_str(&line).unwrap())
    }

    #[test]
    fn answered_message_is_rendered_with_text_and_replies() {
        let data = json!({
            "user": "alice", "text": "Where is it?", "error": null,
            "replies": [{"text": "Let me see.\nIt left.", "agent": false}, {"text": "Alex here", "agent": true}],
        });
        let expected = "09:27:28.123  message.answered  01M  attempt 2  verified  -> 204\n    alice: Where is it?\n    \
                        bot: Let me see.\n      It left.\n    agent: Alex here\n";
        let standard = json!({"type": "message.answered", "timestamp": "…", "data": data});
        let (text, line) = render(&headers(&[]), standard.to_string().as_bytes(), SignatureCheck::Valid);
        assert_eq!(text, expected);
        assert_eq!(line["body"], standard);
        assert_eq!(
            (&line["verified"], &line["attempt"], &line["type"]),
            (&json!(true), &json!(2), &json!("message.answered"))
        );
        assert_eq!(line["headers"]["authorization"], "…");

        let events = headers(&[("ce-type", "message.answered")]);
        let (text, line) = render(&events, data.to_string().as_bytes(), SignatureCheck::Valid);
        assert_eq!(text, expected);
        assert_eq!(line["body"], data);
    }

    #[test]
    fn failures_late_replies_and_kore_v2_are_rendered() {
        let data = json!({"user": "bob", "text": "hi", "replies": [], "error": {"title": "No reply", "detail": "Silence."}});
        let failed = json!({"type": "message.failed", "data": data}).to_string();
        let (text, _) = render(&headers(&[]), failed.as_bytes(), SignatureCheck::Skipped);
        assert!(
            text.contains("not checked") && text.ends_with("    bob: hi\n    failed: No reply. Silence.\n"),
            "{text}"
        );
        let late = json!({"type": "reply.late", "data": {"user": "bob", "text": "more"}}).to_string();
        assert!(
            render(&headers(&[]), late.as_bytes(), SignatureCheck::Valid)
                .0
                .ends_with("    bot, to bob: more\n")
        );
        let kore = json!({"_v": "v2", "data": [{"type": "text", "val": "Hello"}, {"type": "template", "val": {"a": 1}}]});
        let (text, line) = render(&headers(&[]), kore.to_string().as_bytes(), SignatureCheck::Valid);
        assert!(text.contains("kore-v2") && text.ends_with("    bot: Hello\n    bot: {\"a\":1}\n"), "{text}");
        assert_eq!(line["type"], "kore-v2");
    }

    #[test]
    fn unknown_body_is_rendered_without_control_characters() {
        let (text, line) =
            render(&headers(&[]), b"{\"a\":\n1}", SignatureCheck::Failed("it is old".to_owned()));
        assert!(
            text.contains("(of no known type)")
                && text.contains("NOT VERIFIED")
                && text.contains("    it is old\n"),
            "{text}"
        );
        assert_eq!(
            (&line["body"], &line["verified"], &line["reason"]),
            (&json!({"a": 1}), &json!(false), &json!("it is old"))
        );
        let odd = headers(&[("x-odd", "\u{9b}2J\u{202e}")]);
        let report = DeliveryReport {
            at: Timestamp::from_millis(0),
            path: "/",
            headers: &odd,
            body: "{\"a\":\"\u{202e}\u{9b}\"}".as_bytes(),
            check: SignatureCheck::Skipped,
            repeated: false,
            status: 204,
        };
        let line = report.json();
        assert!(!line.contains(['\u{9b}', '\u{202e}']) && line.contains("\\u202e"), "{line}");
        let (text, line) = render(&headers(&[]), b"\x1b[2J\xff", SignatureCheck::Skipped);
        assert!(!text.contains('\x1b') && text.contains("[2J"), "{text}");
        assert_eq!(line["body"], "\u{1b}[2J\u{fffd}");
        let long = json!({"type": "reply.late", "data": {"text": "x\n".repeat(900)}}).to_string();
        let (text, _) = render(&headers(&[]), long.as_bytes(), SignatureCheck::Valid);
        assert!(text.lines().count() < 24 && text.contains("1800 bytes in all"), "{text}");
        let (text, _) = render(&headers(&[]), b"", SignatureCheck::Skipped);
        assert!(text.contains("(no text)"), "{text}");
    }
}
