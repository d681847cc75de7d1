//! The events of a conversation across reconnects. Each connection resumes behind the last id, so each event comes once.

use std::time::Duration;

use awc::ClientResponse;
use awc::error::PayloadError;
use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, StreamExt as _};
use serde_json::Value;
use sse_stream::SseByteStream;
use tokio::time::{Instant, sleep, timeout};

use super::client::ChatClient;
use crate::cli::api_client::ApiCallError;
use crate::domain::lenient_json;

/// The bridge sends a comment every 15 s. A connection that stays silent for longer than this is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The most bytes without the end of an event. An entry of the journal holds a frame of the platform, which is smaller.
const EVENT_MAX: usize = 16 << 20;
/// How long reconnecting is retried.
const RETRIES_MAX: Duration = Duration::from_mins(2);
/// The longest wait before a reconnect: a person waits at the terminal.
const RETRY_MAX: Duration = Duration::from_secs(30);

type BodyStream = LocalBoxStream<'static, Result<Bytes, PayloadError>>;

pub(super) enum SourceItem {
    /// An event's type and data.
    Event(String, Value),
    /// A change of the connection.
    Note(&'static str),
}

pub(super) struct EventSource<'a> {
    client: &'a ChatClient,
    last_id: String,
    /// The wait before a reconnect. The bridge draws it, so that its readers do not return all at once.
    retry: Duration,
    /// The open stream, or the time of its loss.
    stream: Result<SseByteStream<BodyStream>, Instant>,
}

impl<'a> EventSource<'a> {
    /// Connects at the end of the conversation.
    pub(super) async fn connect(client: &'a ChatClient) -> Result<Self, ApiCallError> {
        let stream = Ok(SseByteStream::new(body(client.events("").await?)));
        Ok(Self { client, last_id: String::new(), retry: Duration::from_secs(1), stream })
    }

    /// Returns the next item, after a reconnect if the connection is lost. Dropping the future loses no event.
    ///
    /// # Errors
    /// The connection is lost, and the retries have failed.
    pub(super) async fn next(&mut self) -> Result<SourceItem, ApiCallError> {
        loop {
            let stream = match &mut self.stream {
                Ok(stream) => stream,
                Err(lost_at) => {
                    let lost_at = *lost_at;
                    self.reconnect(lost_at).await?;
                    return Ok(SourceItem::Note("connected again"));
                }
            };
            let Some(Ok(block)) = stream.next().await else {
                self.stream = Err(Instant::now());
                return Ok(SourceItem::Note("the connection is lost; reconnecting"));
            };
            if let Some(millis) = block.retry {
                self.retry = Duration::from_millis(millis).min(RETRY_MAX);
            }
            if let Some(id) = block.id {
                self.last_id = id;
            }
            let entry = block.data.and_then(|data| lenient_json::value(&data));
            let data = entry.and_then(|mut entry| entry.get_mut("data").map(Value::take));
            if let (Some(kind), Some(data)) = (block.event, data) {
                return Ok(SourceItem::Event(kind, data));
            }
        }
    }

    async fn reconnect(&mut self, lost_at: Instant) -> Result<(), ApiCallError> {
        loop {
            sleep(self.retry).await;
            match self.client.events(&self.last_id).await {
                Err(error) if error.is_transient() && lost_at.elapsed() < RETRIES_MAX => {}
                opened => {
                    self.stream = Ok(SseByteStream::new(body(opened?)));
                    return Ok(());
                }
            }
        }
    }
}

/// Returns the bytes of a body. The stream fails after a silence, and in an event that does not end.
fn body(response: ClientResponse) -> BodyStream {
    let next = async |(mut response, held): (ClientResponse, usize)| {
        let part = timeout(SILENCE_MAX, response.next()).await.map_err(|_| PayloadError::Incomplete(None))?;
        let Some(part) = part.transpose()? else { return Ok(None) };
        let ends_event = part.windows(2).any(|pair| pair == b"\n\n");
        let held = if ends_event { 0 } else { held + part.len() };
        if held > EVENT_MAX { Err(PayloadError::Overflow) } else { Ok(Some((part, (response, held)))) }
    };
    stream::try_unfold((response, 0), next).boxed_local()
}
