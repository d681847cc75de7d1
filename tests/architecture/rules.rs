//! The rules themselves, as tables, and the verdict on one file.
//!
//! A new layer, arrow or fence is a line here and a line in docs/architecture.md.

use std::fmt;

use super::reading::{self, What};

/// The most lines of a file, its tests not counted. About 400 is the aim; the rest is for the last fix.
pub(super) const LINES: usize = 440;

/// Who may use whom, in order of the layers: a layer's name, then those it may use besides itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "doctor",
            "webhook",
            "store",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "runtime",
            "tcp",
            "tls",
        ],
    ),
    ("doctor", &["rtm", "webhook", "store", "domain", "config", "metrics", "tcp", "tls", "wall_clock"]),
    (
        "app",
        &[
            "http",
            "hub",
            "identity",
            "webhook",
            "store",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "runtime",
        ],
    ),
    (
        "http",
        &[
            "hub",
            "identity",
            "reply_content",
            "rhythm",
            "store",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "runtime",
            "wall_clock",
        ],
    ),
    (
        "hub",
        &["link", "rhythm", "store", "domain", "config", "metrics", "telemetry", "runtime", "wall_clock"],
    ),
    (
        "webhook",
        &[
            "reply_content",
            "store",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "runtime",
            "tcp",
            "tls",
            "wall_clock",
        ],
    ),
    (
        "link",
        &["rtm", "rhythm", "store", "domain", "config", "metrics", "telemetry", "runtime", "wall_clock"],
    ),
    (
        "rtm",
        &["reply_content", "domain", "config", "metrics", "telemetry", "runtime", "tcp", "tls", "wall_clock"],
    ),
    ("store", &["domain", "config", "metrics", "telemetry", "runtime"]),
    // The tokens of callers.
    ("identity", &["domain", "config", "metrics", "tcp", "tls"]),
    // The one reader of the platform's messages.
    ("reply_content", &["domain"]),
    // What is learned of bots.
    ("rhythm", &["domain", "config"]),
    // Leaves for all above the domain.
    ("metrics", &["domain"]),
    ("telemetry", &["config", "domain"]),
    ("runtime", &[]),
    ("tcp", &["config", "tls"]),
    ("tls", &[]),
    ("wall_clock", &["domain"]),
    ("config", &["domain"]),
    ("domain", &[]),
];

/// Crates that do I/O or are somebody's framework, and where they may be named.
const FENCES: &[(&[&str], &[&str])] = &[
    (
        &["awc"],
        &[
            "rtm/connector",
            "rtm/platform_clients",
            "rtm/socket",
            "rtm/grant",
            "rtm/history_request",
            "rtm/upload",
            "webhook/sender",
            "identity/key_set_fetch",
            "cli",
        ],
    ),
    // The client itself comes with the pool: `redis::` is our own module.
    (&["deadpool", "deadpool_redis"], &["store/redis"]),
    (&["actix_web"], &["http", "app", "cli"]),
    // The trait of a connection that awc takes.
    (&["actix_rt"], &["tcp/outgoing_stream"]),
    // Frames and their codec, which awc's connections speak too.
    (&["actix_http"], &["http", "app", "cli", "rtm/connector", "rtm/socket", "webhook/sender"]),
    // The simulated platform is for the command line, and for the tests of any layer.
    (&["rtm_sandbox"], &["cli"]),
];

/// Where threads and tasks may start.
const SPAWNERS: &[&str] = &["runtime", "hub/shard", "app", "http/api_server", "webhook/sender"];

/// The last two segments of what starts them, and the methods that do.
const SPAWN_PATHS: &[[&str; 2]] = &[
    ["tokio", "spawn"],
    ["task", "spawn"],
    ["task", "spawn_local"],
    ["task", "spawn_blocking"],
    ["rt", "spawn"],
    ["actix_rt", "spawn"],
    ["thread", "spawn"],
    ["thread", "Builder"],
];
const SPAWN_METHODS: &[&str] = &["spawn", "spawn_local", "spawn_blocking"];

