//! The keeper: what a replica does for its place in the fleet, on a thread of its own.
//!
//! It says that the replica lives and hears who else does, claims and renews leases, releases what is drained,
//! and passes on what other replicas hint at. It has a thread and a connection to the store for itself, because
//! a renewal must never wait behind the work of a busy shard (docs/adr/0013).
//!
//! ```text
//!  beat ──► fleet ──► settle: decide ──► claim, drain        leases ──► shards (woken, compare)
//!  renew ──► sure, or lost ───────────────────────────────►    ▲
//!  release ◄── calm ◄── shards                             doubt, calm
//!  listen ──► commands to shards; echo, fleet ──► beat
//! ```
//!
//! What it does not know: conversations, sockets, who waits.

mod claims;
mod hints;
mod renewals;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, interval, sleep};
use tracing::{error, info, warn};

use self::hints::ECHO;
use super::Lane;
use super::lease::Leases;
use super::partition::{Contact, Deal};
use crate::domain::{BotName, Partition, Timestamp};
use crate::link::StoreClock;
use crate::metrics::FleetMetrics;
use crate::store::{Heartbeat, OutboxEventSender, ReplicaIdentity, Store};

/// Between two heartbeats at least: a burst of releases is one round.
const GAP: Duration = Duration::from_millis(20);

/// A replica that has not beaten for so many times the life of a heartbeat is forgotten by the store.
const FORGOTTEN: u32 = 10;

/// How the keeper ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In good order: what is held is released.
    Release,
    /// As if the process had been killed.
    #[cfg(test)]
    Cut,
}

/// What the keeper's thread is made with.
pub(crate) struct Keeper {
    pub(crate) store: Store,
    pub(crate) peer: ReplicaIdentity,
    pub(crate) bots: Vec<BotName>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) lanes: Arc<[Lane]>,
    pub(crate) metrics: FleetMetrics,
    /// Tells whoever attempts deliveries.
    pub(crate) news: OutboxEventSender,
    /// Whether hints are listened to; only tests are deaf.
    pub(crate) listens: bool,
}

/// What it knows, on its thread.
struct Watchman {
    keeper: Keeper,
    clock: StoreClock,
    contact: Cell<Contact>,
    /// The replicas that lived at the last heartbeat, in order.
    live: RefCell<Vec<ReplicaIdentity>>,
    deal: RefCell<Deal>,
    troubled: RefCell<Vec<Option<Duration>>>,
    /// Leases of others that were in the way at the last claim, and until when.
    in_the_way: RefCell<Vec<Option<Timestamp>>>,
    /// Heartbeats on their way back.
    echoes: RefCell<VecDeque<(u64, Instant)>>,
    /// There is something to decide.
    news: Notify,
    /// The store is not set up.
    unprepared: Notify,
    first: RefCell<Option<oneshot::Sender<()>>>,
    /// When a loss of data was noticed last. It shows in many places, and is one.
    lost_at: Cell<Option<Instant>>,
}

impl Keeper {
    /// Keeps the leases until it is told to end. `first` is told when it has claimed what it may for the first
    /// time.
    pub(crate) async fn run(self, first: oneshot::Sender<()>, mut end: mpsc::Receiver<End>) {
        let hints = self.listens.then(|| self.store.listen(self.peer.incarnation));
        let watchman = Watchman::new(self, first);
        let work = async {
            tokio::join!(
                watchman.beat(),
                watchman.prepare(),
                watchman.settle(),
                watchman.renew(),
                watchman.release(),
                watchman.listen(hints)
            )
        };
        tokio::select! {
            _ = work => {}
            end = end.recv() => match end {
                Some(End::Release) => watchman.release_all().await,
                #[cfg(test)]
                Some(End::Cut) => {}
                // Nobody holds the replica any more.
                None => {}
            }
        }
    }
}

