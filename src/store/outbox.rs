//! The outbox: what is to be delivered to receivers of webhooks, in order, and how that goes on.
//!
//! A delivery is written by its conversation's owner in the same step as what it tells of ([`ConversationChange::Deliver`]), at the
//! end of a queue: one queue for each conversation and target. Only the partition's owner attempts, and of each queue
//! only the first. An attempt is noted before it is made: until its time is over nobody else makes one, whatever
//! becomes of the owner.
//!
//! ```text
//!   write ─► pending ── begin ─► in flight ── finish ─► delivered
//!               ▲                    │ retry  └───────► dead
//!               └────────────────────┘                   │
//!               └──────────── redeliver: a queue of its own
//! ```
//!
//! When to try again and when to bury is not the store's to know.
//!
//! [`ConversationChange::Deliver`]: super::ConversationChange::Deliver

use std::fmt;
use std::time::Duration;

use crate::domain::{
    BotName, ConversationId, Delivery, DeliveryAttempt, DeliveryId, DeliveryState, NewDelivery, Partition,
    Sha256, Timestamp, UserId,
};

/// How long a buried delivery is kept.
pub const DEAD_TTL: Duration = Duration::from_hours(7 * 24);
/// How many attempts of a delivery are kept, the newest ones.
pub const ATTEMPTS: usize = 32;

/// A queue of a partition's outbox: the deliveries of a conversation to one target, or one redelivered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u128);

impl QueueId {
    /// The queue of a conversation and a target; the same in every version, since stores hold it.
    pub fn of(conversation: &ConversationId, target: &str) -> Self {
        let parts = [conversation.bot.as_str(), conversation.user.as_str(), target];
        Self::digest(&parts)
    }

    /// The queue that a redelivered one has for itself: it stands outside the order.
    pub fn alone(delivery: DeliveryId) -> Self {
        Self::digest(&[&delivery.to_string()])
    }

    fn digest(parts: &[&str]) -> Self {
        let mut hash = Sha256::default();
        for part in parts {
            // With its length in front no part can run into the next.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finish().iter().take(16).fold(0, |bits, &byte| bits << 8 | u128::from(byte)))
    }

    /// The queue of these digits, as its `Display` gave them; none where they are no 32 hexadecimal digits.
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
    /// Which.
    pub queue: QueueId,
    /// Where its deliveries go.
    pub target: Box<str>,
    /// When its first delivery may be attempted: at its next attempt's time, or when the attempt in flight is over.
    pub due: Timestamp,
    /// Since when that one is tried: [`ClaimedDelivery::since`].
    pub since: Timestamp,
}

/// The queues of a partition, as its owner reads them.
#[derive(Clone, Debug, Default)]
pub struct OutboxPage {
    /// Some queues, in no order that means anything.
    pub queues: Vec<PendingQueue>,
    /// Where the next read goes on; none where these were the last.
    pub next: Option<usize>,
    /// The store's time.
    pub now: Timestamp,
}

/// What became of the wish to begin an attempt.
#[derive(Clone, Debug)]
pub enum BeginResult {
    /// The attempt is noted: make it, within the window that was asked for.
    Taken(Box<ClaimedDelivery>),
    /// Nothing is due before then: its time has not come, or another attempt may be in flight.
    Later(Timestamp),
    /// There is nothing in the queue.
    Empty,
}

/// A delivery to attempt now.
#[derive(Clone, Debug)]
pub struct ClaimedDelivery {
    /// What to deliver.
    pub delivery: NewDelivery,
    /// Since when it is tried: since it was created, or redelivered.
    pub since: Timestamp,
    /// How many attempts were made, ever; the number of this one is one more.
    pub made: u32,
    /// How many of them since then: the place in the schedule.
    pub step: u32,
    /// This attempt's own, as it was begun with.
    pub token: u64,
    /// The store's time.
    pub now: Timestamp,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct FinishRequest {
    /// Which delivery.
    pub id: DeliveryId,
    /// [`ClaimedDelivery::token`]: no other attempt is ended by it, and this one only once.
    pub token: u64,
    /// What happened.
    pub attempt: DeliveryAttempt,
    /// What follows.
    pub verdict: RetryDecision,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// It is delivered.
    Delivered,
    /// It is tried again after this time, and stays the first of its queue.
    Retry(Duration),
    /// It is tried again at once, and the attempt does not count in the schedule: it was broken off by us.
    Again,
    /// It is buried for this reason, and the queue goes on.
    Bury(Box<str>),
}

/// What the store did with the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishResult {
    /// When the queue's first delivery is due; none where the queue is empty.
    pub next: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

/// What became of the wish to deliver again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedeliverResult {
    /// It is due now, in a queue of its own; its schedule begins anew.
    Queued,
    /// An attempt is being made: it stays as it is.
    InFlight,
    /// There is no such delivery: it never was, or its time to be kept is over.
    Unknown,
}

/// Which deliveries to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Only these; none means every state.
    pub state: Option<DeliveryState>,
    /// Only of these bots; none means every bot.
    pub bots: Option<Vec<BotName>>,
    /// Only of this user.
    pub user: Option<UserId>,
    /// Only of users whose identity begins so.
    pub user_prefix: Box<str>,
    /// Only those older than this one.
    pub before: Option<DeliveryId>,
    /// Only those created then or later.
    pub since: Option<Timestamp>,
    /// How many at most, 1 to 1000.
    pub limit: usize,
}

impl DeliveryQuery {
    /// Whether deliveries of this conversation are asked for.
    pub fn covers(&self, conversation: &ConversationId) -> bool {
        self.bots.as_ref().is_none_or(|bots| bots.contains(&conversation.bot))
            && self.user.as_ref().is_none_or(|user| *user == conversation.user)
            && conversation.user.as_str().starts_with(&*self.user_prefix)
    }

    /// The partitions that may hold some: where the conversation is named only its own.
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

/// Some deliveries, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryPage {
    /// They.
    pub deliveries: Vec<Delivery>,
    /// Where the next page goes on ([`DeliveryQuery::before`]); none where this is the last.
    pub next: Option<DeliveryId>,
}
