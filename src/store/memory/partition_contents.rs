//! The contents of one partition and the steps on them. There is no lock and no clock here: the time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::conversation::ConversationEntry;
use super::delivery_table::DeliveryTable;
use super::journal_page::ObserverNotes;
use super::partition_lease::PartitionLease;
use super::{MemoryLimits, expiry, weight};
use crate::domain::{
    ConversationId, EntryBody, JournalEntry, Message, MessageId, MessageProgress, Timestamp, TurnOutcome,
};
use crate::store::accept_request::KeyDigest;
use crate::store::{
    ConversationChange, ConversationSnapshot, ConversationWrite, Fence, Hint, Incarnation, OpenMessage,
    StoreError,
};

/// The contents of one partition.
#[derive(Default)]
pub(super) struct PartitionContents {
    pub(super) lease: PartitionLease,
    pub(super) conversations: HashMap<ConversationId, Box<ConversationEntry>>,
    pub(super) messages: HashMap<MessageId, Box<MessageEntry>>,
    pub(super) keys: HashMap<KeyDigest, MessageId>,
    /// Conversations with open messages.
    pub(super) ready: HashSet<ConversationId>,
    /// Ended messages, by their expiry. The time is repeated here, so the line of an evicted message matches no later
    /// one.
    pub(super) ended: VecDeque<(Timestamp, MessageId)>,
    pub(super) observers: ObserverNotes,
    pub(super) deliveries: DeliveryTable,
    /// Every conversation, by the earliest time at which it may be obsolete.
    pub(super) idle: BTreeSet<(Timestamp, ConversationId)>,
    /// The estimated size of everything but the deliveries, which count themselves.
    pub(super) bytes: usize,
}

/// A message, and the data that goes with it.
pub(super) struct MessageEntry {
    pub(super) message: Message,
    pub(super) key: Option<(KeyDigest, [u8; 32])>,
    pub(super) end: Option<MessageEnd>,
    /// The replicas on which a caller waits for the end.
    pub(super) watchers: Vec<Incarnation>,
}

pub(super) struct MessageEnd {
    pub(super) expires_at: Timestamp,
    /// The place of the end in the journal.
    pub(super) seq: u64,
}

impl PartitionContents {
    /// Returns the estimated size of the partition.
    pub(super) const fn weight(&self) -> usize {
        self.bytes + self.deliveries.bytes()
    }

    /// Returns a message of this conversation, unless it has expired. `watcher` is noted if it is open.
    pub(super) fn message(
        &mut self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
        now: Timestamp,
    ) -> Option<Message> {
        self.live_message(id, now)?;
        let stored = self.messages.get_mut(&id)?;
        if stored.message.accepted.new.conversation != *conversation {
            return None;
        }
        if let Some(watcher) = watcher
            && stored.end.is_none()
            && !stored.watchers.contains(&watcher)
        {
            stored.watchers.push(watcher);
        }
        Some(stored.message.clone())
    }

    pub(super) fn live_message(&self, id: MessageId, now: Timestamp) -> Option<&MessageEntry> {
        let stored = self.messages.get(&id)?;
        let expired = stored.end.as_ref().is_some_and(|end| end.expires_at <= now);
        (!expired).then_some(&**stored)
    }

    /// Returns the conversations with open messages, and those that are still warm.
    pub(super) fn ready(
        &self,
        fence: Fence,
        warm: bool,
        now: Timestamp,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.lease.check(fence)?;
        let mut ready: Vec<_> = self.ready.iter().cloned().collect();
        if warm {
            let warm = self.conversations.iter().filter(|(_, conversation)| {
                conversation.lane.is_empty() && conversation.warm_until.is_some_and(|until| now < until)
            });
            ready.extend(warm.map(|(name, _)| name.clone()));
        }
        Ok(ready)
    }

