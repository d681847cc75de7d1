//! What clients ask of Redis, counted by Redis: its MONITOR stream, in which each command stands with who sent it.
//!
//! Not `INFO`: its totals count what scripts call inside the server as if a client had sent it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Script, cmd};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::setup;
use crate::store::Store;

/// Nobody waits longer for what Redis has already carried out.
const PATIENCE: Duration = Duration::from_secs(30);

/// Before the name of a script.
const CALL: &str = "evalsha ";

/// Commands by name, that clients sent in a span of time.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) by_name: BTreeMap<String, u64>,
    pub(crate) span: Duration,
}

impl Counts {
    /// Commands a second, of this name.
    pub(crate) fn rate(&self, name: &str) -> f64 {
        self.by_name.get(name).map_or(0.0, |&count| count as f64) / self.span.as_secs_f64()
    }

    /// Commands a second, of all names.
    pub(crate) fn all(&self) -> f64 {
        self.by_name.values().sum::<u64>() as f64 / self.span.as_secs_f64()
    }
}

/// The names of scripts, by their SHA-1. They are learnt from the calls that carry the text, which come first: a text
/// ends as the file of its name does. Another build's may stay without.
#[derive(Clone, Default)]
pub(crate) struct Names(Rc<RefCell<BTreeMap<String, String>>>);

impl Names {
    /// Looks at the arguments of EVAL or SCRIPT LOAD.
    fn learn(&self, arguments: &str) -> Option<()> {
        let text = unescape(arguments.trim_start_matches("\"load\" "));
        let text = std::str::from_utf8(&text).ok()?;
        let files = fs::read_dir(setup::SCRIPTS).ok()?;
        let paths = files.filter_map(|entry| Some(entry.ok()?.path()));
        let ends_it = |path: &PathBuf| {
            fs::read_to_string(path).is_ok_and(|file| text.trim_end().ends_with(file.trim_end()))
        };
        let name = paths.filter(ends_it).find_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))?;
        self.0.borrow_mut().insert(Script::new(text).get_hash().to_owned(), name);
        Some(())
    }

    /// The name of a command, a script's own where it is known by now: it is called before its text is asked for.
    fn name(&self, command: String) -> String {
        let Some(sha) = command.strip_prefix(CALL) else { return command };
        let names = self.0.borrow();
        format!("{CALL}{}", names.get(sha).map(String::as_str).or(sha.get(..7)).unwrap_or(sha))
    }
}

/// The bytes of a word in quotes, up to its end.
fn unescape(quoted: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = quoted.bytes().skip(1);
    while let Some(byte) = rest.next().filter(|&byte| byte != b'"') {
        let meant = match byte {
            b'\\' => rest.next(),
            plain => {
                bytes.push(plain);
                continue;
            }
        };
        match meant {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'a') => bytes.push(7),
            Some(b'b') => bytes.push(8),
            Some(b'x') => {
                let digits =
                    [rest.next(), rest.next()].map(|digit| digit.map_or('0', char::from).to_digit(16));
                if let [Some(high), Some(low)] = digits {
                    bytes.extend(u8::try_from(high * 16 + low));
                }
            }
            other => bytes.extend(other),
        }
    }
    bytes
}

/// Does something, and counts what clients ask meanwhile, this program left out.
pub(crate) async fn during<T>(
    store: &Store,
    names: &Names,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<(T, Counts), Failure> {
    let stream = store.client.get_async_monitor().await?.into_on_message::<String>();
    let mark = format!("mark-{}", std::process::id());
    let (done, at_end) = oneshot::channel();
    let counting = tokio::task::spawn_local({
        let (mark, names) = (mark.clone(), names.clone());
        async move {
            let mut stream = Box::pin(stream);
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            while let Some(line) = stream.next().await {
                match read(&line, &names) {
                    // In the order in which Redis carried them out: all that is counted is there by now.
                    Some((name, first)) if name == "echo" && first == mark => break,
                    Some((name, _)) => *counts.entry(name).or_default() += 1,
                    None => {}
                }
            }
            // Nobody waits for it any more: the measurement has failed, and says so itself.
            let _ = done.send(counts);
        }
    });
    let began = Instant::now();
    let result = work.await;
    let span = began.elapsed();
    let _: String = cmd("ECHO").arg(&mark).query_async(&mut store.connection()).await?;
    let counted = tokio::time::timeout(PATIENCE, at_end).await;
    counting.abort();
    match counted {
        Ok(Ok(counts)) => {
            let by_name = counts.into_iter().map(|(name, count)| (names.name(name), count)).collect();
            Ok((result?, Counts { by_name, span }))
        }
        _ => Err(Failure::Closed { what: "MONITOR" }),
    }
}

/// What is asked in so long a time in which this program asks for nothing.
pub(crate) async fn idle(store: &Store, names: &Names, span: Duration) -> Result<Counts, Failure> {
    let still = async {
        tokio::time::sleep(span).await;
        Ok(())
    };
    during(store, names, still).await.map(|((), counts)| counts)
}

/// The name of a command that a client sent, and its first argument: `1763845000.123456 [0 127.0.0.1:5] "get" "key"`.
fn read(line: &str, names: &Names) -> Option<(String, String)> {
    let (_, rest) = line.split_once('[')?;
    let (source, words) = rest.split_once("] ")?;
    if source.ends_with(" lua") {
        return None;
    }
    let (command, arguments) = words.split_once(' ').unwrap_or((words, ""));
    let command = command.trim_matches('"').to_ascii_lowercase();
    let first = arguments.split(' ').next().unwrap_or_default().trim_matches('"');
    let name = match command.as_str() {
        "evalsha" => format!("{CALL}{first}"),
        "eval" | "script" => {
            // What cannot be named is counted all the same.
            let _ = names.learn(arguments);
            command
        }
        _ => command,
    };
    Some((name, first.to_owned()))
}
