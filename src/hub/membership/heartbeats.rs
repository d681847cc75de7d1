//! The heartbeats of the replica, the assignment that follows from their answers, and the departure from the fleet.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep};
use tracing::{error, info, warn};

use super::MembershipWorker;
use super::hints::ECHO;
use crate::domain::Timestamp;
use crate::hub::rebalance::{Assignment, StoreContact};
use crate::store::{Heartbeat, ReplicaIdentity, Store};
use crate::wall_clock;

/// The shortest interval between two heartbeats. A burst of releases causes one heartbeat.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// The store forgets a replica after this many lifetimes of a heartbeat.
const FORGOTTEN: u32 = 10;

impl MembershipWorker {
    /// Sends heartbeats until the replica leaves the fleet.
    pub(super) async fn beat(&self) {
        let every = Duration::from_secs(1).min(self.leases().ttl() / 5);
        let mut number = 0;
        let mut resynced = Instant::now();
        let mut away = false;
        let mut last_beat: Option<Timestamp> = None;
        let mut hold_until = None;
        while !self.leases().is_leaving() {
            #[cfg(test)]
            self.leases().faults.thawed().await;
            number += 1;
            self.remember_echo(number);
            let beat = Heartbeat {
                peer: self.setup.peer.clone(),
                bots: self.setup.bots.clone(),
                // The lifetime is shorter than a lease, so a failover waits for the lease and not for the heartbeat.
                ttl: self.leases().ttl() * 2 / 3,
                echo: number,
            };
            let sent = wall_clock::now();
            match self.setup.store.heartbeat(&beat).await {
                Ok(fleet) => {
                    self.compare_clocks(sent, fleet.now);
                    self.setup.metrics.store_up.set(1);
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
                    if let Some(last) = last_beat.replace(fleet.now)
                        && !fleet.known
                    {
                        // The store forgets a replica after a long silence, which is no loss.
                        if fleet.now < last + beat.ttl * FORGOTTEN {
                            self.on_loss();
                        }
                        self.leases().request_resync();
                        hold_until = Some(Instant::now() + beat.ttl);
                    }
                    // A store that lost the heartbeats does not know healthy replicas. The assignment stays until each
                    // of them has had time for another heartbeat.
                    if hold_until.is_none_or(|until| Instant::now() >= until) {
                        hold_until = None;
                        self.assign(fleet.live);
                    }
                }
                Err(error) => {
                    self.setup.metrics.store_up.set(0);
                    if !std::mem::replace(&mut away, true) {
                        error!(%error, "the store does not answer: new messages are refused until it does");
                    }
                    self.contact.set(StoreContact::default());
                }
            }
            self.rebalance_due.notify_one();
            if !away && self.is_deaf() && resynced.elapsed() >= ECHO {
                resynced = Instant::now();
                self.leases().request_resync();
            }
            sleep(MIN_INTERVAL).await;
            tokio::select! {
                () = sleep(every.saturating_sub(MIN_INTERVAL)) => {}
                () = self.leases().heartbeat_now.notified() => {}
            }
        }
        self.leave().await;
    }

    /// Compares this replica's clock with the time in the answer to a request. The memory store has no other clock.
    fn compare_clocks(&self, sent: Timestamp, told: Timestamp) {
        if let Store::Redis(_) = &self.setup.store {
            let millisecond = Duration::from_millis(1);
            self.setup.metrics.store_clock.observe(sent, wall_clock::now(), told, millisecond);
        }
    }

    /// Computes a new assignment if the live replicas have changed.
    fn assign(&self, mut live: Vec<ReplicaIdentity>) {
        self.leases().set_replicas(live.len());
        self.setup.metrics.replicas.set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        live.sort_unstable();
        if *self.live.borrow() != live {
            info!(replicas = live.len(), "the fleet has changed");
            self.assignment.replace(Assignment::over(&live));
            self.setup.fleet.send_replace(live.as_slice().into());
            self.live.replace(live);
        }
    }

    /// Leaves the fleet, then drains all partitions.
    async fn leave(&self) {
        self.rebalance_due.notify_one();
        let mut again = interval(self.leases().ttl() / 5);
        loop {
            again.tick().await;
            match self.setup.store.leave(self.setup.peer.incarnation).await {
                Ok(()) => break,
                Err(error) => warn!(%error, "the replica could not leave the fleet; retrying"),
            }
        }
        // Without heartbeats no echo proves that hints arrive, so waiters are resynced regularly.
        loop {
            sleep(ECHO).await;
            self.leases().request_resync();
        }
    }
}
