//! `Idempotency-Key`: its syntax, and the equality of two bodies.
//!
//! Pure. The store decides at the accept whether a key was used before. Two bodies are equal if they ask for the same. The
//! hash covers the checked message, so key order, white space, notation of numbers and explicit defaults make no
//! difference. A bot's own defaults (`quiet`, `deadline`) are left out. A changed configuration must not turn a retry into
//! a mismatch.

use actix_web::http::header::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::api_error::FieldErrors;
use super::canonical_json::{self, JsonValue};
use super::request_body::MessageDraft;
use crate::domain::{Callback, JsonObject, MessageEvent, ResendPolicy, SessionRequest, Sha256, UserDetails};

/// The longest key, in characters.
const MAX_KEY_LENGTH: usize = 255;

/// Returns the caller's key. An invalid key is an error at `header/Idempotency-Key`.
pub(super) fn key(headers: &HeaderMap, errors: &mut FieldErrors) -> Option<Box<str>> {
    let mut values = headers.get_all("idempotency-key");
    let value = values.next()?;
    let key = parse(value.as_bytes()).filter(|_| values.next().is_none());
    let detail =
        "must be one value of 1 to 255 visible ASCII characters, or a string of RFC 9651 with as many";
    errors.record("header/Idempotency-Key", key.ok_or(detail))
}

/// Parses a key. The draft's form is a quoted string of Structured Fields. Many callers leave the quotes out, so both forms
/// of a text are the same key.
fn parse(value: &[u8]) -> Option<Box<str>> {
    // Two bytes for each escaped character, and the quotes.
    if value.len() > 2 * MAX_KEY_LENGTH + 2 {
        return None;
    }
    let key = match value.strip_prefix(b"\"") {
        Some(quoted) => unescape(quoted.strip_suffix(b"\"")?)?,
        None => value.iter().all(u8::is_ascii_graphic).then(|| value.to_vec())?,
    };
    let key = String::from_utf8(key).ok().filter(|key| (1..=MAX_KEY_LENGTH).contains(&key.len()))?;
    Some(key.into_boxed_str())
}

/// Returns the text of a string of Structured Fields (RFC 9651, 3.3.3), without its quotes.
fn unescape(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'"' => return None,
            b'\\' => *bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\'))?,
            byte => byte,
        };
        if byte != b' ' && !byte.is_ascii_graphic() {
            return None;
        }
        text.push(byte);
    }
    Some(text)
}

/// Returns the hash of a message.
pub(super) fn digest(draft: &MessageDraft) -> [u8; 32] {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct CanonicalMessage<'a> {
        // Members that an earlier version did not know are left out where they are absent: the format stays.
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<MessageEvent>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_details: Option<&'a UserDetails>,
        text: &'a str,
        display_text: Option<&'a str>,
        attachments: Vec<CanonicalAttachment<'a>>,
        session: SessionRequest,
        turn: (Option<usize>, Option<u128>, Option<u128>),
        resend: ResendPolicy,
        callback: Option<&'a Callback>,
    }
    #[derive(Serialize)]
    struct CanonicalAttachment<'a> {
        #[serde(rename = "fileId")]
        id: &'a str,
        #[serde(rename = "fileName", skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        #[serde(rename = "fileType", skip_serializing_if = "Option::is_none")]
        kind: Option<&'a str>,
    }
    let MessageDraft { content, event, user_details, session, rules, resend, callback } = draft;
    let files = content.attachments.iter().map(|file| CanonicalAttachment {
        id: &file.file_id,
        name: file.file_name.as_deref(),
        kind: file.file_type.as_deref(),
    });
    let canonical = CanonicalMessage {
        event: *event,
        user_details: user_details.as_deref(),
        text: content.text(),
        display_text: content.display_text.as_deref(),
        attachments: files.collect(),
        session: *session,
        turn: (
            rules.expect_replies(),
            rules.quiet().map(|span| span.as_millis()),
            rules.deadline().map(|span| span.as_millis()),
        ),
        resend: *resend,
        callback: callback.as_ref(),
    };
    // Replicas of different versions compare these hashes. A changed format needs a new first byte.
    let mut hash = Sha256::default();
    hash.update([1]);
    // Plain data in a fixed order: its serialisation cannot fail, and equal messages give equal text.
    canonical_json::hash_text(&mut hash, &serde_json::to_string(&canonical).unwrap_or_default());
    for object in [&content.custom_data, &content.meta_tags, &content.meta] {
        hash_object(&mut hash, object.as_ref());
    }
    // A message without such members has the hash that it had before there were any.
    for (index, file) in content.attachments.iter().enumerate() {
        for (name, value) in &file.other_members {
            hash.update((index as u64).to_be_bytes());
            canonical_json::hash_text(&mut hash, name);
            hash_value(&mut hash, value);
        }
    }
    hash.finish()
}

fn hash_object(hash: &mut Sha256, object: Option<&JsonObject>) {
    match object {
        None => hash.update(b"-"),
        Some(object) => hash_value(hash, object.raw()),
    }
}

