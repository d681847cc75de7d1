//! The composition root: a bridge is a value that starts, has addresses, and stops.
//!
//! The program and every test start a bridge here, the only place that wires layers. The order of a shutdown (api.md 7):
//!
//! ```text
//! signal ─► not ready ─ grace ─► 503 draining, event streams closed, out of the fleet
//!        ─► each partition released without an open turn or a delivery in flight, or at 2/3 of drain_timeout
//!        ─► deliveries aborted ─► waits answered with the current state, sockets closed, other partitions released,
//!           threads ended ─► listeners closed ─► end
//! ```
//!
//! The memory store has no failover. A bridge on it keeps its partitions until every accepted message has ended and each
//! due delivery was attempted (docs/adr/0009).

mod clock_watch;
mod config_reload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use self::clock_watch::ClockWatch;
pub use self::config_reload::ConfigReader;
use self::config_reload::{ConfigReload, ReloadTargets};
use crate::config::{self, Config, ConfigSources, StoreUrl};
use crate::http::{self, AdminContext, ApiContext, ApiServer, ReadinessProbe, ServerTls};
use crate::hub::{self, Hub, HubThreads};
use crate::identity::RemoteKeys;
use crate::metrics::{LabelSets, Metrics};
use crate::runtime::WorkerThreads;
use crate::store::{self, Clock, MemoryLimits, RedisStore, Store, StoreError, StoreRefusal};
use crate::webhook::{self, Dispatcher};

