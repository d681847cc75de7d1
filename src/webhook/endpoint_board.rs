//! The endpoints of the configuration: which are switched off, and what this replica saw of each.
//!
//! ```text
//!          410, or every attempt failed for `disable_after`
//!   on ─────────────────────────────────────────────────────► switching ── stored ──► off
//!    ▲                                                                                  │
//!    └────────────────────────────── an operator ───────────────────────────────────────┘
//! ```
//!
//! The store holds the state for all replicas. The board does no I/O: the worker carries reports and switch-offs to the
//! store, and brings back the states.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::to_raw_value;

use super::attempt::AttemptOutcome;
use crate::config::{BotConfig, BotWebhookConfig, Config, PayloadExtent};
use crate::domain::{
    BotName, DeliveryAttempt, DeliveryId, DeliveryKind, DeliveryOrigin, EndpointId, EndpointReport,
    EndpointState, MessageId, NewDelivery, Timestamp, UserId,
};

/// The reason of a dead letter whose endpoint is switched off.
pub(super) const OFF: &str = "its endpoint is switched off";

/// The endpoints of this replica's configuration.
pub(super) struct EndpointBoard {
    bots: HashMap<BotName, Arc<BotConfig>>,
    entries: BTreeMap<EndpointId, EndpointEntry>,
}

struct EndpointEntry {
    disable_after: Option<Duration>,
    /// The state by the store.
    state: EndpointState,
    /// The attempts since the last report.
    report: EndpointReport,
    /// The reason of a switch-off that the store does not have yet.
    switching: Option<Box<str>>,
}

/// The changes that the worker carries to the store.
#[derive(Debug, Default)]
pub(super) struct BoardChanges {
    pub(super) reports: Vec<(EndpointId, EndpointReport)>,
    pub(super) switches: Vec<(EndpointId, Box<str>)>,
}

/// The difference between two states of the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BoardNews {
    /// Endpoints that are switched off now, with the reason.
    pub(super) off: Vec<(EndpointId, Box<str>)>,
    /// Endpoints that are switched on again.
    pub(super) on: Vec<EndpointId>,
}

impl EndpointBoard {
    /// Creates the board with the states of the store.
    pub(super) fn new(config: &Config, states: &BTreeMap<EndpointId, EndpointState>) -> Self {
        let bots = config.bots.iter().map(|bot| (bot.name.clone(), Arc::clone(bot))).collect();
        let mut entries = BTreeMap::new();
        for bot in &config.bots {
            for BotWebhookConfig { name, disable_after, .. } in &bot.webhooks {
                let id = EndpointId { bot: bot.name.clone(), name: name.clone() };
                let state = states.get(&id).cloned().unwrap_or_default();
                let report = EndpointReport::default();
                let entry = EndpointEntry { disable_after: *disable_after, state, report, switching: None };
                entries.insert(id, entry);
            }
        }
        Self { bots, entries }
    }

    /// Returns each endpoint, and whether it is switched off.
    pub(super) fn all(&self) -> impl Iterator<Item = (&EndpointId, bool)> {
        self.entries.iter().map(|(id, entry)| (id, entry.is_off()))
    }

    /// Returns whether deliveries to this endpoint are dead-lettered without an attempt.
    pub(super) fn is_off(&self, id: &EndpointId) -> bool {
        self.entries.get(id).is_some_and(EndpointEntry::is_off)
    }

    /// Takes note of an attempt. Returns whether it switches its endpoint off.
    pub(super) fn record(
        &mut self,
        delivery: &NewDelivery,
        attempt: &DeliveryAttempt,
        outcome: &AttemptOutcome,
    ) -> bool {
        let entry = delivery.endpoint_id().and_then(|id| self.entries.get_mut(&id));
        let Some(entry) = entry else { return false };
        match outcome {
            AttemptOutcome::Delivered => entry.report.add_success(attempt.at),
            AttemptOutcome::Gone | AttemptOutcome::Refused { .. } | AttemptOutcome::Unreached => {
                entry.report.add_failure(attempt.at, attempt.error.clone().unwrap_or_default());
            }
            // The fault is ours.
            AttemptOutcome::Forbidden | AttemptOutcome::NotAllowed | AttemptOutcome::Unreadable => {}
        }
        if *outcome != AttemptOutcome::Gone || entry.is_off() {
            return false;
        }
        entry.switching = Some("the receiver wants no more deliveries: it answered 410".into());
        true
    }

    /// Takes the changes for the store.
    pub(super) fn take_changes(&mut self) -> BoardChanges {
        let mut changes = BoardChanges::default();
        for (id, entry) in &mut self.entries {
            if entry.report != EndpointReport::default() {
                changes.reports.push((id.clone(), std::mem::take(&mut entry.report)));
            }
            changes.switches.extend(entry.switching.clone().map(|reason| (id.clone(), reason)));
        }
        changes
    }

