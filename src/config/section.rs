//! Reads a table key by key.
//!
//! An operator wants to see all errors at once, with the keys as written and the place of each value. The
//! derive of serde stops at the first error and names a key by its place in a type. So a [`Section`] takes each key with
//! the parser of its type, records an error, and continues with the default. In the end it rejects the remaining keys.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::config_value::{self, ConfigItem, ConfigTable, ConfigValue};
use super::diagnostics::{Diagnostics, ValueOrigin};
use super::file_text::FileText;
use super::load::open_file_warning;
use super::parse::{InvalidValue, ParseResult};

/// The function that reads the file of a secret.
pub(super) type FileReader<'a> = &'a dyn Fn(&Path) -> io::Result<FileText>;

/// The reader of one table.
pub(super) struct Section<'a> {
    path: String,
    /// The path without the names of tables in lists: how the header of the table is written.
    header: String,
    remaining: ConfigTable,
    known: Vec<&'static str>,
    pub(super) diagnostics: &'a mut Diagnostics,
    files: FileReader<'a>,
}

impl<'a> Section<'a> {
    /// Reads a whole document.
    pub(super) fn root<T>(
        table: ConfigTable,
        diagnostics: &'a mut Diagnostics,
        files: FileReader<'a>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        Section {
            path: String::new(),
            header: String::new(),
            remaining: table,
            known: Vec::new(),
            diagnostics,
            files,
        }
        .run(read)
    }

    fn run<T>(mut self, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let result = read(&mut self);
        for key in &self.known {
            let path = self.key(key);
            self.diagnostics.add_key(path);
        }
        for (key, item) in std::mem::take(&mut self.remaining) {
            let mut what = "there is no such key".to_owned();
            if let Some(near) = nearest(&key, &self.known) {
                // A write to a String cannot fail.
                let _ = write!(what, "; did you mean `{near}`?");
            }
            let path = self.key(&key);
            self.diagnostics.add_origin(&path, item.origin);
            self.diagnostics.error(&path, what);
        }
        result
    }

    /// Returns the path of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Returns the header of a table within this one.
    fn header(&self, key: &str) -> String {
        if self.header.is_empty() { key.to_owned() } else { format!("{}.{key}", self.header) }
    }

    /// Rejects a key of an earlier version. `what` tells the remedy.
    pub(super) fn removed(&mut self, key: &str, what: &str) {
        if let Some(item) = self.remaining.remove(key) {
            let path = self.key(key);
            self.diagnostics.add_origin(&path, item.origin);
            self.diagnostics.error(&path, what);
        }
    }

    /// Records an error between two keys of this table, in the words of the one that it is recorded at.
    pub(super) fn relation_error(&mut self, one: (&str, String), other: (&str, String)) {
        let sides = [(self.key(one.0), one.1), (self.key(other.0), other.1)];
        self.diagnostics.sided_relation_error(&sides);
    }

    /// Takes a raw value. Empty text counts as absent.
    fn take(&mut self, key: &'static str) -> Option<ConfigItem> {
        self.known.push(key);
        let item = self.remaining.remove(key)?;
        let empty = item.value.as_text().is_some_and(|text| text.trim().is_empty());
        if empty {
            return None;
        }
        let path = self.key(key);
        self.diagnostics.add_origin(&path, item.origin.clone());
        Some(item)
    }

    /// Reads an optional key.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&ConfigValue) -> ParseResult<T>,
    ) -> Option<T> {
        let item = self.take(key)?;
        let path = self.key(key);
        match parse(&item.value) {
            Ok(value) => Some(value),
            Err(InvalidValue(what)) => {
                self.diagnostics.error(&path, what);
                None
            }
        }
    }

    /// Reads a key that has a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&ConfigValue) -> ParseResult<T>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// Reads a required key. The error for a missing key describes it by `what`.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&ConfigValue) -> ParseResult<T>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        let path = self.key(key);
        if value.is_none() && !self.diagnostics.was_given(&path) {
            self.diagnostics.error(&path, format!("is missing: {what}"));
        }
        value
    }

    /// Reads a secret from `key`, or from the file that `file_key` names.
    ///
    /// A key from the environment overrides either key of the file. Both keys from one source are an error. `parse` reads
    /// the value, `from_file` the text of the file.
    pub(super) fn secret<T>(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        parse: impl FnOnce(&ConfigValue) -> ParseResult<T>,
        from_file: impl FnOnce(&str) -> ParseResult<T>,
    ) -> Option<T> {
        let (direct, by_file) = (self.take(key), self.take(file_key));
        let (path, file_path) = (self.key(key), self.key(file_key));
        let from_environment = |item: &Option<ConfigItem>| {
            item.as_ref().is_some_and(|i| matches!(i.origin, ValueOrigin::Environment(_)))
        };
        let by_file = match (&direct, by_file) {
            (Some(_), by_file @ Some(_)) => match (from_environment(&direct), from_environment(&by_file)) {
                (true, false) => None,
                (false, true) => by_file,
                _ => {
                    self.diagnostics
                        .error(&path, format!("is given, and `{file_key}` too; keep one of them"));
                    return None;
                }
            },
            (_, by_file) => by_file,
        };
        let (path, parsed) = match (by_file, direct) {
            (Some(item), _) => {
                let parsed = match item.value.as_text() {
                    Some(name) => self.read_file(&file_path, name).and_then(|text| {
                        from_file(&text).map_err(|InvalidValue(what)| InvalidValue(format!("{name}: {what}")))
                    }),
                    None => Err(InvalidValue(format!(
                        "is {}, but should be the path of a file",
                        item.value.kind()
                    ))),
                };
                (file_path, parsed)
            }
            (None, Some(item)) => (path, parse(&item.value)),
            (None, None) => return None,
        };
        parsed.map_err(|InvalidValue(what)| self.diagnostics.error(&path, what)).ok()
    }

    /// Reads the file that the value of `key` names.
    pub(super) fn file<T>(
        &mut self,
        key: &str,
        name: &str,
        parse: impl FnOnce(&str) -> ParseResult<T>,
    ) -> Option<T> {
        let path = self.key(key);
        let parsed = self.read_file(&path, name).and_then(|text| {
            parse(&text).map_err(|InvalidValue(what)| InvalidValue(format!("{name}: {what}")))
        });
        parsed.map_err(|InvalidValue(what)| self.diagnostics.error(&path, what)).ok()
    }

    /// Reads a file, and warns at the key of this path if others can change it.
    fn read_file(&mut self, path: &str, name: &str) -> ParseResult<String> {
        let file = (self.files)(Path::new(name)).map_err(|error| {
            let hint = if Path::new(name).is_relative() {
                " (the path is relative to the working directory)"
            } else {
                ""
            };
            InvalidValue(format!("cannot read {name}: {error}{hint}"))
        })?;
        if file.writable_by_others {
            self.diagnostics.warn(path, open_file_warning(name));
        }
        Ok(file.text)
    }

    /// Reads a table within this one. An absent table counts as an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let (path, header) = (self.key(key), self.header(key));
        let remaining = match self.take(key).map(|item| item.value) {
            Some(ConfigValue::Table(table)) => table,
            Some(other) => {
                self.diagnostics
                    .error(&path, format!("is {}, but should be a table: [{header}]", other.kind()));
                ConfigTable::new()
            }
            None => ConfigTable::new(),
        };
        Section {
            path,
            header,
            remaining,
            known: Vec::new(),
            diagnostics: self.diagnostics,
            files: self.files,
        }
        .run(read)
    }

    /// Reads a table within this one if it is there.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.remaining.contains_key(key) {
            self.section(key, read)
        } else {
            self.known.push(key);
            None
        }
    }

    /// Reads a list of named tables and rejects duplicate names.
    ///
    /// The path of each table has its name, or its number (from 1) if it has no name.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let (list, header) = (self.key(key), self.header(key));
        let items = match self.take(key).map(|item| item.value) {
            Some(ConfigValue::List(items)) => items,
            // The text of a variable.
            Some(ConfigValue::Untyped(text)) if text.trim_start().starts_with('[') => {
                let Some(ConfigValue::List(items)) = config_value::fragment(text.trim()) else {
                    self.diagnostics.error(&list, "is no TOML list such as [{ id = \"cs-1\" }]");
                    return Vec::new();
                };
                items
            }
            Some(ConfigValue::Table(_)) => {
                self.diagnostics.error(
                    &list,
                    format!("is one table, but there may be several: write [[{header}]] and a name"),
                );
                Vec::new()
            }
            Some(other) => {
                self.diagnostics
                    .error(&list, format!("is {}, but should be tables: [[{header}]]", other.kind()));
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut names: BTreeMap<String, ValueOrigin> = BTreeMap::new();
        let mut all = Vec::new();
        for (number, item) in (1..).zip(items) {
            let ConfigValue::Table(remaining) = item.value else {
                self.diagnostics.error(&format!("{list}[{number}]"), "should be a table");
                continue;
            };
            let name = remaining.get("name").and_then(|name| name.value.as_text()).map(str::to_owned);
            let path = match &name {
                Some(name) if !name.trim().is_empty() => format!("{list}.{name}"),
                _ => format!("{list}[{number}]"),
            };
            self.diagnostics.add_origin(&path, item.origin.clone());
            if let Some(name) = name {
                match names.entry(name) {
                    Entry::Occupied(first) => self.diagnostics.error(
                        &path,
                        format!("the name is used already, at {}; names are unique", first.get()),
                    ),
                    Entry::Vacant(first) => {
                        first.insert(item.origin);
                    }
                }
            }
            let section = Section {
                path,
                header: header.clone(),
                remaining,
                known: Vec::new(),
                diagnostics: self.diagnostics,
                files: self.files,
            };
            all.extend(section.run(&mut read));
        }
        all
    }
}

/// Returns the known key that is most similar.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|&candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
