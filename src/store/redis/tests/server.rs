//! A Redis of a test's own, and the store on it.

#[path = "../../../../tests/cli/redis.rs"]
mod process;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

use self::process::RedisServer;
use crate::config::{HostPort, RedisServers, RedisTopology, StoreConfig, StoreUrl};
use crate::store::redis::RedisStore;

pub(in super::super) use self::process::free_port;

/// A server, killed with the test. It keeps nothing unless told so.
pub(in super::super) struct Server(RedisServer);

impl Server {
    pub(in super::super) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(in super::super) fn start_with(options: &[&str]) -> Self {
        Self(RedisServer::start(options))
    }

    /// One on this port.
    pub(in super::super) fn start_on(port: u16) -> Self {
        Self(RedisServer::start_on(port, &["--port", &port.to_string()]).expect("the port is free"))
    }

    /// One over TLS alone, with the fixtures' certificates; clients must show one too.
    pub(in super::super) fn start_tls() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        let file = |name: &str| fixtures.join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.crt"), file("server.crt"), file("server.key"));
        let start = || {
            let port = free_port();
            let number = port.to_string();
            let ports = ["--port", "0", "--tls-port", &number, "--tls-auth-clients", "yes"];
            let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate, "--tls-key-file", &key];
            RedisServer::start_on(port, &[&ports[..], &files].concat())
        };
        Self((0..20).find_map(|_| start()).expect("redis-server speaks TLS"))
    }

    pub(in super::super) const fn port(&self) -> u16 {
        self.0.port
    }

    /// How to reach it; an answer is waited for for a second.
    pub(in super::super) fn options(&self) -> StoreConfig {
        options(RedisTopology::Alone(local(self.port())))
    }

    /// The same, where no answer is too late.
    pub(in super::super) fn patient(&self) -> StoreConfig {
        let key_prefix = "t".to_owned();
        StoreConfig { key_prefix, command_timeout: Duration::from_secs(10), ..self.options() }
    }

    /// The store on it.
    pub(in super::super) fn store(&self) -> RedisStore {
        RedisStore::new(&StoreConfig { message_ttl: super::MESSAGE_TTL, ..self.patient() }).unwrap()
    }

    /// How tests reach it past the store.
    pub(in super::super) fn client(&self) -> Client {
        Client::open(("127.0.0.1", self.port())).unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        self.client().get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Carries out a command, past the store.
    pub(in super::super) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = Cmd::new();
        cmd.arg(words);
        cmd.query_async(&mut self.connection().await).await.unwrap()
    }

    /// What `redis-cli` says.
    pub(in super::super) fn cli(&self, words: &[&str]) -> String {
        self.0.ask(words)
    }

    /// Sends a signal by name.
    pub(in super::super) fn signal(&self, name: &str) {
        let id = self.0.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

/// A server of this machine.
pub(in super::super) fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

/// A store on such servers, that waits a second for an answer.
pub(in super::super) fn options(topology: RedisTopology) -> StoreConfig {
    StoreConfig {
        url: StoreUrl::Redis(RedisServers { topology, tls: false, database: 0 }),
        command_timeout: Duration::from_secs(1),
        ..StoreConfig::default()
    }
}
