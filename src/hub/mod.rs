//! The hub: where HTTP hands over a message and waits for its end.
//!
//! It knows which shard thread holds a conversation, wakes it, and keeps who waits for what. It does not know
//! HTTP and not the platform.

use std::time::Duration;

use crate::domain::{ConversationId, Message, MessageId};
use crate::store::{Accept, AcceptError, StoreError};

/// A message as it stood when the wait was over.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The message.
    pub message: Message,
    /// Whether it was accepted earlier, under the same idempotency key.
    pub replayed: bool,
}

/// Why the hub could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The replica is going away; nothing was accepted.
    #[error("this replica is shutting down")]
    Draining,
    /// The replica is at its limit; nothing was accepted.
    #[error("this replica is at its limit: {0}")]
    Overloaded(&'static str),
    /// The message was refused.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store lost the message that was waited for.
    #[error("the store lost the message")]
    Lost,
}

/// A handle to all shards. Cheap to clone; shared by every HTTP worker.
#[derive(Clone, Debug)]
pub struct Hub {}

impl Hub {
    /// Accepts a message and waits for its end, `wait` at most; without one it returns as soon as the message
    /// is durable.
    ///
    /// # Errors
    /// [`HubError`]; only [`HubError::Lost`] and [`HubError::Store`] can come after the message was accepted.
    #[expect(clippy::unused_async, reason = "placeholder")]
    pub async fn post(&self, _accept: Accept, _wait: Option<Duration>) -> Result<Posted, HubError> {
        Err(HubError::Draining)
    }

    /// A message as it stands, or when it ends within `wait`.
    ///
    /// # Errors
    /// [`HubError::Store`].
    #[expect(clippy::unused_async, reason = "placeholder")]
    pub async fn message(
        &self,
        _conversation: &ConversationId,
        _id: MessageId,
        _wait: Option<Duration>,
    ) -> Result<Option<Message>, HubError> {
        Err(HubError::Draining)
    }
}
