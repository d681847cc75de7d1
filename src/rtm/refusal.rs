//! Turns a refusal of the platform into a [`ConnectError`]. Pure.
//!
//! The envelope is `{"errors":[{"msg","code"}]}`, and a code is a number or a string. Proxies answer in HTML, and old
//! versions with a bare `error` (protocol.md 3.3, 4.4, 8).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use super::error::{ConnectError, ConnectPhase};
use super::redaction::redact;
use crate::domain::lenient_json::{elements, members, string, string_or_number};
use crate::domain::{Timestamp, parse_retry_after};

/// Longest wait that the platform can impose by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// First entry of the envelope.
struct ErrorEntry<'a> {
    msg: Option<Cow<'a, str>>,
    /// A number as written.
    code: Option<Cow<'a, str>>,
}

/// Answer that is not the wanted one.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlatformRefusal<'a> {
    pub(super) phase: ConnectPhase,
    /// HTTP status. A 2xx answer is a refusal too if it lacks the wanted fields.
    pub(super) status: u16,
    /// Unparsed `Retry-After`.
    pub(super) retry_after: Option<&'a str>,
    /// Unparsed `Date`.
    pub(super) date: Option<&'a str>,
    /// Unparsed `Location`.
    pub(super) location: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl PlatformRefusal<'_> {
    /// Returns the error that the answer means (protocol.md 3.3, 4.4).
    pub(super) fn into_error(self, now: Timestamp) -> ConnectError {
        let Self { phase, status, .. } = self;
        let server = phase.server();
        let refused = ErrorEntry::read(self.body).filter(ErrorEntry::is_reason);
        let said = refused.as_ref().and_then(|first| first.msg.as_deref()).unwrap_or_default();
        let public_message = match (said, self.location) {
            ("", Some(location)) if (300..400).contains(&status) => {
                let host = url::Url::parse(location).ok().and_then(|url| url.host_str().map(str::to_owned));
                let host = host.unwrap_or_else(|| "another path of the same host".to_owned());
                redact(&format!("{server} redirects to {host} ({status}); redirects are not followed"))
            }
            ("", _) if (200..300).contains(&status) => {
                format!("{server}'s answer lacks the needed fields").into()
            }
            ("", _) => format!("{server} answered {status} without a reason").into(),
            (said, _) => redact(&format!("{server} answered {status}: {said}")),
        };
        let expired = !matches!(phase, ConnectPhase::Grant | ConnectPhase::Assertion)
            && (status == 401 || refused.as_ref().is_some_and(ErrorEntry::expired));
        match status {
            _ if expired => ConnectError::TokenExpired { phase, public_message },
            429 => {
                let retry_after = self.retry_after.and_then(|value| parse_retry_after(value, self.date, now));
                let retry_after = retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
                ConnectError::RateLimited { phase, public_message, retry_after }
            }
            404 if phase == ConnectPhase::Complete
                && let Some(numbers) = lost_chunks(self.body) =>
            {
                ConnectError::ChunksLost { numbers }
            }
            // A request that came too slowly or too early may succeed unchanged.
            408 | 425 => ConnectError::Unavailable { phase, public_message },
            413 if matches!(phase, ConnectPhase::File | ConnectPhase::Chunk | ConnectPhase::Complete) => {
                ConnectError::TooLarge { phase, public_message }
            }
            400 | 415 | 422 if phase == ConnectPhase::Assertion => {
                ConnectError::BodyRefused { public_message }
            }
            // Only the platform refuses for good. An answer in another form comes from a gateway before it, which may
            // be starting, or not know the platform's new address yet.
            // Older platforms do not know the endpoint of a file's URL.
            400..=499 if refused.is_some() || phase == ConnectPhase::FileUrl => {
                ConnectError::Rejected { phase, public_message }
            }
            // A service of a customer has errors in any form. These mean that the request itself is not taken.
            401 | 403 | 405 if phase == ConnectPhase::Assertion => {
                ConnectError::Rejected { phase, public_message }
            }
            _ => ConnectError::Unavailable { phase, public_message },
        }
    }
}

/// Reads the numbers of chunks that the platform lacks: a list in brackets, as text or as JSON (protocol.md 13.2).
fn lost_chunks(body: &[u8]) -> Option<Vec<usize>> {
    let [errors] = members(str::from_utf8(body).ok()?, ["errors"])?;
    let [msg] = members(elements(errors?)?.first()?.get(), ["msg"])?;
    let (_, list) = msg?.get().split_once('[')?;
    let (list, _) = list.split_once(']')?;
    let numbers = list.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let numbers: BTreeSet<usize> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
    (!numbers.is_empty()).then(|| numbers.into_iter().collect())
}

impl<'a> ErrorEntry<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let [errors] = members(str::from_utf8(body).ok()?, ["errors"])?;
        let [msg, code] = members(elements(errors?)?.first()?.get(), ["msg", "code"])?;
        Some(Self { msg: msg.and_then(string), code: code.and_then(string_or_number) })
    }

    /// Returns whether the entry says why. The platform's entries have a text or a code.
    fn is_reason(&self) -> bool {
        self.code.is_some() || self.msg.as_ref().is_some_and(|msg| !msg.trim().is_empty())
    }

    /// Returns whether the entry is one of the three spellings of an expired token (protocol.md 4.4).
    fn expired(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        let msg = self.msg.as_deref().unwrap_or_default();
        code.eq_ignore_ascii_case("TOKEN_EXPIRED")
            || code == "401"
            || msg.trim().eq_ignore_ascii_case("token expired")
    }
}