    pub(super) fn open(
        &mut self,
        fence: Fence,
        conversation: &ConversationId,
        now: Timestamp,
        limits: &MemoryLimits,
    ) -> Result<ConversationSnapshot, StoreError> {
        self.lease.check(fence)?;
        self.expire_conversation(conversation, now, limits.journal_ttl);
        let observers = self.observers.of(conversation, now).collect();
        let Some(conversation) = self.conversations.get(conversation) else {
            return Ok(ConversationSnapshot { observers, ..ConversationSnapshot::default() });
        };
        let lane =
            conversation.lane.iter().filter_map(|id| self.messages.get(id)).map(|stored| OpenMessage {
                accepted: stored.message.accepted.clone(),
                progress: stored.message.progress.clone(),
            });
        Ok(ConversationSnapshot {
            record: conversation.record.clone().unwrap_or_default(),
            lane: lane.collect(),
            journaled: conversation.journaled_replies(),
            head_at: conversation.head_at,
            next_position: conversation.next_position,
            observers,
        })
    }

    pub(super) fn write(
        &mut self,
        fence: Fence,
        name: &ConversationId,
        write: &ConversationWrite,
        now: Timestamp,
        limits: &MemoryLimits,
        hints: &mut Vec<(Incarnation, Hint)>,
    ) -> Result<bool, StoreError> {
        self.lease.check(fence)?;
        self.expire_conversation(name, now, limits.journal_ttl);
        let held = self.conversations.get(name);
        let (last_write, last_lost) = held.map_or((0, false), |held| (held.last_write(), held.lost));
        if write.record.write == last_write {
            return Ok(last_lost);
        }
        if write.follows != last_write {
            return Err(StoreError::OutOfStep);
        }
        self.expire_journal(name, now, limits.journal_ttl);
        let conversation = conversation(
            &mut self.conversations,
            &mut self.idle,
            &mut self.bytes,
            name,
            now + limits.journal_ttl,
        );
        conversation.touched = now;
        self.bytes -= weight::record(conversation.record.as_ref());
        conversation.record = Some(write.record.clone());
        self.bytes += weight::record(conversation.record.as_ref());
        if write.warm_until.is_some() {
            conversation.warm_until = write.warm_until;
        }
        let (mut lost, mut appended, mut told) = (false, false, true);
        for change in &write.changes {
            if let ConversationChange::Deliver(new) = change {
                if told {
                    self.deliveries.push(new, now);
                }
                continue;
            }
            let done = self.apply(name, change, now, limits);
            lost |= !done;
            if let ConversationChange::Append(_) = change {
                told = done;
                appended |= done;
            }
        }
        for (message, _) in write.changes.iter().filter_map(ConversationChange::ended) {
            let Some(stored) = self.messages.get_mut(&message) else { continue };
            for watcher in std::mem::take(&mut stored.watchers) {
                if watcher != fence.incarnation {
                    hints.push((watcher, Hint::Ended(stored.message.clone())));
                }
            }
        }
        if appended {
            let others = self.observers.of(name, now).filter(|&observer| observer != fence.incarnation);
            hints.extend(others.map(|observer| (observer, Hint::Appended(name.clone()))));
        }
        if let Some(conversation) = self.conversations.get_mut(name) {
            conversation.lost = lost;
        }
        Ok(lost)
    }

