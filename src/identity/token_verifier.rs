//! Judges the tokens of one caller (RFC 7519, RFC 8725). Pure: keys and time are arguments.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, dangerous, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::claims::TokenRights;
use super::key_set::KeySet;
use super::remote_keys::RemoteKeys;
use crate::config::{CallerTokenConfig, TokenKeySource};
use crate::domain::Timestamp;

/// The difference between the clocks of issuer and bridge that is tolerated.
const LEEWAY: Duration = Duration::from_mins(1);
/// The longest token, in bytes. The server takes no longer heads anyway.
const TOKEN_MAX: usize = 16 * 1024;
/// The most keys that are tried for a token without a key id.
const TRIED_KEYS: usize = 8;

/// The verifier of a caller's tokens, with the keys of their issuer.
#[derive(Debug)]
pub struct TokenVerifier {
    config: Arc<CallerTokenConfig>,
    keys: VerifierKeys,
}

#[derive(Debug)]
enum VerifierKeys {
    Fixed(KeySet),
    Remote(Arc<RemoteKeys>),
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// The text is no signed JWT.
    #[error("it is no signed JWT")]
    Malformed,
    /// The algorithm is not among the accepted ones.
    #[error("its algorithm is not accepted here")]
    Algorithm,
    /// The token has header fields that its receiver must understand, and this one understands none (RFC 7515, 4.1.11).
    #[error("its `crit` names header fields that are unknown here")]
    Critical,
    /// No key of the issuer has the token's key id.
    #[error("its key id is unknown")]
    UnknownKey,
    /// The keys of the issuer were not fetched yet.
    #[error("the keys of its issuer are not known yet")]
    NoKeys,
    /// The signature is not the issuer's.
    #[error("its signature does not hold")]
    Signature,
    /// The token has no `exp`, or it has passed.
    #[error("it has expired, or has no `exp`")]
    Expired,
    /// `nbf` has not come.
    #[error("it is not valid yet")]
    Early,
    /// `iss` is another issuer.
    #[error("its issuer is unknown")]
    Issuer,
    /// `aud` is another service.
    #[error("it is for another audience")]
    Audience,
    /// A claim that the configuration names is missing, or of another kind.
    #[error("its claim `{0}` is missing or not usable")]
    Claim(Box<str>),
}

/// The issuer and the audience that a token names, without any check.
#[derive(Debug, Deserialize)]
pub struct NamedParties {
    iss: String,
    #[serde(default)]
    aud: Value,
}

/// Returns the parties that a token names. `None` if the text is no JWT with an issuer.
pub fn parties_of(token: &[u8]) -> Option<NamedParties> {
    if token.len() > TOKEN_MAX || token.split(|byte| *byte == b'.').count() != 3 {
        return None;
    }
    Some(dangerous::insecure_decode::<NamedParties>(token).ok()?.claims)
}

impl TokenVerifier {
    /// Creates the verifier of these tokens. Remote keys are fetched by [`RemoteKeys::run`]. Those of the verifier `before` a
    /// reload stay if they come from the same place.
    pub fn new(config: &Arc<CallerTokenConfig>, caller: &str, before: Option<&Self>) -> Self {
        let known = before.filter(|before| before.config.keys == config.keys);
        if let Some(keys) = known.and_then(Self::remote_keys) {
            return Self { config: Arc::clone(config), keys: VerifierKeys::Remote(Arc::clone(keys)) };
        }
        let keys = match &config.keys {
            TokenKeySource::PublicKey(key) => VerifierKeys::Fixed(KeySet::single(key)),
            TokenKeySource::Remote { url, ca, proxy } => {
                VerifierKeys::Remote(RemoteKeys::new(caller, url, ca.as_deref(), proxy.as_ref()))
            }
        };
        Self { config: Arc::clone(config), keys }
    }

