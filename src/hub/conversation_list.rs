//! The conversations of the store's index, with the status that only their owners know.
//!
//! The index comes from the store. One hint then asks each owner for all its conversations of the page, and the answers
//! have a second together. A conversation without an answer keeps the default status, with a reason.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::shard::{ListQuery, ShardCommand};
use super::{Hub, HubError};
use crate::domain::{ConnectionStatus, ConversationId, Partition};
use crate::store::{
    ConversationPage, ConversationPlace, ConversationQuery, ConversationSummary, Incarnation, ReplicaIdentity,
};

/// A conversation of the index with its status.
#[derive(Debug, Clone)]
pub struct ListedConversation {
    /// The content of the index.
    pub summary: ConversationSummary,
    /// The status of its connection.
    pub connection: ConnectionStatus,
    /// The name of the replica that owns it; `None` without a live owner.
    pub owner: Option<Box<str>>,
}

impl Hub {
    /// Returns a page of conversations, and the place of the next one. Owners have a second to report the connections.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub async fn conversations(
        &self,
        query: &ConversationQuery,
    ) -> Result<(Vec<ListedConversation>, Option<ConversationPlace>), HubError> {
        let ConversationPage { conversations, next } = self.store.conversations(query).await?;
        let mut connections = self.connections(&conversations).await;
        let fleet = self.fleet.borrow().clone();
        let listed = conversations.into_iter().map(|summary| {
            let connection = connections.remove(&summary.conversation).unwrap_or_else(|| ConnectionStatus {
                reason: Some(missing(summary.owner).into()),
                ..ConnectionStatus::default()
            });
            let owner = summary.owner.and_then(|owner| Self::name(&fleet, owner));
            ListedConversation { summary, connection, owner }
        });
        Ok((listed.collect(), next))
    }

    /// Asks the owners of these conversations for their connections.
    async fn connections(
        &self,
        conversations: &[ConversationSummary],
    ) -> HashMap<ConversationId, ConnectionStatus> {
        let mut of_shards: BTreeMap<usize, Vec<(ConversationId, Incarnation)>> = BTreeMap::new();
        for ConversationSummary { conversation, owner, .. } in conversations {
            if let Some(owner) = owner {
                let shard = self.leases.shard(Partition::of(conversation));
                of_shards.entry(shard).or_default().push((conversation.clone(), *owner));
            }
        }
        let asked = of_shards.into_iter().map(async |(shard, conversations)| {
            let (answer, answered) = oneshot::channel();
            let command = ShardCommand::QueryList(ListQuery { conversations, answer });
            match self.send_to_shard(shard, command).await {
                Ok(()) => answered.await.unwrap_or_default(),
                Err(_) => Vec::new(),
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn name(fleet: &[ReplicaIdentity], owner: Incarnation) -> Option<Box<str>> {
        fleet.iter().find(|replica| replica.incarnation == owner).map(|replica| replica.name.clone())
    }
}

/// Returns the reason why the status of a conversation is missing.
const fn missing(owner: Option<Incarnation>) -> &'static str {
    match owner {
        None => "no replica owns the conversation at the moment; a failover takes seconds",
        Some(_) => "the owner of the conversation did not answer",
    }
}
