//! The claims and drains of partitions, as the rebalance plans them.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::MembershipWorker;
use crate::domain::{Partition, Timestamp};
use crate::hub::rebalance::{ClusterView, PartitionStatus, RebalanceAction, plan_rebalance};
use crate::store::{ClaimMode, ClaimResult, DrainReason, Ownership, StoreError};

impl MembershipWorker {
    /// Plans and executes a rebalance after every change, and when a lease of another replica expires.
    pub(super) async fn rebalance(&self) {
        loop {
            let next_expiry = self.next_foreign_expiry();
            tokio::select! {
                () = self.rebalance_due.notified() => {}
                () = until(next_expiry) => {}
            }
            #[cfg(test)]
            self.leases().faults.thawed().await;
            let mut claims = Vec::new();
            let mut wanted = vec![false; Partition::COUNT];
            for action in self.plan() {
                match action {
                    RebalanceAction::Claim { partition, claiming } => {
                        wanted.get_mut(partition.index()).into_iter().for_each(|wanted| *wanted = true);
                        claims.push(self.claim(partition, claiming));
                    }
                    RebalanceAction::Drain { partition } => {
                        let leaving = self.leases().is_leaving();
                        let reason = if leaving { DrainReason::Shutdown } else { DrainReason::Rebalance };
                        self.leases().drain(partition, reason);
                    }
                }
            }
            for (lease, _) in
                self.foreign_leases.borrow_mut().iter_mut().zip(wanted).filter(|(_, wanted)| !wanted)
            {
                *lease = None;
            }
            join_all(claims).await;
            self.count_partitions();
            let leases = self.leases();
            if leases.is_leaving()
                && Partition::all().any(|partition| leases.ownership(partition).active().is_some())
            {
                // A claim succeeded while the replica began to leave.
                self.rebalance_due.notify_one();
            }
            if self.contact.get().since().is_some()
                && let Some(joined) = self.joined.take()
            {
                joined.send(()).ok();
            }
        }
    }

    fn plan(&self) -> Vec<RebalanceAction> {
        let leases = self.leases();
        let leaving = leases.is_leaving();
        let partitions: Vec<_> = Partition::all()
            .zip(&*self.failed_at.borrow())
            .map(|(partition, failed_at)| PartitionStatus {
                ownership: match leases.ownership(partition) {
                    // A shutdown drains it again, with more time.
                    Ownership::Draining(fence, DrainReason::Rebalance) if leaving => Ownership::Active(fence),
                    ownership => ownership,
                },
                failed_at: *failed_at,
            })
            .collect();
        plan_rebalance(&ClusterView {
            me: leases.incarnation(),
            assignment: &self.assignment.borrow(),
            leaving,
            contact: self.contact.get().since(),
            now: leases.elapsed(),
            lease: leases.ttl(),
            partitions: &partitions,
        })
    }

    async fn claim(&self, partition: Partition, claiming: ClaimMode) {
        let sent = Instant::now();
        let leases = self.leases();
        match self.setup.store.claim(partition, leases.incarnation(), leases.ttl(), claiming).await {
            Ok(ClaimResult::Yours { fence, now }) => {
                self.observe(now);
                let metrics = &self.setup.metrics;
                // The owner released a lease that had not expired.
                let expired = self.set_foreign_lease(partition, None).is_some_and(|until| until <= now);
                match claiming {
                    ClaimMode::Expired if expired => &metrics.claimed_expired,
                    ClaimMode::Free | ClaimMode::Expired => &metrics.claimed_free,
                }
                .inc();
                leases.claimed(partition, fence, sent);
            }
            Ok(ClaimResult::Held { until, .. }) => {
                self.set_foreign_lease(partition, Some(until));
            }
            Err(error) => self.on_failure(partition, &error),
        }
    }

    pub(super) fn on_failure(&self, partition: Partition, error: &StoreError) {
        tracing::debug!(%partition, %error, "the store did not answer for a partition");
        if let Some(failed_at) = self.failed_at.borrow_mut().get_mut(partition.index()) {
            *failed_at = Some(self.leases().elapsed());
        }
    }

    fn set_foreign_lease(&self, partition: Partition, until: Option<Timestamp>) -> Option<Timestamp> {
        let mut leases = self.foreign_leases.borrow_mut();
        let slot = leases.get_mut(partition.index())?;
        std::mem::replace(slot, until)
    }

    /// Returns the next expiry of a lease of another replica that blocked a claim.
    fn next_foreign_expiry(&self) -> Option<Instant> {
        let now = self.clock.now();
        let leases = self.foreign_leases.borrow();
        let next = leases.iter().flatten().filter(|until| **until >= now).min()?;
        Some(self.clock.instant(*next + Duration::from_millis(1)))
    }

    pub(super) fn count_partitions(&self) {
        let held = self.leases().held().count();
        self.setup.metrics.partitions_owned.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
