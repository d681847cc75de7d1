//! A Redis process for one test.
//!
//! It uses the standard library only, because the store's unit tests include this file too.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};

/// An empty Redis on loopback, killed when it is dropped.
pub(crate) struct RedisServer {
    pub(crate) child: Child,
    pub(crate) port: u16,
    /// Kept open while the process may print.
    _output: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

/// Returns a port without a listener.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl RedisServer {
    /// Starts a server with additional options.
    pub(crate) fn start(options: &[&str]) -> Self {
        // Another process may take the free port first.
        let start = || {
            let port = free_port();
            Self::start_on(port, &[&["--port", &port.to_string()], options].concat())
        };
        (0..20).find_map(|_| start()).expect("redis-server starts on a free port")
    }

    /// Starts a server whose options contain this port. Returns `None` if it stops at once.
    pub(crate) fn start_on(port: u16, options: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(options)
            .current_dir(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server 7 is installed (scripts/test does it)");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            if line.contains("Ready to accept connections") {
                return Some(Self { child, port, _output: output, _dir: dir });
            }
            line.clear();
        }
        child.wait().unwrap();
        None
    }

    /// Returns the answer of redis-cli.
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
