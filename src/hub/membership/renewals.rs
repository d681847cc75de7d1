//! The renewals of leases, and the release of drained partitions.

use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, interval};
use tracing::{debug, warn};

use super::MembershipWorker;
use crate::domain::{Partition, Timestamp};
use crate::store::{Fence, Ownership, StoreError};
use crate::telemetry::LogLimiter;

impl MembershipWorker {
    /// Renews each lease after a third of its lifetime, and more often after a failure.
    pub(super) async fn renew(&self) {
        let every = self.leases().ttl() / 3;
        let claims = LogLimiter::new();
        let mut tick = interval(self.leases().ttl() / 12);
        let mut renewals: FuturesUnordered<LocalBoxFuture<'_, Vec<Partition>>> = FuturesUnordered::new();
        let mut in_flight = vec![false; Partition::COUNT];
        loop {
            let suspected = tokio::select! {
                _ = tick.tick() => false,
                () = self.leases().suspected.notified() => true,
                Some(renewed) = renewals.next() => {
                    for partition in renewed {
                        if let Some(in_flight) = in_flight.get_mut(partition.index()) {
                            *in_flight = false;
                        }
                    }
                    continue;
                }
            };
            // A pause costs a replica many partitions, and each shows by itself.
            if self.claimed_by_others.get() > 0 && !suspected && claims.pass().is_some() {
                let partitions = self.claimed_by_others.take();
                warn!(partitions, "other owners claimed partitions of this replica");
            }
            let now = self.leases().elapsed();
            let mut leases = Vec::new();
            for (partition, fence) in self.leases().held() {
                let due = if suspected {
                    self.leases().take_suspect(partition)
                } else {
                    now.saturating_sub(self.leases().renewed_at(partition)) >= every
                };
                if due
                    && let Some(in_flight) = in_flight.get_mut(partition.index())
                    && !*in_flight
                {
                    *in_flight = true;
                    leases.push((partition, fence));
                }
            }
            if !leases.is_empty() {
                renewals.push(Box::pin(self.renew_together(leases)));
            }
        }
    }

    /// Renews leases and returns their partitions.
    async fn renew_together(&self, leases: Vec<(Partition, Fence)>) -> Vec<Partition> {
        #[cfg(test)]
        self.leases().faults.thawed().await;
        let sent = Instant::now();
        let renewed = self.setup.store.renew_all(&leases, self.leases().ttl()).await;
        for ((partition, fence), result) in leases.iter().zip(renewed) {
            self.on_renewed(*partition, *fence, sent, result);
        }
        leases.into_iter().map(|(partition, _)| partition).collect()
    }

    fn on_renewed(
        &self,
        partition: Partition,
        fence: Fence,
        sent: Instant,
        renewed: Result<Timestamp, StoreError>,
    ) {
        let leases = self.leases();
        // The partition may have been released, or lost and claimed again, in the meantime.
        if leases.ownership(partition).fence() != Some(fence) {
            return;
        }
        match renewed {
            Ok(now) => {
                self.observe(now);
                leases.renewed(partition, sent);
            }
            Err(StoreError::Lost) => {
                debug!(%partition, "the store lost the partition's lease");
                leases.remove(partition);
                self.on_loss();
                self.rebalance_due.notify_one();
            }
            Err(StoreError::Fenced | StoreError::OutOfStep) => {
                // A release whose answer was lost looks the same.
                if !leases.is_drained(partition, fence) {
                    debug!(%partition, "another owner claimed the partition");
                    self.setup.metrics.leases_lost.inc();
                    self.claimed_by_others.update(|partitions| partitions + 1);
                }
                leases.remove(partition);
                self.rebalance_due.notify_one();
            }
            Err(error @ (StoreError::Unknown(_) | StoreError::Halfway(_) | StoreError::Unavailable(_))) => {
                self.on_failure(partition, &error);
            }
        }
    }

    /// Releases drained partitions.
    pub(super) async fn release(&self) {
        let failures = LogLimiter::new();
        let mut again = interval(Duration::from_secs(1).min(self.leases().ttl() / 5));
        loop {
            tokio::select! {
                _ = again.tick() => {}
                () = self.leases().drained.notified() => {}
            }
            let drained = Partition::all().filter_map(|partition| match self.leases().ownership(partition) {
                Ownership::Draining(fence, _) => Some((partition, fence)),
                Ownership::None | Ownership::Active(_) | Ownership::Revoked => None,
            });
            let drained = drained.filter(|(partition, fence)| self.leases().is_drained(*partition, *fence));
            let released = drained.map(|(partition, fence)| self.release_one(partition, fence));
            let kept = join_all(released).await.into_iter().filter(|released| !released).count();
            if kept > 0 && failures.pass().is_some() {
                warn!(partitions = kept, "partitions could not be released; retrying");
            }
        }
    }

    /// Releases a partition. Returns false if the store did not answer.
    async fn release_one(&self, partition: Partition, fence: Fence) -> bool {
        match self.setup.store.release(partition, fence).await {
            Err(error) if error.is_passing() => {
                debug!(%partition, %error, "the partition could not be released; retrying");
                return false;
            }
            Ok(()) => self.setup.metrics.released.inc(),
            // Another replica owns the partition already.
            Err(_) => {}
        }
        if self.leases().ownership(partition).fence() == Some(fence) {
            self.leases().remove(partition);
            self.count_partitions();
        }
        true
    }

    /// Releases all partitions once, after the shards have ended.
    pub(super) async fn release_all(&self) {
        if !self.leases().is_leaving()
            && let Err(error) = self.setup.store.leave(self.setup.peer.incarnation).await
        {
            warn!(%error, "the replica could not leave the fleet; its heartbeat will expire");
        }
        let held = self.leases().held();
        join_all(held.map(|(partition, fence)| self.release_one(partition, fence))).await;
        let left = self.leases().held().count();
        if left > 0 {
            warn!(left, "partitions could not be released; their leases will expire");
        }
    }
}
