//! The outbox in memory.

use std::time::Duration;

use super::Memory;
use crate::domain::{Delivery, DeliveryId, Partition};
use crate::store::{
    Begun, DeliveryPage, DeliveryQuery, Fence, Finish, Finished, Outbox, QueueId, Redelivered, StoreError,
};

impl Memory {
    /// See [`crate::store::Store::outbox`].
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub fn outbox(&self, partition: Partition, fence: Fence, from: usize) -> Result<Outbox, StoreError> {
        let step = self.step(partition);
        step.lease.check(fence)?;
        let _ = from;
        Ok(Outbox { now: step.now, ..Outbox::default() })
    }

    /// See [`crate::store::Store::begin`].
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub fn begin(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<Begun, StoreError> {
        let _ = (partition, fence, queue, token, window);
        Ok(Begun::Empty)
    }

    /// See [`crate::store::Store::finish`].
    ///
    /// # Errors
    /// [`StoreError::Fenced`].
    pub fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &Finish,
    ) -> Result<Finished, StoreError> {
        let _ = (fence, queue, finish);
        Ok(Finished { next: None, now: self.step(partition).now })
    }

    /// See [`crate::store::Store::delivery`].
    pub fn delivery(&self, id: DeliveryId) -> Option<Delivery> {
        let _ = (self, id);
        None
    }

    /// See [`crate::store::Store::deliveries`].
    pub fn deliveries(&self, query: &DeliveryQuery) -> DeliveryPage {
        let _ = (self, query);
        DeliveryPage::default()
    }

    /// See [`crate::store::Store::redeliver`].
    pub fn redeliver(&self, id: DeliveryId) -> Redelivered {
        let _ = (self, id);
        Redelivered::Unknown
    }
}
