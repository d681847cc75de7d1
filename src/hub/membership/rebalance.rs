//! The claims and drains of partitions, as the rebalance plans them.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::{ForeignLease, MembershipWorker};
use crate::domain::Partition;
use crate::hub::rebalance::{ClusterView, PartitionStatus, RebalanceAction, plan_rebalance};
use crate::store::{ClaimMode, ClaimResult, DrainReason, Ownership, StoreError};

/// The longest time for which a new replica is not ready because others still hand over its partitions.
const SETTLE_MAX: Duration = Duration::from_mins(2);

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
            let mut drains = vec![None; Partition::COUNT];
            for action in self.plan() {
                match action {
                    RebalanceAction::Claim { partition, claiming } => {
                        wanted.get_mut(partition.index()).into_iter().for_each(|wanted| *wanted = true);
                        claims.push(self.claim(partition, claiming));
                    }
                    RebalanceAction::Drain { partition } => {
                        let leaving = self.leases().is_leaving();
                        let reason = if leaving { DrainReason::Shutdown } else { DrainReason::Rebalance };
                        drains.get_mut(partition.index()).into_iter().for_each(|drain| *drain = Some(reason));
                    }
                }
            }
            self.request_drains(&drains);
            for (lease, _) in
                self.foreign_leases.borrow_mut().iter_mut().zip(wanted).filter(|(_, wanted)| !wanted)
            {
                *lease = None;
            }
            join_all(claims).await;
            self.count_partitions();
            let leases = self.leases();
            let is_kept = |partition: Partition| {
                leases.ownership(partition).active().is_some() && leases.wanted_drain(partition).is_none()
            };
            if leases.is_leaving() && Partition::all().any(is_kept) {
                // A claim succeeded while the replica began to leave.
                self.rebalance_due.notify_one();
            }
            if self.contact.get().since().is_some() {
                if !self.awaits_handoff() || leases.elapsed() >= SETTLE_MAX {
                    leases.set_settled();
                }
                if let Some(joined) = self.joined.take() {
                    joined.send(()).ok();
                }
            }
        }
    }

    /// Has the shards give away the partitions that have a reason, and keep the others.
    fn request_drains(&self, drains: &[Option<DrainReason>]) {
        for (partition, drain) in Partition::all().zip(drains) {
            match (self.leases().ownership(partition), drain) {
                (Ownership::Active(_), drain) => self.leases().want_drain(partition, *drain),
                // A shutdown gives a drain that has begun more time.
                (_, Some(reason)) => self.leases().drain(partition, *reason),
                (_, None) => {}
            }
        }
    }

    /// Returns whether another live replica still holds a partition that is assigned to this one.
    fn awaits_handoff(&self) -> bool {
        let live = self.live.borrow();
        let holders = self.foreign_leases.borrow();
        holders.iter().flatten().any(|lease| live.iter().any(|replica| replica.incarnation == lease.holder))
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
                let expired = self.set_foreign_lease(partition, None).is_some_and(|lease| lease.until <= now);
                match claiming {
                    ClaimMode::Expired if expired => &metrics.claimed_expired,
                    ClaimMode::Free | ClaimMode::Expired => &metrics.claimed_free,
                }
                .inc();
                leases.claimed(partition, fence, sent);
            }
            Ok(ClaimResult::Held { by, until }) => {
                self.set_foreign_lease(partition, Some(ForeignLease { holder: by, until }));
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

    fn set_foreign_lease(&self, partition: Partition, lease: Option<ForeignLease>) -> Option<ForeignLease> {
        let mut leases = self.foreign_leases.borrow_mut();
        let slot = leases.get_mut(partition.index())?;
        std::mem::replace(slot, lease)
    }

    /// Returns the next expiry of a lease of another replica that blocked a claim.
    fn next_foreign_expiry(&self) -> Option<Instant> {
        let now = self.clock.now();
        let leases = self.foreign_leases.borrow();
        let next = leases.iter().flatten().map(|lease| lease.until).filter(|until| *until >= now).min()?;
        Some(self.clock.instant(next + Duration::from_millis(1)))
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
