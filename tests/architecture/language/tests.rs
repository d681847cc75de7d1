//! Small tables that show each rule what it must find and what it must leave alone.

use super::figures::{FolderFigures, folders, per_thousand};
use super::glossary::{Vocabulary, terms};
use super::prose::{LONGEST, sentences};
use super::sources::SourceFile;
use super::{headless, names, noun_faults, over_or_under, prose_faults, twin_faults};

/// Returns the sentences of a text, each with its line.
fn read(path: &str, text: &str) -> Vec<(usize, String)> {
    let found = sentences(&SourceFile::new(path, text));
    found.into_iter().map(|sentence| (sentence.line, sentence.words.join(" "))).collect()
}

fn subject_of(sentence: &str) -> Option<String> {
    headless::subject(&sentence.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn sentence_without_subject_is_headless() {
    for (sentence, subject) in [
        ("What the script answered.", "What the"),
        ("Who may call.", "Who may"),
        ("Whoever reads it waits.", "Whoever"),
        ("Nobody else can do that.", "Nobody"),
        ("Nothing is sent.", "Nothing is"),
        ("None of them is kept.", "None of"),
        ("Those who wait are told.", "Those who"),
        ("**Who observes** is noted.", "Who observes"),
        ("The partition of somebody's bot.", "somebody's"),
        ("Takes a partition that nobody owns.", "nobody"),
        ("The stream goes to whoever reads.", "whoever"),
        ("The keeper knows by who is alive.", "who is"),
        ("The connections of those who read.", "those who"),
        ("The replica is full; nothing was accepted.", "nothing was"),
        ("The write waits, so that nothing of it is lost.", "nothing of"),
        ("Cursors are opaque; what is none is a 400.", "what is"),
        ("**Outbox**: what must still be told.", "what must"),
        ("While the store is away, what was known stays.", "what was"),
    ] {
        assert_eq!(subject_of(sentence).as_deref(), Some(subject), "{sentence}");
    }
}

#[test]
fn sentence_with_subject_is_left_alone() {
    for sentence in [
        "A caller who waits gets the reply.",
        "The script says what is kept and what is not.",
        "The machine decides what to do, and how long it waits.",
        "The shard has nothing to do.",
        "`None` if the lease has expired.",
        "`nobody` is the user of the image.",
        "The socket sends nothing but pings; the peer answers.",
        "Whether the host answers.",
        "If the lease is lost, the shard stops.",
    ] {
        assert_eq!(subject_of(sentence), None, "{sentence}");
    }
}

#[test]
fn remedy_fits_the_subject() {
    assert!(headless::remedy("Whoever").contains("A caller that reads"));
    assert!(headless::remedy("What the").contains("The answer of the script"));
    assert!(headless::remedy("nothing was").contains("No write"));
    assert!(headless::remedy("nobody").contains("no caller"));
}

#[test]
fn text_falls_into_sentences() {
    let one = |text: &str| read("docs/api.md", text).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    for (text, expected) in [
        ("One ends. Two\nends.", &["One ends.", "Two ends."][..]),
        ("A name, e.g. Redis, ends no sentence.", &["A name, e.g. Redis, ends no sentence."]),
        ("Version 1.2 is one word. awc is another.", &["Version 1.2 is one word.", "awc is another."]),
        ("Runs `a. B` once. `c` is next.", &["Runs `a. B` once.", "`c` is next."]),
        ("See [the table](docs/a.md#x. Y) (or ask.) Then go.", &["See the table (or ask.)", "Then go."]),
        ("- an item\n- a second\n  line\n1. a step", &["an item", "a second line", "a step"]),
        ("# No sentence\n\nText.", &["Text."]),
        ("```sh\nwhat is code\n```\nText.", &["Text."]),
        ("| name | is |\n| --- | --- |\n| `a` | It ends. |", &["It ends."]),
        ("| a short cell | a cell of four |", &["a cell of four"]),
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
}

#[test]
fn comments_are_read_and_code_is_not() {
    let rust = "//! A module.\n\n/// A type\n/// of ours.\n// Its reason.\nstruct A; // At its end.\n\
                const URL: &str = \"a // b\";\n#[cfg(test)]\nmod tests {\n    // A test.\n}\n";
    let expected = [(1, "A module."), (3, "A type of ours."), (5, "Its reason."), (6, "At its end.")];
    assert_eq!(read("src/a.rs", rust), expected.map(|(line, text)| (line, text.to_owned())));
    assert_eq!(
        read("a.lua", "-- A script.\nlocal a = 1 -- One."),
        [(1, "A script.".into()), (2, "One.".into())]
    );
}

#[test]
fn words_are_counted_without_marks() {
    let length = |text| sentences(&SourceFile::new("docs/api.md", text))[0].length();
    assert_eq!(length("A link → `some code here` — [two words](u)."), 5);
    assert_eq!(length(&"word ".repeat(LONGEST)), LONGEST);
    let long = |words| sentences(&SourceFile::new("docs/api.md", &"word ".repeat(words)))[0].is_long();
    assert_eq!((long(LONGEST), long(LONGEST + 1)), (false, true));
}

#[test]
fn file_belongs_to_its_layer() {
    for (path, folder) in [
        ("src/hub/shard/mod.rs", "src/hub"),
        ("src/metrics.rs", "src/metrics"),
        ("src/lib.rs", "src"),
        ("crates/sandbox/src/bot/mod.rs", "crates/sandbox"),
        ("docs/api.md", "docs"),
        ("docs/adr/0001-a.md", "docs/adr"),
        ("README.md", "top"),
    ] {
        assert_eq!(SourceFile::new(path, "").folder(), folder, "{path}");
    }
}

#[test]
fn types_are_found_outside_of_tests() {
    let text = "pub(crate) struct A<T>(T);\nenum B {\n    C,\n}\npub trait D {\n    type Inner;\n}\ntype E = u8;\n\
                #[cfg(test)]\nmod fixtures;\n#[cfg(test)]\nmod inner {\n    struct F;\n}\n#[cfg(test)]\nstruct G;\nunion H {}\n";
    let files = [
        SourceFile::new("src/hub/mod.rs", text),
        SourceFile::new("src/hub/fixtures.rs", "struct I;"),
        SourceFile::new("src/hub/fixtures/more.rs", "struct J;"),
    ];
    let found: Vec<_> =
        names::census(&files).into_values().flatten().map(|found| (found.name, found.line)).collect();
    assert_eq!(found, [("A", 1), ("B", 2), ("D", 5), ("E", 8), ("H", 17)]);
}

#[test]
fn name_falls_into_words() {
    assert_eq!(names::words("PendingReply"), ["Pending", "Reply"]);
    assert_eq!(names::words("StoreURL2"), ["Store", "URL2"]);
    assert_eq!(names::words("Turn"), ["Turn"]);
}

#[test]
fn verb_form_is_told_from_noun() {
    for name in ["Told", "Kept", "Closed", "Posting", "MessageTaken", "Begin"] {
        assert!(names::verb_form(name).is_some(), "{name}");
    }
    for name in ["Completion", "PendingReply", "ClaimedDelivery", "BeginResult", "Set", "Red", "Write"] {
        assert_eq!(names::verb_form(name), None, "{name}");
    }
}

#[test]
fn twin_is_reported_with_its_places() {
    let files = [
        SourceFile::new("src/a.rs", "struct Part;\nstruct Whole;"),
        SourceFile::new("src/b.rs", "enum Part {}"),
    ];
    let census = names::census(&files);
    let faults = twin_faults(&census, &[]);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("src/a.rs:1, src/b.rs:1: `Part`"), "{}", faults[0]);
    assert_eq!(twin_faults(&census, &[("Part", "one concept")]), [""; 0]);
    // An exception that is not needed must go.
    assert!(
        twin_faults(&census, &[("Part", "one concept"), ("Whole", "none")])[0].contains("remove \"Whole\"")
    );
}

#[test]
fn participle_is_reported_with_its_line() {
    let files = [SourceFile::new("src/a.rs", "\nstruct Told;\nstruct Feed;")];
    let faults = noun_faults(&names::census(&files), &[("Feed", "a feed of events")]);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("src/a.rs:2: `Told` is a participle."), "{}", faults[0]);
}

#[test]
fn budget_falls_with_the_share() {
    assert!(over_or_under(101, 100, 5).is_some_and(|fault| fault.contains("over the budget of 100")));
    assert_eq!(over_or_under(100, 100, 5), None);
    assert_eq!(over_or_under(90, 100, 5), None);
    assert!(over_or_under(89, 100, 5).is_some_and(|fault| fault.contains("to 89")));
    // A budget at its goal need not fall further.
    assert_eq!(over_or_under(0, 50, 50), None);
    assert_eq!(per_thousand(1, 3), 334);
    assert_eq!(FolderFigures::default().long_share(), 0);
}

#[test]
fn worst_sentence_is_listed_first() {
    let text = format!("A plain sentence.\n\n{}\n\nWhoever reads.", "word ".repeat(LONGEST + 1));
    let folders = folders(&[SourceFile::new("docs/api.md", &text)]);
    let faults = prose_faults(&folders, &[("docs", 0, 0)]);
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[2].starts_with("docs/api.md:5: headless subject \"Whoever\""), "{}", faults[2]);
    assert!(faults[3].starts_with("docs/api.md:3: 26 words"), "{}", faults[3]);
    assert_eq!(prose_faults(&folders, &[("docs", 334, 334)]), [""; 0]);
    assert!(prose_faults(&folders, &[])[0].contains("add the row (\"docs\", 334, 334)"));
    assert!(prose_faults(&folders, &[("docs", 334, 334), ("src/old", 1, 1)])[0].contains("\"src/old\""));
}

#[test]
fn term_is_found_in_any_spelling() {
    assert_eq!(terms("Text.\n**Lease**: a right. **Claim**: taking one."), [(2, "Lease"), (2, "Claim")]);
    let words = Vocabulary::of(&[
        SourceFile::new("src/webhook/ssrf_guard.rs", "struct KeepAlive; // dead-letter"),
        SourceFile::new("docs/glossary.md", "**Deal**"),
        SourceFile::new("CONTRIBUTING.md", "A rebalance."),
    ]);
    for (term, found) in [
        ("SSRF", true),
        ("Keep-alive", true),
        ("dead letter", true),
        ("Deal", false),
        ("rebalance", false),
        ("adletter", false),
    ] {
        assert_eq!(words.has(term), found, "{term}");
    }
}
