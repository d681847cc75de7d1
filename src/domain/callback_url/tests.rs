use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> UrlPattern {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn url(text: &str) -> Result<CallbackUrl, InvalidCallback> {
    text.parse()
}

#[track_caller]
fn check(allowed: &str, covered: &[&str], others: &[&str]) {
    let allowed = pattern(allowed);
    for (texts, expected) in [(covered, true), (others, false)] {
        for text in texts {
            let url = url(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(allowed.covers(&url), expected, "{text} under {allowed}");
        }
    }
}

#[test]
fn pattern_host_matches_exactly_in_any_case() {
    check(
        "https://hooks.example.com/",
        &[
            "https://hooks.example.com",
            "https://hooks.example.com/",
            "https://hooks.example.com/a/b?c=d",
            "https://hooks.example.com?c=d",
            "HTTPS://Hooks.EXAMPLE.com/a",
            "https://hooks%2Eexample.com/a",
            "https://hooks。example.com/a",
        ],
        &[
            "https://example.com/",
            "https://a.hooks.example.com/",
            "https://hooks.example.com./",
            "https://hooks.example.com.evil.example/",
            "https://hooksXexample.com/",
            "https://evilhooks.example.com/",
            "http://hooks.example.com/",
        ],
    );
    check("https://bücher.example/", &["https://xn--bcher-kva.example/", "https://BÜCHER.example/"], &[]);
    check(
        "http://127.0.0.1:9/in",
        &["http://127.1:9/in", "http://0x7f.0.0.1:9/in", "http://2130706433:9/in", "http://0177.0.0.1:9/in"],
        &["http://127.0.0.2:9/in", "http://localhost:9/in", "http://[::ffff:127.0.0.1]:9/in"],
    );
    check("http://[::1]:9/", &["http://[0:0::1]:9/"], &["http://[::2]:9/", "http://127.0.0.1:9/"]);
}

#[test]
fn pattern_star_matches_one_or_more_labels() {
    check(
        "https://*.example.com/",
        &["https://a.example.com/", "https://a.b.example.com/x", "https://A.Example.Com"],
        &[
            "https://example.com/",
            "https://aexample.com/",
            "https://example.com.evil.example/",
            "https://a.example.com.evil.example/",
            "https://a.example.org/",
            "https://a.example.com./",
            "https://.example.com/",
            "https://a..example.com/",
        ],
    );
    // A number as the last label turns the host into an address.
    check("https://*.localhost/", &["https://a.localhost/"], &["https://127.0.0.1/"]);
}

#[test]
fn pattern_port_is_exact_or_the_scheme_default() {
    check(
        "https://h.example/",
        &["https://h.example:443/", "https://h.example:0443/"],
        &["https://h.example:8443/", "https://h.example:80/"],
    );
    check("https://h.example:443/", &["https://h.example/"], &["https://h.example:444/"]);
    check("https://h.example:8443/", &["https://h.example:8443/x"], &["https://h.example/x"]);
    check("http://h.example/", &["http://h.example:80/"], &["https://h.example/", "http://h.example:443/"]);
}

#[test]
fn pattern_path_matches_by_whole_segments() {
    check(
        "https://h.example/in/a",
        &[
            "https://h.example/in/a",
            "https://h.example/in/a/",
            "https://h.example/in/a/b",
            "https://h.example/in/a?x",
        ],
        &[
            "https://h.example/",
            "https://h.example/in",
            "https://h.example/in/ab",
            "https://h.example/in/A",
            "https://h.example/in/%61",
            "https://h.example//in/a",
            "https://h.example/in//a",
            "https://h.example/in/a;b",
            "https://h.example/?/in/a",
        ],
    );
    check(
        "https://h.example/in/",
        &["https://h.example/in", "https://h.example/in/x"],
        &["https://h.example/inx"],
    );
    check("https://h.example", &["https://h.example/anything", "https://h.example"], &[]);
    check(
        "https://h.example/é",
        &["https://h.example/%C3%A9/x", "https://h.example/é"],
        &["https://h.example/e"],
    );
}

#[test]
fn url_that_parsers_read_differently_is_refused() {
    use InvalidCallback as E;
    for (text, error) in [
        ("", E::Scheme),
        ("hooks.example.com/in", E::Scheme),
        ("//hooks.example.com/in", E::Scheme),
        ("ftp://hooks.example.com/in", E::Scheme),
        ("javascript://hooks.example.com/in", E::Scheme),
        ("https:/hooks.example.com/in", E::Scheme),
        ("https:hooks.example.com/in", E::Scheme),
        ("https:///hooks.example.com/in", E::Scheme),
        ("https://", E::Scheme),
        ("https://?x", E::Scheme),
        ("https://:80/", E::Scheme),
        ("https://user@hooks.example.com/", E::Credentials),
        ("https://user:pass@hooks.example.com/", E::Credentials),
        ("https://@hooks.example.com/", E::Credentials),
        ("https://:@hooks.example.com/", E::Credentials),
        ("https://evil.example@hooks.example.com/", E::Credentials),
        ("https://hooks.example.com@evil.example/", E::Credentials),
        ("https://hooks.example.com/#x", E::Fragment),
        ("https://hooks.example.com/#", E::Fragment),
        ("https://hooks.example.com#@evil.example/", E::Fragment),
        ("https://hooks.example.com\\@evil.example/", E::Backslash),
        ("https:\\\\hooks.example.com/", E::Backslash),
        ("https://hooks.example.com/in\\..\\out", E::Backslash),
        (" https://hooks.example.com/", E::Space),
        ("https://hooks.example.com/ ", E::Space),
        ("https://hooks.example.com/a b", E::Space),
        ("ht\ntps://hooks.example.com/", E::Space),
        ("https://hooks.example\t.com/", E::Space),
        ("https://hooks.example.com/\u{0}", E::Space),
        ("https://hooks.example.com/in/\r\nX: y", E::Space),
        ("https://hooks.example.com/\u{2028}", E::Space),
        ("https://hooks.example.com/in/../out", E::DotSegment),
        ("https://hooks.example.com/in/..", E::DotSegment),
        ("https://hooks.example.com/./in", E::DotSegment),
        ("https://hooks.example.com/in/%2e%2E/out", E::DotSegment),
        ("https://hooks.example.com/in/.%2e/out", E::DotSegment),
        ("https://hooks.example.com/in/%252e%252e/out", E::DotSegment),
        ("https://hooks.example.com/in/%25252e./out", E::DotSegment),
        ("https://hooks.example.com/in/..;x=1/out", E::DotSegment),
        ("https://hooks.example.com/in/%2e%2e%3bx/out", E::DotSegment),
        ("https://hooks.example.com/in%2fout", E::EscapedSlash),
        ("https://hooks.example.com/in%2F..%2Fout", E::EscapedSlash),
        ("https://hooks.example.com/in%5Cout", E::EscapedSlash),
        ("https://hooks.example.com/in%252fout", E::EscapedSlash),
        ("https://hooks.example.com/in%25%32%66out", E::EscapedSlash),
        ("https://hooks.example.com:99999/", E::Parse(url::ParseError::InvalidPort)),
        ("https://hooks.example.com:8080:90/", E::Parse(url::ParseError::InvalidPort)),
        ("https://[::1/", E::Parse(url::ParseError::InvalidIpv6Address)),
        ("https://a%2fb.example.com/", E::Parse(url::ParseError::IdnaError)),
        ("https://evil.example%00.example.com/", E::Parse(url::ParseError::IdnaError)),
    ] {
        assert_eq!(url(text), Err(error), "{text:?}");
    }
    assert_eq!(url(&format!("https://h.example/{}", "x".repeat(CALLBACK_MAX_BYTES))), Err(E::Long));
    // The receiver defines its query. Dots within names and at signs in a path are harmless.
    for fine in [
        "https://h.example/in?next=https%3A%2F%2Fx.example%2F..%2F",
        "https://h.example/@team/v1..2/...",
        "https://h.example/100%25",
        "https://h.example/%zz",
    ] {
        assert!(url(fine).is_ok(), "{fine}");
    }
}

#[test]
fn invalid_pattern_is_refused_with_its_reason() {
    use InvalidPattern as E;
    for (text, error) in [
        ("https://a.*.example.com/", E::Wildcard),
        ("https://*example.com/", E::Wildcard),
        ("https://*/", E::Wildcard),
        ("https://a.example.com/x://*.b.example.com/", E::Wildcard),
        ("https://*.*.example.com/", E::Wildcard),
        ("https://example.com/*", E::Wildcard),
        ("*://example.com/", E::Wildcard),
        ("https://*.10.0.0.1/", E::BelowAddress),
        ("https://*.1/", E::BelowAddress),
        ("https://*.[::1]/", E::BelowAddress),
        ("https://example.com/%61", E::Escape),
        ("https://example.com/?x", E::Query),
        ("https://example.com/../x", E::Url(InvalidCallback::DotSegment)),
        ("ftp://example.com/", E::Url(InvalidCallback::Scheme)),
        ("https://u:p@example.com/", E::Url(InvalidCallback::Credentials)),
        ("https://*./", E::Url(InvalidCallback::Scheme)),
        ("https://*..example.com/", E::Url(InvalidCallback::Scheme)),
        ("https://example.com./", E::Url(InvalidCallback::Scheme)),
    ] {
        assert_eq!(text.parse::<UrlPattern>(), Err(error), "{text}");
    }
    assert_eq!(pattern("https://*.Example.com:8443/in").to_string(), "https://*.Example.com:8443/in");
}

proptest! {
    #[test]
    fn parser_with_any_text_does_not_panic(text in "(https?://)?\\PC{0,60}") {
        let _ = url(&text);
        let _ = text.parse::<UrlPattern>();
    }

    /// Returns a covered URL is, parsed by itself, at the pattern's host and below its path. A second decoding leads to no other
    /// place.
    #[test]
    fn covered_url_is_at_the_pattern_host_and_path(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "https://", "http://", "hooks.example.com", "example.com", "evil.example", ".", "..", "/", "//", "\\",
                "@", ":", "443", "8443", "?", "#", "%2f", "%2F", "%5c", "%2e", "%252e", "%", ";", "in", "x", "*", "[::1]",
                "127.1", "\t", " ", "\u{ff0f}", "\u{3002}", "é",
            ]),
            0..12,
        ),
    ) {
        let allowed = pattern("https://*.example.com/in");
        let text = format!("https://{}", parts.concat());
        for text in [text, parts.concat()] {
            let Ok(url) = url(&text) else { continue };
            if !allowed.covers(&url) {
                continue;
            }
            let parsed = Url::parse(&text).unwrap();
            prop_assert_eq!(parsed.scheme(), "https");
            prop_assert_eq!(parsed.port(), None);
            prop_assert!(parsed.host_str().unwrap().ends_with(".example.com"), "{}", text);
            prop_assert!(parsed.username().is_empty() && parsed.password().is_none());
            let mut path = parsed.path().to_owned();
            for _ in 0..4 {
                prop_assert!(path == "/in" || path.starts_with("/in/"), "{}", text);
                prop_assert!(!path.split('/').any(|segment| segment == ".."), "{}", text);
                path = percent_decode(path.as_bytes()).decode_utf8_lossy().into_owned();
            }
        }
    }
}
