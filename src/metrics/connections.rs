//! Metrics of the callers' connections.

use prometheus::{Error, IntCounter, IntGauge};

use super::{ConnectionEndReason, MetricFactory, child, children};

/// The callers' connections. Clones count together.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    /// Open connections, those of event streams included.
    pub open: IntGauge,
    /// Accepts that failed because the process or the system lacked files or memory.
    pub accept_errors: IntCounter,
    closes: Vec<(ConnectionEndReason, IntCounter)>,
}

impl ConnectionMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        let closes = factory.counters(
            "connections_cut_total",
            "Callers' connections that the bridge refused or cut, by reason.",
            &["reason"],
        )?;
        Ok(Self {
            open: factory.gauge("connections", "Open connections of callers, with those of event streams.")?,
            accept_errors: factory.counter(
                "accept_errors_total",
                "Connections that could not be accepted, because the process or the system lacked files or memory.",
            )?,
            closes: children(ConnectionEndReason::ALL, |reason| {
                closes.get_metric_with_label_values(&[reason.as_str()])
            })?,
        })
    }

    /// Counts a connection that the bridge refused or cut.
    pub fn closed(&self, reason: ConnectionEndReason) {
        if let Some(counter) = child(&self.closes, reason) {
            counter.inc();
        }
    }
}
