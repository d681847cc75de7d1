//! How a partition of the memory store accepts a message: repeat, idempotency, room in the lane and in memory.

use std::sync::Arc;

use super::partition_contents::{MessageEntry, PartitionContents, conversation};
use super::{MemoryLimits, weight};
use crate::domain::{AcceptedMessage, Message, MessageProgress, Timestamp};
use crate::store::{AcceptError, AcceptRequest, AcceptResult, Fence};

impl PartitionContents {
    /// Decides whether a message may be accepted. Returns `Some` for one that was accepted before.
    pub(super) fn check_accept(
        &mut self,
        accept: &AcceptRequest,
        room: usize,
        now: Timestamp,
    ) -> Result<Option<AcceptResult>, AcceptError> {
        let conversation = &accept.message.conversation;
        let watcher = accept.watched.then_some(accept.by);
        if let Some(first) = self.live_message(accept.id, now) {
            let same = first.message.accepted.new.conversation == *conversation;
            return if same {
                let sent = accept.send_at_accept
                    && self.is_valid_fence(accept.owner)
                    && first.message.progress.sent_at.is_some();
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
            && let Some(first) = self.live_message(id, now)
            && !(key.is_open_only() && first.message.progress.has_ended())
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

    /// Returns whether this fence is valid.
    fn is_valid_fence(&self, fence: Option<Fence>) -> bool {
        fence.is_some_and(|fence| self.lease.check(fence).is_ok())
    }

    /// Accepts a message that is new.
    pub(super) fn insert(
        &mut self,
        accept: AcceptRequest,
        now: Timestamp,
        limits: &MemoryLimits,
    ) -> AcceptResult {
        let AcceptRequest { id, message: mut new, idempotency, by, watched, owner, send_at_accept, .. } =
            accept;
        let holds = send_at_accept && self.is_valid_fence(owner);
        // An expired message may not be swept yet.
        self.remove_message(id);
        self.expire_conversation(&new.conversation, now, limits.journal_ttl);
        let key = idempotency.map(|key| (key.digest(&new.conversation), key.body));
        // All messages of the conversation share one copy of its names.
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
        self.messages.insert(id, Box::new(MessageEntry { message, key, end: None, watchers }));
        if sent { AcceptResult::SentAtAccept(accepted) } else { AcceptResult::New(accepted) }
    }
}
