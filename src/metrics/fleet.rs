//! Metrics of a replica's place in the fleet.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge};

use super::{ClockDifference, ClockMetrics, MetricFactory};

/// The fleet as this replica sees it. Clones count together.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    /// Live replicas, this one included.
    pub replicas: IntGauge,
    /// Partitions that this replica owns.
    pub partitions_owned: IntGauge,
    /// 1 if the store answered this replica's last heartbeat, else 0; 0 before the first heartbeat.
    pub store_up: IntGauge,
    /// Clock of the store, as the heartbeats see it.
    pub store_clock: ClockDifference,
    /// Claims of partitions without an owner.
    pub claimed_free: IntCounter,
    /// Claims of partitions whose owner's lease had expired.
    pub claimed_expired: IntCounter,
    /// Partitions that this replica drained and released.
    pub released: IntCounter,
    /// Partitions that another replica claimed before this one released them.
    pub leases_lost: IntCounter,
    /// Leases that the store lost with other data.
    pub store_data_losses: IntCounter,
    /// Messages that the store accepted and then lost.
    pub messages_lost: IntCounter,
    /// Waits that were read from the store again because a hint may be lost.
    pub wait_resyncs: IntCounter,
    /// Queued conversations of bots that this replica's configuration lacks.
    pub conversations_with_unknown_bot: IntGauge,
    hints_received: IntCounterVec,
}

impl FleetMetrics {
    pub(super) fn declare(factory: &MetricFactory, clocks: &ClockMetrics) -> Result<Self, Error> {
        let claims = factory.counters(
            "partition_claims_total",
            "Partitions that this replica claimed, by reason: free, or failover after the owner's lease had expired.",
            &["reason"],
        )?;
        Ok(Self {
            replicas: factory.gauge("replicas", "Live replicas by their heartbeats.")?,
            partitions_owned: factory.gauge("partitions_owned", "Partitions that this replica owns, of 256.")?,
            store_up: factory
                .gauge("store_up", "Whether the store answered this replica's last heartbeat: 1 or 0.")?,
            store_clock: clocks.store.clone(),
            claimed_free: claims.get_metric_with_label_values(&["free"])?,
            claimed_expired: claims.get_metric_with_label_values(&["expired"])?,
            released: factory.counter(
                "partition_releases_total",
                "Partitions that this replica drained and released in a handoff.",
            )?,
            leases_lost: factory.counter(
                "leases_lost_total",
                "Partitions that another replica claimed before this one released them: it was paused or cut off.",
            )?,
            store_data_losses: factory.counter(
                "store_data_losses_total",
                "Leases that the store lost: it was emptied, or lost data in a failover.",
            )?,
            messages_lost: factory.counter(
                "messages_lost_total",
                "Messages that the store accepted and then lost, as far as this replica noticed.",
            )?,
            wait_resyncs: factory.counter(
                "wait_resyncs_total",
                "Waits that were read from the store again because a hint may be lost.",
            )?,
            conversations_with_unknown_bot: factory.gauge(
                "conversations_with_unknown_bot",
                "Conversations with queued messages for a bot that this replica's configuration lacks.",
            )?,
            hints_received: factory.counters(
                "hints_received_total",
                "Hints from other replicas by kind.",
                &["kind"],
            )?,
        })
    }

    /// Counts an incoming hint; `kind` is a word of the code.
    pub fn hint_received(&self, kind: &'static str) {
        if let Ok(counter) = self.hints_received.get_metric_with_label_values(&[kind]) {
            counter.inc();
        }
    }
}
