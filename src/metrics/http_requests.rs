//! Metrics of the HTTP interface.

use std::time::Duration;

use prometheus::{Error, HistogramVec, IntCounter};

use super::labels::OTHER;
use super::{MetricFactory, SECONDS};

/// Methods with a label of their own.
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];

/// Statuses of the HTTP server's own refusals.
const REFUSALS: [(u16, &str); 3] = [(400, "400"), (408, "408"), (431, "431")];

/// Answered requests. Series appear with the first request of their kind: most pairs of route and status never occur.
#[derive(Debug)]
pub(super) struct HttpRequestMetrics {
    routes: &'static [&'static str],
    duration: HistogramVec,
    malformed: Vec<(u16, IntCounter)>,
}

impl HttpRequestMetrics {
    pub(super) fn declare(factory: &MetricFactory, routes: &'static [&'static str]) -> Result<Self, Error> {
        let duration = factory.histograms(
            "http_request_duration_seconds",
            "Duration from a request's head to its response, the wait for the bot included.",
            &["route", "method", "code"],
            SECONDS,
        )?;
        let malformed = factory.counters(
            "malformed_requests_total",
            "Requests refused by the HTTP server itself, before any route: malformed (400), late (408) or oversized (431).",
            &["code"],
        )?;
        let malformed = REFUSALS
            .into_iter()
            .map(|(status, code)| Ok((status, malformed.get_metric_with_label_values(&[code])?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self { routes, duration, malformed })
    }

    /// Counts a refusal of the HTTP server with this status.
    pub(super) fn refused(&self, status: u16) {
        if let Some((_, counter)) = self.malformed.iter().find(|(known, _)| *known == status) {
            counter.inc();
        }
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
