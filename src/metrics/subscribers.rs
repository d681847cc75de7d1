//! Metrics of a replica's subscribers.

use prometheus::{Error, IntCounter, IntGauge};

use super::MetricFactory;

/// Subscribers of conversations on this replica: event streams and long polls. Clones count together.
#[derive(Clone, Debug)]
pub struct SubscriberMetrics {
    /// Subscribers that wait for news.
    pub count: IntGauge,
    /// Conversations with a subscriber.
    pub conversations: IntGauge,
    /// Signals to a subscriber to look for new entries.
    pub wakeups: IntCounter,
    /// Chunks of streamed replies, once for each subscriber.
    pub chunks: IntCounter,
    /// Subscribers that were dropped because they read too slowly.
    pub slow: IntCounter,
}

impl SubscriberMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            count: factory
                .gauge("subscribers", "Subscribers of conversations: event streams and long polls.")?,
            conversations: factory
                .gauge("subscribed_conversations", "Conversations with a subscriber on this replica.")?,
            wakeups: factory.counter(
                "subscriber_wakeups_total",
                "Signals to a subscriber to look for new entries; each costs a page of the store.",
            )?,
            chunks: factory.counter(
                "subscriber_chunks_total",
                "Chunks of streamed replies for subscribers, once for each subscriber.",
            )?,
            slow: factory.counter(
                "slow_subscribers_total",
                "Subscribers that were dropped because they read too slowly; they can resume by their cursor.",
            )?,
        })
    }
}