/// Most ended messages that one sweep of the memory store removes, per partition.
const SWEEP_MAX_MESSAGES: usize = 1024;
/// Longest wait of a starting bridge for its store, which may start at the same time.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// The addresses that `localhost` stands for.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Delay between two attempts to reach the store.
const STORE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Failure to start a bridge, which leaves no part running.
#[derive(Debug, thiserror::Error)]
pub enum BridgeStartError {
    /// A listener could not be opened.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be set up.
    #[error(transparent)]
    Store(#[from] store::RedisSetupError),
    /// The store did not answer.
    #[error(
        "the store does not answer: start the server of store.url, or correct store.url and its options \
         (store.username, store.password, store.ca_file, store.client_cert_file); the log says more"
    )]
    StoreAway(#[source] StoreError),
    /// The servers are of another kind than `store.url` says.
    #[error(transparent)]
    StoreKind(#[from] store::KindMismatch),
    /// The store's schema does not fit this version.
    #[error(transparent)]
    Schema(#[from] store::PrepareError),
    /// The shards could not start.
    #[error("the shards could not start")]
    Hub(#[from] hub::HubStartError),
    /// The dispatcher of webhooks could not start.
    #[error("the webhook dispatcher could not start")]
    Webhooks(#[from] webhook::DispatcherStartError),
    /// The certificates of `[server.tls]` cannot be used.
    #[error("the listener cannot use TLS (server.tls)")]
    Tls(#[from] http::ServerTlsError),
    /// A metric's declaration is wrong.
    #[error("a metric's declaration is wrong")]
    Metrics(#[from] prometheus::Error),
}

/// Failure of a running bridge.
#[derive(Debug, thiserror::Error)]
pub enum BridgeStopError {
    /// Signal handlers could not be installed.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
    /// A listener stopped unexpectedly.
    #[error("a listener stopped unexpectedly")]
    ListenerEnded,
    /// A shard stopped unexpectedly: it panicked.
    #[error("a shard stopped unexpectedly; this is a bug")]
    Shard,
    /// The dispatcher of webhooks stopped unexpectedly: it panicked.
    #[error("the webhook dispatcher stopped unexpectedly; this is a bug")]
    Dispatcher,
}

/// Addresses of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeAddresses {
    /// Address for callers.
    pub api: SocketAddr,
    /// Address for probes and Prometheus.
    pub admin: SocketAddr,
}

/// A running bridge.
#[derive(Debug)]
pub struct Bridge {
    addresses: BridgeAddresses,
    store: Store,
    shards: HubThreads,
    dispatcher: Dispatcher,
    draining: Arc<AtomicBool>,
    server: config::ServerConfig,
    tls: Option<Arc<ServerTls>>,
    api: ApiServer,
    admin: ApiServer,
    /// The thread of the operator's listener. It answers even if all workers are busy.
    admin_thread: WorkerThreads,
    sweeper: JoinHandle<()>,
    reload: ReloadTargets,
}

impl Bridge {
    /// Starts a bridge and returns when it is ready for requests. The caller must be inside
    /// [`crate::runtime::block_on`].
    ///
    /// # Errors
    /// [`BridgeStartError`].
    pub async fn start(config: Config) -> Result<Self, BridgeStartError> {
        let options = config.store.clone();
        match Self::start_parts(config).await {
            Ok(bridge) => {
                // One node may hold a whole cluster.
                if let Err(mismatch) = check_store_kind(&options).await {
                    warn!("{mismatch}");
                }
                Ok(bridge)
            }
            Err(
                error @ (BridgeStartError::Schema(_)
                | BridgeStartError::Hub(_)
                | BridgeStartError::Webhooks(_)),
            ) => {
                check_store_kind(&options).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn start_parts(config: Config) -> Result<Self, BridgeStartError> {
        let config = Arc::new(config);
        let server = config.server.clone();
        let metrics = Arc::new(Metrics::new(LabelSets {
            frames_in: hub::FRAMES_IN,
            frames_out: hub::FRAMES_OUT,
            routes: http::ROUTES,
        })?);
        metrics.limits.set(server.max_sockets, server.max_connections, server.memory_limit);
        let store = match config.store.url {
            StoreUrl::Memory => {
                Store::memory(MemoryLimits::new(config.store.memory_limit, config.store.message_ttl))
            }
            StoreUrl::Redis(_) => Store::Redis(RedisStore::new(&config.store)?),
        };
        let tls = server.tls.as_ref().map(ServerTls::new).transpose()?.map(Arc::new);
        let api = listen("server.listen", server.listen)?;
        let admin = listen("server.admin_listen", server.admin_listen)?;
        let addresses = BridgeAddresses {
            api: address(&api, server.listen),
            admin: address(&admin, server.admin_listen),
        };

        wait_for_store(&store, &config.store).await?;
        store.prepare().await?;
        // The dispatcher starts first, because it learns of each partition as a shard gets it.
        let (teller, listening) = store::outbox_events();
        let dispatcher = Dispatcher::start(&config, store.clone(), &metrics, listening).await?;
        let shards = Hub::start(&config, store.clone(), &metrics, teller.clone()).await?;
        let draining = Arc::new(AtomicBool::new(false));
        let context =
            ApiContext::new(shards.hub().clone(), Arc::clone(&config), Arc::clone(&metrics), Clock::wall());
        let readiness =
            ReadinessProbe::new(shards.hub().clone(), store.clone(), &config, Arc::clone(&draining));
        let readiness = Arc::new(readiness);
        let reload_status = Arc::clone(readiness.reload_status());
        let context = context.probed(Arc::clone(&readiness)).draining(Arc::clone(&draining));
        let context = Arc::new(context.outbox(teller));
        let operator = Arc::new(AdminContext {
            metrics: Arc::clone(&metrics),
            readiness,
            metrics_token: server.metrics_token.clone(),
            // Other addresses of loopback are names that an operator chose.
            local_only: !config.has_callers() && LOCALHOST.contains(&server.admin_listen.ip()),
        });
        let failed = |key, address| move |source| BridgeStartError::Listen { key, address, source };
        let admin_failed = failed("server.admin_listen", server.admin_listen);
        let admin_thread = WorkerThreads::start("admin", 1).map_err(admin_failed)?;
        let admin = ApiServer::start_admin(operator, admin, &admin_thread).await.map_err(admin_failed)?;
        let api = ApiServer::start(&context, api, tls.clone(), shards.workers())
            .await
            .map_err(failed("server.listen", server.listen))?;
        for keys in context.remote_keys() {
            spawn(RemoteKeys::run(keys, Arc::clone(&metrics)));
        }
        info!(
            api = %addresses.api, admin = %addresses.admin,
            replica = %config.cluster.replica_id, incarnation = %shards.hub().incarnation(),
            "the bridge is ready"
        );
        Ok(Self {
            addresses,
            reload: ReloadTargets {
                context: Arc::clone(&context),
                bots: config.bots.clone(),
                webhooks: config.webhooks.clone(),
                hub: shards.hub().clone(),
                receivers: dispatcher.receivers(),
                metrics: Arc::clone(&metrics),
                status: reload_status,
                tls: tls.clone(),
            },
            sweeper: spawn(sweep(store.clone(), Arc::clone(&context), Arc::clone(&metrics))),
            store,
            shards,
            dispatcher,
            draining,
            server,
            tls,
            api,
            admin,
            admin_thread,
        })
    }

    /// Returns the addresses. Port 0 in the configuration is replaced by the real port.
    pub const fn addresses(&self) -> BridgeAddresses {
        self.addresses
    }

    /// Returns the certificate of the callers' listener, which [`ServerTls::replace`] replaces.
    pub const fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls.as_ref()
    }

    /// Returns the store, for inspection.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Runs until SIGTERM or SIGINT, or until a part fails, then shuts down gracefully. A second signal stops the
    /// bridge at once.
    ///
    /// # Errors
    /// [`BridgeStopError`].
    pub async fn run_until_signal(mut self) -> Result<(), BridgeStopError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(BridgeStopError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(BridgeStopError::Signals)?;
        let failed = tokio::select! {
            _ = terminate.recv() => {
                info!("SIGTERM: shutting down");
                Ok(())
            }
            _ = interrupt.recv() => {
                info!("SIGINT: shutting down; a second signal stops at once");
                Ok(())
            }
            failure = self.failed() => {
                error!(%failure, "shutting down after a failure; a supervisor can restart this process");
                Err(failure)
            }
        };
        tokio::select! {
            () = self.stop() => failed,
            _ = terminate.recv() => failed,
            _ = interrupt.recv() => failed,
        }
    }

    /// Watches the configuration, and takes over its changes until the bridge stops. `sources` are those of the one
    /// that it has started with.
    ///
    /// # Errors
    /// [`BridgeStopError`].
    pub async fn run_reloading(
        self,
        read: ConfigReader,
        sources: &ConfigSources,
    ) -> Result<(), BridgeStopError> {
        let reload = ConfigReload::new(read, sources).run(self.reload.clone());
        let reload = AbortOnDropHandle::new(spawn(reload));
        let ended = self.run_until_signal().await;
        drop(reload);
        ended
    }

    /// Returns when an essential part has stopped: without it the process would look alive and be useless.
    async fn failed(&mut self) -> BridgeStopError {
        tokio::select! {
            () = self.api.died() => BridgeStopError::ListenerEnded,
            () = self.admin.died() => BridgeStopError::ListenerEnded,
            () = self.shards.died() => BridgeStopError::Shard,
            () = self.dispatcher.died() => BridgeStopError::Dispatcher,
        }
    }

    /// Shuts down in the order of api.md 7, within `drain_timeout`. A part that does not end in time is logged.
    pub async fn stop(self) {
        let started = Instant::now();
        let at = |part: Duration| started + part;
        self.draining.store(true, Ordering::Relaxed);
        // A client with a seldom used connection finds it closed and opens another elsewhere. Otherwise its next
        // request would be refused here.
        sleep_until(at(self.server.grace * 9 / 10)).await;
        self.api.close_connections();
        sleep_until(at(self.server.grace)).await;
        self.shards.refuse();
        let drain_by = at(self.server.drain_timeout * 2 / 3);
        let drained = async {
            self.shards.drain(drain_by).await;
            if let Store::Memory(_) = &self.store {
                self.dispatcher.idle().await;
            }
        };
        if timeout_at(drain_by, drained).await.is_err() {
            warn!("turns, waits or deliveries were still open at the end of the drain");
        }
        // This replica still holds the leases of partitions that it did not release. Only their owner may record the
        // end of an attempt.
        self.dispatcher.stop(at(self.server.drain_timeout * 3 / 4)).await;
        let workers = self.shards.stop(at(self.server.drain_timeout * 5 / 6)).await;
        self.sweeper.abort();
        let by = at(self.server.drain_timeout);
        if timeout_at(by, self.api.stop()).await.is_err() {
            warn!("requests were still open at the end of the shutdown");
        }
        if !workers.stop(by).await {
            warn!("a worker thread did not end in time");
        }
        if timeout_at(by, self.admin.stop()).await.is_err() || !self.admin_thread.stop(by).await {
            warn!("the operator's listener did not end in time");
        }
        info!(seconds = started.elapsed().as_secs_f64(), "the bridge has stopped");
    }
}

/// Removes expired data, counts open messages and the memory of requests, and compares the clocks, once a second.
async fn sweep(store: Store, context: Arc<ApiContext>, metrics: Arc<Metrics>) {
    let memory = context.memory();
    let mut second = interval(Duration::from_secs(1));
    let mut clocks = ClockWatch::default();
    loop {
        second.tick().await;
        clocks.look(&metrics.clocks);
        metrics.request_memory.set(i64::try_from(memory.taken()).unwrap_or(i64::MAX));
        context.return_idle_rates().await;
        match &store {
            Store::Memory(memory) => {
                memory.sweep(SWEEP_MAX_MESSAGES);
                metrics.open_messages.set(i64::try_from(memory.stats().open).unwrap_or(i64::MAX));
            }
            Store::Redis(redis) => {
                redis.check_health().await;
                if let Some(memory) = redis.health().memory {
                    metrics.store_memory.set(memory.used, memory.limit);
                }
            }
        }
    }
}

/// Waits until the store answers, for [`STORE_TIMEOUT`] at most.
async fn wait_for_store(store: &Store, options: &config::StoreConfig) -> Result<(), BridgeStartError> {
    let until = Instant::now() + STORE_TIMEOUT;
    loop {
        let error = match timeout(STORE_TIMEOUT, store.now()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Unknown(STORE_TIMEOUT),
        };
        if !matches!(error, StoreError::Unavailable(StoreRefusal::Loading | StoreRefusal::Busy)) {
            check_store_kind(options).await?;
        }
        // Missing rights do not appear by themselves.
        let lasts = error == StoreError::Unavailable(StoreRefusal::NotAllowed);
        if lasts || Instant::now() >= until {
            return Err(BridgeStartError::StoreAway(error));
        }
        warn!(%error, "the store does not answer yet");
        sleep(STORE_RETRY_INTERVAL).await;
    }
}

/// Fails if the servers are of another kind than `store.url` says. Their errors would not tell the cause.
async fn check_store_kind(options: &config::StoreConfig) -> Result<(), store::KindMismatch> {
    RedisStore::kind_mismatch(options).await.map_or(Ok(()), Err)
}

fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, BridgeStartError> {
    TcpListener::bind(address).map_err(|source| BridgeStartError::Listen { key, address, source })
}

fn address(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}

#[expect(clippy::disallowed_methods, reason = "the bridge's own few tasks; all end with it")]
fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(task)
}