    /// Puts changes back that the store did not confirm.
    pub(super) fn put_back(&mut self, changes: BoardChanges) {
        for (id, report) in changes.reports {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.report.add_earlier(report);
            }
        }
    }

    /// Takes over the states of the store, which has `stored` since. Begins to switch off endpoints that failed for too
    /// long.
    pub(super) fn update(
        &mut self,
        states: &BTreeMap<EndpointId, EndpointState>,
        stored: &BoardChanges,
    ) -> BoardNews {
        let stored: BTreeSet<_> = stored.switches.iter().map(|(id, _)| id).collect();
        let mut news = BoardNews::default();
        for (id, entry) in &mut self.entries {
            let before = entry.state.off.is_some();
            entry.state = states.get(id).cloned().unwrap_or_default();
            if stored.contains(id) {
                entry.switching = None;
            }
            match &entry.state.off {
                Some(off) if !before => news.off.push((id.clone(), off.reason.clone())),
                None if before => news.on.push(id.clone()),
                _ => {}
            }
            if entry.state.off.is_none()
                && entry.switching.is_none()
                && let (Some(span), Some(limit)) = (entry.failed_for(), entry.disable_after)
                && span >= limit
            {
                entry.switching = Some(format!("every attempt failed for {} s", span.as_secs()).into());
            }
        }
        news
    }

    /// Returns whether a switch-off waits for the store.
    pub(super) fn is_switching(&self) -> bool {
        self.entries.values().any(|entry| entry.switching.is_some())
    }

    /// Returns the deliveries that report a dead letter to the bot's other endpoints. Dead letters of reports have none,
    /// so no report causes another one.
    pub(super) fn dead_letter_reports(
        &self,
        dead: &NewDelivery,
        reason: &str,
        now: Timestamp,
    ) -> Vec<NewDelivery> {
        let bot = self.bots.get(dead.conversation.bot());
        let Some(bot) = bot.filter(|_| dead.kind != DeliveryKind::DeliveryDead) else { return Vec::new() };
        let others = bot.endpoints_of(DeliveryKind::DeliveryDead);
        let others = others.filter(|endpoint| dead.endpoint() != Some(&*endpoint.name));
        let report = |endpoint: &BotWebhookConfig| {
            let data = match endpoint.payload {
                PayloadExtent::Full => to_raw_value(&DeadLetter::of(dead, reason)),
                PayloadExtent::Thin => to_raw_value(&ThinDeadLetter::of(dead)),
            };
            Some(NewDelivery {
                id: dead.id.of_report(&endpoint.name, now),
                kind: DeliveryKind::DeliveryDead,
                conversation: dead.conversation.clone(),
                message: dead.message,
                target: endpoint.url.as_ref()?.as_str().into(),
                origin: DeliveryOrigin::Endpoint(endpoint.name.clone()),
                trace: dead.trace,
                created_at: now,
                data: data.ok()?,
            })
        };
        others.filter_map(report).collect()
    }

    /// Returns a configured endpoint with its bot.
    pub(super) fn find(&self, id: &EndpointId) -> Option<(&BotConfig, &BotWebhookConfig)> {
        let bot = self.bots.get(&id.bot)?;
        Some((bot, bot.webhooks.iter().find(|endpoint| endpoint.name == id.name)?))
    }
}

impl EndpointEntry {
    const fn is_off(&self) -> bool {
        self.state.off.is_some() || self.switching.is_some()
    }

    /// Returns the time from the first failure to the last one, without a success since.
    fn failed_for(&self) -> Option<Duration> {
        Some(self.state.last_failure_at?.since(self.state.failing_since?))
    }
}

/// The body of a report. It leaves out the target, because a URL may hold a secret of its receiver.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<'a> {
    bot: &'a str,
    user: &'a UserId,
    delivery_id: DeliveryId,
    r#type: DeliveryKind,
    webhook: Option<&'a str>,
    message_id: Option<MessageId>,
    reason: &'a str,
    created_at: Timestamp,
}

impl<'a> DeadLetter<'a> {
    fn of(dead: &'a NewDelivery, reason: &'a str) -> Self {
        Self {
            bot: dead.conversation.bot().as_str(),
            user: dead.conversation.user(),
            delivery_id: dead.id,
            r#type: dead.kind,
            webhook: dead.endpoint(),
            message_id: dead.message,
            reason,
            created_at: dead.created_at,
        }
    }
}

/// The body of a report without content.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinDeadLetter<'a> {
    bot: &'a str,
    user: &'a UserId,
    delivery_id: DeliveryId,
    message_id: Option<MessageId>,
    links: DeliveryLinks,
}

/// References into our API.
#[derive(Serialize)]
struct DeliveryLinks {
    delivery: String,
}

impl<'a> ThinDeadLetter<'a> {
    fn of(dead: &'a NewDelivery) -> Self {
        Self {
            bot: dead.conversation.bot().as_str(),
            user: dead.conversation.user(),
            delivery_id: dead.id,
            message_id: dead.message,
            links: DeliveryLinks { delivery: format!("/deliveries/{}", dead.id) },
        }
    }
}

#[cfg(test)]
mod tests;
