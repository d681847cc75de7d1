//! A program as a process that cannot outlive its test.
//!
//! A shell stands between: it starts the program, sends it the signals that it is told on its standard input, and
//! kills it when that closes, which it does however the test ends, `kill -9` included. Nothing here needs a
//! process id, which somebody else might have by then.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The log is `$0`, the program and its arguments are `$@`; each line it is told is answered with one.
const GUARDIAN: &str = r#"
"$@" >>"$0" 2>&1 </dev/null &
program=$!
while read -r order seconds; do
    case $order in
        wait) wait $program; echo $? ;;
        end)
            kill -TERM $program 2>>"$0"
            { sleep "$seconds"; kill -KILL $program; } >/dev/null 2>&1 &
            wait $program; echo $?; kill $! ;;
        *) kill -"$order" $program 2>>"$0"; echo $? ;;
    esac
done
kill -KILL $program 2>/dev/null
wait $program 2>/dev/null
"#;

/// A running program, killed when it is dropped.
pub(crate) struct Process {
    guardian: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints is added to the log.
    pub(crate) fn start(program: &str, arguments: &[String], log: &Path) -> Self {
        let mut guardian = Command::new("sh")
            .arg("-c")
            .arg(GUARDIAN)
            .arg(log)
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = guardian.stdin.take();
        let answers = BufReader::new(guardian.stdout.take().unwrap());
        Self { guardian, orders, answers, log: log.to_owned() }
    }

    /// Sends it a signal by its name without `SIG`; false where it has ended already.
    pub(crate) fn signal(&mut self, name: &str) -> bool {
        self.order(name) == 0
    }

    /// Waits until it has ended, and returns its code; a signal's number and 128 where one ended it.
    pub(crate) fn wait(&mut self) -> i32 {
        self.order("wait")
    }

    /// Asks it to end, and kills it when this time has passed, as a kubelet does; its code, as [`Process::wait`].
    pub(crate) fn end_within(&mut self, span: Duration) -> i32 {
        self.order(&format!("end {}", span.as_secs_f64()))
    }

    fn order(&mut self, order: &str) -> i32 {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap_or_else(|_| panic!("{order}: {answer:?}"))
    }

    /// All that it printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.guardian.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            println!("{}, its last lines:", self.log.display());
            for line in &lines[lines.len().saturating_sub(60)..] {
                println!("  {line}");
            }
        }
    }
}
