//! A stream of events as the body of a response.
//!
//! The body is polled only while the connection takes what it gives, so a page is read when the one before is on its
//! way, and a reader that takes nothing costs one page and what the hub keeps for it. Between two events it is small:
//! what is needed to read a page is made for that page.
//!
//! A reader whose connection stands still is not polled at all, and cannot end itself. The system does that: see
//! `server`, which lets no peer leave what was sent unacknowledged.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::body::{BodyStream, BoxBody};
use actix_web::web::Data;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error};

use super::stream_feed::{FeedStep, StreamFeed};
use crate::domain::{ConversationId, JournalPage, ReadStart};
use crate::http::ApiContext;
use crate::http::concurrency_limit::ConcurrencyPermit;
use crate::hub::{HubError, Subscription};
use crate::metrics::StreamEndReason;

/// Between two signs of life in a stream that has nothing to say.
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Entries read at a time: a stream keeps no more in memory than these.
pub(super) const PAGE_ENTRIES: usize = 100;

/// After a store that did not answer is asked again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// An open stream.
pub(super) struct EventStream {
    pub(super) context: Data<ApiContext>,
    pub(super) conversation: ConversationId,
    pub(super) subscription: Subscription,
    pub(super) feed: StreamFeed,
    /// Among the streams, and among the caller's requests.
    pub(super) _permits: (ConcurrencyPermit, Option<ConcurrencyPermit>),
}

struct EventStreamBody {
    stream: EventStream,
    /// When the last piece was given.
    last_write_at: Instant,
    end: StreamEndReason,
}

impl EventStream {
    /// The body of its response.
    pub(super) fn into_body(self) -> BoxBody {
        self.context.metrics.event_streams.open.inc();
        let body =
            EventStreamBody { stream: self, last_write_at: Instant::now(), end: StreamEndReason::Gone };
        // On the heap: what is moved into a future is kept twice by it.
        BoxBody::new(BodyStream::new(stream::unfold(Box::new(body), async |mut body| {
            let piece = body.next().await?;
            Some((Ok::<_, Infallible>(piece), body))
        })))
    }
}

impl EventStreamBody {
    /// What is written next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.stream.feed.step() {
                FeedStep::Write(bytes, kind) => {
                    if let Some(kind) = kind {
                        self.stream.context.metrics.event_streams.event_sent(kind);
                    }
                    self.last_write_at = Instant::now();
                    return Some(bytes);
                }
                // On the heap while it is needed: it is larger than all the rest.
                FeedStep::Read(after) => match Box::pin(self.stream.read(after)).await {
                    Ok(page) => self.stream.feed.page_read(page),
                    Err(error) => self.read_failed(&error).await?,
                },
                FeedStep::Wait => {
                    let due = self.last_write_at + self.stream.context.keep_alive;
                    tokio::select! {
                        live = self.stream.subscription.next() => {
                            if live.is_none() {
                                self.end = self.stream.end_reason();
                            }
                            self.stream.feed.signal_received(live);
                        }
                        () = sleep_until(due) => self.stream.feed.keep_alive(),
                    }
                }
                FeedStep::End => return None,
            }
        }
    }

    /// A page could not be read. That of a store that is away is read again: to send everybody away would only bring
    /// them back at once. None where the stream must end.
    async fn read_failed(&mut self, error: &HubError) -> Option<()> {
        if !matches!(error, HubError::Store(error) if error.is_passing()) {
            error!(%error, "a stream could not be read on");
            self.end = StreamEndReason::Failed;
            return None;
        }
        if self.stream.context.hub.is_draining() {
            self.end = StreamEndReason::Drained;
            return None;
        }
        debug!(%error, "a stream waits for the store");
        sleep(STORE_RETRY).await;
        if self.last_write_at.elapsed() >= self.stream.context.keep_alive {
            self.stream.feed.keep_alive();
        }
        Some(())
    }
}

impl EventStream {
    async fn read(&self, after: ReadStart) -> Result<JournalPage, HubError> {
        self.context.hub.page(&self.conversation, after, PAGE_ENTRIES, true).await
    }

    fn end_reason(&self) -> StreamEndReason {
        if self.context.hub.is_draining() { StreamEndReason::Drained } else { StreamEndReason::Slow }
    }
}

impl Drop for EventStreamBody {
    fn drop(&mut self) {
        let streams = &self.stream.context.metrics.event_streams;
        streams.open.dec();
        streams.ended(self.end);
    }
}
