//! Our own tokens, by which a browser reads the events of one user for some minutes. Pure.
//!
//! A token is a JWT that a key of the fleet signs (HS256). Each replica verifies it alone, once it has the key of that day from
//! the store.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode_header};
use serde::{Deserialize, Serialize};

use super::token_verifier::TokenRefusal;
use crate::domain::{BotName, Timestamp, UserId};

/// The difference between the clocks of replicas that is tolerated.
const CLOCKS: Duration = Duration::from_mins(1);

/// The issuer of our tokens.
const ISSUER: &str = "rtm-bridge";

/// The conversation that a browser may read, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadToken {
    /// The name of the caller who asked for the token. The token ends with the caller's rights.
    pub caller: Box<str>,
    /// The only user.
    pub user: UserId,
    /// The only bot, or `None` for each bot of the caller.
    pub bot: Option<BotName>,
    /// The end of the token, in whole seconds.
    pub expires: Timestamp,
}

/// The key of a day, which all replicas share.
#[derive(Clone)]
pub struct ReadTokenKey {
    /// The day since 1970.
    day: u64,
    secret: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct ReadClaims {
    iss: String,
    sub: String,
    exp: u64,
    azp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bot: Option<String>,
}

impl ReadTokenKey {
    /// The length of a secret, in bytes.
    pub const BYTES: usize = 32;
    /// The longest lifetime of a token.
    pub const TTL_MAX: Duration = Duration::from_hours(1);

    /// Returns the key of a day.
    pub const fn new(day: u64, secret: [u8; Self::BYTES]) -> Self {
        Self { day, secret }
    }

    /// Returns the day of a time, in days since 1970.
    pub const fn day_of(now: Timestamp) -> u64 {
        now.as_millis() / 86_400_000
    }

    /// Returns the days whose keys may have signed a token that is valid at this time.
    pub fn days_at(now: Timestamp) -> RangeInclusive<u64> {
        Self::day_of(now - Self::TTL_MAX - CLOCKS)..=Self::day_of(now + CLOCKS)
    }

    /// Returns the secret, for the store.
    pub const fn secret(&self) -> [u8; Self::BYTES] {
        self.secret
    }

    /// Returns the day whose key signed a token, without any check.
    pub fn day_of_token(token: &[u8]) -> Option<u64> {
        decode_header(token).ok()?.kid?.parse().ok()
    }

    /// Returns the day of this key.
    pub const fn day(&self) -> u64 {
        self.day
    }

    /// Signs a token. Returns `None` only if the library refuses its own defaults.
    pub fn sign(&self, token: &ReadToken) -> Option<String> {
        let claims = ReadClaims {
            iss: ISSUER.to_owned(),
            sub: token.user.as_str().to_owned(),
            exp: token.expires.as_millis() / 1000,
            azp: token.caller.to_string(),
            bot: token.bot.as_ref().map(|bot| bot.as_str().to_owned()),
        };
        let header = Header { kid: Some(self.day.to_string()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&self.secret)).ok()
    }

    /// Verifies a token at this time.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<ReadToken, TokenRefusal> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let key = DecodingKey::from_secret(&self.secret);
        let claims = jsonwebtoken::decode::<ReadClaims>(token, &key, &validation)
            .map_err(|_| TokenRefusal::Signature)?
            .claims;
        let expires = Timestamp::from_millis(claims.exp.saturating_mul(1000));
        if claims.iss != ISSUER {
            return Err(TokenRefusal::Issuer);
        }
        // The replicas share the clock of the store, so no leeway is needed.
        if expires <= now {
            return Err(TokenRefusal::Expired);
        }
        let user = UserId::new(&claims.sub).map_err(|_| TokenRefusal::Claim("sub".into()))?;
        let bot = claims.bot.map(|bot| BotName::new(&bot)).transpose();
        let bot = bot.map_err(|_| TokenRefusal::Claim("bot".into()))?;
        Ok(ReadToken { caller: claims.azp.into(), user, bot, expires })
    }
}

impl fmt::Debug for ReadTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadTokenKey").field("day", &self.day).finish_non_exhaustive()
    }
}
