//! The threads of a hub: how they start, and how they end.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::error;

use super::keeper::{End, Keeper};
use super::lease::Leases;
use super::shard::{Command, Setup, Shard};
use super::{Hub, HubStartError, Lane};
use crate::config::Config;
use crate::link::PlatformConnector;
use crate::metrics::Metrics;
use crate::runtime;
use crate::store::{Incarnation, OutboxEventSender, ReplicaIdentity, Store};

/// Commands that may wait for a shard; more wait in the requests that bring them.
const QUEUE: usize = 1024;

/// How often a thread that is about to end is looked after; nothing tells of a thread's end.
const MOMENT: Duration = Duration::from_millis(5);

/// The threads: shards and keeper. Whoever holds this ends them.
#[derive(Debug)]
pub struct Shards {
    hub: Hub,
    threads: Vec<JoinHandle<()>>,
    keeper: JoinHandle<()>,
    keeper_end: mpsc::Sender<End>,
}

impl Hub {
    /// Starts the threads, and waits until the replica has claimed what it may. The store must answer. `news` tells
    /// whoever attempts deliveries what is owned and due.
    ///
    /// # Errors
    /// [`HubStartError`]; nothing runs then.
    pub async fn start(
        config: &Config,
        store: Store,
        metrics: &Arc<Metrics>,
        news: OutboxEventSender,
    ) -> Result<Shards, HubStartError> {
        Self::start_with(config, store, metrics, news, true).await
    }

    /// The same, perhaps without listening to hints.
    pub(super) async fn start_with(
        config: &Config,
        store: Store,
        metrics: &Arc<Metrics>,
        news: OutboxEventSender,
        listens: bool,
    ) -> Result<Shards, HubStartError> {
        let count = config.server.threads.div_ceil(2);
        let incarnation = incarnation();
        let leases = Arc::new(Leases::new(incarnation, config.cluster.lease_ttl, count));
        let mut lanes = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for setup in setups(config, &store, metrics, &leases, &news)? {
            let busy = Arc::clone(&setup.busy);
            let (commands, inbox) = mpsc::channel(QUEUE);
            let (ready, started) = oneshot::channel();
            let thread = runtime::shard_thread(&format!("shard-{}", setup.index), async move || {
                match open_shard(setup).await {
                    Ok(shard) => {
                        ready.send(Ok(())).ok();
                        shard.run(inbox).await;
                    }
                    Err(error) => {
                        ready.send(Err(error)).ok();
                    }
                }
            })
            .map_err(HubStartError::Thread)?;
            started.await.map_err(|_| HubStartError::Died)??;
            threads.push(thread);
            lanes.push(Lane { commands, busy });
        }
        let lanes: Arc<[Lane]> = lanes.into();
        let peer = ReplicaIdentity { name: config.cluster.replica_id.as_str().into(), incarnation };
        let bots = config.bots.iter().map(|bot| bot.name.clone()).collect();
        let fleet = metrics.fleet.clone();
        let keeper = Keeper {
            store: store.clone(),
            peer,
            bots,
            leases: Arc::clone(&leases),
            lanes: Arc::clone(&lanes),
            metrics: fleet.clone(),
            news,
            listens,
        };
        let (first, claimed) = oneshot::channel();
        let (keeper_end, end) = mpsc::channel(1);
        let keeper = runtime::shard_thread("keeper", async move || keeper.run(first, end).await)
            .map_err(HubStartError::Thread)?;
        // A heartbeat and the claims that follow it, each no longer than a command may take, and some more.
        let patience = config.store.command_timeout * 5;
        timeout(patience, claimed)
            .await
            .map_err(|_| HubStartError::Silent(patience))?
            .map_err(|_| HubStartError::Died)?;
        let hub = Self {
            store,
            leases,
            lanes,
            metrics: fleet,
            waits: Arc::default(),
            max_busy: config.server.max_sockets,
        };
        Ok(Shards { hub, threads, keeper, keeper_end })
    }
}

