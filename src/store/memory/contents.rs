//! What one partition holds, and the steps on it. No lock and no clock here: the time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::conversation::Conversation;
use super::deliveries::Deliveries;
use super::lease::Lease;
use super::reading::Observers;
use super::{MemoryLimits, expiry, weight};
use crate::domain::{
    AcceptedMessage, ConversationId, EntryBody, JournalEntry, Message, MessageId, MessageProgress, Timestamp,
    TurnOutcome,
};
use crate::store::accept_request::KeyDigest;
use crate::store::{
    AcceptError, AcceptRequest, AcceptResult, ConversationChange, ConversationSnapshot, ConversationWrite,
    Fence, Hint, Incarnation, OpenMessage, StoreError,
};

/// One partition.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) lease: Lease,
    pub(super) conversations: HashMap<ConversationId, Box<Conversation>>,
    pub(super) messages: HashMap<MessageId, Box<Kept>>,
    pub(super) keys: HashMap<KeyDigest, MessageId>,
    /// Conversations with a lane that is not empty.
    pub(super) ready: HashSet<ConversationId>,
    /// Ended messages, the first to expire in front. The time stands here too, so that what was removed before
    /// its time leaves a line behind that matches nothing.
    pub(super) ended: VecDeque<(Timestamp, MessageId)>,
    pub(super) observers: Observers,
    pub(super) deliveries: Deliveries,
    /// Every conversation, by when to look whether it is still needed: at the earliest the time it says.
    pub(super) idle: BTreeSet<(Timestamp, ConversationId)>,
    /// The estimate of all this but the deliveries, which count themselves.
    pub(super) bytes: usize,
}

/// A message and what must go with it.
pub(super) struct Kept {
    pub(super) message: Message,
    pub(super) key: Option<(KeyDigest, [u8; 32])>,
    pub(super) end: Option<End>,
    /// Replicas where somebody waits for the end.
    pub(super) watchers: Vec<Incarnation>,
}

pub(super) struct End {
    pub(super) expires_at: Timestamp,
    /// The place of the end in the journal.
    pub(super) seq: u64,
}

impl Contents {
    /// The estimate of all that is here.
    pub(super) const fn weight(&self) -> usize {
        self.bytes + self.deliveries.bytes()
    }

    /// Whether a message may be accepted; `Some` where it was before.
    pub(super) fn judge(
        &mut self,
        accept: &AcceptRequest,
        room: usize,
        now: Timestamp,
    ) -> Result<Option<AcceptResult>, AcceptError> {
        let conversation = &accept.message.conversation;
        let watcher = accept.watched.then_some(accept.by);
        if let Some(first) = self.kept(accept.id, now) {
            let same = first.message.accepted.new.conversation == *conversation;
            return if same {
                let sent = self.holds(accept.send_at_accept) && first.message.progress.sent_at.is_some();
                let accepted = first.message.accepted.clone();
                Ok(Some(if sent {
                    AcceptResult::SentAtAccept(accepted)
                } else {
                    AcceptResult::New(accepted)
                }))
            } else {
                Err(AcceptError::IdempotencyMismatch)
            };
        }
        if let Some(key) = &accept.idempotency
            && let Some(&id) = self.keys.get(&key.digest(conversation))
            && let Some(first) = self.kept(id, now)
        {
            let same = first.key.is_some_and(|(_, body)| body == key.body);
            return if same {
                let message = self.message(conversation, id, watcher, now);
                Ok(message.map(AcceptResult::Replayed))
            } else {
                Err(AcceptError::IdempotencyMismatch)
            };
        }
        let open = self.conversations.get(conversation).map_or(0, |conversation| conversation.lane.len());
        if open >= accept.max_open {
            return Err(AcceptError::LaneFull(open));
        }
        if weight::accept(accept) > room {
            return Err(AcceptError::Full);
        }
        Ok(None)
    }

    /// Whether this is the fence that counts.
    fn holds(&self, fence: Option<Fence>) -> bool {
        fence.is_some_and(|fence| self.lease.check(fence).is_ok())
    }

    /// Accepts a message that was judged to be new.
    pub(super) fn insert(
        &mut self,
        accept: AcceptRequest,
        now: Timestamp,
        limits: &MemoryLimits,
    ) -> AcceptResult {
        let AcceptRequest { id, message: mut new, idempotency, by, watched, send_at_accept, .. } = accept;
        let holds = self.holds(send_at_accept);
        // What expired but was not yet swept.
        self.remove_message(id);
        self.expire_conversation(&new.conversation, now, limits.journal_ttl);
        let key = idempotency.map(|key| (key.digest(&new.conversation), key.body));
        // One copy of the names serves all messages of the conversation.
        if let Some((names, _)) = self.conversations.get_key_value(&new.conversation) {
            new.conversation = names.clone();
        }
        let name = new.conversation.clone();
        let conversation = conversation(
            &mut self.conversations,
            &mut self.idle,
            &mut self.bytes,
            &name,
            now + limits.journal_ttl,
        );
        let sent = holds && conversation.lane.is_empty();
        let (position, client_message_id) = conversation.enqueue(id, now);
        let accepted = Arc::new(AcceptedMessage { id, position, client_message_id, accepted_at: now, new });
        self.ready.insert(name);
        self.bytes += weight::message(&accepted);
        if let Some((digest, _)) = key {
            self.keys.insert(digest, id);
            self.bytes += weight::KEY;
        }
        let sent_at = sent.then_some(now);
        let message = Message {
            accepted: accepted.clone(),
            progress: MessageProgress { sent_at, ..MessageProgress::default() },
        };
        let watchers = if watched { vec![by] } else { Vec::new() };
        self.messages.insert(id, Box::new(Kept { message, key, end: None, watchers }));
        if sent { AcceptResult::SentAtAccept(accepted) } else { AcceptResult::New(accepted) }
    }

