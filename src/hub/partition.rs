//! Which partitions a shard owns, and the fences it proves it with.
//!
//! With the memory store there is one replica and it owns everything; the leases are kept all the same, so that
//! a write of something forgotten is refused here as it will be over a network.

use std::cell::Cell;
use std::time::Duration;

use tracing::{error, warn};

use crate::domain::Partition;
use crate::store::{Claiming, Fence, Incarnation, Store, StoreError};

/// The leases of one shard.
#[derive(Debug)]
pub(crate) struct Leases {
    incarnation: Incarnation,
    ttl: Duration,
    owned: Vec<(Partition, Cell<Option<Fence>>)>,
}

impl Leases {
    /// Leases for these partitions, none of them claimed yet.
    pub(crate) fn new(
        incarnation: Incarnation,
        ttl: Duration,
        partitions: impl Iterator<Item = Partition>,
    ) -> Self {
        let owned = partitions.map(|partition| (partition, Cell::new(None))).collect();
        Self { incarnation, ttl, owned }
    }

    /// How often [`Leases::keep`] has to be called.
    pub(crate) fn interval(&self) -> Duration {
        self.ttl / 3
    }

    /// The fence of a partition, while it is ours.
    pub(crate) fn fence(&self, partition: Partition) -> Option<Fence> {
        self.owned.iter().find(|(owned, _)| *owned == partition).and_then(|(_, fence)| fence.get())
    }

    /// Every partition that is ours, with its fence.
    pub(crate) fn owned(&self) -> Vec<(Partition, Fence)> {
        self.owned.iter().filter_map(|(partition, fence)| Some((*partition, fence.get()?))).collect()
    }

    /// Renews what is ours and claims what is not. Names what was lost: nobody may write for it any more.
    pub(crate) async fn keep(&self, store: &Store) -> Vec<Partition> {
        let mut lost = Vec::new();
        for (partition, cell) in &self.owned {
            if let Some(fence) = cell.get() {
                match store.renew(*partition, fence, self.ttl).await {
                    Ok(_) => continue,
                    Err(StoreError::Fenced | StoreError::Lost | StoreError::OutOfStep) => {
                        warn!(%partition, "another owner claimed the partition");
                        cell.set(None);
                        lost.push(*partition);
                    }
                    Err(error @ (StoreError::Unknown(_) | StoreError::Unavailable(_))) => {
                        warn!(%partition, %error, "the lease could not be renewed");
                        continue;
                    }
                }
            }
            match store.claim(*partition, self.incarnation, self.ttl, Claiming::Expired).await {
                Ok(claim) => cell.set(claim.fence()),
                Err(error) => error!(%partition, %error, "the partition could not be claimed"),
            }
        }
        lost
    }

    /// Gives everything back.
    pub(crate) async fn release(&self, store: &Store) {
        for (partition, cell) in &self.owned {
            if let Some(fence) = cell.take()
                && let Err(error) = store.release(*partition, fence).await
            {
                warn!(%partition, %error, "the partition could not be released; its lease runs out by itself");
            }
        }
    }
}
