//! A Redis server of our own: one process, nothing written to disk, asked for its figures.

use std::net::SocketAddr;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Client, cmd};

use crate::child::{self, Child};
use crate::failure::Failure;

/// A running `redis-server`; gone, with what it kept, when dropped.
pub(crate) struct Store {
    pub(crate) server: Child,
    pub(crate) client: Client,
    connection: MultiplexedConnection,
    /// Where it would write, if it did.
    _directory: tempfile::TempDir,
}

impl Store {
    /// Its defaults, but for persistence, which is off: the disk would measure itself.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let address = child::free_address()?;
        let directory = tempfile::Builder::new().prefix("rtm-bridge-bench").tempdir()?;
        let (port, path) = (address.port().to_string(), directory.path().to_string_lossy().into_owned());
        let host = address.ip().to_string();
        let arguments = [
            "--bind",
            &host,
            "--port",
            &port,
            "--dir",
            &path,
            "--save",
            "",
            "--appendonly",
            "no",
            "--loglevel",
            "warning",
        ];
        let mut server = Child::start("redis-server", "redis-server".as_ref(), &arguments, address)?;
        server.listening().await?;
        let client = Client::open(url(address))?;
        let connection = client.get_multiplexed_async_connection().await?;
        Ok(Self { server, client, connection, _directory: directory })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// For asking it anything.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// A field of INFO.
    async fn info(&self, section: &str, field: &'static str) -> Result<String, Failure> {
        let text: String = cmd("INFO").arg(section).query_async(&mut self.connection()).await?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.trim().to_owned())
            .ok_or(Failure::Unreadable { what: "INFO", detail: field })
    }

    pub(crate) async fn version(&self) -> Result<String, Failure> {
        self.info("server", "redis_version").await
    }

    /// Bytes it has allocated: data, and a little for itself.
    pub(crate) async fn used(&self) -> Result<u64, Failure> {
        let used = self.info("memory", "used_memory").await?;
        used.parse().map_err(|_| Failure::Unreadable { what: "INFO", detail: "used_memory" })
    }
}

/// Where a bridge finds the server, or the forwarder before it.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("redis://{address}/0")
}