/// Files that take time and randomness as arguments.
const PURE: &[&str] = &[
    "domain",
    "reply_content",
    "rhythm",
    "identity/claims",
    "identity/key_set",
    "identity/read_token",
    "identity/token_verifier",
    "link/machine",
    "link/turn",
    "link/turn_rhythm",
    "link/new_deliveries",
    "link/backfill_schedule",
    "link/dedup",
    "hub/rebalance",
    "webhook/scheduler",
    "webhook/circuit_breaker",
    "webhook/endpoint_board",
    "webhook/retry_schedule",
];
/// Files that read no clock, although they wait.
const CLOCKLESS: &[&str] = &["store/mod.rs"];

const CLOCKS: &[&str] = &["Instant", "SystemTime"];
const CLOCK_PATHS: &[[&str; 2]] =
    &[["Timestamp", "now"], ["Zoned", "now"], ["Ulid", "new"], ["Ulid", "generate"], ["Ulid", "now"]];
const IMPURE_CRATES: &[&str] = &["tokio", "tokio_util", "futures_util"];
/// A generator that was seeded elsewhere is an argument like any other.
const SEEDED: [&str; 2] = ["fastrand", "Rng"];
const IMPURE_STD: &[&str] = &["env", "fs", "net", "process", "thread"];

/// Words that name no thing.
const EMPTY_WORDS: &[&str] =
    &["manager", "managers", "helper", "helpers", "util", "utils", "common", "misc", "handler2"];

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A layer uses one it may not.
    Arrow,
    /// A crate is named outside its place.
    Fence,
    /// A thread or task starts without an owner.
    Spawn,
    /// Pure code reads a clock, waits, draws lots or does I/O.
    Pure,
    /// A file or layer stands where none belongs.
    Layout,
    /// A name says nothing.
    Name,
    /// A file is too long.
    Length,
    /// A file cannot be read as Rust.
    Unreadable,
}

/// One broken rule.
#[derive(Debug)]
pub(super) struct Violation {
    /// Which.
    pub rule: Rule,
    path: String,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Returns every place below `src/` that a rule names. A place without a file would guard nothing.
pub(super) fn places() -> impl Iterator<Item = &'static str> {
    let fenced = FENCES.iter().flat_map(|(_, places)| places.iter());
    let clockless = CLOCKLESS.iter().map(|path| path.trim_end_matches(".rs"));
    fenced.chain(SPAWNERS).chain(PURE).copied().chain(clockless)
}

/// Returns whether a file of `src/` belongs to a place.
pub(super) fn is_in(path: &str, place: &str) -> bool {
    within(path, &[place])
}

/// Returns the rules that `text` breaks as the file `path` of the repository, each fault once. The rules about layers
/// hold for the server's `src/` only.
pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut faults = match path.strip_prefix("src/") {
        Some(path) => layer_faults(path, text),
        None => Vec::new(),
    };
    for word in path.trim_end_matches(".rs").split(['/', '_']).filter(|word| EMPTY_WORDS.contains(word)) {
        faults.push((Rule::Name, format!("`{word}` names no thing; call the file by the noun it holds")));
    }
    let lines = lines(text);
    if lines > LINES && !reading::is_test_file(path) {
        faults.push((
            Rule::Length,
            format!(
                "{lines} lines, {LINES} are the most; find the second noun in it and give that a file of its own"
            ),
        ));
    }
    faults.into_iter().map(|(rule, what)| Violation { rule, path: path.to_owned(), what }).collect()
}

/// Returns the rules about layers that `text` breaks as the file `src/{path}`.
fn layer_faults(path: &str, text: &str) -> Vec<(Rule, String)> {
    let mut faults: Vec<(Rule, String)> = Vec::new();
    let mut fault = |rule, what: String| {
        if !faults.iter().any(|(_, known)| *known == what) {
            faults.push((rule, what));
        }
    };

    let layer = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let arrows = ARROWS.iter().find(|(name, _)| *name == layer).map(|(_, uses)| *uses);
    if arrows.is_none() && layer != "lib" {
        fault(
            Rule::Layout,
            format!(
                "`{layer}` is no layer; move it into one, or draw it in docs/architecture.md and in the arrows of this test"
            ),
        );
    }
    match reading::mentions(path, text) {
        Ok(mentions) => {
            for mention in mentions {
                if let Some((rule, what)) = judge(path, layer, arrows, &mention.what, mention.test) {
                    fault(rule, what);
                }
            }
        }
        Err(error) => fault(Rule::Unreadable, format!("not Rust: {error}")),
    }
    faults
}

