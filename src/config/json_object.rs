//! Parsers of JSON objects for the platform. An operator writes a table, or the text of the object.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::config_value::{ConfigTable, ConfigValue, fragment};
use super::parse::{InvalidValue, ParseResult, invalid};
use crate::domain::{CONTEXT_MAX_BYTES, JsonObject};

const WANTED: &str = "a table such as { tier = \"gold\" }, or the text of a JSON object";

/// Parses an object of at most [`CONTEXT_MAX_BYTES`] bytes that the bot gets as it is.
pub(super) fn forwarded(value: &ConfigValue) -> ParseResult<JsonObject> {
    let text = Value::Object(object(value)?).to_string();
    if text.len() > CONTEXT_MAX_BYTES {
        return invalid(format!(
            "has {} bytes of JSON, but {CONTEXT_MAX_BYTES} at most are allowed",
            text.len()
        ));
    }
    let raw = RawValue::from_string(text).map_err(|error| InvalidValue(error.to_string()))?;
    JsonObject::new(raw).map_err(|error| InvalidValue(error.to_string()))
}

/// Parses an object. Errors never quote it, because a bot's data may be secret.
pub(super) fn object(value: &ConfigValue) -> ParseResult<Map<String, Value>> {
    match value {
        ConfigValue::Table(table) => members(table),
        ConfigValue::Text(text) | ConfigValue::Untyped(text) => {
            if let Ok(object) = serde_json::from_str(text) {
                return Ok(object);
            }
            match fragment(text.trim()) {
                Some(ConfigValue::Table(table)) => members(&table),
                _ => invalid(format!("is other text, but should be {WANTED}")),
            }
        }
        other => invalid(format!("is {}, but should be {WANTED}", other.kind())),
    }
}

fn members(table: &ConfigTable) -> ParseResult<Map<String, Value>> {
    table.iter().map(|(key, item)| Ok((key.clone(), json(key, &item.value)?))).collect()
}

fn json(key: &str, value: &ConfigValue) -> ParseResult<Value> {
    match value {
        ConfigValue::Text(text) | ConfigValue::Untyped(text) => Ok(Value::from(text.as_str())),
        ConfigValue::Bool(yes) => Ok(Value::from(*yes)),
        ConfigValue::Integer(number) => i64::try_from(*number)
            .map(Value::from)
            .map_err(|_| InvalidValue(format!("has a number out of range in `{key}`"))),
        ConfigValue::List(items) => items.iter().map(|item| json(key, &item.value)).collect(),
        ConfigValue::Table(table) => members(table).map(Value::Object),
        ConfigValue::Other(kind) => {
            invalid(format!("has {kind} in `{key}`; write the whole object as JSON text to have it"))
        }
    }
}
