//! Those who attempt deliveries, as sentences on deliveries send them out.

use std::time::Duration;

use rtm_bridge::domain::{
    Delivery, DeliveryAttempt, DeliveryId, DeliveryKind, DeliveryOrigin, NewDelivery, Partition, Timestamp,
    TraceId,
};
use rtm_bridge::store::{
    BeginResult, ClaimedDelivery, ConversationChange, Fence, FinishRequest, FinishResult, OutboxPage,
    PendingQueue, QueueId, RetryDecision, Store,
};

use super::shape::{Owner, Shape};

/// Longer than any sentence takes, and longer than a lease.
pub(super) const WINDOW: Duration = Duration::from_mins(12);
/// Some of these are less than the time that a delivered one is kept.
pub(super) const RETRY: Duration = Duration::from_secs(90);
pub(super) const HOOK: &str = "https://legacy.example/hook";
pub(super) const OTHER_HOOK: &str = "https://legacy.example/hook?of=another";

/// A delivery of the entry that the owner counted last.
pub(super) fn delivery(owner: &Owner<'_>, at: Timestamp, target: &str) -> NewDelivery {
    let Owner { conversation, record, .. } = owner;
    NewDelivery {
        id: DeliveryId::of(conversation, record.epoch, record.seq, at),
        kind: DeliveryKind::ReplyUnsolicited,
        conversation: conversation.clone(),
        message: None,
        target: target.into(),
        origin: DeliveryOrigin::Bot,
        trace: TraceId::default(),
        created_at: at,
        data: serde_json::value::to_raw_value(&record.seq).unwrap(),
    }
}

/// A reply that nobody asked for, and its delivery.
pub(super) async fn say(owner: &mut Owner<'_>, target: &str) -> DeliveryId {
    let at = owner.now().await;
    let reply = owner.reply(at, None, "hello");
    let new = delivery(owner, at, target);
    let id = new.id;
    owner.write(vec![reply, ConversationChange::Deliver(Box::new(new))]).await.unwrap();
    id
}

pub(super) async fn stands(shape: &Shape, id: DeliveryId) -> Delivery {
    shape.store.delivery(id).await.unwrap().expect("it is kept")
}

/// Somebody who attempts deliveries of one queue.
pub(super) struct Postman<'a> {
    pub(super) store: &'a Store,
    pub(super) partition: Partition,
    pub(super) fence: Fence,
    pub(super) queue: QueueId,
}

impl<'a> Postman<'a> {
    /// Of an owner's conversation and a target.
    pub(super) fn of(owner: &Owner<'a>, target: &str) -> Self {
        let queue = QueueId::of(&owner.conversation, target);
        let partition = Partition::of(&owner.conversation);
        Self { store: owner.store, partition, fence: owner.fence, queue }
    }

    /// Of one that was redelivered.
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

    /// Until when nothing is due.
    pub(super) async fn later(&self, token: u64) -> Timestamp {
        match self.begin(token).await {
            BeginResult::Later(until) => until,
            other => panic!("it is due: {other:?}"),
        }
    }

    pub(super) async fn finish(&self, taken: &ClaimedDelivery, verdict: RetryDecision) -> FinishResult {
        self.store.finish(self.partition, self.fence, self.queue, &end(taken, verdict)).await.unwrap()
    }

    /// Attempts this delivery once, which must be due.
    pub(super) async fn attempt(&self, id: DeliveryId, verdict: RetryDecision) -> FinishResult {
        let taken = self.take(id, fastrand::u64(..)).await;
        self.finish(&taken, verdict).await
    }

    /// The queues of the partition, page by page.
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

    /// When the queue's first is due, as a new owner would read it.
    pub(super) async fn due(&self) -> Option<Timestamp> {
        self.outbox().await.into_iter().find(|waiting| waiting.queue == self.queue).map(|waiting| waiting.due)
    }
}

/// The end of an attempt; what is said of it tells its number.
pub(super) fn end(taken: &ClaimedDelivery, verdict: RetryDecision) -> FinishRequest {
    let number = taken.made + 1;
    let delivered = verdict == RetryDecision::Delivered;
    let attempt = DeliveryAttempt {
        at: taken.now,
        status: (number != 2).then_some(if delivered { 204 } else { 503 }),
        error: (!delivered).then(|| format!("attempt {number}: \"Zoë\" is away\n").into()),
        duration: Duration::from_millis(number.into()),
        response: (number != 2).then(|| format!("<p>{number} \u{1F600}\0").into()),
    };
    FinishRequest { id: taken.delivery.id, token: taken.token, attempt, verdict }
}

pub(super) fn retry() -> RetryDecision {
    RetryDecision::Retry(RETRY)
}

pub(super) fn bury() -> RetryDecision {
    RetryDecision::Bury("it was tried for 24 hours".into())
}
