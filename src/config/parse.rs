//! From a raw value to the type of its key. Every function says what would have been right.
//!
//! All are pure. Those for secrets never quote what they were given.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};
use secrecy::SecretString;
use url::{Host, Url};

use super::value::Value;

/// Why a value was refused: a sentence that goes into a [`super::Remark`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

pub(super) type Parsed<T> = Result<T, Wrong>;

fn wrong<T>(what: impl Into<String>) -> Parsed<T> {
    Err(Wrong(what.into()))
}

/// A value as a mistake may quote it: short, on one line.
fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}

fn as_text<'v>(value: &'v Value, example: &str) -> Parsed<&'v str> {
    value
        .as_text()
        .map(str::trim)
        .ok_or_else(|| Wrong(format!("is {}, but should be text such as {example}", value.kind())))
}

/// Any text without control characters.
pub(super) fn text(value: &Value) -> Parsed<String> {
    let text = as_text(value, "\"…\"")?;
    if text.chars().any(char::is_control) {
        return wrong("has a control character");
    }
    Ok(text.to_owned())
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    match value {
        Value::Bool(yes) => Ok(*yes),
        Value::Untyped(text) if text.trim() == "true" => Ok(true),
        Value::Untyped(text) if text.trim() == "false" => Ok(false),
        Value::Untyped(text) => wrong(format!("{} is neither true nor false", quoted(text))),
        Value::Text(_) => wrong("is text, but should be true or false, without quotes"),
        other => wrong(format!("is {}, but should be true or false", other.kind())),
    }
}

/// A whole number within a range.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value) -> Parsed<T>
where
    T: TryFrom<i128> + PartialOrd + std::fmt::Display,
{
    move |value| {
        let number = match value {
            Value::Integer(number) => *number,
            Value::Untyped(text) => {
                text.trim().parse().map_err(|_| Wrong(format!("{} is not a whole number", quoted(text))))?
            }
            Value::Text(_) => return wrong("is text, but should be a number, without quotes"),
            other => return wrong(format!("is {}, but should be a whole number", other.kind())),
        };
        T::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| Wrong(format!("{number} is not within {} to {}", range.start(), range.end())))
    }
}

/// A span of time within a range, such as `250ms`, `30s`, `1m30s`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl FnOnce(&Value) -> Parsed<Duration> {
    move |value| {
        if let Value::Integer(number) = value {
            return wrong(format!("{number} has no unit; write \"{number}s\" or \"{number}ms\""));
        }
        let text = as_text(value, "\"30s\"")?;
        let span = SpanParser::new().parse_unsigned_duration(text).map_err(|_| {
            Wrong(format!("{} is no duration such as 250ms, 30s, 15m, 24h or 1m30s", quoted(text)))
        })?;
        if range.contains(&span) {
            Ok(span)
        } else {
            wrong(format!("{} is not within {} to {}", show(span), show(*range.start()), show(*range.end())))
        }
    }
}

/// A span of time as [`duration`] reads it.
pub(super) fn show(span: Duration) -> String {
    if span.is_zero() {
        return "0ms".to_owned();
    }
    SpanPrinter::new().spacing(Spacing::None).unsigned_duration_to_string(&span)
}

/// A span of time, or `never`.
pub(super) fn duration_or_never(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Value) -> Parsed<Option<Duration>> {
    move |value| match value.as_text() {
        Some(text) if text.trim() == "never" => Ok(None),
        _ => duration(range)(value).map(Some).map_err(|Wrong(what)| Wrong(format!("{what}, or \"never\""))),
    }
}

