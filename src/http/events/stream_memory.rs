//! The memory of an event stream: a part of the budget of requests and answers.

use std::sync::Arc;

use crate::domain::{ConversationId, FairShare, JournalPage, ReadStart, SharePermit};
use crate::hub::{Hub, HubError};

/// Entries of a page, and most entries that a stream holds in memory.
const PAGE_ENTRIES: usize = 100;
/// The memory of a stream between two events.
const STREAM_BYTES: usize = 4 << 10;
/// The memory that a read needs to begin. Most pages are smaller.
const READ_BYTES: usize = 64 << 10;

const SCARCE: HubError = HubError::Overloaded("memory of event streams");

/// The memory of a stream, and the size of pages that fit into it.
#[derive(Debug)]
pub(super) struct StreamMemory {
    permit: SharePermit,
    /// Entries of the next page. It shrinks as long as pages do not fit.
    entries: usize,
}

impl StreamMemory {
    /// Takes the memory of a stream of this caller.
    ///
    /// # Errors
    /// [`HubError::Overloaded`].
    pub(super) fn acquire(memory: &Arc<FairShare>, caller: Option<usize>) -> Result<Self, HubError> {
        let permit = memory.acquire(caller, STREAM_BYTES).ok_or(SCARCE)?;
        Ok(Self { permit, entries: PAGE_ENTRIES })
    }

    /// Reads a page, and holds its memory until [`StreamMemory::page_written`].
    ///
    /// # Errors
    /// [`HubError::Overloaded`] without room for the page, [`HubError::Store`].
    pub(super) async fn read(
        &mut self,
        hub: &Hub,
        conversation: &ConversationId,
        after: ReadStart,
    ) -> Result<JournalPage, HubError> {
        self.page_written();
        // The room is taken first, because thousands of streams may read at once.
        let room = self.permit.try_grow(READ_BYTES);
        let page = if room { hub.page(conversation, after, self.entries, true).await } else { Err(SCARCE) };
        self.page_written();
        let page = page?;
        if !self.permit.try_grow(page.weight()) {
            self.entries = (self.entries / 2).max(1);
            return Err(SCARCE);
        }
        self.entries = PAGE_ENTRIES;
        Ok(page)
    }

    /// Gives the memory of the page back.
    pub(super) fn page_written(&mut self) {
        self.permit.shrink_to(STREAM_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::fixtures::sandbox_conversation;
    use crate::store::{MemoryLimits, Store};

    #[tokio::test]
    async fn stream_reads_only_with_room_for_a_page() {
        let hub = Hub::closed(Store::memory(MemoryLimits::new(0, Duration::ZERO)));
        let conversation = sandbox_conversation("alice");
        let budget = FairShare::new(READ_BYTES + STREAM_BYTES, 0);
        let mut stream = StreamMemory::acquire(&budget, None).unwrap();
        stream.read(&hub, &conversation, ReadStart::Oldest).await.unwrap();
        assert_eq!(budget.taken(), STREAM_BYTES, "an empty page takes nothing");
        let other = budget.acquire(None, 1).unwrap();
        let refused = stream.read(&hub, &conversation, ReadStart::Oldest).await;
        assert!(matches!(refused, Err(HubError::Overloaded(_))), "{refused:?}");
        assert_eq!(budget.taken(), STREAM_BYTES + 1);
        drop((other, stream));
        assert_eq!(budget.taken(), 0);
    }
}
