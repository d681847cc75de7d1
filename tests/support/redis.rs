//! Real Redis servers for tests, on free loopback ports, each with a directory of its own. They end with the test.

mod cluster;
mod contents;
mod expiry;
mod resp;
mod sentinel;
mod server;

pub(crate) use cluster::Cluster;
pub(crate) use contents::find_text;
pub(crate) use expiry::{keys, nothing_left, shift};
pub(crate) use resp::Resp;
pub(crate) use sentinel::Sentinels;
pub(crate) use server::{RedisOptions, RedisServer};

use std::net::TcpListener;
use std::time::Duration;

use rtm_bridge::config::{Config, HostPort, RedisServers, RedisTopology, StoreConfig, StoreUrl};

/// Returns a port without a listener. It is below the system's ephemeral ports, so no foreign connection takes it in the
/// meantime; another test may.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn address(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

/// Returns the configuration of a store with this topology and short timeouts.
fn config(topology: RedisTopology) -> StoreConfig {
    let url = StoreUrl::Redis(RedisServers { topology, tls: false, database: 0 });
    let defaults = Config::dev("http://127.0.0.1".parse().unwrap()).store;
    StoreConfig { url, command_timeout: Duration::from_millis(500), ..defaults }
}

/// Servers of any topology.
pub(crate) enum Servers {
    Alone(Box<RedisServer>),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

impl Servers {
    pub(crate) fn config(&self) -> StoreConfig {
        match self {
            Self::Alone(server) => server.config(),
            Self::Sentinels(group) => group.config(),
            Self::Cluster(cluster) => cluster.config(),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Alone(server) => server.url(),
            Self::Sentinels(group) => group.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// Returns the server that accepts writes of this key.
    pub(crate) async fn master_of(&self, key: &str) -> &RedisServer {
        match self {
            Self::Alone(server) => server,
            Self::Sentinels(group) => &group.servers[group.master().await],
            Self::Cluster(cluster) => &cluster.nodes[cluster.master_of(cluster.slot(key).await).await],
        }
    }

    /// Returns the servers that accept writes.
    pub(crate) async fn masters(&self) -> Vec<&RedisServer> {
        match self {
            Self::Alone(server) => vec![server],
            Self::Sentinels(group) => vec![&group.servers[group.master().await]],
            Self::Cluster(cluster) => {
                cluster.masters().await.into_iter().map(|number| &cluster.nodes[number]).collect()
            }
        }
    }
}
