//! A `redis-server` of a test's own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::config::{Address, RedisServers, Store, StoreUrl, Topology};

/// A server, ended with the value. It keeps nothing unless told so.
pub(super) struct Server {
    pub(super) port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// A server on a free port.
    pub(super) async fn start(options: &[&str]) -> Self {
        let port = free_port();
        Self::start_at(port, &["--port", &port.to_string()], options).await
    }

    /// The same over TLS, with the fixtures' certificates; clients must show one too.
    pub(super) async fn start_tls(options: &[&str]) -> Self {
        let port = free_port();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        let file = |name: &str| fixtures.join(name).display().to_string();
        let port_text = port.to_string();
        let tls = ["--port", "0", "--tls-port", &port_text, "--tls-auth-clients", "yes"];
        let (ca, certificate, key) = (file("ca.crt"), file("server.crt"), file("server.key"));
        let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        Self::start_at(port, &[tls, files].concat(), options).await
    }

    pub(super) async fn start_at(port: u16, place: &[&str], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(place)
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let server = Self { port, child, _folder: folder };
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), listens).await.expect("redis-server listens");
        server
    }

    /// How to reach it.
    pub(super) fn options(&self) -> Store {
        options(Topology::Alone(local(self.port)))
    }

    /// Sends a signal by name.
    pub(super) fn signal(&self, name: &str) {
        let signal = format!("-{name}");
        assert!(
            Command::new("kill").args([&signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    /// What `redis-cli` says.
    pub(super) fn cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of this machine.
pub(super) fn local(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port }
}

/// A store on such servers, that waits a second for an answer.
pub(super) fn options(topology: Topology) -> Store {
    Store {
        url: StoreUrl::Redis(RedisServers { topology, tls: false, database: 0 }),
        command_timeout: Duration::from_secs(1),
        ..Store::default()
    }
}
