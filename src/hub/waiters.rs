//! The waiters: requests that wait for the end of a message.
//!
//! A shard has the waiters of its conversations, even if another replica owns their partitions. A waiter gets the message when
//! this replica stores its end, or when the owner sends a hint. When the shard stops, its waiters are released and read the
//! store by themselves. Hints may be lost; a resync then reads the messages of all waiters.
//!
//! The table also holds the places of open messages ([`OpenMessagePlaces`]) until their ends, which come in the same way.
//!
//! A waiter has read the message before it comes through the queue of the shard, and the end may fall between the two. The
//! table therefore remembers ended messages for a moment.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::open_message_shares::OpenMessagePlaces;
use crate::domain::{ConversationId, Message, MessageId, Partition};

/// The sender to a waiter.
pub(crate) type CompletionSender = oneshot::Sender<Completion>;

/// The result of a wait.
#[derive(Debug, Clone)]
pub(crate) enum Completion {
    /// The message ended.
    Ended(Message),
    /// The store lost the message.
    Lost,
    /// The message was erased with its conversation.
    Erased,
}

/// Sweeps after which places are given back without an end. A sweep takes place once a second, and a turn lasts ten minutes
/// at most. A message behind others in its lane may be open for longer.
const PLACES_MAX_SWEEPS: u32 = 15 * 60;

/// The waiter's side of [`CompletionSender`].
pub(super) type CompletionReceiver = oneshot::Receiver<Completion>;

/// The waiters of one shard.
#[derive(Debug, Default)]
pub(crate) struct WaiterTable {
    messages: HashMap<MessageId, AwaitedMessage>,
    /// Messages that ended since the last sweep, and in the interval before it.
    ended: [HashSet<MessageId>; 2],
}

/// A message with waiters.
#[derive(Debug)]
struct AwaitedMessage {
    conversation: ConversationId,
    waiters: Vec<CompletionSender>,
    /// The places of the message, and the sweeps since it was accepted.
    places: Option<(OpenMessagePlaces, u32)>,
    /// Whether the message is known to be in the store. A message that is not known to be stored cannot be lost.
    stored: bool,
}

impl WaiterTable {
    /// Adds a waiter for a message that may not be stored yet. Returns whether the message may have ended already; the
    /// caller then has to read it.
    pub(crate) fn add(
        &mut self,
        conversation: ConversationId,
        id: MessageId,
        waiter: CompletionSender,
    ) -> bool {
        self.entry(conversation, id).waiters.push(waiter);
        self.ended.iter().any(|ended| ended.contains(&id))
    }

    /// Holds the places of a message until its end.
    pub(crate) fn hold(&mut self, conversation: ConversationId, id: MessageId, places: OpenMessagePlaces) {
        self.entry(conversation, id).places = Some((places, 0));
    }

    fn entry(&mut self, conversation: ConversationId, id: MessageId) -> &mut AwaitedMessage {
        self.messages.entry(id).or_insert_with(|| AwaitedMessage {
            conversation,
            waiters: Vec::with_capacity(1),
            places: None,
            stored: false,
        })
    }

    /// Records that the message is in the store.
    pub(crate) fn set_stored(&mut self, id: MessageId) {
        if let Some(awaited) = self.messages.get_mut(&id) {
            awaited.stored = true;
        }
    }

    /// Releases the waiters of a message that was not accepted.
    pub(crate) fn remove(&mut self, id: MessageId) {
        self.messages.remove(&id);
    }

    /// Sends the end of a message to its waiters.
    pub(crate) fn complete(&mut self, message: Message) {
        let id = message.accepted.id;
        // The end is remembered even with waiters: another waiter may be in the queue.
        let [latest, _] = &mut self.ended;
        latest.insert(id);
        let Some(awaited) = self.messages.remove(&id) else { return };
        let mut waiters = awaited.waiters;
        let last = waiters.pop();
        for waiter in waiters {
            // A waiter that has gone needs no answer.
            waiter.send(Completion::Ended(message.clone())).ok();
        }
        if let Some(last) = last {
            last.send(Completion::Ended(message)).ok();
        }
    }

    /// Reports a message as lost to its waiters. Returns whether there was a waiter.
    pub(crate) fn complete_lost(&mut self, id: MessageId) -> bool {
        self.complete_without(id, &Completion::Lost)
    }

    /// Reports a message as erased to its waiters.
    pub(crate) fn complete_erased(&mut self, id: MessageId) {
        self.complete_without(id, &Completion::Erased);
    }

