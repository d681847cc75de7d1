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

use super::feed::{Feed, Step};
use crate::domain::{ConversationId, JournalPage, ReadStart};
use crate::http::Front;
use crate::http::admission::Admission;
use crate::hub::{HubError, Subscription};
use crate::metrics::StreamEndReason;

/// Between two signs of life in a stream that has nothing to say.
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Entries read at a time: a stream keeps no more in memory than these.
pub(super) const PAGE: usize = 100;

/// After a store that did not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// An open stream.
pub(super) struct Stream {
    pub(super) front: Data<Front>,
    pub(super) conversation: ConversationId,
    pub(super) observer: Subscription,
    pub(super) feed: Feed,
    /// Among the streams, and among the caller's requests.
    pub(super) _places: (Admission, Option<Admission>),
}

struct Open {
    stream: Stream,
    /// When the last piece was given.
    given_at: Instant,
    end: StreamEndReason,
}

impl Stream {
    /// The body of its response.
    pub(super) fn into_body(self) -> BoxBody {
        self.front.metrics.event_streams.open.inc();
        let open = Open { stream: self, given_at: Instant::now(), end: StreamEndReason::Gone };
        // On the heap: what is moved into a future is kept twice by it.
        BoxBody::new(BodyStream::new(stream::unfold(Box::new(open), async |mut open| {
            let piece = open.next().await?;
            Some((Ok::<_, Infallible>(piece), open))
        })))
    }
}

impl Open {
    /// What is written next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.stream.feed.step() {
                Step::Write(bytes, kind) => {
                    if let Some(kind) = kind {
                        self.stream.front.metrics.event_streams.event_sent(kind);
                    }
                    self.given_at = Instant::now();
                    return Some(bytes);
                }
                // On the heap while it is needed: it is larger than all the rest.
                Step::Read(after) => match Box::pin(self.stream.read(after)).await {
                    Ok(page) => self.stream.feed.page(page),
                    Err(error) => self.missed(&error).await?,
                },
                Step::Wait => {
                    let due = self.given_at + self.stream.front.keep_alive;
                    tokio::select! {
                        live = self.stream.observer.next() => {
                            if live.is_none() {
                                self.end = self.stream.why_let_go();
                            }
                            self.stream.feed.live(live);
                        }
                        () = sleep_until(due) => self.stream.feed.keep_alive(),
                    }
                }
                Step::End => return None,
            }
        }
    }

    /// A page could not be read. That of a store that is away is read again: to send everybody away would only bring
    /// them back at once. None where the stream must end.
    async fn missed(&mut self, error: &HubError) -> Option<()> {
        if !matches!(error, HubError::Store(error) if error.is_passing()) {
            error!(%error, "a stream could not be read on");
            self.end = StreamEndReason::Failed;
            return None;
        }
        if self.stream.front.hub.is_draining() {
            self.end = StreamEndReason::Drained;
            return None;
        }
        debug!(%error, "a stream waits for the store");
        sleep(PATIENCE).await;
        if self.given_at.elapsed() >= self.stream.front.keep_alive {
            self.stream.feed.keep_alive();
        }
        Some(())
    }
}

impl Stream {
    async fn read(&self, after: ReadStart) -> Result<JournalPage, HubError> {
        self.front.hub.page(&self.conversation, after, PAGE, true).await
    }

    fn why_let_go(&self) -> StreamEndReason {
        if self.front.hub.is_draining() { StreamEndReason::Drained } else { StreamEndReason::Slow }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.stream.front.metrics.event_streams;
        streams.open.dec();
        streams.ended(self.end);
    }
}
