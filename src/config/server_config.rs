//! The table `server` of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::ServerTlsConfig;

/// `[server]`
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address for callers.
    pub listen: SocketAddr,
    /// The address for probes and Prometheus.
    pub admin_listen: SocketAddr,
    /// The time between "not ready" and the first refusal, in which load balancers notice.
    pub grace: Duration,
    /// The limit of a whole shutdown, `grace` included.
    pub drain_timeout: Duration,
    /// The time for which a replica stays ready although its store does not answer.
    pub ready_without_store: Duration,
    /// The bearer token of `/metrics`. Empty for a listener that everyone may scrape.
    pub metrics_token: Option<SecretString>,
    /// TLS of the callers' listener.
    pub tls: Option<ServerTlsConfig>,
    /// The largest number of web sockets. Idle ones close first.
    pub max_sockets: usize,
    /// The largest number of callers' connections. Those that wait for a request close first.
    pub max_connections: usize,
    /// The memory of requests, answers and event streams, in bytes. Further requests get `overloaded`.
    pub memory_limit: usize,
    /// The largest number of concurrent requests. Further ones get `overloaded`.
    pub max_requests: usize,
    /// The largest number of concurrent event streams. Further ones get `overloaded`.
    pub max_streams: usize,
    /// The number of threads for requests and sockets. A turn is cheapest if both are on one thread, so the default is
    /// half of the cores.
    pub threads: usize,
}
