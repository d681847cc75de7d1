//! The erasure of a conversation: a message of its lane asks the owner for it.

use std::time::Duration;

use super::{Hub, HubError};
use crate::domain::ConversationId;
use crate::store::{AcceptRequest, StoreError};

impl Hub {
    /// Has the owner of a conversation erase it, and waits until that is done. `accept` is a message that asks for it
    /// ([`SessionRequest::Erase`](crate::domain::SessionRequest::Erase)).
    ///
    /// # Errors
    /// [`HubError`]; after [`HubError::Store`] and [`HubError::Lost`] the request may be carried out later.
    pub async fn erase(&self, accept: AcceptRequest, wait: Duration) -> Result<(), HubError> {
        let conversation = accept.message.conversation.clone();
        match self.post(accept, Some(wait)).await {
            // The message is gone with the conversation.
            Err(HubError::Erased) => Ok(()),
            // The hint of it was lost, or the store lost the message alone.
            Err(HubError::Lost) if self.is_unknown(&conversation).await? => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(StoreError::Unknown(wait).into()),
        }
    }

    /// Returns whether the store knows nothing of a conversation.
    pub(super) async fn is_unknown(&self, conversation: &ConversationId) -> Result<bool, StoreError> {
        let (state, _) = self.store.state(conversation, self.incarnation(), 0).await?;
        Ok(state.last_activity_at.is_none() && state.open_messages == 0)
    }
}
