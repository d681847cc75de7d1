//! One conversation in memory: its record, lane and journal.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::{
    ConversationRecord, EntryBody, Fingerprint, JournalEntry, MessageId, ReadStart, RecentReplies, Reply,
    Timestamp,
};

/// One conversation. It is small when idle: buffers are given back, and messages and journal share their content.
#[derive(Debug, Default)]
pub(super) struct ConversationEntry {
    /// The record; `None` until the first write.
    pub(super) record: Option<ConversationRecord>,
    /// Whether the last write named a missing message. A repeat returns it again.
    pub(super) lost: bool,
    /// The time until which a new owner opens a link without an open message.
    pub(super) warm_until: Option<Timestamp>,
    /// Open messages, head first.
    pub(super) lane: VecDeque<MessageId>,
    /// The time at which the first message became the head.
    pub(super) head_at: Option<Timestamp>,
    /// The position of the next accepted message.
    pub(super) next_position: u64,
    /// The `clientMessageId` of the last accepted message.
    pub(super) last_client_message_id: u64,
    /// The time of the last accept or write.
    pub(super) touched: Timestamp,
    /// The time of the newest journal entry.
    pub(super) last_entry_at: Timestamp,
    /// Entries, oldest first.
    journal: VecDeque<JournalEntry>,
    /// The sum of the entries' weights.
    journal_bytes: usize,
}

impl ConversationEntry {
    /// Adds a message to the lane and returns its position and `clientMessageId`. The first of the lane becomes the
    /// head.
    pub(super) fn enqueue(&mut self, id: MessageId, now: Timestamp) -> (u64, u64) {
        let position = self.next_position;
        self.next_position += 1;
        self.last_client_message_id = now.as_millis().max(self.last_client_message_id + 1);
        if self.lane.is_empty() {
            self.head_at = Some(now);
        }
        self.lane.push_back(id);
        self.touched = now;
        (position, self.last_client_message_id)
    }

    /// Returns the ids of the journal's replies, oldest first. Returns none if the record has all of them.
    pub(super) fn journaled_replies(&self) -> Vec<Fingerprint> {
        if self.journal.len() <= RecentReplies::KEPT {
            return Vec::new();
        }
        let replies = self.journal.iter().filter_map(|entry| match &entry.body {
            EntryBody::Reply(reply) => reply.message_id.as_deref(),
            _ => None,
        });
        replies.map(Fingerprint::of).collect()
    }

    /// Removes a message from the lane; false if it is not in it. The next head is the head since `at`.
    pub(super) fn dequeue(&mut self, id: MessageId, at: Timestamp) -> bool {
        let Some(place) = self.lane.iter().position(|&open| open == id) else { return false };
        self.lane.remove(place);
        if self.lane.is_empty() {
            self.head_at = None;
            self.lane = VecDeque::new();
        } else if place == 0 {
            self.head_at = Some(at);
        }
        true
    }

    /// Returns the number of the last write; 0 before the first one.
    pub(super) fn last_write(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.write)
    }

    pub(super) fn append(&mut self, entry: JournalEntry, now: Timestamp) {
        self.journal_bytes += entry.weight();
        self.journal.push_back(entry);
        self.last_entry_at = now;
    }

    /// Removes the oldest entry if the journal exceeds a bound. The newest entry always stays.
    pub(super) fn trim(&mut self, entries: usize, bytes: usize) -> Option<JournalEntry> {
        if self.journal.len() > 1 && (self.journal.len() > entries || self.journal_bytes > bytes) {
            self.pop_entry()
        } else {
            None
        }
    }

    /// Removes the oldest entry if it stands at `seq` or before.
    pub(super) fn pop_until(&mut self, seq: u64) -> Option<JournalEntry> {
        if self.journal.front()?.seq <= seq { self.pop_entry() } else { None }
    }

    pub(super) fn pop_entry(&mut self) -> Option<JournalEntry> {
        let entry = self.journal.pop_front()?;
        self.journal_bytes -= entry.weight();
        if self.journal.capacity() > 16 && self.journal.len() * 4 < self.journal.capacity() {
            self.journal.shrink_to_fit();
        }
        Some(entry)
    }

    /// Returns whether the journal still has the entry of this very reply.
    pub(super) fn has_entry_of(&self, reply: &Arc<Reply>) -> bool {
        self.journal
            .binary_search_by_key(&reply.seq, |entry| entry.seq)
            .ok()
            .and_then(|place| self.journal.get(place))
            .is_some_and(|entry| matches!(&entry.body, EntryBody::Reply(told) if Arc::ptr_eq(told, reply)))
    }

    /// Returns the time of the entry at the reader's place; `None` if it is not stored.
    pub(super) fn entry_time(&self, after: ReadStart) -> Option<Timestamp> {
        let entry = match after {
            ReadStart::Oldest => None,
            ReadStart::Latest => self.journal.back(),
            ReadStart::Cursor(cursor) => {
                let place = self.journal.binary_search_by_key(&cursor.seq, |entry| entry.seq);
                place.ok().and_then(|place| self.journal.get(place))
            }
        };
        entry.map(|entry| entry.at)
    }

    /// Returns the entries after a place, oldest first.
    pub(super) fn entries_after(&self, seq: u64) -> impl Iterator<Item = &JournalEntry> {
        self.journal.range(self.journal.partition_point(|entry| entry.seq <= seq)..)
    }
}
