//! Verifies assertions: their signature, their claims and the rules of `jti` (protocol.md 2).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode, decode_header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::clock;

/// Longest life of an assertion with a `jti`.
const JTI_TTL: Duration = Duration::from_hours(1);

/// A number above this counts as milliseconds. As seconds it would lie in the year 5138.
const LARGEST_SECONDS: f64 = 1e11;

/// Key that verifies an app's assertions.
#[derive(Debug, Clone)]
pub enum AppKey {
    /// Shared secret for HS256 and HS512.
    Secret(SecretString),
    /// Public key in PEM for RS256 and RS512.
    RsaPublicPem(String),
}

/// An app that may ask for grants.
#[derive(Debug, Clone)]
pub struct ClientApp {
    /// Id of the app (`cs-…`).
    pub id: String,
    /// Key for its assertions.
    pub key: AppKey,
}

/// Content of an accepted assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AssertionIdentity {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) anonymous: bool,
}

/// Reason of a refusal. Its text is the platform's answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssertionError {
    #[error("error verifying the jwt: malformed token")]
    Malformed,
    #[error("error verifying the jwt: unsupported algorithm")]
    Algorithm,
    #[error("error verifying the jwt: missing claim \"{0}\"")]
    Missing(&'static str),
    #[error("error verifying the jwt: unknown client")]
    UnknownClient,
    #[error("error verifying the jwt: invalid signature")]
    Signature,
    #[error("error verifying the jwt: jwt expired")]
    Expired,
    #[error("error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)")]
    TooLongForJti,
    #[error("error verifying the jwt: possibly a replay")]
    Replay,
}

/// Verifies an assertion and uses its `jti` up, if it has one.
pub(super) fn verify(
    assertion: &str,
    clients: &[ClientApp],
    algorithms: &[Algorithm],
    now: Timestamp,
    used_jtis: &mut HashMap<String, Timestamp>,
) -> Result<AssertionIdentity, AssertionError> {
    let header = decode_header(assertion).map_err(|_| AssertionError::Malformed)?;
    // The issuer names the key, so it is read before the verification.
    let unverified: Map<String, Value> =
        dangerous::insecure_decode_claims(assertion).map_err(|_| AssertionError::Malformed)?;
    let issuer = claim(&unverified, "iss", "kore_iss").ok_or(AssertionError::Missing("iss"))?;
    let client = clients.iter().find(|client| client.id == issuer).ok_or(AssertionError::UnknownClient)?;

    let key = match (&client.key, header.alg) {
        (AppKey::Secret(secret), Algorithm::HS256 | Algorithm::HS512) => {
            DecodingKey::from_secret(secret.expose_secret().as_bytes())
        }
        (AppKey::RsaPublicPem(pem), Algorithm::RS256 | Algorithm::RS512) => {
            DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| AssertionError::Signature)?
        }
        _ => return Err(AssertionError::Algorithm),
    };
    if !algorithms.contains(&header.alg) {
        return Err(AssertionError::Algorithm);
    }
    let claims = decode::<Map<String, Value>>(assertion, &key, &signature_only(header.alg))
        .map_err(|_| AssertionError::Signature)?
        .claims;

    let user = claim(&claims, "sub", "kore_sub").ok_or(AssertionError::Missing("sub"))?;
    time(&claims, "iat").ok_or(AssertionError::Missing("iat"))?;
    let expires = time(&claims, "exp").ok_or(AssertionError::Missing("exp"))?;
    if expires <= now {
        return Err(AssertionError::Expired);
    }
    if let Some(jti) = claim(&claims, "jti", "kore_jti") {
        if expires > clock::after(now, JTI_TTL) {
            return Err(AssertionError::TooLongForJti);
        }
        used_jtis.retain(|_, expires| *expires > now);
        if used_jtis.insert(jti.to_owned(), expires).is_some() {
            return Err(AssertionError::Replay);
        }
    }
    let anonymous = match claims.get("isAnonymous") {
        Some(Value::Bool(anonymous)) => *anonymous,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    Ok(AssertionIdentity { client: client.id.clone(), user: user.to_owned(), anonymous })
}

/// Times come in two units, so `verify` judges them. `aud` is ignored, as on the platform.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn claim<'a>(claims: &'a Map<String, Value>, plain: &str, twin: &str) -> Option<&'a str> {
    [plain, twin]
        .into_iter()
        .find_map(|name| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()))
}

