use jsonwebtoken::{DecodingKey, Validation};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{NOW, SECRET, bot, user};
use crate::config::JwtAlgorithm;
use crate::rtm::JwtSigner;

const PRIVATE: &str = include_str!("../../../tests/fixtures/rsa.pem");
const PUBLIC: &str = include_str!("../../../tests/fixtures/rsa.public.pem");

fn claims(algorithm: JwtAlgorithm, secret: &str, name: jsonwebtoken::Algorithm, key: &DecodingKey) -> Value {
    let mut bot = bot("https://bots.example");
    bot.algorithm = algorithm;
    bot.client_secret = secret.into();
    let jwt = JwtSigner::new(&bot).unwrap().mint(&user(), NOW).unwrap();
    let mut validation = Validation::new(name);
    validation.validate_exp = false;
    validation.set_audience(&["https://idproxy.kore.com/authorize"]);
    jsonwebtoken::decode(jwt.expose_secret().as_bytes(), key, &validation).unwrap().claims
}

#[test]
fn jwt_of_each_algorithm_verifies_with_integer_seconds() {
    let shared = DecodingKey::from_secret(SECRET.as_bytes());
    let public = DecodingKey::from_rsa_pem(PUBLIC.as_bytes()).unwrap();
    let expected = json!({
        "iat": 1_794_999_940, "exp": 1_795_000_300, "aud": "https://idproxy.kore.com/authorize",
        "iss": "cs-1a2b", "sub": "alice@example.com", "isAnonymous": false,
    });
    for (algorithm, secret, name, key) in [
        (JwtAlgorithm::Hs256, SECRET, jsonwebtoken::Algorithm::HS256, &shared),
        (JwtAlgorithm::Hs512, SECRET, jsonwebtoken::Algorithm::HS512, &shared),
        (JwtAlgorithm::Rs256, PRIVATE, jsonwebtoken::Algorithm::RS256, &public),
        (JwtAlgorithm::Rs512, PRIVATE, jsonwebtoken::Algorithm::RS512, &public),
    ] {
        assert_eq!(claims(algorithm, secret, name, key), expected, "{algorithm:?}");
    }
}

#[test]
fn signer_debug_output_shows_no_key() {
    let shown = format!("{:?}", JwtSigner::new(&bot("https://bots.example")).unwrap());
    assert!(!shown.contains(SECRET) && shown.contains("cs-1a2b"), "{shown}");
}
