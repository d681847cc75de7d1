//! Signs the assertion for a grant: a JWT in the bot's name about one user (protocol.md 2).
//!
//! Each grant gets a new JWT, with integer seconds and without `jti`. The platform refuses a `jti` that it has seen
//! (protocol.md 2.3), and a secure handshake shows the same JWT a second time. A JWE wrapper is not supported.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::config::{BotConfig, JwtAlgorithm};
use crate::domain::{Timestamp, UserId};

/// Span from the signature to the expiry. It covers grant, ticket and handshake, each of which has a timeout, and a
/// platform whose clock is ahead.
const LIFETIME: Duration = Duration::from_mins(5);
/// Span by which the issue time is before the signature, for a platform whose clock is behind.
const BACKDATED: Duration = Duration::from_mins(1);

/// The value of the platform's own pages. No source says that the platform checks it (protocol.md 2.2).
const AUDIENCE: &str = "https://idproxy.kore.com/authorize";

/// Reason why a bot's key cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// HS256 or HS512 with an empty secret.
    #[error("the client secret is empty")]
    EmptySecret,
    /// RS256 or RS512 with a secret that is no private RSA key in PEM.
    #[error(
        "the client secret is no private RSA key in PEM (PKCS#1 or PKCS#8, unencrypted), which RS256 and RS512 need"
    )]
    BadPem,
    /// A PEM key that does not sign, such as a public one or one shorter than 2048 bits.
    #[error("the private RSA key does not sign; it needs 2048 to 8192 bits")]
    BadKey,
}

impl SignerError {
    /// Returns the text for callers. It only says that the bridge's configuration is at fault.
    pub(super) const fn public_message(self) -> &'static str {
        match self {
            Self::EmptySecret | Self::BadPem | Self::BadKey => {
                "the bridge's key for this bot cannot sign; `rtm-bridge config check` says why"
            }
        }
    }
}

/// Signer of a bot's JWTs. It parses and tries the key once. Its Debug output shows no key.
#[derive(Debug)]
pub struct JwtSigner {
    header: Header,
    key: EncodingKey,
    issuer: Box<str>,
    anonymous: bool,
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
            JwtAlgorithm::Hs256 => (jsonwebtoken::Algorithm::HS256, Self::shared_key(secret)?),
            JwtAlgorithm::Hs512 => (jsonwebtoken::Algorithm::HS512, Self::shared_key(secret)?),
            JwtAlgorithm::Rs256 => (jsonwebtoken::Algorithm::RS256, Self::rsa_key(secret)?),
            JwtAlgorithm::Rs512 => (jsonwebtoken::Algorithm::RS512, Self::rsa_key(secret)?),
        };
        let signer = Self {
            header: Header::new(algorithm),
            key,
            issuer: bot.client_id.as_str().into(),
            anonymous: bot.anonymous,
        };
        signer.sign("key check", Timestamp::default())?;
        Ok(signer)
    }

    /// Signs a JWT about `user`, valid from a minute before `now` until five minutes after it. `now` is the wall clock's.
    ///
    /// # Errors
    /// [`SignerError::BadKey`], which [`JwtSigner::new`] finds first.
    pub fn mint(&self, user: &UserId, now: Timestamp) -> Result<SecretString, SignerError> {
        self.sign(user.as_str(), now)
    }

    fn sign(&self, subject: &str, now: Timestamp) -> Result<SecretString, SignerError> {
        let claims = JwtClaims {
            iat: (now - BACKDATED).as_millis() / 1000,
            exp: (now + LIFETIME).as_millis() / 1000,
            aud: AUDIENCE,
            iss: &self.issuer,
            sub: subject,
            anonymous: self.anonymous,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
            .map(SecretString::from)
            .map_err(|_| SignerError::BadKey)
    }

    fn shared_key(secret: &str) -> Result<EncodingKey, SignerError> {
        if secret.is_empty() {
            return Err(SignerError::EmptySecret);
        }
        Ok(EncodingKey::from_secret(secret.as_bytes()))
    }

    fn rsa_key(pem: &str) -> Result<EncodingKey, SignerError> {
        EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| SignerError::BadPem)
    }
}
