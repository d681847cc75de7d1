//! A received delivery and the verification of its signature.

use crate::domain::Timestamp;
use crate::webhook::signature::{SignatureKey, VerificationError, verify};

/// The headers of a delivery in the received order, with names in lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct DeliveryHeaders(Vec<(String, String)>);

impl DeliveryHeaders {
    /// Parses printed headers: `name: value`, one a line. Other lines are skipped, such as the request line, and so are
    /// the marks that `curl -v` puts before each line.
    pub(super) fn parse(text: &str) -> Self {
        let header = |line: &str| {
            let line = line.trim_start_matches(['<', '>', ' ']);
            let (name, value) = line.split_once(':')?;
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            is_name.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Self(text.lines().filter_map(header).collect())
    }

    /// Returns the value of a header by its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for DeliveryHeaders {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VerifiedDelivery {
    /// The number of the secret that signed it, from 1.
    pub(super) secret: usize,
    pub(super) signed_at: Timestamp,
}

/// Why a delivery is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum DeliveryCheckError {
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    #[error("the body ends with an added line end; the signature is valid without it")]
    ExtraLineEnd,
    #[error(transparent)]
    Signature(#[from] VerificationError),
}

/// Verifies a delivery by its headers and the bytes of its body. The age is ignored if `now` is `None`.
///
/// # Errors
/// The first thing that is missing or wrong.
pub(super) fn verify_delivery(
    secrets: &[SignatureKey],
    headers: &DeliveryHeaders,
    body: &[u8],
    now: Option<Timestamp>,
) -> Result<VerifiedDelivery, DeliveryCheckError> {
    let header = |name| headers.get(name).ok_or(DeliveryCheckError::MissingHeader(name));
    let (id, at, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let seconds: u64 = at.parse().unwrap_or_default();
    let signed_at = Timestamp::from_millis(seconds.saturating_mul(1000));
    let check = |secrets: &[SignatureKey], body: &[u8]| {
        verify(secrets, id, at, signatures, body, now.unwrap_or(signed_at))
    };
    match check(secrets, body) {
        Ok(()) => {
            let one = |secret: &SignatureKey| check(std::slice::from_ref(secret), body).is_ok();
            let secret = secrets.iter().position(one).map_or(0, |place| place + 1);
            Ok(VerifiedDelivery { secret, signed_at })
        }
        Err(VerificationError::Mismatch)
            if without_line_end(body).is_some_and(|body| check(secrets, body).is_ok()) =>
        {
            Err(DeliveryCheckError::ExtraLineEnd)
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the body without its last line end, which an editor or `echo` adds.
fn without_line_end(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_suffix(b"\n")?;
    Some(rest.strip_suffix(b"\r").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::signature::{SigningSecret, sign};

    const NOW: Timestamp = Timestamp::from_millis(1_795_426_048_000);

    fn secret(text: &str) -> SignatureKey {
        SignatureKey::parse(&format!("whsec_{text}").into()).unwrap()
    }

    fn signed(text: &str) -> String {
        let secret = SigningSecret::parse(&format!("whsec_{text}").into()).unwrap();
        sign(&[secret], "01M", 1_795_426_048, b"{}")
    }

    fn headers(signature: &str) -> DeliveryHeaders {
        DeliveryHeaders::parse(&format!(
            "POST /hook HTTP/1.1\nHost: h\nWebhook-Id: 01M\r\nwebhook-timestamp: 1795426048\n> webhook-signature: {signature}\n"
        ))
    }

    #[test]
    fn headers_are_parsed_as_curl_prints_them() {
        let read = headers("v1,x");
        assert_eq!(read.get("webhook-id"), Some("01M"));
        assert_eq!(read.get("webhook-timestamp"), Some("1795426048"));
        assert_eq!(read.get("webhook-signature"), Some("v1,x"));
        assert_eq!(read.get("authorization"), None);
    }

    #[test]
    fn verification_names_the_secret_or_the_extra_line_end() {
        let (old, new) = (secret("b2xk"), secret("bmV3"));
        let signed_headers = headers(&signed("b2xk"));
        let both = [new.clone(), old];
        assert_eq!(
            verify_delivery(&both, &signed_headers, b"{}", Some(NOW)).unwrap(),
            VerifiedDelivery { secret: 2, signed_at: NOW }
        );
        for body in [&b"{}\n"[..], b"{}\r\n"] {
            assert_eq!(
                verify_delivery(&both, &signed_headers, body, Some(NOW)),
                Err(DeliveryCheckError::ExtraLineEnd)
            );
        }
        for (secrets, body) in [(&both[..], &b"{ }\n"[..]), (&[new], b"{}")] {
            let result = verify_delivery(secrets, &signed_headers, body, Some(NOW));
            assert_eq!(result, Err(DeliveryCheckError::Signature(VerificationError::Mismatch)));
        }
    }

    #[test]
    fn old_signature_is_refused_only_if_a_time_is_given() {
        let secrets = [secret("b2xk")];
        let signed_headers = headers(&signed("b2xk"));
        let later = NOW + std::time::Duration::from_secs(301);
        let old = verify_delivery(&secrets, &signed_headers, b"{}", Some(later)).unwrap_err().to_string();
        assert!(old.contains("301 s ago"), "{old}");
        assert!(verify_delivery(&secrets, &signed_headers, b"{}", None).is_ok());
    }

    #[test]
    fn missing_or_malformed_header_is_named() {
        let secrets = [secret("b2xk")];
        for (text, words) in [
            ("", "webhook-id"),
            ("webhook-id: 1\nwebhook-timestamp: 2", "webhook-signature"),
            ("webhook-id: 1\nwebhook-timestamp: soon\nwebhook-signature: v1,eA==", "whole number"),
            ("webhook-id: 1\nwebhook-timestamp: 2\nwebhook-signature: sha256=ab", "version v1"),
        ] {
            let error = verify_delivery(&secrets, &DeliveryHeaders::parse(text), b"{}", None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
