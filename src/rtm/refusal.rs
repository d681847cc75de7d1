//! How the platform says no: reads a refusing answer, and makes its words fit to be passed on.
//!
//! Pure. The envelope is `{"errors":[{"msg","code"}]}` with a number or a string for a code, but proxies answer
//! in HTML and old versions with a bare `error` (protocol.md 3.3, 4.4, 8).

use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use super::error::{ConnectError, ConnectPhase};
use crate::domain::Timestamp;

/// The longest text of the platform's that we pass on, in characters.
const WORDS_MAX: usize = 300;

/// The longest wait that we let the platform impose by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Shorter runs of token characters are words, numbers or codes.
const TOKEN_MIN: usize = 20;

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    msg: Value,
    #[serde(default)]
    code: Value,
}

/// An answer that is not what was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlatformRefusal<'a> {
    /// Where.
    pub(super) phase: ConnectPhase,
    /// The HTTP status, 2xx included: an answer may lack what it should bring.
    pub(super) status: u16,
    /// `Retry-After`, unread.
    pub(super) retry_after: Option<&'a str>,
    /// `Location`, unread.
    pub(super) location: Option<&'a str>,
    /// The body.
    pub(super) body: &'a [u8],
}

impl PlatformRefusal<'_> {
    /// What it means (protocol.md 3.3, 4.4).
    pub(super) fn into_error(self, now: Timestamp) -> ConnectError {
        let Self { phase, status, .. } = self;
        let refused = serde_json::from_slice::<Envelope>(self.body)
            .ok()
            .and_then(|envelope| envelope.errors.into_iter().next());
        let said = refused.as_ref().and_then(|first| first.msg.as_str()).unwrap_or_default();
        let words = match (said, self.location) {
            ("", Some(location)) if (300..400).contains(&status) => {
                let host = url::Url::parse(location).ok().and_then(|url| url.host_str().map(str::to_owned));
                let host = host.unwrap_or_else(|| "another path of the same host".to_owned());
                fit(&format!("the platform redirects to {host} ({status}); redirects are not followed"))
            }
            ("", _) if (200..300).contains(&status) => {
                "the platform's answer lacks what was asked for".into()
            }
            ("", _) => format!("the platform answered {status} without a reason").into(),
            (said, _) => fit(&format!("the platform answered {status}: {said}")),
        };
        let expired =
            phase != ConnectPhase::Grant && (status == 401 || refused.as_ref().is_some_and(Refused::expired));
        match status {
            _ if expired => ConnectError::TokenExpired { phase, words },
            429 => {
                let after = self.retry_after.and_then(|value| retry_after(value, now));
                ConnectError::Limited { phase, words, after }
            }
            // A request that came too slowly or too early may succeed as it is.
            408 | 425 => ConnectError::Unavailable { phase, words },
            300..=499 => ConnectError::Rejected { phase, words },
            _ => ConnectError::Unavailable { phase, words },
        }
    }
}

impl Refused {
    /// The three spellings of an expired token (protocol.md 4.4).
    fn expired(&self) -> bool {
        let code = match &self.code {
            Value::String(code) => code.eq_ignore_ascii_case("TOKEN_EXPIRED") || code == "401",
            Value::Number(code) => code.as_u64() == Some(401),
            _ => false,
        };
        code || self.msg.as_str().is_some_and(|msg| msg.trim().eq_ignore_ascii_case("token expired"))
    }
}

/// Reads `Retry-After`: seconds or an HTTP date (RFC 9110, 10.2.3), cut to an hour.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if let Ok(seconds) = value.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        let date = date.duration_since(UNIX_EPOCH).ok()?;
        date.saturating_sub(Duration::from_millis(now.as_millis()))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Makes a text of the platform's fit to be shown: one line, 300 characters, nothing that looks like a token.
pub(super) fn fit(text: &str) -> Box<str> {
    let mut shown = String::new();
    let mut secret_follows = false;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        if secret_follows {
            shown.push('…');
        } else {
            mask(word, &mut shown);
        }
        secret_follows = word.trim_end_matches(':').eq_ignore_ascii_case("bearer");
    }
    match shown.char_indices().nth(WORDS_MAX - 1) {
        Some((cut, last)) if shown.len() > cut + last.len_utf8() => {
            shown.truncate(cut);
            shown.push('…');
        }
        _ => {}
    }
    shown.into()
}

/// Appends `word`, each token in it replaced by `…`.
fn mask(word: &str, shown: &mut String) {
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !in_token(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        shown.push_str(if is_token(run) { "…" } else { run });
        let next = after.find(in_token).unwrap_or(after.len());
        let (between, further) = after.split_at(next);
        shown.push_str(between);
        rest = further;
    }
}

const fn in_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=' | '~' | '%')
}

/// Whether a run of token characters may be a JWT, an access token or a key. Ids of bots, apps and users
/// (`st-<uuid>`) are none: they help whoever reads the message.
fn is_token(run: &str) -> bool {
    let jwt = run.starts_with("eyJ");
    jwt || run.len() >= TOKEN_MIN && run.bytes().any(|b| b.is_ascii_digit()) && !is_id(run)
}

fn is_id(run: &str) -> bool {
    let mut groups = run.trim_end_matches('.').rsplit('-');
    let uuid = [12, 4, 4, 4, 8].into_iter().all(|digits| {
        groups.next().is_some_and(|group| {
            group.len() == digits && group.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    });
    let prefix = groups.next().unwrap_or_default();
    uuid && groups.next().is_none() && prefix.len() <= 2
}
