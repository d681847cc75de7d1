//! A Redis of a test's own, as a process of its own.
//!
//! It stands on the standard library alone, because the store's own tests include it too.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// An empty Redis on loopback, killed when it is dropped.
pub(crate) struct RedisServer {
    child: Child,
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one with these options besides.
    pub(crate) fn start(options: &[&str]) -> Self {
        // Between finding a free port and taking it another may be faster.
        loop {
            let dir = tempfile::tempdir().unwrap();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new("redis-server")
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--port",
                    &port.to_string(),
                ])
                .args(options)
                .current_dir(&dir)
                .stdout(Stdio::piped())
                .spawn()
                .expect("redis-server is installed (scripts/test does it)");
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            if lines.map_while(Result::ok).any(|line| line.contains("Ready to accept connections")) {
                return Self { child, port, _dir: dir };
            }
            child.wait().unwrap();
        }
    }

    /// What redis-cli answers.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(command).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
