//! The connector: it opens connections to one server, through sentinels, or to a cluster, plain or over TLS.
//!
//! All connections speak RESP3. Its greeting says why a login failed, and the listener needs its pushes. The answers
//! of scripts are the same in RESP2.

use std::fmt;
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use deadpool_redis::redis::cluster::ClusterClient;
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use deadpool_redis::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo as _,
    Pipeline, ProtocolVersion, RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode, Value,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{self, HostPort, RedisServers, RedisTopology};

/// A connection, shared by its clones. It belongs to the runtime that opened it.
#[derive(Clone)]
pub(super) enum RedisConnection {
    /// A connection to one server.
    Server(MultiplexedConnection),
    /// A connection to the nodes of a cluster, opened as needed.
    Cluster(ClusterConnection),
}

impl RedisConnection {
    /// Sends one command.
    pub(super) async fn send(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(cmd).await?,
            Self::Cluster(connection) => connection.req_packed_command(cmd).await?,
        }
        .extract_error()
    }

    /// Sends commands at once, in a cluster to the node of the first key. Each returned answer may be an error.
    pub(super) async fn send_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let count = pipeline.len();
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, 0, count).await,
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, 0, count).await,
        }
    }
}

/// The connector. It holds addresses and secrets, but no connection.
pub(super) struct RedisConnector {
    servers: ServerTopology,
    /// The timeout of one attempt.
    timeout: Duration,
}

enum ServerTopology {
    Alone(Box<Client>),
    Sentinel(Box<SentinelServers>),
    Cluster { client: Box<ClusterClient>, nodes: Vec<Client> },
}

struct SentinelServers {
    addresses: Vec<ConnectionAddr>,
    master: String,
    certificates: Option<TlsCertificates>,
    username: Option<String>,
    password: Option<SecretString>,
    settings: RedisConnectionInfo,
    sentinel_username: Option<String>,
    sentinel_password: Option<SecretString>,
}

/// Leaves out the secrets.
impl fmt::Debug for RedisConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match &self.servers {
            ServerTopology::Alone(_) => "alone",
            ServerTopology::Sentinel(_) => "sentinel",
            ServerTopology::Cluster { .. } => "cluster",
        };
        f.debug_struct("Connector").field("servers", &shape).field("timeout", &self.timeout).finish()
    }
}

impl RedisConnector {
    /// Creates a connector to these servers.
    pub(super) fn new(servers: &RedisServers, options: &config::StoreConfig) -> RedisResult<Self> {
        let certificates = servers.tls.then(|| certificates(&options.tls));
        let settings = settings(options, servers.database);
        let client = |address: &HostPort| client(address, certificates.as_ref(), &settings);
        // An attempt must leave time for a second one within an operation.
        let timeout = options.command_timeout / 2;
        let servers = match &servers.topology {
            RedisTopology::Alone(address) => ServerTopology::Alone(Box::new(client(address)?)),
            RedisTopology::Sentinel { sentinels, master } => {
                ServerTopology::Sentinel(Box::new(SentinelServers {
                    addresses: sentinels.iter().map(|address| socket(address, servers.tls)).collect(),
                    master: master.clone(),
                    username: options.username.clone(),
                    password: options.password.clone(),
                    settings: settings.clone(),
                    sentinel_username: options.sentinel_username.clone(),
                    sentinel_password: options.sentinel_password.clone(),
                    certificates,
                }))
            }
            RedisTopology::Cluster(addresses) => {
                let nodes = addresses.iter().map(client).collect::<RedisResult<Vec<_>>>()?;
                let known = nodes.iter().map(|node| node.get_connection_info().clone());
                // The library repairs connections and learns the layout of the cluster. It must not retry: each
                // failure makes it look at all nodes again, and all other operations wait meanwhile.
                let mut builder = ClusterClient::builder(known)
                    .tcp_settings(tcp())
                    .retries(0)
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .overall_response_timeout(None);
                if let Some(certificates) = &certificates {
                    builder = builder.certs(certificates.clone());
                }
                ServerTopology::Cluster { client: Box::new(builder.build()?), nodes }
            }
        };
        Ok(Self { servers, timeout })
    }

    /// Returns the timeout of [`RedisConnector::open`].
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Opens a connection for writes.
    pub(super) async fn open(&self) -> RedisResult<RedisConnection> {
        match &self.servers {
            ServerTopology::Cluster { client, .. } => {
                client.get_async_connection().await.map(RedisConnection::Cluster)
            }
            _ => self.open_one(0, self.connection_options()).await.map(RedisConnection::Server),
        }
    }

    /// Opens a connection to one server. In a cluster each node passes on what is published, so `turn` chooses the
    /// node.
    pub(super) async fn open_one(
        &self,
        turn: usize,
        options: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let client = match &self.servers {
            ServerTopology::Alone(client) => Client::clone(client),
            ServerTopology::Sentinel(sentinels) => sentinels.master().await?,
            ServerTopology::Cluster { nodes, .. } => {
                let node = turn.checked_rem(nodes.len()).and_then(|index| nodes.get(index));
                node.cloned().ok_or((ErrorKind::InvalidClientConfig, "a cluster without nodes"))?
            }
        };
        client.get_multiplexed_async_connection_with_config(&options).await
    }

    /// Returns options without a response timeout, because each operation has its own deadline.
    pub(super) fn connection_options(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024)
    }

    /// Returns whether the servers are a cluster.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.servers, ServerTopology::Cluster { .. })
    }
}

impl SentinelServers {
    /// Asks the sentinels for the master, and checks that it is one.
    async fn master(&self) -> RedisResult<Client> {
        let mut builder =
            SentinelClientBuilder::new(self.addresses.clone(), &self.master, SentinelServerType::Master)?
                .set_client_to_redis_db(self.settings.db())
                .set_client_to_redis_protocol(self.settings.protocol())
                .set_client_to_redis_tcp_settings(tcp());
        if let Some(name) = &self.username {
            builder = builder.set_client_to_redis_username(name);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password.expose_secret());
        }
        if let Some(name) = &self.sentinel_username {
            builder = builder.set_client_to_sentinel_username(name);
        }
        if let Some(password) = &self.sentinel_password {
            builder = builder.set_client_to_sentinel_password(password.expose_secret());
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        builder.build()?.async_get_client().await
    }
}

pub(super) fn client(
    address: &HostPort,
    certificates: Option<&TlsCertificates>,
    settings: &RedisConnectionInfo,
) -> RedisResult<Client> {
    let info = socket(address, certificates.is_some())
        .into_connection_info()?
        .set_redis_settings(settings.clone())
        .set_tcp_settings(tcp());
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

fn socket(address: &HostPort, tls: bool) -> ConnectionAddr {
    let (host, port) = (address.host.clone(), address.port);
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn settings(options: &config::StoreConfig, database: i64) -> RedisConnectionInfo {
    // The library's name is not worth the right that it needs.
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(database);
    if let Some(name) = &options.username {
        settings = settings.set_username(name);
    }
    if let Some(password) = &options.password {
        settings = settings.set_password(password.expose_secret());
    }
    settings
}

pub(super) fn certificates(tls: &config::StoreTls) -> TlsCertificates {
    TlsCertificates {
        client_tls: tls.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: certificate.clone(),
            client_key: key.expose_secret().as_bytes().to_vec(),
        }),
        root_cert: tls.ca.clone(),
    }
}

/// Returns settings that detect a dead peer within half a minute, also on an idle connection.
fn tcp() -> TcpSettings {
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keep_alive)
}