const UNITS: [(&str, usize); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A number of bytes within a range, such as `64KiB`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl FnOnce(&Value) -> Parsed<usize> {
    move |value| {
        if let Value::Integer(number) = value {
            return wrong(format!("{number} has no unit; write \"{number}B\" or a size such as \"64KiB\""));
        }
        let text = as_text(value, "\"64KiB\"")?;
        let bytes = UNITS.iter().find_map(|(unit, factor)| {
            text.strip_suffix(unit)?.trim_end().parse::<usize>().ok()?.checked_mul(*factor)
        });
        match bytes {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            Some(_) => wrong(format!(
                "{} is not within {} to {}",
                quoted(text),
                show_size(*range.start()),
                show_size(*range.end())
            )),
            None => wrong(format!("{} is no size such as 512B, 64KiB, 4MiB or 1GiB", quoted(text))),
        }
    }
}

/// A number of bytes as [`size`] reads it.
pub(super) fn show_size(bytes: usize) -> String {
    let (unit, factor) = UNITS
        .iter()
        .filter(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor)
        .max_by_key(|(_, factor)| *factor)
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// An address to listen on.
pub(super) fn address(value: &Value) -> Parsed<SocketAddr> {
    let text = as_text(value, "\"127.0.0.1:8080\"")?;
    text.parse().map_err(|_| {
        Wrong(format!(
            "{} is no IP address with a port such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
            quoted(text)
        ))
    })
}

/// One of some words.
pub(super) fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl FnOnce(&Value) -> Parsed<T> {
    move |value| {
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let text = as_text(value, &format!("\"{}\"", words.first().map_or("", |(word, _)| word)))?;
        words
            .iter()
            .find_map(|(word, meaning)| (*word == text).then_some(*meaning))
            .ok_or_else(|| Wrong(format!("{} is none of {}", quoted(text), all())))
    }
}

/// A list; each item is read by `item`. A variable's text is split at commas, unless it is a TOML list.
pub(super) fn list<T>(item: impl Fn(&Value) -> Parsed<T>) -> impl FnOnce(&Value) -> Parsed<Vec<T>> {
    move |value| match value {
        Value::List(items) => items.iter().map(|inner| item(&inner.value)).collect(),
        Value::Untyped(text) if text.trim_start().starts_with('[') => {
            match super::value::fragment(text.trim()) {
                Some(Value::List(items)) => items.iter().map(|inner| item(&inner.value)).collect(),
                _ => wrong("is no TOML list such as [\"a\", \"b\"]"),
            }
        }
        Value::Untyped(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| item(&Value::Untyped(part.to_owned())))
            .collect(),
        other => wrong(format!("is {}, but should be a list such as [\"a\", \"b\"]", other.kind())),
    }
}

/// The origin of a server: a scheme of `schemes`, a host, nothing after the port.
pub(super) fn base_url(schemes: &'static [&'static str]) -> impl FnOnce(&Value) -> Parsed<Url> {
    move |value| {
        let url = web_url(value, schemes)?;
        if url.path() != "/" {
            return wrong("has a path; give scheme, host and port only (a path goes into api_path)");
        }
        Ok(url)
    }
}

/// A URL with a scheme of `schemes` and a host, without credentials, query and fragment.
pub(super) fn web_url(value: &Value, schemes: &[&str]) -> Parsed<Url> {
    let example = format!("{}://host", schemes.first().unwrap_or(&"https"));
    let text = as_text(value, &format!("\"{example}\""))?;
    // Not quoted: someone may have put a password into it.
    let url = Url::parse(text).map_err(|e| Wrong(format!("is no URL such as {example}: {e}")))?;
    if !schemes.contains(&url.scheme()) {
        return wrong(format!(
            "has the scheme {}, but should begin with {}",
            url.scheme(),
            schemes.join("://, ") + "://"
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return wrong("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds credentials; a URL must not");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a query or a fragment; give scheme, host and port only");
    }
    Ok(url)
}

/// A receiver of webhooks: an `https` URL, or `http` for receivers nearby; a query is part of it.
pub(super) fn receiver(value: &Value) -> Parsed<Url> {
    let text = as_text(value, "\"https://hooks.example.com/in\"")?;
    let mut url = Url::parse(text).map_err(|e| Wrong(format!("is no URL such as https://host/path: {e}")))?;
    let query = url.query().map(str::to_owned);
    url.set_query(None);
    let mut url = web_url(&Value::Text(url.into()), &["https", "http"])?;
    url.set_query(query.as_deref());
    Ok(url)
}

/// Whether the host is this machine, as far as its name tells.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// What stands before `/oAuth` and `/rtm`; `/` alone is nothing.
pub(super) fn api_path(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    let path = path.trim_end_matches('/');
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    if path.is_empty() || (path.starts_with('/') && plain && !path.contains("//")) {
        Ok(path.to_owned())
    } else {
        wrong(format!("{} is no path such as /api/1.1", quoted(path)))
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(value: &Value) -> Parsed<[u8; 32]> {
    const WANTED: &str = "should be the 64 hexadecimal digits that `rtm-bridge key new` prints";
    let text = as_text(value, "the one that `rtm-bridge key new` prints")?;
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        // Not quoted: someone may have put the key itself here.
        return wrong(format!("{WANTED}, and is {} characters of something else", text.chars().count()));
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|_| Wrong(WANTED.to_owned()))?;
    }
    Ok(hash)
}

/// Text that is a secret. What surrounds it in a file is not part of it.
pub(super) fn secret(value: &Value) -> Parsed<SecretString> {
    match value.as_text() {
        Some(text) => secret_text(text),
        None => wrong("should be text"),
    }
}

/// As [`secret`], from text: one trailing line end is not part of it.
pub(super) fn secret_text(text: &str) -> Parsed<SecretString> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() { wrong("is empty") } else { Ok(text.into()) }
}

/// A `whsec_` secret of 24 to 64 bytes, as Standard Webhooks has them.
pub(super) fn webhook_secret(value: &Value) -> Parsed<SecretString> {
    let text = value.as_text().map(str::trim).unwrap_or_default();
    let bytes = text.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
    match bytes {
        Some(bytes) if (24..=64).contains(&bytes.len()) => Ok(text.into()),
        _ => wrong("each secret should be whsec_ and then 24 to 64 bytes in base64"),
    }
}

/// As a list of [`webhook_secret`], from text: one a line; empty lines and lines with `#` are skipped.
pub(super) fn webhook_secrets_text(text: &str) -> Parsed<Vec<SecretString>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets: Parsed<Vec<_>> =
        lines.map(|line| webhook_secret(&Value::Untyped(line.to_owned()))).collect();
    match secrets {
        Ok(secrets) if secrets.is_empty() => wrong("holds no secret"),
        secrets => secrets,
    }
}

/// What a callback may be: `scheme://host[:port]/prefix`, the host exact or with `*.` before it.
pub(super) fn url_pattern(value: &Value) -> Parsed<String> {
    const WANTED: &str = "is no pattern such as https://hooks.example.com/in or https://*.example.com/";
    let text = as_text(value, "\"https://*.example.com/\"")?;
    // What stands before an `@` may be a password.
    let shown = if text.contains('@') { "one of them".to_owned() } else { quoted(text) };
    let refuse = |why: &str| Wrong(format!("{shown} {WANTED}: {why}"));
    let exact = text.replacen("://*.", "://", 1);
    if exact.contains('*') {
        return Err(refuse("`*.` may only begin the host"));
    }
    if exact.contains(['\\', '%']) || exact.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(refuse("no backslashes, escapes and dot segments"));
    }
    let url = web_url(&Value::Text(exact.clone()), &["https", "http"])
        .map_err(|Wrong(why)| refuse(&format!("it {why}")))?;
    if exact != text && matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_))) {
        return Err(refuse("an address has no names below it"));
    }
    Ok(text.to_owned())
}

/// A range of addresses, `10.0.0.0/8`.
pub(super) fn cidr(value: &Value) -> Parsed<IpNet> {
    let text = as_text(value, "\"10.0.0.0/8\"")?;
    text.parse().map_err(|_| {
        Wrong(format!("{} is no range of addresses such as 10.0.0.0/8 or fd00::/8", quoted(text)))
    })
}