    /// A message as it stands, unless it is of another conversation or has expired. Somebody may wait for its
    /// end.
    pub(super) fn message(
        &mut self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
        now: Timestamp,
    ) -> Option<Message> {
        self.kept(id, now)?;
        let kept = self.messages.get_mut(&id)?;
        if kept.message.accepted.new.conversation != *conversation {
            return None;
        }
        if let Some(watcher) = watcher
            && kept.end.is_none()
            && !kept.watchers.contains(&watcher)
        {
            kept.watchers.push(watcher);
        }
        Some(kept.message.clone())
    }

    pub(super) fn kept(&self, id: MessageId, now: Timestamp) -> Option<&Kept> {
        let kept = self.messages.get(&id)?;
        let expired = kept.end.as_ref().is_some_and(|end| end.expires_at <= now);
        (!expired).then_some(&**kept)
    }

    /// The conversations with open messages, and those that are still warm.
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

    /// The record and the lane of a conversation.
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
        let lane = conversation.lane.iter().filter_map(|id| self.messages.get(id)).map(|kept| OpenMessage {
            accepted: kept.message.accepted.clone(),
            progress: kept.message.progress.clone(),
        });
        Ok(ConversationSnapshot {
            record: conversation.record.clone().unwrap_or_default(),
            lane: lane.collect(),
            head_at: conversation.head_at,
            next_position: conversation.next_position,
            observers,
        })
    }

    /// Carries out an owner's write.
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
            let Some(kept) = self.messages.get_mut(&message) else { continue };
            for watcher in std::mem::take(&mut kept.watchers) {
                if watcher != fence.incarnation {
                    hints.push((watcher, Hint::Ended(kept.message.clone())));
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

    /// Carries out a change; false where it is of a message that is not here any more.
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
                    && !conversation.lane.is_empty()
                {
                    conversation.head_at = Some(*at);
                }
            }
            // Goes by the entry before it, not by itself.
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

    /// The message's progress, if it is one of this conversation and has not ended.
    fn running(&mut self, name: &ConversationId, id: MessageId) -> Option<&mut MessageProgress> {
        let kept = self.messages.get_mut(&id)?;
        (kept.end.is_none() && kept.message.accepted.new.conversation == *name)
            .then_some(&mut kept.message.progress)
    }

    /// Ends a message, once; false where it is not open.
    fn settle(
        &mut self,
        name: &ConversationId,
        id: MessageId,
        outcome: &TurnOutcome,
        entry: &JournalEntry,
        expires_at: Timestamp,
    ) -> bool {
        let Some(conversation) = self.conversations.get_mut(name) else { return false };
        let Some(kept) = self.messages.get_mut(&id) else { return false };
        if !conversation.dequeue(id, entry.at) {
            return false;
        }
        if conversation.lane.is_empty() {
            self.ready.remove(name);
        }
        kept.end = Some(End { expires_at, seq: entry.seq });
        kept.message.progress.ended_at = Some(entry.at);
        kept.message.progress.outcome = Some(outcome.clone());
        self.ended.push_back((expires_at, id));
        true
    }

    fn append(&mut self, name: &ConversationId, entry: &JournalEntry, now: Timestamp, limits: &MemoryLimits) {
        let Some(conversation) = self.conversations.get_mut(name) else { return };
        self.bytes += weight::bare_entry(entry);
        if let EntryBody::Reply(reply) = &entry.body {
            self.bytes += weight::reply(reply);
            let joined = reply.in_reply_to.and_then(|id| self.messages.get_mut(&id));
            if let Some(kept) = joined.filter(|kept| kept.message.accepted.new.conversation == *name) {
                let progress = &mut kept.message.progress;
                if !progress.has_ended() {
                    progress.first_reply_at.get_or_insert(entry.at);
                }
                // One reply is the rule; the four that a vector begins with would weigh more than the message.
                progress.replies.reserve_exact(usize::from(progress.replies.is_empty()));
                progress.replies.push(reply.clone());
            }
        }
        conversation.append(entry.clone(), now);
        while let Some(old) = conversation.trim(limits.journal_entries, limits.journal_bytes) {
            self.bytes -= expiry::freed(&old, &self.messages);
        }
    }

    /// Open messages, ended messages, conversations.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let lanes = self.ready.iter().filter_map(|name| self.conversations.get(name));
        let open = lanes.map(|conversation| conversation.lane.len()).sum();
        (open, self.messages.len().saturating_sub(open), self.conversations.len())
    }
}

/// The conversation, made where there is none.
fn conversation<'a>(
    conversations: &'a mut HashMap<ConversationId, Box<Conversation>>,
    idle: &mut BTreeSet<(Timestamp, ConversationId)>,
    bytes: &mut usize,
    name: &ConversationId,
    due: Timestamp,
) -> &'a mut Conversation {
    conversations.entry(name.clone()).or_insert_with(|| {
        idle.insert((due, name.clone()));
        *bytes += weight::conversation(name);
        Box::default()
    })
}
