//! What the guard of names and prose still allows. Each number only falls; each exception has its reason.
//!
//! `LANGUAGE_PRINT=1 cargo test --test all architecture::language::figures -- --nocapture` prints this data as the
//! tree has it now, ready to be pasted here.

/// Type names of one word, per thousand.
pub(super) const ONE_WORD: usize = 80;

/// Type names that stand in several files, each with the reason why they mean the same.
pub(super) const TWINS: &[(&str, &str)] = &[];

/// Type names that look like a participle or a verb, each with the reason why it is a noun.
pub(super) const NOUNS: &[(&str, &str)] = &[
    ("ConfigWarning", "`warning` is the usual noun for a remark that stops nothing"),
    ("StreamFeed", "`feed` is the usual noun for a sequence of entries"),
];

/// Terms of the field that the tree does not use yet.
pub(super) const ABSENT: &[&str] = &[];

/// Sentences per thousand for each folder: with a headless subject, and of more than 25 words.
pub(super) const PROSE: &[(&str, usize, usize)] = &[
    ("crates/bench", 0, 0),
    ("crates/sandbox", 0, 0),
    ("docs", 51, 48),
    ("docs/adr", 2, 19),
    ("helm/rtm-bridge", 69, 16),
    ("migrations", 200, 0),
    ("src", 0, 0),
    ("src/app", 0, 0),
    ("src/cli", 0, 0),
    ("src/config", 0, 0),
    ("src/doctor", 0, 0),
    ("src/domain", 0, 0),
    ("src/http", 0, 0),
    ("src/hub", 0, 0),
    ("src/link", 2, 0),
    ("src/metrics", 0, 0),
    ("src/reply_content", 0, 0),
    ("src/identity", 16, 0),
    ("src/rhythm", 0, 0),
    ("src/rtm", 0, 0),
    ("src/runtime", 0, 0),
    ("src/store", 1, 3),
    ("src/tcp", 0, 0),
    ("src/telemetry", 0, 0),
    ("src/tls", 0, 0),
    ("src/wall_clock", 0, 0),
    ("src/webhook", 0, 0),
    ("top", 8, 0),
];
