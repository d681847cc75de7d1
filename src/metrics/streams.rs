//! What is counted of those who read events.

use prometheus::{Error, IntCounter, IntGauge};

use super::{Declare, child, children};
use crate::domain::EventKind;

/// Why a stream of events ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The caller went, or did not read any more.
    Gone,
    /// The caller read too slowly: more was told than is kept for it.
    Slow,
    /// This replica goes away.
    Drained,
    /// The store refused to be read.
    Failed,
}

impl StreamEnd {
    /// Every reason.
    pub const ALL: &[Self] = &[Self::Gone, Self::Slow, Self::Drained, Self::Failed];

    /// Its word as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Slow => "slow",
            Self::Drained => "drained",
            Self::Failed => "failed",
        }
    }
}

/// Readers of events and what they were told.
#[derive(Debug)]
pub struct StreamMetrics {
    /// Streams that are open.
    pub open: IntGauge,
    ends: Vec<(StreamEnd, IntCounter)>,
    events: Vec<(EventKind, IntCounter)>,
}

impl StreamMetrics {
    pub(super) fn declare(declare: &Declare) -> Result<Self, Error> {
        let ends =
            declare.counters("streams_ended_total", "Streams of events by why they ended.", &["reason"])?;
        let events = declare.counters(
            "events_total",
            "Events told to callers by type, in pages and streams; one that is read twice counts twice.",
            &["type"],
        )?;
        Ok(Self {
            open: declare.gauge("streams", "Streams of events that are open.")?,
            ends: children(StreamEnd::ALL, |end| ends.get_metric_with_label_values(&[end.as_str()]))?,
            events: children(&EventKind::ALL, |kind| events.get_metric_with_label_values(&[kind.as_str()]))?,
        })
    }

    /// An event was told.
    pub fn told(&self, kind: EventKind) {
        if let Some(counter) = child(&self.events, kind) {
            counter.inc();
        }
    }

    /// A stream ended.
    pub fn ended(&self, end: StreamEnd) {
        if let Some(counter) = child(&self.ends, end) {
            counter.inc();
        }
    }
}
