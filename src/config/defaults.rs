//! The defaults of all keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use secrecy::SecretString;
use serde_json::Map;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use url::Url;

use super::{
    BotConfig, ClusterConfig, Config, ConnectionStyle, JwtAlgorithm, KoreWebhookConfig, LogConfig, LogFormat,
    QuietRule, ReplyConfig, ServerConfig, StoreConfig, StoreUrl, WebhooksConfig,
};
use crate::domain::BotName;

/// The open files for other uses than sockets to the platform and callers' connections: listeners, the store, webhooks.
pub(super) const FILE_HEADROOM: u64 = 512;

/// The default of `max_connections` if there are files enough: all requests and streams, and some that wait.
const MAX_CONNECTIONS: usize = 25_000;

/// The default of `bots.quiet`.
const QUIET: QuietRule = QuietRule::Auto;

/// The quiet time of [`QuietRule::Auto`] as long as the rhythm of the bot is unknown.
pub(super) const UNLEARNED_QUIET: Duration = Duration::from_secs(1);

impl Config {
    /// Returns the configuration of `dev`: a store in memory, no callers with keys, and one bot `sandbox` on the simulated
    /// platform at `platform`. The bot's own app may use its webhook channel. Tests use it too, with the ports set to 0.
    pub fn dev(platform: Url) -> Self {
        let sandbox = BotName::sandbox();
        let filter = Targets::new().with_default(Level::WARN).with_target("rtm_bridge", Level::INFO);
        let mut bot = BotConfig {
            chat_bot: "Sandbox".to_owned(),
            task_bot_id: "st-sandbox".to_owned(),
            client_id: "cs-sandbox".to_owned(),
            client_secret: "sandbox-secret".into(),
            ..BotConfig::new(sandbox.clone(), platform)
        };
        bot.kore_webhook = KoreWebhookConfig::of_app(&bot);
        let mut config = Self {
            default_bot: Some(sandbox),
            server: ServerConfig::default(),
            store: StoreConfig::default(),
            cluster: ClusterConfig::default(),
            reply: ReplyConfig::default(),
            bots: vec![Arc::new(bot)],
            callers: Vec::new(),
            webhooks: WebhooksConfig::default(),
            log: LogConfig { format: LogFormat::Text, filter },
        };
        config.add_kore_clients();
        config
    }
}

impl Default for ServerConfig {
    /// Listens on loopback only. The limit of sockets follows from the limit of open files.
    fn default() -> Self {
        let files = open_files();
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            grace: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(30),
            ready_without_store: Duration::from_mins(1),
            metrics_token: None,
            tls: None,
            max_sockets: max_sockets(files, max_connections(files)),
            max_connections: max_connections(files),
            // With the sockets and connections of the chart, it fits the memory that the chart allows.
            memory_limit: 192 << 20,
            max_requests: 10_000,
            max_streams: 10_000,
            threads: std::thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2),
        }
    }
}

/// Returns the number of files that this process may open.
pub(super) fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns the default of `max_connections`: a quarter of the open files.
fn max_connections(open_files: u64) -> usize {
    files_between(open_files.saturating_sub(FILE_HEADROOM) / 4, MAX_CONNECTIONS)
}

/// Returns the default of `max_connections` beside a given number of sockets.
pub(super) fn max_connections_beside(sockets: usize, open_files: u64) -> usize {
    let files = open_files.saturating_sub(FILE_HEADROOM).saturating_sub(sockets as u64);
    files_between(files, MAX_CONNECTIONS)
}

/// Returns the default of `max_sockets` beside a number of connections.
pub(super) fn max_sockets(open_files: u64, connections: usize) -> usize {
    let files = open_files.saturating_sub(FILE_HEADROOM).saturating_sub(connections as u64);
    // Above that, memory is the limit: a socket takes about 30 KiB.
    files_between(files, 100_000)
}

fn files_between(files: u64, most: usize) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX).clamp(64, most)
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl::Memory,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            tls: super::StoreTls::default(),
            key_prefix: "rtm".to_owned(),
            message_ttl: Duration::from_hours(24),
            command_timeout: Duration::from_secs(2),
            wait_replicas: 0,
            memory_limit: 256 << 20,
        }
    }
}

impl Default for ClusterConfig {
    /// Returns a replica id from the host's name and random characters.
    fn default() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String =
            host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
        let host = if host.is_empty() { "replica" } else { host.as_str() };
        let chance: String = std::iter::repeat_with(|| fastrand::digit(36)).take(8).collect();
        Self { replica_id: format!("{host}-{chance}"), lease_ttl: Duration::from_secs(10) }
    }
}

impl Default for ReplyConfig {
    fn default() -> Self {
        Self { default_wait: Duration::from_secs(15) }
    }
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            allowed: Vec::new(),
            allow_private: Vec::new(),
            timeout: Duration::from_secs(15),
            ca: None,
            proxy: None,
            max_in_flight: 256,
            max_per_host: 32,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: Targets::new().with_default(Level::INFO) }
    }
}

impl BotConfig {
    /// Creates a bot with every default. Its names and its secret on the platform are still empty.
    pub fn new(name: BotName, platform: Url) -> Self {
        Self {
            name,
            platform,
            api_path: "/api/1.1".to_owned(),
            socket_base: None,
            ca: None,
            proxy: None,
            chat_bot: String::new(),
            task_bot_id: String::new(),
            client_id: String::new(),
            client_secret: SecretString::default(),
            algorithm: JwtAlgorithm::Hs256,
            claims: Map::new(),
            jti: false,
            assertion_service: None,
            secure_rtm: false,
            delivery_acks: false,
            connection_mode: ConnectionStyle::ConnectionMode,
            anonymous: false,
            custom_data: None,
            skip_welcome: false,
            history: true,
            quiet: QUIET,
            quiet_min: Duration::from_millis(100),
            quiet_max: Duration::from_secs(5),
            early_cuts: 0.001,
            deadline: Duration::from_secs(30),
            welcome: Duration::from_millis(500),
            late_window: Duration::from_mins(1),
            history_settle: Duration::from_secs(3),
            stuck_after: Some(Duration::from_secs(10)),
            session_timeout: Duration::from_mins(15),
            ping_interval: Duration::from_secs(25),
            idle_ttl: Some(Duration::from_mins(15)),
            max_open_messages: 32,
            user_rate_per_minute: 50,
            connects_per_minute: 250,
            max_frame_bytes: 1 << 20,
            max_message_bytes: 4 << 20,
            max_attachment_bytes: 25 << 20,
            webhooks: Vec::new(),
            kore_webhook: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_connections_leave_room_for_other_files() {
        for (files, connections, sockets) in
            [(20_000, 4872, 14_616), (2048, 384, 1152), (100, 64, 64), (u64::MAX, 25_000, 100_000)]
        {
            assert_eq!(max_connections(files), connections);
            assert_eq!(max_sockets(files, connections), sockets);
        }
        assert_eq!(max_connections_beside(15_000, 20_000), 4488);
        assert_eq!(max_connections_beside(15_000, 1 << 20), 25_000);
        assert_eq!(max_connections_beside(15_000, 1024), 64);
    }
}
