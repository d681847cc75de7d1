//! Finds the types that the sources define, and judges their names.

use std::collections::BTreeMap;

use super::sources::SourceFile;

/// Past participles that do not end in -ed. Those that are nouns as well, such as `Cut` or `Set`, are left out.
const IRREGULAR: &[&str] = &[
    "Begun",
    "Born",
    "Bought",
    "Broken",
    "Brought",
    "Built",
    "Caught",
    "Chosen",
    "Dealt",
    "Done",
    "Drawn",
    "Driven",
    "Fallen",
    "Fed",
    "Felt",
    "Forgotten",
    "Found",
    "Frozen",
    "Given",
    "Gone",
    "Got",
    "Heard",
    "Held",
    "Hidden",
    "Kept",
    "Known",
    "Led",
    "Lost",
    "Made",
    "Meant",
    "Met",
    "Paid",
    "Said",
    "Seen",
    "Sent",
    "Shown",
    "Shut",
    "Slept",
    "Sold",
    "Spent",
    "Spoken",
    "Stolen",
    "Stood",
    "Taken",
    "Taught",
    "Thrown",
    "Told",
    "Torn",
    "Woken",
    "Won",
    "Written",
];

/// Verbs that are no nouns, as whole names. `Read` and `Write` are the field's nouns.
const VERBS: &[&str] = &[
    "Accept", "Become", "Begin", "Bury", "Choose", "Close", "Connect", "Decide", "Deliver", "Finish",
    "Forget", "Give", "Keep", "Know", "Leave", "Lose", "Make", "Open", "Publish", "Receive", "Refuse", "Say",
    "Send", "Take", "Tell", "Verify",
];

/// A type that the sources define.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypeName<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its file.
    pub path: &'a str,
    /// The line of its definition, from one.
    pub line: usize,
}

/// Collects the types of the production build by name. Types for tests are left out.
pub(super) fn census(files: &[SourceFile]) -> BTreeMap<&str, Vec<TypeName<'_>>> {
    let sources = || files.iter().filter(|file| file.extension() == "rs");
    let test_modules: Vec<String> = sources()
        .flat_map(|file| {
            let names = scan(&file.text).test_modules;
            names.into_iter().map(|name| format!("{}/{name}", module(&file.path)))
        })
        .collect();
    let is_test = |file: &SourceFile| {
        test_modules.iter().any(|test| {
            module(&file.path).strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let mut types: BTreeMap<&str, Vec<TypeName<'_>>> = BTreeMap::new();
    for file in sources().filter(|file| !is_test(file)) {
        for (line, name) in scan(&file.text).types {
            types.entry(name).or_default().push(TypeName { name, path: &file.path, line });
        }
    }
    types
}

/// Returns the directory of a file's submodules: `src/hub` for `src/hub.rs` and `src/hub/mod.rs`.
fn module(path: &str) -> &str {
    let path = path.trim_end_matches(".rs");
    ["/mod", "/lib", "/main"].iter().find_map(|root| path.strip_suffix(root)).unwrap_or(path)
}

/// The definitions in a file. The layout of rustfmt makes them readable without a parser.
#[derive(Debug, Default)]
struct Definitions<'a> {
    types: Vec<(usize, &'a str)>,
    /// The modules that only tests have and that lie in files of their own.
    test_modules: Vec<&'a str>,
}

fn scan(text: &str) -> Definitions<'_> {
    let mut found = Definitions::default();
    let mut test_only = false;
    // The end of the item for tests that is being skipped.
    let mut until: Option<String> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let item = line.trim_start();
        if let Some(end) = &until {
            if line == end {
                until = None;
            }
            continue;
        }
        if item.starts_with("#[cfg(test)]") || item.starts_with("#[cfg(all(test") {
            test_only = true;
        } else if test_only && !item.starts_with("#[") && !item.starts_with("//") {
            test_only = false;
            if item.ends_with('{') {
                until = Some(format!("{}}}", &line[..line.len() - item.len()]));
            }
            found.test_modules.extend(after(item, &["mod"]).filter(|_| item.ends_with(';')));
        } else if let Some(name) = type_name(line) {
            found.types.push((number, name));
        }
    }
    found
}

/// Returns the type that a line defines. An indented `type` belongs to a trait.
fn type_name(line: &str) -> Option<&str> {
    const KINDS: &[&str] = &["struct", "enum", "trait", "union"];
    let name = after(line.trim_start(), KINDS).or_else(|| after(line, &["type"]))?;
    name.starts_with(char::is_uppercase).then_some(name)
}

/// Returns the identifier behind one of these keywords. A visibility in front is skipped.
fn after<'a>(item: &'a str, keywords: &[&str]) -> Option<&'a str> {
    let item = match item.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => item,
    };
    let (keyword, rest) = item.split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    keywords.contains(&keyword).then_some(&rest[..end])
}

/// Returns the words of a name: `PendingReply` has two.
pub(super) fn words(name: &str) -> Vec<&str> {
    let starts: Vec<usize> = name
        .char_indices()
        .filter(|(at, c)| c.is_uppercase() && !name[..*at].ends_with(char::is_uppercase))
        .map(|(at, _)| at)
        .chain([name.len()])
        .collect();
    starts.windows(2).map(|pair| &name[pair[0]..pair[1]]).collect()
}

/// Returns the kind of a name that is no noun: "a participle" or "a verb".
pub(super) fn verb_form(name: &str) -> Option<&'static str> {
    let last = words(name).pop()?;
    let participle =
        IRREGULAR.contains(&last) || (last.len() > 3 && (last.ends_with("ed") || last.ends_with("ing")));
    if participle { Some("a participle") } else { VERBS.contains(&name).then_some("a verb") }
}
