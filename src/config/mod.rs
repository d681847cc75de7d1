//! The configuration as the program uses it: typed, checked, with wrapped secrets.
//!
//! The sub-modules read it from a TOML file, the environment and files of secrets, and report errors. api.md section 9
//! documents each key.

mod address;
mod assertion;
mod bots;
mod caller_token;
mod callers;
mod certificates;
mod client_key;
mod config_value;
mod current_endpoints;
mod defaults;
mod delivery_headers;
mod diagnostics;
mod environment;
mod file_text;
#[cfg(any(test, feature = "test-support"))]
pub mod fixtures;
#[cfg(feature = "test-support")]
pub mod fuzzing;
mod json_object;
mod jwt_key;
mod kore_webhook;
mod load;
mod loaded;
mod no_proxy;
mod parse;
mod pem;
mod proxy;
mod quiet_rule;
mod secret;
mod section;
mod server_config;
mod server_tls;
mod store;
mod store_url;
#[cfg(test)]
mod tests;
mod verification_key;
mod webhook_config;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value};
use tracing_subscriber::filter::Targets;
use url::Url;

use crate::domain::{BotName, JsonObject};

pub use self::webhook_config::{
    BotWebhookConfig, KoreApiVersion, LegacySignature, PayloadExtent, PayloadFormat, WebhooksConfig,
};
pub use caller_token::{CallerTokenConfig, TokenKeySource};
pub use callers::{CallerConfig, CallerScopes, RateScope};
pub use client_key::{ClientKey, InvalidClientKey};
pub use current_endpoints::{CurrentEndpoints, ReloadedEndpoints};
pub use diagnostics::{ConfigErrors, ConfigWarning, Diagnostic, ValueOrigin};
pub use file_text::{FileText, writable_by_others};
pub use jwt_key::{InvalidJwtKey, jwt_key};
pub use kore_webhook::{KoreClient, KoreWebhookConfig, V1TextForm};
pub use load::{environment, keys, load, read};
pub use loaded::{ConfigDigests, ConfigSources, FileMark, LoadedConfig, load_again};
pub use no_proxy::{InvalidNoProxyEntry, NoProxyEntry, NoProxyList};
pub use proxy::{ProxyConfig, ProxyCredentials};
pub use quiet_rule::QuietRule;
pub use server_config::ServerConfig;
pub use server_tls::ServerTlsConfig;
pub use verification_key::{InvalidVerificationKey, VerificationKey, is_of_family};

/// The configuration of a bridge.
#[derive(Debug, Clone)]
pub struct Config {
    /// The bot for requests that name no bot.
    pub default_bot: Option<BotName>,
    /// Listeners, limits of requests and shutdown.
    pub server: ServerConfig,
    /// The store of messages.
    pub store: StoreConfig,
    /// The identity of this replica.
    pub cluster: ClusterConfig,
    /// The wait of callers.
    pub reply: ReplyConfig,
    /// The bots, by name; never empty.
    pub bots: Vec<Arc<BotConfig>>,
    /// The callers that have a key, and the clients of the webhook channel behind them.
    pub callers: Vec<CallerConfig>,
    /// The limits of webhooks.
    pub webhooks: WebhooksConfig,
    /// The log.
    pub log: LogConfig,
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The store.
    pub url: StoreUrl,
    /// Redis' ACL user. Empty for its default user.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretString>,
    /// The user of the sentinels. Empty for their default user.
    pub sentinel_username: Option<String>,
    /// That user's password. Empty for sentinels without authentication.
    pub sentinel_password: Option<SecretString>,
    /// The certificates and keys for TLS.
    pub tls: StoreTls,
    /// The first part of every key.
    pub key_prefix: String,
    /// The time that the store keeps an ended message.
    pub message_ttl: Duration,
    /// The timeout of one command.
    pub command_timeout: Duration,
    /// The number of the store's replicas that must confirm a write.
    pub wait_replicas: u32,
    /// The memory limit of `memory://`, in bytes.
    pub memory_limit: usize,
}

/// The PEM text of `store.ca_file`, `store.client_cert_file` and `store.client_key_file`.
#[derive(Debug, Clone, Default)]
pub struct StoreTls {
    /// The roots for the store's certificate. Empty for the public ones.
    pub ca: Option<Vec<u8>>,
    /// The bridge's certificate and its key.
    pub client: Option<(Vec<u8>, SecretString)>,
}

/// `store.url`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory://`: the process holds the data and loses it at its end.
    Memory,
    /// `redis://` and its variants.
    Redis(RedisServers),
}

/// The servers of a Redis store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServers {
    /// A single server, sentinels, or a cluster.
    pub topology: RedisTopology,
    /// Whether connections use TLS (`rediss`).
    pub tls: bool,
    /// The number of the database; 0 in a cluster.
    pub database: i64,
}

impl RedisServers {
    /// Returns the servers that the URL names.
    fn hosts(&self) -> impl Iterator<Item = &HostPort> {
        match &self.topology {
            RedisTopology::Alone(host) => std::slice::from_ref(host),
            RedisTopology::Sentinel { sentinels: hosts, .. } | RedisTopology::Cluster(hosts) => hosts,
        }
        .iter()
    }
}

