//! Metrics of files that callers upload.

use std::time::Duration;

use prometheus::{Error, Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::{ConnectResult, MetricFactory, SECONDS, UploadCall, child, children};
use crate::domain::BotName;

/// Uploads by bot.
#[derive(Debug)]
pub struct UploadMetrics {
    calls: IntCounterVec,
    call_duration: HistogramVec,
    bytes: IntCounterVec,
}

impl UploadMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            calls: factory.counters(
                "upload_calls_total",
                "Calls of uploads to the platform by kind and result, each attempt by itself.",
                &["bot", "call", "result"],
            )?,
            call_duration: factory.histograms(
                "upload_call_duration_seconds",
                "Duration of a call of an upload, failed ones included.",
                &["bot", "call"],
                SECONDS,
            )?,
            bytes: factory.counters(
                "uploaded_bytes_total",
                "Bytes of files that the platform has taken.",
                &["bot"],
            )?,
        })
    }

    /// Returns the children of one bot, to be taken once at start.
    ///
    /// # Errors
    /// A declaration of this module is wrong.
    pub fn bot(&self, bot: &BotName) -> Result<BotUploadMetrics, Error> {
        let bot = bot.as_str();
        let calls = children(UploadCall::ALL, |call| {
            children(ConnectResult::ALL, |result| {
                self.calls.get_metric_with_label_values(&[bot, call.as_str(), result.as_str()])
            })
        });
        Ok(BotUploadMetrics {
            calls: calls?,
            call_durations: children(UploadCall::ALL, |call| {
                self.call_duration.get_metric_with_label_values(&[bot, call.as_str()])
            })?,
            bytes: self.bytes.get_metric_with_label_values(&[bot])?,
        })
    }
}

/// Uploads of one bot.
#[derive(Debug)]
pub struct BotUploadMetrics {
    calls: Vec<(UploadCall, Vec<(ConnectResult, IntCounter)>)>,
    call_durations: Vec<(UploadCall, Histogram)>,
    bytes: IntCounter,
}

impl BotUploadMetrics {
    /// Counts an attempt of a call, and its duration.
    pub fn call_ended(&self, call: UploadCall, result: ConnectResult, duration: Duration) {
        if let Some(counter) = child(&self.calls, call).and_then(|results| child(results, result)) {
            counter.inc();
        }
        if let Some(histogram) = child(&self.call_durations, call) {
            histogram.observe(duration.as_secs_f64());
        }
    }

    /// Counts the bytes of a file that the platform has taken.
    pub fn file_uploaded(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }
}
