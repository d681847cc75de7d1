//! The key that verifies the JWTs of a client of the webhook channel. The reader of the configuration makes it, so that a key
//! of no use is found at the start.

use std::fmt;

use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::JwtAlgorithm;
use super::pem::with_line_ends;
use super::verification_key::{InvalidVerificationKey, VerificationKey};
use crate::domain::Sha256;

/// A key with the one algorithm that it verifies. Its Debug output shows no key.
#[derive(Clone)]
pub struct ClientKey {
    algorithm: Algorithm,
    key: DecodingKey,
    /// The SHA-256 of the text of the key, by which two keys are compared.
    digest: [u8; 32],
}

/// Reason why a key cannot verify. The texts do not quote the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientKey {
    /// A shared secret with an algorithm of public keys.
    #[error("a secret verifies HS256, HS384 and HS512 only; other algorithms need `public_key`")]
    Secret,
    /// A public key with an algorithm for another type of key.
    #[error("does not fit `algorithm`, which is for another type of key")]
    OtherType,
    /// The text is no public key.
    #[error(transparent)]
    PublicKey(#[from] InvalidVerificationKey),
}

impl ClientKey {
    /// Returns the key for a shared secret. The default algorithm is HS256.
    ///
    /// # Errors
    /// [`InvalidClientKey::Secret`].
    pub(super) fn of_secret(
        secret: &SecretString,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, InvalidClientKey> {
        let algorithm = algorithm.unwrap_or(Algorithm::HS256);
        if !is_shared(algorithm) {
            return Err(InvalidClientKey::Secret);
        }
        let secret = secret.expose_secret().as_bytes();
        Ok(Self { algorithm, key: DecodingKey::from_secret(secret), digest: Sha256::digest(secret) })
    }

    /// Returns the key for a public key in PEM. The default algorithm is RS256, ES256 or `EdDSA`, by the type of the key.
    ///
    /// # Errors
    /// [`InvalidClientKey::PublicKey`], [`InvalidClientKey::OtherType`].
    pub(super) fn of_public_key(
        pem: &SecretString,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, InvalidClientKey> {
        let key = VerificationKey::from_pem(pem.expose_secret())?;
        let default = [Algorithm::RS256, Algorithm::ES256].into_iter().find(|default| key.fits(*default));
        let algorithm = algorithm.or(default).unwrap_or(Algorithm::EdDSA);
        if !key.fits(algorithm) {
            return Err(InvalidClientKey::OtherType);
        }
        let digest = Sha256::digest(pem.expose_secret());
        Ok(Self { algorithm, key: key.decoding_key().clone(), digest })
    }

    /// Returns the key that verifies the JWTs of a bot's own app, or `None` for a key that cannot sign.
    pub(super) fn of_app(algorithm: JwtAlgorithm, secret: &SecretString) -> Option<Self> {
        let (algorithm, is_rsa) = match algorithm {
            JwtAlgorithm::Hs256 => (Algorithm::HS256, false),
            JwtAlgorithm::Hs512 => (Algorithm::HS512, false),
            JwtAlgorithm::Rs256 => (Algorithm::RS256, true),
            JwtAlgorithm::Rs512 => (Algorithm::RS512, true),
        };
        if !is_rsa {
            return Self::of_secret(secret, Some(algorithm)).ok();
        }
        let pair = match PrivateKeyDer::from_pem_slice(with_line_ends(secret.expose_secret()).as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok()?,
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?,
            _ => return None,
        };
        let public = pair.public_key().as_ref();
        Some(Self { algorithm, key: DecodingKey::from_rsa_der(public), digest: Sha256::digest(public) })
    }

    /// Verifies the signature of a token, and returns its claims. The claims themselves, times included, are up to the caller.
    pub fn verify(&self, token: &str) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        jsonwebtoken::decode(token, &self.key, &validation).ok().map(|token| token.claims)
    }
}

impl PartialEq for ClientKey {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.digest == other.digest
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

const fn is_shared(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    const PRIVATE: &str = include_str!("../../tests/fixtures/rsa.pem");
    const PUBLIC: &str = include_str!("../../tests/fixtures/rsa.public.pem");

    fn token(algorithm: Algorithm, key: &EncodingKey) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), &json!({"appId": "cs-1", "exp": 1}), key).unwrap()
    }

    #[test]
    fn key_verifies_its_own_algorithm_only() {
        let secret = SecretString::from("secret");
        let shared = EncodingKey::from_secret(b"secret");
        let key = ClientKey::of_secret(&secret, None).unwrap();
        assert_eq!(key.verify(&token(Algorithm::HS256, &shared)).unwrap()["appId"], "cs-1");
        assert!(key.verify(&token(Algorithm::HS512, &shared)).is_none());
        assert!(key.verify(&token(Algorithm::HS256, &EncodingKey::from_secret(b"other"))).is_none());
        assert!(key.verify("eyJhbGciOiJub25lIn0.e30.").is_none());
        let private = EncodingKey::from_rsa_pem(PRIVATE.as_bytes()).unwrap();
        let public = ClientKey::of_public_key(&PUBLIC.into(), Some(Algorithm::RS512)).unwrap();
        assert!(public.verify(&token(Algorithm::RS512, &private)).is_some());
        assert!(public.verify(&token(Algorithm::RS256, &private)).is_none());
        // A public key must never serve as a shared secret.
        let confused = EncodingKey::from_secret(PUBLIC.as_bytes());
        assert!(public.verify(&token(Algorithm::HS256, &confused)).is_none());
    }

    #[test]
    fn key_of_an_app_verifies_what_the_app_signs() {
        for pem in [PRIVATE, include_str!("../../tests/fixtures/rsa.pkcs1.pem")] {
            let key = ClientKey::of_app(JwtAlgorithm::Rs256, &pem.into()).unwrap();
            let private = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
            assert!(key.verify(&token(Algorithm::RS256, &private)).is_some());
        }
        let key = ClientKey::of_app(JwtAlgorithm::Hs512, &"s".into()).unwrap();
        assert!(key.verify(&token(Algorithm::HS512, &EncodingKey::from_secret(b"s"))).is_some());
        assert!(ClientKey::of_app(JwtAlgorithm::Rs256, &"no key".into()).is_none());
    }

    #[test]
    fn key_of_another_kind_is_refused() {
        use InvalidClientKey as E;
        let secret = |algorithm| ClientKey::of_secret(&"s".into(), Some(algorithm)).unwrap_err();
        assert_eq!(secret(Algorithm::RS256), E::Secret);
        let public =
            |pem: &str, algorithm| ClientKey::of_public_key(&pem.into(), algorithm).map(drop).unwrap_err();
        assert_eq!(public(PUBLIC, Some(Algorithm::HS256)), E::OtherType);
        assert_eq!(public(PUBLIC, Some(Algorithm::ES256)), E::OtherType);
        assert_eq!(public("no key", None), E::PublicKey(InvalidVerificationKey::NotPem));
        assert!(!format!("{:?}", ClientKey::of_secret(&"s3cret".into(), None).unwrap()).contains("s3cret"));
    }
}
