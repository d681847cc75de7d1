//! The store on Redis.
//!
//! Each operation of the contract is one script on keys of one hash tag (`keys`, `scripts`), so that it happens as
//! a whole and on one server of a cluster. Scripts move bytes and count; what the bytes mean is known here
//! (`codec`). What it does not know: how Redis is reached, and what its refusals mean (`wire`).

mod accept;
mod answer;
mod codec;
mod connect;
mod deliveries;
mod fleet;
mod health;
mod hint;
mod keys;
mod lease;
mod line;
mod listener;
mod migrate;
mod observe;
mod outbox;
mod read;
mod refusal;
mod script;
mod scripts;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic;
mod wire;
mod write;

use std::sync::Arc;
#[cfg(feature = "test-support")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::answer::Answer;
use self::keys::Keys;
use self::script::Call;
use crate::config::{self, StoreUrl};
use crate::store::{Incarnation, StoreError};

pub use health::{HealthIssue, MemoryUsage, RedisHealth};
pub use listener::HintListener;
pub use migrate::{MigrateError, MigrationReport, PrepareError};

/// Why the store could not be set up. Nothing was connected to yet.
#[derive(Debug, thiserror::Error)]
pub enum RedisSetupError {
    /// The address or what belongs to it cannot be used.
    #[error("store.url cannot be used")]
    Url(#[source] deadpool_redis::redis::RedisError),
    /// The store is not on Redis.
    #[error("store.url does not name Redis")]
    NotRedis,
}

/// The store on Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: wire::Wire,
    keys: Keys,
    message_ttl: Duration,
    vitals: health::Vitals,
    #[cfg(feature = "test-support")]
    skew: AtomicU64,
}

impl RedisStore {
    /// The store that the configuration names. Connects with the first operation.
    ///
    /// # Errors
    /// [`RedisSetupError`].
    pub fn new(options: &config::StoreConfig) -> Result<Self, RedisSetupError> {
        let StoreUrl::Redis(servers) = &options.url else { return Err(RedisSetupError::NotRedis) };
        Ok(Self(Arc::new(Inner {
            wire: wire::Wire::new(servers, options)?,
            keys: Keys::new(&options.key_prefix),
            message_ttl: options.message_ttl,
            vitals: health::Vitals::default(),
            #[cfg(feature = "test-support")]
            skew: AtomicU64::new(0),
        })))
    }

    /// Sets the store's clock ahead of the server's. Keys still expire by the server's clock (docs/adr/0019).
    #[cfg(feature = "test-support")]
    pub fn skew(&self, by: Duration) {
        self.0.skew.store(millis(by), Ordering::Relaxed);
    }

    /// What is known of Redis, as of the last [`RedisStore::tend`].
    pub fn health(&self) -> RedisHealth {
        self.0.vitals.health()
    }

    /// Looks how Redis is doing; to be called once a second or so.
    pub async fn tend(&self) {
        self.0.vitals.look(&self.0.wire).await;
    }

    #[cfg(test)]
    fn traffic(&self) -> traffic::Traffic {
        self.0.wire.traffic()
    }

    pub(in crate::store) fn listen(&self, incarnation: Incarnation) -> HintListener {
        let wire = &self.0.wire;
        HintListener::new(Arc::clone(wire.connector()), self.0.keys.prefix(), incarnation, wire.timeout())
    }

    async fn run(&self, call: Call<'_>) -> Result<Answer, StoreError> {
        #[cfg(feature = "test-support")]
        let call = call.arg(self.0.skew.load(Ordering::Relaxed));
        Ok(Answer::read(self.0.wire.run(call).await?)?)
    }
}

/// A span as scripts take it.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