/// The kind of Redis installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server: `redis://host:port/0`.
    Alone(HostPort),
    /// Sentinels that know the master: `redis+sentinel://host:port,host:port/master`.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<HostPort>,
        /// The sentinels' name for the master.
        master: String,
    },
    /// Some nodes of a cluster, which list the others: `redis+cluster://host:port,host:port`.
    Cluster(Vec<HostPort>),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an IP address. An IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `[cluster]`
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The name of this replica in the assignment of partitions.
    pub replica_id: String,
    /// The lifetime of a lease without renewal.
    pub lease_ttl: Duration,
}

/// `[reply]`
#[derive(Debug, Clone)]
pub struct ReplyConfig {
    /// The wait of a POST without a wait of its own.
    pub default_wait: Duration,
}

/// One of `[[bots]]`.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own, and any mix of them is a bot")]
pub struct BotConfig {
    /// The bot's name in this configuration.
    pub name: BotName,
    /// The API host of the platform.
    pub platform: Url,
    /// The path before `/oAuth` and `/rtm`, such as `/api/1.1`.
    pub api_path: String,
    /// The scheme, host and port for the socket's URL, instead of the platform's.
    pub socket_base: Option<Url>,
    /// Certificate authorities for the platform beside the public ones, in PEM.
    pub ca: Option<Vec<u8>>,
    /// The proxy for all connections to the platform. Empty for direct ones.
    pub proxy: Option<Arc<ProxyConfig>>,
    /// The bot's name on the platform.
    pub chat_bot: String,
    /// The bot's id on the platform (`st-…`).
    pub task_bot_id: String,
    /// The app's id (`cs-…`).
    pub client_id: String,
    /// The shared secret (HS*), or the private key in PEM (RS*).
    pub client_secret: SecretString,
    /// The signature algorithm of the JWT.
    pub algorithm: JwtAlgorithm,
    /// The static claims of each JWT.
    pub claims: Map<String, Value>,
    /// Whether each JWT has a `jti`.
    pub jti: bool,
    /// The service that makes the JWTs. `client_secret` and `algorithm` are without effect then.
    pub assertion_service: Option<AssertionServiceConfig>,
    /// Whether the bridge asks for the secure handshake (protocol.md 5.2).
    pub secure_rtm: bool,
    /// Whether each reply is acknowledged by its `key` (protocol.md 6.2).
    pub delivery_acks: bool,
    /// The way in which a connect states its mode (protocol.md 4.3).
    pub connection_mode: ConnectionStyle,
    /// Whether users are anonymous to the platform.
    pub anonymous: bool,
    /// The members of `customData` that a message's own data may replace.
    pub custom_data: Option<JsonObject>,
    /// Whether a connect asks for no welcome (protocol.md 14).
    pub skip_welcome: bool,
    /// Whether the bridge may use the history API.
    pub history: bool,
    /// The rule for the quiet time of a turn whose caller sets none.
    pub quiet: QuietRule,
    /// The shortest quiet time of [`QuietRule::Auto`].
    pub quiet_min: Duration,
    /// The longest one.
    pub quiet_max: Duration,
    /// The share of turns that [`QuietRule::Auto`] may end although the bot then goes on.
    pub early_cuts: f64,
    /// The default deadline of a turn.
    pub deadline: Duration,
    /// The silence that the bridge waits for before the first message, if a welcome may come.
    pub welcome: Duration,
    /// The time after the end of a turn in which a reply still belongs to it.
    pub late_window: Duration,
    /// The time after a reconnect until history is complete.
    pub history_settle: Duration,
    /// The time after sending until the bridge looks for replies of a silent bot in history. Empty for never.
    pub stuck_after: Option<Duration>,
    /// The platform's idle limit of a session.
    pub session_timeout: Duration,
    /// The time between two pings.
    pub ping_interval: Duration,
    /// The idle time after which a socket closes. Empty for never.
    pub idle_ttl: Option<Duration>,
    /// The largest number of open messages in a conversation.
    pub max_open_messages: usize,
    /// The largest number of sends per user in any 60 s; 0 for no limit.
    pub user_rate_per_minute: u32,
    /// The largest number of connects in any 60 s, of all replicas together; 0 for no limit.
    pub connects_per_minute: u32,
    /// The largest web socket frame that the bridge accepts, in bytes.
    pub max_frame_bytes: usize,
    /// The largest web socket message that the bridge accepts, with all its fragments, in bytes.
    pub max_message_bytes: usize,
    /// The largest file that a caller may upload, in bytes.
    pub max_attachment_bytes: usize,
    /// The endpoints that receive this bot's events.
    pub webhooks: Vec<BotWebhookConfig>,
    /// The endpoints of the last reload, which go before `webhooks`.
    pub reloaded_endpoints: ReloadedEndpoints,
    /// The door for callers of the platform's webhook channel. Empty while it is off.
    pub kore_webhook: Option<KoreWebhookConfig>,
}

/// `bots.assertion_url`
#[derive(Debug, Clone)]
pub struct AssertionServiceConfig {
    /// The URL that gets a POST for each JWT.
    pub url: Url,
    /// The token of the header `Authorization: Bearer …`.
    pub bearer_token: Option<SecretString>,
}

/// The signature algorithm of the JWT (protocol.md 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 7518 say it all")]
pub enum JwtAlgorithm {
    Hs256,
    Hs512,
    Rs256,
    Rs512,
}

/// The way in which a connect states its mode (protocol.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStyle {
    /// `ConnectionMode=…`, for platforms since 11.11.
    ConnectionMode,
    /// `isReconnect=true` or nothing, for older platforms.
    IsReconnect,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The format of the lines.
    pub format: LogFormat,
    /// The log level of each module.
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
