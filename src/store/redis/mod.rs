//! The store on Redis.

mod migrate;
mod script;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::domain::{BotName, ConversationId, Entry, Message, MessageId, Partition, Timestamp};
use crate::store::{
    Accept, AcceptError, Accepted, Claim, Claiming, Fence, Fleet, Heartbeat, Hint, Incarnation, Open, Permit,
    Refusal, StoreError, Write, Written,
};

pub use migrate::{MigrateError, PrepareError, Report};

/// Why the store could not be set up. Nothing was connected to yet.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address or what belongs to it cannot be used.
    #[error("store.url cannot be used")]
    Url(#[source] deadpool_redis::redis::RedisError),
}

/// The store on Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redis {
    wire: Arc<wire::Wire>,
    prefix: Arc<str>,
}

const AWAY: StoreError = StoreError::Unavailable(Refusal::Unreachable);

#[expect(clippy::unused_async, reason = "to be built")]
#[expect(clippy::missing_errors_doc, reason = "see Store")]
#[expect(missing_docs, reason = "see Store")]
impl Redis {
    /// The store that the configuration names. Connects with the first operation.
    pub fn new(options: &config::Store) -> Result<Self, SetupError> {
        let url = match &options.url {
            config::StoreUrl::Redis(config::RedisServers {
                topology: config::Topology::Alone(address),
                database,
                ..
            }) => format!("redis://{}:{}/{database}", address.host, address.port),
            _ => "redis://127.0.0.1:6379".to_owned(),
        };
        let wire = wire::Wire::new(&url, options.command_timeout)?;
        Ok(Self { wire: Arc::new(wire), prefix: options.key_prefix.as_str().into() })
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
        Listener { incarnation }
    }
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        Err(AWAY)
    }
}

/// The hints of one replica.
#[derive(Debug)]
pub struct Listener {
    incarnation: Incarnation,
}

impl Listener {
    /// The next hint.
    pub async fn next(&mut self) -> Hint {
        let _ = self.incarnation;
        std::future::pending().await
    }
}
