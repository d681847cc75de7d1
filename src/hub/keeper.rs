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

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tracing::{error, info, warn};

use super::lease::{Leases, Phase};
use super::partition::{Contact, Deal, Standing, Step, Tenure, View, decide};
use super::shard::Command;
use super::Lane;
use crate::domain::{BotName, Partition, Timestamp};
use crate::link::StoreClock;
use crate::metrics::FleetMetrics;
use crate::store::{Claim, Claiming, Fence, Heartbeat, Hint, Hints, Peer, Store, StoreError};

/// A heartbeat that has not come back after this long means that hints are lost.
const ECHO: Duration = Duration::from_secs(1);
/// Echoes that are waited for; more are not remembered, and are not needed to notice that none comes.
const ECHOES: usize = 64;
/// Between two heartbeats at least: a burst of releases is one round.
const GAP: Duration = Duration::from_millis(20);

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
    store: Store,
    peer: Peer,
    bots: Vec<BotName>,
    leases: Arc<Leases>,
    lanes: Arc<[Lane]>,
    metrics: FleetMetrics,
    /// Whether hints are listened to; only tests are deaf.
    listens: bool,
}

/// What it knows, on its thread.
struct Watchman {
    keeper: Keeper,
    clock: StoreClock,
    contact: Cell<Contact>,
    deal: RefCell<Deal>,
    troubled: RefCell<Vec<Option<Duration>>>,
    /// Leases of others that were in the way at the last claim, and until when.
    in_the_way: RefCell<Vec<Option<Timestamp>>>,
    /// Heartbeats on their way back.
    echoes: RefCell<VecDeque<(u64, Instant)>>,
    /// There is something to decide.
    news: Notify,
    first: RefCell<Option<oneshot::Sender<()>>>,
}

impl Keeper {
    pub(crate) const fn new(
        store: Store,
        peer: Peer,
        bots: Vec<BotName>,
        leases: Arc<Leases>,
        lanes: Arc<[Lane]>,
        metrics: FleetMetrics,
        listens: bool,
    ) -> Self {
        Self { store, peer, bots, leases, lanes, metrics, listens }
    }

