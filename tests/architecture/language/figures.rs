//! Counts names and prose, and prints the counts beside the goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::glossary::{self, Vocabulary};
use super::names::{self, TypeName};
use super::prose::{self, Sentence};
use super::sources::SourceFile;
use super::{budgets, headless};

/// The goal for sentences with a headless subject, per thousand.
pub(super) const HEADLESS_GOAL: usize = 5;
/// The goal for sentences with too many words, per thousand.
pub(super) const LONG_GOAL: usize = 50;
/// The goal for type names of one word, per thousand.
pub(super) const ONE_WORD_GOAL: usize = 250;
/// The goal for type names in several files, per thousand.
const TWINS_GOAL: usize = 40;

/// Returns the share of a part, per thousand, rounded up.
pub(super) fn per_thousand(part: usize, whole: usize) -> usize {
    (part * 1000).div_ceil(whole.max(1))
}

/// A sentence that breaks a rule of prose, and where it is.
#[derive(Debug)]
pub(super) struct Fault {
    /// Its file.
    pub path: String,
    /// The sentence.
    pub sentence: Sentence,
    /// The words in place of its subject, if it is headless.
    pub headless: Option<String>,
}

/// The prose of one folder.
#[derive(Debug, Default)]
pub(super) struct FolderFigures {
    sentences: usize,
    /// The sentences that break a rule.
    pub faults: Vec<Fault>,
}

impl FolderFigures {
    fn headless(&self) -> usize {
        self.faults.iter().filter(|fault| fault.headless.is_some()).count()
    }

    fn long(&self) -> usize {
        self.faults.iter().filter(|fault| fault.sentence.is_long()).count()
    }

    /// Returns the share of sentences with a headless subject, per thousand.
    pub(super) fn headless_share(&self) -> usize {
        per_thousand(self.headless(), self.sentences)
    }

    /// Returns the share of sentences with too many words, per thousand.
    pub(super) fn long_share(&self) -> usize {
        per_thousand(self.long(), self.sentences)
    }
}

/// Counts the prose of all files by folder.
pub(super) fn folders(files: &[SourceFile]) -> BTreeMap<String, FolderFigures> {
    let mut folders: BTreeMap<String, FolderFigures> = BTreeMap::new();
    for file in files {
        let folder = folders.entry(file.folder()).or_default();
        for sentence in prose::sentences(file) {
            folder.sentences += 1;
            let headless = headless::subject(&sentence.words);
            if headless.is_some() || sentence.is_long() {
                folder.faults.push(Fault { path: file.path.clone(), sentence, headless });
            }
        }
    }
    folders
}

/// Returns the share of names with one word, per thousand.
pub(super) fn one_word_share(census: &BTreeMap<&str, Vec<TypeName<'_>>>) -> usize {
    per_thousand(census.keys().filter(|name| names::words(name).len() == 1).count(), census.len())
}

/// Returns whether the definitions of a name are in several files.
pub(super) fn is_twin(definitions: &[TypeName<'_>]) -> bool {
    definitions.iter().any(|definition| definition.path != definitions[0].path)
}

/// Renders the figures beside their goals, then the budgets as data.
pub(super) fn report(files: &[SourceFile]) -> String {
    let census = names::census(files);
    let vocabulary = Vocabulary::of(files);
    let folders = folders(files);
    let twins: Vec<&str> = twins(&census).collect();
    let absent: Vec<&str> = glossary::absent(&vocabulary).collect();

    let mut text = String::from("| | measured | goal |\n| --- | --- | --- |\n");
    for (name, prefixes) in
        [("sources", &["src", "crates", "migrations"][..]), ("documents", &["docs", "top", "helm"])]
    {
        let of: Vec<_> = folders
            .iter()
            .filter(|(folder, _)| prefixes.iter().any(|prefix| folder.starts_with(prefix)))
            .map(|(_, figures)| figures)
            .collect();
        let sentences = of.iter().map(|figures| figures.sentences).sum();
        let mut row = |what: &str, count: usize, goal: usize| {
            let share = percent(per_thousand(count, sentences));
            let _ = writeln!(
                text,
                "| {what} in {name}: {count} of {sentences} | {share} | ≤ {} |",
                percent(goal)
            );
        };
        row("headless sentences", of.iter().map(|figures| figures.headless()).sum(), HEADLESS_GOAL);
        row("sentences of more than 25 words", of.iter().map(|figures| figures.long()).sum(), LONG_GOAL);
    }
    let one_word = one_word_share(&census);
    let _ =
        writeln!(text, "| type names of one word | {} | ≤ {} |", percent(one_word), percent(ONE_WORD_GOAL));
    let share = percent(per_thousand(twins.len(), census.len()));
    let _ = writeln!(
        text,
        "| type names in several files: {} of {} | {share} | ≤ {} |",
        twins.len(),
        census.len(),
        percent(TWINS_GOAL)
    );
    let _ = writeln!(text, "| field terms that occur nowhere | {} | 0 |\n", absent.len());

    let _ = writeln!(text, "pub(super) const ONE_WORD: usize = {one_word};");
    let verb_forms = census.keys().copied().filter(|name| names::verb_form(name).is_some());
    exceptions(&mut text, "TWINS", twins.into_iter(), budgets::TWINS);
    exceptions(&mut text, "NOUNS", verb_forms, budgets::NOUNS);
    let _ = writeln!(text, "pub(super) const ABSENT: &[&str] = &{absent:?};");
    text.push_str("pub(super) const PROSE: &[(&str, usize, usize)] = &[\n");
    for (folder, figures) in &folders {
        let _ = writeln!(text, "    ({folder:?}, {}, {}),", figures.headless_share(), figures.long_share());
    }
    text + "];\n"
}

/// Returns the names that stand in several files.
pub(super) fn twins<'a>(census: &'a BTreeMap<&'a str, Vec<TypeName<'a>>>) -> impl Iterator<Item = &'a str> {
    census.iter().filter(|(_, definitions)| is_twin(definitions)).map(|(name, _)| *name)
}

fn exceptions<'a>(
    text: &mut String,
    list: &str,
    names: impl Iterator<Item = &'a str>,
    known: &[(&str, &str)],
) {
    let _ = writeln!(text, "pub(super) const {list}: &[(&str, &str)] = &[");
    for name in names {
        let reason = known
            .iter()
            .find(|(other, _)| *other == name)
            .map_or("has no better name yet", |(_, reason)| reason);
        let _ = writeln!(text, "    ({name:?}, {reason:?}),");
    }
    text.push_str("];\n");
}

fn percent(per_thousand: usize) -> String {
    format!("{}.{} %", per_thousand / 10, per_thousand % 10)
}
