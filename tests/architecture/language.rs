//! Keeps names and prose plain: nouns for types, a subject in each sentence, terms that can be found.
//!
//! Budgets and exceptions are data in `language/budgets.rs`. CONTRIBUTING.md has the rules.

mod budgets;
mod figures;
mod glossary;
mod headless;
mod names;
mod prose;
mod sources;
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;

use figures::{Fault, FolderFigures};
use names::TypeName;

/// The most faults that a failure lists.
const LISTED: usize = 20;

/// How far below its budget a share may fall, per thousand, before the budget must follow.
const MARGIN: usize = 10;

type Census<'a> = BTreeMap<&'a str, Vec<TypeName<'a>>>;

/// Fails if there is a fault, and lists the first ones.
fn expect_none<T: Display>(rule: &str, faults: &[T]) {
    let mut listed: Vec<String> = faults.iter().take(LISTED).map(T::to_string).collect();
    if faults.len() > LISTED {
        listed.push(format!("... and {} more", faults.len() - LISTED));
    }
    assert!(faults.is_empty(), "{rule} ({} fault(s)):\n{}\n", faults.len(), listed.join("\n"));
}

#[test]
fn type_names_have_one_meaning() {
    let files = sources::tree();
    expect_none("a type name is defined in one file", &twin_faults(&names::census(&files), budgets::TWINS));
}

fn twin_faults(census: &Census<'_>, allowed: &[(&str, &str)]) -> Vec<String> {
    let twins: Vec<&str> = figures::twins(census).collect();
    let mut new: Vec<&str> = twins.iter().copied().filter(|name| !is_allowed(allowed, name)).collect();
    new.sort_by_key(|name| usize::MAX - census[name].len());
    let new = new.into_iter().map(|name| {
        let places: Vec<String> =
            census[name].iter().map(|found| format!("{}:{}", found.path, found.line)).collect();
        format!(
            "{}: `{name}` has {} definitions. Put the role of each into its name, such as `AcceptAnswer` and \
             `HttpAnswer`. If all are one concept, share one type, or give the reason in `budgets::TWINS`.",
            places.join(", "),
            places.len()
        )
    });
    new.chain(unneeded("TWINS", allowed, &twins)).collect()
}

#[test]
fn type_names_are_nouns() {
    let files = sources::tree();
    expect_none("a type name is a noun with its role", &noun_faults(&names::census(&files), budgets::NOUNS));
}

fn noun_faults(census: &Census<'_>, allowed: &[(&str, &str)]) -> Vec<String> {
    let verbs: Vec<&str> = census.keys().copied().filter(|name| names::verb_form(name).is_some()).collect();
    let definitions = verbs.iter().filter(|name| !is_allowed(allowed, name)).flat_map(|name| &census[name]);
    let new = definitions.map(|TypeName { name, path, line }| {
        format!(
            "{path}:{line}: `{name}` is {}. Name the thing with its role, such as `Completion` or `PendingReply`. \
             If the word is a noun, give the reason in `budgets::NOUNS`.",
            names::verb_form(name).unwrap_or_default()
        )
    });
    new.chain(unneeded("NOUNS", allowed, &verbs)).collect()
}

fn is_allowed(allowed: &[(&str, &str)], name: &str) -> bool {
    allowed.iter().any(|(allowed, _)| *allowed == name)
}

/// Reports the exceptions that no type needs any more.
fn unneeded(list: &str, allowed: &[(&str, &str)], found: &[&str]) -> Vec<String> {
    let gone = allowed.iter().filter(|(name, _)| !found.contains(name));
    gone.map(|(name, _)| format!("`budgets::{list}`: remove {name:?}, which no type needs any more."))
        .collect()
}

#[test]
fn one_word_type_names_keep_their_budget() {
    let files = sources::tree();
    let share = figures::one_word_share(&names::census(&files));
    let advice = "A new type usually has two words, the thing and its role: `ConnectLimiter`, `StoreError`.";
    let fault = over_or_under(share, budgets::ONE_WORD, figures::ONE_WORD_GOAL);
    let fault = fault.map(|fault| format!("`budgets::ONE_WORD`: type names of one word: {fault}. {advice}"));
    expect_none("few type names are a single word", fault.as_slice());
}

