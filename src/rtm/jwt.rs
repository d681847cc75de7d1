//! Signs the assertion for a grant: a JWT in the bot's name about one user (protocol.md 2).
//!
//! Each grant gets a new JWT, with integer seconds and without `jti`. The platform refuses a `jti` that it has seen
//! (protocol.md 2.3), and a secure handshake shows the same JWT a second time. A JWE wrapper is not supported.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use secrecy::SecretString;
use serde::Serialize;

use crate::config::{BotConfig, InvalidJwtKey, jwt_key};
use crate::domain::{Timestamp, UserId};

/// Span from the signature to the expiry. It covers grant, ticket and handshake, each of which has a timeout, and a
/// platform whose clock is ahead.
const LIFETIME: Duration = Duration::from_mins(5);
/// Span by which the issue time is before the signature, for a platform whose clock is behind.
const BACKDATED: Duration = Duration::from_mins(1);

/// The value of the platform's own pages. No source says that the platform checks it (protocol.md 2.2).
const AUDIENCE: &str = "https://idproxy.kore.com/authorize";

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
    /// Parses and tries the bot's key, so that a bad key is found at the start.
    ///
    /// # Errors
    /// [`InvalidJwtKey`]; change `client_secret` or `algorithm` of the bot.
    pub fn new(bot: &BotConfig) -> Result<Self, InvalidJwtKey> {
        let (header, key) = jwt_key(bot.algorithm, &bot.client_secret)?;
        Ok(Self { header, key, issuer: bot.client_id.as_str().into(), anonymous: bot.anonymous })
    }

    /// Signs a JWT about `user`, valid from a minute before `now` until five minutes after it. `now` is the wall clock's.
    ///
    /// # Errors
    /// [`InvalidJwtKey::DamagedKey`], which [`JwtSigner::new`] finds first.
    pub fn mint(&self, user: &UserId, now: Timestamp) -> Result<SecretString, InvalidJwtKey> {
        let claims = JwtClaims {
            iat: (now - BACKDATED).as_millis() / 1000,
            exp: (now + LIFETIME).as_millis() / 1000,
            aud: AUDIENCE,
            iss: &self.issuer,
            sub: user.as_str(),
            anonymous: self.anonymous,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
            .map(SecretString::from)
            .map_err(|_| InvalidJwtKey::DamagedKey)
    }
}
