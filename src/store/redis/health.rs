//! How Redis is doing: whether it is set up so that nothing accepted gets lost, and how full it is.
//!
//! None of it makes a replica unready: it would not become better by that. It is logged when it is first seen, and
//! shown in `/readyz`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value, cmd, from_redis_value};

use tokio::time::Instant;

use super::wire::Wire;
use crate::store::{StoreError, StoreRefusal};

/// How often the settings are looked at; memory is each time.
const SETTINGS_EVERY: Duration = Duration::from_mins(1);

/// What is known of Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisHealth {
    /// The memory of the fullest master; none until it is known.
    pub memory: Option<MemoryUsage>,
    /// What an operator should change.
    pub warnings: Vec<HealthIssue>,
}

/// A master's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Bytes that are used.
    pub used: u64,
    /// Bytes that may be used; none where there is no limit.
    pub limit: Option<u64>,
}

impl MemoryUsage {
    /// Used of the limit, in thousandths; 0 where there is no limit.
    fn share(self) -> u64 {
        self.limit.map_or(0, |limit| self.used.saturating_mul(1000) / limit.max(1))
    }

    /// More than 90 % of the limit: what is left is for settling what was accepted.
    pub fn is_full(self) -> bool {
        self.share() > 900
    }
}

/// What an operator should change about Redis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HealthIssue {
    /// It throws away data when its memory is full.
    Evicts {
        /// Its `maxmemory-policy`.
        policy: String,
    },
    /// It keeps nothing over a restart.
    NotPersistent,
    /// It does not tell whether the above is so.
    Untold,
}

impl fmt::Display for HealthIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts { policy } => write!(
                f,
                "maxmemory-policy is {policy}: accepted messages may be thrown away; set it to noeviction"
            ),
            Self::NotPersistent => f.write_str(
                "neither appendonly nor save is on: a restart of Redis loses accepted messages; set appendonly yes",
            ),
            Self::Untold => f.write_str(
                "INFO or CONFIG GET is not allowed: whether Redis evicts, persists or is full is not known; \
                 allow +info and +config|get",
            ),
        }
    }
}

/// Looks after what is known of Redis.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    full: Arc<AtomicBool>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    health: RedisHealth,
    /// Of persistence, as of the last look.
    persistence: Option<HealthIssue>,
    looked: Option<Instant>,
}

impl Vitals {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As of the last look.
    pub(super) fn health(&self) -> RedisHealth {
        self.known().health.clone()
    }

    #[cfg(test)]
    pub(super) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Whether nothing new should be accepted, as of the last look.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Looks. Where Redis is away, what was known stays.
    pub(super) async fn look(&self, wire: &Wire) {
        let Some(memory) = memory(wire).await else { return };
        let due = self.known().looked.is_none_or(|looked| looked.elapsed() >= SETTINGS_EVERY);
        let persistence = if due { Some(persistence(wire).await) } else { None };

        let mut known = self.known();
        if let Some(persistence) = persistence {
            known.persistence = persistence;
            known.looked = Some(Instant::now());
        }
        let mut warnings = memory.concerns;
        warnings.extend(known.persistence.clone().filter(|concern| !warnings.contains(concern)));
        for concern in warnings.iter().filter(|concern| !known.health.warnings.contains(concern)) {
            tracing::warn!("Redis: {concern}");
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
struct Memory {
    /// Of the fullest.
    usage: Option<MemoryUsage>,
    concerns: Vec<HealthIssue>,
}

/// None where Redis is away.
async fn memory(wire: &Wire) -> Option<Memory> {
    let answers = ask(wire, cmd("INFO").arg("memory")).await?;
    Some(
        answers
            .iter()
            .map(|answer| from_redis_value::<String>(answer.clone()).ok())
            .fold(Memory::default(), |memory, text| memory.with(text.as_deref())),
    )
}

impl Memory {
    /// With one master's `INFO memory`; none where it does not tell.
    fn with(mut self, info: Option<&str>) -> Self {
        let read = info.map(fields).unwrap_or_default();
        let number = |key: &str| read.get(key).and_then(|number| number.parse::<u64>().ok());
        let told = number("used_memory").zip(number("maxmemory")).zip(read.get("maxmemory_policy"));
        let concern = match told {
            Some(((used, limit), policy)) => {
                let usage = MemoryUsage { used, limit: (limit > 0).then_some(limit) };
                let fullest = self.usage.is_none_or(|most| (most.share(), most.used) < (usage.share(), used));
                self.usage = if fullest { Some(usage) } else { self.usage };
                (*policy != "noeviction").then(|| HealthIssue::Evicts { policy: (*policy).to_owned() })
            }
            None => Some(HealthIssue::Untold),
        };
        self.concerns.extend(concern.filter(|concern| !self.concerns.contains(concern)));
        self
    }
}

/// What is wrong about persistence on any master.
async fn persistence(wire: &Wire) -> Option<HealthIssue> {
    let infos = ask(wire, cmd("INFO").arg("persistence")).await?;
    let appends = |answer: &Value| {
        let text: String = from_redis_value(answer.clone()).ok()?;
        fields(&text).get("aof_enabled").map(|enabled| *enabled == "1")
    };
    let appends: Vec<Option<bool>> = infos.iter().map(appends).collect();
    if appends.iter().all(|appends| *appends == Some(true)) {
        return None;
    }
    let saves = ask(wire, cmd("CONFIG").arg("GET").arg("save")).await?;
    let saves = saves.iter().map(|answer| {
        let settings: HashMap<String, String> = from_redis_value(answer.clone()).ok()?;
        settings.get("save").map(|points| !points.trim().is_empty())
    });
    // Nodes answer in no order, so a cluster in which some append and others save is taken for one that does not.
    let saves: Vec<Option<bool>> = saves.collect();
    if saves.iter().all(|saves| *saves == Some(true)) {
        None
    } else if saves.is_empty() || saves.contains(&None) {
        Some(HealthIssue::Untold)
    } else {
        Some(HealthIssue::NotPersistent)
    }
}

/// Every master's answer; empty where that is not allowed, none where Redis is away.
async fn ask(wire: &Wire, cmd: &Cmd) -> Option<Vec<Value>> {
    match wire.on_masters(cmd).await {
        Ok(answers) => Some(answers),
        // A command that Redis does not know was renamed or taken away.
        Err(StoreError::Unavailable(StoreRefusal::NotAllowed | StoreRefusal::Unexpected)) => {
            Some(vec![Value::Nil])
        }
        Err(_) => None,
    }
}

/// The `key:value` lines of an `INFO`.
fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}
