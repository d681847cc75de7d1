//! A delivery as people read it, and as programs do. No I/O.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::arrived::Headers;
use crate::domain::Timestamp;

/// The most characters of one text that are shown.
const TEXT_MAX: usize = 2000;
/// The most lines of one text that are shown.
const LINES_MAX: usize = 20;

/// A delivery that arrived, what was thought of it, and what was answered.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) at: Timestamp,
    pub(super) path: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) body: &'a [u8],
    pub(super) verdict: Verdict,
    /// Whether a delivery with its id was taken before.
    pub(super) repeated: bool,
    pub(super) status: u16,
}

/// What was thought of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is no secret to verify with.
    Unchecked,
    Verified,
    /// Why it is not to be trusted.
    Refused(String),
}

impl Shown<'_> {
    /// For people: a line about it, then what it tells, indented.
    pub(super) fn text(&self) -> String {
        let body: Option<Value> = serde_json::from_slice(self.body).ok();
        let kind = self.kind(body.as_ref()).unwrap_or("(of no known type)");
        // The day is known to who looks at it.
        let at = self.at.to_string();
        let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time).trim_end_matches('Z');
        let mut text = format!("{time}  {}", shown(kind));
        for (word, header) in [("", "webhook-id"), ("attempt ", "webhook-attempt")] {
            if let Some(value) = self.headers.get(header) {
                let _ = write!(text, "  {word}{}", shown(value));
            }
        }
        text.push_str(match &self.verdict {
            Verdict::Unchecked => "  not checked",
            Verdict::Verified => "  verified",
            Verdict::Refused(_) => "  NOT VERIFIED",
        });
        let _ = write!(text, "  -> {}", self.status);
        if self.repeated {
            text.push_str("  (taken before: ignore it)");
        }
        text.push('\n');
        if let Verdict::Refused(why) = &self.verdict {
            indent(&mut text, "", why);
        }
        match body.as_ref().map(|body| said(body, kind)) {
            Some(said) if !said.is_empty() => {
                for (who, what) in said {
                    indent(&mut text, &who, &what);
                }
            }
            _ => indent(&mut text, "", &String::from_utf8_lossy(self.body)),
        }
        text
    }

    /// For programs: a JSON object on one line.
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct View<'a> {
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
        let body: Option<Value> = serde_json::from_slice(self.body).ok();
        // What authorizes a sender is not for a file of recorded lines.
        let value =
            |name: &str, value: &str| if name == "authorization" { "…".into() } else { value.into() };
        let view = View {
            at: self.at,
            path: self.path,
            r#type: self.kind(body.as_ref()),
            id: self.headers.get("webhook-id"),
            attempt: self.headers.get("webhook-attempt").and_then(|attempt| attempt.parse().ok()),
            verified: match self.verdict {
                Verdict::Unchecked => None,
                Verdict::Verified => Some(true),
                Verdict::Refused(_) => Some(false),
            },
            reason: match &self.verdict {
                Verdict::Refused(why) => Some(why),
                _ => None,
            },
            repeated: self.repeated,
            status: self.status,
            headers: self.headers.iter().map(|(name, text)| (name.to_owned(), value(name, text))).collect(),
            body: raw(self.body, body.as_ref()),
        };
        serde_json::to_string(&view).unwrap_or_default() + "\n"
    }

    /// What it tells of, in whatever form.
    fn kind<'a>(&'a self, body: Option<&'a Value>) -> Option<&'a str> {
        let told = |body: &'a Value| match body.get("type").and_then(Value::as_str) {
            None if body.get("_v").is_some_and(|version| version == "v2") => Some("kore-v2"),
            told => told,
        };
        self.headers.get("ce-type").or_else(|| told(body?))
    }
}

/// The body as JSON on one line, byte for byte where it is; what is no JSON becomes text.
fn raw(bytes: &[u8], body: Option<&Value>) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let written = match body {
        Some(body) if text.contains(['\n', '\r']) => serde_json::value::to_raw_value(body),
        Some(_) => RawValue::from_string(text),
        None => serde_json::value::to_raw_value(&text),
    };
    written.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Who said what, as far as it is known: the user's message, the bot's replies, what went wrong.
