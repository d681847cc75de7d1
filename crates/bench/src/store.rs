//! A Redis server of the benchmark, without persistence, with its figures.

use std::net::SocketAddr;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Client, cmd};

use crate::bench_error::BenchError;
use crate::child_process::{self, ChildProcess};

/// A running `redis-server`. A drop removes it with its data.
pub(crate) struct RedisProcess {
    pub(crate) server: ChildProcess,
    pub(crate) client: Client,
    connection: MultiplexedConnection,
    /// Its working directory.
    _directory: tempfile::TempDir,
}

impl RedisProcess {
    /// Starts a server with the defaults, except persistence, which would measure the disk.
    pub(crate) async fn start() -> Result<Self, BenchError> {
        let address = child_process::free_address()?;
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
        let mut server = ChildProcess::start("redis-server", "redis-server".as_ref(), &arguments, address)?;
        server.listening().await?;
        let client = Client::open(url(address))?;
        let connection = client.get_multiplexed_async_connection().await?;
        Ok(Self { server, client, connection, _directory: directory })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns a connection for commands.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Returns a field of INFO.
    async fn info(&self, section: &str, field: &'static str) -> Result<String, BenchError> {
        let text: String = cmd("INFO").arg(section).query_async(&mut self.connection()).await?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.trim().to_owned())
            .ok_or(BenchError::Unreadable { what: "INFO", detail: field })
    }

    pub(crate) async fn version(&self) -> Result<String, BenchError> {
        self.info("server", "redis_version").await
    }

    /// Returns the allocated bytes: the data, and some overhead.
    pub(crate) async fn used(&self) -> Result<u64, BenchError> {
        let used = self.info("memory", "used_memory").await?;
        used.parse().map_err(|_| BenchError::Unreadable { what: "INFO", detail: "used_memory" })
    }
}

/// Returns the URL of the server, or of the forwarder before it.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("redis://{address}/0")
}
