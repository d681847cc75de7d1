//! The environment over the file: `RTM_BRIDGE__SECTION__KEY` for every key.
//!
//! * Two underscores separate, so that `RTM_BRIDGE__SERVER__DRAIN_TIMEOUT` is `server.drain_timeout`. What
//!   begins with `RTM_BRIDGE_` and *one* underscore is none of ours (Kubernetes sets `RTM_BRIDGE_PORT` and
//!   more for a service of that name), except `RTM_BRIDGE_CONFIG`, the path of the file.
//! * A table of a list is named: `RTM_BRIDGE__BOTS__SUPPORT_EU__DEADLINE` is the `deadline` of the bot
//!   `support-eu` (upper case, other characters `_`). Where two names of the file read the same, the variable
//!   is refused. Where no table of the file has the name, one is made, named in lower case
//!   (`support_eu`); its `…__NAME` can say another. So a bridge can be configured without a file.
//! * An empty variable is as none: `${X:-}` of a compose file takes nothing away from the file.
//! * A value is text until the key that takes it reads it by its own type; lists are separated by commas or
//!   written as in TOML (`["a", "b"]`).

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::mistake::{Diagnostics, ValueOrigin};
use super::value::{Item, Table, Value};

/// What begins the name of every variable that is a key.
const PREFIX: &str = "RTM_BRIDGE__";

/// The path of the file; not a key.
const FILE: &str = "RTM_BRIDGE_CONFIG";

/// The keys whose values are lists of named tables.
const LISTS: [&str; 2] = ["bots", "callers"];

/// Our variables, by name.
pub(super) type Environment = BTreeMap<String, OsString>;

/// Picks what is ours.
pub(super) fn ours<K: Into<OsString>, V: Into<OsString>>(
    all: impl IntoIterator<Item = (K, V)>,
) -> Environment {
    all.into_iter()
        .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
        .filter(|(name, value)| (name == FILE || name.starts_with(PREFIX)) && !value.is_empty())
        .collect()
}

/// The file that the environment names.
pub(super) fn file(environment: &Environment) -> Option<&OsString> {
    environment.get(FILE)
}

/// Lays the variables over what the file said.
pub(super) fn overlay(root: &mut Table, environment: Environment, notes: &mut Diagnostics) {
    // A variable that says another name comes last: until then the table answers to the name in the file.
    let (names, others): (Vec<_>, Vec<_>) =
        environment.into_iter().partition(|(name, _)| name.ends_with("__NAME"));
    for (name, value) in others.into_iter().chain(names) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if name.bytes().any(|b| b.is_ascii_lowercase()) {
            notes.wrong("", format!("{name}: write it in upper case: {}", name.to_ascii_uppercase()));
            continue;
        }
        let Ok(value) = value.into_string() else {
            notes.wrong("", format!("{name}: its value is not UTF-8"));
            continue;
        };
        let origin = ValueOrigin::Environment(name.as_str().into());
        let item = Item { value: Value::Untyped(value), origin: origin.clone() };
        let list = rest.split_once("__").map(|(list, within)| (list.to_ascii_lowercase(), within));
        let placed = match list {
            Some((list, within)) if LISTS.contains(&list.as_str()) => {
                element(root, &list, within, &origin).and_then(|(table, key)| place(table, key, item))
            }
            _ => place(root, rest, item),
        };
        if let Err(refusal) = placed {
            notes.wrong("", format!("{name}: {refusal}"));
        }
    }
}

/// Why a variable could not be placed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("its name has an empty part; it reads RTM_BRIDGE__SECTION__KEY")]
    EmptyPart,
    #[error("it lacks a key; it reads RTM_BRIDGE__{0}__NAME__KEY")]
    NoKey(String),
    #[error(
        "it is meant for more than one of these, whose names read the same in upper case: {0}; rename one"
    )]
    Ambiguous(String),
    #[error("`{0}` is not a table in the file")]
    NotATable(String),
}

/// Puts an item at the place that `A__B__C` names, and makes the tables on the way.
fn place(table: &mut Table, path: &str, item: Item) -> Result<(), Refusal> {
    let (head, rest) = match path.split_once("__") {
        Some((head, rest)) => (head, Some(rest)),
        None => (path, None),
    };
    if head.is_empty() {
        return Err(Refusal::EmptyPart);
    }
    let key = head.to_ascii_lowercase();
    let Some(rest) = rest else {
        table.insert(key, item);
        return Ok(());
    };
    let origin = item.origin.clone();
    let inner =
        table.entry(key.clone()).or_insert_with(|| Item { value: Value::Table(Table::new()), origin });
    match &mut inner.value {
        Value::Table(inner) => place(inner, rest, item),
        _ => Err(Refusal::NotATable(key)),
    }
}

/// The table of a list that `NAME__KEY` means, and what is left of the path.
fn element<'t, 'p>(
    root: &'t mut Table,
    list: &str,
    path: &'p str,
    origin: &ValueOrigin,
) -> Result<(&'t mut Table, &'p str), Refusal> {
    let items = root
        .entry(list.to_owned())
        .or_insert_with(|| Item { value: Value::List(Vec::new()), origin: origin.clone() });
    let Value::List(items) = &mut items.value else { return Err(Refusal::NotATable(list.to_owned())) };

    let matches: Vec<(usize, String, usize)> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| {
            let name = name_of(item)?;
            let shouted = shout(name);
            let key = path.strip_prefix(shouted.as_str())?.strip_prefix("__")?;
            (!key.is_empty()).then(|| (index, name.to_owned(), path.len() - key.len()))
        })
        .collect();
    let (index, key) = match matches.as_slice() {
        [(index, _, skip)] => (*index, path.get(*skip..).unwrap_or_default()),
        [] => {
            let Some((name, key)) =
                path.split_once("__").filter(|(name, key)| !name.is_empty() && !key.is_empty())
            else {
                return Err(Refusal::NoKey(list.to_ascii_uppercase()));
            };
            let name = Item { value: Value::Text(name.to_ascii_lowercase()), origin: origin.clone() };
            let table = Table::from([("name".to_owned(), name)]);
            items.push(Item { value: Value::Table(table), origin: origin.clone() });
            (items.len() - 1, key)
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(_, name, _)| name.as_str()).collect();
            return Err(Refusal::Ambiguous(names.join(", ")));
        }
    };
    match items.get_mut(index).map(|item| &mut item.value) {
        Some(Value::Table(table)) => Ok((table, key)),
        _ => Err(Refusal::NotATable(list.to_owned())),
    }
}

fn name_of(item: &Item) -> Option<&str> {
    match &item.value {
        Value::Table(table) => table.get("name")?.value.as_text(),
        _ => None,
    }
}

/// A name as it stands in the name of a variable.
fn shout(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}
