//! What a replica counts of its place in the fleet.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge};

use super::Declare;

/// The fleet as this replica sees it. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    /// Replicas that live, this one included.
    pub replicas: IntGauge,
    /// Partitions this replica owns.
    pub partitions: IntGauge,
    /// 1 where the store answered this replica's last heartbeat, else 0; 0 before the first.
    pub store_up: IntGauge,
    /// Partitions claimed that nobody owned.
    pub claimed: IntCounter,
    /// Partitions taken from an owner whose lease had run out.
    pub taken_over: IntCounter,
    /// Partitions given back.
    pub released: IntCounter,
    /// Partitions that another replica claimed before this one let go.
    pub leases_lost: IntCounter,
    /// Leases that the store lost: it lost data.
    pub store_losses: IntCounter,
    /// Messages that the store accepted and then lost.
    pub messages_lost: IntCounter,
    /// Waits that were read from the store again, because an end may have been missed.
    pub waits_read_again: IntCounter,
    /// Queued conversations whose bot this replica is not configured with.
    pub heads_waiting_for_bot: IntGauge,
    hints: IntCounterVec,
}

impl FleetMetrics {
    pub(super) fn declare(declare: &Declare) -> Result<Self, Error> {
        let takeovers = declare.counters(
            "takeovers_total",
            "Partitions that became this replica's: free ones, and those whose owner's lease had run out.",
            &["reason"],
        )?;
        Ok(Self {
            replicas: declare.gauge("replicas", "Replicas that live, by their heartbeats.")?,
            partitions: declare.gauge("partitions_owned", "Partitions this replica owns, of 256.")?,
            store_up: declare
                .gauge("store_up", "Whether the store answered this replica's last heartbeat: 1, or 0.")?,
            claimed: takeovers.get_metric_with_label_values(&["free"])?,
            taken_over: takeovers.get_metric_with_label_values(&["expired"])?,
            released: declare.counter("releases_total", "Partitions that this replica drained and gave back.")?,
            leases_lost: declare.counter(
                "leases_lost_total",
                "Partitions that another replica claimed before this one let go: it stood still or was cut off.",
            )?,
            store_losses: declare.counter(
                "store_losses_total",
                "Leases that the store did not know any more: it was emptied or lost data in a failover.",
            )?,
            messages_lost: declare.counter(
                "messages_lost_total",
                "Messages that the store accepted and then lost, as this replica noticed.",
            )?,
            waits_read_again: declare.counter(
                "waits_read_again_total",
                "Waits that were read from the store again because a hint may have been lost.",
            )?,
            heads_waiting_for_bot: declare.gauge(
                "heads_waiting_for_bot",
                "Conversations with messages for a bot that this replica is not configured with.",
            )?,
            hints: declare.counters("hints_total", "Hints of other replicas by kind.", &["kind"])?,
        })
    }

    /// A hint came; `kind` is a word of the code.
    pub fn hint(&self, kind: &'static str) {
        if let Ok(counter) = self.hints.get_metric_with_label_values(&[kind]) {
            counter.inc();
        }
    }
}
