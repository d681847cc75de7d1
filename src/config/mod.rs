//! The configuration as the program uses it: typed, checked, with secrets wrapped.
//!
//! How it is read (TOML file, environment, secrets from files) and how mistakes are reported is in the
//! sub-modules; what each key means is api.md section 9.

mod address;
mod bots;
mod callers;
mod certificates;
mod defaults;
mod environment;
mod header;
mod load;
mod mistake;
mod parse;
mod secret;
mod section;
mod store;
mod store_url;
#[cfg(test)]
mod tests;
mod value;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use tracing_subscriber::filter::Targets;
use url::Url;

use crate::domain::{BotName, UrlPattern};

pub use load::{environment, keys, load, read};
pub use mistake::{ConfigErrors, ConfigWarning, Diagnostic, ValueOrigin};

/// Everything a bridge needs to know at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The bot of requests that name none.
    pub default_bot: Option<BotName>,
    /// Listeners, admission and shutdown.
    pub server: ServerConfig,
    /// Where messages are kept.
    pub store: StoreConfig,
    /// Which replica this is.
    pub cluster: ClusterConfig,
    /// How long callers wait.
    pub reply: ReplyConfig,
    /// The bots, by name; never empty.
    pub bots: Vec<Arc<BotConfig>>,
    /// Who may call.
    pub callers: Vec<CallerConfig>,
    /// What webhooks may reach.
    pub webhooks: WebhooksConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where callers connect.
    pub listen: SocketAddr,
    /// Where probes and Prometheus connect.
    pub admin_listen: SocketAddr,
    /// Between "not ready" and the first refusal, so that load balancers notice.
    pub grace: Duration,
    /// The whole of a shutdown, `grace` included.
    pub drain_timeout: Duration,
    /// Web sockets this replica holds at most; idle ones give way first.
    pub max_sockets: usize,
    /// Requests that are answered at the same time at most; more get `overloaded`.
    pub max_requests: usize,
    /// Streams of events that are open at the same time at most; more get `overloaded`.
    pub max_streams: usize,
    /// HTTP worker threads, and half as many threads for the sockets: a turn costs them half as much, and fewer
    /// threads are woken less often for nothing.
    pub threads: usize,
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where.
    pub url: StoreUrl,
    /// Redis' user (ACL); none for its default user.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretString>,
    /// The user of the sentinels themselves; none for their default user.
    pub sentinel_username: Option<String>,
    /// That user's password; none where the sentinels let everybody in.
    pub sentinel_password: Option<SecretString>,
    /// What TLS is checked with.
    pub tls: StoreTls,
    /// The first part of every key.
    pub key_prefix: String,
    /// How long an ended message is kept.
    pub message_ttl: Duration,
    /// The longest one command may take.
    pub command_timeout: Duration,
    /// Replicas of the store that must confirm a write.
    pub wait_replicas: u32,
    /// The most bytes that `memory://` keeps.
    pub memory_limit: usize,
}

/// `store.ca_file`, `store.client_cert_file`, `store.client_key_file`, as they were read: PEM.
#[derive(Debug, Clone, Default)]
pub struct StoreTls {
    /// The roots that the store's certificate must lead to; none means those of the Web.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub client: Option<(Vec<u8>, SecretString)>,
}

/// `store.url`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory://`: inside this process, gone with it.
    Memory,
    /// `redis://` and its kin.
    Redis(RedisServers),
}

/// How Redis is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServers {
    /// Alone, with sentinels, or as a cluster.
    pub topology: RedisTopology,
    /// Whether over TLS (`rediss`).
    pub tls: bool,
    /// The numbered database; 0 in a cluster.
    pub database: i64,
}

/// What stands behind a `redis` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server: `redis://host:port/0`.
    Alone(HostPort),
    /// Sentinels that know the master: `redis+sentinel://host:port,host:port/master`.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<HostPort>,
        /// The name they know the master by.
        master: String,
    },
    /// Some nodes of a cluster, which know the others: `redis+cluster://host:port,host:port`.
    Cluster(Vec<HostPort>),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or IP address, an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `[cluster]`
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The name that partitions are dealt by.
    pub replica_id: String,
    /// How long a lease lives without renewal.
    pub lease_ttl: Duration,
}

/// `[reply]`
#[derive(Debug, Clone)]
pub struct ReplyConfig {
    /// How long a POST waits where it does not say.
    pub default_wait: Duration,
}