pub(super) fn setups(
    config: &Config,
    store: &Store,
    metrics: &Arc<Metrics>,
    leases: &Arc<Leases>,
    news: &OutboxEventSender,
) -> Result<Vec<Setup>, HubStartError> {
    let bot_metrics: HashMap<_, _> = config
        .bots
        .iter()
        .map(|bot| Ok((bot.name.clone(), metrics.bot(&bot.name)?)))
        .collect::<Result<_, _>>()
        .map_err(HubStartError::Metrics)?;
    (0..leases.shards())
        .map(|index| {
            Ok(Setup {
                index,
                store: store.clone(),
                bots: config.bots.clone(),
                metrics: Arc::clone(metrics),
                bot_metrics: bot_metrics.clone(),
                write_metrics: metrics.store("write").map_err(HubStartError::Metrics)?,
                queue: metrics.shard(index).map_err(HubStartError::Metrics)?,
                leases: Arc::clone(leases),
                room: config.server.max_sockets.div_ceil(leases.shards()),
                busy: Arc::new(AtomicUsize::new(0)),
                news: news.clone(),
            })
        })
        .collect()
}

pub(super) async fn open_shard(setup: Setup) -> Result<std::rc::Rc<Shard>, HubStartError> {
    let connector = PlatformConnector::new(&setup.bots)?;
    let now = setup.store.now().await?;
    Ok(Shard::new(setup, connector, now))
}

impl Shards {
    /// The handle for those who post and wait.
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// From now on nothing is accepted, and all who read live are let go.
    pub fn refuse(&self) {
        self.hub.leases.refuse();
    }

    /// Comes back when this replica is not needed any more. Where somebody will take over, it leaves the fleet,
    /// and each partition is released as soon as no turn is open in it; who waits here is told by the new owner.
    /// Where nobody will (docs/adr/0009), everything accepted is finished here. `by` then the caller stops waiting for
    /// it: attempts to deliver are broken off a little earlier.
    pub async fn calm(&self, by: Instant) {
        if self.hands_over() {
            self.hub.leases.leave(by);
            while self.hub.leases.held().next().is_some() || self.hub.waits.load(Ordering::Relaxed) > 0 {
                sleep(MOMENT * 4).await;
            }
            return;
        }
        for lane in &*self.hub.lanes {
            let (done, calm) = oneshot::channel();
            if lane.commands.send(Command::Calm { done }).await.is_ok() {
                calm.await.ok();
            }
        }
    }

    /// Whether what is accepted here outlives this replica.
    fn hands_over(&self) -> bool {
        !matches!(self.hub.store, Store::Memory(_)) || self.hub.leases.replicas() > 1
    }

    /// Comes back when a thread has ended without having been told to: it panicked, and what it held hangs.
    pub async fn died(&self) {
        let lanes = self.hub.lanes.iter().map(|lane| Box::pin(lane.commands.closed()));
        tokio::select! {
            _ = select_all(lanes) => {}
            () = self.keeper_end.closed() => {}
        }
    }

    /// Lets all waiters read for themselves, closes all sockets, gives the partitions back and ends the threads.
    /// A thread that has not ended `by` then is left behind.
    pub async fn stop(self, by: Instant) {
        self.end(by, || Command::Stop, End::Release).await;
    }

    /// Ends the threads as if the process had been killed: nothing is closed, nothing released.
    #[cfg(test)]
    pub(super) async fn kill(self, by: Instant) {
        self.end(by, || Command::Cut, End::Cut).await;
    }

    async fn end(self, by: Instant, command: fn() -> Command, end: End) {
        let ended = async {
            if end != End::Release {
                self.keeper_end.send(end).await.ok();
            }
            // A shard that hangs does not keep the others from being told.
            join_all(self.hub.lanes.iter().map(|lane| lane.commands.send(command()))).await;
            finished(&self.threads).await;
            // The keeper last: leases are renewed for as long as a socket may be open, and released then.
            self.keeper_end.send(end).await.ok();
            finished(std::slice::from_ref(&self.keeper)).await;
        };
        if timeout_at(by, ended).await.is_err() {
            error!("a thread did not end in time");
        }
        for thread in self.threads.into_iter().chain([self.keeper]).filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                error!("a thread panicked; this is a bug");
            }
        }
    }
}

/// No two lives may ever share it, for it makes them one owner: so it comes from the system's randomness, and not
/// from the generator that draws jitter, which is seeded with the time.
fn incarnation() -> Incarnation {
    Incarnation(RandomState::new().build_hasher().finish())
}

async fn finished(threads: &[JoinHandle<()>]) {
    for thread in threads {
        while !thread.is_finished() {
            sleep(MOMENT).await;
        }
    }
}
