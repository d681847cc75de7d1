//! How far the clocks of the store and the platform are from this replica's.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Error, Gauge, GaugeVec};

use super::MetricFactory;
use crate::domain::Timestamp;

/// The clocks that this replica compares with its own. Clones show the same.
#[derive(Clone, Debug)]
pub struct ClockMetrics {
    /// Clock of the store.
    pub store: ClockDifference,
    /// Clock of the platform that answered last.
    pub platform: ClockDifference,
}

/// The known difference of one clock.
#[derive(Clone, Debug)]
pub struct ClockDifference {
    gauges: GaugeVec,
    clock: &'static str,
    /// The gauge exists from the first comparison.
    gauge: Arc<OnceLock<Gauge>>,
}

impl ClockMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        let gauges = factory.seconds_gauges(
            "clock_ahead_seconds",
            "Seconds by which another clock is ahead of this replica's, at least; negative if it is behind.",
            &["clock"],
        )?;
        let clock = |clock| ClockDifference { gauges: gauges.clone(), clock, gauge: Arc::default() };
        Ok(Self { store: clock("store"), platform: clock("platform") })
    }
}

impl ClockDifference {
    /// Compares this replica's clock with a time that the other one told in an exchange from `sent` to `received`. The
    /// told time may be too early by `resolution`.
    ///
    /// The exchange took some time, so only a difference that it cannot explain counts.
    pub fn observe(&self, sent: Timestamp, received: Timestamp, told: Timestamp, resolution: Duration) {
        let ahead = told.since(received).as_secs_f64();
        let behind = sent.since(told + resolution).as_secs_f64();
        let Ok(gauge) = self.gauges.get_metric_with_label_values(&[self.clock]) else { return };
        self.gauge.get_or_init(|| gauge).set(ahead - behind);
    }

    /// Returns by how many seconds the clock is ahead of this replica's, or `None` before the first comparison.
    pub fn seconds(&self) -> Option<f64> {
        self.gauge.get().map(Gauge::get)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn only_a_difference_beyond_the_exchange_counts() {
        let clocks = ClockMetrics::declare(&MetricFactory(Registry::new())).unwrap();
        assert_eq!(clocks.store.seconds(), None);
        let at = |seconds: u64| Timestamp::from_millis(1_795_000_000_000 + seconds * 1000);
        for (sent, received, told, ahead) in [
            (100, 100, 100, 0.0),
            (100, 103, 101, 0.0),
            (100, 103, 103, 0.0),
            (100, 100, 105, 5.0),
            (100, 103, 105, 2.0),
            (100, 103, 99, 0.0),
            (100, 103, 35, -64.0),
        ] {
            clocks.store.observe(at(sent), at(received), at(told), Duration::from_secs(1));
            assert_eq!(clocks.store.seconds(), Some(ahead), "{sent} {received} {told}");
        }
        assert_eq!(clocks.platform.seconds(), None);
    }
}
