//! A `redis-server`.

use std::path::Path;

use rtm_bridge::config::{self, RedisServers, RedisTopology, StoreTls, StoreUrl};
use tempfile::TempDir;

use super::resp::{Resp, ask};
use super::{address, free_port};
use crate::support::process::Process;
use crate::support::until;

const CONFIGURATION: &str = "redis.conf";
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// The options of a server. By default it writes nothing to disk.
#[derive(Clone, Default)]
pub(crate) struct RedisOptions {
    /// The memory limit in bytes; 0 for no limit.
    pub(crate) maxmemory: usize,
    /// Whether the server writes all data to disk and loads it at [`RedisServer::restart`].
    pub(crate) appendonly: bool,
    /// The default user's password.
    pub(crate) password: Option<&'static str>,
    /// An additional user with all rights, and its password.
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// Whether clients must use TLS and a certificate (tests/fixtures/tls.pem, which is its own authority). The port of
    /// [`RedisServer::command`] stays without TLS.
    pub(crate) tls: bool,
    /// Whether the server is a sentinel. A sentinel has only the settings in [`RedisOptions::lines`].
    pub(crate) sentinel: bool,
    /// Additional lines of its configuration.
    pub(crate) lines: Vec<String>,
    /// A file in its directory: name and text.
    pub(crate) file: Option<(&'static str, String)>,
}

impl RedisOptions {
    /// Adds a line to the configuration.
    pub(crate) fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    fn text(&self, dir: &Path, port: u16, tls_port: u16) -> String {
        let mut text =
            vec![format!("port {port}"), "bind 127.0.0.1".to_owned(), format!("dir \"{}\"", dir.display())];
        if !self.sentinel {
            text.extend(self.settings(tls_port));
        }
        text.extend(self.lines.iter().cloned());
        text.join("\n") + "\n"
    }

    fn settings(&self, tls_port: u16) -> Vec<String> {
        let mut text = vec![
            "save \"\"".to_owned(),
            "maxmemory-policy noeviction".to_owned(),
            // Without a disk, a replica would seem to follow one second too early.
            "repl-diskless-sync no".to_owned(),
            "enable-debug-command local".to_owned(),
            format!("maxmemory {}", self.maxmemory),
            format!("appendonly {}", if self.appendonly { "yes" } else { "no" }),
            "appendfsync always".to_owned(),
        ];
        if let Some(password) = self.password {
            text.push(format!("requirepass {password}"));
        }
        if let Some((user, password)) = self.user {
            text.push(format!("user {user} on >{password} ~* &* +@all"));
        }
        if self.tls {
            text.push(format!("tls-port {tls_port}"));
            text.push(format!("tls-cert-file {FIXTURES}/tls.pem"));
            text.push(format!("tls-key-file {FIXTURES}/tls.key.pem"));
            text.push(format!("tls-ca-cert-file {FIXTURES}/tls.pem"));
            text.push("tls-auth-clients yes".to_owned());
        }
        text
    }
}

/// A running server. A drop ends it.
pub(crate) struct RedisServer {
    /// Empty after a kill.
    process: Option<Process>,
    dir: TempDir,
    options: RedisOptions,
    pub(crate) port: u16,
    tls_port: u16,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it accepts commands.
    pub(crate) async fn start(options: RedisOptions) -> Self {
        loop {
            if let Some(server) = Self::start_on(free_port(), options.clone()).await {
                return server;
            }
        }
    }

