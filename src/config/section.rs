//! Takes a table apart, key by key.
//!
//! serde's derive would stop at the first mistake, call a key by its place in a type and a bot by its number,
//! and could not tell where a value was given. An operator wants to read all mistakes at once, by the keys as
//! they are written. So a [`Section`] takes each key with the function that reads its type, notes what is
//! wrong, goes on with the default, and in the end refuses the keys that nobody took.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::mistake::{Diagnostics, ValueOrigin};
use super::parse::{InvalidValue, Parsed};
use super::value::{Item, Table, Value};

/// How a file that a secret lies in is read.
pub(super) type Files<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// A table that is being taken apart.
pub(super) struct Section<'a> {
    path: String,
    left: Table,
    known: Vec<&'static str>,
    pub(super) notes: &'a mut Diagnostics,
    files: Files<'a>,
}

impl<'a> Section<'a> {
    /// Takes the whole document apart.
    pub(super) fn root<T>(
        table: Table,
        notes: &'a mut Diagnostics,
        files: Files<'a>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        Section { path: String::new(), left: table, known: Vec::new(), notes, files }.run(read)
    }

    fn run<T>(mut self, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let result = read(&mut self);
        for key in &self.known {
            let path = self.key(key);
            self.notes.known(path);
        }
        for (key, item) in std::mem::take(&mut self.left) {
            let mut what = "there is no such key".to_owned();
            if let Some(near) = nearest(&key, &self.known) {
                // Writing to a String cannot fail.
                let _ = write!(what, "; did you mean `{near}`?");
            }
            let path = self.key(&key);
            self.notes.given(&path, item.origin);
            self.notes.wrong(&path, what);
        }
        result
    }

    /// The path of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Takes a raw value. Empty text is as none.
    fn take(&mut self, key: &'static str) -> Option<Item> {
        self.known.push(key);
        let item = self.left.remove(key)?;
        let empty = item.value.as_text().is_some_and(|text| text.trim().is_empty());
        if empty {
            return None;
        }
        let path = self.key(key);
        self.notes.given(&path, item.origin.clone());
        Some(item)
    }

    /// A key that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<T> {
        let item = self.take(key)?;
        let path = self.key(key);
        match parse(&item.value) {
            Ok(value) => Some(value),
            Err(InvalidValue(what)) => {
                self.notes.wrong(&path, what);
                None
            }
        }
    }

    /// A key with a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// A key that must be there; `what` says what it is.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        let path = self.key(key);
        if value.is_none() && !self.notes.was_given(&path) {
            self.notes.wrong(&path, format!("is missing: {what}"));
        }
        value
    }

    /// A secret, given as `key` or as the path of a file that holds it, `file_key`.
    ///
    /// The environment goes before the file here too, whichever of the two it gives. Both in one place are a
    /// mistake. `parse` reads the value, `from_file` what the file holds.
    pub(super) fn secret<T>(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        parse: impl FnOnce(&Value) -> Parsed<T>,
        from_file: impl FnOnce(&str) -> Parsed<T>,
    ) -> Option<T> {
        let (direct, by_file) = (self.take(key), self.take(file_key));
        let (path, file_path) = (self.key(key), self.key(file_key));
        let from_environment = |item: &Option<Item>| {
            item.as_ref().is_some_and(|i| matches!(i.origin, ValueOrigin::Environment(_)))
        };
        let by_file = match (&direct, by_file) {
            (Some(_), by_file @ Some(_)) => match (from_environment(&direct), from_environment(&by_file)) {
                (true, false) => None,
                (false, true) => by_file,
                _ => {
                    self.notes.wrong(&path, format!("is given, and `{file_key}` too; keep one of them"));
                    return None;
                }
            },
            (_, by_file) => by_file,
        };
        let (path, parsed) = match (by_file, direct) {
            (Some(item), _) => {
                let parsed = match item.value.as_text() {
                    Some(name) => self.read_file(name).and_then(|text| {
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
        parsed.map_err(|InvalidValue(what)| self.notes.wrong(&path, what)).ok()
    }

    /// What the file holds that a key names, which was taken before.
    pub(super) fn file<T>(
        &mut self,
        key: &str,
        name: &str,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Option<T> {
        let parsed = self.read_file(name).and_then(|text| {
            parse(&text).map_err(|InvalidValue(what)| InvalidValue(format!("{name}: {what}")))
        });
        let path = self.key(key);
        parsed.map_err(|InvalidValue(what)| self.notes.wrong(&path, what)).ok()
    }

    fn read_file(&self, name: &str) -> Parsed<String> {
        (self.files)(Path::new(name)).map_err(|error| {
            let hint = if Path::new(name).is_relative() {
                " (the path is relative to the working directory)"
            } else {
                ""
            };
            InvalidValue(format!("cannot read {name}: {error}{hint}"))
        })
    }

    /// A table within this one; an absent one is as an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = self.key(key);
        let left = match self.take(key).map(|item| item.value) {
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.notes.wrong(&path, format!("is {}, but should be a table: [{path}]", other.kind()));
                Table::new()
            }
            None => Table::new(),
        };
        Section { path, left, known: Vec::new(), notes: self.notes, files: self.files }.run(read)
    }

    /// A table within this one, read only where it is there.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.left.contains_key(key) {
            self.section(key, read)
        } else {
            self.known.push(key);
            None
        }
    }

    /// A list of named tables. In paths each goes by its name, or by its number (from 1) where it has none.
    /// A name that is used twice is a mistake.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let items = match self.take(key).map(|item| item.value) {
            Some(Value::List(items)) => items,
            Some(Value::Table(_)) => {
                self.notes.wrong(
                    key,
                    format!("is one table, but there may be several: write [[{key}]] and a name"),
                );
                Vec::new()
            }
            Some(other) => {
                self.notes.wrong(key, format!("is {}, but should be tables: [[{key}]]", other.kind()));
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut names: Vec<(String, ValueOrigin)> = Vec::new();
        let mut all = Vec::new();
        for (number, item) in (1..).zip(items) {
            let Value::Table(left) = item.value else {
                self.notes.wrong(&format!("{key}[{number}]"), "should be a table");
                continue;
            };
            let name = left.get("name").and_then(|name| name.value.as_text()).map(str::to_owned);
            let path = match &name {
                Some(name) if !name.trim().is_empty() => format!("{key}.{name}"),
                _ => format!("{key}[{number}]"),
            };
            self.notes.given(&path, item.origin.clone());
            if let Some(name) = name {
                if let Some((_, first)) = names.iter().find(|(other, _)| *other == name) {
                    self.notes
                        .wrong(&path, format!("the name is used already, at {first}; names are unique"));
                }
                names.push((name, item.origin));
            }
            let section = Section { path, left, known: Vec::new(), notes: self.notes, files: self.files };
            all.extend(section.run(&mut read));
        }
        all
    }
}

/// The known key that was probably meant.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|&candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
