//! The untyped configuration: tables of values with the place of each value.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, ValueOrigin};

/// A table. The order of its keys is alphabetical, so that error messages have a stable order.
pub(super) type ConfigTable = BTreeMap<String, ConfigItem>;

/// A value with its origin.
#[derive(Clone)]
pub(super) struct ConfigItem {
    pub(super) value: ConfigValue,
    pub(super) origin: ValueOrigin,
}

/// A value from TOML or from the environment. It may be a secret, so it is not `Debug`.
#[derive(Clone)]
pub(super) enum ConfigValue {
    Text(String),
    /// The text of an environment variable. The key's parser knows its type.
    Untyped(String),
    Integer(i128),
    Bool(bool),
    List(Vec<ConfigItem>),
    Table(ConfigTable),
    /// A time or a fraction, which no key accepts.
    Other(&'static str),
}

impl ConfigValue {
    /// Returns the kind of value, for a sentence such as "is a number".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) => "text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    /// Returns the text of a text value.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }
}

/// Parses a TOML document and records each syntax error. An error never quotes the document, which may hold secrets.
pub(super) fn document(text: &str, file: &Arc<str>, diagnostics: &mut Diagnostics) -> Option<ConfigTable> {
    let ends: Vec<usize> =
        text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
    let line = |start: usize| 1 + ends.partition_point(|end| *end < start);
    let place = |start: usize| ValueOrigin::File { file: Arc::clone(file), line: line(start) };
    let (root, faults) = DeTable::parse_recoverable(text);
    if faults.is_empty() {
        return Some(table(root.get_ref(), &place));
    }
    for fault in faults {
        let at = fault.span().map_or_else(|| file.to_string(), |span| place(span.start).to_string());
        diagnostics.error("", format!("{at}: not valid TOML: {}", fault.message()));
    }
    None
}

/// Parses one TOML value, such as a list in an environment variable.
pub(super) fn fragment(text: &str) -> Option<ConfigValue> {
    let parsed = DeValue::parse(text).ok()?;
    Some(value(parsed.get_ref(), &|_| ValueOrigin::Environment("".into())))
}

fn table(table: &DeTable<'_>, place: &dyn Fn(usize) -> ValueOrigin) -> ConfigTable {
    table
        .iter()
        .map(|(key, item)| {
            let origin = place(key.span().start);
            (key.get_ref().to_string(), ConfigItem { value: value(item.get_ref(), place), origin })
        })
        .collect()
}

fn value(from: &DeValue<'_>, place: &dyn Fn(usize) -> ValueOrigin) -> ConfigValue {
    match from {
        DeValue::String(text) => ConfigValue::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(ConfigValue::Other("a number out of range"), ConfigValue::Integer),
        DeValue::Boolean(yes) => ConfigValue::Bool(*yes),
        DeValue::Array(items) => ConfigValue::List(
            items
                .iter()
                .map(|item| ConfigItem {
                    value: value(item.get_ref(), place),
                    origin: place(item.span().start),
                })
                .collect(),
        ),
        DeValue::Table(entries) => ConfigValue::Table(table(entries, place)),
        DeValue::Float(_) => ConfigValue::Other("a fraction"),
        DeValue::Datetime(_) => ConfigValue::Other("a time"),
    }
}