impl Watchman {
    fn new(keeper: Keeper, first: oneshot::Sender<()>) -> Self {
        Self {
            keeper,
            clock: StoreClock::new(Timestamp::default()),
            contact: Cell::default(),
            live: RefCell::default(),
            deal: RefCell::default(),
            troubled: RefCell::new(vec![None; Partition::COUNT]),
            in_the_way: RefCell::new(vec![None; Partition::COUNT]),
            echoes: RefCell::default(),
            news: Notify::new(),
            unprepared: Notify::new(),
            first: RefCell::new(Some(first)),
            lost_at: Cell::default(),
        }
    }

    fn leases(&self) -> &Leases {
        &self.keeper.leases
    }

    /// The store told its time. Where that leapt ahead, leases and heartbeats seem to have run out that were well:
    /// their owners get the time to renew them.
    fn observe(&self, told: Timestamp) {
        if told.since(self.clock.now()) > self.leases().ttl() / 2 {
            self.contact.set(Contact::default());
        }
        self.clock.observe(told);
    }

    async fn beat(&self) {
        let every = Duration::from_secs(1).min(self.leases().ttl() / 5);
        let mut number = 0;
        let mut read_again = Instant::now();
        let mut away = false;
        let mut beaten: Option<Timestamp> = None;
        let mut patience = None;
        while !self.leases().is_leaving() {
            #[cfg(test)]
            self.leases().thawed().await;
            number += 1;
            self.remember_echo(number);
            let beat = Heartbeat {
                peer: self.keeper.peer.clone(),
                bots: self.keeper.bots.clone(),
                // Shorter than a lease: whoever comes after a dead replica waits for its leases, not for this.
                ttl: self.leases().ttl() * 2 / 3,
                echo: number,
            };
            match self.keeper.store.heartbeat(&beat).await {
                Ok(fleet) => {
                    self.keeper.metrics.store_up.set(1);
                    if std::mem::take(&mut away) {
                        info!("the store answers again");
                    }
                    self.observe(fleet.now);
                    let mut contact = self.contact.get();
                    contact.answered(self.leases().elapsed(), self.leases().ttl());
                    self.contact.set(contact);
                    if !fleet.prepared {
                        self.unprepared.notify_one();
                    }
                    if let Some(last) = beaten.replace(fleet.now)
                        && !fleet.known
                    {
                        // Whoever was silent for long is forgotten, without any loss.
                        if fleet.now < last + beat.ttl * FORGOTTEN {
                            self.on_loss();
                        }
                        self.leases().missed();
                        patience = Some(Instant::now() + beat.ttl);
                    }
                    // A store that lost the heartbeats lacks replicas that are well: nothing is dealt anew until
                    // each of them has had the time to beat again.
                    if patience.is_none_or(|until| Instant::now() >= until) {
                        patience = None;
                        self.join(fleet.live);
                    }
                }
                Err(error) => {
                    self.keeper.metrics.store_up.set(0);
                    if !std::mem::replace(&mut away, true) {
                        error!(%error, "the store does not answer: new messages are refused until it does");
                    }
                    self.contact.set(Contact::default());
                }
            }
            self.news.notify_one();
            if !away && self.is_deaf() && read_again.elapsed() >= ECHO {
                read_again = Instant::now();
                self.leases().missed();
            }
            sleep(GAP).await;
            tokio::select! {
                () = sleep(every.saturating_sub(GAP)) => {}
                () = self.leases().round.notified() => {}
            }
        }
        self.leave().await;
    }

    /// Deals anew where other replicas live than before.
    fn join(&self, mut live: Vec<ReplicaIdentity>) {
        self.leases().set_replicas(live.len());
        self.keeper.metrics.replicas.set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        live.sort_unstable();
        if *self.live.borrow() != live {
            info!(replicas = live.len(), "the fleet has changed");
            self.deal.replace(Deal::over(&live));
            self.live.replace(live);
        }
    }

