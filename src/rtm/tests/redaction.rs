use proptest::prelude::*;

use crate::rtm::redaction::redact;

#[test]
fn tokens_are_masked_and_ids_kept() {
    for (text, shown) in [
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln is bad", "jwt … is bad"),
        ("token 5OcBSQtH/k6Q/S6A3bseYfOee02YjjLLTNoT1qZDBso=, sorry", "token …, sorry"),
        ("Authorization: bearer short was refused", "Authorization: bearer … was refused"),
        ("{\"accessToken\":\"b64url_-0123456789ABCDEF\"}", "{\"accessToken\":\"…\"}"),
        (
            "bot st-1f0c8a52-7d3e-5b94-9c61-2a4e6f8b0d13 is suspended",
            "bot st-1f0c8a52-7d3e-5b94-9c61-2a4e6f8b0d13 is suspended",
        ),
        (
            "see https://idproxy.kore.com/authorize for more",
            "see https://idproxy.kore.com/authorize for more",
        ),
        ("two\nlines\u{7}", "two lines"),
        ("", ""),
    ] {
        assert_eq!(&*redact(text), shown);
    }
}

proptest! {
    #[test]
    fn redacted_text_is_short_and_shows_no_token(text in "\\PC{0,500}|.{0,500}", token in "[A-Za-z]{12}[0-9][A-Za-z0-9_+/-]{16}") {
        let shown = redact(&format!("{text} {token} {text}"));
        prop_assert!(shown.chars().count() <= 300);
        prop_assert!(!shown.contains(&token));
        prop_assert!(!shown.chars().any(char::is_control));
    }
}
