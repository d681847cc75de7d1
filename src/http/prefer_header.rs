//! The `Prefer` header (RFC 7240): `wait` and `respond-async`.
//!
//! Pure. Unknown and repeated preferences are ignored (RFC 7240, section 2). Only a
//! `wait` that is not a whole number is refused: a caller that wants to wait must not be answered at once.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::api_error::{self, ApiError, FieldErrors};

/// Name of the header with the honoured preference.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The longest wait, in seconds. Longer waits are cut to it.
pub(super) const WAIT_MAX_SECONDS: u64 = 55;

/// A caller's preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PreferHeader {
    /// Longest wait for the response; whole seconds, 0 to 55.
    pub(super) wait: Option<Duration>,
    /// True if the answer shall come as soon as the message is durable.
    pub(super) respond_async: bool,
}

/// A `wait` that is not a whole number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`wait` must be a whole number of seconds, such as `wait=10`; more than 55 is cut to 55")]
pub(super) struct InvalidWait;

/// Returns the `Preference-Applied` header of a wait.
///
/// # Errors
/// `internal`, which cannot happen: the value consists of digits.
pub(super) fn applied_wait(wait: Duration) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).map_err(|_| api_error::internal())
}

impl PreferHeader {
    /// Reads the `Prefer` headers. An invalid `wait` is an error at `header/Prefer`.
    pub(super) fn from_headers(headers: &HeaderMap, errors: &mut FieldErrors) -> Option<Self> {
        let values = headers.get_all("prefer").map(HeaderValue::as_bytes);
        errors.record("header/Prefer", Self::parse(values).map_err(|error| error.to_string()))
    }

    /// Parses all `Prefer` headers of a request, in order.
    ///
    /// # Errors
    /// [`InvalidWait`].
    pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, InvalidWait> {
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
        Ok(Self {
            wait: wait.map(parse_seconds).transpose()?.map(Duration::from_secs),
            respond_async: respond_async.unwrap_or(false),
        })
    }
}

/// Parses a whole number of any length and cuts it to the maximum.
fn parse_seconds(digits: &[u8]) -> Result<u64, InvalidWait> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidWait);
    }
    let value = digits.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
    });
    Ok(value.min(WAIT_MAX_SECONDS))
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

    fn parse(headers: &[&str]) -> Result<(Option<u64>, bool), InvalidWait> {
        PreferHeader::parse(headers.iter().map(|header| header.as_bytes()))
            .map(|prefer| (prefer.wait.map(|wait| wait.as_secs()), prefer.respond_async))
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
            assert_eq!(parse(headers), Ok(expected), "{headers:?}");
        }
    }

    #[test]
    fn wait_must_be_a_whole_number() {
        for bad in ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=+3", "wait=\"\"", "wait=1 2"] {
            assert_eq!(parse(&[bad]), Err(InvalidWait), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PreferHeader::parse([bytes.as_slice()]);
        }

        #[test]
        fn long_wait_is_cut(wait in any::<u64>()) {
            prop_assert_eq!(parse(&[&format!("wait={wait}")]), Ok((Some(wait.min(55)), false)));
        }
    }
}
