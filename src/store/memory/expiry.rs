//! Expiry and eviction in one partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::partition_contents::{MessageEntry, PartitionContents};
use super::{MemoryLimits, weight};
use crate::domain::{ConversationId, EntryBody, JournalEntry, Message, MessageId, Timestamp};

impl PartitionContents {
    /// Removes up to `budget` expired things and returns how many it looked at.
    pub(super) fn sweep(&mut self, now: Timestamp, limits: &MemoryLimits, budget: usize) -> usize {
        let mut seen = 0;
        while seen < budget && self.ended.front().is_some_and(|&(expires_at, _)| expires_at <= now) {
            self.remove_oldest_ended(false);
            seen += 1;
        }
        while seen < budget && self.deliveries.first_expiry().is_some_and(|expires_at| expires_at <= now) {
            self.deliveries.remove_first();
            seen += 1;
        }
        while seen < budget
            && let Some(freed) = self.observers.expire(now)
        {
            self.bytes -= freed;
            seen += 1;
        }
        while seen < budget
            && let Some((due, _)) = self.idle.first()
            && *due <= now
            && let Some((_, name)) = self.idle.pop_first()
        {
            seen += 1;
            self.expire_journal(&name, now, limits.journal_ttl);
            let Some(conversation) = self.conversations.get(&name) else { continue };
            let due = conversation.touched + limits.journal_ttl;
            if due > now {
                self.idle.insert((due, name));
            } else if !self.forget(&name, now) {
                self.idle.insert((now + limits.journal_ttl, name));
            }
        }
        if seen > 0 {
            self.shrink();
        }
        seen
    }

    /// Evicts the ended message or settled delivery that would expire first. The journal up to a message's end goes
    /// with it. If there is none, the conversation that was idle longest goes. Returns false if all the rest is open
    /// or pending.
    pub(super) fn evict(&mut self, now: Timestamp, limits: &MemoryLimits) -> bool {
        loop {
            let (message, delivery) = (self.ended.front(), self.deliveries.first_expiry());
            match (message.map(|&(expires_at, _)| expires_at), delivery) {
                (None, None) => break,
                (Some(message), delivery) if delivery.is_none_or(|delivery| message <= delivery) => {
                    if self.remove_oldest_ended(true) {
                        return true;
                    }
                }
                _ => {
                    self.deliveries.remove_first();
                    return true;
                }
            }
        }
        // If every conversation is open, a search is useless, and a refusal must stay cheap.
        if self.conversations.len() <= self.ready.len() {
            return false;
        }
        // A conversation that cannot go moves behind, so one round is enough.
        for _ in 0..self.idle.len() {
            let Some((due, name)) = self.idle.pop_first() else { return false };
            let Some(conversation) = self.conversations.get(&name) else { continue };
            let real = conversation.touched + limits.journal_ttl;
            if real <= due && self.forget(&name, now) {
                return true;
            }
            self.idle.insert((real.max(due + Duration::from_millis(1)), name));
        }
        false
    }

    /// Removes the message that ended first. With `with_journal` the journal up to its end goes too.
    fn remove_oldest_ended(&mut self, with_journal: bool) -> bool {
        let Some((at, id)) = self.ended.pop_front() else { return false };
        let Some(stored) = self.messages.get(&id) else { return false };
        let Some(seq) = stored.end.as_ref().filter(|end| end.expires_at == at).map(|end| end.seq) else {
            return false;
        };
        if with_journal
            && let Some(conversation) = self.conversations.get_mut(&stored.message.accepted.new.conversation)
        {
            while let Some(old) = conversation.pop_until(seq) {
                self.bytes -= freed(&old, &self.messages);
            }
        }
        self.remove_message(id);
        true
    }

    pub(super) fn remove_message(&mut self, id: MessageId) {
        let Some(stored) = self.messages.remove(&id) else { return };
        let Message { accepted, progress } = &stored.message;
        self.bytes -= weight::message(accepted);
        let conversation = self.conversations.get(&accepted.new.conversation);
        for reply in &progress.replies {
            if !conversation.is_some_and(|conversation| conversation.has_entry_of(reply)) {
                self.bytes -= weight::reply(reply);
            }
        }
        if let Some((digest, _)) = stored.key {
            self.bytes -= weight::KEY;
            // A later message may have taken over the key.
            if self.keys.get(&digest) == Some(&id) {
                self.keys.remove(&digest);
            }
        }
    }

    pub(super) fn expire_journal(&mut self, name: &ConversationId, now: Timestamp, ttl: Duration) {
        let Some(conversation) = self.conversations.get_mut(name) else { return };
        if now < conversation.last_entry_at + ttl || !conversation.lane.is_empty() {
            return;
        }
        while let Some(old) = conversation.pop_entry() {
            self.bytes -= freed(&old, &self.messages);
        }
    }

    /// Forgets a conversation that was idle for `ttl`, also before a sweep.
    pub(super) fn expire_conversation(&mut self, name: &ConversationId, now: Timestamp, ttl: Duration) {
        if self.conversations.get(name).is_some_and(|held| held.touched + ttl <= now) {
            self.forget(name, now);
        }
    }

    /// Forgets a conversation. It stays if it has open messages, or if its next `clientMessageId` would not rise
    /// without it.
    fn forget(&mut self, name: &ConversationId, now: Timestamp) -> bool {
        let Some(conversation) = self.conversations.get_mut(name) else { return true };
        if !conversation.lane.is_empty() || conversation.last_client_message_id >= now.as_millis() {
            return false;
        }
        while let Some(old) = conversation.pop_entry() {
            self.bytes -= freed(&old, &self.messages);
        }
        self.bytes -= weight::conversation(name) + weight::record(conversation.record.as_ref());
        self.conversations.remove(name);
        true
    }

    /// Gives back the memory of a burst.
    fn shrink(&mut self) {
        macro_rules! shrink {
            ($($map:ident)*) => { $(
                if self.$map.capacity() > 64 && self.$map.len() * 4 < self.$map.capacity() {
                    self.$map.shrink_to_fit();
                }
            )* };
        }
        shrink!(conversations messages keys ready ended);
        self.deliveries.shrink();
    }
}

/// Returns the size that the end of an entry frees. A reply counts only if no message holds it.
pub(super) fn freed(entry: &JournalEntry, messages: &HashMap<MessageId, Box<MessageEntry>>) -> usize {
    let bare = weight::bare_entry(entry);
    match &entry.body {
        EntryBody::Reply(reply) => {
            let stored = reply.in_reply_to.and_then(|id| messages.get(&id)).is_some_and(|stored| {
                stored.message.progress.replies.iter().any(|joined| Arc::ptr_eq(joined, reply))
            });
            if stored { bare } else { bare + weight::reply(reply) }
        }
        _ => bare,
    }
}
