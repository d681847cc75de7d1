//! Additional headers for a bot's deliveries. Their values may be secrets, so errors never quote them.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::config_value::ConfigValue;
use super::parse::{InvalidValue, ParseResult, as_text, invalid, list, text};

/// A name in lower case, with its value.
pub(super) type HeaderPair = (Box<str>, SecretString);

/// The headers that the bridge sets itself, beside those with the prefixes `webhook-` and `ce-`.
const OURS: [&str; 4] = ["content-type", "traceparent", "tracestate", "user-agent"];

/// The headers that belong to one connection or to the framing of one request (RFC 9110, 7.6.1 and 8.6), or that would
/// change the response.
const FRAMING: [&str; 14] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Parses the name of a header that an operator may add.
pub(super) fn name(value: &ConfigValue) -> ParseResult<Box<str>> {
    checked(&text(value)?)
}

fn checked(name: &str) -> ParseResult<Box<str>> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        // The text may be a part of a secret, so the error does not quote it.
        return invalid("should have a valid header name, such as X-Team");
    }
    let name = name.to_ascii_lowercase();
    if OURS.contains(&name.as_str()) || name.starts_with("webhook-") || name.starts_with("ce-") {
        return invalid(format!("has `{name}`, which the bridge sets itself"));
    }
    if FRAMING.contains(&name.as_str()) {
        return invalid(format!("has `{name}`, which belongs to the connection"));
    }
    Ok(name.into())
}

/// Parses a list of `Name: value`.
pub(super) fn headers(value: &ConfigValue) -> ParseResult<Vec<HeaderPair>> {
    let text = |value: &ConfigValue| as_text(value, "\"X-Team: support\"").map(str::to_owned);
    collect(list(text)(value)?.iter().map(String::as_str))
}

/// Parses one header per line. Empty lines and lines with `#` are skipped.
pub(super) fn headers_text(text: &str) -> ParseResult<Vec<HeaderPair>> {
    collect(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')))
}

fn collect<'t>(lines: impl Iterator<Item = &'t str>) -> ParseResult<Vec<HeaderPair>> {
    let mut all: Vec<HeaderPair> = Vec::new();
    let mut names = BTreeSet::new();
    for line in lines {
        let (name, value) = header(line)?;
        if !names.insert(name.clone()) {
            return invalid(format!("has `{name}` twice"));
        }
        all.push((name, value));
    }
    Ok(all)
}

fn header(line: &str) -> ParseResult<HeaderPair> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| InvalidValue("should have a colon in each: `Name: value`".to_owned()))?;
    let (name, value) = (checked(name.trim_end())?, value.trim());
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t')) {
        return invalid(format!("should have a value of visible ASCII characters for `{name}`"));
    }
    Ok((name, value.into()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let headers = headers_text(text).map_err(|InvalidValue(what)| what)?;
        Ok(headers
            .into_iter()
            .map(|(name, value)| (name.into_string(), value.expose_secret().to_owned()))
            .collect())
    }

    #[test]
    fn header_lines_are_read_as_names_and_values() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read("# ours\n\nX-Team: support \r\n  Authorization:Basic aDpo\nX-Colons: a:b:c\n"),
            Ok(vec![
                pair("x-team", "support"),
                pair("authorization", "Basic aDpo"),
                pair("x-colons", "a:b:c")
            ])
        );
    }

    #[test]
    fn invalid_header_is_refused_and_not_quoted() {
        for (text, word) in [
            ("hush", "colon"),
            (": hush", "name"),
            ("X Team: hush", "name"),
            ("hush\u{e9}: x", "name"),
            ("X-Team:", "x-team"),
            ("X-Team: hush\u{1}", "x-team"),
            ("X-Team: hüsh", "x-team"),
            ("X-Team: hush\nx-team: hush", "twice"),
            ("Host: hush", "connection"),
            ("Content-Length: 0", "connection"),
            ("Transfer-Encoding: hush", "connection"),
            ("Content-Type: hush", "itself"),
            ("Webhook-Signature: hush", "itself"),
            ("webhook-anything: hush", "itself"),
            ("ce-id: hush", "itself"),
            ("User-Agent: hush", "itself"),
        ] {
            let what = read(text).unwrap_err();
            assert!(what.contains(word), "{text}: {what}");
            assert!(!what.contains("hush") && !what.contains("hüsh"), "{what}");
        }
    }
}