    /// Keeps the leases until it is told to end. `first` is told when it has claimed what it may for the first
    /// time.
    pub(crate) async fn run(self, first: oneshot::Sender<()>, mut end: mpsc::Receiver<End>) {
        let hints = self.listens.then(|| self.store.listen(self.peer.incarnation));
        let watchman = Watchman {
            keeper: self,
            clock: StoreClock::new(Timestamp::default()),
            contact: Cell::default(),
            deal: RefCell::default(),
            troubled: RefCell::new(vec![None; Partition::COUNT]),
            in_the_way: RefCell::new(vec![None; Partition::COUNT]),
            echoes: RefCell::default(),
            news: Notify::new(),
            first: RefCell::new(Some(first)),
        };
        let work = async {
            tokio::join!(
                watchman.beat(),
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
    fn leases(&self) -> &Leases {
        &self.keeper.leases
    }

    // The fleet.

    async fn beat(&self) {
        let every = Duration::from_secs(1).min(self.leases().ttl() / 5);
        let mut number = 0;
        let mut read_again = Instant::now();
        let mut away = false;
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
                    if std::mem::take(&mut away) {
                        info!("the store answers again");
                    }
                    self.clock.observe(fleet.now);
                    let mut contact = self.contact.get();
                    contact.answered(self.leases().elapsed(), self.leases().ttl());
                    self.contact.set(contact);
                    if !fleet.prepared {
                        self.prepare().await;
                    }
                    self.keeper.metrics.replicas.set(i64::try_from(fleet.live.len()).unwrap_or(i64::MAX));
                    self.deal.replace(Deal::over(&fleet.live));
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        error!(%error, "the store does not answer: new messages are refused until it does");
                    }
                    self.contact.set(Contact::default());
                }
            }
            self.news.notify_one();
            if self.is_deaf() && read_again.elapsed() >= ECHO {
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

    /// The store was emptied under us.
    #[expect(clippy::unused_async, reason = "becomes a call of the store")]
    async fn prepare(&self) {
        error!("the store was emptied: what it had accepted and not ended is lost; setting it up again");
        self.leases().missed();
        // FOR THE LEAD: call `self.keeper.store.prepare().await` here as soon as it exists, and log its failure.
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

    fn remember_echo(&self, number: u64) {
        let mut echoes = self.echoes.borrow_mut();
        if echoes.len() < ECHOES {
            echoes.push_back((number, Instant::now()));
        }
    }

    fn is_deaf(&self) -> bool {
        self.echoes.borrow().front().is_some_and(|(_, sent)| sent.elapsed() >= ECHO)
    }

    // Who owns what.

    /// Does what there is to do, whenever there is news.
    async fn settle(&self) {
        loop {
            let soon = self.soonest_in_the_way();
            tokio::select! {
                () = self.news.notified() => {}
                () = until(soon) => {}
            }
            #[cfg(test)]
            self.leases().thawed().await;
            let mut claims = Vec::new();
            let mut wanted = vec![false; Partition::COUNT];
            for step in self.steps() {
                match step {
                    Step::Claim { partition, claiming } => {
                        wanted.get_mut(partition.index()).into_iter().for_each(|wanted| *wanted = true);
                        claims.push(self.claim(partition, claiming));
                    }
                    Step::Drain { partition } => {
                        let leaving = self.leases().is_leaving();
                        self.leases().drain(partition, if leaving { Phase::Leaving } else { Phase::Moving });
                    }
                }
            }
            for (in_the_way, _) in
                self.in_the_way.borrow_mut().iter_mut().zip(wanted).filter(|(_, wanted)| !wanted)
            {
                *in_the_way = None;
            }
            join_all(claims).await;
            self.count();
            if self.contact.get().since().is_some()
                && let Some(first) = self.first.take()
            {
                first.send(()).ok();
            }
        }
    }

    fn steps(&self) -> Vec<Step> {
        let leases = self.leases();
        let leaving = leases.is_leaving();
        let standings: Vec<_> = Partition::all()
            .zip(&*self.troubled.borrow())
            .map(|(partition, troubled)| Standing {
                tenure: match leases.state(partition) {
                    None => Tenure::Out,
                    Some((_, Phase::Owned)) => Tenure::Owned,
                    // What was on its way to somebody may take its time now.
                    Some((_, Phase::Moving)) if leaving => Tenure::Owned,
                    Some((_, Phase::Moving | Phase::Leaving)) => Tenure::Draining,
                },
                troubled: *troubled,
            })
            .collect();
        decide(&View {
            me: leases.incarnation(),
            deal: &self.deal.borrow(),
            leaving,
            contact: self.contact.get().since(),
            now: leases.elapsed(),
            lease: leases.ttl(),
            standings: &standings,
        })
    }

    async fn claim(&self, partition: Partition, claiming: Claiming) {
        let sent = Instant::now();
        let leases = self.leases();
        match self.keeper.store.claim(partition, leases.incarnation(), leases.ttl(), claiming).await {
            Ok(Claim::Yours { fence, now }) => {
                self.clock.observe(now);
                let metrics = &self.keeper.metrics;
                match claiming {
                    Claiming::Expired if self.set_in_the_way(partition, None).is_some() => &metrics.taken_over,
                    Claiming::Free | Claiming::Expired => &metrics.claimed,
                }
                .inc();
                leases.own(partition, fence, sent);
            }
            Ok(Claim::Held { until, .. }) => {
                self.set_in_the_way(partition, Some(until));
            }
            Err(error) => self.trouble(partition, &error),
        }
    }

    fn trouble(&self, partition: Partition, error: &StoreError) {
        tracing::debug!(%partition, %error, "the store did not answer for a partition");
        if let Some(troubled) = self.troubled.borrow_mut().get_mut(partition.index()) {
            *troubled = Some(self.leases().elapsed());
        }
    }

    fn set_in_the_way(&self, partition: Partition, until: Option<Timestamp>) -> Option<Timestamp> {
        let mut in_the_way = self.in_the_way.borrow_mut();
        let slot = in_the_way.get_mut(partition.index())?;
        std::mem::replace(slot, until)
    }

    /// When the first lease runs out that is in the way; the next round comes without it where it is not renewed.
    fn soonest_in_the_way(&self) -> Option<Instant> {
        let now = self.clock.now();
        let in_the_way = self.in_the_way.borrow();
        let soonest = in_the_way.iter().flatten().filter(|until| **until >= now).min()?;
        Some(self.clock.instant(*soonest + Duration::from_millis(1)))
    }

    fn count(&self) {
        let held = self.leases().held().count();
        self.keeper.metrics.partitions.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    // What is ours.

    /// Renews each lease after a third of its life, and more often where that fails.
    async fn renew(&self) {
        let every = self.leases().ttl() / 3;
        let mut tick = interval(self.leases().ttl() / 12);
        let mut renewals: FuturesUnordered<LocalBoxFuture<'_, Partition>> = FuturesUnordered::new();
        let mut under_way = vec![false; Partition::COUNT];
        loop {
            let doubts = tokio::select! {
                _ = tick.tick() => false,
                () = self.leases().doubted.notified() => true,
                Some(partition) = renewals.next() => {
                    if let Some(under_way) = under_way.get_mut(partition.index()) {
                        *under_way = false;
                    }
                    continue;
                }
            };
            let now = self.leases().elapsed();
            for (partition, fence, _) in self.leases().held() {
                let due = if doubts {
                    self.leases().take_doubt(partition)
                } else {
                    now.saturating_sub(self.leases().renewed_at(partition)) >= every
                };
                if due && let Some(under_way) = under_way.get_mut(partition.index()) && !*under_way {
                    *under_way = true;
                    renewals.push(Box::pin(self.renew_one(partition, fence)));
                }
            }
        }
    }

    async fn renew_one(&self, partition: Partition, fence: Fence) -> Partition {
        #[cfg(test)]
        self.leases().thawed().await;
        let sent = Instant::now();
        let renewed = self.keeper.store.renew(partition, fence, self.leases().ttl()).await;
        let leases = self.leases();
        // It may have been released, or lost and claimed again, since it was asked.
        if leases.state(partition).is_none_or(|(ours, _)| ours != fence) {
            return partition;
        }
        match renewed {
            Ok(now) => {
                self.clock.observe(now);
                leases.renewed(partition, sent);
            }
            Err(StoreError::Lost) => {
                error!(%partition, "the store lost the partition's lease: it lost data");
                self.keeper.metrics.store_losses.inc();
                leases.drop(partition);
                leases.missed();
                self.news.notify_one();
            }
            Err(StoreError::Fenced | StoreError::OutOfStep) => {
                // A release that was carried out without an answer looks the same.
                if !leases.is_calm(partition, fence) {
                    warn!(%partition, "another owner claimed the partition");
                    self.keeper.metrics.leases_lost.inc();
                }
                leases.drop(partition);
                self.news.notify_one();
            }
            Err(error @ (StoreError::Unknown(_) | StoreError::Unavailable(_))) => {
                self.trouble(partition, &error);
            }
        }
        partition
    }

    /// Gives back what is drained.
    async fn release(&self) {
        let mut again = interval(Duration::from_secs(1).min(self.leases().ttl() / 5));
        loop {
            tokio::select! {
                _ = again.tick() => {}
                () = self.leases().calmed.notified() => {}
            }
            let calm = self.leases().held().filter(|(partition, fence, phase)| {
                *phase != Phase::Owned && self.leases().is_calm(*partition, *fence)
            });
            join_all(calm.map(|(partition, fence, _)| self.release_one(partition, fence))).await;
        }
    }

    async fn release_one(&self, partition: Partition, fence: Fence) {
        match self.keeper.store.release(partition, fence).await {
            Err(error) if error.is_passing() => {
                warn!(%partition, %error, "the partition could not be released; trying again");
                return;
            }
            Ok(()) => self.keeper.metrics.released.inc(),
            // Somebody else's already: nothing is left to give back.
            Err(_) => {}
        }
        if self.leases().state(partition).is_some_and(|(ours, _)| ours == fence) {
            self.leases().drop(partition);
            self.count();
        }
    }

    /// Gives everything back, once: the shards have ended.
    async fn release_all(&self) {
        if !self.leases().is_leaving()
            && let Err(error) = self.keeper.store.leave(self.keeper.peer.incarnation).await
        {
            warn!(%error, "the replica could not take itself out of the fleet; its heartbeat runs out by itself");
        }
        let held = self.leases().held();
        join_all(held.map(|(partition, fence, _)| self.release_one(partition, fence))).await;
        let left = self.leases().held().count();
        if left > 0 {
            warn!(left, "partitions could not be released; their leases run out by themselves");
        }
    }

    // What others say.

    async fn listen(&self, hints: Option<Hints>) {
        let Some(mut hints) = hints else { return std::future::pending().await };
        loop {
            let hint = hints.next().await;
            self.keeper.metrics.hint(kind(&hint));
            match hint {
                Hint::Accepted(message) => {
                    let partition = Partition::of(&message.new.conversation);
                    self.pass(partition, Command::Accepted { message, waiter: None });
                }
                Hint::Woken(conversation) => {
                    self.pass(Partition::of(&conversation), Command::Woken(conversation));
                }
                Hint::Ended(message) => {
                    self.pass(Partition::of(&message.accepted.new.conversation), Command::Ended(message));
                }
                Hint::EndedLarge { conversation, id } => {
                    self.pass(Partition::of(&conversation), Command::Read { conversation, id });
                }
                Hint::Fleet => self.leases().round.notify_one(),
                Hint::Echo(number) => self.echoes.borrow_mut().retain(|(sent, _)| *sent > number),
                Hint::Subscribed => {
                    self.leases().missed();
                    self.leases().round.notify_one();
                }
            }
        }
    }

    /// Passes a hint on. A shard that is too busy to take it reads what it told of.
    fn pass(&self, partition: Partition, command: Command) {
        let lane = self.keeper.lanes.get(self.leases().shard(partition));
        if lane.is_some_and(|lane| lane.commands.try_send(command).is_err()) {
            self.leases().missed();
        }
    }
}

const fn kind(hint: &Hint) -> &'static str {
    match hint {
        Hint::Accepted(_) => "accepted",
        Hint::Woken(_) => "woken",
        Hint::Ended(_) => "ended",
        Hint::EndedLarge { .. } => "ended_large",
        Hint::Fleet => "fleet",
        Hint::Echo(_) => "echo",
        Hint::Subscribed => "subscribed",
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
