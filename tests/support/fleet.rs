//! Several bridges in one process that share a store and a platform, each with its own proxies to both.

use std::net::SocketAddr;
use std::time::Duration;

use rtm_bridge::app::Bridge;
use rtm_bridge::config::{self, Config, RedisTopology, StoreUrl};
use rtm_sandbox::{Sandbox, SandboxOptions, SandboxScript};

use super::bridge::small;
use super::{Caller, Proxy, bot, quiet_platform, until};

/// The lease time of the tests. A failover takes about as long.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// Replicas and their platform. End it with [`Fleet::finish`].
pub(crate) struct Fleet {
    pub(crate) replicas: Vec<Replica>,
    sandbox: Sandbox,
    pub(crate) script: SandboxScript,
    config: Config,
    upstream: Option<SocketAddr>,
}

/// A replica of the fleet.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) api: Caller,
    pub(crate) admin: Caller,
    /// The proxy to Redis. Only for one server without TLS: sentinels and clusters redirect clients past it.
    redis: Option<Proxy>,
    /// The proxy to the platform.
    pub(crate) platform: Proxy,
    /// Empty after a stop.
    bridge: Option<Bridge>,
}

impl Fleet {
    /// Starts replicas on a store and waits until all are ready.
    pub(crate) async fn start(
        store: config::StoreConfig,
        replicas: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::start_on(quiet_platform(), store, replicas, change).await
    }

    /// Starts replicas with these options of the platform.
    pub(crate) async fn start_on(
        platform: SandboxOptions,
        store: config::StoreConfig,
        replicas: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let sandbox = Sandbox::start(platform).await.unwrap();
        let mut config = small(&sandbox.url());
        config.store = store;
        config.cluster.lease_ttl = LEASE;
        config.store.command_timeout = LEASE / 4;
        change(&mut config);
        let upstream = match &config.store.url {
            StoreUrl::Redis(servers) if !servers.tls => match &servers.topology {
                RedisTopology::Alone(address) => {
                    Some(SocketAddr::new(address.host.parse().unwrap(), address.port))
                }
                _ => None,
            },
            _ => None,
        };
        let mut fleet = Self { replicas: Vec::new(), script: sandbox.script(), sandbox, config, upstream };
        for _ in 0..replicas {
            fleet.join().await;
        }
        fleet
    }

    /// Starts one more replica and returns its number.
    pub(crate) async fn join(&mut self) -> usize {
        let name = format!("replica-{}", self.replicas.len());
        self.join_as(&name).await
    }

    /// Starts one more replica with this name.
    pub(crate) async fn join_as(&mut self, name: &str) -> usize {
        let mut config = self.config.clone();
        config.cluster.replica_id = name.to_owned();
        let platform = self.sandbox.url();
        let platform = Proxy::start(platform.strip_prefix("http://").unwrap().parse().unwrap());
        let way: url::Url = format!("http://{}", platform.address()).parse().unwrap();
        let simulated = bot(&mut config);
        simulated.platform = way.clone();
        simulated.socket_base = Some(way);
        let mut redis = None;
        if let (Some(upstream), StoreUrl::Redis(servers)) = (self.upstream, &mut config.store.url) {
            let proxy = Proxy::start(upstream);
            let (host, port) = (proxy.address().ip().to_string(), proxy.address().port());
            servers.topology = RedisTopology::Alone(config::HostPort { host, port });
            redis = Some(proxy);
        }
        let bridge = Bridge::start(config).await.unwrap();
        let addresses = bridge.addresses();
        let (api, admin) = (Caller(addresses.api), Caller(addresses.admin));
        let replica = Replica { name: name.to_owned(), api, admin, redis, platform, bridge: Some(bridge) };
        until("the replica is ready", async || replica.admin.get("/readyz").await.status == 200).await;
        self.replicas.push(replica);
        self.replicas.len() - 1
    }

    /// Shuts a replica down.
    pub(crate) async fn leave(&mut self, number: usize) {
        self.replicas[number].stop().await;
    }

    /// Returns callers for all running replicas.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        self.replicas.iter().filter(|replica| replica.bridge.is_some()).map(|replica| replica.api).collect()
    }

    /// Ends all replicas and the platform.
    pub(crate) async fn finish(mut self) {
        for replica in &mut self.replicas {
            replica.stop().await;
        }
        self.sandbox.stop().await;
    }
}

impl Replica {
    async fn stop(&mut self) {
        if let Some(bridge) = self.bridge.take() {
            println!("{} stops", self.name);
            bridge.stop().await;
        }
    }

    /// Returns the proxy to Redis.
    pub(crate) fn way_to_redis(&self) -> &Proxy {
        self.redis.as_ref().expect("a single Redis without TLS")
    }
}
