//! Metrics of the HTTP interface.

use std::time::Duration;

use prometheus::{Error, HistogramVec};

use super::labels::OTHER;
use super::{MetricFactory, SECONDS};

/// Methods with a label of their own.
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];

/// Answered requests. Series appear with the first request of their kind: most pairs of route and status never occur.
#[derive(Debug)]
pub(super) struct HttpRequestMetrics {
    routes: &'static [&'static str],
    duration: HistogramVec,
}

impl HttpRequestMetrics {
    pub(super) fn declare(factory: &MetricFactory, routes: &'static [&'static str]) -> Result<Self, Error> {
        let duration = factory.histograms(
            "http_request_duration_seconds",
            "Duration from a request's head to its response, the wait for the bot included.",
            &["route", "method", "code"],
            SECONDS,
        )?;
        Ok(Self { routes, duration })
    }

    /// Counts a request with this method and this exact status code.
    pub(super) fn answered(&self, route: &str, method: &str, status: &str, duration: Duration) {
        let method = if METHODS.contains(&method) { method } else { OTHER };
        if self.routes.contains(&route)
            && let Ok(histogram) = self.duration.get_metric_with_label_values(&[route, method, status])
        {
            histogram.observe(duration.as_secs_f64());
        }
    }
}
