//! From a raw value to the type of its key. Every function says what would have been right.
//!
//! All are pure. What is an address or a secret is read by `address` and `secret`.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};
use tracing_subscriber::filter::Targets;

use super::value::Value;

/// Why a value was refused: a sentence that goes into a [`super::Diagnostic`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidValue(pub(super) String);

pub(super) type Parsed<T> = Result<T, InvalidValue>;

/// A refusal for this reason.
pub(super) fn wrong<T>(what: impl Into<String>) -> Parsed<T> {
    Err(InvalidValue(what.into()))
}

/// A value as a mistake may quote it: short, on one line.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}

/// The text of a value.
pub(super) fn as_text<'v>(value: &'v Value, example: &str) -> Parsed<&'v str> {
    value
        .as_text()
        .map(str::trim)
        .ok_or_else(|| InvalidValue(format!("is {}, but should be text such as {example}", value.kind())))
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
            Value::Untyped(text) => text
                .trim()
                .parse()
                .map_err(|_| InvalidValue(format!("{} is not a whole number", quoted(text))))?,
            Value::Text(_) => return wrong("is text, but should be a number, without quotes"),
            other => return wrong(format!("is {}, but should be a whole number", other.kind())),
        };
        T::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            InvalidValue(format!("{number} is not within {} to {}", range.start(), range.end()))
        })
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
            InvalidValue(format!("{} is no duration such as 250ms, 30s, 15m, 24h or 1m30s", quoted(text)))
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
        _ => duration(range)(value)
            .map(Some)
            .map_err(|InvalidValue(what)| InvalidValue(format!("{what}, or \"never\""))),
    }
}

/// Levels by module, such as `warn,rtm_bridge=debug`.
pub(super) fn log_filter(value: &Value) -> Parsed<Targets> {
    let text = as_text(value, "\"info\"")?;
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        // The library takes any other text here for the name of a module.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '=');
        if directive.is_empty() || directive.starts_with('=') || !directive.chars().all(is_plain) {
            return wrong(format!(
                "{} is neither a level nor a module with one, such as info or rtm_bridge=debug; spans and fields are \
                 no filters",
                quoted(directive)
            ));
        }
    }
    directives
        .join(",")
        .parse()
        .map_err(|error| InvalidValue(format!("is no filter such as info or rtm_bridge=debug,info: {error}")))
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

/// One of some words.
pub(super) fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl FnOnce(&Value) -> Parsed<T> {
    move |value| {
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let text = as_text(value, &format!("\"{}\"", words.first().map_or("", |(word, _)| word)))?;
        words
            .iter()
            .find_map(|(word, meaning)| (*word == text).then_some(*meaning))
            .ok_or_else(|| InvalidValue(format!("{} is none of {}", quoted(text), all())))
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
