//! A public key that verifies the signatures of others.

use std::fmt;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::pem::with_line_ends;

/// The algorithms of JWTs. The first ones have a shared secret.
pub(super) const JWT_ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The algorithms with public keys, by which a provider of tokens may sign. With a shared secret each caller could forge the
/// tokens of the others.
pub(super) const PUBLIC_KEY_ALGORITHMS: &[(&str, Algorithm)] = JWT_ALGORITHMS.split_at(3).1;

/// A public key in PEM, of an algorithm for JWTs (RFC 7518).
#[derive(Clone)]
pub struct VerificationKey {
    pem: Box<str>,
    key: DecodingKey,
}

/// Why a text holds no key that verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVerificationKey {
    /// The text holds no key in PEM.
    #[error("holds no public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    NotPem,
    /// The text holds a private key, which is not ours to keep.
    #[error(
        "holds a private key; give the public one, as `openssl pkey -in FILE -pubout` prints it, and keep the private one \
         away from here"
    )]
    PrivateKey,
    /// The text holds a certificate.
    #[error("holds a certificate; give its key, as `openssl x509 -in FILE -pubkey -noout` prints it")]
    Certificate,
    /// The key has another type or is damaged.
    #[error("holds a damaged key, or one of another type than RSA, EC (P-256, P-384) and Ed25519")]
    OtherKey,
}

impl VerificationKey {
    /// Reads a public key in PEM.
    ///
    /// # Errors
    /// [`InvalidVerificationKey`].
    pub fn from_pem(text: &str) -> Result<Self, InvalidVerificationKey> {
        let pem = with_line_ends(text.trim());
        let label = pem.split("-----BEGIN ").nth(1).and_then(|rest| rest.split("-----").next());
        match label {
            None => return Err(InvalidVerificationKey::NotPem),
            Some(label) if label.ends_with("PRIVATE KEY") => return Err(InvalidVerificationKey::PrivateKey),
            Some("CERTIFICATE") => return Err(InvalidVerificationKey::Certificate),
            Some(_) => {}
        }
        let readers = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
        let key = readers.iter().find_map(|read| read(pem.as_bytes()).ok());
        let key = key.ok_or(InvalidVerificationKey::OtherKey)?;
        Ok(Self { pem: pem.into(), key })
    }

    /// Returns the key for the library.
    pub const fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }

    /// Returns whether the key verifies signatures of this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        is_of_family(algorithm, self.key.family())
    }
}

impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerificationKey").field(&self.key.family()).finish()
    }
}

/// Returns whether an algorithm uses keys of this family.
pub fn is_of_family(algorithm: Algorithm, family: AlgorithmFamily) -> bool {
    family.algorithms().contains(&algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_key_is_read_and_any_other_text_is_named() {
        let public = include_str!("../../crates/sandbox/src/tests/rsa_public.pem");
        let key = VerificationKey::from_pem(&public.replace('\n', "\\n")).unwrap();
        assert!(key.fits(Algorithm::RS256) && key.fits(Algorithm::PS512));
        assert!(!key.fits(Algorithm::HS256) && !key.fits(Algorithm::ES256));
        assert_eq!(format!("{key:?}"), "VerificationKey(Rsa)");
        let private = include_str!("../../crates/sandbox/src/tests/rsa_private.pem");
        let cut = public.get(..public.len() / 2).unwrap();
        for (text, expected) in [
            ("", InvalidVerificationKey::NotPem),
            ("hush", InvalidVerificationKey::NotPem),
            (private, InvalidVerificationKey::PrivateKey),
            (include_str!("../../tests/fixtures/tls.pem"), InvalidVerificationKey::Certificate),
            (cut, InvalidVerificationKey::OtherKey),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", InvalidVerificationKey::OtherKey),
        ] {
            assert_eq!(VerificationKey::from_pem(text).err(), Some(expected), "{text}");
        }
    }
}
