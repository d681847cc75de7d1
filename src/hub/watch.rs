//! Who waits for what.
//!
//! A shard keeps the waiters of the conversations dealt to it, whoever owns their partitions. A waiter is told
//! the Message when its end is stored here, or when the owner hints at it; it is let go, and reads for itself,
//! when the shard stops. Being told is a hint: where one may have been missed, all waiters are read again.
//!
//! A waiter comes through the shard's queue, and read the message before: the end may be told while it is on its
//! way. So what ended is remembered for a moment.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use crate::domain::{ConversationId, Message, MessageId, Partition};

/// Where a message's end is told to a request that waits; none where the store lost the message.
pub(crate) type Waiter = oneshot::Sender<Option<Message>>;

/// The waiters of one shard.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    waits: HashMap<MessageId, Waiting>,
    /// Ended since the last sweep, and between the two before it.
    ended: [HashSet<MessageId>; 2],
}

#[derive(Debug)]
struct Waiting {
    conversation: ConversationId,
    waiters: Vec<Waiter>,
    /// Whether the message is known to be in the store. Before, that it is not there means nothing.
    stored: bool,
}

impl Watch {
    /// Someone waits, for a message that may not be stored yet. Says whether it may have ended already: then it has
    /// to be read.
    pub(crate) fn add(&mut self, conversation: ConversationId, id: MessageId, waiter: Waiter) -> bool {
        let waiting = self.waits.entry(id).or_insert_with(|| Waiting {
            conversation,
            waiters: Vec::with_capacity(1),
            stored: false,
        });
        waiting.waiters.push(waiter);
        self.ended.iter().any(|ended| ended.contains(&id))
    }

    /// The message is in the store.
    pub(crate) fn set_stored(&mut self, id: MessageId) {
        if let Some(waiting) = self.waits.get_mut(&id) {
            waiting.stored = true;
        }
    }

    /// There is no such message: who waited for it goes on without.
    pub(crate) fn dismiss(&mut self, id: MessageId) {
        self.waits.remove(&id);
    }

    /// The message ended.
    pub(crate) fn tell(&mut self, message: Message) {
        let id = message.accepted.id;
        // Also where somebody waited: he may have gone meanwhile, and another may be on the way.
        let [latest, _] = &mut self.ended;
        latest.insert(id);
        let Some(waiting) = self.waits.remove(&id) else { return };
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
        let Some(waiting) = self.waits.remove(&id) else { return false };
        let told = waiting.waiters.into_iter().filter_map(|waiter| waiter.send(None).ok());
        told.count() > 0
    }

    /// Whether a read that does not find the message means that the store lost it.
    pub(crate) fn is_stored(&self, id: MessageId) -> bool {
        self.waits.get(&id).is_some_and(|waiting| waiting.stored)
    }

    /// Forgets those who gave up, and ends of a moment ago. A queue is emptied many times between two sweeps.
    pub(crate) fn sweep(&mut self) {
        let [latest, before] = &mut self.ended;
        *before = std::mem::take(latest);
        self.waits.retain(|_, waiting| {
            waiting.waiters.retain(|waiter| !waiter.is_closed());
            !waiting.waiters.is_empty()
        });
        if self.waits.capacity() > 1024 && self.waits.len() * 8 < self.waits.capacity() {
            self.waits.shrink_to_fit();
        }
    }

    /// What is waited for, in one partition or in all.
    pub(crate) fn stored(&self, partition: Option<Partition>) -> Vec<(ConversationId, MessageId)> {
        self.waits
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
        self.waits.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BotName, MessageProgress, Timestamp, UserId};
    use crate::hub::tests::{accept_by, store};
    use crate::store::{AcceptResult, Incarnation};

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

    #[tokio::test]
    async fn an_end_is_remembered_for_who_is_on_the_way() {
        let mut watch = Watch::default();
        let accept = accept_by(Incarnation(1), 1, "alice", "Hello");
        let AcceptResult::New(accepted) = store().accept(accept).await.unwrap() else { panic!("a new one") };
        let (conversation, id) = (accepted.new.conversation.clone(), accepted.id);
        let ended = Message { accepted, progress: MessageProgress::default() };
        assert!(!watch.add(conversation.clone(), id, oneshot::channel().0));
        // Whoever waited is gone, or was told: another may be on the way all the same.
        watch.tell(ended);
        watch.sweep();
        assert!(watch.add(conversation.clone(), id, oneshot::channel().0));
        watch.sweep();
        assert!(!watch.add(conversation, id, oneshot::channel().0));
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
