//! Who owns a partition, and until when.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::{Fence, StoreError};

/// The lease of one partition. Ownership ends by a time, the epoch never does: it must rise for ever.
#[derive(Debug, Default)]
pub(super) struct Lease {
    owner: Option<u64>,
    epoch: u64,
    until: Timestamp,
}

impl Lease {
    /// Takes the partition where it is free, where the lease has run out, or where it is ours already. The
    /// epoch rises each time, so that whatever the same owner still has on its way is fenced off.
    pub(super) fn claim(&mut self, incarnation: u64, now: Timestamp, lease: Duration) -> Option<Fence> {
        if self.owner.is_some_and(|owner| owner != incarnation) && now < self.until {
            return None;
        }
        self.epoch = now.as_millis().max(self.epoch.saturating_add(1));
        self.owner = Some(incarnation);
        self.until = now + lease;
        Some(Fence { incarnation, epoch: self.epoch })
    }

    /// Renews a lease that nobody else took, even one that has run out.
    pub(super) fn renew(&mut self, fence: Fence, now: Timestamp, lease: Duration) -> Result<(), StoreError> {
        self.check(fence)?;
        self.until = now + lease;
        Ok(())
    }

    /// Frees the partition at once.
    pub(super) fn release(&mut self, fence: Fence) -> Result<(), StoreError> {
        self.check(fence)?;
        self.owner = None;
        Ok(())
    }

    /// Whether this fence is the one that counts. Time has no say: until somebody else claims the partition
    /// nobody else wrote to it.
    pub(super) fn check(&self, fence: Fence) -> Result<(), StoreError> {
        if self.owner == Some(fence.incarnation) && self.epoch == fence.epoch {
            Ok(())
        } else {
            Err(StoreError::Fenced)
        }
    }
}
