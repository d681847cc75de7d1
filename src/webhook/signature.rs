//! Signatures prove to a receiver that a delivery is genuine, unchanged and fresh.
//!
//! They follow Standard Webhooks, over the delivery's id, the time of the attempt and the body. Version `v1` is HMAC-SHA256
//! with a shared secret. Version `v1a` is ed25519: the bridge holds the private key, and receivers the public one. Each
//! secret in use signs, so that secrets rotate without a gap. [`verify`] is the receiver's side. It serves
//! `rtm-bridge webhook verify` and receivers in Rust.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::{self, Context, HMAC_SHA256, Key, Tag};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::domain::Timestamp;

/// The prefix of a shared secret.
const SHARED: &str = "whsec_";
/// The prefix of a private key.
const PRIVATE: &str = "whsk_";
/// The prefix of a public key.
const PUBLIC: &str = "whpk_";
/// The prefix of a signature by a shared secret.
const VERSION: &str = "v1,";
/// The prefix of a signature by a private key.
const ASYMMETRIC_VERSION: &str = "v1a,";
/// The bytes of a seed and of a public key of ed25519. A private key is the seed, or the seed and the public key.
const KEY_BYTES: usize = 32;
/// The longest time between an attempt and the receiver's clock, in both directions.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// The text is no secret. The error does not quote it, because it may be a mistyped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ or whsk_ and then base64, as `rtm-bridge webhook secret` prints it")]
pub struct InvalidSecret;

/// The text is no key to verify with. The error does not quote it, because it may be a mistyped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a webhook secret is whsec_ (or whpk_, whsk_) and then base64, as `rtm-bridge webhook secret` prints it"
)]
pub struct InvalidSignatureKey;

/// A decoded secret, which signs.
#[derive(Clone)]
pub struct SigningSecret(SecretKind);

#[derive(Clone)]
enum SecretKind {
    Shared(Box<Key>),
    Private(Arc<Ed25519KeyPair>),
}

/// A key of a receiver: a shared secret or a public key.
#[derive(Clone)]
pub struct SignatureKey(KeyKind);

#[derive(Clone)]
enum KeyKind {
    Shared(Box<Key>),
    Public([u8; KEY_BYTES]),
}

impl SigningSecret {
    /// Parses a secret: `whsec_` or `whsk_`, and base64.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub fn parse(text: &SecretString) -> Result<Self, InvalidSecret> {
        let text = text.expose_secret().trim();
        let kind = shared_key(text).map(|key| SecretKind::Shared(Box::new(key)));
        let kind = kind.or_else(|| key_pair(text).map(|pair| SecretKind::Private(Arc::new(pair))));
        kind.map(Self).ok_or(InvalidSecret)
    }

    /// Appends the signature to the value of `webhook-signature`.
    fn sign(&self, id: &str, timestamp: &str, body: &[u8], header: &mut String) {
        match &self.0 {
            SecretKind::Shared(key) => {
                header.push_str(VERSION);
                STANDARD.encode_string(tag(key, id, timestamp, body), header);
            }
            SecretKind::Private(pair) => {
                header.push_str(ASYMMETRIC_VERSION);
                STANDARD.encode_string(pair.sign(&signed_content(id, timestamp, body)), header);
            }
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl SignatureKey {
    /// Parses a shared secret (`whsec_`), a public key (`whpk_`), or the private key (`whsk_`) that it belongs to.
    ///
    /// # Errors
    /// [`InvalidSignatureKey`].
    pub fn parse(text: &SecretString) -> Result<Self, InvalidSignatureKey> {
        let text = text.expose_secret().trim();
        let kind = shared_key(text).map(|key| KeyKind::Shared(Box::new(key)));
        let kind = kind.or_else(|| public_key(text).map(KeyKind::Public));
        kind.map(Self).ok_or(InvalidSignatureKey)
    }

    /// Returns whether the key made one of these signatures.
    fn made(&self, given: &GivenSignatures, id: &str, timestamp: &str, body: &[u8]) -> bool {
        match &self.0 {
            KeyKind::Shared(key) => {
                let tag = tag(key, id, timestamp, body);
                let is_equal = |given: &[u8]| bool::from(given.ct_eq(tag.as_ref()));
                given.shared.iter().fold(false, |found, given| found | is_equal(given))
            }
            KeyKind::Public(key) => {
                let (key, content) =
                    (UnparsedPublicKey::new(&ED25519, key), signed_content(id, timestamp, body));
                given.asymmetric.iter().any(|signature| key.verify(&content, signature).is_ok())
            }
        }
    }
}

impl fmt::Debug for SignatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignatureKey")
    }
}

