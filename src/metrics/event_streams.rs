//! Metrics of event streams and of the events that callers got.

use prometheus::{Error, IntCounter, IntGauge};

use super::{MetricFactory, StreamEndReason, child, children};
use crate::domain::EventKind;

/// Event streams and the events that callers got.
#[derive(Debug)]
pub struct EventStreamMetrics {
    /// Open streams.
    pub open: IntGauge,
    ends: Vec<(StreamEndReason, IntCounter)>,
    events: Vec<(EventKind, IntCounter)>,
}

impl EventStreamMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        let ends = factory.counters(
            "event_streams_ended_total",
            "Ended event streams by the reason of their end.",
            &["reason"],
        )?;
        let events = factory.counters(
            "events_sent_total",
            "Events sent to callers by type, in pages and streams; an event that is read twice counts twice.",
            &["type"],
        )?;
        Ok(Self {
            open: factory.gauge("event_streams", "Open event streams.")?,
            ends: children(StreamEndReason::ALL, |reason| {
                ends.get_metric_with_label_values(&[reason.as_str()])
            })?,
            events: children(&EventKind::ALL, |kind| events.get_metric_with_label_values(&[kind.as_str()]))?,
        })
    }

    /// Counts an event that a caller got.
    pub fn event_sent(&self, kind: EventKind) {
        if let Some(counter) = child(&self.events, kind) {
            counter.inc();
        }
    }

    /// Counts an ended stream.
    pub fn ended(&self, reason: StreamEndReason) {
        if let Some(counter) = child(&self.ends, reason) {
            counter.inc();
        }
    }
}
