//! The lease of a partition in memory.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::{ClaimMode, ClaimResult, Fence, Incarnation, StoreError};

/// The lease of one partition. Ownership ends at a time. The epoch never ends, because it must always rise.
#[derive(Debug, Default)]
pub(super) struct PartitionLease {
    owner: Option<Incarnation>,
    epoch: u64,
    until: Timestamp,
}

impl PartitionLease {
    /// Claims the partition if it is free or ours, or if its lease has expired and `mode` allows that. The epoch
    /// rises each time, which fences off earlier operations of the same owner.
    pub(super) fn claim(
        &mut self,
        incarnation: Incarnation,
        now: Timestamp,
        lease: Duration,
        mode: ClaimMode,
    ) -> ClaimResult {
        if let Some(by) = self.owner
            && by != incarnation
            && (now < self.until || mode == ClaimMode::Free)
        {
            return ClaimResult::Held { by, until: self.until };
        }
        self.epoch = now.as_millis().max(self.epoch.saturating_add(1));
        self.owner = Some(incarnation);
        self.until = now + lease;
        ClaimResult::Yours { fence: Fence { incarnation, epoch: self.epoch }, now }
    }

    /// Returns the owner, also after the end of the lease.
    pub(super) const fn owner(&self) -> Option<Incarnation> {
        self.owner
    }

    /// Renews the lease, also an expired one, unless another owner claimed it.
    pub(super) fn renew(&mut self, fence: Fence, now: Timestamp, lease: Duration) -> Result<(), StoreError> {
        self.check(fence)?;
        self.until = now + lease;
        Ok(())
    }

    pub(super) fn release(&mut self, fence: Fence) -> Result<(), StoreError> {
        self.check(fence)?;
        self.owner = None;
        Ok(())
    }

    /// Checks that the fence is valid. The time does not matter: only another claim lets another owner write.
    pub(super) fn check(&self, fence: Fence) -> Result<(), StoreError> {
        if self.owner == Some(fence.incarnation) && self.epoch == fence.epoch {
            Ok(())
        } else {
            Err(StoreError::Fenced)
        }
    }
}
