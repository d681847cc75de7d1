//! A Redis of a test's own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

use crate::config;
use crate::store::redis::Redis;

/// A server, killed with the test.
pub(super) struct Server {
    child: Child,
    port: u16,
    _output: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// Starts one, and waits until it says that it is there.
    pub(super) fn start() -> Self {
        (0..10).find_map(|_| Self::try_start()).expect("a free port")
    }

    /// None where somebody else took the port meanwhile.
    fn try_start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server 7 must be installed: apt-get install redis-server");
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

    /// The store on it.
    pub(super) fn store(&self) -> Redis {
        let command_timeout = Duration::from_secs(10);
        self.store_with(config::Store { command_timeout, ..config::Store::default() })
    }

    /// The store on it, with other settings.
    pub(super) fn store_with(&self, options: config::Store) -> Redis {
        let topology =
            config::Topology::Alone(config::Address { host: "127.0.0.1".to_owned(), port: self.port });
        Redis::new(&config::Store {
            url: config::StoreUrl::Redis(config::RedisServers { topology, tls: false, database: 0 }),
            key_prefix: "t".to_owned(),
            message_ttl: super::MESSAGE_TTL,
            ..options
        })
        .unwrap()
    }

    /// How tests reach it past the store.
    pub(super) fn client(&self) -> Client {
        Client::open(("127.0.0.1", self.port)).unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        self.client().get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Carries out a command, past the store.
    pub(super) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = Cmd::new();
        cmd.arg(words);
        cmd.query_async(&mut self.connection().await).await.unwrap()
    }
}
