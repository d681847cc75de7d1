//! The health of Redis: whether its settings keep accepted messages, and how full it is.
//!
//! Problems do not make a replica unready, because that would not solve them. They are logged once and shown in
//! `/readyz`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value, cmd, from_redis_value};

use tokio::time::Instant;

use super::command_runner::CommandRunner;
use crate::store::{StoreError, StoreRefusal};

/// The interval of the look at the settings. Memory is looked at each time.
const SETTINGS_EVERY: Duration = Duration::from_mins(1);

/// The known health of Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisHealth {
    /// The memory of the fullest master; `None` until it is known.
    pub memory: Option<MemoryUsage>,
    /// The settings that an operator should change.
    pub warnings: Vec<HealthIssue>,
}

/// A master's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// The used bytes.
    pub used: u64,
    /// The limit in bytes; `None` if there is no limit.
    pub limit: Option<u64>,
}

impl MemoryUsage {
    /// Returns the used share of the limit in thousandths; 0 without a limit.
    fn share(self) -> u64 {
        self.limit.map_or(0, |limit| self.used.saturating_mul(1000) / limit.max(1))
    }

    /// Returns whether more than 90 % of the limit is used. The rest is for the ends of accepted messages.
    pub fn is_full(self) -> bool {
        self.share() > 900
    }
}

/// A problem of Redis that an operator should solve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HealthIssue {
    /// Redis evicts data when its memory is full.
    Evicts {
        /// Its `maxmemory-policy`.
        policy: String,
    },
    /// Redis loses all data at a restart.
    NotPersistent,
    /// Redis does not allow the questions about eviction and persistence.
    NotAllowed,
}

impl fmt::Display for HealthIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts { policy } => write!(
                f,
                "maxmemory-policy is {policy}: accepted messages may be evicted; set it to noeviction"
            ),
            Self::NotPersistent => f.write_str(
                "neither appendonly nor save is on: a restart of Redis loses accepted messages; set appendonly yes",
            ),
            Self::NotAllowed => f.write_str(
                "INFO or CONFIG GET is not allowed: whether Redis evicts, persists or is full is not known; \
                 allow +info and +config|get",
            ),
        }
    }
}

/// The monitor of Redis' health.
#[derive(Debug, Default)]
pub(super) struct HealthMonitor {
    full: Arc<AtomicBool>,
    known: Mutex<KnownHealth>,
}

#[derive(Debug, Default)]
struct KnownHealth {
    health: RedisHealth,
    /// The problem of persistence at the last look.
    persistence: Option<HealthIssue>,
    checked_at: Option<Instant>,
}

impl HealthMonitor {
    fn known(&self) -> MutexGuard<'_, KnownHealth> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the health at the last look.
    pub(super) fn health(&self) -> RedisHealth {
        self.known().health.clone()
    }

    #[cfg(test)]
    pub(super) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Returns whether new messages must be refused, as of the last look.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Looks at Redis. If it cannot be reached, the known health stays.
    pub(super) async fn check(&self, runner: &CommandRunner) {
        let Some(memory) = memory(runner).await else { return };
        let due = self.known().checked_at.is_none_or(|checked_at| checked_at.elapsed() >= SETTINGS_EVERY);
        let persistence = if due { Some(persistence(runner).await) } else { None };

        let mut known = self.known();
        if let Some(persistence) = persistence {
            known.persistence = persistence;
            known.checked_at = Some(Instant::now());
        }
        let mut warnings = memory.issues;
        warnings.extend(known.persistence.clone().filter(|issue| !warnings.contains(issue)));
        for issue in warnings.iter().filter(|issue| !known.health.warnings.contains(issue)) {
            tracing::warn!("Redis: {issue}");
        }
        let full = memory.usage.is_some_and(MemoryUsage::is_full);
        if self.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::warn!(usage = ?memory.usage, "Redis is almost full: new messages are refused");
            } else {
                tracing::info!("Redis has room again");
            }
        }
        known.health = RedisHealth { memory: memory.usage, warnings };
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct MemoryReport {
    /// The memory of the fullest master.
    usage: Option<MemoryUsage>,
    issues: Vec<HealthIssue>,
}

/// Asks every master for its memory; `None` if Redis cannot be reached.
async fn memory(runner: &CommandRunner) -> Option<MemoryReport> {
    let answers = ask(runner, cmd("INFO").arg("memory")).await?;
    Some(
        answers
            .iter()
            .map(|answer| from_redis_value::<String>(answer.clone()).ok())
            .fold(MemoryReport::default(), |memory, text| memory.with(text.as_deref())),
    )
}

impl MemoryReport {
    /// Adds one master's `INFO memory`; `None` stands for a refused question.
    fn with(mut self, info: Option<&str>) -> Self {
        let read = info.map(fields).unwrap_or_default();
        let number = |key: &str| read.get(key).and_then(|number| number.parse::<u64>().ok());
        let told = number("used_memory").zip(number("maxmemory")).zip(read.get("maxmemory_policy"));
        let issue = match told {
            Some(((used, limit), policy)) => {
                let usage = MemoryUsage { used, limit: (limit > 0).then_some(limit) };
                let fullest = self.usage.is_none_or(|most| (most.share(), most.used) < (usage.share(), used));
                self.usage = if fullest { Some(usage) } else { self.usage };
                (*policy != "noeviction").then(|| HealthIssue::Evicts { policy: (*policy).to_owned() })
            }
            None => Some(HealthIssue::NotAllowed),
        };
        self.issues.extend(issue.filter(|issue| !self.issues.contains(issue)));
        self
    }
}

/// Returns the problem of persistence on any master.
async fn persistence(runner: &CommandRunner) -> Option<HealthIssue> {
    let infos = ask(runner, cmd("INFO").arg("persistence")).await?;
    let appends = |answer: &Value| {
        let text: String = from_redis_value(answer.clone()).ok()?;
        fields(&text).get("aof_enabled").map(|enabled| *enabled == "1")
    };
    let appends: Vec<Option<bool>> = infos.iter().map(appends).collect();
    if appends.iter().all(|appends| *appends == Some(true)) {
        return None;
    }
    let saves = ask(runner, cmd("CONFIG").arg("GET").arg("save")).await?;
    let saves = saves.iter().map(|answer| {
        let settings: HashMap<String, String> = from_redis_value(answer.clone()).ok()?;
        settings.get("save").map(|points| !points.trim().is_empty())
    });
    // Nodes answer in no order. A cluster with both kinds of persistence therefore counts as not persistent.
    let saves: Vec<Option<bool>> = saves.collect();
    if saves.iter().all(|saves| *saves == Some(true)) {
        None
    } else if saves.is_empty() || saves.contains(&None) {
        Some(HealthIssue::NotAllowed)
    } else {
        Some(HealthIssue::NotPersistent)
    }
}

/// Returns every master's answer: [`Value::Nil`] if the question is not allowed, `None` if Redis cannot be reached.
async fn ask(runner: &CommandRunner, cmd: &Cmd) -> Option<Vec<Value>> {
    match runner.on_masters(cmd).await {
        Ok(answers) => Some(answers),
        // A command unknown to Redis was renamed or removed.
        Err(StoreError::Unavailable(StoreRefusal::NotAllowed | StoreRefusal::Unexpected)) => {
            Some(vec![Value::Nil])
        }
        Err(_) => None,
    }
}

/// Returns the `key:value` lines of an `INFO`.
fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}
