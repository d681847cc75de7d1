//! What is kept of one conversation: its record, its lane and its journal.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::{ConversationRecord, EntryBody, JournalEntry, MessageId, ReadStart, Reply, Timestamp};

/// One conversation. Small when idle: buffers are given back, what messages share with the journal is shared.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// None until the first write.
    pub(super) record: Option<ConversationRecord>,
    /// Whether the last write named a message that is not here any more: a repeat of it is told so again.
    pub(super) lost: bool,
    /// Until when a new owner should open a link although nothing is open.
    pub(super) warm_until: Option<Timestamp>,
    /// Open messages, head first.
    pub(super) lane: VecDeque<MessageId>,
    /// When the first of the lane became its head.
    pub(super) head_at: Option<Timestamp>,
    /// What the next accepted message will have.
    pub(super) next_position: u64,
    /// Of the message accepted last.
    pub(super) last_client_message_id: u64,
    /// When something was last accepted or written.
    pub(super) touched: Timestamp,
    /// When the newest entry of the journal was appended.
    pub(super) last_entry_at: Timestamp,
    /// Entries, oldest first.
    journal: VecDeque<JournalEntry>,
    /// The sum of the entries' weights.
    journal_bytes: usize,
}

impl Conversation {
    /// Gives the next message its place and its `clientMessageId`; the lane's first becomes its head now.
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

    /// Takes a message out of the lane; false where it is not in it. The next head is one since `at`.
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

    /// The number of the last write that was carried out; 0 where no write was.
    pub(super) fn last_write(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.write)
    }

    pub(super) fn append(&mut self, entry: JournalEntry, now: Timestamp) {
        self.journal_bytes += entry.weight();
        self.journal.push_back(entry);
        self.last_entry_at = now;
    }

    /// Takes out the oldest entry if the journal is over one of its bounds. The newest always stays.
    pub(super) fn trim(&mut self, entries: usize, bytes: usize) -> Option<JournalEntry> {
        if self.journal.len() > 1 && (self.journal.len() > entries || self.journal_bytes > bytes) {
            self.pop_entry()
        } else {
            None
        }
    }

    /// Takes out the oldest entry if it stands at `seq` or before.
    pub(super) fn pop_until(&mut self, seq: u64) -> Option<JournalEntry> {
        if self.journal.front()?.seq <= seq { self.pop_entry() } else { None }
    }

    /// Takes out the oldest entry.
    pub(super) fn pop_entry(&mut self) -> Option<JournalEntry> {
        let entry = self.journal.pop_front()?;
        self.journal_bytes -= entry.weight();
        if self.journal.capacity() > 16 && self.journal.len() * 4 < self.journal.capacity() {
            self.journal.shrink_to_fit();
        }
        Some(entry)
    }

    /// Whether the journal still has the entry of this very reply.
    pub(super) fn tells(&self, reply: &Arc<Reply>) -> bool {
        self.journal
            .binary_search_by_key(&reply.seq, |entry| entry.seq)
            .ok()
            .and_then(|place| self.journal.get(place))
            .is_some_and(|entry| matches!(&entry.body, EntryBody::Reply(told) if Arc::ptr_eq(told, reply)))
    }

    /// When the entry was written that a reader stands behind who begins here; none where it is not kept.
    pub(super) fn stood(&self, after: ReadStart) -> Option<Timestamp> {
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

    /// The entries after a place, oldest first.
    pub(super) fn entries_after(&self, seq: u64) -> impl Iterator<Item = &JournalEntry> {
        self.journal.range(self.journal.partition_point(|entry| entry.seq <= seq)..)
    }
}
