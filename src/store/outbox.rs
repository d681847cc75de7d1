//! The outbox: deliveries to the receivers of webhooks, in order, and their attempts.
//!
//! The owner of a conversation writes a delivery in the same step as its journal entry
//! ([`ConversationChange::Deliver`]). The delivery joins the end of a queue. Each conversation has one for each endpoint and each
//! callback.
//! Only the partition's owner attempts deliveries, and only the first one of each queue. The store records an attempt
//! before it is made. No other attempt begins until its window is over, even if the owner dies.
//!
//! ```text
//!   write ─► pending ── begin ─► in flight ── finish ─► delivered
//!               ▲                    │ retry  └───────► dead
//!               └────────────────────┘                   │
//!               └──────────── redeliver: a queue of its own
//! ```
//!
//! The webhook layer decides about retries and dead letters.
//!
//! [`ConversationChange::Deliver`]: super::ConversationChange::Deliver

use std::fmt;
use std::time::Duration;

#[cfg(doc)]
use super::Hint;
use super::{Fence, Store, StoreError, dispatch};
use crate::domain::{
    BotName, ConversationId, Delivery, DeliveryAttempt, DeliveryId, DeliveryState, EndpointId, MessageId,
    NewDelivery, Partition, Sha256, Timestamp, UserId,
};

/// The lifetime of a dead delivery.
pub const DEAD_TTL: Duration = Duration::from_hours(7 * 24);
/// The number of stored attempts of a delivery. The oldest are dropped.
pub const ATTEMPTS: usize = 32;
/// The approximate limit of bytes of a page of deliveries, which has at least one.
pub(super) const PAGE_BYTES: usize = 4 << 20;

/// The queue of a conversation and an endpoint or a callback, or of one redelivered delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u128);

impl QueueId {
    /// Returns the queue of a conversation and a target. Each endpoint of the bot has queues of its own, even if two have
    /// one URL. Stores hold the queue, so it is the same in every version.
    pub fn of(conversation: &ConversationId, endpoint: Option<&str>, target: &str) -> Self {
        let parts = [conversation.bot().as_str(), conversation.user().as_str(), target];
        match endpoint {
            Some(endpoint) => Self::digest(&[&parts[..], &[endpoint]].concat()),
            None => Self::digest(&parts),
        }
    }

    /// Returns the queue that a new delivery joins.
    pub fn of_delivery(new: &NewDelivery) -> Self {
        Self::of(&new.conversation, new.endpoint(), &new.target)
    }

    /// Returns the queue of a redelivered delivery, which stands outside the order.
    pub fn alone(delivery: DeliveryId) -> Self {
        Self::digest(&[&delivery.to_string()])
    }

    fn digest(parts: &[&str]) -> Self {
        let mut hash = Sha256::default();
        for part in parts {
            // The length in front separates the parts.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finish().iter().take(16).fold(0, |bits, &byte| bits << 8 | u128::from(byte)))
    }

    /// Parses the 32 hexadecimal digits of the `Display` form.
    pub fn parse(digits: &str) -> Option<Self> {
        let fits = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A queue that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingQueue {
    /// The queue.
    pub queue: QueueId,
    /// The target of its deliveries.
    pub target: Box<str>,
    /// The endpoint of its deliveries; `None` for a callback.
    pub endpoint: Option<EndpointId>,
    /// The time at which its first delivery may be attempted: its next attempt, or the end of the attempt in flight.
    pub due: Timestamp,
    /// The start of its attempts, as in [`ClaimedDelivery::since`].
    pub since: Timestamp,
}

/// A page of a partition's queues, for the owner.
#[derive(Clone, Debug, Default)]
pub struct OutboxPage {
    /// Queues, in no order.
    pub queues: Vec<PendingQueue>,
    /// The start of the next page; `None` after the last one.
    pub next: Option<usize>,
    /// The store's time.
    pub now: Timestamp,
}

/// The result of a request to begin an attempt.
#[derive(Clone, Debug)]
pub enum BeginResult {
    /// The attempt is recorded. The owner makes it within the requested window.
    Taken(Box<ClaimedDelivery>),
    /// The first delivery is not due before this time, or another attempt may be in flight until then.
    Later(Timestamp),
    /// The queue is empty.
    Empty,
}

/// A delivery to attempt now.
#[derive(Clone, Debug)]
pub struct ClaimedDelivery {
    /// The delivery.
    pub delivery: NewDelivery,
    /// The start of its attempts: its creation, or its redelivery.
    pub since: Timestamp,
    /// The number of attempts before this one, over all redeliveries.
    pub made: u32,
    /// The number of attempts since then that count, which is the place in the schedule.
    pub step: u32,
    /// The token of this attempt.
    pub token: u64,
    /// The store's time.
    pub now: Timestamp,
}

/// The end of an attempt.
#[derive(Clone, Debug)]
pub struct FinishRequest {
    /// The delivery as it was claimed. Its token ends this attempt alone, and only once.
    pub claimed: Box<ClaimedDelivery>,
    /// The recorded attempt.
    pub attempt: DeliveryAttempt,
    /// The decision that follows.
    pub decision: RetryDecision,
    /// The deliveries that report the dead letter to other endpoints. The same step writes them.
    pub reports: Vec<NewDelivery>,
}

/// The decision after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// The delivery succeeded.
    Delivered,
    /// The delivery is retried after this delay. It stays the first of its queue.
    Retry(Duration),
    /// The delivery is retried at once. The attempt does not count in the schedule, because we aborted it.
    Again,
    /// The delivery is dead-lettered for this reason, and the queue goes on.
    DeadLetter(Box<str>),
}

/// The state of the queue after the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishResult {
    /// The time at which the queue's first delivery is due; `None` for an empty queue.
    pub next: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

/// The result of a redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedeliverResult {
    /// The delivery is due now, in a queue of its own. Its schedule begins anew.
    Queued,
    /// An attempt is in flight. Nothing changed.
    InFlight,
    /// The delivery never existed or has expired.
    Unknown,
}

/// A filter for deliveries. Results come newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Deliveries in this state only; `None` means every state.
    pub state: Option<DeliveryState>,
    /// Deliveries of these bots only; `None` means every bot.
    pub bots: Option<Vec<BotName>>,
    /// Deliveries of this user only.
    pub user: Option<UserId>,
    /// Deliveries to the endpoints with this name only.
    pub endpoint: Option<Box<str>>,
    /// Deliveries of this message only: its end and its late replies.
    pub message: Option<MessageId>,
    /// Deliveries of users whose identity begins with this.
    pub user_prefix: Box<str>,
    /// Deliveries older than this one only.
    pub before: Option<DeliveryId>,
    /// Deliveries created at this time or later.
    pub since: Option<Timestamp>,
    /// The limit of the page, 1 to 1000.
    pub limit: usize,
}

