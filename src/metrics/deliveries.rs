//! What is counted of deliveries to receivers of webhooks.
//!
//! No label names a receiver: callers name some of them.

use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::label::OTHER;
use super::{AttemptEnd, Declare, SECONDS, child, children};
use crate::domain::{BotName, DeliveryKind};

/// Deliveries of this replica's partitions.
#[derive(Debug)]
pub struct DeliveryMetrics {
    attempts: Vec<(AttemptEnd, IntCounter)>,
    attempt_seconds: Histogram,
    first_seconds: Histogram,
    ended: IntCounterVec,
    /// Queues that are not empty.
    pub queues: IntGauge,
    /// Attempts that are being made, from the wish to begin until the store knows how they ended.
    pub in_flight: IntGauge,
    /// Hosts that are left alone for the time being.
    pub breakers_open: IntGauge,
}

impl DeliveryMetrics {
    pub(super) fn declare(declare: &Declare) -> Result<Self, Error> {
        let attempts = declare.counters(
            "delivery_attempts_total",
            "Attempts to deliver to a receiver of webhooks, by how they ended.",
            &["result"],
        )?;
        Ok(Self {
            attempts: children(AttemptEnd::ALL, |end| {
                attempts.get_metric_with_label_values(&[end.as_str()])
            })?,
            attempt_seconds: declare.histogram(
                "delivery_attempt_seconds",
                "Seconds of an attempt that went to a receiver, from looking up its name to the end of its answer.",
                SECONDS,
            )?,
            first_seconds: declare.histogram(
                "delivery_first_attempt_seconds",
                "Seconds from what a delivery tells of to its first attempt; what is before it in its queue included.",
                SECONDS,
            )?,
            ended: declare.counters(
                "deliveries_total",
                "Deliveries that are over: delivered, or buried.",
                &["bot", "type", "end"],
            )?,
            queues: declare.gauge(
                "delivery_queues",
                "Queues of deliveries that are not empty, one for each conversation and target.",
            )?,
            in_flight: declare.gauge("delivery_attempts_in_flight", "Attempts that are being made.")?,
            breakers_open: declare.gauge(
                "delivery_breakers_open",
                "Receivers' hosts that failed again and again and are only probed.",
            )?,
        })
    }

    /// An attempt ended. It took this long, where it went to a receiver.
    pub fn attempted(&self, end: AttemptEnd, took: Duration) {
        if let Some(counter) = child(&self.attempts, end) {
            counter.inc();
        }
        if !matches!(end, AttemptEnd::Forbidden | AttemptEnd::BrokenOff) {
            self.attempt_seconds.observe(took.as_secs_f64());
        }
    }

    /// The first attempt of a delivery begins, so long after what it tells of.
    pub fn began(&self, after: Duration) {
        self.first_seconds.observe(after.as_secs_f64());
    }

    /// The children of one bot; taken once, at start. None is for those that are configured no more.
    ///
    /// # Errors
    /// Only where a declaration of this module is wrong.
    pub fn bot(&self, bot: Option<&BotName>) -> Result<BotDeliveries, Error> {
        let bot = bot.map_or(OTHER, BotName::as_str);
        let counters = |end| {
            children(&DeliveryKind::ALL, |kind| {
                self.ended.get_metric_with_label_values(&[bot, kind.as_str(), end])
            })
        };
        Ok(BotDeliveries { delivered: counters("delivered")?, buried: counters("buried")? })
    }
}

/// One bot's deliveries that are over.
#[derive(Debug)]
pub struct BotDeliveries {
    delivered: Vec<(DeliveryKind, IntCounter)>,
    buried: Vec<(DeliveryKind, IntCounter)>,
}

impl BotDeliveries {
    /// A receiver took one.
    pub fn delivered(&self, kind: DeliveryKind) {
        if let Some(counter) = child(&self.delivered, kind) {
            counter.inc();
        }
    }

    /// One was buried.
    pub fn buried(&self, kind: DeliveryKind) {
        if let Some(counter) = child(&self.buried, kind) {
            counter.inc();
        }
    }
}
