//! The commands of Redis' clients, counted from the MONITOR stream, which names the sender of each command.
//!
//! The totals of `INFO` would also count the commands inside of scripts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Script, cmd};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use crate::bench_error::BenchError;
use crate::setup;
use crate::store::RedisProcess;

/// The timeout of a command that Redis has executed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The text before the hash of a script.
const CALL: &str = "evalsha ";

/// The number of client commands by name in some period.
#[derive(Default)]
pub(crate) struct CommandCounts {
    pub(crate) by_name: BTreeMap<String, u64>,
    pub(crate) span: Duration,
}

impl CommandCounts {
    /// Returns the commands of this name per second.
    pub(crate) fn rate(&self, name: &str) -> f64 {
        self.by_name.get(name).map_or(0.0, |&count| count as f64) / self.span.as_secs_f64()
    }

    /// Returns all commands per second.
    pub(crate) fn all(&self) -> f64 {
        self.by_name.values().sum::<u64>() as f64 / self.span.as_secs_f64()
    }
}

/// The names of scripts by their SHA-1. They come from earlier calls that carry the text, whose last line has the file's
/// name. A script of another build may have no name.
#[derive(Clone, Default)]
pub(crate) struct ScriptNames(Rc<RefCell<BTreeMap<String, String>>>);

impl ScriptNames {
    /// Learns the name from the arguments of EVAL or SCRIPT LOAD.
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

    /// Returns the name of a command, or of its script if that is known.
    fn name(&self, command: String) -> String {
        let Some(sha) = command.strip_prefix(CALL) else { return command };
        let names = self.0.borrow();
        format!("{CALL}{}", names.get(sha).map(String::as_str).or(sha.get(..7)).unwrap_or(sha))
    }
}

/// Returns the bytes of a quoted word up to its end.
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

/// Runs an action and counts the commands of other clients meanwhile.
pub(crate) async fn during<T>(
    store: &RedisProcess,
    names: &ScriptNames,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<(T, CommandCounts), BenchError> {
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
                    // MONITOR has the order of execution, so all commands before this one are counted.
                    Some((name, first)) if name == "echo" && first == mark => break,
                    Some((name, _)) => *counts.entry(name).or_default() += 1,
                    None => {}
                }
            }
            // A dropped receiver means that the measurement has failed and reports it.
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
            // One file may be several scripts, which differ in their flags.
            let mut by_name = BTreeMap::new();
            for (name, count) in counts {
                *by_name.entry(names.name(name)).or_default() += count;
            }
            Ok((result?, CommandCounts { by_name, span }))
        }
        _ => Err(BenchError::Closed { what: "MONITOR" }),
    }
}

/// Counts the commands during this period without any by this program.
pub(crate) async fn idle(
    store: &RedisProcess,
    names: &ScriptNames,
    span: Duration,
) -> Result<CommandCounts, BenchError> {
    let still = async {
        tokio::time::sleep(span).await;
        Ok(())
    };
    during(store, names, still).await.map(|((), counts)| counts)
}

/// Returns name and first argument of a client's command: `1763845000.123456 [0 127.0.0.1:5] "get" "key"`.
fn read(line: &str, names: &ScriptNames) -> Option<(String, String)> {
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
            // A command without a known name counts too.
            let _ = names.learn(arguments);
            command
        }
        _ => command,
    };
    Some((name, first.to_owned()))
}
