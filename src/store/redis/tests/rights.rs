//! The rights that docs/operations.md names are those that the scripts need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Commands that the bridge sends outside scripts, and those of the client library.
const OUTSIDE: [&str; 7] = ["eval", "evalsha", "subscribe", "ping", "info", "config|get", "time"];

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Returns the words in capitals that follow `before` and end at `quote`.
fn commands(text: &str, before: &str, quote: char) -> BTreeSet<String> {
    let found = text.split(before).skip(1).filter_map(|rest| rest.split(quote).next());
    found.filter(|word| word.chars().all(|char| char.is_ascii_uppercase())).map(str::to_lowercase).collect()
}

/// The commands that `rights.lua` tries are those that scripts run.
#[test]
fn doctor_tries_each_right_of_the_scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, rights) = document.split_once("ACL SETUSER bridge").unwrap();
    let rights = rights.split("```").next().unwrap();
    let outside = ["eval", "evalsha", "subscribe", "ping", "info", "config|get"];
    let named: BTreeSet<String> = rights
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('+'))
        .filter(|word| !outside.contains(word))
        .map(Into::into)
        .collect();
    let script = fs::read_to_string(root.join("src/store/redis/scripts/rights.lua")).unwrap();
    assert_eq!(commands(&script, "{'", '\''), named);
}

#[test]
fn documented_rights_are_those_of_the_scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut needed: BTreeSet<String> = OUTSIDE.map(Into::into).into();
    for path in files(&root.join("src/store/redis/scripts"), "lua") {
        needed.extend(commands(&fs::read_to_string(path).unwrap(), "call('", '\''));
    }
    for path in files(&root.join("migrations"), "lua") {
        needed.extend(commands(&fs::read_to_string(path).unwrap(), "call('", '\''));
    }
    for path in files(&root.join("src/store/redis"), "rs") {
        let text = fs::read_to_string(path).unwrap();
        for call in text.split(".command(").skip(1) {
            needed.extend(commands(
                call.split(");").next().unwrap().split(".arg(").next().unwrap(),
                ", \"",
                '"',
            ));
        }
    }
    let document = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, rights) = document.split_once("ACL SETUSER bridge").unwrap();
    let rights = rights.split("```").next().unwrap();
    let named: BTreeSet<String> =
        rights.split_whitespace().filter_map(|word| word.strip_prefix('+')).map(Into::into).collect();
    assert_eq!(named, needed);
}