    /// The store does not know what it knew: it was emptied, or lost data in a failover. A fleet that begins anew
    /// there may claim what is ours, so all leases are renewed now and not when they are due.
    fn on_loss(&self) {
        self.keeper.metrics.store_data_losses.inc();
        self.leases().missed();
        if self.lost_at.get().is_some_and(|at| at.elapsed() < self.leases().ttl()) {
            return;
        }
        self.lost_at.set(Some(Instant::now()));
        error!("the store lost data: messages that it had accepted may be lost");
        for (partition, fence, _) in self.leases().held() {
            self.leases().doubt(partition, fence);
        }
    }

    /// Sets a store up that was emptied under us, beside everything else: it may take a while.
    async fn prepare(&self) {
        loop {
            self.unprepared.notified().await;
            match self.keeper.store.prepare().await {
                Ok(()) => info!("the store is set up again"),
                Err(error) => error!(%error, "the store is not set up, and cannot be now; trying again"),
            }
        }
    }

    /// Goes on record as gone, then drains everything.
    async fn leave(&self) {
        self.news.notify_one();
        let mut again = interval(self.leases().ttl() / 5);
        loop {
            again.tick().await;
            match self.keeper.store.leave(self.keeper.peer.incarnation).await {
                Ok(()) => break,
                Err(error) => warn!(%error, "the replica could not take itself out of the fleet"),
            }
        }
        // Its own channel is listened to, but nothing comes back that proves it: who waits reads now and then.
        loop {
            sleep(ECHO).await;
            self.leases().missed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{metrics, store};
    use crate::store::{Fence, Incarnation};

    pub(super) fn watchman(leases: &Arc<Leases>) -> Watchman {
        let keeper = Keeper {
            store: store(),
            peer: ReplicaIdentity { name: "replica".into(), incarnation: leases.incarnation() },
            bots: Vec::new(),
            leases: Arc::clone(leases),
            lanes: [].into(),
            metrics: metrics().fleet.clone(),
            news: crate::store::news().0,
            listens: false,
        };
        Watchman::new(keeper, oneshot::channel().0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_of_the_stores_clock_lets_owners_renew_before_others_claim() {
        let ttl = Duration::from_secs(10);
        let leases = Arc::new(Leases::new(Incarnation(1), ttl, 1));
        let watchman = watchman(&leases);
        let answered = |told: Timestamp| {
            watchman.observe(told);
            let mut contact = watchman.contact.get();
            contact.answered(leases.elapsed(), ttl);
            watchman.contact.set(contact);
            contact.since().unwrap()
        };
        let start = Timestamp::from_millis(1_763_845_000_000);
        let since = answered(start);
        tokio::time::advance(ttl / 5).await;
        assert_eq!(answered(start + ttl / 5), since);
        tokio::time::advance(ttl / 5).await;
        assert_eq!(answered(start), since, "set back it makes nothing run out");
        tokio::time::advance(ttl / 5).await;
        assert_eq!(answered(start + Duration::from_hours(1)), leases.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_has_every_lease_renewed_at_once_and_is_one_loss() {
        let (ttl, me) = (Duration::from_secs(10), Incarnation(1));
        let leases = Arc::new(Leases::new(me, ttl, 1));
        let watchman = watchman(&leases);
        let ours: Vec<_> = Partition::all().take(3).collect();
        for &partition in &ours {
            leases.own(partition, Fence { incarnation: me, epoch: 5 }, Instant::now());
        }
        let doubted = || ours.iter().filter(|partition| leases.take_doubt(**partition)).count();
        watchman.on_loss();
        assert_eq!(doubted(), 3);
        watchman.on_loss();
        assert_eq!(doubted(), 0, "their renewals are on their way");
        tokio::time::advance(ttl).await;
        watchman.on_loss();
        assert_eq!(doubted(), 3, "it is another loss");
        assert_eq!(watchman.keeper.metrics.store_data_losses.get(), 3);
    }
}
