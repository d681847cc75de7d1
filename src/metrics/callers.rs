//! Metrics of callers and of their configuration: keys that verify tokens, rates that all replicas share, and reloads.

use prometheus::{Error, IntCounterVec, IntGauge};

use super::MetricFactory;

/// Calls that the bridge makes for its callers. The label is the name of the configuration.
#[derive(Debug)]
pub struct CallerMetrics {
    key_set_fetches: IntCounterVec,
    rate_calls: IntCounterVec,
    reloads: IntCounterVec,
    reload_failed: IntGauge,
}

impl CallerMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        let reloads = factory.counters(
            "config_reloads_total",
            "Reloads of the configuration by result (ok, failed).",
            &["result"],
        )?;
        for succeeded in [true, false] {
            reloads.with_label_values(&[result(succeeded)]);
        }
        Ok(Self {
            reloads,
            key_set_fetches: factory.counters(
                "key_set_fetches_total",
                "Fetches of the keys that verify a caller's tokens, by caller and result (ok, failed).",
                &["caller", "result"],
            )?,
            rate_calls: factory.counters(
                "fleet_rate_calls_total",
                "Calls of the store for a rate that all replicas share, by caller and result (ok, failed).",
                &["caller", "result"],
            )?,
            reload_failed: factory.gauge(
                "config_reload_failed",
                "Whether the last reload of the configuration failed: 1 or 0.",
            )?,
        })
    }

    /// Shows the series of a caller from the start: those of its keys and of its shared rate, if it has them.
    pub fn show(&self, caller: &str, has_keys: bool, has_shared_rate: bool) {
        for succeeded in [true, false] {
            let labels = [caller, result(succeeded)];
            if has_keys {
                self.key_set_fetches.with_label_values(&labels);
            }
            if has_shared_rate {
                self.rate_calls.with_label_values(&labels);
            }
        }
    }

    /// Counts a fetch of keys.
    pub fn key_set_fetched(&self, caller: &str, succeeded: bool) {
        self.key_set_fetches.with_label_values(&[caller, result(succeeded)]).inc();
    }

    /// Counts a reload of the configuration.
    pub fn config_reloaded(&self, succeeded: bool) {
        self.reloads.with_label_values(&[result(succeeded)]).inc();
        self.reload_failed.set(i64::from(!succeeded));
    }

    /// Counts a call for a shared rate.
    pub fn rate_called(&self, caller: &str, succeeded: bool) {
        self.rate_calls.with_label_values(&[caller, result(succeeded)]).inc();
    }
}

const fn result(succeeded: bool) -> &'static str {
    if succeeded { "ok" } else { "failed" }
}