/// Returns the fault of a share that is over its budget, or so far below that the budget must follow.
fn over_or_under(share: usize, budget: usize, goal: usize) -> Option<String> {
    if share > budget {
        Some(format!("{share} per thousand, over the budget of {budget}"))
    } else if budget > goal && share + MARGIN < budget {
        Some(format!("{share} per thousand; lower the budget of {budget} to {share}"))
    } else {
        None
    }
}

#[test]
fn prose_keeps_its_budgets() {
    let files = sources::tree();
    expect_none(
        "sentences are short and name their subject",
        &prose_faults(&figures::folders(&files), budgets::PROSE),
    );
}

fn prose_faults(folders: &BTreeMap<String, FolderFigures>, budgets: &[(&str, usize, usize)]) -> Vec<String> {
    let gone = budgets.iter().filter(|(folder, ..)| !folders.contains_key(*folder));
    let mut report: Vec<String> = gone
        .map(|(folder, ..)| format!("`budgets::PROSE`: remove the row of {folder:?}, which is gone."))
        .collect();
    let mut faults: Vec<&Fault> = Vec::new();
    for (folder, figures) in folders {
        let (headless, long) = (figures.headless_share(), figures.long_share());
        let Some((_, most_headless, most_long)) = budgets.iter().find(|(name, ..)| name == folder) else {
            report.push(format!("`budgets::PROSE`: add the row ({folder:?}, {headless}, {long})."));
            continue;
        };
        if let Some(fault) = over_or_under(headless, *most_headless, figures::HEADLESS_GOAL) {
            report.push(format!("{folder}: sentences with a headless subject: {fault}."));
            faults.extend(
                figures.faults.iter().filter(|fault| headless > *most_headless && fault.headless.is_some()),
            );
        }
        if let Some(fault) = over_or_under(long, *most_long, figures::LONG_GOAL) {
            report.push(format!("{folder}: sentences of more than {} words: {fault}.", prose::LONGEST));
            let long_ones =
                figures.faults.iter().filter(|fault| fault.headless.is_none() && fault.sentence.is_long());
            faults.extend(long_ones.filter(|_| long > *most_long));
        }
    }
    faults.sort_by_key(|fault| (fault.headless.is_none(), usize::MAX - fault.sentence.length()));
    report.extend(faults.into_iter().map(advice));
    report
}

/// Returns the place of a sentence and how to write it instead.
fn advice(fault: &Fault) -> String {
    let Fault { path, sentence, headless } = fault;
    let start = sentence.words.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(" ");
    let remedy = match headless {
        Some(subject) => format!("headless subject \"{subject}\": {}", headless::remedy(subject)),
        None => format!(
            "{} words: make two sentences, the main clause first, or a list of a chain of semicolons.",
            sentence.length()
        ),
    };
    format!("{path}:{}: {remedy} The sentence: {start} ...", sentence.line)
}

#[test]
fn terms_occur_where_a_reader_looks() {
    let files = sources::tree();
    let text = files.iter().find(|file| file.path == glossary::PATH).map_or("", |file| &file.text);
    let vocabulary = glossary::Vocabulary::of(&files);
    let terms = glossary::terms(text);
    assert!(!terms.is_empty(), "{} explains no term", glossary::PATH);
    let unused = terms.iter().filter(|(_, term)| !vocabulary.has(term)).map(|(line, term)| {
        format!(
            "{}:{line}: \"{term}\" occurs nowhere else. Use the term where the thing is, or remove it.",
            glossary::PATH
        )
    });
    let absent: Vec<&str> = glossary::absent(&vocabulary).collect();
    let new = absent.iter().filter(|term| !budgets::ABSENT.contains(term)).map(|term| {
        format!(
            "No source or document says \"{term}\". Name what does it by this term, in its file's documentation."
        )
    });
    let found = budgets::ABSENT.iter().filter(|term| !absent.contains(term));
    let found = found.map(|term| format!("`budgets::ABSENT`: remove {term:?}, which occurs now."));
    expect_none("terms can be found by a search", &unused.chain(new).chain(found).collect::<Vec<_>>());
}

#[test]
fn figures_name_every_folder() {
    let files = sources::tree();
    let report = figures::report(&files);
    for file in &files {
        assert!(report.contains(&format!("({:?}, ", file.folder())), "{} is not counted", file.path);
    }
    if std::env::var_os("LANGUAGE_PRINT").is_some() {
        println!("{report}");
    }
}
