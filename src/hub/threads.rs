//! The threads of a hub: their start, drain and stop.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::error;

use super::lease_table::LeaseTable;
use super::membership::MembershipSetup;
use super::open_message_shares::OpenMessageShares;
use super::rhythms::BotRhythms;
use super::shard::{Shard, ShardCommand, ShardSetup};
use super::{Hub, HubStartError, ShardHandle};
use crate::config::Config;
use crate::link::PlatformConnector;
use crate::metrics::Metrics;
use crate::runtime::{self, WorkerThreads};
use crate::store::{Incarnation, OutboxEventSender, ReplicaIdentity, Store};

/// Commands that may wait for a shard. Requests wait for a place in a full queue.
const QUEUE: usize = 1024;

/// The poll interval for the end of a thread, which sends no notification.
const POLL: Duration = Duration::from_millis(5);

/// The threads of a hub: the shards and the membership thread.
#[derive(Debug)]
pub struct HubThreads {
    hub: Hub,
    workers: WorkerThreads,
    /// The ends of the shards.
    shards: Vec<oneshot::Receiver<()>>,
    membership: JoinHandle<()>,
    membership_stop: mpsc::Sender<()>,
    /// Ends the merges of rhythms.
    rhythms_stop: Option<oneshot::Sender<()>>,
    rhythms_end: oneshot::Receiver<()>,
}

impl Hub {
    /// Starts the threads, and returns after the first claims. The store must answer. `outbox_events` tells the webhook
    /// worker which partitions are owned and which deliveries are due.
    ///
    /// # Errors
    /// [`HubStartError`]; no thread runs then.
    pub async fn start(
        config: &Config,
        store: Store,
        metrics: &Arc<Metrics>,
        outbox_events: OutboxEventSender,
    ) -> Result<HubThreads, HubStartError> {
        let workers = WorkerThreads::start("worker", config.server.threads).map_err(HubStartError::Thread)?;
        let count = workers.count();
        let incarnation = incarnation();
        let leases = Arc::new(LeaseTable::new(incarnation, config.cluster.lease_ttl, count));
        let mut handles = Vec::with_capacity(count);
        let mut shards = Vec::with_capacity(count);
        let rhythms = Arc::new(BotRhythms::new(&config.bots));
        for setup in setups(config, &store, metrics, &leases, &outbox_events, &rhythms)? {
            let busy = Arc::clone(&setup.busy);
            let (commands, inbox) = mpsc::channel(QUEUE);
            let (ready, started) = oneshot::channel();
            let (ended, end) = oneshot::channel();
            let index = setup.index;
            let run = async move || match open_shard(setup).await {
                Ok(shard) => {
                    ready.send(Ok(())).ok();
                    if shard.run(inbox).await {
                        ended.send(()).ok();
                    }
                }
                Err(error) => {
                    ready.send(Err(error)).ok();
                }
            };
            workers.run_on(index, run).await;
            started.await.map_err(|_| HubStartError::Died)??;
            shards.push(end);
            handles.push(ShardHandle { commands, busy });
        }
        let handles: Arc<[ShardHandle]> = handles.into();
        let peer = ReplicaIdentity { name: config.cluster.replica_id.as_str().into(), incarnation };
        let bots = config.bots.iter().map(|bot| bot.name.clone()).collect();
        let fleet_metrics = metrics.fleet.clone();
        let (fleet_sender, fleet) = watch::channel(Arc::default());
        let setup = MembershipSetup {
            store: store.clone(),
            peer,
            bots,
            leases: Arc::clone(&leases),
            shards: Arc::clone(&handles),
            metrics: fleet_metrics.clone(),
            fleet: fleet_sender,
            outbox_events,
        };
        let (joined, claimed) = oneshot::channel();
        let (membership_stop, stop) = mpsc::channel(1);
        let membership = runtime::local_thread("membership", async move || setup.run(joined, stop).await)
            .map_err(HubStartError::Thread)?;
        // The time of a heartbeat, the claims after it, and a margin.
        let patience = config.store.command_timeout * 5;
        timeout(patience, claimed)
            .await
            .map_err(|_| HubStartError::Silent(patience))?
            .map_err(|_| HubStartError::Died)?;
        let (rhythms_stop, stop) = oneshot::channel();
        let (ended, rhythms_end) = oneshot::channel();
        let (shared, merged) = (Arc::clone(&rhythms), store.clone());
        let merge = async move || {
            shared.run(merged, stop).await;
            ended.send(()).ok();
        };
        workers.run_on(0, merge).await;
        let hub = Self {
            store,
            leases,
            shards: handles,
            metrics: fleet_metrics,
            fleet,
            waits: Arc::default(),
            max_busy: config.server.max_sockets,
            shares: Arc::new(OpenMessageShares::new(config)),
            rhythms,
        };
        let rhythms_stop = Some(rhythms_stop);
        Ok(HubThreads { hub, workers, shards, membership, membership_stop, rhythms_stop, rhythms_end })
    }
}

