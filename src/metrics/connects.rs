//! Metrics of connects to the platform.

use std::time::Instant;

use prometheus::{Error, IntCounter, IntCounterVec};

use super::refused_users::RefusedUserCounter;
use super::{ConnectResult, ConnectStep, MetricFactory, child, children};
use crate::domain::{BotName, UserId};

/// Connects of all bots.
#[derive(Debug)]
pub(super) struct ConnectMetrics {
    connects: IntCounterVec,
    refused_users: IntCounterVec,
}

impl ConnectMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            connects: factory.counters(
                "connects_total",
                "Connects to the platform by result, and by the phase in which they ended.",
                &["bot", "phase", "result"],
            )?,
            refused_users: factory.counters(
                "refused_users_total",
                "Users whose connects the platform refused; a user counts once in ten minutes.",
                &["bot"],
            )?,
        })
    }

    /// Returns the children of one bot, to be taken once at start.
    pub(super) fn bot(&self, name: &BotName) -> Result<BotConnectMetrics, Error> {
        let bot = name.as_str();
        Ok(BotConnectMetrics {
            results: children(ConnectStep::ALL, |step| {
                children(ConnectResult::ALL, |result| {
                    self.connects.get_metric_with_label_values(&[bot, step.as_str(), result.as_str()])
                })
            })?,
            refused_users: RefusedUserCounter::new(self.refused_users.get_metric_with_label_values(&[bot])?),
        })
    }
}

/// Connects of one bot.
#[derive(Debug)]
pub struct BotConnectMetrics {
    results: Vec<(ConnectStep, Vec<(ConnectResult, IntCounter)>)>,
    refused_users: RefusedUserCounter,
}

impl BotConnectMetrics {
    /// Counts a connect that ended in this step.
    pub fn ended(&self, step: ConnectStep, result: ConnectResult) {
        if let Some(counter) = child(&self.results, step).and_then(|results| child(results, result)) {
            counter.inc();
        }
    }

    /// Counts a connect that the platform refused in this step, and its user.
    pub fn refused(&self, step: ConnectStep, user: &UserId, now: Instant) {
        self.ended(step, ConnectResult::Rejected);
        self.refused_users.refused(user, now);
    }
}
