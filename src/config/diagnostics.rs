//! Errors and warnings about a configuration, each with its key and its origin.
//!
//! No message holds the value of a secret. The modules `parse` and `section` ensure that.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueOrigin {
    /// The file, with the line (from 1).
    File {
        /// The file's name, as given.
        file: Arc<str>,
        /// The line of the key.
        line: usize,
    },
    /// The environment variable of this name.
    Environment(Arc<str>),
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The path of the key, such as `bots.support.ping_interval`. Empty for the whole configuration.
    pub key: String,
    /// The origin of the key, or of the table that lacks it, if either was given.
    pub origin: Option<ValueOrigin>,
    /// The problem and the expected value.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", None) => {}
            ("", Some(origin)) => write!(f, "{origin}: ")?,
            (key, None) => write!(f, "{key}: ")?,
            (key, Some(origin)) => write!(f, "{key} ({origin}): ")?,
        }
        f.write_str(&self.message)
    }
}

/// All errors of a configuration, at least one.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigErrors(Vec<Diagnostic>);

impl ConfigErrors {
    pub(super) fn one(what: String) -> Self {
        Self(vec![Diagnostic { key: String::new(), origin: None, message: what }])
    }

    /// Returns the errors in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has an error:")?,
            n => write!(f, "the configuration has {n} errors:")?,
        }
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

/// A setting that is valid but probably unintended. The bridge logs it at start.
pub type ConfigWarning = Diagnostic;

/// The collector of errors, warnings and origins while a configuration is read.
#[derive(Default)]
pub(super) struct Diagnostics {
    origins: std::collections::BTreeMap<String, ValueOrigin>,
    errors: Vec<Diagnostic>,
    /// The keys of these errors.
    faulty: BTreeSet<String>,
    warnings: Vec<ConfigWarning>,
    known: BTreeSet<String>,
}

impl Diagnostics {
    /// Records that a key exists, with or without a value.
    pub(super) fn add_key(&mut self, key: String) {
        self.known.insert(key);
    }

    /// Returns all keys that were read, without the tables.
    pub(super) fn into_keys(self) -> BTreeSet<String> {
        let tables: BTreeSet<String> = self
            .known
            .iter()
            .filter_map(|key| key.rsplit_once('.'))
            .map(|(table, _)| table.to_owned())
            .collect();
        // The key of a list comes before the names of its tables.
        let is_table =
            |key: &String| tables.iter().any(|table| table == key || table.starts_with(&format!("{key}.")));
        self.known.iter().filter(|key| !is_table(key)).cloned().collect()
    }

    /// Records the origin of a key for later messages.
    pub(super) fn add_origin(&mut self, key: &str, origin: ValueOrigin) {
        self.origins.insert(key.to_owned(), origin);
    }

    /// Returns whether the key has a value.
    pub(super) fn was_given(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Returns whether the file holds the key's value.
    pub(super) fn is_in_file(&self, key: &str) -> bool {
        matches!(self.origins.get(key), Some(ValueOrigin::File { .. }))
    }

    /// Records an error.
    pub(super) fn error(&mut self, key: &str, what: impl Into<String>) {
        let error = self.diagnostic(key, what.into());
        self.faulty.insert(key.to_owned());
        self.errors.push(error);
    }

    /// Records an error between several keys, at the first given one.
    ///
    /// If one of the keys has an error already, the new one could be its consequence and is dropped.
    pub(super) fn relation_error(&mut self, keys: &[String], what: impl Into<String>) {
        let what = what.into();
        let sides: Vec<_> = keys.iter().map(|key| (key.clone(), what.clone())).collect();
        self.sided_relation_error(&sides);
    }

    /// Records an error between several keys as [`Diagnostics::relation_error`] does, in the words of the key that it is
    /// recorded at. Other keys may have their defaults, of which the operator knows nothing.
    pub(super) fn sided_relation_error(&mut self, sides: &[(String, String)]) {
        if sides.iter().any(|(key, _)| self.faulty.contains(key)) {
            return;
        }
        let at = sides.iter().find(|(key, _)| self.was_given(key)).or(sides.first());
        if let Some((key, what)) = at {
            self.error(key, what.as_str());
        }
    }

    /// Records an error about a table, unless an error within it was recorded.
    pub(super) fn table_error(&mut self, table: &str, what: &str) {
        let within = |key: &str| {
            key.strip_prefix(table).is_some_and(|rest| rest.starts_with(['.', '[']) || rest.is_empty())
        };
        if !self.faulty.iter().any(|key| within(key)) {
            self.error(table, what);
        }
    }

    /// Records a warning.
    pub(super) fn warn(&mut self, key: &str, what: impl Into<String>) {
        let warning = self.diagnostic(key, what.into());
        self.warnings.push(warning);
    }

    /// Returns the warnings, or all errors if there is one.
    pub(super) fn finish(self) -> Result<Vec<ConfigWarning>, ConfigErrors> {
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(ConfigErrors(self.errors)) }
    }

    /// Returns the errors. The caller knows that there is at least one.
    pub(super) fn into_errors(self) -> ConfigErrors {
        ConfigErrors(self.errors)
    }

    /// Creates a message about a key. Its origin is that of the key or of the nearest table around it.
    fn diagnostic(&self, key: &str, what: String) -> Diagnostic {
        let around = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(table, _)| table));
        let origin = around.into_iter().find_map(|key| self.origins.get(key)).cloned();
        Diagnostic { key: key.to_owned(), origin, message: what }
    }
}
