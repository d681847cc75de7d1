//! The erasure of a conversation: a message of its lane asks the owner for it.

use std::time::Duration;

use futures_util::future::join_all;
use tracing::debug;

use super::shard::ShardCommand;
use super::{Hub, HubError};
use crate::domain::ConversationId;
use crate::store::{AcceptRequest, Hint, StoreError};

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
            Err(HubError::Erased) => {}
            // The hint of it was lost, or the store lost the message alone.
            Err(HubError::Lost) if self.is_unknown(&conversation).await? => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(StoreError::Unknown(wait).into()),
        }
        self.forget_user(conversation).await;
        Ok(())
    }

    /// Has the shards of all replicas forget what they keep of a user beside the conversation: the grants of uploads.
    async fn forget_user(&self, conversation: ConversationId) {
        let hint = Hint::UserErased(conversation);
        for shard in 0..self.shards.len() {
            if let Err(error) = self.send_to_shard(shard, ShardCommand::Hint(hint.clone())).await {
                debug!(%error, "a shard keeps the grant of an erased user");
            }
        }
        let others = self.fleet.borrow().clone();
        let others = others.iter().filter(|replica| replica.incarnation != self.incarnation());
        let hinted = others.map(async |replica| {
            if let Err(error) = self.store.hint(replica.incarnation, &hint).await {
                debug!(%error, "a replica keeps the grant of an erased user");
            }
        });
        join_all(hinted).await;
    }

    /// Returns whether the store knows nothing of a conversation.
    pub(super) async fn is_unknown(&self, conversation: &ConversationId) -> Result<bool, StoreError> {
        let (state, _) = self.store.state(conversation, self.incarnation(), 0).await?;
        Ok(state.last_activity_at.is_none() && state.open_messages == 0)
    }
}