impl DeliveryQuery {
    /// Returns whether the filter covers deliveries of this conversation.
    pub fn covers(&self, conversation: &ConversationId) -> bool {
        self.bots.as_ref().is_none_or(|bots| bots.contains(conversation.bot()))
            && self.user.as_ref().is_none_or(|user| user == conversation.user())
            && conversation.user().as_str().starts_with(&*self.user_prefix)
    }

    /// Returns the partitions that may hold matches. A query for one user of named bots needs only theirs.
    pub fn partitions(&self) -> Vec<Partition> {
        match (&self.bots, &self.user) {
            (Some(bots), Some(user)) => {
                let mut partitions: Vec<_> = bots
                    .iter()
                    .map(|bot| Partition::of(&ConversationId::new(bot.clone(), user.clone())))
                    .collect();
                partitions.sort_unstable();
                partitions.dedup();
                partitions
            }
            _ => Partition::all().collect(),
        }
    }
}

/// A page of deliveries, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// The start of the next page ([`DeliveryQuery::before`]); `None` after the last one.
    pub next: Option<DeliveryId>,
}

/// The operations on the outbox.
#[expect(clippy::missing_errors_doc, reason = "the errors that all operations share are named at the others")]
impl Store {
    /// Returns queues of a partition's outbox. `from` is [`OutboxPage::next`] of the page before; 0 begins.
    ///
    /// A queue that is written meanwhile may be missing or come twice. The owner knows it from its own writes.
    pub async fn outbox(
        &self,
        partition: Partition,
        fence: Fence,
        from: usize,
    ) -> Result<OutboxPage, StoreError> {
        dispatch!(self.outbox(partition, fence, from))
    }

    /// Claims the queue's first delivery for an attempt, if it is due. No other attempt begins until `window` is over.
    ///
    /// `token` identifies the attempt. A repeat with the same token before the end returns the same delivery, and the
    /// window begins anew.
    pub async fn begin(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<BeginResult, StoreError> {
        dispatch!(self.begin(partition, fence, queue, token, window))
    }

    /// Does the same before the delivery is due, unless an attempt of it is in flight. The owner ends such an attempt
    /// without a request.
    pub async fn begin_early(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<BeginResult, StoreError> {
        dispatch!(self.begin_early(partition, fence, queue, token, window))
    }

    /// Records the result of an attempt and the decision about the delivery.
    ///
    /// A repeat changes nothing and returns the state of the queue. So does the end of an attempt whose window was over
    /// when another one began.
    pub async fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &FinishRequest,
    ) -> Result<FinishResult, StoreError> {
        dispatch!(self.finish(partition, fence, queue, finish))
    }

    /// Returns a delivery, or `None` if it never existed or has expired: `message_ttl` after it was delivered,
    /// [`DEAD_TTL`] after it was dead-lettered.
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        dispatch!(self.delivery(id), Ok)
    }

    /// Returns deliveries of all partitions, newest first. A page may have fewer than `limit` and still a next one.
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        dispatch!(self.deliveries(query), Ok)
    }

    /// Schedules a delivery of any state at once: under its id, outside the order, with its schedule from the start.
    ///
    /// The owner gets a hint ([`Hint::Redelivered`]) in the same step.
    pub async fn redeliver(&self, id: DeliveryId) -> Result<RedeliverResult, StoreError> {
        dispatch!(self.redeliver(id), Ok)
    }
}
