//! Who owns a partition, and until when.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::{ClaimMode, ClaimResult, Fence, Incarnation, StoreError};

/// The lease of one partition. Ownership ends by a time, the epoch never does: it must rise for ever.
#[derive(Debug, Default)]
pub(super) struct Lease {
    owner: Option<Incarnation>,
    epoch: u64,
    until: Timestamp,
}

impl Lease {
    /// Takes the partition where it is free, where it is ours already, or where the lease has run out and that
    /// is enough. The epoch rises each time, so that whatever the same owner still has on its way is fenced off.
    pub(super) fn claim(
        &mut self,
        incarnation: Incarnation,
        now: Timestamp,
        lease: Duration,
        claiming: ClaimMode,
    ) -> ClaimResult {
        if let Some(by) = self.owner
            && by != incarnation
            && (now < self.until || claiming == ClaimMode::Free)
        {
            return ClaimResult::Held { by, until: self.until };
        }
        self.epoch = now.as_millis().max(self.epoch.saturating_add(1));
        self.owner = Some(incarnation);
        self.until = now + lease;
        ClaimResult::Yours { fence: Fence { incarnation, epoch: self.epoch }, now }
    }

    /// Who owns it, whether or not the lease has run out.
    pub(super) const fn owner(&self) -> Option<Incarnation> {
        self.owner
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