fn said(body: &Value, kind: &str) -> Vec<(String, String)> {
    // In the standard form it is in `data`; in CloudEvents' binary mode the body is the data.
    let data = match kind {
        "kore-v2" => body,
        _ => body.get("data").filter(|_| body.get("type").is_some()).unwrap_or(body),
    };
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut all = Vec::new();
    match kind {
        "kore-v2" => {
            for part in data.get("data").and_then(Value::as_array).into_iter().flatten() {
                let what = match part.get("val") {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => continue,
                };
                all.push(("bot: ".to_owned(), what));
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

/// Adds a text, its lines indented; what is very long is cut.
fn indent(to: &mut String, who: &str, what: &str) {
    let cut: String = what.chars().take(TEXT_MAX).collect();
    let mut lines = cut.lines();
    let _ = writeln!(to, "    {}{}", shown(who), shown(lines.next().unwrap_or("(no text)")));
    for line in lines.by_ref().take(LINES_MAX - 1) {
        let _ = writeln!(to, "      {}", shown(line));
    }
    if cut.len() < what.len() || lines.next().is_some() {
        let _ = writeln!(to, "      … ({} bytes in all)", what.len());
    }
}

/// A text of others without what would steer a terminal.
fn shown(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn headers(more: &[(&str, &str)]) -> Headers {
        let all = [("webhook-id", "01M"), ("webhook-attempt", "2"), ("authorization", "Bearer hush")];
        all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn show(headers: &Headers, body: &[u8], verdict: Verdict) -> (String, Value) {
        let at = Timestamp::from_millis(1_795_426_048_123);
        let shown = Shown { at, path: "/hook", headers, body, verdict, repeated: false, status: 204 };
        let line = shown.json();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        (shown.text(), serde_json::from_str(&line).unwrap())
    }

    #[test]
    fn a_messages_end_is_shown_with_all_that_was_said() {
        let data = json!({
            "user": "alice", "text": "Where is it?", "error": null,
            "replies": [{"text": "Let me see.\nIt left.", "agent": false}, {"text": "Alex here", "agent": true}],
        });
        let expected = "09:27:28.123  message.answered  01M  attempt 2  verified  -> 204\n    alice: Where is it?\n    \
                        bot: Let me see.\n      It left.\n    agent: Alex here\n";
        let standard = json!({"type": "message.answered", "timestamp": "…", "data": data});
        let (text, line) = show(&headers(&[]), standard.to_string().as_bytes(), Verdict::Verified);
        assert_eq!(text, expected);
        assert_eq!(line["body"], standard);
        assert_eq!(
            (&line["verified"], &line["attempt"], &line["type"]),
            (&json!(true), &json!(2), &json!("message.answered"))
        );
        assert_eq!(line["headers"]["authorization"], "…");

        let events = headers(&[("ce-type", "message.answered")]);
        let (text, line) = show(&events, data.to_string().as_bytes(), Verdict::Verified);
        assert_eq!(text, expected);
        assert_eq!(line["body"], data);
    }

    #[test]
    fn failures_replies_and_the_platforms_own_form_are_shown() {
        let data = json!({"user": "bob", "text": "hi", "replies": [], "error": {"title": "No reply", "detail": "Silence."}});
        let failed = json!({"type": "message.failed", "data": data}).to_string();
        let (text, _) = show(&headers(&[]), failed.as_bytes(), Verdict::Unchecked);
        assert!(
            text.contains("not checked") && text.ends_with("    bob: hi\n    failed: No reply. Silence.\n"),
            "{text}"
        );
        let late = json!({"type": "reply.late", "data": {"user": "bob", "text": "more"}}).to_string();
        assert!(
            show(&headers(&[]), late.as_bytes(), Verdict::Verified).0.ends_with("    bot, to bob: more\n")
        );
        let kore = json!({"_v": "v2", "data": [{"type": "text", "val": "Hello"}, {"type": "template", "val": {"a": 1}}]});
        let (text, line) = show(&headers(&[]), kore.to_string().as_bytes(), Verdict::Verified);
        assert!(text.contains("kore-v2") && text.ends_with("    bot: Hello\n    bot: {\"a\":1}\n"), "{text}");
        assert_eq!(line["type"], "kore-v2");
    }

    #[test]
    fn whatever_else_arrives_is_shown_as_it_is_and_steers_nothing() {
        let (text, line) = show(&headers(&[]), b"{\"a\":\n1}", Verdict::Refused("it is old".to_owned()));
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
        let (text, line) = show(&headers(&[]), b"\x1b[2J\xff", Verdict::Unchecked);
        assert!(!text.contains('\x1b') && text.contains("[2J"), "{text}");
        assert_eq!(line["body"], "\u{1b}[2J\u{fffd}");
        let long = json!({"type": "reply.late", "data": {"text": "x\n".repeat(900)}}).to_string();
        let (text, _) = show(&headers(&[]), long.as_bytes(), Verdict::Verified);
        assert!(text.lines().count() < 24 && text.contains("1800 bytes in all"), "{text}");
        let (text, _) = show(&headers(&[]), b"", Verdict::Unchecked);
        assert!(text.contains("(no text)"), "{text}");
    }
}
