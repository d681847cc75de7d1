//! The token of a client: a JWT on every call, polls included (protocol.md 9.2).
//!
//! Pure. `appId`, else `iss`, names the client. The user of a call is in its body, so `sub` is no identity there.

use actix_web::http::header::HeaderMap;
use jsonwebtoken::{dangerous, decode_header};
use serde_json::{Map, Value};

use super::super::auth::{self, CallerIdentity};
use super::super::caller_table::CallerTable;
use crate::domain::{BotName, Timestamp};

/// A number above this counts as milliseconds. As seconds it would lie in the year 5138.
const LARGEST_SECONDS: f64 = 1e11;

/// The content of a valid token.
pub(super) struct ClientToken {
    /// The client, as a caller.
    pub(super) caller: CallerIdentity,
    /// The only user that the token is for, if it names one.
    pub(super) user_identity: Option<Box<str>>,
    /// The earlier identity of the user, which the platform folds into this one.
    pub(super) merge_with: Option<Box<str>>,
    /// The subject. It is the user of requests whose body names none.
    pub(super) subject: Option<Box<str>>,
}

impl ClientToken {
    /// Verifies the token of a request to this bot. Returns `None` for any token that is not valid at `now`.
    pub(super) fn verify(
        callers: &CallerTable,
        bot: &BotName,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Option<Self> {
        let token = std::str::from_utf8(auth::bearer_credentials(headers)?).ok()?;
        // Fields that the receiver must understand are unknown here (RFC 7515, 4.1.11).
        if decode_header(token).ok()?.crit.is_some() {
            return None;
        }
        // The claims name the key, so they are read before the signature is verified.
        let unverified: Map<String, Value> = dangerous::insecure_decode_claims(token).ok()?;
        let id = text(&unverified, &["appId", "iss", "kore_iss"])?;
        let (caller, claims) = callers.find_client(bot, id, token)?;
        if claims.get("exp").is_some_and(|expiry| is_over(expiry, now)) {
            return None;
        }
        Some(Self {
            caller: caller.clone(),
            user_identity: text(&claims, &["userIdentity"]).map(Into::into),
            merge_with: text(&claims, &["identityToMerge"]).map(Into::into),
            subject: text(&claims, &["sub", "kore_sub"]).map(Into::into),
        })
    }
}

/// Returns whether a time has passed: seconds, or milliseconds as some clients write. A value that is no time has.
fn is_over(expiry: &Value, now: Timestamp) -> bool {
    let Some(number) = expiry.as_f64() else { return true };
    let seconds = if number > LARGEST_SECONDS { number / 1000.0 } else { number };
    #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds has few digits")]
    let now = now.as_millis() as f64 / 1000.0;
    seconds <= now
}

/// Returns the first of these claims that is a text.
fn text<'a>(claims: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| claims.get(*name)?.as_str().filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{self, HeaderValue};
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    const NOW: u64 = 1_763_845_000;

    /// Returns a token if it is valid.
    fn verified(scheme: &str, claims: &Value, secret: &str) -> Option<ClientToken> {
        let key = EncodingKey::from_secret(secret.as_bytes());
        verified_token(scheme, &jsonwebtoken::encode(&Header::default(), claims, &key).unwrap())
    }

    fn verified_token(scheme: &str, token: &str) -> Option<ClientToken> {
        let config = Config::dev("http://127.0.0.1:1".parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("{scheme} {token}")).unwrap());
        let now = Timestamp::from_millis(NOW * 1000);
        let token = ClientToken::verify(&CallerTable::new(&config), &config.bots[0].name, &headers, now)?;
        assert_eq!(token.caller.name(), "sandbox/cs-sandbox");
        Some(token)
    }

    fn is_valid(claims: &Value) -> bool {
        verified("bearer", claims, "sandbox-secret").is_some()
    }

    #[test]
    fn client_is_the_app_id_else_the_issuer() {
        for claims in [
            json!({"sub": "any", "appId": "cs-sandbox"}),
            json!({"iss": "cs-sandbox", "aud": "x", "sub": "u", "isAnonymous": true, "iat": NOW}),
            json!({"kore_iss": "cs-sandbox"}),
            json!({"iss": "cs-other", "appId": "cs-sandbox"}),
        ] {
            assert!(is_valid(&claims), "{claims}");
        }
        for claims in [
            json!({}),
            json!({"appId": "CS-SANDBOX"}),
            json!({"appId": "cs-other", "iss": "cs-sandbox"}),
            json!({"sub": "cs-sandbox"}),
        ] {
            assert!(!is_valid(&claims), "{claims}");
        }
        let app = json!({"appId": "cs-sandbox", "userIdentity": "ann"});
        let token = verified("Bearer", &app, "sandbox-secret").unwrap();
        assert_eq!(token.user_identity.as_deref(), Some("ann"));
        assert!(verified("Bearer", &app, "another").is_none());
        assert!(verified("Basic", &app, "sandbox-secret").is_none());
    }

    #[test]
    fn token_with_critical_fields_is_refused() {
        let key = EncodingKey::from_secret(b"sandbox-secret");
        let mut header = Header::default();
        let sign =
            |header: &Header| jsonwebtoken::encode(header, &json!({"appId": "cs-sandbox"}), &key).unwrap();
        assert!(verified_token("bearer", &sign(&header)).is_some());
        header.crit = Some(vec!["b64".to_owned()]);
        assert!(verified_token("bearer", &sign(&header)).is_none());
    }

    #[test]
    fn expiry_counts_only_if_it_is_there() {
        let with = |exp: Value| json!({"appId": "cs-sandbox", "exp": exp});
        for exp in [json!(NOW + 1), json!((NOW + 1) * 1000), json!(1_763_845_000.5)] {
            assert!(is_valid(&with(exp.clone())), "{exp}");
        }
        for exp in [json!(NOW), json!(1), json!(NOW * 1000), json!("soon"), json!(null)] {
            assert!(!is_valid(&with(exp.clone())), "{exp}");
        }
    }
}
