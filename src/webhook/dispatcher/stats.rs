//! What the dispatcher counts and logs.

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
use crate::webhook::scheduler::{Scheduler, host_of};

pub(super) struct DispatcherStats {
    metrics: Arc<Metrics>,
    bots: HashMap<BotName, BotDeliveryMetrics>,
    /// Of bots that are configured no more.
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

    /// Counts panics that were caught.
    pub(super) fn panics(&self) -> IntCounter {
        self.metrics.panics.clone()
    }

    /// How much there is to do.
    pub(super) fn measure(&self, agenda: &Scheduler) {
        let deliveries = &self.metrics.deliveries;
        for (gauge, count) in [
            (&deliveries.queues, agenda.queues()),
            (&deliveries.in_flight, agenda.in_flight()),
            (&deliveries.circuit_breakers_open, agenda.open_breakers()),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// An attempt begins. Returns its span.
    pub(super) fn began(&self, taken: &ClaimedDelivery) -> Span {
        let NewDelivery { id, kind, conversation, target, trace, created_at, .. } = &taken.delivery;
        if taken.made == 0 {
            self.metrics.deliveries.first_attempt_began(taken.now.since(*created_at));
        }
        let span = info_span!(
            "attempt", delivery.id = %id, attempt = taken.made + 1, bot = %conversation.bot,
            kind = kind.as_str(), trace_id = %trace
        );
        debug!(parent: &span, host = &*host_of(target), "attempting");
        span
    }

    /// An attempt ended; without having been made where it was broken off or too late.
    pub(super) fn attempted(&self, span: &Span, made: Option<&AttemptResult>, took: Duration) {
        let end = made.map_or(AttemptEnd::Aborted, |made| match made.fate {
            AttemptOutcome::Delivered => AttemptEnd::Delivered,
            AttemptOutcome::Gone => AttemptEnd::Gone,
            AttemptOutcome::Refused { .. } => AttemptEnd::Refused,
            AttemptOutcome::Unreached => AttemptEnd::Unreachable,
            AttemptOutcome::Forbidden => AttemptEnd::Forbidden,
        });
        self.metrics.deliveries.attempt_ended(end, took);
        let attempt = made.map(|made| &made.attempt);
        debug!(
            parent: span,
            result = end.as_str(),
            status = attempt.and_then(|attempt| attempt.status),
            error = attempt.and_then(|attempt| attempt.error.as_deref()),
            seconds = took.as_secs_f64(),
            "attempted"
        );
    }

    /// The store knows how an attempt ended.
    pub(super) fn finished(&self, flight: &UnreportedAttempt) {
        let NewDelivery { kind, conversation, .. } = &flight.taken.delivery;
        let bot = self.bots.get(&conversation.bot).unwrap_or(&self.others);
        match &flight.finish.verdict {
            RetryDecision::Delivered => bot.delivered(*kind),
            RetryDecision::Bury(reason) => {
                bot.dead_lettered(*kind);
                warn!(parent: &flight.span, %reason, "a delivery is buried; it can be redelivered");
            }
            RetryDecision::Retry(_) | RetryDecision::Again => {}
        }
    }

    /// A host's breaker went over.
    pub(super) fn switched(host: &str, switched: BreakerTransition) {
        match switched {
            BreakerTransition::Opened => {
                info!(host, "a receiver fails again and again; it is only probed from now on");
            }
            BreakerTransition::Closed => info!(host, "a receiver is well again"),
        }
    }
}
