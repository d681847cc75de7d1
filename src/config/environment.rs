//! Overlays the file with environment variables: `RTM_BRIDGE__SECTION__KEY` for every key.
//!
//! * Two underscores separate parts: `RTM_BRIDGE__SERVER__DRAIN_TIMEOUT` is `server.drain_timeout`. Variables with
//!   *one* underscore after `RTM_BRIDGE` are foreign, because Kubernetes sets `RTM_BRIDGE_PORT` and others for a service
//!   of that name. The exception is `RTM_BRIDGE_CONFIG`, the path of the file.
//! * Tables of a list go by name: `RTM_BRIDGE__BOTS__SUPPORT_EU__DEADLINE` is the `deadline` of the bot `support-eu`.
//!   The name is in upper case, with `_` for other characters. A variable that matches two names is an error.
//!   `RTM_BRIDGE__BOTS__SUPPORT_EU__WEBHOOKS__CRM__URL` is the `url` of its endpoint `crm`.
//! * A name without a table in the file creates a table, named in lower case (`support_eu`). Its variable `…__NAME` sets
//!   another name. So the bridge can run without a file.
//! * An empty variable counts as absent, so `${X:-}` in a compose file leaves the file's value.
//! * A value is text until the parser of its key reads it. Lists have commas between their items or the form of TOML
//!   (`["a", "b"]`).

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::config_value::{ConfigItem, ConfigTable, ConfigValue};
use super::diagnostics::{Diagnostics, ValueOrigin};

/// The prefix of all variables that set a key.
const PREFIX: &str = "RTM_BRIDGE__";

/// The variable with the path of the file. It is no key.
const FILE: &str = "RTM_BRIDGE_CONFIG";

/// The variables that name proxies for all programs.
const PROXIES: [&str; 6] = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"];

/// The keys whose values are lists of named tables.
const LISTS: [&str; 2] = ["bots", "callers"];

/// The list of named tables within each bot, and the part of a variable's name before theirs.
const ENDPOINTS: (&str, &str) = ("webhooks", "WEBHOOKS__");

/// The bridge's variables by name, with those of the proxies.
pub(super) type VariableMap = BTreeMap<String, OsString>;

/// Returns the bridge's variables and those of the proxies, without the empty ones.
pub(super) fn own_variables<K: Into<OsString>, V: Into<OsString>>(
    all: impl IntoIterator<Item = (K, V)>,
) -> VariableMap {
    all.into_iter()
        .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
        .filter(|(name, value)| {
            let is_read = name == FILE || name.starts_with(PREFIX) || PROXIES.contains(&name.as_str());
            is_read && !value.is_empty()
        })
        .collect()
}

/// Returns the path of the file, if a variable sets it.
pub(super) fn file(environment: &VariableMap) -> Option<&OsString> {
    environment.get(FILE)
}

/// Replaces values of the file by those of the variables.
pub(super) fn overlay(root: &mut ConfigTable, environment: &VariableMap, diagnostics: &mut Diagnostics) {
    // Variables that change a name come last, because the others refer to the name in the file.
    let (names, others): (Vec<_>, Vec<_>) =
        environment.iter().partition(|(name, _)| name.ends_with("__NAME"));
    let mut indexes = LISTS.map(|list| TableIndex::of(root, list));
    for (name, value) in others.into_iter().chain(names) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if name.bytes().any(|b| b.is_ascii_lowercase()) {
            diagnostics.error("", format!("{name}: write it in upper case: {}", name.to_ascii_uppercase()));
            continue;
        }
        let Some(value) = value.to_str() else {
            diagnostics.error("", format!("{name}: its value is not UTF-8"));
            continue;
        };
        let origin = ValueOrigin::Environment(name.as_str().into());
        let item = ConfigItem { value: ConfigValue::Untyped(value.to_owned()), origin: origin.clone() };
        let list = rest.split_once("__").map(|(list, within)| (list.to_ascii_lowercase(), within));
        let placed = match list {
            Some((list, within)) => match indexes.iter_mut().find(|index| index.list == list) {
                Some(index) => list_table(root, index, within, &origin)
                    .and_then(|(table, key)| insert_into_table(table, key, item)),
                None => insert_at(root, rest, item),
            },
            None => insert_at(root, rest, item),
        };
        if let Err(refusal) = placed {
            diagnostics.error("", format!("{name}: {refusal}"));
        }
    }
}

/// The reason why a variable matches no key.
#[derive(Debug, thiserror::Error)]
enum PlacementError {
    #[error("its name has an empty part; write RTM_BRIDGE__SECTION__KEY")]
    EmptyPart,
    #[error("it lacks a key; write RTM_BRIDGE__{0}__NAME__KEY")]
    NoKey(String),
    #[error("it matches several of these names, which are equal in upper case: {0}; rename one")]
    Ambiguous(String),
    #[error("`{0}` is not a table in the file")]
    NotATable(String),
}

