//! Redis as tests need it: real servers on free ports of loopback, each with a directory of its own, that end with
//! the test.

mod cluster;
mod resp;
mod sentinel;
mod server;

pub(crate) use cluster::Cluster;
pub(crate) use resp::Resp;
pub(crate) use sentinel::Sentinels;
pub(crate) use server::{RedisOptions, RedisServer};

use std::net::TcpListener;
use std::time::Duration;

use rtm_bridge::config::{Address, Config, RedisServers, Store, StoreUrl, Topology};

/// A port that nobody listens on. It lies below those that systems give to who asks for none, so that no
/// connection of anybody takes it meanwhile; another test may.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn address(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port }
}

/// A store of this topology, with time-outs for tests.
fn config(topology: Topology) -> Store {
    let url = StoreUrl::Redis(RedisServers { topology, tls: false, database: 0 });
    let defaults = Config::dev("http://127.0.0.1".parse().unwrap()).store;
    Store { url, command_timeout: Duration::from_millis(500), ..defaults }
}
