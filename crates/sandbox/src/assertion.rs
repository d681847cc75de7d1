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
    /// Rules of its own.
    pub rules: AppRules,
}

/// Rules of an app beside its key.
#[derive(Debug, Clone, Default)]
pub struct AppRules {
    /// Accepted algorithms; empty: those of the sandbox.
    pub algorithms: Vec<Algorithm>,
    /// Whether an assertion needs a `jti`.
    pub enforce_jti: bool,
    /// Whether an assertion has to be encrypted (JWE). The sandbox cannot decrypt, so it refuses every grant then.
    pub enforce_jwe: bool,
    /// API key for `platform/websdk`.
    pub api_key: Option<SecretString>,
}

impl ClientApp {
    /// Returns an app without rules of its own.
    pub fn new(id: impl Into<String>, key: AppKey) -> Self {
        Self { id: id.into(), key, rules: AppRules::default() }
    }
}

/// Checks of an assertion's times.
pub(super) enum TimeCheck<'a> {
    /// The assertion has to be valid at this time, and its `jti` is used up.
    Strict { now: Timestamp, used_jtis: &'a mut HashMap<String, Timestamp> },
    /// The assertion may be expired and shown again.
    Lenient,
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
    #[error("error verifying the jwt: the app requires a \"jti\" claim")]
    JtiRequired,
    #[error("error verifying the jwt: the app requires an encrypted token")]
    EncryptionRequired,
    #[error("error verifying the jwt: the sandbox cannot decrypt a JWE")]
    Encrypted,
}

/// Verifies an assertion.
pub(super) fn verify(
    assertion: &str,
    clients: &[ClientApp],
    algorithms: &[Algorithm],
    times: TimeCheck<'_>,
) -> Result<AssertionIdentity, AssertionError> {
    let (client, claims) = signed_claims(assertion, clients, algorithms, &["iss", "kore_iss"])?;
    let user = claim(&claims, &["sub", "kore_sub"]).ok_or(AssertionError::Missing("sub"))?;
    time(&claims, "iat").ok_or(AssertionError::Missing("iat"))?;
    let expires = time(&claims, "exp").ok_or(AssertionError::Missing("exp"))?;
    let jti = claim(&claims, &["jti", "kore_jti"]);
    if client.rules.enforce_jti && jti.is_none() {
        return Err(AssertionError::JtiRequired);
    }
    if let TimeCheck::Strict { now, used_jtis } = times {
        check_times(expires, jti, now, used_jtis)?;
    }
    let anonymous = match claims.get("isAnonymous") {
        Some(Value::Bool(anonymous)) => *anonymous,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    Ok(AssertionIdentity { client: client.id.clone(), user: user.to_owned(), anonymous })
}

/// Verifies the token of a webhook call (protocol.md 9.2). Returns its `userIdentity`, if it has one. An expiry counts
/// only if there is one.
pub(super) fn verify_webhook(
    token: &str,
    clients: &[ClientApp],
    algorithms: &[Algorithm],
    now: Timestamp,
) -> Result<Option<String>, AssertionError> {
    let (_, claims) = signed_claims(token, clients, algorithms, &["appId", "iss", "kore_iss"])?;
    match time(&claims, "exp") {
        Some(expires) if expires <= now => Err(AssertionError::Expired),
        _ => Ok(claim(&claims, &["userIdentity"]).map(str::to_owned)),
    }
}

/// Verifies the signature of a token. Returns its app, which the first of the `issuers` names, and its claims.
fn signed_claims<'a>(
    token: &str,
    clients: &'a [ClientApp],
    algorithms: &[Algorithm],
    issuers: &[&str],
) -> Result<(&'a ClientApp, Map<String, Value>), AssertionError> {
    if token.bytes().filter(|byte| *byte == b'.').count() == 4 {
        return Err(AssertionError::Encrypted);
    }
    let header = decode_header(token).map_err(|_| AssertionError::Malformed)?;
    // The issuer names the key, so it is read before the verification.
    let unverified: Map<String, Value> =
        dangerous::insecure_decode_claims(token).map_err(|_| AssertionError::Malformed)?;
    let issuer = claim(&unverified, issuers).ok_or(AssertionError::Missing("iss"))?;
    let client = clients.iter().find(|client| client.id == issuer).ok_or(AssertionError::UnknownClient)?;

    if client.rules.enforce_jwe {
        return Err(AssertionError::EncryptionRequired);
    }
    let own = client.rules.algorithms.as_slice();
    let algorithms = if own.is_empty() { algorithms } else { own };
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
    decode(token, &key, &signature_only(header.alg))
        .map(|decoded| (client, decoded.claims))
        .map_err(|_| AssertionError::Signature)
}

