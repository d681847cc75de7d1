//! The public keys of an issuer (RFC 7517).

use std::fmt;

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::{VerificationKey, is_of_family};

/// The most keys of a set. Issuers have two or three.
const KEYS_MAX: usize = 64;

/// The keys of an issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<IssuerKey>,
}

/// A key of an issuer.
#[derive(Clone)]
struct IssuerKey {
    id: Option<Box<str>>,
    /// The only algorithm that the issuer uses it for.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Why a text is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// The text is no JSON object with a list `keys`.
    #[error("the answer is no key set: an object with a list `keys` (RFC 7517)")]
    NotKeySet,
    /// No key of the list can verify.
    #[error("the key set holds no public key that verifies (RSA, EC P-256 or P-384, Ed25519)")]
    NoKey,
}

impl KeySet {
    /// Reads a key set. Keys of other types and uses are left out, as RFC 7517, section 5, wants it.
    ///
    /// # Errors
    /// [`InvalidKeySet`].
    pub fn parse(text: &[u8]) -> Result<Self, InvalidKeySet> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let document: Document<'_> = serde_json::from_slice(text).map_err(|_| InvalidKeySet::NotKeySet)?;
        let keys: Vec<_> =
            document.keys.iter().filter_map(|key| IssuerKey::read(key.get())).take(KEYS_MAX).collect();
        if keys.is_empty() { Err(InvalidKeySet::NoKey) } else { Ok(Self { keys }) }
    }

    /// Returns the set of a single key, which verifies tokens with any key id.
    pub(super) fn single(key: &VerificationKey) -> Self {
        Self { keys: vec![IssuerKey { id: None, algorithm: None, key: key.decoding_key().clone() }] }
    }

    /// Returns the number of keys.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there is no key, because none was fetched yet.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the keys that a token with this key id and algorithm may be signed with.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        self.keys
            .iter()
            .filter(move |key| {
                // A key without an id serves each token, and a token without one may be of each key.
                let named = key.id.as_deref().zip(id).is_none_or(|(key, token)| key == token);
                let meant = key.algorithm.is_none_or(|only| only == algorithm);
                named && meant && is_of_family(algorithm, key.key.family())
            })
            .map(|key| &key.key)
    }
}

impl IssuerKey {
    fn read(text: &str) -> Option<Self> {
        let jwk: Jwk = serde_json::from_str(text).ok()?;
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        // A shared secret has no place in a public set.
        if is_of_family(Algorithm::HS256, key.family()) {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(named) => Some(signature_algorithm(named)?),
        };
        Some(Self { id: jwk.common.key_id.map(Into::into), algorithm, key })
    }
}

/// Returns the algorithm of signatures that a key names. `None` for encryption and unknown ones.
fn signature_algorithm(named: KeyAlgorithm) -> Option<Algorithm> {
    named.try_into().ok()
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
