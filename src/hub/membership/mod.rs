//! The membership of a replica in the fleet, on a thread of its own.
//!
//! The thread sends heartbeats, claims and renews leases, releases drained partitions and forwards hints of other replicas.
//! It has its own thread and connection to the store, because a renewal must not wait behind a busy shard
//! (docs/adr/0013).
//!
//! ```text
//!  beat ──► fleet ──► rebalance: plan ──► claim, drain       lease table ──► shards (woken, compare)
//!  renew ──► valid, or lost ───────────────────────────────►    ▲
//!  release ◄── drained ◄── shards                         suspect, drained
//!  listen ──► hints to shards; echo, fleet ──► beat
//! ```
//!
//! It does not know conversations, sockets or waiters.

mod heartbeats;
mod hints;
mod rebalance;
mod renewals;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info};

use super::ShardHandle;
use super::lease_table::LeaseTable;
use super::rebalance::{Assignment, StoreContact};
use crate::domain::{BotName, Partition, Timestamp};
use crate::link::StoreClock;
use crate::metrics::FleetMetrics;
use crate::store::{Incarnation, OutboxEventSender, ReplicaIdentity, Store};

/// The parts of the membership thread that are made on another thread.
pub(crate) struct MembershipSetup {
    pub(crate) store: Store,
    pub(crate) peer: ReplicaIdentity,
    pub(crate) bots: Vec<BotName>,
    pub(crate) leases: Arc<LeaseTable>,
    pub(crate) shards: Arc<[ShardHandle]>,
    pub(crate) metrics: FleetMetrics,
    /// The live replicas, for lists of conversations.
    pub(crate) fleet: watch::Sender<Arc<[ReplicaIdentity]>>,
    /// Events for the webhook worker.
    pub(crate) outbox_events: OutboxEventSender,
}

/// The state of the membership thread.
struct MembershipWorker {
    setup: MembershipSetup,
    clock: StoreClock,
    contact: Cell<StoreContact>,
    /// The live replicas at the last heartbeat, in order.
    live: RefCell<Vec<ReplicaIdentity>>,
    assignment: RefCell<Assignment>,
    /// The time of the last store failure, by partition.
    failed_at: RefCell<Vec<Option<Duration>>>,
    /// The lease of another replica that blocked the last claim, by partition.
    foreign_leases: RefCell<Vec<Option<ForeignLease>>>,
    /// Heartbeats whose echo has not come back.
    echoes: RefCell<VecDeque<(u64, Instant)>>,
    /// Signals that a rebalance has to be planned.
    rebalance_due: Notify,
    /// Signals that the store is not set up.
    unprepared: Notify,
    joined: RefCell<Option<oneshot::Sender<()>>>,
    /// The time of the last data loss. One loss shows in many places.
    lost_at: Cell<Option<Instant>>,
    /// Partitions that other replicas claimed, and that no log line told yet.
    claimed_by_others: Cell<u64>,
}

/// A lease of another replica.
#[derive(Clone, Copy)]
struct ForeignLease {
    holder: Incarnation,
    /// The end of the lease if it is not renewed.
    until: Timestamp,
}

impl MembershipSetup {
    /// Runs the membership until `stop` receives, then releases all partitions. `joined` is answered after the first
    /// claims. The thread ends without a release if the sender of `stop` is dropped.
    pub(crate) async fn run(self, joined: oneshot::Sender<()>, mut stop: mpsc::Receiver<()>) {
        let hints = self.store.listen(self.peer.incarnation);
        let worker = MembershipWorker::new(self, joined);
        let work = async {
            tokio::join!(
                worker.beat(),
                worker.prepare(),
                worker.rebalance(),
                worker.renew(),
                worker.release(),
                worker.listen(hints)
            )
        };
        tokio::select! {
            _ = work => {}
            stop = stop.recv() => if stop.is_some() {
                worker.release_all().await;
            }
        }
    }
}

impl MembershipWorker {
    fn new(setup: MembershipSetup, joined: oneshot::Sender<()>) -> Self {
        Self {
            setup,
            clock: StoreClock::new(Timestamp::default()),
            contact: Cell::default(),
            live: RefCell::default(),
            assignment: RefCell::default(),
            failed_at: RefCell::new(vec![None; Partition::COUNT]),
            foreign_leases: RefCell::new(vec![None; Partition::COUNT]),
            echoes: RefCell::default(),
            rebalance_due: Notify::new(),
            unprepared: Notify::new(),
            joined: RefCell::new(Some(joined)),
            lost_at: Cell::default(),
            claimed_by_others: Cell::default(),
        }
    }