    /// Starts a server on this port. Returns `None` if the port is taken.
    pub(super) async fn start_on(port: u16, options: RedisOptions) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let tls_port = if options.tls { free_port() } else { 0 };
        std::fs::write(dir.path().join(CONFIGURATION), options.text(dir.path(), port, tls_port)).unwrap();
        if let Some((name, text)) = &options.file {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut server = Self { process: None, options, port, tls_port, dir };
        server.run().await.then_some(server)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the process. Returns `false` if a port is taken.
    async fn run(&mut self) -> bool {
        let log = self.path("log");
        std::fs::remove_file(&log).ok();
        let mut arguments = vec![self.path(CONFIGURATION).to_str().unwrap().to_owned()];
        if self.options.sentinel {
            arguments.push("--sentinel".to_owned());
        }
        let process = Process::start("redis-server", &arguments, &log);
        let mut text = String::new();
        until("redis-server is ready", async || {
            text = process.log();
            assert!(!text.contains("not found"), "redis-server is missing: apt-get install redis-server");
            assert!(!text.contains("FATAL CONFIG"), "{text}");
            text.contains("Ready to accept connections")
                || text.contains("Sentinel ID is")
                || text.contains("Failed listening")
                || text.contains("bind: Address already in use")
        })
        .await;
        if text.contains("Failed listening") || text.contains("Address already in use") {
            return false;
        }
        self.process = Some(process);
        true
    }

    /// Returns the value of `store.url`.
    pub(crate) fn url(&self) -> String {
        if self.options.tls {
            format!("rediss://localhost:{}/0", self.tls_port)
        } else {
            format!("redis://127.0.0.1:{}/0", self.port)
        }
    }

    /// Returns the configuration for this server.
    pub(crate) fn config(&self) -> config::StoreConfig {
        let mut config = super::config(RedisTopology::Alone(address(self.port)));
        config.password = self.options.password.map(Into::into);
        if let Some((user, password)) = self.options.user {
            config.username = Some(user.to_owned());
            config.password = Some(password.into());
        }
        if self.options.tls {
            let pem = |name: &str| std::fs::read_to_string(format!("{FIXTURES}/{name}")).unwrap();
            let host = config::HostPort { host: "localhost".to_owned(), port: self.tls_port };
            config.url = StoreUrl::Redis(RedisServers {
                topology: RedisTopology::Alone(host),
                tls: true,
                database: 0,
            });
            let certificate = pem("tls.pem").into_bytes();
            config.tls = StoreTls {
                ca: Some(certificate.clone()),
                client: Some((certificate, pem("tls.key.pem").into())),
            };
        }
        config
    }

    /// Sends a command and returns the answer.
    pub(crate) async fn command(&self, words: &[&str]) -> Resp {
        self.ask(words).await.unwrap()
    }

    /// Sends a command to a server that may be down.
    pub(super) async fn ask(&self, words: &[&str]) -> std::io::Result<Resp> {
        match self.options.password {
            Some(password) => ask(self.port, &[&["AUTH", password], words]).await,
            None => ask(self.port, &[words]).await,
        }
    }

    /// Returns a field of `INFO`, or `None` if the server is down or has no such field.
    pub(crate) async fn info(&self, field: &str) -> Option<String> {
        let info = self.ask(&["INFO"]).await.ok()?;
        let Resp::Text(text) = info else { return None };
        let value = |line: &str| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned);
        text.lines().find_map(value)
    }

    /// Removes all data.
    pub(crate) async fn flush(&self) {
        assert_eq!(self.command(&["FLUSHALL"]).await.text(), "OK");
    }

    /// Pauses the process: connections stay open without answers.
    pub(crate) fn pause(&mut self) {
        self.signal("STOP");
    }

    /// Resumes the process.
    pub(crate) fn resume(&mut self) {
        self.signal("CONT");
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.process.as_mut().unwrap().wait();
        self.process = None;
    }

    fn signal(&mut self, name: &str) {
        assert!(self.process.as_mut().expect("it was killed").signal(name), "it has ended by itself");
    }

    /// Ends the process and starts it again on the same port, with its data on disk.
    pub(crate) async fn restart(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        assert!(self.run().await, "somebody took port {} meanwhile", self.port);
    }

    /// Starts the process again on the same port, without data.
    pub(crate) async fn restart_empty(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        std::fs::remove_dir_all(self.path("appendonlydir")).ok();
        std::fs::remove_file(self.path("dump.rdb")).ok();
        self.restart().await;
    }

    /// Returns whether the process runs.
    pub(crate) const fn runs(&self) -> bool {
        self.process.is_some()
    }
}
