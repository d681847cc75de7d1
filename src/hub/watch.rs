//! Who waits for what.
//!
//! A shard keeps the waiters of the conversations dealt to it. A waiter is told the Message when its end is
//! stored; it is let go, and reads for itself, when the shard stops. Being told is a hint: waiters that have
//! waited for a second are read once more from the store, in case the end came before they did.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::sync::oneshot;

use crate::domain::{ConversationId, Message, MessageId};

/// Where a message's end is told to a request that waits.
pub(crate) type Waiter = oneshot::Sender<Message>;

/// The waiters of one shard.
#[derive(Debug, Default)]
pub(crate) struct Watch(HashMap<MessageId, Waiting>);

#[derive(Debug)]
struct Waiting {
    conversation: ConversationId,
    waiters: Vec<Waiter>,
    /// Sweeps it has lived through.
    age: u32,
}

impl Watch {
    /// Someone waits.
    pub(crate) fn add(&mut self, conversation: &ConversationId, id: MessageId, waiter: Waiter) {
        match self.0.entry(id) {
            Entry::Occupied(mut entry) => {
                let waiting = entry.get_mut();
                waiting.waiters.push(waiter);
                waiting.age = 0;
            }
            Entry::Vacant(entry) => {
                let waiters = vec![waiter];
                entry.insert(Waiting { conversation: conversation.clone(), waiters, age: 0 });
            }
        }
    }

    /// The message ended.
    pub(crate) fn tell(&mut self, message: Message) {
        let Some(waiting) = self.0.remove(&message.accepted.id) else { return };
        let mut waiters = waiting.waiters;
        let last = waiters.pop();
        for waiter in waiters {
            // A waiter that has gone needs no answer.
            waiter.send(message.clone()).ok();
        }
        if let Some(last) = last {
            last.send(message).ok();
        }
    }

    /// There is no such message: those who wait read that for themselves.
    pub(crate) fn forget(&mut self, id: MessageId) {
        self.0.remove(&id);
    }

    /// Forgets those who gave up, and names the messages to be read once more.
    pub(crate) fn sweep(&mut self) -> Vec<(ConversationId, MessageId)> {
        let mut due = Vec::new();
        self.0.retain(|id, waiting| {
            waiting.waiters.retain(|waiter| !waiter.is_closed());
            waiting.age = waiting.age.saturating_add(1);
            if waiting.age == 2 && !waiting.waiters.is_empty() {
                due.push((waiting.conversation.clone(), *id));
            }
            !waiting.waiters.is_empty()
        });
        if self.0.capacity() > 1024 && self.0.len() * 8 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
        due
    }

    /// Lets all of them go: they read the state of the moment for themselves.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
