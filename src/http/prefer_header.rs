//! The `Prefer` header (RFC 7240): `wait` and `respond-async`.
//!
//! Pure. A preference that is unknown, repeated or cannot be honoured is ignored (RFC 7240, section 2). Every answer names
//! those that were honoured.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::api_error::{self, ApiError};

/// Name of the header with the honoured preferences.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The longest wait, in seconds. Longer waits are cut to it.
pub(super) const WAIT_MAX_SECONDS: u64 = 55;

/// A caller's preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PreferHeader {
    /// Longest wait for the response; whole seconds, 0 to 55.
    pub(super) wait: Option<Duration>,
    /// True if the answer shall come as soon as the message is durable, or after the wait if there is one.
    pub(super) respond_async: bool,
}

impl PreferHeader {
    /// Reads the `Prefer` headers of a request.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        Self::parse(headers.get_all("prefer").map(HeaderValue::as_bytes))
    }

    /// Parses all `Prefer` headers of a request, in order.
    fn parse<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut wait = None;
        let mut respond_async = None;
        for header in headers {
            for element in split(header, b',') {
                // Parameters of a preference follow a semicolon. The known preferences have none.
                let preference = split(element, b';').next().unwrap_or_default();
                let (name, value) = match preference.iter().position(|&b| b == b'=') {
                    Some(at) => preference.split_at(at),
                    None => (preference, &[][..]),
                };
                let value = unquote(value.strip_prefix(b"=").unwrap_or_default().trim_ascii());
                let name = name.trim_ascii();
                if name.eq_ignore_ascii_case(b"wait") {
                    wait.get_or_insert(value);
                } else if name.eq_ignore_ascii_case(b"respond-async") {
                    respond_async.get_or_insert(value.is_empty());
                }
            }
        }
        Self {
            wait: wait.and_then(parse_seconds).map(Duration::from_secs),
            respond_async: respond_async.unwrap_or(false),
        }
    }

    /// Returns the `Preference-Applied` header of an answer that honours all of these preferences, or `None` without one.
    ///
    /// # Errors
    /// `internal`, which cannot happen: the value consists of letters and digits.
    pub(super) fn applied(self) -> Result<Option<HeaderValue>, ApiError> {
        let applied = match (self.wait, self.respond_async) {
            (None, false) => return Ok(None),
            (None, true) => return Ok(Some(HeaderValue::from_static("respond-async"))),
            (Some(wait), false) => format!("wait={}", wait.as_secs()),
            (Some(wait), true) => format!("respond-async, wait={}", wait.as_secs()),
        };
        HeaderValue::try_from(applied).map(Some).map_err(|_| api_error::internal())
    }

    /// Returns these preferences without `respond-async`, which means nothing to a read.
    pub(super) const fn of_read(self) -> Self {
        Self { respond_async: false, ..self }
    }
}

/// Parses a whole number of any length and cuts it to the maximum.
fn parse_seconds(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
    });
    Some(value.min(WAIT_MAX_SECONDS))
}

/// Removes the quotes of a quoted string, which means the same as the word.
fn unquote(word: &[u8]) -> &[u8] {
    word.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(word)
}

/// Splits at separators outside quoted strings.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |&byte| {
        if escaped {
            escaped = false;
        } else if quoted && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        } else {
            return byte == separator && !quoted;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(headers: &[&str]) -> (Option<u64>, bool) {
        let prefer = PreferHeader::parse(headers.iter().map(|header| header.as_bytes()));
        (prefer.wait.map(|wait| wait.as_secs()), prefer.respond_async)
    }

    #[test]
    fn valid_preferences_are_read() {
        for (headers, expected) in [
            (&[][..], (None, false)),
            (&[""], (None, false)),
            (&["wait=10"], (Some(10), false)),
            (&["WAIT = 10"], (Some(10), false)),
            (&["wait=\"7\""], (Some(7), false)),
            (&["wait=0"], (Some(0), false)),
            (&["wait=56"], (Some(55), false)),
            (&["wait=99999999999999999999999999"], (Some(55), false)),
            (&["respond-async"], (None, true)),
            (&["Respond-Async, wait=3"], (Some(3), true)),
            (&["respond-async; x=\"a,wait=9\""], (None, true)),
            (&["handling=lenient; q=\"wait=5, wait=6\", wait=4; a=b"], (Some(4), false)),
            (&["foo=\"\\\",wait=9\", wait=2"], (Some(2), false)),
            (&["wait=1, wait=2"], (Some(1), false)),
            (&["wait=1, wait=soon"], (Some(1), false)),
            (&["return=minimal", "wait=8", "respond-async"], (Some(8), true)),
            (&["=5, ;;, ,"], (None, false)),
        ] {
            assert_eq!(parse(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn wait_without_a_whole_number_is_ignored() {
        for bad in ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=+3", "wait=\"\"", "wait=1 2"] {
            assert_eq!(parse(&[bad]), (None, false), "{bad}");
            assert_eq!(parse(&[bad, "respond-async"]), (None, true), "{bad}");
            assert_eq!(parse(&[bad, "wait=3"]), (None, false), "the first of a name counts");
        }
        assert_eq!(parse(&["respond-async=soon, wait=3"]), (Some(3), false));
    }

    #[test]
    fn all_honoured_preferences_are_named() {
        let applied = |header: &str| {
            let prefer = PreferHeader::parse([header.as_bytes()]);
            let named = |prefer: PreferHeader| {
                prefer.applied().unwrap().map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
            };
            (named(prefer), named(prefer.of_read()))
        };
        let both = |post: &str, read: &str| (post.to_owned(), read.to_owned());
        assert_eq!(applied("wait=soon, return=minimal"), both("", ""));
        assert_eq!(applied("wait=99"), both("wait=55", "wait=55"));
        assert_eq!(applied("respond-async"), both("respond-async", ""));
        assert_eq!(applied("wait=3, respond-async"), both("respond-async, wait=3", "wait=3"));
    }

    #[test]
    fn long_header_is_read_in_one_pass() {
        // Quotes and separators that a second look at the rest would make quadratic.
        for filler in ["a, ", "\"a, ", "a;\"b", "wait=x, "].map(|filler| filler.repeat(30_000)) {
            let prefer = PreferHeader::parse([filler.as_bytes(), b"respond-async"]);
            assert!(prefer.respond_async && prefer.wait.is_none());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_ignored(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PreferHeader::parse([bytes.as_slice()]);
        }

        #[test]
        fn long_wait_is_cut(wait in any::<u64>()) {
            prop_assert_eq!(parse(&[&format!("wait={wait}")]), (Some(wait.min(55)), false));
        }
    }
}
