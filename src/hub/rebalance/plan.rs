//! The steps from the partitions that a replica has to those that it should have.

use std::time::Duration;

use super::Assignment;
use crate::domain::Partition;
use crate::store::{ClaimMode, Incarnation, Ownership};

/// The state of one partition, as the replica knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The replica's ownership of the partition.
    pub ownership: Ownership,
    /// The time of the last store failure for this partition.
    pub failed_at: Option<Duration>,
}

/// The input of [`plan_rebalance`].
#[derive(Debug, Clone, Copy)]
pub struct ClusterView<'a> {
    /// The replica that plans.
    pub me: Incarnation,
    /// The assignment over the live replicas of the last heartbeat.
    pub assignment: &'a Assignment,
    /// Whether this replica is leaving the fleet.
    pub leaving: bool,
    /// The start of uninterrupted contact with the store; `None` without contact.
    pub contact: Option<Duration>,
    /// The current time, on the clock of `contact` and [`PartitionStatus::failed_at`].
    pub now: Duration,
    /// The lifetime of a lease without renewal.
    pub lease: Duration,
    /// The partitions by [`Partition::index`]; missing ones count as [`PartitionStatus::default`].
    pub partitions: &'a [PartitionStatus],
}

/// One step of a rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceAction {
    /// Claims the partition.
    Claim {
        /// The partition.
        partition: Partition,
        /// Whether an expired lease of another replica may be claimed too.
        claiming: ClaimMode,
    },
    /// Finishes open work of the partition, then releases it.
    Drain {
        /// The partition.
        partition: Partition,
    },
}

/// Returns the steps that the replica has to take now.
///
/// The replica claims the partitions that are assigned to it, and drains those that are assigned to another live
/// replica. A free partition may be claimed at once. A partition with an expired lease is claimed only after a whole
/// lease of uninterrupted contact with the store. An outage of the store expires every lease, and that wait gives each
/// owner time to renew first. A replica without contact takes no step, because it does not know the live replicas.
pub fn plan_rebalance(view: &ClusterView<'_>) -> Vec<RebalanceAction> {
    let status = |partition: Partition| view.partitions.get(partition.index()).copied().unwrap_or_default();
    if view.leaving {
        return Partition::all()
            .filter(|&partition| status(partition).ownership.active().is_some())
            .map(|partition| RebalanceAction::Drain { partition })
            .collect();
    }
    let Some(contact) = view.contact else { return Vec::new() };
    let action = |partition| {
        let mine = view.assignment.owner(partition)? == view.me;
        let status = status(partition);
        match status.ownership {
            Ownership::None if mine => {
                let since = status.failed_at.map_or(contact, |failed_at| failed_at.max(contact));
                let patient = view.now.saturating_sub(since) >= view.lease;
                let claiming = if patient { ClaimMode::Expired } else { ClaimMode::Free };
                Some(RebalanceAction::Claim { partition, claiming })
            }
            Ownership::Active(_) if !mine => Some(RebalanceAction::Drain { partition }),
            Ownership::None | Ownership::Active(_) | Ownership::Draining(..) | Ownership::Revoked => None,
        }
    };
    Partition::all().filter_map(action).collect()
}

/// The time of uninterrupted contact with the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreContact(Option<ContactSpan>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContactSpan {
    since: Duration,
    last: Duration,
}

impl StoreContact {
    /// Records an answer of the store. A silence of more than half a lease before it ends the contact too: a replica that
    /// stood still noticed no outage.
    pub fn answered(&mut self, now: Duration, lease: Duration) {
        let since = match self.0 {
            Some(span) if now.saturating_sub(span.last) <= lease / 2 => span.since,
            _ => now,
        };
        self.0 = Some(ContactSpan { since, last: now });
    }

    /// Records a failure or a refusal of the store.
    pub fn broke(&mut self) {
        self.0 = None;
    }

    /// Returns the start of the contact.
    pub fn since(&self) -> Option<Duration> {
        self.0.map(|span| span.since)
    }
}
