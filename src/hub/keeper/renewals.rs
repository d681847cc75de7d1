//! How a replica keeps what is its own, and gives it back.

use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, interval};
use tracing::{debug, warn};

use super::Watchman;
use crate::domain::Partition;
use crate::hub::lease::Phase;
use crate::store::{Fence, StoreError};

impl Watchman {
    /// Renews each lease after a third of its life, and more often where that fails.
    pub(super) async fn renew(&self) {
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
                if due
                    && let Some(under_way) = under_way.get_mut(partition.index())
                    && !*under_way
                {
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
                self.observe(now);
                leases.renewed(partition, sent);
            }
            Err(StoreError::Lost) => {
                debug!(%partition, "the store lost the partition's lease");
                leases.drop(partition);
                self.on_loss();
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
    pub(super) async fn release(&self) {
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
    pub(super) async fn release_all(&self) {
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
}
