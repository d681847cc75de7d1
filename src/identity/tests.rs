//! Tokens of all kinds against the verifier.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::token_verifier::verify;
use super::{InvalidKeySet, KeySet, ReadToken, ReadTokenKey, TokenRefusal, TokenRights, parties_of};
use crate::config::{CallerScopes, CallerTokenConfig, TokenKeySource, VerificationKey};
use crate::domain::{BotName, Timestamp, UserId};

const NOW: u64 = 1_800_000_000;

/// A key of an issuer.
struct TestKey {
    id: &'static str,
    private: EncodingKey,
    public: String,
}

fn key(id: &'static str) -> TestKey {
    let pair = Ed25519KeyPair::generate().unwrap();
    TestKey {
        id,
        private: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
        public: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
    }
}

impl TestKey {
    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "alg": "EdDSA", "use": "sig", "x": self.public})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

fn config() -> CallerTokenConfig {
    let public = include_str!("../../crates/sandbox/src/tests/rsa_public.pem");
    CallerTokenConfig {
        issuer: "https://idp.example".into(),
        audience: vec!["rtm-bridge".into(), "other-name".into()],
        keys: TokenKeySource::PublicKey(VerificationKey::from_pem(public).unwrap()),
        algorithms: vec![Algorithm::EdDSA, Algorithm::RS256],
        user_claim: None,
        scopes_claim: None,
        bots_claim: None,
        name_claim: None,
    }
}

/// Claims that hold, changed by `changes`. `null` takes a claim away.
fn claims(changes: Value) -> Value {
    let mut claims =
        json!({"iss": "https://idp.example", "aud": "rtm-bridge", "exp": NOW + 300, "sub": "svc"});
    let (Some(all), Value::Object(changes)) = (claims.as_object_mut(), changes) else { panic!() };
    for (name, value) in changes {
        if value.is_null() {
            all.remove(&name)
        } else {
            all.insert(name, value)
        };
    }
    claims
}

fn judge(config: &CallerTokenConfig, keys: &KeySet, token: &str) -> Result<TokenRights, TokenRefusal> {
    verify(config, keys, token.as_bytes(), Timestamp::from_millis(NOW * 1000))
}

#[test]
fn token_holds_for_its_issuer_audience_and_time() {
    let key = key("k1");
    let keys = set(&[key.jwk()]);
    let judged = |changes: Value| judge(&config(), &keys, &key.sign(&claims(changes))).map(drop);
    for good in [
        json!({}),
        json!({"aud": ["x", "other-name"]}),
        json!({"exp": NOW - 59}),
        json!({"exp": 1_800_000_000.5}),
        json!({"nbf": NOW + 60}),
    ] {
        assert_eq!(judged(good.clone()), Ok(()), "{good}");
    }
    for (bad, refusal) in [
        (json!({"iss": "https://idp.example/"}), TokenRefusal::Issuer),
        (json!({"iss": null}), TokenRefusal::Issuer),
        (json!({"aud": null}), TokenRefusal::Audience),
        (json!({"aud": ["x"]}), TokenRefusal::Audience),
        (json!({"aud": "RTM-bridge"}), TokenRefusal::Audience),
        (json!({"exp": null}), TokenRefusal::Expired),
        (json!({"exp": "soon"}), TokenRefusal::Expired),
        (json!({"exp": NOW - 60}), TokenRefusal::Expired),
        (json!({"nbf": NOW + 61}), TokenRefusal::Early),
        (json!({"nbf": "later"}), TokenRefusal::Early),
    ] {
        assert_eq!(judged(bad.clone()), Err(refusal), "{bad}");
    }
}

#[test]
fn signature_of_another_key_or_algorithm_is_refused() {
    let (ours, theirs) = (key("k1"), key("k1"));
    let keys = set(&[ours.jwk()]);
    assert_eq!(judge(&config(), &keys, &theirs.sign(&claims(json!({})))), Err(TokenRefusal::Signature));
    let other = TestKey { id: "k2", ..key("k2") };
    assert_eq!(judge(&config(), &keys, &other.sign(&claims(json!({})))), Err(TokenRefusal::UnknownKey));
    assert_eq!(
        judge(&config(), &KeySet::default(), &ours.sign(&claims(json!({})))),
        Err(TokenRefusal::NoKeys)
    );
    // A shared secret that is our public key is an old attack.
    let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(ours.public.as_bytes());
    let forged = jsonwebtoken::encode(&header, &claims(json!({})), &secret).unwrap();
    assert_eq!(judge(&config(), &keys, &forged), Err(TokenRefusal::Algorithm));
    let header =
        Header { kid: Some("k1".into()), crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::EdDSA) };
    let critical = jsonwebtoken::encode(&header, &claims(json!({})), &ours.private).unwrap();
    assert_eq!(judge(&config(), &keys, &critical).err(), Some(TokenRefusal::Critical));
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
    for text in ["", "a.b.c", "a.b", none.as_str(), "....."] {
        assert_eq!(judge(&config(), &keys, text), Err(TokenRefusal::Malformed), "{text}");
    }
    let rsa_only = CallerTokenConfig { algorithms: vec![Algorithm::RS256], ..config() };
    assert_eq!(judge(&rsa_only, &keys, &ours.sign(&claims(json!({})))), Err(TokenRefusal::Algorithm));
}

