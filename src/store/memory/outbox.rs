//! The outbox in memory, over each partition's [`DeliveryTable`](super::delivery_table::DeliveryTable).

use std::time::Duration;

use super::{MemoryStore, weight};
use crate::domain::{Delivery, DeliveryId, Partition};
use crate::store::{
    BeginResult, DeliveryPage, DeliveryQuery, Fence, FinishRequest, FinishResult, Hint, OutboxPage, QueueId,
    RedeliverResult, StoreError, outbox,
};

/// The limit of deliveries of one page.
const PAGE: usize = 1000;

#[expect(missing_docs, clippy::missing_errors_doc, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    pub fn outbox(&self, partition: Partition, fence: Fence, from: usize) -> Result<OutboxPage, StoreError> {
        let step = self.step(partition);
        step.lease.check(fence)?;
        Ok(OutboxPage { queues: step.deliveries.queues().skip(from).collect(), next: None, now: step.now })
    }

    pub fn begin(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<BeginResult, StoreError> {
        let mut step = self.step(partition);
        step.lease.check(fence)?;
        let now = step.now;
        Ok(step.deliveries.begin(queue, token, window, false, now))
    }

    pub fn begin_early(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<BeginResult, StoreError> {
        let mut step = self.step(partition);
        step.lease.check(fence)?;
        let now = step.now;
        Ok(step.deliveries.begin(queue, token, window, true, now))
    }

    pub fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &FinishRequest,
    ) -> Result<FinishResult, StoreError> {
        let mut step = self.step(partition);
        step.lease.check(fence)?;
        let now = step.now;
        let finished = step.deliveries.finish(queue, finish, self.limits.message_ttl, now);
        drop(step);
        self.evict_excess(partition);
        Ok(finished)
    }

    pub fn delivery(&self, id: DeliveryId) -> Option<Delivery> {
        let step = self.step(id.partition());
        step.deliveries.delivery(id, step.now)
    }

    pub fn deliveries(&self, query: &DeliveryQuery) -> DeliveryPage {
        let limit = query.limit.clamp(1, PAGE);
        let mut newest: Vec<DeliveryId> = Vec::new();
        for partition in query.partitions() {
            let step = self.step(partition);
            // One more than the limit shows that there is a next page.
            newest.extend(step.deliveries.list(query, step.now).take(limit + 1));
        }
        newest.sort_unstable_by(|one, other| other.cmp(one));
        let mut page = DeliveryPage::default();
        let (mut bytes, mut looked_at) = (0, None);
        for (place, id) in newest.into_iter().enumerate() {
            if place == limit {
                page.next = looked_at;
                break;
            }
            // Only the deliveries of the page are copied. A change in between may take one off the page.
            let asked_for = |delivery: &Delivery| query.state.is_none_or(|state| state == delivery.state);
            if let Some(delivery) = self.delivery(id).filter(asked_for) {
                bytes += delivery.new.data.get().len()
                    + delivery.attempts.iter().map(weight::attempt).sum::<usize>();
                if bytes > outbox::PAGE_BYTES && !page.deliveries.is_empty() {
                    page.next = looked_at;
                    break;
                }
                page.deliveries.push(delivery);
            }
            looked_at = Some(id);
        }
        page
    }

    pub fn redeliver(&self, id: DeliveryId) -> RedeliverResult {
        let partition = id.partition();
        let mut step = self.step(partition);
        let now = step.now;
        let redelivered = step.deliveries.redeliver(id, now);
        let owner = step.lease.owner().filter(|_| redelivered == RedeliverResult::Queued);
        drop(step);
        if let Some(owner) = owner {
            self.replicas().hint(owner, Hint::Redelivered(partition));
        }
        redelivered
    }
}
