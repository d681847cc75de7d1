//! The configuration before it has types: tables of values that know where they were given.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::mistake::{Diagnostics, ValueOrigin};

/// A table; keys in the order of the alphabet, so that reports do not depend on a hash.
pub(super) type Table = BTreeMap<String, Item>;

/// A value and where it was given.
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) origin: ValueOrigin,
}

/// A value as TOML or the environment gave it. Not `Debug`: it may be a secret.
pub(super) enum Value {
    Text(String),
    /// Of an environment variable: the key that takes it knows which type it should have.
    Untyped(String),
    Integer(i128),
    Bool(bool),
    List(Vec<Item>),
    Table(Table),
    /// Times and fractions, which no key takes.
    Other(&'static str),
}

impl Value {
    /// What it is, for a sentence such as "is a number".
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

    /// The text, where it is text of either kind.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads a TOML document. Every fault of its syntax becomes a mistake; none of them quotes the document,
/// which may hold secrets.
pub(super) fn document(text: &str, file: &Arc<str>, notes: &mut Diagnostics) -> Option<Table> {
    let place = |start: usize| ValueOrigin::File { file: Arc::clone(file), line: line(text, start) };
    let (root, faults) = DeTable::parse_recoverable(text);
    if faults.is_empty() {
        return Some(table(root.get_ref(), &place));
    }
    for fault in faults {
        let at = fault.span().map_or_else(|| file.to_string(), |span| place(span.start).to_string());
        notes.wrong("", format!("{at}: not valid TOML: {}", fault.message()));
    }
    None
}

/// Reads one TOML value, as an environment variable may hold a list.
pub(super) fn fragment(text: &str) -> Option<Value> {
    let parsed = DeValue::parse(text).ok()?;
    Some(value(parsed.get_ref(), &|_| ValueOrigin::Environment("".into())))
}

fn table(table: &DeTable<'_>, place: &dyn Fn(usize) -> ValueOrigin) -> Table {
    table
        .iter()
        .map(|(key, item)| {
            let origin = place(key.span().start);
            (key.get_ref().to_string(), Item { value: value(item.get_ref(), place), origin })
        })
        .collect()
}

fn value(from: &DeValue<'_>, place: &dyn Fn(usize) -> ValueOrigin) -> Value {
    match from {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number out of range"), Value::Integer),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Item { value: value(item.get_ref(), place), origin: place(item.span().start) })
                .collect(),
        ),
        DeValue::Table(entries) => Value::Table(table(entries, place)),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a time"),
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}
