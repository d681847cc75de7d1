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

fn known() -> SigningSecret {
    secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
}

fn other() -> SigningSecret {
    secret("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn check(
    secrets: &[SigningSecret],
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
        assert_eq!(check(&[known()], &time, &signatures, TIMESTAMP), Ok(()), "{signatures}");
        assert_eq!(check(&[other(), known()], &time, &signatures, TIMESTAMP), Ok(()), "{signatures}");
    }
    assert_eq!(check(&[other()], &time, SIGNATURE, TIMESTAMP), Err(VerificationError::Mismatch));
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
        assert_eq!(check(&[known()], &time, none, TIMESTAMP), Err(E::NoSignature), "{none:?}");
    }
    for forged in ["v1,", "v1,aGVsbG8=", &SIGNATURE.replace("g0h", "G0h"), &SIGNATURE.replace("OE=", "PE=")] {
        assert_eq!(check(&[known()], &time, forged, TIMESTAMP), Err(E::Mismatch), "{forged:?}");
    }
    for odd in ["", "soon", "-1", "+1614265330", "1614265330.5", " 1614265330", "99999999999999999999"] {
        assert_eq!(check(&[known()], odd, SIGNATURE, TIMESTAMP), Err(E::Timestamp), "{odd:?}");
    }
    // The signature covers id, time and body.
    let secrets = [known()];
    let now = at(TIMESTAMP);
    assert_eq!(verify(&secrets, "msg_other", &time, SIGNATURE, BODY, now), Err(E::Mismatch));
    assert_eq!(verify(&secrets, ID, "1614265331", SIGNATURE, BODY, now), Err(E::Mismatch));
    assert_eq!(verify(&secrets, ID, &time, SIGNATURE, b"{\"test\":2432232314}", now), Err(E::Mismatch));
}

#[test]
fn request_within_five_minutes_either_way_is_verified() {
    let time = TIMESTAMP.to_string();
    for now in [TIMESTAMP - 300, TIMESTAMP, TIMESTAMP + 300] {
        assert_eq!(check(&[known()], &time, SIGNATURE, now), Ok(()));
    }
    let late = check(&[known()], &time, SIGNATURE, TIMESTAMP + 301);
    assert_eq!(late, Err(VerificationError::TooOld(Duration::from_secs(301))));
    let early = check(&[known()], &time, SIGNATURE, TIMESTAMP - 301);
    assert_eq!(early, Err(VerificationError::TooNew(Duration::from_secs(301))));
    // The age of a forgery is not reported.
    assert_eq!(check(&[other()], &time, SIGNATURE, TIMESTAMP + 301), Err(VerificationError::Mismatch));
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

proptest! {
    #[test]
    fn signed_request_is_verified_and_an_altered_one_is_not(
        id in "[a-zA-Z0-9_]{1,30}",
        body in prop::collection::vec(any::<u8>(), 1..200),
        timestamp in 0_u64..4_000_000_000,
        secrets in 1_usize..4,
        flip in any::<prop::sample::Index>(),
    ) {
        let secrets = [known(), other(), secret("whsec_aGVsbG8=")][..secrets].to_vec();
        let signatures = sign(&secrets, &id, timestamp, &body);
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
        let _ = verify(&[known()], &id, &time, &signatures, BODY, at(TIMESTAMP));
    }
}
