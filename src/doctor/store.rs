//! The store: its kind, version, rights, settings, schema and latency.

use std::time::Duration;

use tokio::time::Instant;

use super::{CheckStage, DoctorReport, advice};
use crate::config::{RedisTopology, StoreConfig, StoreUrl};
use crate::store::{MigrationReport, RedisStore, StoreError, StoreRefusal};
use crate::wall_clock;

/// The number of round trips that the latency is the middle of.
const ROUND_TRIPS: usize = 5;
/// The latency from which on turns become slow.
const LATENCY_WARNING: Duration = Duration::from_millis(20);
/// The seconds from which a difference of the clocks is a warning.
const CLOCK_WARNING: f64 = 10.0;

/// Examines the store of a configuration.
pub(super) async fn examine(options: &StoreConfig, report: &mut DoctorReport) {
    let StoreUrl::Redis(servers) = &options.url else {
        report.ok(
            CheckStage::Store,
            "",
            "memory://: this process keeps all messages, and loses them at its end",
        );
        return;
    };
    let kind = match &servers.topology {
        RedisTopology::Alone(_) => "a single server",
        RedisTopology::Sentinel { .. } => "a master with sentinels",
        RedisTopology::Cluster(_) => "a cluster",
    };
    let store = match RedisStore::new(options) {
        Ok(store) => store,
        Err(error) => {
            report.failed(CheckStage::Store, "redis", error.to_string(), "correct store.url");
            return;
        }
    };
    match store.survey().await {
        Ok(survey) => {
            let version = survey.version.as_deref().unwrap_or("unknown");
            report.ok(CheckStage::Store, "redis", format!("{kind}, version {version}"));
            if survey.missing_rights.is_empty() {
                report.ok(CheckStage::Store, "redis", "the user has all rights that it needs");
            } else {
                let missing = survey.missing_rights.join(" ");
                let message = format!("the user lacks rights: {missing}");
                report.failed(CheckStage::Store, "redis", message, format!("ACL SETUSER USER {missing}"));
            }
        }
        Err(error) => {
            examine_failure(options, error, report).await;
            return;
        }
    }
    examine_latency(&store, report).await;
    examine_settings(&store, report).await;
    examine_schema(&store, report).await;
}

async fn examine_failure(options: &StoreConfig, error: StoreError, report: &mut DoctorReport) {
    if let Some(mismatch) = RedisStore::kind_mismatch(options).await {
        report.failed(CheckStage::Store, "redis", mismatch.to_string(), "correct store.url");
        return;
    }
    let next = match error {
        StoreError::Unavailable(StoreRefusal::NotAllowed | StoreRefusal::NoChannels) => {
            "check store.username and store.password_file, store.ca_file, and give the user the rights in \
             docs/operations.md (ACL SETUSER)"
        }
        StoreError::Unavailable(StoreRefusal::ReadOnly) => "name the master in store.url, or its sentinels",
        _ => {
            "start the server of store.url, let firewalls pass it, and check host, port and scheme (rediss for TLS)"
        }
    };
    report.failed(CheckStage::Store, "redis", error.to_string(), next);
}

async fn examine_latency(store: &RedisStore, report: &mut DoctorReport) {
    let mut spans = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let (sent, began) = (wall_clock::now(), Instant::now());
        let Ok(now) = store.server_time().await else { return };
        spans.push((began.elapsed(), sent, now));
    }
    spans.sort_by_key(|(span, ..)| *span);
    let Some((span, sent, now)) = spans.get(ROUND_TRIPS / 2) else { return };
    let message = format!("an operation takes {:.1} ms", span.as_secs_f64() * 1000.0);
    if *span >= LATENCY_WARNING {
        report.warning(
            CheckStage::Store,
            "redis",
            message,
            "put Redis nearer to the bridge: each turn takes two operations",
        );
    } else {
        report.ok(CheckStage::Store, "redis", message);
    }
    let ahead = now.since(*sent).as_secs_f64() - sent.since(*now).as_secs_f64();
    let message = advice::clock_words("Redis", ahead);
    if ahead.abs() >= CLOCK_WARNING {
        report.warning(
            CheckStage::Clock,
            "redis",
            message,
            "correct the clock of this machine or of Redis (NTP)",
        );
    } else {
        report.ok(CheckStage::Clock, "redis", message);
    }
}

async fn examine_settings(store: &RedisStore, report: &mut DoctorReport) {
    store.check_health().await;
    let health = store.health();
    if let Some(memory) = health.memory {
        let used = memory.used >> 20;
        let message = match memory.limit {
            Some(limit) => format!("{used} MiB of {} MiB are used", limit >> 20),
            None => format!("{used} MiB are used, without a limit"),
        };
        match memory.limit {
            _ if memory.is_full() => {
                let next = "give Redis more memory: new messages are refused above 90 %";
                report.failed(CheckStage::Store, "redis", message, next);
            }
            Some(_) => report.ok(CheckStage::Store, "redis", message),
            None => report.warning(CheckStage::Store, "redis", message, "set maxmemory, and alert on it"),
        }
    }
    if health.warnings.is_empty() && health.memory.is_some() {
        report.ok(CheckStage::Store, "redis", "nothing is evicted, and a restart keeps the data");
    }
    for issue in &health.warnings {
        report.warning(
            CheckStage::Store,
            "redis",
            issue.to_string(),
            "see \"What survives\" in docs/operations.md",
        );
    }
}

async fn examine_schema(store: &RedisStore, report: &mut DoctorReport) {
    match store.migrate(true).await {
        Ok(MigrationReport::Missing(missing)) if missing.is_complete() => {
            report.ok(CheckStage::Store, "redis", "the store is empty; serve sets it up");
        }
        Ok(MigrationReport::Missing(missing)) => {
            let message = format!("the schema lacks migrations of this version ({missing})");
            report.failed(CheckStage::Store, "redis", message, "rtm-bridge migrate --config FILE");
        }
        Ok(_) => report.ok(CheckStage::Store, "redis", "the schema is that of this version"),
        Err(error) => {
            let next = "run the version that set the store up, or take another store.key_prefix";
            report.failed(CheckStage::Store, "redis", error.to_string(), next);
        }
    }
}
