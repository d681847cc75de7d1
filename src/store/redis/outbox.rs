//! The outbox on Redis.

use std::time::Duration;

use super::Redis;
use crate::domain::{Delivery, DeliveryId, Partition};
use crate::store::{
    Begun, DeliveryPage, DeliveryQuery, Fence, Finish, Finished, Outbox, QueueId, Redelivered, Refusal,
    StoreError,
};

const TODO: StoreError = StoreError::Unavailable(Refusal::Unexpected);

#[expect(clippy::unused_async, reason = "written elsewhere")]
impl Redis {
    /// See [`crate::store::Store::outbox`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outbox(
        &self,
        partition: Partition,
        fence: Fence,
        from: usize,
    ) -> Result<Outbox, StoreError> {
        let _ = (partition, fence, from);
        Ok(Outbox::default())
    }

    /// See [`crate::store::Store::begin`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<Begun, StoreError> {
        let _ = (partition, fence, queue, token, window);
        Err(TODO)
    }

    /// See [`crate::store::Store::finish`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &Finish,
    ) -> Result<Finished, StoreError> {
        let _ = (partition, fence, queue, finish);
        Err(TODO)
    }

    /// See [`crate::store::Store::delivery`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let _ = id;
        Err(TODO)
    }

    /// See [`crate::store::Store::deliveries`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        let _ = query;
        Err(TODO)
    }

    /// See [`crate::store::Store::redeliver`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn redeliver(&self, id: DeliveryId) -> Result<Redelivered, StoreError> {
        let _ = id;
        Err(TODO)
    }
}
