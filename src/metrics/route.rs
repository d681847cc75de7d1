//! What is counted of one route of the HTTP interface.

use std::time::Duration;

use prometheus::{Error, Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::label::OTHER;

/// What one route counts.
#[derive(Debug)]
pub struct RouteMetrics {
    seconds: Histogram,
    requests: Vec<(&'static str, [IntCounter; 4])>,
    other: [IntCounter; 4],
}

impl RouteMetrics {
    pub(super) fn new(requests: &IntCounterVec, seconds: &HistogramVec, route: &str) -> Result<Self, Error> {
        let by_class = |method: &str| {
            let class = |class| requests.get_metric_with_label_values(&[route, method, class]);
            Ok::<_, Error>([class("2xx")?, class("3xx")?, class("4xx")?, class("5xx")?])
        };
        Ok(Self {
            seconds: seconds.get_metric_with_label_values(&[route])?,
            requests: ["GET", "POST", "DELETE"]
                .into_iter()
                .map(|method| Ok((method, by_class(method)?)))
                .collect::<Result<_, Error>>()?,
            other: by_class(OTHER)?,
        })
    }

    /// A request with this method was answered with this status after this time.
    pub fn answered(&self, method: &str, status: u16, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        let [success, redirect, refused, failed] = self
            .requests
            .iter()
            .find(|(known, _)| *known == method)
            .map_or(&self.other, |(_, counters)| counters);
        match status {
            0..300 => success,
            300..400 => redirect,
            400..500 => refused,
            _ => failed,
        }
        .inc();
    }
}
