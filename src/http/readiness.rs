//! Readiness of a replica. The operator's listener tells it with its checks, the callers' listener without.
//!
//! Readiness asks the store. Without its store a replica refuses messages, and so does every other. It stays ready for a
//! while all the same: callers then get the bridge's problem with `Retry-After` instead of a proxy's error. A new replica
//! becomes ready when the others have handed its conversations over: a rolling update then moves users no faster than
//! they may connect.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::live_settings::ReloadStatus;
use crate::config::{BotConfig, Config};
use crate::domain::EndpointId;
use crate::hub::Hub;
use crate::store::Store;

/// Timeout of the store's answer. Probes give up after a second or a few.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// Age up to which an answer serves other probes that need no detail. The callers' listener has no key for them.
const REUSE: Duration = Duration::from_secs(1);

/// The probe of a replica's readiness, which both listeners share.
#[derive(Debug)]
pub struct ReadinessProbe {
    hub: Hub,
    store: Store,
    /// Time for which the replica stays ready without its store.
    tolerance: Duration,
    /// The bots whose endpoints may be switched off.
    bots: Vec<Arc<BotConfig>>,
    /// True as soon as this replica shuts down, before it refuses requests.
    draining: Arc<AtomicBool>,
    contact: std::sync::Mutex<ContactHistory>,
    /// The last result of the store's check, for probes without detail.
    last: Mutex<Option<(Instant, bool)>>,
    reload_status: Arc<ReloadStatus>,
}

/// The answers of the store to earlier probes.
#[derive(Debug, Default, PartialEq, Eq)]
enum ContactHistory {
    /// It has not answered yet. A replica of a wrong configuration must not become ready.
    #[default]
    Unproven,
    /// It answered the last probe.
    Answering,
    /// It has answered no probe since then.
    SilentSince(Instant),
}

/// The checks of a probe.
#[derive(Serialize)]
pub(super) struct ReadinessReport {
    pub(super) ready: bool,
    checks: Vec<ReadinessCheck>,
}

#[derive(Serialize)]
struct ReadinessCheck {
    name: &'static str,
    ok: bool,
    /// Reason of a failed check.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'static, str>>,
    /// Advice on what leaves the replica ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl ReadinessCheck {
    fn of(name: &'static str, result: Result<(), Cow<'static, str>>) -> Self {
        Self { name, ok: result.is_ok(), detail: result.err(), warnings: Vec::new() }
    }
}

impl ContactHistory {
    /// Notes whether the store answered now, and returns whether the replica counts as ready.
    fn note(&mut self, answers: bool, now: Instant, tolerance: Duration) -> bool {
        if answers {
            *self = Self::Answering;
            return true;
        }
        match self {
            Self::Unproven => return false,
            Self::Answering => *self = Self::SilentSince(now),
            Self::SilentSince(_) => {}
        }
        matches!(self, Self::SilentSince(since) if now.saturating_duration_since(*since) < tolerance)
    }
}

impl ReadinessProbe {
    /// Creates the probe of a replica with this configuration.
    pub fn new(hub: Hub, store: Store, config: &Config, draining: Arc<AtomicBool>) -> Self {
        Self {
            hub,
            store,
            tolerance: config.server.ready_without_store,
            bots: config.bots.clone(),
            draining,
            contact: std::sync::Mutex::default(),
            last: Mutex::default(),
            reload_status: Arc::default(),
        }
    }

    /// Performs all checks.
    pub(super) async fn report(&self) -> ReadinessReport {
        let drain = if self.is_draining() { Err("this replica is shutting down".into()) } else { Ok(()) };
        let share = if self.hub.is_settled() {
            Ok(())
        } else {
            Err("other replicas still hand conversations over to this new one".into())
        };
        let checks = vec![
            self.check_store().await,
            ReadinessCheck::of("handoff", share),
            ReadinessCheck::of("drain", drain),
            self.check_webhooks().await,
            self.check_configuration(),
        ];
        ReadinessReport { ready: checks.iter().all(|check| check.ok), checks }
    }

    /// Returns whether this replica is ready. The store is asked once a second at most.
    pub(super) async fn is_ready(&self) -> bool {
        if self.is_draining() || !self.hub.is_settled() {
            return false;
        }
        let mut last = self.last.lock().await;
        match *last {
            Some((at, answers)) if at.elapsed() < REUSE => answers,
            _ => {
                let answers = self.check_store().await.ok;
                *last = Some((Instant::now(), answers));
                answers
            }
        }
    }

    /// Returns the status of reloads, which is part of the report.
    pub const fn reload_status(&self) -> &Arc<ReloadStatus> {
        &self.reload_status
    }

    /// Warns of endpoints that are switched off. They leave the replica ready.
    async fn check_webhooks(&self) -> ReadinessCheck {
        let mut check = ReadinessCheck::of("webhooks", Ok(()));
        if self.bots.iter().all(|bot| bot.webhooks.is_empty()) {
            return check;
        }
        let states = timeout(STORE_TIMEOUT, self.store.endpoint_states()).await;
        let Ok(Ok(states)) = states else { return check };
        for bot in &self.bots {
            for endpoint in &bot.webhooks {
                let id = EndpointId { bot: bot.name.clone(), name: endpoint.name.clone() };
                if let Some(off) = states.get(&id).and_then(|state| state.off.as_ref()) {
                    check.warnings.push(format!(
                        "the endpoint {} of the bot {} is switched off since {}: {}; POST /webhooks/{id}/enable switches it on",
                        id.name, id.bot, off.since, off.reason
                    ));
                }
            }
        }
        check
    }

    /// Checks whether the last reload was taken over. The former configuration serves on if not.
    fn check_configuration(&self) -> ReadinessCheck {
        let warnings = self.reload_status.failure().map(str::to_owned).into_iter().collect();
        ReadinessCheck { warnings, ..ReadinessCheck::of("configuration", Ok(())) }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Checks whether the store does what a replica needs. This is the only check of a dependency: no restart would mend
    /// the others.
    async fn check_store(&self) -> ReadinessCheck {
        let answer = match timeout(STORE_TIMEOUT, self.store.check_ready()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the store did not answer in time".to_owned()),
        };
        let mut contact = self.contact.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ready = contact.note(answer.is_ok(), Instant::now(), self.tolerance);
        drop(contact);
        let mut warnings = self.store.warnings();
        let result = match answer {
            Err(reason) if ready => {
                warnings.push(format!("{reason}; the replica stays ready for server.ready_without_store"));
                Ok(())
            }
            answer => answer.map_err(Cow::from),
        };
        ReadinessCheck { warnings, ..ReadinessCheck::of("store", result) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_tolerated_for_a_while_after_an_answer() {
        let (start, minute) = (Instant::now(), Duration::from_mins(1));
        let mut contact = ContactHistory::default();
        for (second, answers, ready) in [
            // A store that never answered proves nothing.
            (0, false, false),
            (1, true, true),
            // The silence begins with the first probe without an answer, whenever the last one was.
            (300, false, true),
            (359, false, true),
            (360, false, false),
            (400, true, true),
            (401, false, true),
            (460, false, true),
            (461, false, false),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(contact.note(answers, now, minute), ready, "{second}");
        }
    }

    #[test]
    fn silence_without_tolerance_is_not_ready() {
        let mut contact = ContactHistory::Answering;
        assert!(!contact.note(false, Instant::now(), Duration::ZERO));
    }
}
