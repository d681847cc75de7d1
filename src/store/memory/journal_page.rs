//! Reads of a journal, the state of a conversation, and the observers who get hints at new entries.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::partition_contents::PartitionContents;
use super::{MemoryStore, weight};
use crate::domain::{
    ConversationId, ConversationState, EntryWithMessage, JournalPage, Message, Partition, ReadStart,
    Timestamp,
};
use crate::store::conversation_state::conversation_state;
use crate::store::journal_page::{self, PageRead};
use crate::store::{Hint, Incarnation, NOTED, OBSERVED};

/// The observers of conversations. A conversation may be unknown to the store.
#[derive(Debug, Default)]
pub(super) struct ObserverNotes {
    noted: HashMap<ConversationId, Vec<(Incarnation, Timestamp)>>,
    /// The notes by their expiry, renewed ones included.
    due: VecDeque<(Timestamp, ConversationId)>,
}

impl ObserverNotes {
    /// Notes an observer. Returns false if an earlier note holds long enough.
    fn note(&mut self, name: &ConversationId, observer: Incarnation, now: Timestamp) -> bool {
        let noted = self.noted.entry(name.clone()).or_default();
        if noted.iter().any(|&(of, until)| of == observer && now + OBSERVED <= until) {
            return false;
        }
        noted.retain(|&(of, until)| of != observer && now < until);
        noted.push((observer, now + NOTED));
        self.due.push_back((now + NOTED, name.clone()));
        true
    }

    /// Returns the observers of this conversation.
    pub(super) fn of(&self, name: &ConversationId, now: Timestamp) -> impl Iterator<Item = Incarnation> {
        let noted = self.noted.get(name).into_iter().flatten();
        noted.filter(move |&&(_, until)| now < until).map(|&(observer, _)| observer)
    }

    /// Removes the notes of a conversation, and returns how many were counted.
    pub(super) fn remove(&mut self, name: &ConversationId) -> usize {
        self.noted.remove(name);
        let before = self.due.len();
        self.due.retain(|(_, noted)| noted != name);
        before - self.due.len()
    }

    /// Removes an expired note and returns its weight.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<usize> {
        let (_, name) = self.due.pop_front_if(|(until, _)| *until <= now)?;
        if let Some(noted) = self.noted.get_mut(&name) {
            noted.retain(|&(_, until)| now < until);
            if noted.is_empty() {
                self.noted.remove(&name);
            }
        }
        if self.due.is_empty() {
            // Gives back the memory of a burst.
            *self = Self::default();
        }
        Some(weight::observer(&name))
    }
}

#[expect(missing_docs, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    pub fn page(
        &self,
        conversation: &ConversationId,
        after: ReadStart,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> JournalPage {
        let mut step = self.step(Partition::of(conversation));
        let now = step.now;
        let hint = observer.and_then(|observer| step.observe(conversation, observer, now));
        let page = step.page(conversation, after, limit, now, self.limits.journal_ttl);
        drop(step);
        self.send_hint(hint);
        page
    }

    pub fn observe(&self, conversations: &[ConversationId], observer: Incarnation) {
        for conversation in conversations {
            let mut step = self.step(Partition::of(conversation));
            let now = step.now;
            let hint = step.observe(conversation, observer, now);
            drop(step);
            self.send_hint(hint);
        }
    }

    pub fn state(
        &self,
        conversation: &ConversationId,
        by: Incarnation,
        number: u64,
    ) -> (ConversationState, Option<Incarnation>) {
        let mut step = self.step(Partition::of(conversation));
        let now = step.now;
        let state = step.state(conversation, now, self.limits.journal_ttl);
        let owner = step.lease.owner();
        drop(step);
        let asked = Hint::Asked { conversation: conversation.clone(), by, number };
        self.send_hint(owner.filter(|&owner| owner != by).map(|owner| (owner, asked)));
        (state, owner)
    }

    fn send_hint(&self, hint: Option<(Incarnation, Hint)>) {
        if let Some((to, hint)) = hint {
            self.replicas().hint(to, hint);
        }
    }
}

impl PartitionContents {
    /// Notes an observer. Returns the hint for the owner, if that is another replica.
    fn observe(
        &mut self,
        name: &ConversationId,
        observer: Incarnation,
        now: Timestamp,
    ) -> Option<(Incarnation, Hint)> {
        if !self.observers.note(name, observer, now) {
            return None;
        }
        self.bytes += weight::observer(name);
        let owner = self.lease.owner().filter(|&owner| owner != observer)?;
        Some((owner, Hint::Observed(name.clone(), observer)))
    }

    fn page(
        &mut self,
        name: &ConversationId,
        after: ReadStart,
        limit: usize,
        now: Timestamp,
        ttl: Duration,
    ) -> JournalPage {
        self.expire_conversation(name, now, ttl);
        self.expire_journal(name, now, ttl);
        let Some(conversation) = self.conversations.get(name) else {
            return PageRead::new(after, None, None).page(Vec::new(), false);
        };
        let reading = PageRead::new(after, conversation.record.as_ref(), conversation.entry_time(after));
        let mut rest = conversation.entries_after(reading.from()).peekable();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = rest.peek() {
            let message = entry.ended().and_then(|(id, _)| Some(self.live_message(id, now)?.message.clone()));
            bytes += entry.weight() + message.as_ref().map_or(0, size);
            if entries.len() == limit.clamp(1, journal_page::ENTRIES)
                || !entries.is_empty() && bytes > journal_page::BYTES
            {
                break;
            }
            entries.extend(rest.next().map(|entry| EntryWithMessage { entry: entry.clone(), message }));
        }
        reading.page(entries, rest.peek().is_some())
    }

    fn state(&mut self, name: &ConversationId, now: Timestamp, ttl: Duration) -> ConversationState {
        self.expire_conversation(name, now, ttl);
        let Some(conversation) = self.conversations.get(name) else {
            return conversation_state(None, None, 0, now);
        };
        // The first `clientMessageId` is above 0.
        let accepted = Some(conversation.last_client_message_id).filter(|&last| last > 0);
        conversation_state(conversation.record.as_ref(), accepted, conversation.lane.len() as u64, now)
    }
}

/// Returns the approximate size of a message in a page.
fn size(message: &Message) -> usize {
    let replies = message.progress.replies.iter().map(|reply| weight::reply(reply)).sum::<usize>();
    weight::message(&message.accepted) + replies
}
