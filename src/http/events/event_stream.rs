//! An event stream as the body of a response.
//!
//! The body is polled only while the connection takes its bytes. The next page is therefore read when the previous one
//! is on its way. A reader that takes nothing costs one page and its buffer in the hub. Between two events the stream
//! is small: memory for a page lives as long as the page.
//!
//! A reader whose connection stands still is not polled and cannot end itself. The system cuts its connection (see
//! `api_server`).

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

/// Longest silence of a stream before it sends a comment.
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Entries of a page, and most entries that a stream holds in memory.
pub(super) const PAGE_ENTRIES: usize = 100;

/// Delay of a retry if the store does not answer.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// An open stream.
pub(super) struct EventStream {
    pub(super) context: Data<ApiContext>,
    pub(super) conversation: ConversationId,
    pub(super) subscription: Subscription,
    pub(super) feed: StreamFeed,
    /// Permits of all streams, and of the caller's open requests.
    pub(super) _permits: (ConcurrencyPermit, Option<ConcurrencyPermit>),
}

struct EventStreamBody {
    stream: EventStream,
    /// Time of the last write.
    last_write_at: Instant,
    end: StreamEndReason,
}

impl EventStream {
    /// Returns the response body of this stream.
    pub(super) fn into_body(self) -> BoxBody {
        self.context.metrics.event_streams.open.inc();
        let body =
            EventStreamBody { stream: self, last_write_at: Instant::now(), end: StreamEndReason::Gone };
        // On the heap, because a future keeps two copies of a value that is moved into it.
        BoxBody::new(BodyStream::new(stream::unfold(Box::new(body), async |mut body| {
            let piece = body.next().await?;
            Some((Ok::<_, Infallible>(piece), body))
        })))
    }
}

impl EventStreamBody {
    /// Returns the next bytes, or `None` at the end.
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
                // On the heap while it is needed: this future is larger than all others here.
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

    /// Handles a failed read of a page. A store that does not answer is asked again, because dropped readers would only
    /// come back at once. Returns `None` if the stream must end.
    async fn read_failed(&mut self, error: &HubError) -> Option<()> {
        if !matches!(error, HubError::Store(error) if error.is_passing()) {
            error!(%error, "an event stream failed: its next page cannot be read");
            self.end = StreamEndReason::Failed;
            return None;
        }
        if self.stream.context.hub.is_draining() {
            self.end = StreamEndReason::Drained;
            return None;
        }
        debug!(%error, "an event stream waits for the store");
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
