//! The texts that the guard reads: sources of every crate, Lua scripts and documents.

use std::fs;
use std::path::Path;

use crate::architecture::{reading, rules};

/// Directories and files below the root of the repository.
const PLACES: &[&str] =
    &["src", "crates", "migrations", "docs", "helm/rtm-bridge/README.md", "README.md", "CONTRIBUTING.md"];

/// One text of the repository.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Where it is, from the root of the repository.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl SourceFile {
    /// Makes a file without the tests at its end.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let lines = if extension(path) == "rs" { rules::lines(text) } else { usize::MAX };
        let text = text.lines().take(lines).collect::<Vec<_>>().join("\n");
        Self { path: path.to_owned(), text }
    }

    /// Returns `rs`, `lua` or `md`.
    pub(super) fn extension(&self) -> &str {
        extension(&self.path)
    }

    /// Returns the budget row that counts the file: a layer of `src`, a crate, or a directory of documents.
    pub(super) fn folder(&self) -> String {
        let parts: Vec<&str> = self.path.split('/').collect();
        match parts.as_slice() {
            ["src", layer, _, ..] => format!("src/{layer}"),
            ["src", file] => match file.trim_end_matches(".rs") {
                "lib" | "main" => "src".to_owned(),
                layer => format!("src/{layer}"),
            },
            ["crates", name, ..] => format!("crates/{name}"),
            [directories @ .., _] if !directories.is_empty() => directories.join("/"),
            _ => "top".to_owned(),
        }
    }
}

fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Reads every text of the repository but its tests, ordered by path.
pub(super) fn tree() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in PLACES {
        collect(root, &root.join(place), &mut files);
    }
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "no sources found under {}", root.display());
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(root: &Path, path: &Path, files: &mut Vec<SourceFile>) {
    let name = path.strip_prefix(root).unwrap().to_str().unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(root, &entry.unwrap().path(), files);
        }
    } else if path.is_file() && is_ours(name) {
        files.push(SourceFile::new(name, &fs::read_to_string(path).unwrap()));
    }
}

/// Returns whether the guard reads a file. Of a crate it reads only `src`.
fn is_ours(path: &str) -> bool {
    let in_sources = path.split('/').nth(2).is_none_or(|part| !path.starts_with("crates/") || part == "src");
    in_sources && !reading::is_test_file(path) && matches!(extension(path), "rs" | "lua" | "md")
}
