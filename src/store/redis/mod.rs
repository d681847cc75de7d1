//! The store on Redis.

mod connect;
mod health;
mod hint;
mod line;
mod listener;
mod refusal;
mod script;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub use health::{Concern, Health, Usage};
pub use listener::Listener;
pub use wire::Traffic;

use crate::config::{self, StoreUrl};
use crate::domain::{BotName, ConversationId, Entry, Message, MessageId, Partition, Timestamp};
use crate::store::{
    Accept, AcceptError, Accepted, Claim, Claiming, Fence, Fleet, Heartbeat, Incarnation, Open, Permit,
    Refusal, StoreError, Write, Written,
};

/// Why the store could not be set up. Nothing was connected to yet.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address or what belongs to it cannot be used.
    #[error("store.url cannot be used")]
    Url(#[source] deadpool_redis::redis::RedisError),
    /// The store is not on Redis.
    #[error("store.url does not name Redis")]
    NotRedis,
}

/// The store on Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redis {
    wire: Arc<wire::Wire>,
    vitals: Arc<health::Vitals>,
    prefix: Arc<str>,
}

const AWAY: StoreError = StoreError::Unavailable(Refusal::Unreachable);

#[expect(clippy::unused_async, reason = "to be built")]
#[expect(clippy::missing_errors_doc, reason = "see Store")]
#[expect(missing_docs, reason = "see Store")]
impl Redis {
    /// The store that the configuration names. Connects with the first operation.
    pub fn new(options: &config::Store) -> Result<Self, SetupError> {
        let StoreUrl::Redis(servers) = &options.url else { return Err(SetupError::NotRedis) };
        Ok(Self {
            wire: Arc::new(wire::Wire::new(servers, options)?),
            vitals: Arc::default(),
            prefix: options.key_prefix.as_str().into(),
        })
    }

    /// What is known of Redis, as of the last [`Redis::tend`].
    pub fn health(&self) -> Health {
        self.vitals.health()
    }

    /// Looks how Redis is doing; to be called once a second or so.
    pub async fn tend(&self) {
        self.vitals.look(&self.wire).await;
    }

    /// Whether nothing new should be accepted, so that what was accepted can end: more than 90 % of Redis' memory
    /// is used, as of the last [`Redis::tend`].
    pub fn is_full(&self) -> bool {
        self.vitals.is_full()
    }

    /// What was sent so far.
    pub fn traffic(&self) -> Traffic {
        self.wire.traffic()
    }
    pub async fn accept(&self, _accept: Accept) -> Result<Accepted, AcceptError> {
        let _ = &self.wire;
        Err(AWAY.into())
    }
    pub async fn message(
        &self,
        _conversation: &ConversationId,
        _id: MessageId,
        _watcher: Option<Incarnation>,
    ) -> Result<Option<Message>, StoreError> {
        Err(AWAY)
    }
    pub async fn claim(
        &self,
        _partition: Partition,
        _incarnation: Incarnation,
        _lease: Duration,
        _claiming: Claiming,
    ) -> Result<Claim, StoreError> {
        Err(AWAY)
    }
    pub async fn renew(
        &self,
        _partition: Partition,
        _fence: Fence,
        _lease: Duration,
    ) -> Result<Timestamp, StoreError> {
        Err(AWAY)
    }
    pub async fn release(&self, _partition: Partition, _fence: Fence) -> Result<(), StoreError> {
        Err(AWAY)
    }
    pub async fn ready(
        &self,
        _partition: Partition,
        _fence: Fence,
        _warm: bool,
    ) -> Result<Vec<ConversationId>, StoreError> {
        Err(AWAY)
    }
    pub async fn open(
        &self,
        _fence: Fence,
        _conversation: &ConversationId,
    ) -> Result<(Open, Timestamp), StoreError> {
        Err(AWAY)
    }
    pub async fn write(
        &self,
        _fence: Fence,
        _conversation: &ConversationId,
        _write: &Write,
    ) -> Result<Written, StoreError> {
        Err(AWAY)
    }
    pub async fn journal(
        &self,
        _conversation: &ConversationId,
        _after: u64,
        _limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        Err(AWAY)
    }
    pub async fn heartbeat(&self, _heartbeat: &Heartbeat) -> Result<Fleet, StoreError> {
        Err(AWAY)
    }
    pub async fn leave(&self, _incarnation: Incarnation) -> Result<(), StoreError> {
        Err(AWAY)
    }
    pub async fn permit(&self, _bot: &BotName, _limit: u32, _token: u64) -> Result<Permit, StoreError> {
        Err(AWAY)
    }
    pub fn listen(&self, incarnation: Incarnation) -> Listener {
        let wire = &self.wire;
        Listener::new(Arc::clone(wire.connector()), &self.prefix, incarnation, wire.timeout())
    }
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        Err(AWAY)
    }
}
