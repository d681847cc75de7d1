//! Headers that an operator has sent along with a bot's deliveries. Their values may be secrets and are never quoted.

use secrecy::SecretString;

use super::parse::{InvalidValue, Parsed, as_text, list, text, wrong};
use super::value::Value;

/// A name in lower case, and a value.
pub(super) type Header = (Box<str>, SecretString);

/// What the bridge says itself, beside all that begins with `webhook-` or `ce-`.
const OURS: [&str; 4] = ["content-type", "traceparent", "tracestate", "user-agent"];

/// What belongs to one connection or to the framing of one request (RFC 9110, 7.6.1 and 8.6), or would change what
/// comes back.
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

/// The name of a header that the bridge may be told to send.
pub(super) fn name(value: &Value) -> Parsed<Box<str>> {
    checked(&text(value)?)
}

fn checked(name: &str) -> Parsed<Box<str>> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        // Not quoted: it may be half of a secret.
        return wrong("has no header's name, such as X-Team, where one should be");
    }
    let name = name.to_ascii_lowercase();
    if OURS.contains(&name.as_str()) || name.starts_with("webhook-") || name.starts_with("ce-") {
        return wrong(format!("has `{name}`, which the bridge says itself"));
    }
    if FRAMING.contains(&name.as_str()) {
        return wrong(format!("has `{name}`, which belongs to the connection"));
    }
    Ok(name.into())
}

/// A list of `Name: value`.
pub(super) fn headers(value: &Value) -> Parsed<Vec<Header>> {
    let text = |value: &Value| as_text(value, "\"X-Team: support\"").map(str::to_owned);
    collect(list(text)(value)?.iter().map(String::as_str))
}

/// As [`headers`], from text: one a line; empty lines and lines with `#` are skipped.
pub(super) fn headers_text(text: &str) -> Parsed<Vec<Header>> {
    collect(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')))
}

fn collect<'t>(lines: impl Iterator<Item = &'t str>) -> Parsed<Vec<Header>> {
    let mut all: Vec<Header> = Vec::new();
    for line in lines {
        let (name, value) = header(line)?;
        if all.iter().any(|(known, _)| *known == name) {
            return wrong(format!("has `{name}` twice"));
        }
        all.push((name, value));
    }
    Ok(all)
}

fn header(line: &str) -> Parsed<Header> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| InvalidValue("should have a colon in each: `Name: value`".to_owned()))?;
    let (name, value) = (checked(name.trim_end())?, value.trim());
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t')) {
        return wrong(format!("should have a value of visible ASCII characters for `{name}`"));
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
    fn a_header_has_a_name_and_a_value() {
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
    fn what_would_break_a_delivery_is_refused_and_no_value_quoted() {
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
