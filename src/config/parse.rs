//! Parsers from a raw value to the type of its key. Each error names the expected value.
//!
//! All are pure. The modules `address` and `secret` hold the parsers of those.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};
use tracing_subscriber::filter::Targets;

use super::config_value::ConfigValue;

/// The reason why a value was refused: the sentence for a [`super::Diagnostic`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidValue(pub(super) String);

pub(super) type ParseResult<T> = Result<T, InvalidValue>;

/// Returns an error with this reason.
pub(super) fn invalid<T>(what: impl Into<String>) -> ParseResult<T> {
    Err(InvalidValue(what.into()))
}

/// Quotes a value in a message: short and on one line.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}

/// Returns the text of a value.
pub(super) fn as_text<'v>(value: &'v ConfigValue, example: &str) -> ParseResult<&'v str> {
    value
        .as_text()
        .map(str::trim)
        .ok_or_else(|| InvalidValue(format!("is {}, but should be text such as {example}", value.kind())))
}

/// Parses text without control characters.
pub(super) fn text(value: &ConfigValue) -> ParseResult<String> {
    let text = as_text(value, "\"…\"")?;
    if text.chars().any(char::is_control) {
        return invalid("has a control character");
    }
    Ok(text.to_owned())
}

/// Parses `true` or `false`.
pub(super) fn boolean(value: &ConfigValue) -> ParseResult<bool> {
    match value {
        ConfigValue::Bool(yes) => Ok(*yes),
        ConfigValue::Untyped(text) if text.trim() == "true" => Ok(true),
        ConfigValue::Untyped(text) if text.trim() == "false" => Ok(false),
        ConfigValue::Untyped(text) => invalid(format!("{} is neither true nor false", quoted(text))),
        ConfigValue::Text(_) => invalid("is text, but should be true or false, without quotes"),
        other => invalid(format!("is {}, but should be true or false", other.kind())),
    }
}

/// Parses a whole number within a range.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&ConfigValue) -> ParseResult<T>
where
    T: TryFrom<i128> + PartialOrd + std::fmt::Display,
{
    move |value| {
        let number = match value {
            ConfigValue::Integer(number) => *number,
            ConfigValue::Untyped(text) => text
                .trim()
                .parse()
                .map_err(|_| InvalidValue(format!("{} is not a whole number", quoted(text))))?,
            ConfigValue::Text(_) => return invalid("is text, but should be a number, without quotes"),
            other => return invalid(format!("is {}, but should be a whole number", other.kind())),
        };
        T::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            InvalidValue(format!("{number} is not within {} to {}", range.start(), range.end()))
        })
    }
}

/// Parses a duration within a range, such as `250ms`, `30s`, `1m30s`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&ConfigValue) -> ParseResult<Duration> {
    move |value| {
        if let ConfigValue::Integer(number) = value {
            return invalid(format!("{number} has no unit; write \"{number}s\" or \"{number}ms\""));
        }
        let text = as_text(value, "\"30s\"")?;
        // The parser has no days, because not every day has 24 hours. Ours has.
        let days = text.trim().strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
        let span = match days {
            Some(days) => Duration::from_secs(days.saturating_mul(24 * 60 * 60)),
            None => SpanParser::new().parse_unsigned_duration(text).map_err(|_| {
                InvalidValue(format!("{} is no duration such as 250ms, 30s, 15m, 24h or 1m30s", quoted(text)))
            })?,
        };
        if range.contains(&span) {
            Ok(span)
        } else {
            invalid(format!(
                "{} is not within {} to {}",
                show_duration(span),
                show_duration(*range.start()),
                show_duration(*range.end())
            ))
        }
    }
}

/// Formats a duration in the form that [`duration`] accepts.
pub(super) fn show_duration(span: Duration) -> String {
    if span.is_zero() {
        return "0ms".to_owned();
    }
    SpanPrinter::new().spacing(Spacing::None).unsigned_duration_to_string(&span)
}

/// Parses a duration or `never`.
pub(super) fn duration_or_never(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&ConfigValue) -> ParseResult<Option<Duration>> {
    move |value| match value.as_text() {
        Some(text) if text.trim() == "never" => Ok(None),
        _ => duration(range)(value)
            .map(Some)
            .map_err(|InvalidValue(what)| InvalidValue(format!("{what}, or \"never\""))),
    }
}

/// Parses levels by module, such as `warn,rtm_bridge=debug`.
pub(super) fn log_filter(value: &ConfigValue) -> ParseResult<Targets> {
    let text = as_text(value, "\"info\"")?;
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        // The library reads any other text as the name of a module.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '=');
        if directive.is_empty() || directive.starts_with('=') || !directive.chars().all(is_plain) {
            return invalid(format!(
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

/// Parses a number of bytes within a range, such as `64KiB`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl FnOnce(&ConfigValue) -> ParseResult<usize> {
    move |value| {
        if let ConfigValue::Integer(number) = value {
            return invalid(format!("{number} has no unit; write \"{number}B\" or a size such as \"64KiB\""));
        }
        let text = as_text(value, "\"64KiB\"")?;
        let bytes = UNITS.iter().find_map(|(unit, factor)| {
            text.strip_suffix(unit)?.trim_end().parse::<usize>().ok()?.checked_mul(*factor)
        });
        match bytes {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            Some(_) => invalid(format!(
                "{} is not within {} to {}",
                quoted(text),
                show_size(*range.start()),
                show_size(*range.end())
            )),
            None => invalid(format!("{} is no size such as 512B, 64KiB, 4MiB or 1GiB", quoted(text))),
        }
    }
}

/// Formats a number of bytes in the form that [`size`] accepts.
pub(super) fn show_size(bytes: usize) -> String {
    let (unit, factor) = UNITS
        .iter()
        .filter(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor)
        .max_by_key(|(_, factor)| *factor)
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Parses one of several words.
pub(super) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl FnOnce(&ConfigValue) -> ParseResult<T> {
    move |value| {
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let text = as_text(value, &format!("\"{}\"", words.first().map_or("", |(word, _)| word)))?;
        words
            .iter()
            .find_map(|(word, meaning)| (*word == text).then_some(*meaning))
            .ok_or_else(|| InvalidValue(format!("{} is not one of {}", quoted(text), all())))
    }
}

/// Parses a list with the parser of its items. The text of a variable is a TOML list or has commas between the items.
pub(super) fn list<T>(
    item: impl Fn(&ConfigValue) -> ParseResult<T>,
) -> impl FnOnce(&ConfigValue) -> ParseResult<Vec<T>> {
    move |value| match value {
        ConfigValue::List(items) => items.iter().map(|inner| item(&inner.value)).collect(),
        ConfigValue::Untyped(text) if text.trim_start().starts_with('[') => {
            match super::config_value::fragment(text.trim()) {
                Some(ConfigValue::List(items)) => items.iter().map(|inner| item(&inner.value)).collect(),
                _ => invalid("is no TOML list such as [\"a\", \"b\"]"),
            }
        }
        ConfigValue::Untyped(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| item(&ConfigValue::Untyped(part.to_owned())))
            .collect(),
        other => invalid(format!("is {}, but should be a list such as [\"a\", \"b\"]", other.kind())),
    }
}