    fn leases(&self) -> &LeaseTable {
        &self.setup.leases
    }

    /// Records the time of the store. If that leapt ahead, healthy leases and heartbeats seem to be expired. The contact
    /// then starts again, which gives their owners time to renew.
    fn observe(&self, store_time: Timestamp) {
        if store_time.since(self.clock.now()) > self.leases().ttl() / 2 {
            self.contact.set(StoreContact::default());
        }
        self.clock.observe(store_time);
    }

    /// Handles a data loss: the store was emptied, or lost writes in a failover. Another fleet may claim partitions of this
    /// replica there, so all leases are renewed at once.
    fn on_loss(&self) {
        self.setup.metrics.store_data_losses.inc();
        self.leases().request_resync();
        if self.lost_at.get().is_some_and(|at| at.elapsed() < self.leases().ttl()) {
            return;
        }
        self.lost_at.set(Some(Instant::now()));
        error!("the store lost data: messages that it had accepted may be lost");
        for (partition, fence) in self.leases().held() {
            self.leases().suspect(partition, fence);
        }
    }

    /// Sets up a store that was emptied. It may take long, so the other tasks continue meanwhile.
    async fn prepare(&self) {
        loop {
            self.unprepared.notified().await;
            match self.setup.store.prepare().await {
                Ok(()) => info!("the store is set up again"),
                Err(error) => error!(%error, "the store is not set up, and the setup failed; retrying"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{metrics, store};
    use crate::store::Fence;

    pub(super) fn worker(leases: &Arc<LeaseTable>) -> MembershipWorker {
        let setup = MembershipSetup {
            store: store(),
            peer: ReplicaIdentity { name: "replica".into(), incarnation: leases.incarnation() },
            bots: Vec::new(),
            leases: Arc::clone(leases),
            shards: [].into(),
            metrics: metrics().fleet.clone(),
            fleet: watch::channel(Arc::default()).0,
            outbox_events: crate::store::outbox_events().0,
        };
        MembershipWorker::new(setup, oneshot::channel().0)
    }

    #[tokio::test(start_paused = true)]
    async fn leap_of_the_store_clock_delays_claims() {
        let ttl = Duration::from_secs(10);
        let leases = Arc::new(LeaseTable::new(Incarnation(1), ttl, 1));
        let worker = worker(&leases);
        let answered = |store_time: Timestamp| {
            worker.observe(store_time);
            let mut contact = worker.contact.get();
            contact.answered(leases.elapsed(), ttl);
            worker.contact.set(contact);
            contact.since().unwrap()
        };
        let start = Timestamp::from_millis(1_763_845_000_000);
        let since = answered(start);
        tokio::time::advance(ttl / 5).await;
        assert_eq!(answered(start + ttl / 5), since);
        tokio::time::advance(ttl / 5).await;
        assert_eq!(answered(start), since, "a clock that was set back expires no lease");
        tokio::time::advance(ttl / 5).await;
        assert_eq!(answered(start + Duration::from_hours(1)), leases.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn data_loss_renews_every_lease_once() {
        let (ttl, me) = (Duration::from_secs(10), Incarnation(1));
        let leases = Arc::new(LeaseTable::new(me, ttl, 1));
        let worker = worker(&leases);
        let ours: Vec<_> = Partition::all().take(3).collect();
        for &partition in &ours {
            leases.claimed(partition, Fence { incarnation: me, epoch: 5 }, Instant::now());
        }
        let suspected = || ours.iter().filter(|partition| leases.take_suspect(**partition)).count();
        worker.on_loss();
        assert_eq!(suspected(), 3);
        worker.on_loss();
        assert_eq!(suspected(), 0, "their renewals are in flight");
        tokio::time::advance(ttl).await;
        worker.on_loss();
        assert_eq!(suspected(), 3, "a later loss counts again");
        assert_eq!(worker.setup.metrics.store_data_losses.get(), 3);
    }
}
