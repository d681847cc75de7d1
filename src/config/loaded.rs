//! A configuration as it was loaded, so that a later load can tell what changed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::config_value::{ConfigItem, ConfigTable, ConfigValue};
use super::diagnostics::{ConfigErrors, ConfigWarning};
use super::file_text::{self, FileText};
use super::{Config, load};
use crate::domain::Sha256;

/// The result of a load, with the files that it read.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration and its warnings, or all errors.
    pub result: Result<(Config, Vec<ConfigWarning>), ConfigErrors>,
    /// The sources of the configuration.
    pub sources: ConfigSources,
}

/// The values and files of a configuration at the time of a load.
#[derive(Debug)]
pub struct ConfigSources {
    /// The values.
    pub digests: ConfigDigests,
    /// The configuration file, and every file that it names, as they were before they were read.
    pub files: BTreeMap<PathBuf, Option<FileMark>>,
}

/// The marks of a file that change with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileMark {
    /// Returns the marks of a file, through links. `None` if there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// A hash of each value, by its key. A value that names a file is hashed with the content of the file. Hashes tell a change
/// of a secret, and not the secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigDigests(BTreeMap<String, [u8; 32]>);

impl ConfigDigests {
    /// Returns the keys whose values differ, in alphabetical order.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// Hashes the values of a table.
    pub(super) fn of(table: &ConfigTable, files: &BTreeMap<PathBuf, [u8; 32]>) -> Self {
        let mut digests = Self::default();
        digests.add_table("", table, files);
        digests
    }

    fn add_table(&mut self, path: &str, table: &ConfigTable, files: &BTreeMap<PathBuf, [u8; 32]>) {
        for (key, item) in table {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.add(&path, &item.value, files);
        }
    }

    fn add(&mut self, path: &str, value: &ConfigValue, files: &BTreeMap<PathBuf, [u8; 32]>) {
        match value {
            ConfigValue::Table(table) => self.add_table(path, table, files),
            ConfigValue::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let name = name_of(item).unwrap_or_else(|| (index + 1).to_string());
                    self.add(&format!("{path}.{name}"), &item.value, files);
                }
            }
            plain => {
                let mut text = plain_text(plain).into_bytes();
                if let Some(content) = plain.as_text().and_then(|name| files.get(Path::new(name))) {
                    text.extend_from_slice(content);
                }
                self.0.insert(path.to_owned(), Sha256::digest(text));
            }
        }
    }
}

/// Returns the name of a table in a list.
fn name_of(item: &ConfigItem) -> Option<String> {
    let ConfigValue::Table(table) = &item.value else { return None };
    table.get("name")?.value.as_text().map(str::to_owned)
}

fn plain_text(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Text(text) | ConfigValue::Untyped(text) => format!("text {text}"),
        ConfigValue::Integer(number) => format!("number {number}"),
        ConfigValue::Bool(yes) => format!("bool {yes}"),
        ConfigValue::Other(kind) => (*kind).to_owned(),
        ConfigValue::List(_) | ConfigValue::Table(_) => String::new(),
    }
}

/// Loads the configuration like [`load::load`], and remembers its values and files.
pub fn load_again<K, V>(path: Option<&Path>, env: impl IntoIterator<Item = (K, V)>) -> LoadedConfig
where
    K: Into<std::ffi::OsString>,
    V: Into<std::ffi::OsString>,
{
    let (read, marks) = (RefCell::new(BTreeMap::new()), RefCell::new(BTreeMap::new()));
    let files = |path: &Path| -> std::io::Result<FileText> {
        // A change during the read shows at the next look.
        let mark = FileMark::of(path);
        let text = file_text::read_file(path);
        let digest = text.as_ref().map_or([0; 32], |file| Sha256::digest(&file.text));
        read.borrow_mut().insert(path.to_owned(), digest);
        marks.borrow_mut().insert(path.to_owned(), mark);
        text
    };
    let (result, table) = load::load_with(path, env, &files);
    let read = read.into_inner();
    let digests = table.map(|table| ConfigDigests::of(&table, &read)).unwrap_or_default();
    LoadedConfig { result, sources: ConfigSources { digests, files: marks.into_inner() } }
}
