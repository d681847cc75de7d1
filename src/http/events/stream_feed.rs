//! What a stream of events says, in which order.
//!
//! Pure: the value is told what was read and what happened, and says what to write, to read or to wait for next.
//! Entries come from pages only, each read behind the one before, so each is written once and in order; what comes
//! live merely says when to read again, or is a piece of a reply that no cursor counts.
//!
//! A client that comes back names the last `id` it was last_id. So every place the stream reaches is last_id as one:
//! with the entry that stands there, or alone where there is nothing to tell of it. Else a client that began at the
//! end, or whose newest entries were none of its business, would come back to somewhere else.

use std::vec;

use bytes::Bytes;

use super::event_view::{EventView, write_id};
use crate::domain::{
    ConversationId, Cursor, EntryWithMessage, EventKind, JournalPage, LiveSignal, ReadStart,
};

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FeedStep {
    /// Write this; it is an event of this type, if it is one.
    Write(Bytes, Option<EventKind>),
    /// Read the page behind this place, and tell it with [`StreamFeed::page`].
    Read(ReadStart),
    /// Wait for what comes live, and tell it with [`StreamFeed::live`]; or say [`StreamFeed::keep_alive`].
    Wait,
    /// All is said.
    End,
}

/// The state of a stream.
#[derive(Debug)]
pub(super) struct StreamFeed {
    conversation: ConversationId,
    /// What comes before anything else, and between: written first.
    pending: Option<(Vec<u8>, Option<EventKind>)>,
    /// Entries of the last page that are not written yet.
    entries: vec::IntoIter<EntryWithMessage>,
    /// Entries are missing before these.
    gap: bool,
    /// The epoch of the last page, and where the next one begins.
    next: Cursor,
    /// The place the client knows to have reached.
    last_id: Option<Cursor>,
    /// There may be more behind `next`.
    behind: bool,
    /// Nothing comes live any more: what is there now is all that will be said.
    ended: bool,
}

impl StreamFeed {
    /// A stream that begins with this page. A client that loses it is asked to wait for `retry` milliseconds before
    /// it comes back.
    pub(super) fn new(conversation: ConversationId, first: JournalPage, retry: u32) -> Self {
        let mut feed = Self {
            conversation,
            pending: Some((format!("retry: {retry}\n\n").into_bytes(), None)),
            entries: Vec::new().into_iter(),
            gap: false,
            next: first.next,
            last_id: None,
            behind: false,
            ended: false,
        };
        feed.page_read(first);
        feed
    }

    /// What is to be done next.
    pub(super) fn step(&mut self) -> FeedStep {
        if let Some((bytes, kind)) = self.pending.take() {
            return FeedStep::Write(bytes.into(), kind);
        }
        if std::mem::take(&mut self.gap) {
            // Who comes back with this begins with the entries that are kept, and is not told of the gap again.
            let before = self.entries.as_slice().first().map_or(self.next.seq, |told| told.entry.seq - 1);
            let id = Cursor { seq: before, at: None, ..self.next };
            self.last_id = Some(id);
            return written(&EventView::gap(), id);
        }
        for told in self.entries.by_ref() {
            if let Some(event) = EventView::from_entry(&told, &self.conversation) {
                let id = Cursor::behind(self.next.epoch, &told.entry);
                self.last_id = Some(id);
                return written(&event, id);
            }
        }
        // The page's memory is not kept while nothing happens.
        self.entries = Vec::new().into_iter();
        if self.last_id != Some(self.next) {
            self.last_id = Some(self.next);
            let mut id = Vec::new();
            write_id(self.next, &mut id);
            id.push(b'\n');
            return FeedStep::Write(id.into(), None);
        }
        match (self.behind, self.ended) {
            (true, _) => FeedStep::Read(ReadStart::Cursor(self.next)),
            (false, true) => FeedStep::End,
            (false, false) => FeedStep::Wait,
        }
    }

    /// A page was read.
    pub(super) fn page_read(&mut self, page: JournalPage) {
        let JournalPage { entries, next, more, gap } = page;
        self.entries = entries.into_iter();
        self.gap = gap;
        self.next = next;
        self.behind = more;
    }

    /// Something came live; none where nothing will any more.
    pub(super) fn signal_received(&mut self, signal: Option<LiveSignal>) {
        match signal {
            Some(LiveSignal::Look) => self.behind = true,
            Some(LiveSignal::Chunk(chunk)) => {
                let mut bytes = Vec::new();
                let event = EventView::from_chunk(&chunk);
                event.write(None, &mut bytes);
                self.pending = Some((bytes, Some(event.kind)));
            }
            None => {
                self.behind = true;
                self.ended = true;
            }
        }
    }

    /// Nothing was written for a while: a comment, so that everybody on the way sees that the stream lives.
    pub(super) fn keep_alive(&mut self) {
        self.pending = Some((b":\n\n".to_vec(), None));
    }
}

fn written(event: &EventView<'_>, id: Cursor) -> FeedStep {
    let mut bytes = Vec::new();
    event.write(Some(id), &mut bytes);
    FeedStep::Write(bytes.into(), Some(event.kind))
}

#[cfg(test)]
mod tests;