pub(super) fn setups(
    config: &Config,
    store: &Store,
    metrics: &Arc<Metrics>,
    leases: &Arc<LeaseTable>,
    outbox_events: &OutboxEventSender,
    rhythms: &Arc<BotRhythms>,
) -> Result<Vec<ShardSetup>, HubStartError> {
    let bot_metrics: HashMap<_, _> = config
        .bots
        .iter()
        .map(|bot| Ok((bot.name.clone(), metrics.bot(&bot.name)?)))
        .collect::<Result<_, _>>()
        .map_err(HubStartError::Metrics)?;
    (0..leases.shards())
        .map(|index| {
            Ok(ShardSetup {
                index,
                store: store.clone(),
                bots: config.bots.clone(),
                metrics: Arc::clone(metrics),
                bot_metrics: bot_metrics.clone(),
                write_metrics: metrics.store("write").map_err(HubStartError::Metrics)?,
                queue_length: metrics.shard(index).map_err(HubStartError::Metrics)?,
                leases: Arc::clone(leases),
                capacity: config.server.max_sockets.div_ceil(leases.shards()),
                busy: Arc::new(AtomicUsize::new(0)),
                outbox_events: outbox_events.clone(),
                rhythms: Arc::clone(rhythms),
            })
        })
        .collect()
}

pub(super) async fn open_shard(setup: ShardSetup) -> Result<std::rc::Rc<Shard>, HubStartError> {
    let connector = PlatformConnector::new(&setup.bots, setup.metrics.clocks.platform.clone())?;
    let now = setup.store.now().await?;
    Ok(Shard::new(setup, connector, now))
}

impl HubThreads {
    /// Returns the handle to the shards.
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Returns the threads of the shards. They also run the connections of callers, whose requests then reach the shard of
    /// their thread without waking another.
    pub const fn workers(&self) -> &WorkerThreads {
        &self.workers
    }

    /// Refuses new messages from now on, and closes all subscriptions.
    pub fn refuse(&self) {
        self.hub.leases.refuse();
    }

    /// Drains this replica, and returns when it is not needed any more.
    ///
    /// If another replica can continue, this one leaves the fleet, and releases each partition without open turns. Waiters
    /// here get their ends from the new owner. Otherwise (docs/adr/0009) all accepted messages end here. The caller waits
    /// until `by`; delivery attempts are cancelled a little earlier.
    pub async fn drain(&self, by: Instant) {
        if self.can_hand_off() {
            self.hub.leases.leave(by);
            while self.hub.leases.held().next().is_some() || self.hub.waits.load(Ordering::Relaxed) > 0 {
                sleep(POLL * 4).await;
            }
            return;
        }
        for shard in &*self.hub.shards {
            let (done, drained) = oneshot::channel();
            if shard.commands.send(ShardCommand::Drain { done }).await.is_ok() {
                drained.await.ok();
            }
        }
    }

    /// Returns whether another replica can continue with the messages of this one.
    fn can_hand_off(&self) -> bool {
        !matches!(self.hub.store, Store::Memory(_)) || self.hub.leases.replicas() > 1
    }

    /// Returns when a thread has ended by itself: it panicked, and its conversations hang.
    pub async fn died(&self) {
        let shards = self.hub.shards.iter().map(|shard| Box::pin(shard.commands.closed()));
        tokio::select! {
            _ = select_all(shards) => {}
            () = self.membership_stop.closed() => {}
        }
    }

    /// Releases all waiters, closes all sockets, releases the partitions, and ends the shards and the membership thread. At
    /// `by` it returns anyway. The other tasks of the returned threads go on.
    pub async fn stop(mut self, by: Instant) -> WorkerThreads {
        let stopped = async {
            self.send_to_shards(|| ShardCommand::Stop).await;
            let ended = join_all(self.shards.iter_mut()).await;
            // The lessons of the last turns are merged too.
            self.rhythms_stop.take();
            (&mut self.rhythms_end).await.ok();
            if ended.iter().any(Result::is_err) {
                error!("a shard panicked; this is a bug");
            }
            // The membership thread ends last: it renews leases while a socket may be open, then releases them.
            self.membership_stop.send(()).await.ok();
            finished(&self.membership).await;
        };
        if timeout_at(by, stopped).await.is_err() {
            error!("a thread did not end in time");
        }
        if self.membership.is_finished() && self.membership.join().is_err() {
            error!("the membership thread panicked; this is a bug");
        }
        self.workers
    }

    /// Ends the threads as if the process had been killed: no socket is closed and no partition released.
    #[cfg(test)]
    pub(super) async fn kill(mut self, by: Instant) {
        // A membership thread whose sender is dropped ends at once.
        self.membership_stop = mpsc::channel(1).0;
        let killed = async {
            finished(&self.membership).await;
            self.workers.stop(by).await
        };
        assert!(timeout_at(by, killed).await.unwrap(), "the threads end");
    }

    /// Sends a command to all shards at once, so that a shard that hangs delays no other.
    async fn send_to_shards(&self, command: fn() -> ShardCommand) {
        join_all(self.hub.shards.iter().map(|shard| shard.commands.send(command()))).await;
    }
}

/// Returns a new incarnation. Two incarnations must never be equal, because they would count as one owner. The value
/// therefore comes from the system's randomness: the jitter generator is seeded with the time.
fn incarnation() -> Incarnation {
    Incarnation(RandomState::new().build_hasher().finish())
}

async fn finished(thread: &JoinHandle<()>) {
    while !thread.is_finished() {
        sleep(POLL).await;
    }
}
