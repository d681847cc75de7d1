use proptest::prelude::*;

use super::*;

/// The example from the tests of the Standard Webhooks libraries.
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: u64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn secret(text: &str) -> SigningSecret {
    SigningSecret::parse(&text.into()).unwrap()
}

const KNOWN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
/// The seed and the public key of RFC 8032, 7.1, test 1.
const PRIVATE: &str =
    "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
const PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn known() -> SigningSecret {
    secret(KNOWN)
}

fn other() -> SigningSecret {
    secret(OTHER)
}

fn known_key() -> SignatureKey {
    key(KNOWN)
}

fn other_key() -> SignatureKey {
    key(OTHER)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// Returns the receiver's key of a secret.
fn key(text: &str) -> SignatureKey {
    SignatureKey::parse(&text.into()).unwrap()
}

fn check(
    secrets: &[SignatureKey],
    timestamp: &str,
    signatures: &str,
    now: u64,
) -> Result<(), VerificationError> {
    verify(secrets, ID, timestamp, signatures, BODY, at(now))
}

#[test]
fn signature_of_the_example_matches_the_standard() {
    assert_eq!(sign(&[known()], ID, TIMESTAMP, BODY), SIGNATURE);
    let two = sign(&[other(), known()], ID, TIMESTAMP, BODY);
    assert_eq!(two.split(' ').nth(1), Some(SIGNATURE), "in the order of the secrets");
    assert_eq!(two.split(' ').count(), 2);
    assert_eq!(sign(&[], ID, TIMESTAMP, BODY), "");
}

/// RFC 4231, test case 2.
#[test]
fn legacy_signature_of_the_rfc_example_matches() {
    let key = LegacyKey::new(&"Jefe".into());
    assert_eq!(
        key.sign(b"what do ya want for nothing?"),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn request_with_one_matching_signature_is_verified() {
    let time = TIMESTAMP.to_string();
    let stale = sign(&[other()], ID, TIMESTAMP, BODY);
    for signatures in [
        SIGNATURE.to_owned(),
        format!("{stale} {SIGNATURE}"),
        format!("{SIGNATURE} {stale}"),
        format!("v1a,aGVsbG8= v2,x {SIGNATURE}"),
        format!("v1,not!base64 v1, {SIGNATURE}"),
        format!("  {SIGNATURE}  "),
    ] {
        assert_eq!(check(&[known_key()], &time, &signatures, TIMESTAMP), Ok(()), "{signatures}");
        assert_eq!(check(&[other_key(), known_key()], &time, &signatures, TIMESTAMP), Ok(()), "{signatures}");
    }
    assert_eq!(check(&[other_key()], &time, SIGNATURE, TIMESTAMP), Err(VerificationError::Mismatch));
    assert_eq!(check(&[], &time, SIGNATURE, TIMESTAMP), Err(VerificationError::Mismatch));
}

#[test]
fn forged_request_is_refused_with_the_reason() {
    use VerificationError as E;
    let time = TIMESTAMP.to_string();
    for none in [
        "",
        " ",
        "v2,abc",
        "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "v1a,aGVsbG8=",
        "v1",
        "V1,aGVsbG8=",
    ] {
        assert_eq!(check(&[known_key()], &time, none, TIMESTAMP), Err(E::NoSignature), "{none:?}");
    }
    for forged in ["v1,", "v1,aGVsbG8=", &SIGNATURE.replace("g0h", "G0h"), &SIGNATURE.replace("OE=", "PE=")] {
        assert_eq!(check(&[known_key()], &time, forged, TIMESTAMP), Err(E::Mismatch), "{forged:?}");
    }
    for odd in ["", "soon", "-1", "+1614265330", "1614265330.5", " 1614265330", "99999999999999999999"] {
        assert_eq!(check(&[known_key()], odd, SIGNATURE, TIMESTAMP), Err(E::Timestamp), "{odd:?}");
    }
    // The signature covers id, time and body.
    let secrets = [known_key()];
    let now = at(TIMESTAMP);
    assert_eq!(verify(&secrets, "msg_other", &time, SIGNATURE, BODY, now), Err(E::Mismatch));
    assert_eq!(verify(&secrets, ID, "1614265331", SIGNATURE, BODY, now), Err(E::Mismatch));
    assert_eq!(verify(&secrets, ID, &time, SIGNATURE, b"{\"test\":2432232314}", now), Err(E::Mismatch));
}

#[test]
fn request_within_five_minutes_either_way_is_verified() {
    let time = TIMESTAMP.to_string();
    for now in [TIMESTAMP - 300, TIMESTAMP, TIMESTAMP + 300] {
        assert_eq!(check(&[known_key()], &time, SIGNATURE, now), Ok(()));
    }
    let late = check(&[known_key()], &time, SIGNATURE, TIMESTAMP + 301);
    assert_eq!(late, Err(VerificationError::TooOld(Duration::from_secs(301))));
    let early = check(&[known_key()], &time, SIGNATURE, TIMESTAMP - 301);
    assert_eq!(early, Err(VerificationError::TooNew(Duration::from_secs(301))));
    // The age of a forgery is not reported.
    assert_eq!(check(&[other_key()], &time, SIGNATURE, TIMESTAMP + 301), Err(VerificationError::Mismatch));
}

#[test]
fn secret_is_parsed_and_never_shown() {
    for good in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", " whsec_aGVsbG8=\n"] {
        assert!(SigningSecret::parse(&good.into()).is_ok(), "{good}");
    }
    for bad in [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_not base64",
        "whsec_aGVsbG8",
        "WHSEC_aGVsbG8=",
    ] {
        let error = SigningSecret::parse(&bad.into()).unwrap_err();
        assert!(bad.is_empty() || bad == "whsec_" || !error.to_string().contains(bad), "{bad}");
    }
    assert_eq!(format!("{:?}", known()), "Secret");
}

#[test]
fn asymmetric_signature_is_verified_by_the_public_key() {
    let header = sign(&[known(), secret(PRIVATE)], ID, TIMESTAMP, BODY);
    let (shared, asymmetric) = header.split_once(' ').unwrap();
    assert_eq!(shared, SIGNATURE);
    assert!(asymmetric.starts_with("v1a,") && asymmetric.len() == 4 + 88, "{asymmetric}");
    let time = TIMESTAMP.to_string();
    // The seed alone is a private key too.
    let seed = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    assert_eq!(sign(&[secret(seed)], ID, TIMESTAMP, BODY), asymmetric);
    for text in [PUBLIC, PRIVATE, seed] {
        assert_eq!(check(&[key(text)], &time, &header, TIMESTAMP), Ok(()), "{text}");
        assert_eq!(check(&[other_key(), key(text)], &time, asymmetric, TIMESTAMP), Ok(()), "{text}");
    }
    assert_eq!(check(&[known_key()], &time, asymmetric, TIMESTAMP), Err(VerificationError::NoSignature));
    assert_eq!(check(&[key(PUBLIC)], &time, shared, TIMESTAMP), Err(VerificationError::NoSignature));
    let (_, stranger) = generate_key_pair().unwrap();
    assert_eq!(check(&[key(&stranger)], &time, asymmetric, TIMESTAMP), Err(VerificationError::Mismatch));
    let forged = asymmetric.replacen("v1a,", "v1,", 1);
    assert_eq!(check(&[known_key()], &time, &forged, TIMESTAMP), Err(VerificationError::Mismatch));
}

/// RFC 8032, 7.1, test 1 signs the empty message. The content of a request is never empty, so the key pair is compared.
#[test]
fn key_pair_of_the_rfc_example_matches() {
    assert_eq!(public_key(PRIVATE), public_key(PUBLIC));
    let (private, public) = generate_key_pair().unwrap();
    assert!(private.expose_secret().starts_with("whsk_") && public.starts_with("whpk_"));
    assert_eq!(public_key(private.expose_secret()), public_key(&public));
    assert!(public_key(&public).is_some());
    let wrong = PRIVATE.replace("whsk_nWGx", "whsk_nWGy");
    for bad in [&*wrong, "whsk_", "whsk_aGVsbG8=", PUBLIC] {
        assert!(SigningSecret::parse(&bad.into()).is_err(), "{bad}");
    }
    for bad in ["whpk_", "whpk_aGVsbG8=", &*wrong, "hush"] {
        let error = SignatureKey::parse(&bad.into()).unwrap_err();
        assert!(!error.to_string().contains("hush"), "{bad}");
    }
    assert_eq!(format!("{:?}", key(PRIVATE)), "SignatureKey");
}

proptest! {
    #[test]
    fn signed_request_is_verified_and_an_altered_one_is_not(
        id in "[a-zA-Z0-9_]{1,30}",
        body in prop::collection::vec(any::<u8>(), 1..200),
        timestamp in 0_u64..4_000_000_000,
        secrets in 1_usize..5,
        flip in any::<prop::sample::Index>(),
    ) {
        let texts = &[KNOWN, PRIVATE, OTHER, "whsec_aGVsbG8="][..secrets];
        let signing: Vec<_> = texts.iter().map(|text| secret(text)).collect();
        let secrets: Vec<_> = texts.iter().map(|text| key(text)).collect();
        let signatures = sign(&signing, &id, timestamp, &body);
        let time = timestamp.to_string();
        for secret in &secrets {
            let alone = [secret.clone()];
            prop_assert_eq!(verify(&alone, &id, &time, &signatures, &body, at(timestamp)), Ok(()));
        }
        let mut other = body.clone();
        other[flip.index(body.len())] ^= 1;
        let forged = verify(&secrets, &id, &time, &signatures, &other, at(timestamp));
        prop_assert_eq!(forged, Err(VerificationError::Mismatch));
    }

    #[test]
    fn verification_of_any_headers_does_not_panic(id in ".{0,20}", time in ".{0,20}", signatures in ".{0,80}") {
        let _ = verify(&[known_key()], &id, &time, &signatures, BODY, at(TIMESTAMP));
    }
}
