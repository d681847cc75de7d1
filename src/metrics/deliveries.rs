//! Metrics of deliveries to receivers of webhooks.
//!
//! No label names the receiver of a callback, because callers choose it. Endpoints are named by the configuration.

use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::labels::OTHER;
use super::{AttemptEnd, MetricFactory, SECONDS, child, children};
use crate::domain::{BotName, DeliveryKind, EndpointId};

/// Deliveries of this replica's partitions.
#[derive(Debug)]
pub struct DeliveryMetrics {
    attempts: Vec<(AttemptEnd, IntCounter)>,
    attempt_duration: Histogram,
    first_attempt_delay: Histogram,
    ended: IntCounterVec,
    endpoints_off: IntGaugeVec,
    /// Queues with a delivery.
    pub queues: IntGauge,
    /// Attempts from the request to begin until the store knows their result.
    pub in_flight: IntGauge,
    /// Hosts with an open circuit breaker.
    pub circuit_breakers_open: IntGauge,
}

impl DeliveryMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        let attempts = factory.counters(
            "delivery_attempts_total",
            "Attempts to deliver to a receiver of webhooks, by result.",
            &["result"],
        )?;
        Ok(Self {
            attempts: children(AttemptEnd::ALL, |end| {
                attempts.get_metric_with_label_values(&[end.as_str()])
            })?,
            attempt_duration: factory.histogram(
                "delivery_attempt_duration_seconds",
                "Duration of an attempt that reached out to a receiver, from its DNS lookup to the end of its answer.",
                SECONDS,
            )?,
            first_attempt_delay: factory.histogram(
                "delivery_first_attempt_delay_seconds",
                "Delay from an event to the first attempt to deliver it, its time in the queue included.",
                SECONDS,
            )?,
            ended: factory.counters(
                "deliveries_total",
                "Ended deliveries by outcome: delivered, or dead (dead-lettered).",
                &["bot", "type", "outcome"],
            )?,
            endpoints_off: factory.gauges(
                "webhook_endpoint_off",
                "1 for an endpoint that is switched off, else 0. Each replica tells the state of the store.",
                &["bot", "webhook"],
            )?,
            queues: factory.gauge(
                "delivery_queues",
                "Queues with a delivery, one for each conversation and target.",
            )?,
            in_flight: factory.gauge("delivery_attempts_in_flight", "Attempts in flight.")?,
            circuit_breakers_open: factory.gauge(
                "delivery_circuit_breakers_open",
                "Receivers' hosts with an open circuit breaker: they failed repeatedly and only get probes.",
            )?,
        })
    }

    /// Sets whether an endpoint of the configuration is switched off.
    pub fn endpoint_off(&self, id: &EndpointId, is_off: bool) {
        if let Ok(gauge) = self.endpoints_off.get_metric_with_label_values(&[id.bot.as_str(), &id.name]) {
            gauge.set(is_off.into());
        }
    }

    /// Counts an ended attempt, and its duration if it reached out to a receiver.
    pub fn attempt_ended(&self, end: AttemptEnd, duration: Duration) {
        if let Some(counter) = child(&self.attempts, end) {
            counter.inc();
        }
        if !matches!(end, AttemptEnd::Forbidden | AttemptEnd::Aborted) {
            self.attempt_duration.observe(duration.as_secs_f64());
        }
    }

    /// Records the delay from an event to the first attempt to deliver it.
    pub fn first_attempt_began(&self, delay: Duration) {
        self.first_attempt_delay.observe(delay.as_secs_f64());
    }

    /// Returns the children of one bot, to be taken once at start. All bots outside the configuration share `None`.
    ///
    /// # Errors
    /// A declaration of this module is wrong.
    pub fn bot(&self, bot: Option<&BotName>) -> Result<BotDeliveryMetrics, Error> {
        let bot = bot.map_or(OTHER, BotName::as_str);
        let counters = |outcome| {
            children(&DeliveryKind::ALL, |kind| {
                self.ended.get_metric_with_label_values(&[bot, kind.as_str(), outcome])
            })
        };
        Ok(BotDeliveryMetrics { delivered: counters("delivered")?, dead: counters("dead")? })
    }
}

/// Ended deliveries of one bot.
#[derive(Debug)]
pub struct BotDeliveryMetrics {
    delivered: Vec<(DeliveryKind, IntCounter)>,
    dead: Vec<(DeliveryKind, IntCounter)>,
}

impl BotDeliveryMetrics {
    /// Counts a delivery that its receiver accepted.
    pub fn delivered(&self, kind: DeliveryKind) {
        if let Some(counter) = child(&self.delivered, kind) {
            counter.inc();
        }
    }

    /// Counts a dead-lettered delivery.
    pub fn dead_lettered(&self, kind: DeliveryKind) {
        if let Some(counter) = child(&self.dead, kind) {
            counter.inc();
        }
    }
}
