//! What is wrong with a configuration: every mistake, each with its key and the place it came from.
//!
//! No text here ever holds the value of a secret; the modules `parse` and `section` see to that.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueOrigin {
    /// In the file, at this line (the first is 1).
    File {
        /// The file as it was named.
        file: Arc<str>,
        /// The line of the key.
        line: usize,
    },
    /// In the environment variable of this name.
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

/// One mistake, or one thing that is allowed but hardly meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The path of the key, such as `bots.support.ping_interval`; empty where it is about the whole.
    pub key: String,
    /// Where the key, or the table that lacks it, was given; none where it was not given at all.
    pub origin: Option<ValueOrigin>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", None) => {}
            ("", Some(origin)) => write!(f, "{origin}: ")?,
            (key, None) => write!(f, "{key}: ")?,
            (key, Some(origin)) => write!(f, "{key} ({origin}): ")?,
        }
        f.write_str(&self.what)
    }
}

/// All mistakes of a configuration; never empty.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigErrors(Vec<Diagnostic>);

impl ConfigErrors {
    pub(super) fn one(what: String) -> Self {
        Self(vec![Diagnostic { key: String::new(), origin: None, what }])
    }

    /// Each of them, in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has a mistake:")?,
            n => write!(f, "the configuration has {n} mistakes:")?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

/// Something that is allowed but hardly meant; to be logged at start.
pub type ConfigWarning = Diagnostic;

/// What is noted while a configuration is read.
#[derive(Default)]
pub(super) struct Diagnostics {
    origins: std::collections::BTreeMap<String, ValueOrigin>,
    mistakes: Vec<Diagnostic>,
    warnings: Vec<ConfigWarning>,
    known: BTreeSet<String>,
}

impl Diagnostics {
    /// Remembers that there is such a key, given or not.
    pub(super) fn known(&mut self, key: String) {
        self.known.insert(key);
    }

    /// All keys that were asked for, but the tables.
    pub(super) fn into_keys(self) -> BTreeSet<String> {
        let tables: BTreeSet<String> = self
            .known
            .iter()
            .filter_map(|key| key.rsplit_once('.'))
            .map(|(table, _)| table.to_owned())
            .collect();
        // A list's own key stands before the names of its tables.
        let is_table =
            |key: &String| tables.iter().any(|table| table == key || table.starts_with(&format!("{key}.")));
        self.known.iter().filter(|key| !is_table(key)).cloned().collect()
    }

    /// Remembers where a key was given, for all that is said about it later.
    pub(super) fn given(&mut self, key: &str, origin: ValueOrigin) {
        self.origins.insert(key.to_owned(), origin);
    }

    /// Whether the key was given at all.
    pub(super) fn was_given(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Notes a mistake.
    pub(super) fn wrong(&mut self, key: &str, what: impl Into<String>) {
        let remark = self.remark(key, what.into());
        self.mistakes.push(remark);
    }

    /// Notes a mistake in a relation of keys, at the first of them, unless one of them is wrong already: what
    /// follows from a mistake is not another one.
    pub(super) fn unrelated(&mut self, keys: &[String], what: impl Into<String>) {
        if self.mistakes.iter().any(|mistake| keys.contains(&mistake.key)) {
            return;
        }
        let at = keys.iter().find(|key| self.was_given(key)).or(keys.first());
        if let Some(at) = at {
            self.wrong(at, what);
        }
    }

    /// Notes a mistake about a table, unless there is one about something in it.
    pub(super) fn unless_within(&mut self, table: &str, what: &str) {
        let within = |key: &str| {
            key.strip_prefix(table).is_some_and(|rest| rest.starts_with(['.', '[']) || rest.is_empty())
        };
        if !self.mistakes.iter().any(|mistake| within(&mistake.key)) {
            self.wrong(table, what);
        }
    }

    /// Notes a warning.
    pub(super) fn warn(&mut self, key: &str, what: impl Into<String>) {
        let remark = self.remark(key, what.into());
        self.warnings.push(remark);
    }

    /// The warnings, or all mistakes where there are any.
    pub(super) fn finish(self) -> Result<Vec<ConfigWarning>, ConfigErrors> {
        if self.mistakes.is_empty() { Ok(self.warnings) } else { Err(ConfigErrors(self.mistakes)) }
    }

    /// The mistakes, where there are some for sure.
    pub(super) fn into_mistakes(self) -> ConfigErrors {
        ConfigErrors(self.mistakes)
    }

    /// About a key; a key that was not given is placed where the nearest table around it was.
    fn remark(&self, key: &str, what: String) -> Diagnostic {
        let around = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(table, _)| table));
        let origin = around.into_iter().find_map(|key| self.origins.get(key)).cloned();
        Diagnostic { key: key.to_owned(), origin, what }
    }
}
