//! Looks for the terms of the glossary and of the field in the texts of the repository.

use super::sources::SourceFile;

/// The document that explains the project's own words.
pub(super) const PATH: &str = "docs/glossary.md";

/// Terms that an engineer of the field searches for by name.
pub(super) const FIELD: &[&str] = &[
    "SSRF",
    "rebalance",
    "backpressure",
    "dead letter",
    "circuit breaker",
    "membership",
    "graceful shutdown",
];

/// Returns the terms in bold print, each with its line.
pub(super) fn terms(glossary: &str) -> Vec<(usize, &str)> {
    let bold = |line| str::split(line, "**").skip(1).step_by(2);
    (1..)
        .zip(glossary.lines())
        .flat_map(|(number, line)| bold(line).map(move |term| (number, term)))
        .collect()
}

/// Returns the terms of the field that occur nowhere.
pub(super) fn absent(vocabulary: &Vocabulary) -> impl Iterator<Item = &'static str> {
    FIELD.iter().copied().filter(|term| !vocabulary.has(term))
}

/// Where a reader looks for terms.
const PLACES: &[&str] = &["src/", "crates/", "docs/"];

/// The words of sources and documents. The glossary itself is left out.
#[derive(Debug)]
pub(super) struct Vocabulary(String);

impl Vocabulary {
    /// Reads the texts.
    pub(super) fn of(files: &[SourceFile]) -> Self {
        let is_read = |path: &str| path != PATH && PLACES.iter().any(|place| path.starts_with(place));
        let texts = files.iter().filter(|file| is_read(&file.path));
        Self(texts.map(|file| plain(&file.path) + &plain(&file.text)).collect())
    }

    /// Returns whether a term occurs as words or in an identifier: "keep-alive" also as `KeepAlive` or "keepalives".
    pub(super) fn has(&self, term: &str) -> bool {
        let term = plain(term);
        let term = term.trim();
        self.0.contains(&format!(" {term}")) || self.0.contains(&format!(" {}", term.replace(' ', "")))
    }
}

/// Returns the words in small letters with a space around each. Names in camel case fall into their words.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + text.len() / 8);
    plain.push(' ');
    let mut before = ' ';
    for c in text.chars() {
        if c.is_alphanumeric() {
            if c.is_uppercase() && before.is_lowercase() {
                plain.push(' ');
            }
            plain.extend(c.to_lowercase());
        } else if !plain.ends_with(' ') {
            plain.push(' ');
        }
        before = c;
    }
    plain.push(' ');
    plain
}
