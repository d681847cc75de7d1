use jsonwebtoken::{DecodingKey, Validation};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{NOW, SECRET, bot, user};
use crate::config::{BotConfig, JwtAlgorithm};
use crate::domain::{UserDetails, UserId, UserProfile};
use crate::rtm::JwtSigner;

const PRIVATE: &str = include_str!("../../../tests/fixtures/rsa.pem");
const PUBLIC: &str = include_str!("../../../tests/fixtures/rsa.public.pem");

fn claims(algorithm: JwtAlgorithm, secret: &str, name: jsonwebtoken::Algorithm, key: &DecodingKey) -> Value {
    let mut bot = bot("https://bots.example");
    bot.algorithm = algorithm;
    bot.client_secret = secret.into();
    let jwt = JwtSigner::new(&bot).unwrap().mint(&user(), &UserDetails::default(), NOW).unwrap();
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

#[test]
fn jwt_carries_static_claims_and_the_details_of_the_user() {
    let mut bot = bot("https://bots.example");
    bot.claims = serde_json::from_value(json!({"tenant": "bank-7", "aud": "https://sso.example"})).unwrap();
    let details = UserDetails {
        profile: UserProfile { first_name: Some("Zoë".into()), last_name: Some("Ruiz".into()) },
        merge_with: UserId::new("visitor-7").ok(),
    };
    let (header, claims) = minted(&bot, &details);
    assert_eq!(
        (&header["fName"], &header["lName"], &header["alg"]),
        (&json!("Zoë"), &json!("Ruiz"), &json!("HS256"))
    );
    let expected = json!({
        "iat": 1_794_999_940, "exp": 1_795_000_300, "aud": "https://sso.example", "tenant": "bank-7",
        "iss": "cs-1a2b", "sub": "alice@example.com", "isAnonymous": false, "identityToMerge": "visitor-7",
    });
    assert_eq!(claims, expected);
    let (plain, _) = minted(&bot, &UserDetails::default());
    assert_eq!(plain, json!({"typ": "JWT", "alg": "HS256"}));
}

#[test]
fn jti_differs_in_each_jwt() {
    let bot = BotConfig { jti: true, ..bot("https://bots.example") };
    let jti = || minted(&bot, &UserDetails::default()).1["jti"].as_str().unwrap().to_owned();
    let all: std::collections::HashSet<_> = (0..100).map(|_| jti()).collect();
    assert_eq!(all.len(), 100);
}

/// Returns header and claims of a JWT.
fn minted(bot: &BotConfig, details: &UserDetails) -> (Value, Value) {
    use base64::Engine as _;
    let jwt = JwtSigner::new(bot).unwrap().mint(&user(), details, NOW).unwrap();
    let part = |at| {
        let part = jwt.expose_secret().split('.').nth(at).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    (part(0), part(1))
}