#[test]
fn key_without_id_serves_tokens_with_any() {
    let key = key("k1");
    let mut jwk = key.jwk();
    jwk.as_object_mut().unwrap().remove("kid");
    assert!(judge(&config(), &set(&[jwk]), &key.sign(&claims(json!({})))).is_ok());
}

#[test]
fn key_set_leaves_out_what_cannot_verify() {
    let good = key("k1");
    let mut encrypts = key("k2").jwk();
    *encrypts.get_mut("use").unwrap() = "enc".into();
    let odd = [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"}),
        json!({"kty": "future", "kid": "f"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "%%%"}),
        json!(7),
        encrypts,
    ];
    let all: Vec<_> = odd.iter().cloned().chain([good.jwk()]).collect();
    assert_eq!(set(&all).len(), 1);
    let none = json!({"keys": odd}).to_string();
    assert_eq!(KeySet::parse(none.as_bytes()).err(), Some(InvalidKeySet::NoKey));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
        assert_eq!(KeySet::parse(text.as_bytes()).err(), Some(InvalidKeySet::NotKeySet), "{text}");
    }
}

#[test]
fn claims_become_rights() {
    let key = key("k1");
    let keys = set(&[key.jwk()]);
    let named = CallerTokenConfig {
        user_claim: Some("sub".into()),
        scopes_claim: Some("https://example.com/scopes".into()),
        bots_claim: Some("access.bots".into()),
        name_claim: Some("azp".into()),
        ..config()
    };
    let judged = |changes: Value| judge(&named, &keys, &key.sign(&claims(changes)));
    let full = json!({
        "azp": "crm", "https://example.com/scopes": "read openid send", "access": {"bots": ["support", "b b", 7]},
    });
    assert_eq!(
        judged(full),
        Ok(TokenRights {
            user: Some(UserId::new("svc").unwrap()),
            scopes: Some(CallerScopes { send: true, read: true, admin: false }),
            bots: Some(vec![BotName::new("support").unwrap()]),
            name: Some("crm".into()),
        })
    );
    let bare = judged(json!({"azp": "crm"})).unwrap();
    assert_eq!(
        (bare.scopes, bare.bots),
        (Some(CallerScopes::default()), Some(Vec::new())),
        "nothing is allowed"
    );
    assert_eq!(judged(json!({})), Err(TokenRefusal::Claim("azp".into())));
    assert_eq!(judged(json!({"azp": "crm", "sub": null})), Err(TokenRefusal::Claim("sub".into())));
    assert_eq!(judged(json!({"azp": "crm", "sub": 7})), Err(TokenRefusal::Claim("sub".into())));
}

#[test]
fn read_token_holds_until_its_end_and_under_its_key() {
    let now = Timestamp::from_millis(NOW * 1000);
    let key = ReadTokenKey::new(ReadTokenKey::day_of(now), [7; 32]);
    let token = ReadToken {
        caller: "crm".into(),
        user: UserId::new("ann").unwrap(),
        bot: Some(BotName::new("support").unwrap()),
        expires: Timestamp::from_millis((NOW + 60) * 1000),
    };
    let signed = key.sign(&token).unwrap();
    assert_eq!(ReadTokenKey::day_of_token(signed.as_bytes()), Some(key.day()));
    assert_eq!(key.verify(signed.as_bytes(), now), Ok(token.clone()));
    assert_eq!(key.verify(signed.as_bytes(), token.expires), Err(TokenRefusal::Expired));
    let other = ReadTokenKey::new(key.day(), [8; 32]);
    assert_eq!(other.verify(signed.as_bytes(), now), Err(TokenRefusal::Signature));
    assert!(!format!("{key:?}").contains('['));
    assert!(parties_of(signed.as_bytes()).is_some());
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in any::<Vec<u8>>()) {
        let key = key("k1");
        let keys = set(&[key.jwk()]);
        prop_assert!(verify(&Arc::new(config()), &keys, &text, Timestamp::from_millis(0)).is_err());
        let _parties = parties_of(&text);
        prop_assert!(ReadTokenKey::new(0, [1; 32]).verify(&text, Timestamp::from_millis(0)).is_err());
    }

    #[test]
    fn changed_token_is_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let key = key("k1");
        let keys = set(&[key.jwk()]);
        let token = key.sign(&claims(json!({})));
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        let before = std::mem::replace(changed.get_mut(at).unwrap(), byte);
        prop_assume!(before != byte);
        prop_assert!(verify(&config(), &keys, &changed, Timestamp::from_millis(NOW * 1000)).is_err());
    }
}