/// One of `[[bots]]`.
#[derive(Debug, Clone)]
pub struct BotConfig {
    /// Our name of it.
    pub name: BotName,
    /// The API host of the platform.
    pub platform: Url,
    /// What stands before `/oAuth` and `/rtm`, such as `/api/1.1`.
    pub api_path: String,
    /// Replaces scheme, host and port of the socket's URL.
    pub socket_base: Option<Url>,
    /// Authorities that the platform's certificate may rest on besides the public ones, in PEM.
    pub ca: Option<Vec<u8>>,
    /// The bot's name on the platform.
    pub chat_bot: String,
    /// The bot's id on the platform (`st-…`).
    pub task_bot_id: String,
    /// The app's id (`cs-…`).
    pub client_id: String,
    /// HS*: the shared secret. RS*: the private key in PEM.
    pub client_secret: SecretString,
    /// How the JWT is signed.
    pub algorithm: JwtAlgorithm,
    /// Whether to ask for the secure handshake (protocol.md 5.2).
    pub secure_rtm: bool,
    /// How a connect says what it wants (protocol.md 4.3).
    pub connection_mode: ConnectionStyle,
    /// Whether users are anonymous to the platform.
    pub anonymous: bool,
    /// Whether the history API may be read.
    pub history: bool,
    /// The default quiet time of a turn.
    pub quiet: Duration,
    /// The default deadline of a turn.
    pub deadline: Duration,
    /// How long a connection must be silent before the first message, where a welcome may come.
    pub welcome: Duration,
    /// How long after its turn a reply still belongs to it.
    pub late_window: Duration,
    /// How long after a reconnect history may still learn of a message.
    pub history_settle: Duration,
    /// How long after sending a silent bot's turn takes a look at history; none means never.
    pub stuck_after: Option<Duration>,
    /// The platform's idle limit of a session.
    pub session_timeout: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// When an idle socket is closed; none means never.
    pub idle_ttl: Option<Duration>,
    /// Open messages a conversation may have.
    pub max_open_messages: usize,
    /// Sends per user in any 60 s; 0: no limit.
    pub user_rate_per_minute: u32,
    /// Connects in any 60 s, of all replicas together; 0: no limit.
    pub connects_per_minute: u32,
    /// The largest web socket frame we take, in bytes.
    pub max_frame_bytes: usize,
    /// The largest web socket message we take, over all its fragments, in bytes.
    pub max_message_bytes: usize,
    /// Where this bot's events go.
    pub webhook: Option<BotWebhookConfig>,
}

/// How the JWT is signed (protocol.md 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 7518 say it all")]
pub enum JwtAlgorithm {
    Hs256,
    Hs512,
    Rs256,
    Rs512,
}

/// How a connect says what it wants (protocol.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStyle {
    /// `ConnectionMode=…`, platforms since 11.11.
    ConnectionMode,
    /// `isReconnect=true` or nothing, older platforms.
    IsReconnect,
}

/// `[bots.webhook]`
#[derive(Debug, Clone)]
pub struct BotWebhookConfig {
    /// The receiver of what is told unasked; without one only callbacks are sent, and signed with `secrets`.
    pub url: Option<Url>,
    /// `whsec_` secrets, newest first.
    pub secrets: Vec<SecretString>,
    /// In what form it is told.
    pub form: PayloadFormat,
    /// Sent as `Authorization: Bearer …`.
    pub bearer_token: Option<SecretString>,
    /// Headers that go with every delivery, by name.
    pub headers: Vec<(Box<str>, SecretString)>,
    /// The signature that older receivers check, beside the standard one.
    pub legacy_signature: Option<LegacySignature>,
}

/// In what form a receiver is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadFormat {
    /// `type`, `timestamp` and `data` (Standard WebhooksConfig).
    #[default]
    Standard,
    /// `CloudEvents` 1.0 over HTTP, in binary mode.
    CloudEvents,
    /// What the platform's own webhook channel posts (protocol.md 9.4).
    KoreV2,
}

/// `bots.webhook.signature_header` and `signature_secret`: HMAC-SHA256 of the body, in hexadecimal.
#[derive(Debug, Clone)]
pub struct LegacySignature {
    /// The header's name.
    pub header: Box<str>,
    /// What it is made with.
    pub secret: SecretString,
}

/// One of `[[callers]]`.
#[derive(Debug, Clone)]
pub struct CallerConfig {
    /// Its name in logs at debug level; idempotency keys of different names never meet.
    pub name: String,
    /// SHA-256 of its key.
    pub key_sha256: [u8; 32],
    /// What it may do.
    pub scopes: CallerScopes,
    /// The bots it may use; none means every bot.
    pub bots: Option<Vec<BotName>>,
    /// What its users' identities begin with.
    pub user_prefix: String,
    /// Requests per minute; 0: no limit.
    pub rate_per_minute: u32,
    /// Requests at the same time; 0: no limit.
    pub max_open_requests: u32,
    /// Secrets its callbacks are signed with, newest first.
    pub webhook_secrets: Vec<SecretString>,
    /// In what form its callbacks are told.
    pub webhook_form: PayloadFormat,
}

/// What a caller may do; none of them includes another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallerScopes {
    /// POST messages, DELETE conversations.
    pub send: bool,
    /// GET what belongs to conversations.
    pub read: bool,
    /// Deliveries.
    pub admin: bool,
}

/// `[webhooks]`
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// Patterns of which a callback must match one.
    pub allowed: Vec<UrlPattern>,
    /// CIDRs of addresses that are fine although they are not public.
    pub allow_private: Vec<IpNet>,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// Authorities that receivers' certificates may rest on besides the public ones, in PEM.
    pub ca: Option<Vec<u8>>,
    /// Attempts in flight at a time.
    pub max_in_flight: usize,
    /// Attempts in flight at a time to one host.
    pub max_per_host: usize,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// For machines or for people.
    pub format: LogFormat,
    /// The levels that are logged, by module.
    pub filter: Targets,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for a terminal.
    Text,
}