/// Inserts an item into a table of a list. A bot has a list of named tables itself.
fn insert_into_table(table: &mut ConfigTable, path: &str, item: ConfigItem) -> Result<(), PlacementError> {
    let (list, prefix) = ENDPOINTS;
    let Some(within) = path.strip_prefix(prefix) else { return insert_at(table, path, item) };
    let origin = item.origin.clone();
    let mut index = TableIndex::of(table, list);
    let (endpoint, key) = list_table(table, &mut index, within, &origin)?;
    insert_at(endpoint, key, item)
}

/// Inserts an item at the path `A__B__C` and creates missing tables.
fn insert_at(table: &mut ConfigTable, path: &str, item: ConfigItem) -> Result<(), PlacementError> {
    let (head, rest) = match path.split_once("__") {
        Some((head, rest)) => (head, Some(rest)),
        None => (path, None),
    };
    if head.is_empty() {
        return Err(PlacementError::EmptyPart);
    }
    let key = head.to_ascii_lowercase();
    let Some(rest) = rest else {
        table.insert(key, item);
        return Ok(());
    };
    let origin = item.origin.clone();
    let inner = table
        .entry(key.clone())
        .or_insert_with(|| ConfigItem { value: ConfigValue::Table(ConfigTable::new()), origin });
    match &mut inner.value {
        ConfigValue::Table(inner) => insert_at(inner, rest, item),
        _ => Err(PlacementError::NotATable(key)),
    }
}

/// The tables of a list by the form of their names in variables, so that a variable finds its table at once.
struct TableIndex {
    list: &'static str,
    tables: BTreeMap<String, Vec<usize>>,
    longest: usize,
}

impl TableIndex {
    fn of(root: &ConfigTable, list: &'static str) -> Self {
        let mut index = Self { list, tables: BTreeMap::new(), longest: 0 };
        if let Some(ConfigValue::List(items)) = root.get(list).map(|item| &item.value) {
            for (at, item) in items.iter().enumerate() {
                if let Some(name) = name_of(item) {
                    index.add(name, at);
                }
            }
        }
        index
    }

    fn add(&mut self, name: &str, at: usize) {
        let name = variable_form(name);
        self.longest = self.longest.max(name.len());
        self.tables.entry(name).or_default().push(at);
    }

    /// Returns the tables that `NAME__KEY` may refer to, each with the length of what precedes the key.
    fn matching(&self, path: &str) -> Vec<(usize, usize)> {
        (1..=self.longest.min(path.len()))
            .filter(|end| path.get(*end..).is_some_and(|rest| rest.starts_with("__") && rest.len() > 2))
            .filter_map(|end| Some((self.tables.get(path.get(..end)?)?, end + 2)))
            .flat_map(|(tables, skip)| tables.iter().map(move |table| (*table, skip)))
            .collect()
    }
}

/// Returns the table that `NAME__KEY` refers to, and the rest of the path.
fn list_table<'t, 'p>(
    root: &'t mut ConfigTable,
    index: &mut TableIndex,
    path: &'p str,
    origin: &ValueOrigin,
) -> Result<(&'t mut ConfigTable, &'p str), PlacementError> {
    let list = index.list;
    let items = root
        .entry(list.to_owned())
        .or_insert_with(|| ConfigItem { value: ConfigValue::List(Vec::new()), origin: origin.clone() });
    let ConfigValue::List(items) = &mut items.value else {
        return Err(PlacementError::NotATable(list.to_owned()));
    };

    let (at, key) = match index.matching(path).as_slice() {
        [(at, skip)] => (*at, path.get(*skip..).unwrap_or_default()),
        [] => {
            let Some((name, key)) =
                path.split_once("__").filter(|(name, key)| !name.is_empty() && !key.is_empty())
            else {
                return Err(PlacementError::NoKey(list.to_ascii_uppercase()));
            };
            let name = name.to_ascii_lowercase();
            index.add(&name, items.len());
            let name = ConfigItem { value: ConfigValue::Text(name), origin: origin.clone() };
            let table = ConfigTable::from([("name".to_owned(), name)]);
            items.push(ConfigItem { value: ConfigValue::Table(table), origin: origin.clone() });
            (items.len() - 1, key)
        }
        several => {
            let names: Vec<&str> = several.iter().filter_map(|(at, _)| name_of(items.get(*at)?)).collect();
            return Err(PlacementError::Ambiguous(names.join(", ")));
        }
    };
    match items.get_mut(at).map(|item| &mut item.value) {
        Some(ConfigValue::Table(table)) => Ok((table, key)),
        _ => Err(PlacementError::NotATable(list.to_owned())),
    }
}

fn name_of(item: &ConfigItem) -> Option<&str> {
    match &item.value {
        ConfigValue::Table(table) => table.get("name")?.value.as_text(),
        _ => None,
    }
}

/// Returns a name in the form that variables use.
fn variable_form(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}
