//! A program as a process that cannot outlive its test.
//!
//! A shell starts the program and reads the names of signals from its standard input. It kills the program when that
//! input closes, which happens at any end of the test, even by `kill -9`. No code here uses a process id, which another
//! process might have by then.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The guardian's script. The log is `$0`, the program with its arguments is `$@`. The script answers each line.
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

/// A running program. A drop kills it.
pub(crate) struct Process {
    guardian: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Process {
    /// Starts the program and appends its output to the log.
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

    /// Sends a signal by its name without `SIG`. Returns `false` if the program has ended already.
    pub(crate) fn signal(&mut self, name: &str) -> bool {
        self.order(name) == 0
    }

    /// Waits for the end and returns the exit code: 128 plus the number of a signal that ended it.
    pub(crate) fn wait(&mut self) -> i32 {
        self.order("wait")
    }

    /// Asks the program to end and kills it after this time, as a kubelet does. Returns the code as [`Process::wait`] does.
    pub(crate) fn end_within(&mut self, span: Duration) -> i32 {
        self.order(&format!("end {}", span.as_secs_f64()))
    }

    fn order(&mut self, order: &str) -> i32 {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap_or_else(|_| panic!("{order}: {answer:?}"))
    }

    /// Returns the output so far.
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