    /// Returns whether the tokens come from the issuer that a token names.
    pub fn is_of_issuer(&self, token: &NamedParties) -> bool {
        token.iss == *self.config.issuer
    }

    /// Returns whether a token names an audience of these tokens.
    pub fn is_for_audience(&self, token: &NamedParties) -> bool {
        names_audience(&self.config, Some(&token.aud))
    }

    /// Returns the configuration.
    pub fn config(&self) -> &CallerTokenConfig {
        &self.config
    }

    /// Returns the keys, if they are fetched.
    pub const fn remote_keys(&self) -> Option<&Arc<RemoteKeys>> {
        match &self.keys {
            VerifierKeys::Fixed(_) => None,
            VerifierKeys::Remote(keys) => Some(keys),
        }
    }

    /// Verifies a token at this time of the wall clock, and returns its rights.
    ///
    /// # Errors
    /// [`TokenRefusal`]. After [`TokenRefusal::UnknownKey`] and [`TokenRefusal::NoKeys`] newer keys may verify it.
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<TokenRights, TokenRefusal> {
        match &self.keys {
            VerifierKeys::Fixed(keys) => verify(&self.config, keys, token, now),
            VerifierKeys::Remote(keys) => verify(&self.config, &keys.current(), token, now),
        }
    }
}

/// Verifies a token with these keys.
pub(super) fn verify(
    config: &CallerTokenConfig,
    keys: &KeySet,
    token: &[u8],
    now: Timestamp,
) -> Result<TokenRights, TokenRefusal> {
    if token.len() > TOKEN_MAX {
        return Err(TokenRefusal::Malformed);
    }
    let header = decode_header(token).map_err(|_| TokenRefusal::Malformed)?;
    if !config.algorithms.contains(&header.alg) {
        return Err(TokenRefusal::Algorithm);
    }
    if header.crit.is_some() {
        return Err(TokenRefusal::Critical);
    }
    if keys.is_empty() {
        return Err(TokenRefusal::NoKeys);
    }
    let mut refusal = TokenRefusal::UnknownKey;
    for key in keys.candidates(header.kid.as_deref(), header.alg).take(TRIED_KEYS) {
        match jsonwebtoken::decode::<Map<String, Value>>(token, key, &signature_alone(header.alg)) {
            Ok(token) => {
                judge(config, &token.claims, now)?;
                return TokenRights::read(config, &token.claims);
            }
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                refusal = TokenRefusal::Signature;
            }
            Err(_) => refusal = TokenRefusal::Malformed,
        }
    }
    Err(refusal)
}

/// Returns the settings that leave all claims to [`judge`], because the library reads a clock of its own.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn judge(
    config: &CallerTokenConfig,
    claims: &Map<String, Value>,
    now: Timestamp,
) -> Result<(), TokenRefusal> {
    if claims.get("iss").and_then(Value::as_str) != Some(&*config.issuer) {
        return Err(TokenRefusal::Issuer);
    }
    if !names_audience(config, claims.get("aud")) {
        return Err(TokenRefusal::Audience);
    }
    // A time may have a fraction (RFC 7519, section 2).
    let time = |name| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds has few digits")]
    let now = now.as_millis() as f64 / 1000.0;
    let leeway = LEEWAY.as_secs_f64();
    if time("exp").is_none_or(|end| end + leeway <= now) {
        return Err(TokenRefusal::Expired);
    }
    let begins = claims.get("nbf").is_some();
    if begins && time("nbf").is_none_or(|begin| begin - leeway > now) {
        return Err(TokenRefusal::Early);
    }
    Ok(())
}

/// Returns whether `aud`, a text or a list, has a value of the configuration.
fn names_audience(config: &CallerTokenConfig, aud: Option<&Value>) -> bool {
    let is_ours =
        |value: &Value| value.as_str().is_some_and(|text| config.audience.iter().any(|one| one == text));
    match aud {
        Some(Value::Array(all)) => all.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    }
}
