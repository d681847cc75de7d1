//! Finds sentences without a real subject. In such a sentence a pronoun, or a clause with *what* or *who*, stands
//! where a thing of the system belongs.

/// Pronouns that are refused anywhere in a sentence.
const PRONOUNS: &[&str] = &["whoever", "whomever", "whatever", "nobody", "somebody"];

/// Words that are refused at the start of a sentence.
const STARTS: &[&str] = &["what", "who", "whose", "whom", "nothing", "none"];

/// Pairs of words that are refused at the start of a sentence.
const STARTING_PAIRS: &[[&str; 2]] = &[["of", "what"], ["no", "one"]];

/// Pairs of words that are refused anywhere in a sentence.
const PAIRS: &[[&str; 2]] = &[["those", "who"], ["he", "who"]];

/// Words after which *who* has no noun to refer to.
const BEFORE_WHO: &[&str] = &[
    "and", "but", "or", "that", "where", "if", "when", "until", "than", "by", "for", "of", "to", "as",
    "with", "from", "at", "because", "so", "while", "unless",
];

/// Words that open a clause, so that its subject follows.
const OPENERS: &[&str] = &[
    "that", "if", "when", "where", "while", "because", "until", "unless", "so", "but", "since", "though",
    "although", "once", "as", "then", "and",
];

/// Words at a sentence's start that open a clause in front of the main one.
const SUBORDINATORS: &[&str] = &[
    "if", "when", "where", "while", "because", "until", "unless", "since", "though", "although", "once",
    "as", "after", "before", "with", "without", "for", "in", "on", "at", "from",
];

/// Verbs that show that the word before them is a subject.
const VERBS: &[&str] = &[
    "is", "are", "was", "were", "has", "have", "had", "can", "cannot", "could", "may", "might", "must",
    "will", "would", "shall", "should", "does", "did", "came", "went", "ran", "fails", "goes", "comes",
    "happens", "needs", "depends", "waits", "stands", "follows", "gets", "becomes", "remains", "runs",
    "ends", "begins", "starts", "makes", "holds", "keeps", "knows", "says", "tells", "reads", "writes",
    "sends", "takes", "asks", "leaves", "changes",
];

/// The most words from *nothing* or *none* to its verb, as in "none of them is".
const REACH: usize = 4;

/// Returns the words in place of a subject, as the sentence has them, or `None` if it names its subject.
pub(super) fn subject(words: &[String]) -> Option<String> {
    let bare: Vec<String> = words.iter().map(|word| bare(word)).collect();
    (0..words.len()).find(|&at| is_headless(words, &bare, at)).map(|at| {
        let until = words.len().min(at + if PRONOUNS.contains(&bare[at].as_str()) { 1 } else { 2 });
        words[at..until].join(" ").trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
    })
}

/// Returns advice for a headless subject.
pub(super) fn remedy(subject: &str) -> &'static str {
    match bare(subject.split(' ').next().unwrap_or_default()).as_str() {
        "what" | "whatever" | "of" => {
            "name the thing, such as \"The answer of the script\" or \"A write that fails\"."
        }
        "nothing" | "none" => {
            "name the thing that is missing, such as \"No write\"; for a value write \"`None` if\" and the condition."
        }
        "nobody" | "no" => "name the role, such as \"no caller\" or \"no replica\".",
        _ => "name the role, such as \"A caller that reads\" or \"The replica that waits\".",
    }
}

fn is_headless(words: &[String], bare: &[String], at: usize) -> bool {
    let word = bare[at].as_str();
    let next = bare.get(at + 1).map_or("", String::as_str);
    if PRONOUNS.contains(&word) || PAIRS.contains(&[word, next]) {
        return true;
    }
    let first = bare.iter().position(|word| !word.is_empty());
    if first == Some(at) {
        return STARTS.contains(&word) || STARTING_PAIRS.contains(&[word, next]);
    }
    let (before, mark) = match at.checked_sub(1) {
        Some(index) => (bare[index].as_str(), words[index].chars().next_back().unwrap_or(' ')),
        None => return false,
    };
    // The first comma ends the clause in front of the main one.
    let after_clause = mark == ','
        && first.is_some_and(|first| SUBORDINATORS.contains(&bare[first].as_str()))
        && words[..at - 1].iter().all(|word| !word.ends_with(','));
    let opened = matches!(mark, ';' | ':') || after_clause || OPENERS.contains(&before);
    match word {
        "who" => matches!(mark, ';' | ':') || BEFORE_WHO.contains(&before),
        // "says who waits and what for" has its subject in front.
        "what" => opened && !matches!(before, "and" | "as"),
        "nothing" | "none" => opened && has_verb(words, bare, at),
        _ => false,
    }
}

/// Returns whether a verb follows in the same clause.
fn has_verb(words: &[String], bare: &[String], at: usize) -> bool {
    let clause = bare.iter().enumerate().skip(at + 1).take(REACH);
    clause
        .take_while(|(index, _)| !words[index - 1].ends_with([',', ';', ':', '.']))
        .any(|(_, word)| VERBS.contains(&word.as_str()))
}

/// Returns a word without marks, in small letters: "Nobody's" becomes "nobody". Code becomes a mark.
fn bare(word: &str) -> String {
    if word.contains('`') {
        return if word.contains(char::is_alphanumeric) { "`".to_owned() } else { String::new() };
    }
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let end = word.find(|c: char| !c.is_alphanumeric() && c != '-').unwrap_or(word.len());
    word[..end].to_lowercase()
}
