//! The events of a conversation, one after the other, whatever happens to the connection.
//!
//! Each connection begins behind the last event that was handed out, so each is handed out once.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::api::{Body, Bridge, Fault};
use super::pause::Pause;
use super::sse::{Event, Parser};

/// The bridge says something every 15 s, if only that there is nothing. Who says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a lost connection is tried to be had again.
const PATIENCE: Duration = Duration::from_mins(2);
/// A connection that lasted so long was a good one: the next is tried at once.
const LASTED: Duration = Duration::from_secs(5);

/// What is handed out.
pub(super) enum Fed {
    /// There is a connection.
    Open,
    /// An event.
    Event(Event),
    /// The connection is lost; another is being tried.
    Lost,
}

/// Follows a conversation.
pub(super) struct Feed<'a> {
    bridge: &'a Bridge,
    /// Behind which event a new connection begins.
    after: String,
    parser: Parser,
    body: Option<Body>,
    ready: VecDeque<Event>,
    pause: Pause,
    /// Since when there is a connection, or none; nothing before the first.
    since: Option<Instant>,
}

impl<'a> Feed<'a> {
    /// Begins behind this place.
    pub(super) fn new(bridge: &'a Bridge, after: String) -> Self {
        Self {
            bridge,
            after,
            parser: Parser::default(),
            body: None,
            ready: VecDeque::new(),
            pause: Pause::default(),
            since: None,
        }
    }

    /// What comes next. Dropping the wait for it loses at most the try of a connection.
    ///
    /// # Errors
    /// There is no connection, and there will be none.
    pub(super) async fn next(&mut self) -> Result<Fed, Fault> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Fed::Event(event));
            }
            let Some(body) = &mut self.body else {
                self.connect().await?;
                return Ok(Fed::Open);
            };
            let heard = timeout(SILENCE, body.next()).await;
            if let Ok(Some(Ok(bytes))) = heard
                && self.parser.feed(&bytes, &mut self.ready).is_ok()
            {
                continue;
            }
            let opened = self.since.replace(Instant::now());
            if opened.is_some_and(|opened| opened.elapsed() >= LASTED) {
                self.pause = Pause::default();
            }
            // All events of it have been handed out.
            if !self.parser.last_id().is_empty() {
                self.parser.last_id().clone_into(&mut self.after);
            }
            self.body = None;
            return Ok(Fed::Lost);
        }
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        let mut asked = self.parser.retry();
        loop {
            // The first connection is made at once, and must succeed.
            if self.since.is_some() {
                sleep(self.pause.next(asked)).await;
            }
            match self.bridge.events(&self.after).await {
                Ok(body) => {
                    (self.body, self.parser) = (Some(body), Parser::default());
                    self.since = Some(Instant::now());
                    return Ok(());
                }
                Err(fault) if fault.passes() && self.since.is_some_and(|lost| lost.elapsed() < PATIENCE) => {
                    asked = fault.retry_after();
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}
