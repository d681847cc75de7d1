//! The workers that attempt deliveries in the sentences about deliveries.

use std::time::Duration;

use rtm_bridge::domain::fixtures::{new_delivery, raw_json};
use rtm_bridge::domain::{Delivery, DeliveryAttempt, DeliveryId, NewDelivery, Partition, Timestamp};
use rtm_bridge::store::{
    BeginResult, ClaimedDelivery, ConversationChange, Fence, FinishRequest, FinishResult, OutboxPage,
    PendingQueue, QueueId, RetryDecision, Store,
};

use super::store_fixture::{Owner, StoreFixture};

/// The window, which is longer than any sentence and than a lease.
pub(super) const WINDOW: Duration = Duration::from_mins(12);
/// Several of these delays are less than the lifetime of a delivered one.
pub(super) const RETRY: Duration = Duration::from_secs(90);
pub(super) const HOOK: &str = "https://legacy.example/hook";
pub(super) const OTHER_HOOK: &str = "https://legacy.example/hook?of=another";

/// Returns a delivery of the entry that the owner counted last.
pub(super) fn delivery(owner: &Owner<'_>, at: Timestamp, target: &str) -> NewDelivery {
    let Owner { conversation, record, .. } = owner;
    let id = DeliveryId::of(conversation, record.epoch, record.seq, at);
    NewDelivery {
        id,
        data: raw_json(&record.seq.to_string()),
        ..new_delivery(conversation, record.seq, at, target)
    }
}

/// Returns a reply without a message, and its delivery.
pub(super) async fn say(owner: &mut Owner<'_>, target: &str) -> DeliveryId {
    let at = owner.now().await;
    let reply = owner.reply(at, None, "hello");
    let new = delivery(owner, at, target);
    let id = new.id;
    owner.write(vec![reply, ConversationChange::Deliver(Box::new(new))]).await.unwrap();
    id
}

pub(super) async fn stands(fixture: &StoreFixture, id: DeliveryId) -> Delivery {
    fixture.store.delivery(id).await.unwrap().expect("it is kept")
}

/// A worker that attempts deliveries of one queue.
pub(super) struct DeliveryWorker<'a> {
    pub(super) store: &'a Store,
    pub(super) partition: Partition,
    pub(super) fence: Fence,
    pub(super) queue: QueueId,
}

impl<'a> DeliveryWorker<'a> {
    /// Creates a worker for an owner's conversation and a target.
    pub(super) fn of(owner: &Owner<'a>, target: &str) -> Self {
        let queue = QueueId::of(&owner.conversation, Some("main"), target);
        let partition = Partition::of(&owner.conversation);
        Self { store: owner.store, partition, fence: owner.fence, queue }
    }

    /// Creates a worker for a redelivered delivery.
    pub(super) fn alone(owner: &Owner<'a>, id: DeliveryId) -> Self {
        Self { queue: QueueId::alone(id), ..Self::of(owner, HOOK) }
    }

    pub(super) async fn begin(&self, token: u64) -> BeginResult {
        let Self { store, partition, fence, queue } = *self;
        store.begin(partition, fence, queue, token, WINDOW).await.unwrap()
    }

    /// Begins an attempt of this delivery, which must be due.
    pub(super) async fn take(&self, id: DeliveryId, token: u64) -> ClaimedDelivery {
        match self.begin(token).await {
            BeginResult::Taken(begun) => {
                assert_eq!(begun.delivery.id, id);
                *begun
            }
            other => panic!("it is not due: {other:?}"),
        }
    }

    /// Returns the time until which no delivery is due.
    pub(super) async fn later(&self, token: u64) -> Timestamp {
        match self.begin(token).await {
            BeginResult::Later(until) => until,
            other => panic!("it is due: {other:?}"),
        }
    }

    pub(super) async fn finish(&self, taken: &ClaimedDelivery, decision: RetryDecision) -> FinishResult {
        self.store.finish(self.partition, self.fence, self.queue, &end(taken, decision)).await.unwrap()
    }

    /// Attempts this delivery once. It must be due.
    pub(super) async fn attempt(&self, id: DeliveryId, decision: RetryDecision) -> FinishResult {
        let taken = self.take(id, fastrand::u64(..)).await;
        self.finish(&taken, decision).await
    }

    /// Returns the queues of the partition, page by page.
    pub(super) async fn outbox(&self) -> Vec<PendingQueue> {
        let (mut queues, mut from) = (Vec::new(), 0);
        loop {
            let OutboxPage { queues: some, next, now } =
                self.store.outbox(self.partition, self.fence, from).await.unwrap();
            assert!(now <= self.store.now().await.unwrap());
            queues.extend(some);
            let Some(next) = next else { break };
            from = next;
        }
        queues.sort_by_key(|waiting| waiting.queue);
        queues.dedup_by_key(|waiting| waiting.queue);
        queues
    }

    /// Returns when the queue's first delivery is due, as a new owner reads it.
    pub(super) async fn due(&self) -> Option<Timestamp> {
        self.outbox().await.into_iter().find(|waiting| waiting.queue == self.queue).map(|waiting| waiting.due)
    }
}

/// Builds the end of an attempt. Its text has the attempt's number.
pub(super) fn end(taken: &ClaimedDelivery, decision: RetryDecision) -> FinishRequest {
    let number = taken.made + 1;
    let delivered = decision == RetryDecision::Delivered;
    let attempt = DeliveryAttempt {
        at: taken.now,
        status: (number != 2).then_some(if delivered { 204 } else { 503 }),
        error: (!delivered).then(|| format!("attempt {number}: \"Zoë\" is away\n").into()),
        duration: Duration::from_millis(number.into()),
        response: (number != 2).then(|| format!("<p>{number} \u{1F600}\0").into()),
    };
    FinishRequest { claimed: Box::new(taken.clone()), attempt, decision, reports: Vec::new() }
}

pub(super) fn retry() -> RetryDecision {
    RetryDecision::Retry(RETRY)
}

pub(super) fn dead_letter() -> RetryDecision {
    RetryDecision::DeadLetter("it was tried for 24 hours".into())
}