fn time(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    let number = claims.get(name)?.as_f64().filter(|number| *number >= 0.0)?;
    let seconds = if number > LARGEST_SECONDS { number / 1000.0 } else { number };
    Some(clock::after(Timestamp::UNIX_EPOCH, Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_763_845_000;

    fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn judge(
        assertion: &str,
        used: &mut HashMap<String, Timestamp>,
    ) -> Result<AssertionIdentity, AssertionError> {
        let clients =
            [ClientApp { id: "cs-1".into(), key: AppKey::Secret(SecretString::from("secret-of-cs-1")) }];
        let all = [Algorithm::HS256, Algorithm::HS512, Algorithm::RS256, Algorithm::RS512];
        verify(assertion, &clients, &all, Timestamp::from_second(NOW).unwrap(), used)
    }

    fn once(claims: &Value) -> Result<AssertionIdentity, AssertionError> {
        judge(&sign(Algorithm::HS256, "secret-of-cs-1", claims), &mut HashMap::new())
    }

    #[test]
    fn assertion_in_seconds_or_milliseconds_is_accepted() {
        let ann = AssertionIdentity { client: "cs-1".into(), user: "ann".into(), anonymous: false };
        for claims in [
            json!({"iss": "cs-1", "sub": "ann", "iat": NOW, "exp": NOW + 60}),
            json!({"iss": "cs-1", "sub": "ann", "iat": NOW * 1000, "exp": (NOW + 60) * 1000, "aud": "x"}),
            json!({"iss": "cs-1", "sub": "ann", "iat": NOW * 1000, "exp": 1_763_845_060.5}),
            json!({"kore_iss": "cs-1", "kore_sub": "ann", "iat": NOW, "exp": NOW + 60, "isAnonymous": "false"}),
        ] {
            assert_eq!(once(&claims), Ok(ann.clone()), "{claims}");
            let token = sign(Algorithm::HS512, "secret-of-cs-1", &claims);
            assert_eq!(judge(&token, &mut HashMap::new()), Ok(ann.clone()));
        }
    }

    #[test]
    fn invalid_assertion_is_refused_with_its_reason() {
        let good = json!({"iss": "cs-1", "sub": "ann", "iat": NOW, "exp": NOW + 60});
        assert_eq!(judge("a.b", &mut HashMap::new()), Err(AssertionError::Malformed));
        let wrong = sign(Algorithm::HS256, "another secret", &good);
        assert_eq!(judge(&wrong, &mut HashMap::new()), Err(AssertionError::Signature));
        let hs384 = sign(Algorithm::HS384, "secret-of-cs-1", &good);
        assert_eq!(judge(&hs384, &mut HashMap::new()), Err(AssertionError::Algorithm));
        let with = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            once(&claims)
        };
        assert_eq!(with("iss", json!("cs-2")), Err(AssertionError::UnknownClient));
        assert_eq!(with("iss", Value::Null), Err(AssertionError::Missing("iss")));
        assert_eq!(with("sub", json!("")), Err(AssertionError::Missing("sub")));
        assert_eq!(with("exp", Value::Null), Err(AssertionError::Missing("exp")));
        assert_eq!(with("iat", Value::Null), Err(AssertionError::Missing("iat")));
        assert_eq!(with("exp", json!(NOW)), Err(AssertionError::Expired));
    }

    #[test]
    fn jti_works_once_and_within_an_hour() {
        let mut used = HashMap::new();
        let with = |exp: i64, jti: &str| {
            let claims = json!({"iss": "cs-1", "sub": "ann", "iat": NOW, "exp": exp, "jti": jti});
            sign(Algorithm::HS256, "secret-of-cs-1", &claims)
        };
        let long = judge(&with(NOW + 3601, "a"), &mut used).unwrap_err();
        assert_eq!(
            long.to_string(),
            "error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)"
        );
        assert!(judge(&with(NOW + 3600, "a"), &mut used).is_ok());
        let replay = judge(&with(NOW + 3600, "a"), &mut used).unwrap_err();
        assert_eq!(replay.to_string(), "error verifying the jwt: possibly a replay");
        assert!(judge(&with(NOW + 3600, "b"), &mut used).is_ok());
    }

    #[test]
    fn public_key_verifies_rsa_only() {
        let public = include_str!("tests/rsa_public.pem");
        let clients = [ClientApp { id: "cs-1".into(), key: AppKey::RsaPublicPem(public.into()) }];
        let claims = json!({"iss": "cs-1", "sub": "ann", "iat": NOW, "exp": NOW + 60});
        let private = EncodingKey::from_rsa_pem(include_bytes!("tests/rsa_private.pem")).unwrap();
        let now = Timestamp::from_second(NOW).unwrap();
        let judge = |token: &str, allowed: &[Algorithm]| {
            verify(token, &clients, allowed, now, &mut HashMap::new()).map(|identity| identity.user)
        };
        for algorithm in [Algorithm::RS256, Algorithm::RS512] {
            let token = encode(&Header::new(algorithm), &claims, &private).unwrap();
            assert_eq!(judge(&token, &[Algorithm::RS256, Algorithm::RS512]), Ok("ann".to_owned()));
            assert_eq!(judge(&token, &[Algorithm::HS256]), Err(AssertionError::Algorithm));
        }
        // The public key is no secret, so it must not serve as one.
        let forged = sign(Algorithm::HS256, public, &claims);
        assert_eq!(judge(&forged, &[Algorithm::HS256, Algorithm::RS256]), Err(AssertionError::Algorithm));
    }
}
