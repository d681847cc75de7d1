//! `Idempotency-Key`: its syntax, and the equality of two bodies.
//!
//! Pure. The store decides at the accept whether a key was used before. Two bodies are equal if they ask for the same. The
//! hash covers the checked message, so key order, white space, notation of numbers and explicit defaults make no
//! difference. A bot's own defaults (`quiet`, `deadline`) are left out. A changed configuration must not turn a retry into
//! a mismatch.

use actix_web::http::header::HeaderMap;
use serde::Serialize;

use super::api_error::FieldErrors;
use super::canonical_json::{self, JsonValue};
use super::request_body::MessageDraft;
use crate::domain::{Attachment, Callback, JsonObject, ResendPolicy, SessionRequest, Sha256};

/// The longest key, in characters.
const MAX_KEY_LENGTH: usize = 255;

/// Returns the caller's key. An invalid key is an error at `header/Idempotency-Key`.
pub(super) fn key(headers: &HeaderMap, errors: &mut FieldErrors) -> Option<Box<str>> {
    let mut values = headers.get_all("idempotency-key");
    let key = values.next()?;
    let visible =
        (1..=MAX_KEY_LENGTH).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    let text = key.to_str().ok().filter(|_| visible && values.next().is_none());
    let detail = "must be one value of 1 to 255 visible ASCII characters";
    errors.record("header/Idempotency-Key", text.map(Into::into).ok_or(detail))
}

/// Returns the hash of a message.
pub(super) fn digest(draft: &MessageDraft) -> [u8; 32] {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct CanonicalMessage<'a> {
        text: &'a str,
        display_text: Option<&'a str>,
        attachments: &'a [Attachment],
        session: SessionRequest,
        turn: (Option<usize>, Option<u128>, Option<u128>),
        resend: ResendPolicy,
        callback: Option<&'a Callback>,
    }
    let MessageDraft { content, session, rules, resend, callback } = draft;
    let canonical = CanonicalMessage {
        text: content.text(),
        display_text: content.display_text.as_deref(),
        attachments: &content.attachments,
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
    hash.finish()
}

fn hash_object(hash: &mut Sha256, object: Option<&JsonObject>) {
    match object.map(|object| (object, serde_json::from_str::<JsonValue>(object.raw().get()))) {
        None => hash.update(b"-"),
        Some((_, Ok(value))) => value.hash(hash),
        // Unreachable: the body's validation has read this object before.
        Some((object, Err(_))) => canonical_json::hash_text(hash, object.raw().get()),
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
        ] {
            assert_eq!(of(same), plain, "{same}");
        }
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
            r#"{"text":"hi","callback":{"url":"https://example.org/"}}"#,
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
        assert_eq!(check(&[b"\"8e03-~!\""]), (Some("\"8e03-~!\"".into()), 0));
        assert_eq!(check(&[&[b'k'; 255]]), (Some("k".repeat(255).into()), 0));
        for bad in [&[&b""[..]][..], &[b"a b"], &["ä".as_bytes()], &[&[b'k'; 256]], &[b"a", b"a"]] {
            assert_eq!(check(bad), (None, 1), "{bad:?}");
        }
    }
}
