//! The content of an event stream, and its order.
//!
//! Pure. The feed takes pages and signals, and returns the next step: write, read or wait. Entries come from pages
//! only, and each page starts behind the last one. So each entry is written once and in order. A live signal only
//! starts another read, or carries a chunk of a reply, which no cursor counts.
//!
//! A client that reconnects names the last `id` that it got. So the stream sends each cursor that it reaches as an id,
//! with the entry there or alone. Otherwise a client without visible entries would resume at the wrong place.

use std::vec;

use bytes::Bytes;

use super::event_filter::EventFilter;
use super::event_view::{EventView, write_id};
use crate::domain::{
    ConversationId, Cursor, EntryWithMessage, EventKind, JournalPage, LiveSignal, ReadStart,
};

/// Next step of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FeedStep {
    /// Write these bytes; the kind is `None` if they are no event.
    Write(Bytes, Option<EventKind>),
    /// Read the page behind this place, then call [`StreamFeed::page_read`].
    Read(ReadStart),
    /// Wait for a live signal, then call [`StreamFeed::signal_received`] or [`StreamFeed::keep_alive`].
    Wait,
    /// The stream is over.
    End,
}

/// The state of a stream.
#[derive(Debug)]
pub(super) struct StreamFeed {
    conversation: ConversationId,
    filter: EventFilter,
    /// Bytes outside the journal, written first: the reconnect delay, chunks and comments.
    pending: Option<(Vec<u8>, Option<EventKind>)>,
    /// Entries of the last page that are not written yet.
    entries: vec::IntoIter<EntryWithMessage>,
    /// True if entries are missing before these.
    gap: bool,
    /// The cursor behind the last page.
    next: Cursor,
    /// The last cursor that the client got.
    last_id: Option<Cursor>,
    /// True if there may be entries behind `next`.
    behind: bool,
    /// True if no more live signals come. The stream ends after the entries that exist now.
    ended: bool,
}

impl StreamFeed {
    /// Creates a stream that begins with this page. A client that loses it reconnects after `retry` milliseconds.
    pub(super) fn new(
        conversation: ConversationId,
        filter: EventFilter,
        first: JournalPage,
        retry: u32,
    ) -> Self {
        let mut feed = Self {
            conversation,
            filter,
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

    /// Returns the next step.
    pub(super) fn step(&mut self) -> FeedStep {
        if let Some((bytes, kind)) = self.pending.take() {
            return FeedStep::Write(bytes.into(), kind);
        }
        if std::mem::take(&mut self.gap) && self.filter.covers(EventKind::Gap) {
            // This cursor lies before the kept entries, so a client that resumes there does not get the gap again.
            let before = self.entries.as_slice().first().map_or(self.next.seq, |item| item.entry.seq - 1);
            let id = Cursor { seq: before, at: None, ..self.next };
            self.last_id = Some(id);
            return written(&EventView::gap(), id);
        }
        for item in self.entries.by_ref() {
            if self.filter.covers_entry(&item)
                && let Some(event) = EventView::from_entry(&item, &self.conversation)
            {
                let id = Cursor::behind(self.next.epoch, &item.entry);
                self.last_id = Some(id);
                return written(&event, id);
            }
        }
        // Frees the page's memory for the time without events.
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

    /// Takes the page of [`FeedStep::Read`].
    pub(super) fn page_read(&mut self, page: JournalPage) {
        let JournalPage { entries, next, more, gap } = page;
        self.entries = entries.into_iter();
        self.gap = gap;
        self.next = next;
        self.behind = more;
    }

    /// Takes a live signal; `None` means that no more signals come.
    pub(super) fn signal_received(&mut self, signal: Option<LiveSignal>) {
        match signal {
            Some(LiveSignal::Look) => self.behind = true,
            Some(LiveSignal::Chunk(chunk)) if self.filter.covers(EventKind::Chunk) => {
                self.pending = Some(live(&EventView::from_chunk(&chunk)));
            }
            Some(LiveSignal::Platform(frame)) if self.filter.names(EventKind::Platform) => {
                self.pending = Some(live(&EventView::from_live(&frame)));
            }
            Some(LiveSignal::Chunk(_) | LiveSignal::Platform(_)) => {}
            None => {
                self.behind = true;
                self.ended = true;
            }
        }
    }

    /// Writes a comment, so that proxies see a live connection.
    pub(super) fn keep_alive(&mut self) {
        self.pending = Some((b":\n\n".to_vec(), None));
    }
}

/// Returns the bytes of an event that no cursor counts.
fn live(event: &EventView<'_>) -> (Vec<u8>, Option<EventKind>) {
    let mut bytes = Vec::new();
    event.write(None, &mut bytes);
    (bytes, Some(event.kind))
}

fn written(event: &EventView<'_>, id: Cursor) -> FeedStep {
    let mut bytes = Vec::new();
    event.write(Some(id), &mut bytes);
    FeedStep::Write(bytes.into(), Some(event.kind))
}

#[cfg(test)]
mod tests;
