//! Signs the assertion for a grant: a JWT in the bot's name about one user (protocol.md 2).
//!
//! Each grant and each secure handshake gets a new JWT, with integer seconds. A `jti` is there if the bot asks for it. The
//! platform refuses one that it has seen (protocol.md 2.3). A JWE wrapper is not supported: an assertion service may
//! give one.

use std::borrow::Cow;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{BotConfig, InvalidJwtKey, jwt_key};
use crate::domain::{MessageId, Timestamp, UserDetails, UserId};

/// Span from the signature to the expiry. It covers grant, ticket and handshake, each of which has a timeout, and a
/// platform whose clock is ahead.
const LIFETIME: Duration = Duration::from_mins(5);
/// Span by which the issue time is before the signature, for a platform whose clock is behind.
const BACKDATED: Duration = Duration::from_mins(1);

/// The value of the platform's own pages. No source says that the platform checks it (protocol.md 2.2).
pub(super) const AUDIENCE: &str = "https://idproxy.kore.com/authorize";

/// Signer of a bot's JWTs. It parses and tries the key once. Its Debug output shows no key.
#[derive(Debug)]
pub struct JwtSigner {
    header: Header,
    key: EncodingKey,
    issuer: Box<str>,
    anonymous: bool,
    has_jti: bool,
    /// Static claims, which may have an `aud` of their own.
    claims: Map<String, Value>,
}

#[derive(Serialize)]
struct JwtClaims<'a> {
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iss: &'a str,
    sub: &'a str,
    #[serde(rename = "isAnonymous")]
    anonymous: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(rename = "identityToMerge", skip_serializing_if = "Option::is_none")]
    merge_with: Option<&'a str>,
    #[serde(flatten)]
    claims: &'a Map<String, Value>,
}

impl JwtSigner {
    /// Parses and tries the bot's key, so that a bad key is found at the start.
    ///
    /// # Errors
    /// [`InvalidJwtKey`]; change `client_secret` or `algorithm` of the bot.
    pub fn new(bot: &BotConfig) -> Result<Self, InvalidJwtKey> {
        let (header, key) = jwt_key(bot.algorithm, &bot.client_secret)?;
        Ok(Self {
            header,
            key,
            issuer: bot.client_id.as_str().into(),
            anonymous: bot.anonymous,
            has_jti: bot.jti,
            claims: bot.claims.clone(),
        })
    }

    /// Signs a JWT about `user`, valid from a minute before `now` until five minutes after it. `now` is the wall clock's.
    /// The names of the user go into the header, as the sources have it (protocol.md 2.2).
    ///
    /// # Errors
    /// [`InvalidJwtKey::DamagedKey`], which [`JwtSigner::new`] finds first.
    pub fn mint(
        &self,
        user: &UserId,
        details: &UserDetails,
        now: Timestamp,
    ) -> Result<SecretString, InvalidJwtKey> {
        let claims = JwtClaims {
            iat: (now - BACKDATED).as_millis() / 1000,
            exp: (now + LIFETIME).as_millis() / 1000,
            aud: (!self.claims.contains_key("aud")).then_some(AUDIENCE),
            iss: &self.issuer,
            sub: user.as_str(),
            anonymous: self.anonymous,
            // A ULID's 80 random bits differ in every thread and replica.
            jti: self.has_jti.then(|| MessageId::new(now, fastrand::u128(..)).to_string()),
            merge_with: details.merge_with.as_ref().map(UserId::as_str),
            claims: &self.claims,
        };
        let mut header = Cow::Borrowed(&self.header);
        for (name, value) in [("fName", &details.profile.first_name), ("lName", &details.profile.last_name)] {
            if let Some(value) = value {
                header.to_mut().extras.insert(name, &**value);
            }
        }
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map(SecretString::from)
            .map_err(|_| InvalidJwtKey::DamagedKey)
    }
}
