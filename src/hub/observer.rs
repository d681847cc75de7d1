//! Interim: an observer that looks every so often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::{Hub, HubError};
use crate::domain::{ConversationId, ConversationState, Live};

/// Someone who reads a conversation live. Dropping it ends the observing.
#[derive(Debug)]
pub struct Observer {
    draining: Arc<AtomicBool>,
}

impl Observer {
    /// What is to be looked at next; none where this reader was too slow, or the replica goes away.
    pub async fn next(&mut self) -> Option<Live> {
        sleep(Duration::from_millis(50)).await;
        if self.draining.load(Ordering::Relaxed) { None } else { Some(Live::Look) }
    }
}

impl Hub {
    /// Observes a conversation from now on.
    ///
    /// # Errors
    /// [`HubError::Draining`].
    #[expect(clippy::unused_async, reason = "interim")]
    pub async fn observe(&self, _conversation: &ConversationId) -> Result<Observer, HubError> {
        if self.is_draining() {
            return Err(HubError::Draining);
        }
        Ok(Observer { draining: Arc::clone(&self.draining) })
    }

    /// How a conversation stands.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub async fn state(&self, conversation: &ConversationId) -> Result<ConversationState, HubError> {
        Ok(self.store.state(conversation, self.incarnation(), 0).await?.0)
    }
}