    /// Carries out a change. Returns false if its message is gone.
    fn apply(
        &mut self,
        name: &ConversationId,
        change: &ConversationChange,
        now: Timestamp,
        limits: &MemoryLimits,
    ) -> bool {
        match change {
            ConversationChange::Sent { message, at } => match self.running(name, *message) {
                Some(progress) => _ = progress.sent_at.get_or_insert(*at),
                None => return false,
            },
            ConversationChange::HeadSince { at } => {
                if let Some(conversation) = self.conversations.get_mut(name)
                    && let Some(&head) = conversation.lane.front()
                {
                    conversation.head_at = Some(*at);
                    if let Some(progress) = self.running(name, head) {
                        progress.sent_at = None;
                    }
                }
            }
            // The entry before it decides, not the delivery itself.
            ConversationChange::Deliver(_) => {}
            ConversationChange::Acked { message, at } => {
                if let Some(progress) = self.running(name, *message) {
                    progress.acked_at.get_or_insert(*at);
                }
            }
            ConversationChange::Answering { message, at } => {
                if let Some(progress) = self.running(name, *message) {
                    progress.first_reply_at.get_or_insert(*at);
                }
            }
            ConversationChange::Append(entry) => {
                if let Some((message, outcome)) = entry.ended()
                    && !self.settle(name, message, outcome, entry, now + limits.message_ttl)
                {
                    return false;
                }
                self.append(name, entry, now, limits);
            }
        }
        true
    }

    /// Returns the progress of an open message of this conversation.
    fn running(&mut self, name: &ConversationId, id: MessageId) -> Option<&mut MessageProgress> {
        let stored = self.messages.get_mut(&id)?;
        (stored.end.is_none() && stored.message.accepted.new.conversation == *name)
            .then_some(&mut stored.message.progress)
    }

    /// Ends a message once. Returns false if it is not open.
    fn settle(
        &mut self,
        name: &ConversationId,
        id: MessageId,
        outcome: &TurnOutcome,
        entry: &JournalEntry,
        expires_at: Timestamp,
    ) -> bool {
        let Some(conversation) = self.conversations.get_mut(name) else { return false };
        let Some(stored) = self.messages.get_mut(&id) else { return false };
        if !conversation.dequeue(id, entry.at) {
            return false;
        }
        if conversation.lane.is_empty() {
            self.ready.remove(name);
        }
        stored.end = Some(MessageEnd { expires_at, seq: entry.seq });
        stored.message.progress.ended_at = Some(entry.at);
        stored.message.progress.outcome = Some(outcome.clone());
        self.ended.push_back((expires_at, id));
        true
    }

    fn append(&mut self, name: &ConversationId, entry: &JournalEntry, now: Timestamp, limits: &MemoryLimits) {
        let Some(conversation) = self.conversations.get_mut(name) else { return };
        self.bytes += weight::bare_entry(entry);
        if let EntryBody::Reply(reply) = &entry.body {
            self.bytes += weight::reply(reply);
            let joined = reply.in_reply_to.and_then(|id| self.messages.get_mut(&id));
            if let Some(stored) = joined.filter(|stored| stored.message.accepted.new.conversation == *name) {
                let progress = &mut stored.message.progress;
                if !progress.has_ended() {
                    progress.first_reply_at.get_or_insert(entry.at);
                }
                // Most messages have one reply. The four places of a new vector would weigh more than the message.
                progress.replies.reserve_exact(usize::from(progress.replies.is_empty()));
                progress.replies.push(reply.clone());
            }
        }
        conversation.append(entry.clone(), now);
        while let Some(old) = conversation.trim(limits.journal_entries, limits.journal_bytes) {
            self.bytes -= expiry::freed(&old, &self.messages);
        }
    }

    /// Returns the numbers of open messages, ended messages and conversations.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let lanes = self.ready.iter().filter_map(|name| self.conversations.get(name));
        let open = lanes.map(|conversation| conversation.lane.len()).sum();
        (open, self.messages.len().saturating_sub(open), self.conversations.len())
    }
}

/// Returns the conversation, and creates it if necessary.
pub(super) fn conversation<'a>(
    conversations: &'a mut HashMap<ConversationId, Box<ConversationEntry>>,
    idle: &mut BTreeSet<(Timestamp, ConversationId)>,
    bytes: &mut usize,
    name: &ConversationId,
    due: Timestamp,
) -> &'a mut ConversationEntry {
    conversations.entry(name.clone()).or_insert_with(|| {
        idle.insert((due, name.clone()));
        *bytes += weight::conversation(name);
        Box::default()
    })
}
