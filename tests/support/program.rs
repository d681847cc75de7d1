//! The program itself, as a process of its own.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

type Lines = Arc<Mutex<BufReader<Box<dyn Read + Send>>>>;

/// A running `rtm-bridge`, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    out: Lines,
}

impl Program {
    /// Starts the program, to read what it prints.
    pub(crate) fn printing(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self::reading(child, Box::new(out))
    }

    /// Starts the program, to read what it logs.
    pub(crate) fn logging(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let err = child.stderr.take().unwrap();
        Self::reading(child, Box::new(err))
    }

    fn reading(child: Child, out: Box<dyn Read + Send>) -> Self {
        Self { child, out: Arc::new(Mutex::new(BufReader::new(out))) }
    }

    /// The next line that contains this.
    pub(crate) async fn line_with(&mut self, words: &'static str) -> String {
        let out = Arc::clone(&self.out);
        let find = move || {
            let mut out = out.lock().unwrap();
            loop {
                let mut line = String::new();
                assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended without {words:?}");
                if line.contains(words) {
                    return line;
                }
            }
        };
        tokio::task::spawn_blocking(find).await.unwrap()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let out = Arc::clone(&self.out);
        // What it prints to ends with it. Meanwhile the test may run out of time, and then it is killed.
        let rest = move || out.lock().unwrap().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(rest).await.unwrap().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended, or it should.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program in an environment without anything of ours.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtm-bridge"));
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
    command
}
