//! The store on Redis.
//!
//! Each operation of the contract is one script on keys of one hash tag (`key_names`, `scripts`). It is therefore
//! atomic and runs on one server of a cluster. Scripts move bytes and count; `codec` knows what the bytes mean.
//! `command_runner` knows how Redis is reached and what its errors mean.

mod accept;
mod codec;
mod command_runner;
mod connector;
mod conversation_index;
mod deliveries;
mod endpoint_state;
mod erasure;
mod error_policy;
mod fleet;
mod health;
mod hint_codec;
mod hint_listener;
mod journal_page;
mod key_names;
mod kind_mismatch;
mod lease;
mod netstring;
mod outbox;
mod owner_cache;
mod partition_merge;
mod read;
mod recent_deliveries;
mod rhythm;
mod schema_migrator;
mod script;
mod script_answer;
mod scripts;
mod shared_callers;
mod survey;
#[cfg(test)]
mod tests;
mod thread_connection;
#[cfg(test)]
mod traffic;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
#[cfg(feature = "test-support")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::Value;
use tokio::sync::Semaphore;

use self::codec::CorruptData;
use self::key_names::KeyNames;
use self::owner_cache::OwnerCache;
use self::recent_deliveries::RecentDeliveries;
use self::script::ScriptCall;
use self::script_answer::ScriptAnswer;
use crate::config::{self, StoreUrl};
use crate::store::{Incarnation, StoreError};

pub use health::{HealthIssue, MemoryUsage, RedisHealth};
pub use hint_listener::HintListener;
pub use kind_mismatch::KindMismatch;
pub use schema_migrator::{MigrateError, MigrationReport, PrepareError};
pub use survey::RedisSurvey;

/// The reason why the store could not be set up. No connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum RedisSetupError {
    /// The address or its settings are invalid.
    #[error("store.url cannot be used")]
    Url(#[source] deadpool_redis::redis::RedisError),
    /// The store is not on Redis.
    #[error("store.url does not name Redis")]
    NotRedis,
}

/// The number of calls at the same time that read pages of journals.
const PAGE_CALLS: usize = 2;

/// The store on Redis. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisStore(Arc<RedisInner>);

#[derive(Debug)]
struct RedisInner {
    runner: command_runner::CommandRunner,
    keys: KeyNames,
    message_ttl: Duration,
    health: health::HealthMonitor,
    cache: Arc<OwnerCache>,
    recent: RecentDeliveries,
    /// Places for calls that read pages of journals.
    page_calls: Semaphore,
    /// Deliveries that succeeded at their first attempt.
    successes: AtomicU32,
    /// Whether Redis refuses the subscription to hints.
    deafened: Arc<AtomicBool>,
    #[cfg(feature = "test-support")]
    skew: AtomicU64,
}

impl RedisStore {
    /// Creates the store of the configuration. The first operation connects.
    ///
    /// # Errors
    /// [`RedisSetupError`].
    pub fn new(options: &config::StoreConfig) -> Result<Self, RedisSetupError> {
        let StoreUrl::Redis(servers) = &options.url else { return Err(RedisSetupError::NotRedis) };
        Ok(Self(Arc::new(RedisInner {
            runner: command_runner::CommandRunner::new(servers, options)?,
            keys: KeyNames::new(&options.key_prefix),
            message_ttl: options.message_ttl,
            health: health::HealthMonitor::default(),
            cache: Arc::new(OwnerCache::new()),
            recent: RecentDeliveries::new(),
            page_calls: Semaphore::new(PAGE_CALLS),
            successes: AtomicU32::new(0),
            deafened: Arc::default(),
            #[cfg(feature = "test-support")]
            skew: AtomicU64::new(0),
        })))
    }

    /// Returns whether the servers are of another kind than the URL of this configuration says. It explains failures, so it
    /// is asked after one.
    pub async fn kind_mismatch(options: &config::StoreConfig) -> Option<KindMismatch> {
        kind_mismatch::mismatch(options).await
    }

    /// Sets the store's clock ahead of the server's. Keys still expire by the server's clock (docs/adr/0019).
    #[cfg(feature = "test-support")]
    pub fn skew(&self, by: Duration) {
        self.0.skew.store(millis(by), Ordering::Relaxed);
        self.0.cache.forget_time();
    }

    /// Returns the health of Redis at the last [`RedisStore::check_health`].
    pub fn health(&self) -> RedisHealth {
        self.0.health.health()
    }

    /// Looks at the health of Redis. It runs about once a second.
    pub async fn check_health(&self) {
        self.0.health.check(&self.0.runner).await;
    }

    #[cfg(test)]
    fn traffic(&self) -> traffic::Traffic {
        self.0.runner.traffic()
    }

    pub(in crate::store) fn listen(&self, incarnation: Incarnation) -> HintListener {
        let runner = &self.0.runner;
        HintListener::new(
            Arc::clone(runner.connector()),
            self.0.keys.prefix(),
            incarnation,
            runner.timeout(),
            Arc::clone(&self.0.cache),
            Arc::clone(&self.0.deafened),
        )
    }

    /// Runs `guard.lua`. Returns whether the commands were carried out.
    async fn run_guarded(&self, call: ScriptCall<'_>) -> Result<bool, StoreError> {
        Ok(self.run_prepared(call).await? == 1)
    }

    /// Runs a script that answers a number; 0 means that nothing changed.
    async fn run_prepared(&self, call: ScriptCall<'_>) -> Result<i64, StoreError> {
        match self.0.runner.run(call).await? {
            Value::Int(done) => Ok(done),
            _ => Err(CorruptData("the answer of the guard").into()),
        }
    }

    /// Returns the lifetime of the list with a journal. It also holds the replies of its messages.
    fn journal_ttl(&self) -> u64 {
        millis(self.0.message_ttl.max(JOURNAL_TTL))
    }

    async fn run(&self, call: ScriptCall<'_>) -> Result<ScriptAnswer, StoreError> {
        #[cfg(feature = "test-support")]
        let call = call.arg(self.0.skew.load(Ordering::Relaxed));
        let answer = ScriptAnswer::read(self.0.runner.run(call).await?)?;
        self.0.cache.observe(answer.now());
        Ok(answer)
    }
}

/// The lifetime of a journal after its last entry, as in `limits.lua`.
const JOURNAL_TTL: Duration = Duration::from_hours(24);

/// Returns a span in milliseconds, as scripts take it.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