/// Checks the expiry and the rules of `jti`, and uses the `jti` up.
fn check_times(
    expires: Timestamp,
    jti: Option<&str>,
    now: Timestamp,
    used_jtis: &mut HashMap<String, Timestamp>,
) -> Result<(), AssertionError> {
    if expires <= now {
        return Err(AssertionError::Expired);
    }
    let Some(jti) = jti else { return Ok(()) };
    if expires > clock::after(now, JTI_TTL) {
        return Err(AssertionError::TooLongForJti);
    }
    used_jtis.retain(|_, expires| *expires > now);
    match used_jtis.insert(jti.to_owned(), expires) {
        Some(_) => Err(AssertionError::Replay),
        None => Ok(()),
    }
}

/// Times come in two units, so `verify` judges them. `aud` is ignored, as on the platform.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn claim<'a>(claims: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| claims.get(*name).and_then(Value::as_str).filter(|text| !text.is_empty()))
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
        judge_by(AppRules::default(), assertion, used)
    }

    fn judge_by(
        rules: AppRules,
        assertion: &str,
        used_jtis: &mut HashMap<String, Timestamp>,
    ) -> Result<AssertionIdentity, AssertionError> {
        let key = AppKey::Secret(SecretString::from("secret-of-cs-1"));
        let clients = [ClientApp { rules, ..ClientApp::new("cs-1", key) }];
        let all = [Algorithm::HS256, Algorithm::HS512, Algorithm::RS256, Algorithm::RS512];
        let now = Timestamp::from_second(NOW).unwrap();
        verify(assertion, &clients, &all, TimeCheck::Strict { now, used_jtis })
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
    fn app_may_enforce_rules_of_its_own() {
        let claims = json!({"iss": "cs-1", "sub": "ann", "iat": NOW, "exp": NOW + 60});
        let mut with_jti = claims.clone();
        with_jti["jti"] = json!("once");
        let (plain, with_jti) = (
            sign(Algorithm::HS256, "secret-of-cs-1", &claims),
            sign(Algorithm::HS256, "secret-of-cs-1", &with_jti),
        );
        let judged = |rules, token: &str| judge_by(rules, token, &mut HashMap::new()).map(|found| found.user);
        let jti = || AppRules { enforce_jti: true, ..AppRules::default() };
        assert_eq!(judged(jti(), &plain), Err(AssertionError::JtiRequired));
        assert_eq!(judged(jti(), &with_jti), Ok("ann".to_owned()));
        let jwe = AppRules { enforce_jwe: true, ..AppRules::default() };
        assert_eq!(judged(jwe, &plain), Err(AssertionError::EncryptionRequired));
        assert_eq!(judged(AppRules::default(), "a.b.c.d.e"), Err(AssertionError::Encrypted));
        let hs512 = AppRules { algorithms: vec![Algorithm::HS512], ..AppRules::default() };
        assert_eq!(judged(hs512, &plain), Err(AssertionError::Algorithm));
    }

    #[test]
    fn webhook_token_needs_no_times() {
        let clients = [ClientApp::new("cs-1", AppKey::Secret(SecretString::from("secret-of-cs-1")))];
        let now = Timestamp::from_second(NOW).unwrap();
        let judge = |claims: Value| {
            let token = sign(Algorithm::HS256, "secret-of-cs-1", &claims);
            verify_webhook(&token, &clients, &[Algorithm::HS256], now)
        };
        assert_eq!(judge(json!({"sub": "x", "appId": "cs-1"})), Ok(None));
        assert_eq!(
            judge(json!({"iss": "cs-1", "userIdentity": "ann", "exp": NOW + 1})),
            Ok(Some("ann".to_owned()))
        );
        assert_eq!(judge(json!({"iss": "other", "appId": "cs-1"})), Ok(None), "appId comes first");
        assert_eq!(judge(json!({"iss": "cs-1", "exp": NOW})), Err(AssertionError::Expired));
        assert_eq!(judge(json!({"appId": "cs-2"})), Err(AssertionError::UnknownClient));
    }

    #[test]
    fn lenient_check_takes_an_expired_assertion() {
        let clients = [ClientApp::new("cs-1", AppKey::Secret(SecretString::from("secret-of-cs-1")))];
        let claims = json!({"iss": "cs-1", "sub": "ann", "iat": 1, "exp": 2, "jti": "a"});
        let token = sign(Algorithm::HS256, "secret-of-cs-1", &claims);
        assert!(verify(&token, &clients, &[Algorithm::HS256], TimeCheck::Lenient).is_ok());
        assert_eq!(judge(&token, &mut HashMap::new()), Err(AssertionError::Expired));
    }

    #[test]
    fn public_key_verifies_rsa_only() {
        let public = include_str!("tests/rsa_public.pem");
        let clients = [ClientApp::new("cs-1", AppKey::RsaPublicPem(public.into()))];
        let claims = json!({"iss": "cs-1", "sub": "ann", "iat": NOW, "exp": NOW + 60});
        let private = EncodingKey::from_rsa_pem(include_bytes!("tests/rsa_private.pem")).unwrap();
        let now = Timestamp::from_second(NOW).unwrap();
        let judge = |token: &str, allowed: &[Algorithm]| {
            let times = TimeCheck::Strict { now, used_jtis: &mut HashMap::new() };
            verify(token, &clients, allowed, times).map(|identity| identity.user)
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
