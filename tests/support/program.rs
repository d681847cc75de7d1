//! The program as a process of its own.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

type Lines = Arc<Mutex<BufReader<Box<dyn Read + Send>>>>;

/// A running `rtm-bridge`. A drop kills it.
pub(crate) struct Program {
    child: Child,
    out: Lines,
}

impl Program {
    /// Starts the program with readable output.
    pub(crate) fn printing(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self::reading(child, Box::new(out))
    }

    /// Starts the program with a readable log.
    pub(crate) fn logging(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let err = child.stderr.take().unwrap();
        Self::reading(child, Box::new(err))
    }

    fn reading(child: Child, out: Box<dyn Read + Send>) -> Self {
        Self { child, out: Arc::new(Mutex::new(BufReader::new(out))) }
    }

    /// Returns the next line that contains these words.
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

    /// Asks the program to end and waits for its exit status.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let out = Arc::clone(&self.out);
        // The output ends with the program. If the test times out meanwhile, the drop kills the program.
        let rest = move || out.lock().unwrap().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(rest).await.unwrap().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process has ended, or must end now.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Creates a command without the bridge's environment variables.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtm-bridge"));
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
    command
}