fn hash_value(hash: &mut Sha256, value: &RawValue) {
    match serde_json::from_str::<JsonValue>(value.get()) {
        Ok(value) => value.hash(hash),
        // Unreachable: the body's validation has read this value before.
        Err(_) => canonical_json::hash_text(hash, value.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request_body;
    use actix_web::http::header::{HeaderName, HeaderValue};

    fn of(text: &str) -> [u8; 32] {
        let mut errors = FieldErrors::default();
        let draft = request_body::parse_message(text.as_bytes(), &mut errors);
        digest(&draft.unwrap_or_else(|| panic!("{text}: {errors:?}")))
    }

    #[test]
    fn equal_messages_have_equal_hashes() {
        let plain = of(r#"{"text":"hi"}"#);
        for same in [
            r#" { "text" : "\u0068i" } "#,
            r#"{"session":"continue","text":"hi","resend":"never"}"#,
            r#"{"text":"hi","turn":{},"attachments":[],"meta":null,"callback":null}"#,
            r#"{"text":"hi","turn":{"quietMs":null}}"#,
            "\u{feff}{\"text\":\"hi\"}",
        ] {
            assert_eq!(of(same), plain, "{same}");
        }
        let connect = of(r#"{"event":"connect"}"#);
        assert_eq!(connect, of(r#"{"text":"","session":"new","event":"connect","profile":{}}"#));
        let files = |text: &str| of(&format!(r#"{{{text}"attachments":[{{"fileId":"1"}}]}}"#));
        assert_eq!(files(""), files(r#""text":"","#));
        assert_eq!(files(""), files(r#""text":null,"#));
        assert_eq!(
            of(r#"{"attachments":[{"fileId":"1","size":2.0,"fileUrl":"u"}]}"#),
            of(r#"{"attachments":[{"fileUrl":"\u0075","size":2,"fileId":"1","x":null}]}"#),
        );
        assert_eq!(
            of(r#"{"text":"hi","turn":{"quietMs":100},"meta":{"a":1,"b":[2.5]}}"#),
            of(r#"{"meta":{"b":[25e-1],"a":1.0},"turn":{"quietMs":1e2},"text":"hi"}"#),
        );
    }

    #[test]
    fn different_messages_have_different_hashes() {
        let texts = [
            r#"{"text":"hi"}"#,
            r#"{"text":"hi "}"#,
            r#"{"text":"hi","displayText":"hi"}"#,
            r#"{"text":"hi","displayText":""}"#,
            r#"{"text":"hi","session":"new"}"#,
            r#"{"text":"hi","session":"newKeepAgent"}"#,
            r#"{"text":"hi","resend":"auto"}"#,
            r#"{"text":"hi","turn":{"quietMs":500}}"#,
            r#"{"text":"hi","turn":{"deadlineMs":500}}"#,
            r#"{"text":"hi","turn":{"expectReplies":1}}"#,
            r#"{"text":"hi","customData":{}}"#,
            r#"{"text":"hi","metaTags":{}}"#,
            r#"{"text":"hi","meta":{}}"#,
            r#"{"text":"hi","meta":{"a":null}}"#,
            r#"{"text":"hi","attachments":[{"fileId":"1"}]}"#,
            r#"{"text":"hi","attachments":[{"fileId":"1","fileName":"1"}]}"#,
            r#"{"text":"hi","attachments":[{"fileId":"1","size":1}]}"#,
            r#"{"text":"hi","attachments":[{"fileId":"1","size":2}]}"#,
            r#"{"text":"hi","attachments":[{"fileId":"1","size":1},{"fileId":"1"}]}"#,
            r#"{"text":"hi","attachments":[{"fileId":"1"},{"fileId":"1","size":1}]}"#,
            r#"{"text":"hi","callback":{"url":"https://example.org/"}}"#,
            r#"{"text":"hi","profile":{"firstName":"Zoë"}}"#,
            r#"{"text":"hi","profile":{"lastName":"Zoë"}}"#,
            r#"{"text":"hi","mergeWith":"Zoë"}"#,
            r#"{"event":"connect"}"#,
            r#"{"event":"connect","session":"continue"}"#,
            r#"{"event":"connect","customData":{"a":1}}"#,
        ];
        let hashes: std::collections::HashSet<_> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(hashes.len(), texts.len());
    }

    #[test]
    fn key_must_be_visible_and_single() {
        let check = |keys: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for key in keys {
                let value = HeaderValue::from_bytes(key).unwrap();
                headers.append(HeaderName::from_static("idempotency-key"), value);
            }
            let mut errors = FieldErrors::default();
            let key = key(&headers, &mut errors);
            (key, errors.into_vec().len())
        };
        assert_eq!(check(&[]), (None, 0));
        assert_eq!(check(&[&[b'k'; 255]]), (Some("k".repeat(255).into()), 0));
        for bad in [&[&b""[..]][..], &[b"a b"], &["ä".as_bytes()], &[&[b'k'; 256]], &[b"a", b"a"]] {
            assert_eq!(check(bad), (None, 1), "{bad:?}");
        }
    }

    #[test]
    fn quoted_and_plain_key_are_the_same() {
        let key = |value: &str| parse(value.as_bytes()).map(String::from);
        for (quoted, plain) in
            [("\"8e03-~!\"", "8e03-~!"), (r#""a\"b\\c""#, r#"a"b\c"#), ("\"k;v=1\"", "k;v=1")]
        {
            assert_eq!(key(quoted).as_deref(), Some(plain));
            assert_eq!(key(plain).as_deref(), Some(plain));
        }
        assert_eq!(key("\"a b\"").as_deref(), Some("a b"), "a string may hold spaces");
        assert_eq!(key(&format!("\"{}\"", "\\\"".repeat(255))), Some("\"".repeat(255)));
        for bad in ["\"", "\"\"", "\"a", "\"a\\\"", "\"a\\b\"", "\"a\"b\"", "\"a\";b=1", "\"a\tb\"", "\"ä\""]
        {
            assert_eq!(key(bad), None, "{bad}");
        }
        assert_eq!(key(&format!("\"{}\"", "k".repeat(256))), None);
    }
}
