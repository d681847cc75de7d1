//! Signs the assertion for a grant: a JWT in the bot's name about one user (protocol.md 2).
//!
//! Each grant gets a new JWT, with integer seconds and without `jti`. The platform refuses a `jti` that it has seen
//! (protocol.md 2.3), and a secure handshake shows the same JWT a second time. A JWE wrapper is not supported.

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::config::{BotConfig, JwtAlgorithm};
use crate::domain::{Timestamp, UserId};

/// Life of a JWT. It covers grant, ticket and handshake, each of which has a timeout.
const LIFETIME: Duration = Duration::from_mins(1);

/// The value of the platform's own pages. No source says that the platform checks it (protocol.md 2.2).
const AUDIENCE: &str = "https://idproxy.kore.com/authorize";

/// Reason why a bot's key cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// HS256 or HS512 with an empty secret.
    #[error("the client secret is empty")]
    EmptySecret,
    /// RS256 or RS512 with a secret that is no private RSA key in PEM, or one of another size.
    #[error(
        "the client secret is no private RSA key of 2048 to 8192 bits in PEM (PKCS#1 or PKCS#8, unencrypted), \
         which RS256 and RS512 need"
    )]
    BadKey,
}

impl SignerError {
    /// Returns the text for callers. It only says that the bridge's configuration is at fault.
    pub(super) const fn public_message(self) -> &'static str {
        match self {
            Self::EmptySecret | Self::BadKey => {
                "the bridge's key for this bot cannot sign; `rtm-bridge config check` says why"
            }
        }
    }
}

/// Signer of a bot's JWTs. It parses and tries the key once. Its Debug output shows no key.
#[derive(Debug)]
pub struct JwtSigner {
    /// The first part of each JWT, in base64.
    header: Box<str>,
    key: SigningKey,
    issuer: Box<str>,
    anonymous: bool,
}

#[derive(Debug)]
enum SigningKey {
    Shared(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

#[derive(Serialize)]
struct JwtClaims<'a> {
    iat: u64,
    exp: u64,
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    #[serde(rename = "isAnonymous")]
    anonymous: bool,
}

impl JwtSigner {
    /// Parses the bot's key and signs a test value, so that a bad key is found at the start.
    ///
    /// # Errors
    /// [`SignerError`]; change `client_secret` or `algorithm` of the bot.
    pub fn new(bot: &BotConfig) -> Result<Self, SignerError> {
        let secret = bot.client_secret.expose_secret();
        let (algorithm, key) = match bot.algorithm {
            JwtAlgorithm::Hs256 => ("HS256", SigningKey::shared(secret, hmac::HMAC_SHA256)?),
            JwtAlgorithm::Hs512 => ("HS512", SigningKey::shared(secret, hmac::HMAC_SHA512)?),
            JwtAlgorithm::Rs256 => ("RS256", SigningKey::rsa(secret, &RSA_PKCS1_SHA256)?),
            JwtAlgorithm::Rs512 => ("RS512", SigningKey::rsa(secret, &RSA_PKCS1_SHA512)?),
        };
        let header = format!(r#"{{"typ":"JWT","alg":"{algorithm}"}}"#);
        let signer = Self {
            header: URL_SAFE_NO_PAD.encode(header).into(),
            key,
            issuer: bot.client_id.as_str().into(),
            anonymous: bot.anonymous,
        };
        signer.sign("key check", Timestamp::default())?;
        Ok(signer)
    }

    /// Signs a JWT about `user`, valid for a minute from `now`.
    ///
    /// # Errors
    /// [`SignerError::BadKey`], which [`JwtSigner::new`] finds first.
    pub fn mint(&self, user: &UserId, now: Timestamp) -> Result<SecretString, SignerError> {
        self.sign(user.as_str(), now)
    }

    fn sign(&self, subject: &str, now: Timestamp) -> Result<SecretString, SignerError> {
        let claims = JwtClaims {
            iat: now.as_millis() / 1000,
            exp: (now + LIFETIME).as_millis() / 1000,
            aud: AUDIENCE,
            iss: &self.issuer,
            sub: subject,
            anonymous: self.anonymous,
        };
        let claims = serde_json::to_vec(&claims).map_err(|_| SignerError::BadKey)?;
        let mut jwt = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(jwt.as_bytes())?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt.into())
    }
}

impl SigningKey {
    fn shared(secret: &str, algorithm: hmac::Algorithm) -> Result<Self, SignerError> {
        if secret.is_empty() {
            return Err(SignerError::EmptySecret);
        }
        Ok(Self::Shared(Box::new(hmac::Key::new(algorithm, secret.as_bytes()))))
    }

    fn rsa(pem: &str, encoding: &'static dyn RsaEncoding) -> Result<Self, SignerError> {
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(SignerError::BadKey),
        };
        key.map(|key| Self::Rsa(key, encoding)).map_err(|_| SignerError::BadKey)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self {
            Self::Shared(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| SignerError::BadKey)?;
                Ok(signature)
            }
        }
    }
}
