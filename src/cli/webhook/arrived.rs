//! A delivery as it arrived, and whether it is to be trusted.

use crate::domain::Timestamp;
use crate::webhook::signature::{SigningSecret, VerificationError, verify};

/// The headers of a delivery, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    /// Reads headers as they are printed: `name: value`, one a line. What is none, such as the request's first line, is
    /// skipped, and so are the marks that `curl -v` puts before each.
    pub(super) fn parse(text: &str) -> Self {
        let header = |line: &str| {
            let line = line.trim_start_matches(['<', '>', ' ']);
            let (name, value) = line.split_once(':')?;
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            is_name.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Self(text.lines().filter_map(header).collect())
    }

    /// The value of the header with this name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of them; names in lower case.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}

/// What a delivery is trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Genuine {
    /// Which of the secrets it was signed with, counted from 1.
    pub(super) secret: usize,
    /// When it was signed, in seconds since 1970.
    pub(super) signed: Timestamp,
}

/// Why a delivery is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum Untrusted {
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("the body ends with a line end that was not sent; without it the signature is right")]
    LineEnd,
    #[error(transparent)]
    Unverified(#[from] VerificationError),
}

/// Judges a delivery by its headers, the body byte for byte, and the time; without one, its age is not looked at.
///
/// # Errors
/// What is missing or wrong.
pub(super) fn judge(
    secrets: &[SigningSecret],
    headers: &Headers,
    body: &[u8],
    now: Option<Timestamp>,
) -> Result<Genuine, Untrusted> {
    let header = |name| headers.get(name).ok_or(Untrusted::Missing(name));
    let (id, at, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let seconds: u64 = at.parse().unwrap_or_default();
    let signed = Timestamp::from_millis(seconds.saturating_mul(1000));
    let check = |secrets: &[SigningSecret], body: &[u8]| {
        verify(secrets, id, at, signatures, body, now.unwrap_or(signed))
    };
    match check(secrets, body) {
        Ok(()) => {
            let one = |secret: &SigningSecret| check(std::slice::from_ref(secret), body).is_ok();
            let secret = secrets.iter().position(one).map_or(0, |place| place + 1);
            Ok(Genuine { secret, signed })
        }
        Err(VerificationError::Mismatch)
            if without_line_end(body).is_some_and(|body| check(secrets, body).is_ok()) =>
        {
            Err(Untrusted::LineEnd)
        }
        Err(why) => Err(why.into()),
    }
}

/// The body without a line end that an editor or `echo` put behind it.
fn without_line_end(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_suffix(b"\n")?;
    Some(rest.strip_suffix(b"\r").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::signature::sign;

    const NOW: Timestamp = Timestamp::from_millis(1_795_426_048_000);

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(&format!("whsec_{text}").into()).unwrap()
    }

    fn headers(signature: &str) -> Headers {
        Headers::parse(&format!(
            "POST /hook HTTP/1.1\nHost: h\nWebhook-Id: 01M\r\nwebhook-timestamp: 1795426048\n> webhook-signature: {signature}\n"
        ))
    }

    #[test]
    fn headers_are_read_as_people_paste_them() {
        let read = headers("v1,x");
        assert_eq!(read.get("webhook-id"), Some("01M"));
        assert_eq!(read.get("webhook-timestamp"), Some("1795426048"));
        assert_eq!(read.get("webhook-signature"), Some("v1,x"));
        assert_eq!(read.get("authorization"), None);
    }

    #[test]
    fn the_secret_is_named_and_a_line_end_is_found_out() {
        let (old, new) = (secret("b2xk"), secret("bmV3"));
        let signed = headers(&sign(std::slice::from_ref(&old), "01M", 1_795_426_048, b"{}"));
        let both = [new.clone(), old];
        assert_eq!(judge(&both, &signed, b"{}", Some(NOW)).unwrap(), Genuine { secret: 2, signed: NOW });
        for body in [&b"{}\n"[..], b"{}\r\n"] {
            assert_eq!(judge(&both, &signed, body, Some(NOW)), Err(Untrusted::LineEnd));
        }
        for (secrets, body) in [(&both[..], &b"{ }\n"[..]), (&[new], b"{}")] {
            let judged = judge(secrets, &signed, body, Some(NOW));
            assert_eq!(judged, Err(Untrusted::Unverified(VerificationError::Mismatch)));
        }
    }

    #[test]
    fn age_counts_where_it_is_asked_for() {
        let secrets = [secret("b2xk")];
        let signed = headers(&sign(&secrets, "01M", 1_795_426_048, b"{}"));
        let later = NOW + std::time::Duration::from_secs(301);
        let old = judge(&secrets, &signed, b"{}", Some(later)).unwrap_err().to_string();
        assert!(old.contains("301 s ago"), "{old}");
        assert!(judge(&secrets, &signed, b"{}", None).is_ok());
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let secrets = [secret("b2xk")];
        for (text, words) in [
            ("", "webhook-id"),
            ("webhook-id: 1\nwebhook-timestamp: 2", "webhook-signature"),
            ("webhook-id: 1\nwebhook-timestamp: soon\nwebhook-signature: v1,eA==", "whole number"),
            ("webhook-id: 1\nwebhook-timestamp: 2\nwebhook-signature: sha256=ab", "version v1"),
        ] {
            let error = judge(&secrets, &Headers::parse(text), b"{}", None).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
