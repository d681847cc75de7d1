//! Who waits for what.
//!
//! A shard keeps the waiters of the conversations dealt to it, whoever owns their partitions. A waiter is told
//! the Message when its end is stored here, or when the owner hints at it; it is let go, and reads for itself,
//! when the shard stops. Being told is a hint: where one may have been missed, all waiters are read again.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::domain::{ConversationId, Message, MessageId, Partition};

/// Where a message's end is told to a request that waits; none where the store lost the message.
pub(crate) type Waiter = oneshot::Sender<Option<Message>>;

/// The waiters of one shard.
#[derive(Debug, Default)]
pub(crate) struct Watch(HashMap<MessageId, Waiting>);

#[derive(Debug)]
struct Waiting {
    conversation: ConversationId,
    waiters: Vec<Waiter>,
    /// Whether the message is known to be in the store. Before, that it is not there means nothing.
    stored: bool,
}

impl Watch {
    /// Someone waits, for a message that may not be stored yet.
    pub(crate) fn add(&mut self, conversation: ConversationId, id: MessageId, waiter: Waiter) {
        let waiting = self.0.entry(id).or_insert_with(|| Waiting {
            conversation,
            waiters: Vec::with_capacity(1),
            stored: false,
        });
        waiting.waiters.push(waiter);
    }

    /// The message is in the store.
    pub(crate) fn set_stored(&mut self, id: MessageId) {
        if let Some(waiting) = self.0.get_mut(&id) {
            waiting.stored = true;
        }
    }

    /// The message ended.
    pub(crate) fn tell(&mut self, message: Message) {
        let Some(waiting) = self.0.remove(&message.accepted.id) else { return };
        let mut waiters = waiting.waiters;
        let last = waiters.pop();
        for waiter in waiters {
            // A waiter that has gone needs no answer.
            waiter.send(Some(message.clone())).ok();
        }
        if let Some(last) = last {
            last.send(Some(message)).ok();
        }
    }

    /// The store lost the message. Says whether anybody waited for it.
    pub(crate) fn lose(&mut self, id: MessageId) -> bool {
        let Some(waiting) = self.0.remove(&id) else { return false };
        let told = waiting.waiters.into_iter().filter_map(|waiter| waiter.send(None).ok());
        told.count() > 0
    }

    /// Whether a read that does not find the message means that the store lost it.
    pub(crate) fn is_stored(&self, id: MessageId) -> bool {
        self.0.get(&id).is_some_and(|waiting| waiting.stored)
    }

    /// Forgets those who gave up.
    pub(crate) fn sweep(&mut self) {
        self.0.retain(|_, waiting| {
            waiting.waiters.retain(|waiter| !waiter.is_closed());
            !waiting.waiters.is_empty()
        });
        if self.0.capacity() > 1024 && self.0.len() * 8 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
    }

    /// What is waited for, in one partition or in all.
    pub(crate) fn stored(&self, partition: Option<Partition>) -> Vec<(ConversationId, MessageId)> {
        self.0
            .iter()
            .filter(|(_, waiting)| waiting.stored)
            .filter(|(_, waiting)| {
                partition.is_none_or(|partition| Partition::of(&waiting.conversation) == partition)
            })
            .map(|(id, waiting)| (waiting.conversation.clone(), *id))
            .collect()
    }

    /// Lets all of them go: they read the state of the moment for themselves.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BotName, Timestamp, UserId};

    #[test]
    fn what_is_not_known_to_be_stored_cannot_be_lost() {
        let conversation = ConversationId::new(BotName::sandbox(), UserId::new("alice").unwrap());
        let id = MessageId::new(Timestamp::from_millis(1), 1);
        let mut watch = Watch::default();
        let (waiter, mut told) = oneshot::channel();
        watch.add(conversation.clone(), id, waiter);
        assert!(!watch.is_stored(id) && watch.stored(None).is_empty());
        watch.set_stored(id);
        assert!(watch.is_stored(id));
        assert_eq!(watch.stored(Some(Partition::of(&conversation))), [(conversation, id)]);
        assert!(watch.lose(id));
        assert!(told.try_recv().unwrap().is_none());
        assert!(!watch.lose(id), "nobody is left to be told");
    }

    #[test]
    fn those_who_gave_up_are_forgotten() {
        let conversation = ConversationId::new(BotName::sandbox(), UserId::new("alice").unwrap());
        let id = MessageId::new(Timestamp::from_millis(1), 1);
        let mut watch = Watch::default();
        let (waiter, told) = oneshot::channel();
        watch.add(conversation, id, waiter);
        watch.set_stored(id);
        drop(told);
        watch.sweep();
        assert!(watch.stored(None).is_empty());
        watch.set_stored(id);
        assert!(watch.stored(None).is_empty(), "nobody waits");
    }
}
