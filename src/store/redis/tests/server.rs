//! A Redis server of one test, and the store on it.

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

/// A server that is killed with the test. It does not persist by default.
pub(in super::super) struct Server(RedisServer);

impl Server {
    pub(in super::super) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(in super::super) fn start_with(options: &[&str]) -> Self {
        Self(RedisServer::start(options))
    }

    /// Starts one on this port.
    pub(in super::super) fn start_on(port: u16) -> Self {
        Self(RedisServer::start_on(port, &["--port", &port.to_string()]).expect("the port is free"))
    }

    /// Starts one with TLS only and the fixtures' certificates. Clients must show a certificate.
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

    /// Returns its options with a timeout of a second.
    pub(in super::super) fn options(&self) -> StoreConfig {
        options(RedisTopology::Alone(local(self.port())))
    }

    /// Returns its options with a long timeout.
    pub(in super::super) fn patient(&self) -> StoreConfig {
        let key_prefix = "t".to_owned();
        StoreConfig { key_prefix, command_timeout: Duration::from_secs(10), ..self.options() }
    }

    /// Returns the store on it.
    pub(in super::super) fn store(&self) -> RedisStore {
        RedisStore::new(&StoreConfig { message_ttl: super::MESSAGE_TTL, ..self.patient() }).unwrap()
    }

    /// Returns a client that bypasses the store.
    pub(in super::super) fn client(&self) -> Client {
        Client::open(("127.0.0.1", self.port())).unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        self.client().get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Carries out a command that bypasses the store.
    pub(in super::super) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = Cmd::new();
        cmd.arg(words);
        cmd.query_async(&mut self.connection().await).await.unwrap()
    }

    /// Returns the output of `redis-cli`.
    pub(in super::super) fn cli(&self, words: &[&str]) -> String {
        self.0.ask(words)
    }

    /// Sends a signal by name.
    pub(in super::super) fn signal(&self, name: &str) {
        let id = self.0.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

/// Returns the address of a server on this machine.
pub(in super::super) fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

/// Returns the options of a store on such servers, with a timeout of a second.
pub(in super::super) fn options(topology: RedisTopology) -> StoreConfig {
    StoreConfig {
        url: StoreUrl::Redis(RedisServers { topology, tls: false, database: 0 }),
        command_timeout: Duration::from_secs(1),
        ..StoreConfig::default()
    }
}
