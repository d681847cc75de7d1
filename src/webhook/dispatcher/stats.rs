//! The metrics and log messages of the dispatcher.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tracing::{Span, debug, info, info_span, warn};

use super::in_flight::UnreportedAttempt;
use crate::config::Config;
use crate::domain::{BotName, NewDelivery};
use crate::metrics::{AttemptEnd, BotDeliveryMetrics, Metrics};
use crate::store::{ClaimedDelivery, RetryDecision};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::circuit_breaker::BreakerTransition;
use crate::webhook::endpoint_board::EndpointBoard;
use crate::webhook::scheduler::{Scheduler, host_of};

/// The counters of the dispatcher.
pub(super) struct DispatcherStats {
    metrics: Arc<Metrics>,
    bots: HashMap<BotName, BotDeliveryMetrics>,
    /// The counters of bots that are no longer configured.
    others: BotDeliveryMetrics,
}

impl DispatcherStats {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, prometheus::Error> {
        let deliveries = &metrics.deliveries;
        let bots = config
            .bots
            .iter()
            .map(|bot| Ok((bot.name.clone(), deliveries.bot(Some(&bot.name))?)))
            .collect::<Result<_, prometheus::Error>>()?;
        let others = deliveries.bot(None)?;
        Ok(Self { metrics, bots, others })
    }

    /// Returns the counter of caught panics.
    pub(super) fn panics(&self) -> IntCounter {
        self.metrics.panics.clone()
    }

    /// Sets the gauges.
    pub(super) fn measure(&self, scheduler: &Scheduler) {
        let deliveries = &self.metrics.deliveries;
        for (gauge, count) in [
            (&deliveries.queues, scheduler.queues()),
            (&deliveries.in_flight, scheduler.in_flight()),
            (&deliveries.circuit_breakers_open, scheduler.open_circuits()),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the gauges of endpoints.
    pub(super) fn endpoints(&self, board: &EndpointBoard) {
        for (id, is_off) in board.all() {
            self.metrics.deliveries.endpoint_off(id, is_off);
        }
    }

    /// Records the begin of an attempt. Returns its span.
    pub(super) fn attempt_began(&self, claimed: &ClaimedDelivery) -> Span {
        let NewDelivery { id, kind, conversation, target, trace, created_at, .. } = &claimed.delivery;
        if claimed.made == 0 {
            self.metrics.deliveries.first_attempt_began(claimed.now.since(*created_at));
        }
        let span = info_span!(
            "attempt", delivery.id = %id, attempt = claimed.made + 1, bot = %conversation.bot(),
            kind = kind.as_str(), trace_id = %trace
        );
        debug!(parent: &span, host = &*host_of(target), "attempting");
        span
    }

    /// Records the end of an attempt. `result` is `None` if the attempt was cancelled or began too late.
    pub(super) fn attempt_ended(&self, span: &Span, result: Option<&AttemptResult>, took: Duration) {
        let end = result.map_or(AttemptEnd::Aborted, |result| match result.outcome {
            AttemptOutcome::Delivered => AttemptEnd::Delivered,
            AttemptOutcome::Gone => AttemptEnd::Gone,
            AttemptOutcome::Refused { .. } => AttemptEnd::Refused,
            AttemptOutcome::Unreached => AttemptEnd::Unreachable,
            AttemptOutcome::Forbidden | AttemptOutcome::NotAllowed | AttemptOutcome::Unreadable => {
                AttemptEnd::Forbidden
            }
        });
        self.metrics.deliveries.attempt_ended(end, took);
        let attempt = result.map(|result| &result.attempt);
        debug!(
            parent: span,
            result = end.as_str(),
            status = attempt.and_then(|attempt| attempt.status),
            error = attempt.and_then(|attempt| attempt.error.as_deref()),
            seconds = took.as_secs_f64(),
            "attempted"
        );
    }

    /// Records that the store confirmed the end of an attempt.
    pub(super) fn finished(&self, ended: &UnreportedAttempt) {
        let NewDelivery { kind, conversation, .. } = &ended.finish.claimed.delivery;
        let bot = self.bots.get(conversation.bot()).unwrap_or(&self.others);
        match &ended.finish.decision {
            RetryDecision::Delivered => bot.delivered(*kind),
            RetryDecision::DeadLetter(reason) => {
                bot.dead_lettered(*kind);
                warn!(parent: &ended.span, %reason, "a delivery is dead-lettered; it can be redelivered");
            }
            RetryDecision::Retry(_) | RetryDecision::Again => {}
        }
    }

    /// Logs that a host's circuit opened or closed.
    pub(super) fn log_transition(host: &str, transition: BreakerTransition) {
        match transition {
            BreakerTransition::Opened => {
                info!(host, "a receiver fails repeatedly; its circuit is open and it gets probes only");
            }
            BreakerTransition::Closed => info!(host, "a receiver answers again; its circuit is closed"),
        }
    }
}