/// Returns a new private key and its public key, as receivers and secrets are configured.
///
/// # Errors
/// The system has no random bytes.
pub fn generate_key_pair() -> Result<(SecretString, String), aws_lc_rs::error::Unspecified> {
    let mut seed = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut seed)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| aws_lc_rs::error::Unspecified)?;
    let public = pair.public_key().as_ref();
    let private = STANDARD.encode([&seed, public].concat());
    Ok((format!("{PRIVATE}{private}").into(), format!("{PUBLIC}{}", STANDARD.encode(public))))
}

fn shared_key(text: &str) -> Option<Key> {
    let bytes = STANDARD.decode(text.strip_prefix(SHARED)?).ok()?;
    (!bytes.is_empty()).then(|| Key::new(HMAC_SHA256, &bytes))
}

fn key_pair(text: &str) -> Option<Ed25519KeyPair> {
    let bytes = STANDARD.decode(text.strip_prefix(PRIVATE)?).ok()?;
    let (seed, public) = bytes.split_at_checked(KEY_BYTES)?;
    if public.is_empty() {
        Ed25519KeyPair::from_seed_unchecked(seed).ok()
    } else {
        Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()
    }
}

fn public_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    match text.strip_prefix(PUBLIC) {
        Some(digits) => STANDARD.decode(digits).ok()?.try_into().ok(),
        None => key_pair(text)?.public_key().as_ref().try_into().ok(),
    }
}

fn tag(key: &Key, id: &str, timestamp: &str, body: &[u8]) -> Tag {
    let mut context = Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    context.sign()
}

fn signed_content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

/// Returns the value of `webhook-signature`: one signature for each secret, in their order. `timestamp` is the value of
/// `webhook-timestamp`, in seconds since 1970.
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let mut header = String::with_capacity(secrets.len() * 96);
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        secret.sign(id, &timestamp, body, &mut header);
    }
    header
}

/// The decoded signatures of a request, by version.
struct GivenSignatures {
    shared: Vec<Vec<u8>>,
    asymmetric: Vec<Vec<u8>>,
}

impl GivenSignatures {
    fn parse(header: &str) -> Self {
        let of_version = |prefix: &str| {
            let signatures = header.split_ascii_whitespace();
            signatures.filter_map(|one| STANDARD.decode(one.strip_prefix(prefix)?).ok()).collect()
        };
        Self { shared: of_version(VERSION), asymmetric: of_version(ASYMMETRIC_VERSION) }
    }

    /// Returns the signatures of the version that this key verifies.
    fn of_version(&self, key: &SignatureKey) -> &[Vec<u8>] {
        match key.0 {
            KeyKind::Shared(_) => &self.shared,
            KeyKind::Public(_) => &self.asymmetric,
        }
    }
}

/// The reason why a delivery is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerificationError {
    /// The header holds no signature of a version that the keys verify.
    #[error(
        "webhook-signature holds no signature of version v1 (v1, and 44 characters of base64), or of v1a for a public key"
    )]
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
    keys: &[SignatureKey],
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), VerificationError> {
    // The parser would accept a sign before the digits, and the standard does not.
    let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(VerificationError::Timestamp)?;
    let given = GivenSignatures::parse(signatures);
    let is_any = !given.shared.is_empty() || !given.asymmetric.is_empty();
    let is_of_a_key = keys.is_empty() || keys.iter().any(|key| !given.of_version(key).is_empty());
    if !(is_any && is_of_a_key) {
        return Err(VerificationError::NoSignature);
    }
    let genuine = keys.iter().fold(false, |found, key| found | key.made(&given, id, timestamp, body));
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
