//! The parsers of what callers and receivers name, for a fuzz target. The function takes any bytes, and panics if a promise is
//! broken.

#![expect(clippy::missing_panics_doc, reason = "a panic is what a fuzzer looks for")]

use super::{CallbackUrl, Timestamp, UrlPattern, parse_retry_after};

/// A callback's URL, a pattern, and the header `Retry-After`.
pub fn receiver(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = Timestamp::from_millis(1_763_845_000_000);
    let _wait = parse_retry_after(text, Some(text), now);
    let (pattern, url) = (text.parse::<UrlPattern>(), text.parse::<CallbackUrl>());
    if let (Ok(pattern), Ok(url)) = (pattern, url) {
        assert!(pattern.covers(&url), "a pattern without a wildcard covers its own URL: {text}");
    }
}
