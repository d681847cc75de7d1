//! The erasure of a conversation in memory, in one step.

use std::collections::HashSet;

use super::partition_contents::PartitionContents;
use super::{MemoryStore, expiry, weight};
use crate::domain::{ConversationId, MessageId, Partition};
use crate::store::{Fence, Hint, Incarnation, StoreError};

#[expect(missing_docs, clippy::missing_errors_doc, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    pub fn erase(&self, fence: Fence, conversation: &ConversationId) -> Result<Vec<MessageId>, StoreError> {
        let mut hints = Vec::new();
        let lane = self.step(Partition::of(conversation)).erase(fence, conversation, &mut hints)?;
        let replicas = self.replicas();
        for (watcher, id) in hints {
            replicas.hint(watcher, Hint::Erased(conversation.clone(), id));
        }
        Ok(lane)
    }
}

impl PartitionContents {
    /// Deletes a conversation. Returns its lane, and adds the watchers of these messages to `hints`.
    fn erase(
        &mut self,
        fence: Fence,
        name: &ConversationId,
        hints: &mut Vec<(Incarnation, MessageId)>,
    ) -> Result<Vec<MessageId>, StoreError> {
        self.lease.check(fence)?;
        let mut lane = Vec::new();
        if let Some(mut conversation) = self.conversations.remove(name) {
            while let Some(old) = conversation.pop_entry() {
                self.bytes -= expiry::freed(&old, &self.messages);
            }
            self.bytes -= weight::conversation(name) + weight::record(conversation.record.as_ref());
            lane.extend(conversation.lane);
        }
        let of_conversation =
            self.messages.iter().filter(|(_, stored)| stored.message.accepted.new.conversation == *name);
        let messages: HashSet<_> = of_conversation.map(|(id, _)| *id).collect();
        for &id in &messages {
            let watchers = self.messages.get(&id).map(|stored| &stored.watchers).into_iter().flatten();
            hints.extend(watchers.filter(|&&watcher| watcher != fence.incarnation).map(|&to| (to, id)));
            self.remove_message(id);
        }
        self.ended.retain(|(_, id)| !messages.contains(id));
        self.ready.remove(name);
        self.idle.retain(|(_, idle)| idle != name);
        self.bytes -= self.observers.remove(name) * weight::observer(name);
        self.deliveries.erase(name);
        Ok(lane)
    }
}
