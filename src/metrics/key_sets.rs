//! Metrics of the keys that verify callers' tokens.

use prometheus::{Error, IntCounterVec};

use super::MetricFactory;

/// Fetches of key sets.
#[derive(Debug)]
pub struct KeySetMetrics {
    fetches: IntCounterVec,
}

impl KeySetMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            fetches: factory.counters(
                "key_set_fetches_total",
                "Fetches of the keys that verify a caller's tokens, by caller and result (ok, failed).",
                &["caller", "result"],
            )?,
        })
    }

    /// Counts a fetch for a caller of the configuration.
    pub fn fetched(&self, caller: &str, succeeded: bool) {
        let result = if succeeded { "ok" } else { "failed" };
        self.fetches.with_label_values(&[caller, result]).inc();
    }
}
