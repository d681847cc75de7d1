//! The subscribers to the conversations of one partition, on this replica and on others.
//!
//! The shard of the partition serves the subscribers of this replica, even if another one owns it. The owner
//! knows subscribers of other replicas by their replica, and sends chunks of streamed replies there. Such a note expires
//! unless that replica renews it. Hints at new entries come from the store itself.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::super::subscription::{PublishResult, Publisher};
use crate::domain::{ConversationId, ReplyChunk};
use crate::store::{Incarnation, OBSERVED};

/// Conversations of a partition that may have remote subscribers. Chunks of further conversations are not sent.
const MAX_REMOTE: usize = 4096;
/// Replicas that are noted for one conversation.
const MAX_REPLICAS: usize = 64;

/// The subscribers to one partition's conversations.
#[derive(Debug, Default)]
pub(super) struct SubscriberTable {
    local: HashMap<ConversationId, Vec<Publisher>>,
    remote: HashMap<ConversationId, Vec<(Incarnation, Instant)>>,
}

/// The number of subscribers that a signal reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PublishCount {
    pub(super) reached: u64,
    /// Subscriptions that were closed, because they were too slow.
    pub(super) closed: u64,
}

impl SubscriberTable {
    /// Adds a local subscriber.
    pub(super) fn add(&mut self, conversation: ConversationId, publisher: Publisher) {
        self.local.entry(conversation).or_insert_with(|| Vec::with_capacity(1)).push(publisher);
    }

    /// Has the local subscribers of a conversation look for new entries.
    pub(super) fn look(&mut self, conversation: &ConversationId) -> PublishCount {
        self.publish(conversation, Publisher::look)
    }

    /// Sends a chunk to the local subscribers of a conversation.
    pub(super) fn chunk(&mut self, conversation: &ConversationId, chunk: &Arc<ReplyChunk>) -> PublishCount {
        self.publish(conversation, |publisher| publisher.chunk(chunk))
    }

    /// Sends a frame that the journal does not keep to the local subscribers of a conversation.
    pub(super) fn platform(&mut self, conversation: &ConversationId, frame: &Arc<RawValue>) {
        self.publish(conversation, |publisher| publisher.platform(frame));
    }

    /// Has all local subscribers look for new entries.
    pub(super) fn look_all(&self) -> PublishCount {
        let looks = self.local.values().flatten().map(Publisher::look);
        let reached = looks.filter(|result| *result == PublishResult::Sent).count();
        PublishCount { reached: u64::try_from(reached).unwrap_or(u64::MAX), closed: 0 }
    }

    /// Returns the conversations with local subscribers.
    pub(super) fn conversations(&self) -> impl ExactSizeIterator<Item = &ConversationId> {
        self.local.keys()
    }

    /// Returns the number of local subscribers.
    pub(super) fn subscribers(&self) -> usize {
        self.local.values().map(Vec::len).sum()
    }

    /// Notes that another replica has subscribers of the conversation.
    pub(super) fn note_remote(&mut self, conversation: ConversationId, by: Incarnation, now: Instant) {
        if self.remote.len() >= MAX_REMOTE && !self.remote.contains_key(&conversation) {
            return;
        }
        let replicas = self.remote.entry(conversation).or_insert_with(|| Vec::with_capacity(1));
        let until = now + OBSERVED;
        if let Some((_, noted)) = replicas.iter_mut().find(|(replica, _)| *replica == by) {
            *noted = until;
        } else if replicas.len() < MAX_REPLICAS {
            replicas.push((by, until));
        }
    }

    /// Returns the other replicas with subscribers of the conversation.
    pub(super) fn remote_replicas(
        &self,
        conversation: &ConversationId,
        now: Instant,
    ) -> impl Iterator<Item = Incarnation> {
        let replicas = self.remote.get(conversation).into_iter().flatten();
        replicas.filter(move |(_, until)| now < *until).map(|(replica, _)| *replica)
    }

    /// Removes closed subscriptions and expired notes.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.local.retain(|_, publishers| {
            publishers.retain(|publisher| !publisher.is_closed());
            !publishers.is_empty()
        });
        self.remote.retain(|_, replicas| {
            replicas.retain(|(_, until)| now < *until);
            !replicas.is_empty()
        });
        shrink(&mut self.local);
        shrink(&mut self.remote);
    }

    /// Closes all local subscriptions.
    pub(super) fn close_all(&mut self) {
        self.local = HashMap::new();
    }

    fn publish(
        &mut self,
        conversation: &ConversationId,
        publish: impl Fn(&Publisher) -> PublishResult,
    ) -> PublishCount {
        let mut count = PublishCount::default();
        let Some(publishers) = self.local.get_mut(conversation) else { return count };
        publishers.retain(|publisher| match publish(publisher) {
            PublishResult::Sent => {
                count.reached += 1;
                true
            }
            PublishResult::Unsubscribed => false,
            PublishResult::TooSlow => {
                count.closed += 1;
                false
            }
        });
        count
    }
}

fn shrink<T>(table: &mut HashMap<ConversationId, T>) {
    if table.capacity() > 64 && table.len() * 8 < table.capacity() {
        table.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
