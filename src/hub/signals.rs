//! Signals of users to the owners of their conversations.

use super::shard::ShardCommand;
use super::{Hub, HubError};
use crate::domain::{ConversationId, Partition, UserSignal};

impl Hub {
    /// Hands a signal to the owner of the conversation. It may be lost from there on.
    ///
    /// # Errors
    /// [`HubError::Unowned`], [`HubError::Store`], [`HubError::Overloaded`], [`HubError::Draining`]. The signal is lost then.
    pub async fn signal(&self, conversation: &ConversationId, signal: UserSignal) -> Result<(), HubError> {
        if self.leases.ownership(Partition::of(conversation)).fence().is_some() {
            let command = ShardCommand::Signal(conversation.clone(), signal);
            return self.send_command(conversation, command).await;
        }
        if self.store.signal(conversation, &signal).await? { Ok(()) } else { Err(HubError::Unowned) }
    }
}