    /// Reports that a message is gone. Returns whether there was a waiter.
    fn complete_without(&mut self, id: MessageId, completion: &Completion) -> bool {
        let Some(awaited) = self.messages.remove(&id) else { return false };
        let sent = awaited.waiters.into_iter().filter_map(|waiter| waiter.send(completion.clone()).ok());
        sent.count() > 0
    }

    /// Returns whether the message is known to be stored, so that its absence is a loss.
    pub(crate) fn is_stored(&self, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(|awaited| awaited.stored)
    }

    /// Removes waiters that gave up, places of messages whose end was perhaps missed, and ends of the interval before the last. The shard empties its queue many times
    /// between two sweeps.
    pub(crate) fn sweep(&mut self) {
        let [latest, before] = &mut self.ended;
        *before = std::mem::take(latest);
        self.messages.retain(|_, awaited| {
            awaited.waiters.retain(|waiter| !waiter.is_closed());
            awaited.places = awaited
                .places
                .take()
                .filter(|(_, sweeps)| *sweeps < PLACES_MAX_SWEEPS)
                .map(|(places, sweeps)| (places, sweeps + 1));
            !awaited.waiters.is_empty() || awaited.places.is_some()
        });
        if self.messages.capacity() > 1024 && self.messages.len() * 8 < self.messages.capacity() {
            self.messages.shrink_to_fit();
        }
    }

    /// Returns the stored messages with waiters, in one partition or in all.
    pub(crate) fn stored_messages(&self, partition: Option<Partition>) -> Vec<(ConversationId, MessageId)> {
        self.messages
            .iter()
            .filter(|(_, awaited)| awaited.stored)
            .filter(|(_, awaited)| {
                partition.is_none_or(|partition| Partition::of(&awaited.conversation) == partition)
            })
            .map(|(id, awaited)| (awaited.conversation.clone(), *id))
            .collect()
    }

    /// Releases all waiters; they read the store by themselves.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::sandbox_conversation;
    use crate::domain::{MessageProgress, Timestamp};
    use crate::hub::tests::{accept_by, store};
    use crate::store::{AcceptResult, Incarnation};

    #[test]
    fn message_not_known_as_stored_cannot_be_lost() {
        let conversation = sandbox_conversation("alice");
        let id = MessageId::new(Timestamp::from_millis(1), 1);
        let mut table = WaiterTable::default();
        let (waiter, mut completion) = oneshot::channel();
        table.add(conversation.clone(), id, waiter);
        assert!(!table.is_stored(id) && table.stored_messages(None).is_empty());
        table.set_stored(id);
        assert!(table.is_stored(id));
        assert_eq!(table.stored_messages(Some(Partition::of(&conversation))), [(conversation.clone(), id)]);
        assert!(table.complete_lost(id));
        assert!(matches!(completion.try_recv(), Ok(Completion::Lost)));
        assert!(!table.complete_lost(id), "no waiter is left");
        let (waiter, mut completion) = oneshot::channel();
        table.add(conversation, id, waiter);
        table.complete_erased(id);
        assert!(matches!(completion.try_recv(), Ok(Completion::Erased)));
    }

    #[tokio::test]
    async fn end_is_remembered_for_a_waiter_in_the_queue() {
        let mut table = WaiterTable::default();
        let accept = accept_by(Incarnation(1), 1, "alice", "Hello");
        let AcceptResult::New(accepted) = store().accept(accept).await.unwrap() else { panic!("a new one") };
        let (conversation, id) = (accepted.new.conversation.clone(), accepted.id);
        let ended = Message { accepted, progress: MessageProgress::default() };
        assert!(!table.add(conversation.clone(), id, oneshot::channel().0));
        // The first waiter is gone; another may be in the queue.
        table.complete(ended);
        table.sweep();
        assert!(table.add(conversation.clone(), id, oneshot::channel().0));
        table.sweep();
        assert!(!table.add(conversation, id, oneshot::channel().0));
    }

    #[test]
    fn waiters_that_gave_up_are_removed() {
        let conversation = sandbox_conversation("alice");
        let id = MessageId::new(Timestamp::from_millis(1), 1);
        let mut table = WaiterTable::default();
        let (waiter, completion) = oneshot::channel();
        table.add(conversation, id, waiter);
        table.set_stored(id);
        drop(completion);
        table.sweep();
        assert!(table.stored_messages(None).is_empty());
        table.set_stored(id);
        assert!(table.stored_messages(None).is_empty(), "no waiter is left");
    }
}
