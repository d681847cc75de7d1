//! The pages of a reader, without the events that it does not want.
//!
//! A page ends where its events end, not where its entries do. So it reads on behind entries that it leaves out, and its
//! cursor lies behind them. The journal's own bound, 1000 entries, bounds the reads.
//!
//! A read of the store is a small piece. The reads of a page behind the first take turns with those of others. The
//! page holds its memory until it is written.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::super::long_work::LongWork;
use super::event_filter::EventFilter;
use crate::domain::{
    ConversationId, Cursor, EntryWithMessage, EventKind, FairShare, JournalPage, LiveSignal, ReadStart,
    SharePermit,
};
use crate::hub::{Hub, HubError, Subscription};

/// Fewest entries of one read with a filter.
const READ_ENTRIES: usize = 100;
/// The limit of a page's weight, unless a single read has more.
const PAGE_BYTES: usize = 4 << 20;

/// A page for its reader.
#[derive(Debug)]
pub(super) struct ReaderPage {
    pub(super) page: JournalPage,
    /// An event behind the page that the journal does not have.
    pub(super) live: Option<Arc<RawValue>>,
    _memory: SharePermit,
}

/// A reader of pages.
#[derive(Debug)]
pub(super) struct PageReader<'a> {
    pub(super) hub: &'a Hub,
    pub(super) conversation: &'a ConversationId,
    pub(super) filter: EventFilter,
    /// Most events of a page.
    pub(super) limit: usize,
    pub(super) work: &'a LongWork,
    /// The memory of requests and answers.
    pub(super) memory: &'a Arc<FairShare>,
    /// The caller that reads.
    pub(super) holder: Option<usize>,
}

impl PageReader<'_> {
    /// Returns the first page with a wanted event within `wait`, or the last page that was read.
    ///
    /// # Errors
    /// [`HubError::Overloaded`] without memory for the page, [`HubError::Store`].
    pub(super) async fn long_poll(
        &self,
        after: ReadStart,
        wait: Option<Duration>,
    ) -> Result<ReaderPage, HubError> {
        let mut memory = Arc::clone(self.memory).empty_permit(self.holder);
        let Some(wait) = wait else {
            let page = self.read(after, false, &mut memory).await?;
            return Ok(ReaderPage { page, live: None, _memory: memory });
        };
        let until = Instant::now() + wait;
        let mut subscription = match self.hub.subscribe(self.conversation).await {
            Ok(subscription) => subscription,
            // A draining replica starts no wait.
            Err(HubError::Draining) => {
                let page = self.read(after, false, &mut memory).await?;
                return Ok(ReaderPage { page, live: None, _memory: memory });
            }
            Err(error) => return Err(error),
        };
        let mut after = after;
        loop {
            memory.shrink_to(0);
            let page = self.read(after, true, &mut memory).await?;
            if page.gap || page.entries.iter().any(|item| self.filter.covers_entry(item)) {
                return Ok(ReaderPage { page, live: None, _memory: memory });
            }
            after = ReadStart::Cursor(page.next);
            if page.more {
                continue;
            }
            let live = match self.wait(&mut subscription, until).await {
                WaitEnd::Look => continue,
                WaitEnd::Live(event) => Some(event),
                WaitEnd::Over => None,
            };
            return Ok(ReaderPage { page, live, _memory: memory });
        }
    }

    /// Reads a page: until it is full or the journal ends.
    async fn read(
        &self,
        after: ReadStart,
        observed: bool,
        memory: &mut SharePermit,
    ) -> Result<JournalPage, HubError> {
        let read = if self.filter.is_partial() { self.limit.max(READ_ENTRIES) } else { self.limit };
        let mut page = self.hub.page(self.conversation, after, read, observed).await?;
        hold(memory, &page)?;
        let entries = std::mem::take(&mut page.entries);
        let mut full = self.take(&mut page, Cursor::default(), entries);
        while page.more && !full {
            let begin = page.next;
            let _turn = self.work.turn(self.holder).await;
            let further = self.hub.page(self.conversation, ReadStart::Cursor(begin), read, false).await?;
            // The next page begins with a gap, and with what this one has no room for.
            if further.gap || page.weight() + further.weight() > PAGE_BYTES {
                break;
            }
            hold(memory, &further)?;
            (page.next, page.more) = (further.next, further.more);
            full = self.take(&mut page, begin, further.entries);
        }
        Ok(page)
    }

    /// Adds the wanted ones of the entries behind `begin` to a page that ends behind all of them. If one does not fit, the
    /// page is full and ends before it.
    fn take(&self, page: &mut JournalPage, begin: Cursor, entries: Vec<EntryWithMessage>) -> bool {
        let (epoch, mut end) = (page.next.epoch, begin);
        for item in entries {
            let behind = Cursor::behind(epoch, &item.entry);
            if self.filter.covers_entry(&item) {
                if page.entries.len() == self.limit {
                    (page.next, page.more) = (end, true);
                    return true;
                }
                page.entries.push(item);
            }
            end = behind;
        }
        // Without a filter a full page needs no look at the entries behind it.
        !self.filter.is_partial() && page.entries.len() == self.limit
    }

    /// Waits for new entries, or for a live event that the reader wants.
    async fn wait(&self, subscription: &mut Subscription, until: Instant) -> WaitEnd {
        loop {
            match timeout_at(until, subscription.next()).await {
                Ok(Some(LiveSignal::Look)) => return WaitEnd::Look,
                Ok(Some(LiveSignal::Platform(event))) if self.filter.names(EventKind::Platform) => {
                    return WaitEnd::Live(event);
                }
                Ok(Some(LiveSignal::Platform(_) | LiveSignal::Chunk(_))) => {}
                Ok(None) | Err(_) => return WaitEnd::Over,
            }
        }
    }
}

/// Takes the memory of a page that was read.
fn hold(memory: &mut SharePermit, page: &JournalPage) -> Result<(), HubError> {
    if memory.try_grow(page.weight()) { Ok(()) } else { Err(HubError::Overloaded("memory of answers")) }
}

/// The end of a wait.
enum WaitEnd {
    /// There may be new entries.
    Look,
    /// The platform told an event that the journal does not keep.
    Live(Arc<RawValue>),
    /// The time is over, or the subscription has ended.
    Over,
}
