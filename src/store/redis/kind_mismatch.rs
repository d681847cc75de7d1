//! The kind of the servers behind `store.url`: one server, sentinels, or nodes of a cluster.
//!
//! A URL of another kind than its servers fails in ways that do not tell the cause. The greeting of a server (`HELLO`)
//! names its kind, without rights and also while it refuses everything else.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, RedisConnectionInfo, RedisResult, Value, cmd, from_redis_value,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::connector::{certificates, client};
use crate::config::{HostPort, RedisTopology, StoreConfig, StoreUrl};

/// The timeout of one look at a server.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The mode of a Redis server, as Redis calls its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerMode {
    Single,
    Sentinel,
    ClusterNode,
}

/// Servers of another kind than `store.url` says. The text does not quote the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct KindMismatch {
    written: ServerMode,
    found: ServerMode,
    tls: bool,
}

impl ServerMode {
    /// Returns the scheme, without the letter for TLS.
    const fn scheme(self) -> &'static str {
        match self {
            Self::Single => "",
            Self::Sentinel => "+sentinel",
            Self::ClusterNode => "+cluster",
        }
    }
}

impl fmt::Display for KindMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, found, tls } = *self;
        let redis = if tls { "rediss" } else { "redis" };
        let (is, form) = match found {
            ServerMode::Single => ("a single Redis server", "HOST:6379/0"),
            ServerMode::Sentinel => ("a Sentinel", "HOST:26379,HOST:26379/MASTER"),
            ServerMode::ClusterNode => ("a node of a Redis Cluster", "HOST:6379,HOST:6379"),
        };
        write!(
            f,
            "the server of store.url is {is}, but {redis}{}:// is for another kind; write {redis}{}://{form}",
            written.scheme(),
            found.scheme(),
        )
    }
}

/// Returns the mismatch between the URL and its servers, or `None` if there is none or no server tells its kind.
pub(super) async fn mismatch(options: &StoreConfig) -> Option<KindMismatch> {
    let StoreUrl::Redis(servers) = &options.url else { return None };
    let (written, addresses) = match &servers.topology {
        RedisTopology::Alone(address) => (ServerMode::Single, std::slice::from_ref(address)),
        RedisTopology::Sentinel { sentinels, .. } => (ServerMode::Sentinel, sentinels.as_slice()),
        RedisTopology::Cluster(addresses) => (ServerMode::ClusterNode, addresses.as_slice()),
    };
    for address in addresses {
        if let Some(found) = kind_of(address, servers.tls, options).await {
            return (found != written).then_some(KindMismatch { written, found, tls: servers.tls });
        }
    }
    None
}

/// Asks a server for its kind, as each user that the configuration has: another kind of server may know another user.
async fn kind_of(address: &HostPort, tls: bool, options: &StoreConfig) -> Option<ServerMode> {
    let certificates = tls.then(|| certificates(&options.tls));
    let users = [
        user(options.username.as_deref(), options.password.as_ref()),
        user(options.sentinel_username.as_deref(), options.sentinel_password.as_ref()),
        user(None, None),
    ];
    for user in users {
        let Ok(client) = client(address, certificates.as_ref(), &user) else { continue };
        if let Ok(mode) = mode(&client).await {
            return match mode.as_str() {
                "standalone" => Some(ServerMode::Single),
                "sentinel" => Some(ServerMode::Sentinel),
                "cluster" => Some(ServerMode::ClusterNode),
                _ => None,
            };
        }
    }
    None
}

fn user(name: Option<&str>, password: Option<&SecretString>) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(name) = name {
        settings = settings.set_username(name);
    }
    if let Some(password) = password {
        settings = settings.set_password(password.expose_secret());
    }
    settings
}

async fn mode(client: &Client) -> RedisResult<String> {
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&options).await?;
    let mut greeting: HashMap<String, Value> = cmd("HELLO").query_async(&mut connection).await?;
    Ok(from_redis_value(greeting.remove("mode").unwrap_or(Value::Nil))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_what_the_server_is_and_the_scheme_to_use() {
        let text = |written, found, tls| KindMismatch { written, found, tls }.to_string();
        assert_eq!(
            text(ServerMode::Single, ServerMode::Sentinel, false),
            "the server of store.url is a Sentinel, but redis:// is for another kind; write \
             redis+sentinel://HOST:26379,HOST:26379/MASTER"
        );
        assert_eq!(
            text(ServerMode::ClusterNode, ServerMode::Single, true),
            "the server of store.url is a single Redis server, but rediss+cluster:// is for another kind; write \
             rediss://HOST:6379/0"
        );
    }
}