fn judge(
    path: &str,
    layer: &str,
    arrows: Option<&[&str]>,
    what: &What,
    test: bool,
) -> Option<(Rule, String)> {
    let named = match what {
        What::Path(segments) => segments.join("::"),
        What::Method(name) => format!(".{name}()"),
        What::Async => "async".to_owned(),
        What::RootCode => {
            return Some((
                Rule::Layout,
                "lib.rs only declares and documents; give the code a module".to_owned(),
            ));
        }
    };
    if let What::Path(segments) = what
        && let [root, target, ..] = segments.as_slice()
        && root == "crate"
        && let Some(arrows) = arrows
        && target != layer
        && !arrows.contains(&target.as_str())
        // An item of the crate's root, such as `crate::VERSION`, is not a layer.
        && target.starts_with(char::is_lowercase)
    {
        let may = if arrows.is_empty() { "nothing of ours".to_owned() } else { arrows.join(", ") };
        return Some((
            Rule::Arrow,
            format!("`{named}` goes against the arrows: {layer} may use {may} (docs/architecture.md)"),
        ));
    }
    if test {
        return None;
    }
    if let What::Path(segments) = what
        && let Some(first) = segments.first()
        && let Some((_, places)) = FENCES.iter().find(|(crates, _)| crates.contains(&first.as_str()))
        && !within(path, places)
    {
        return Some((Rule::Fence, format!("`{named}`: {first} belongs to {} only", places.join(", "))));
    }
    if starts_something(what) && !within(path, SPAWNERS) {
        return Some((
            Rule::Spawn,
            format!(
                "`{named}`: threads and tasks start in {} only, so that each has an owner",
                SPAWNERS.join(", ")
            ),
        ));
    }
    let pure = within(path, PURE);
    if (pure && is_impure(what)) || ((pure || CLOCKLESS.contains(&path)) && reads_a_clock(what)) {
        return Some((
            Rule::Pure,
            format!("`{named}` in pure code; take time, randomness and I/O's results as arguments"),
        ));
    }
    None
}

/// Whether the file is one of these places: `rtm/socket` is `rtm/socket.rs` and all below `rtm/socket/`.
fn within(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
}

fn ends_with(segments: &[String], endings: &[[&str; 2]]) -> bool {
    endings.iter().any(|ending| segments.windows(2).any(|pair| pair == ending.as_slice()))
}

fn starts_something(what: &What) -> bool {
    match what {
        What::Path(segments) => ends_with(segments, SPAWN_PATHS),
        What::Method(name) => SPAWN_METHODS.contains(&name.as_str()),
        What::Async | What::RootCode => false,
    }
}

fn reads_a_clock(what: &What) -> bool {
    let What::Path(segments) = what else { return false };
    segments.iter().any(|segment| CLOCKS.contains(&segment.as_str())) || ends_with(segments, CLOCK_PATHS)
}

fn is_impure(what: &What) -> bool {
    match what {
        What::Path(segments) => match segments.as_slice() {
            [first, ..] if IMPURE_CRATES.contains(&first.as_str()) => true,
            [first, ..] if first == "fastrand" => {
                !segments.starts_with(&SEEDED.map(str::to_owned)) || draws(segments)
            }
            [first, second, ..] if first == "std" => IMPURE_STD.contains(&second.as_str()),
            _ => draws(segments),
        },
        What::Method(_) | What::RootCode => false,
        What::Async => true,
    }
}

/// Whether it is a generator that seeds itself.
fn draws(segments: &[String]) -> bool {
    ends_with(segments, &[["Rng", "new"]])
}

/// Lines without the test module at the end.
pub(super) fn lines(text: &str) -> usize {
    const TESTS: &str = "\n#[cfg(test)]\nmod ";
    let code = match text.rfind(TESTS) {
        // The module must reach to the file's end: its closing brace is the only one at the line's start.
        Some(at) if text[at..].trim_end().ends_with("\n}") && text[at..].matches("\n}").count() == 1 => {
            &text[..at]
        }
        _ => text,
    };
    code.lines().count()
}
