//! Signatures prove to a receiver that a delivery is genuine, unchanged and fresh.
//!
//! They follow Standard Webhooks, version `v1`: HMAC-SHA256 over the delivery's id, the time of the attempt and the body.
//! Each secret in use signs, so that secrets rotate without a gap. [`verify`] is the receiver's side. It serves
//! `rtm-bridge webhook verify` and receivers in Rust.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac::{self, Context, HMAC_SHA256, Key, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::domain::Timestamp;

/// The prefix of a secret.
const PREFIX: &str = "whsec_";
/// The prefix of a signature of this version.
const VERSION: &str = "v1,";
/// The longest time between an attempt and the receiver's clock, in both directions.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// The text is no secret. The error does not quote it, because it may be a mistyped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ and then base64, as `rtm-bridge webhook secret` prints it")]
pub struct InvalidSecret;

/// A decoded secret.
#[derive(Clone)]
pub struct SigningSecret(Key);

impl SigningSecret {
    /// Parses a secret: `whsec_` and base64.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub fn parse(text: &SecretString) -> Result<Self, InvalidSecret> {
        let digits = text.expose_secret().trim().strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let bytes = STANDARD.decode(digits).map_err(|_| InvalidSecret)?;
        if bytes.is_empty() { Err(InvalidSecret) } else { Ok(Self(Key::new(HMAC_SHA256, &bytes))) }
    }

    fn tag(&self, id: &str, timestamp: &str, body: &[u8]) -> Tag {
        let mut context = Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            context.update(part);
        }
        context.sign()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Returns the value of `webhook-signature`: one signature for each secret, in their order. `timestamp` is the value of
/// `webhook-timestamp`, in seconds since 1970.
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let mut header = String::with_capacity(secrets.len() * 48);
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str(VERSION);
        STANDARD.encode_string(secret.tag(id, &timestamp, body), &mut header);
    }
    header
}

/// The reason why a delivery is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerificationError {
    /// The header holds no signature of this version.
    #[error("webhook-signature holds no signature of version v1 (v1, and 44 characters of base64)")]
    NoSignature,
    /// No signature matches.
    #[error(
        "no signature matches these secrets, this id, time and body: compare the secret with the sender's, and verify \
         the body byte for byte as it arrived, before it is parsed"
    )]
    Mismatch,
    /// The time is not a number.
    #[error("webhook-timestamp is not a whole number of seconds since 1970")]
    Timestamp,
    /// The signature is too old.
    #[error("it was signed {} s ago, and the limit is {} s: the request is a replay, or a clock is wrong", .0.as_secs(), TOLERANCE.as_secs())]
    TooOld(Duration),
    /// The signature is too far in the future.
    #[error("it was signed {} s in the future, and the limit is {} s: a clock is wrong", .0.as_secs(), TOLERANCE.as_secs())]
    TooNew(Duration),
}

/// Verifies a request as a receiver does. It takes the headers `webhook-id`, `webhook-timestamp` and
/// `webhook-signature` as they arrived, the body byte for byte, and the receiver's time.
///
/// The signature is checked first, so that [`VerificationError::TooOld`] implies a genuine signature.
///
/// # Errors
/// [`VerificationError`].
pub fn verify(
    secrets: &[SigningSecret],
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), VerificationError> {
    // The parser would accept a sign before the digits, and the standard does not.
    let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(VerificationError::Timestamp)?;
    let given: Vec<Vec<u8>> = signatures
        .split_ascii_whitespace()
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix(VERSION)?).ok())
        .collect();
    if given.is_empty() {
        return Err(VerificationError::NoSignature);
    }
    let genuine = secrets.iter().map(|secret| secret.tag(id, timestamp, body)).fold(false, |found, tag| {
        given.iter().fold(found, |found, given| found | bool::from(given.as_slice().ct_eq(tag.as_ref())))
    });
    if !genuine {
        return Err(VerificationError::Mismatch);
    }
    let at = Timestamp::from_millis(at.saturating_mul(1000));
    match (now.since(at), at.since(now)) {
        (age, _) if age > TOLERANCE => Err(VerificationError::TooOld(age)),
        (_, ahead) if ahead > TOLERANCE => Err(VerificationError::TooNew(ahead)),
        _ => Ok(()),
    }
}

/// The key for older receivers: HMAC-SHA256 of the body alone, in hexadecimal.
pub(super) struct LegacyKey(Key);

impl LegacyKey {
    /// Creates the key from the bytes of the secret.
    pub(super) fn new(secret: &SecretString) -> Self {
        Self(Key::new(HMAC_SHA256, secret.expose_secret().as_bytes()))
    }

    /// Returns the value of the header.
    pub(super) fn sign(&self, body: &[u8]) -> String {
        let tag = hmac::sign(&self.0, body);
        let mut digits = String::with_capacity(64);
        for byte in tag.as_ref() {
            for nibble in [byte >> 4, byte & 15] {
                digits.extend(char::from_digit(nibble.into(), 16));
            }
        }
        digits
    }
}

#[cfg(test)]
mod tests;
