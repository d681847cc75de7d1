//! An event stream as the body of a response.
//!
//! The body is polled only while the connection takes its bytes. The next page is therefore read when the previous one
//! is on its way. A reader that takes nothing costs one page and its buffer in the hub. Between two events the stream
//! is small: memory for a page lives as long as the page.
//!
//! A reader whose connection stands still is not polled and cannot end itself. Its connection is cut (see
//! `detached_stream`).

use std::convert::Infallible;
use std::time::Duration;

use actix_web::body::{BodyStream, BoxBody};
use actix_web::web::Data;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::stream_feed::{FeedStep, StreamFeed};
use super::stream_memory::StreamMemory;
use crate::domain::{ConversationId, JournalPage, ReadStart, SharePermit};
use crate::http::ApiContext;
use crate::http::concurrency_limit::ConcurrencyPermit;
use crate::hub::{HubError, Subscription};
use crate::metrics::StreamEndReason;

/// Longest silence of a stream before it sends a comment.
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Delay of a retry if the store does not answer, or memory is scarce.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// An open stream.
pub(super) struct EventStream {
    pub(super) context: Data<ApiContext>,
    pub(super) conversation: ConversationId,
    pub(super) subscription: Subscription,
    pub(super) feed: StreamFeed,
    pub(super) memory: StreamMemory,
    /// The end of the caller's right to read.
    pub(super) access: StreamAccess,
    pub(super) _places: StreamPlaces,
}

/// The right of a caller to read a stream.
pub(super) struct StreamAccess {
    /// Cancelled when a reload takes the caller away, or its rights.
    pub(super) revoked: CancellationToken,
    /// The end of a read token.
    pub(super) until: Option<Instant>,
}

impl StreamAccess {
    /// Returns when the right has ended.
    async fn ended(&self) {
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = async {
                match self.until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// The places of a stream.
pub(super) struct StreamPlaces {
    /// The place among all streams.
    pub(super) _all: ConcurrencyPermit,
    /// The caller's share of all streams.
    pub(super) _share: SharePermit,
    /// The place among the caller's open requests.
    pub(super) _open: Option<ConcurrencyPermit>,
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
                    self.stream.memory.page_written();
                    let due = self.last_write_at + self.stream.context.keep_alive;
                    tokio::select! {
                        live = self.stream.subscription.next() => {
                            if live.is_none() {
                                self.end = self.stream.end_reason();
                            }
                            self.stream.feed.signal_received(live);
                        }
                        () = sleep_until(due) => self.stream.feed.keep_alive(),
                        () = self.stream.access.ended() => {
                            self.end = StreamEndReason::Revoked;
                            return None;
                        }
                    }
                }
                FeedStep::End => return None,
            }
        }
    }

    /// Handles a failed read of a page. A store that does not answer is asked again, because dropped readers would only
    /// come back at once. So is one without memory for the page. Returns `None` if the stream must end.
    async fn read_failed(&mut self, error: &HubError) -> Option<()> {
        let passing = match error {
            HubError::Store(error) => error.is_passing(),
            error => matches!(error, HubError::Overloaded(_)),
        };
        if !passing {
            error!(%error, "an event stream failed: its next page cannot be read");
            self.end = StreamEndReason::Failed;
            return None;
        }
        if self.stream.context.hub.is_draining() {
            self.end = StreamEndReason::Drained;
            return None;
        }
        debug!(%error, "an event stream waits for its next page");
        sleep(STORE_RETRY).await;
        if self.last_write_at.elapsed() >= self.stream.context.keep_alive {
            self.stream.feed.keep_alive();
        }
        Some(())
    }
}

impl EventStream {
    async fn read(&mut self, after: ReadStart) -> Result<JournalPage, HubError> {
        self.memory.read(&self.context.hub, &self.conversation, after).await
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
