//! Uploads a file for a message with the user's own token, as the Web SDK does (protocol.md 13, form A).
//!
//! A file of one chunk goes as a whole. A longer one goes chunk by chunk under a token, and is then put together; chunks
//! that the platform lost are sent again. Only one chunk is in memory, and no call begins before it has arrived. Each call
//! has a timeout and is retried a few times. An expired token is renewed once in each call.

mod upload_step;

use std::io;
use std::time::Duration;

use awc::body::SizedStream;
use awc::{ClientRequest, SendClientRequest};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, sleep};

use super::chunk_spool::ChunkSpool;
use super::connector::{BODY_MAX, PlatformConnector, bearer_header, endpoint_url, incomplete_response};
use super::error::{CallError, ConnectError, ConnectPhase, RetryAdvice};
use super::form_body::FormBody;
use super::grant::Grant;
use crate::config::BotConfig;
use crate::domain::lenient_json::{members, string, string_or_number};
use crate::domain::{Backoff, FileDescription, UploadedFile, UserId};
use crate::metrics::{BotUploadMetrics, ConnectResult, UploadCall};
use crate::wall_clock;

pub use self::upload_step::UploadStep;

/// Most bytes of a chunk. The Web SDK sends chunks of this length.
pub const UPLOAD_CHUNK_BYTES: usize = 1 << 20;

/// Timeout of a call that carries a part of the file. At this time a chunk has 200 kbit/s.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(1);
/// Timeout of any other call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Most attempts of a call.
const ATTEMPTS_MAX: u8 = 3;
/// Longest wait before another attempt. If the platform asks for more, the upload fails, because its caller waits.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Most rounds in which lost chunks are sent again. The Android SDK makes as many.
const RESENDS_MAX: usize = 3;
/// Characters that need an escape in a path's segment: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Longest URL of a file.
const URL_MAX_BYTES: usize = 8 << 10;

/// Reason why a file was not uploaded.
#[derive(Debug)]
pub enum UploadError<E> {
    /// Its bytes did not arrive.
    Source(E),
    /// The platform did not take it.
    Call(ConnectError),
}

impl<E> From<ConnectError> for UploadError<E> {
    fn from(error: ConnectError) -> Self {
        Self::Call(error)
    }
}

/// A file on its way to the platform.
pub struct FileUpload<'a> {
    /// The opener of connections.
    pub connector: &'a PlatformConnector,
    /// The bot that gets the file.
    pub bot: &'a BotConfig,
    /// The user that sends it.
    pub user: &'a UserId,
    /// The user's token, which the upload gets or renews.
    pub grant: &'a mut Option<Grant>,
    /// The counters of its calls.
    pub metrics: &'a BotUploadMetrics,
    /// Its name and type.
    pub file: &'a FileDescription,
}

/// The next chunk of a file.
struct FileChunk {
    bytes: Bytes,
    is_last: bool,
}

/// Joins the pieces of a file to chunks.
struct ChunkReader<S> {
    pieces: S,
    /// Bytes behind the last chunk.
    rest: Bytes,
}

impl<S, E> ChunkReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Returns the next chunk. All but the last have [`UPLOAD_CHUNK_BYTES`].
    async fn next_chunk(&mut self) -> Result<FileChunk, E> {
        let mut chunk = BytesMut::new();
        loop {
            let room = UPLOAD_CHUNK_BYTES - chunk.len();
            let taken = self.rest.split_to(self.rest.len().min(room));
            if !taken.is_empty() && chunk.is_empty() {
                chunk.reserve(UPLOAD_CHUNK_BYTES);
            }
            chunk.extend_from_slice(&taken);
            if !self.rest.is_empty() {
                return Ok(FileChunk { bytes: chunk.freeze(), is_last: false });
            }
            match self.pieces.next().await {
                Some(piece) => self.rest = piece?,
                None => return Ok(FileChunk { bytes: chunk.freeze(), is_last: true }),
            }
        }
    }
}

impl FileUpload<'_> {
    /// Uploads the file, whose bytes come in pieces.
    ///
    /// # Errors
    /// [`UploadError`]. The platform may then hold chunks of the file, which it forgets with their token.
    pub async fn run<E>(
        mut self,
        pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<UploadedFile, UploadError<E>> {
        let mut reader = ChunkReader { pieces, rest: Bytes::new() };
        let first = reader.next_chunk().await.map_err(UploadError::Source)?;
        let (file_id, size) = if first.is_last {
            (self.send_whole(&first.bytes).await?, first.bytes.len() as u64)
        } else {
            self.send_in_chunks(first, &mut reader).await?
        };
        self.metrics.file_uploaded(size);
        let file_url = self.file_url(&file_id).await;
        Ok(UploadedFile {
            file_id,
            file_name: self.file.name.as_str().into(),
            file_type: self.file.kind(),
            size,
            file_url,
        })
    }

    /// Calls `POST …/attachment/file/token`.
    async fn file_token(&mut self) -> Result<Box<str>, ConnectError> {
        let path = "/attachment/file/token";
        self.call(ConnectPhase::FileToken, path, CALL_TIMEOUT, file_token, |request| request.send_body(()))
            .await
    }

    /// Calls `POST …/attachment/file`, and returns the file's id.
    async fn send_whole(&mut self, bytes: &Bytes) -> Result<Box<str>, ConnectError> {
        let file = self.file;
        self.call(ConnectPhase::File, "/attachment/file", TRANSFER_TIMEOUT, file_id, |request| {
            let form = described(file).text("filename", file.name.as_str()).file(
                "file",
                file.name.as_str(),
                media_type(file),
                bytes.clone(),
            );
            send_form(request, form)
        })
        .await
    }

    /// Sends the file in chunks and has it put together. Returns its id and its length.
    async fn send_in_chunks<S, E>(
        &mut self,
        first: FileChunk,
        reader: &mut ChunkReader<S>,
    ) -> Result<(Box<str>, u64), UploadError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let token = self.file_token().await?;
        let mut spool = ChunkSpool::create().inspect_err(|error| self.report_spool(error)).ok();
        let (mut chunk, mut size, mut count) = (first, 0, 0);
        loop {
            self.send_chunk(&token, count, &chunk.bytes).await?;
            if let Some(open) = &mut spool
                && let Err(error) = open.keep(&chunk.bytes).await
            {
                self.report_spool(&error);
                spool = None;
            }
            size += chunk.bytes.len() as u64;
            count += 1;
            if chunk.is_last {
                break;
            }
            // Two chunks are never in memory together.
            drop(chunk);
            chunk = reader.next_chunk().await.map_err(UploadError::Source)?;
        }
        drop(chunk);
        Ok((self.complete(&token, count, spool).await?, size))
    }

    /// Has the platform put the chunks together, and sends those again that it lost.
    async fn complete(
        &mut self,
        token: &str,
        count: usize,
        mut spool: Option<ChunkSpool>,
    ) -> Result<Box<str>, ConnectError> {
        let mut rounds = 0;
        loop {
            let lost = match self.put_together(token, count).await {
                Err(ConnectError::ChunksLost { numbers }) if rounds < RESENDS_MAX => numbers,
                result => return result,
            };
            rounds += 1;
            let mut sent = 0;
            for &number in lost.iter().filter(|number| **number < count) {
                let Some(open) = &mut spool else { break };
                match open.chunk(number).await {
                    Ok(Some(bytes)) => self.send_chunk(token, number, &bytes).await?,
                    Ok(None) => break,
                    Err(error) => {
                        self.report_spool(&error);
                        spool = None;
                        break;
                    }
                }
                sent += 1;
            }
            if sent == 0 {
                return Err(ConnectError::ChunksLost { numbers: lost });
            }
        }
    }

    /// Calls `POST …/attachment/file/{token}/chunk`.
    async fn send_chunk(&mut self, token: &str, number: usize, bytes: &Bytes) -> Result<(), ConnectError> {
        let file = self.file;
        let path = format!("/attachment/file/{}/chunk", escaped(token));
        self.call(
            ConnectPhase::Chunk,
            &path,
            TRANSFER_TIMEOUT,
            |_| Some(()),
            |request| {
                let form = FormBody::new(boundary())
                    .text("chunkNo", &number.to_string())
                    .text("messageToken", token)
                    .file("chunk", file.name.as_str(), media_type(file), bytes.clone());
                send_form(request, form)
            },
        )
        .await
    }

    /// Calls `PUT …/attachment/file/{token}`, and returns the file's id.
    async fn put_together(&mut self, token: &str, count: usize) -> Result<Box<str>, ConnectError> {
        let file = self.file;
        let path = format!("/attachment/file/{}", escaped(token));
        self.call(ConnectPhase::Complete, &path, CALL_TIMEOUT, file_id, |request| {
            let form = described(file)
                .text("filename", file.name.as_str())
                .text("totalChunks", &count.to_string())
                .text("messageToken", token);
            send_form(request, form)
        })
        .await
    }

    /// Calls `GET …/attachment/v2/stream/{bot}/file/{file}/url`. A platform without this endpoint has no URL, and neither
    /// has one that fails here: the file is uploaded, and works without it.
    async fn file_url(&mut self, file_id: &str) -> Option<Box<str>> {
        let bot = escaped(&self.bot.task_bot_id);
        let path = format!("/attachment/v2/stream/{bot}/file/{}/url", escaped(file_id));
        let url = self.call(ConnectPhase::FileUrl, &path, CALL_TIMEOUT, file_url, ClientRequest::send);
        match url.await {
            Ok(url) => Some(url).filter(|url| !url.is_empty()),
            Err(error) => {
                tracing::debug!(bot = %self.bot.name, %error, "the platform tells no URL of an uploaded file");
                None
            }
        }
    }

    /// Makes a call until it has an answer with what `read` wants. The phase decides on its method.
    async fn call<T>(
        &mut self,
        phase: ConnectPhase,
        path: &str,
        limit: Duration,
        read: impl Fn(&[u8]) -> Option<T>,
        send: impl Fn(ClientRequest) -> SendClientRequest,
    ) -> Result<T, ConnectError> {
        let Self { connector, bot, user, metrics, .. } = *self;
        let url = endpoint_url(bot, path);
        // A file needs no context: it goes to the user, and a message names it.
        let context = connector.empty_context();
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
        loop {
            let (now, begun) = (wall_clock::now(), Instant::now());
            let call = async |grant: &Grant| {
                let client = &connector.clients(bot).uploads;
                let request = match phase {
                    ConnectPhase::Complete => client.put(&url),
                    ConnectPhase::FileUrl => client.get(&url),
                    _ => client.post(&url),
                };
                let sending = send(request.insert_header(bearer_header(grant)));
                let answer = connector.answer(phase, sending, limit, BODY_MAX, now).await?;
                read(&answer).ok_or_else(|| incomplete_response(phase, &answer, now))
            };
            let result = connector.with_grant(bot, user, &context, self.grant, now, call).await;
            let (step, outcome) = match &result {
                Ok(_) => (upload_call(phase), ConnectResult::Ok),
                Err(error) => (upload_call(error.failed_phase()), outcome(error)),
            };
            metrics.call_ended(step, outcome, begun.elapsed());
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let RetryAdvice::Backoff(named) = error.retry() else { return Err(error) };
            let wait = backoff.next(fastrand::f64()).max(named.unwrap_or_default());
            // A token that was renewed in vain will not get better.
            let is_final = matches!(error, ConnectError::TokenExpired { .. });
            if is_final || backoff.failures() >= ATTEMPTS_MAX || wait > WAIT_MAX {
                return Err(error);
            }
            tracing::debug!(bot = %bot.name, %error, "a call of an upload failed; retrying");
            sleep(wait).await;
        }
    }

    fn report_spool(&self, error: &io::Error) {
        tracing::warn!(
            bot = %self.bot.name, %error,
            "the folder for temporary files is not usable; chunks that the platform loses cannot be sent again"
        );
    }
}

/// Returns the fields that describe a file.
fn described(file: &FileDescription) -> FormBody {
    let extension = file.name.extension();
    FormBody::new(boundary())
        .text("fileExtension", extension.as_deref().unwrap_or("bin"))
        .text("fileContext", "workflows")
        .text("thumbnailUpload", "false")
}

fn send_form(request: ClientRequest, form: FormBody) -> SendClientRequest {
    let (length, content_type) = (form.length(), form.content_type());
    let pieces = stream::iter(form.into_pieces().map(Ok::<_, io::Error>));
    request.content_type(content_type).send_body(SizedStream::new(length, pieces))
}

fn boundary() -> String {
    format!("rtm-bridge-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

fn media_type(file: &FileDescription) -> &str {
    if file.media_type.is_empty() { "application/octet-stream" } else { &file.media_type }
}

fn escaped(segment: &str) -> impl std::fmt::Display {
    utf8_percent_encode(segment, RESERVED)
}

fn file_token(answer: &[u8]) -> Option<Box<str>> {
    text_of(answer, "fileToken")
}

fn file_id(answer: &[u8]) -> Option<Box<str>> {
    text_of(answer, "fileId")
}

/// Reads the URL of a file. It is empty if the platform has none.
fn file_url(answer: &[u8]) -> Option<Box<str>> {
    let [url] = members(std::str::from_utf8(answer).ok()?, ["fileUrl"])?;
    let url = url.and_then(string).filter(|url| url.len() <= URL_MAX_BYTES);
    Some(url.unwrap_or_default().into_owned().into())
}

fn text_of(answer: &[u8], name: &str) -> Option<Box<str>> {
    let [value] = members(std::str::from_utf8(answer).ok()?, [name])?;
    let text = value.and_then(string_or_number).filter(|text| !text.is_empty())?;
    Some(text.into_owned().into())
}

const fn upload_call(phase: ConnectPhase) -> UploadCall {
    match phase {
        ConnectPhase::FileToken => UploadCall::Token,
        ConnectPhase::Chunk => UploadCall::Chunk,
        ConnectPhase::Complete => UploadCall::Complete,
        ConnectPhase::FileUrl => UploadCall::Url,
        ConnectPhase::Grant => UploadCall::Grant,
        _ => UploadCall::File,
    }
}

const fn outcome(error: &ConnectError) -> ConnectResult {
    match error {
        ConnectError::Unreachable { error: CallError::Timeout, .. } => ConnectResult::TimedOut,
        ConnectError::Rejected { .. }
        | ConnectError::BodyRefused { .. }
        | ConnectError::TooLarge { .. }
        | ConnectError::TokenExpired { .. }
        | ConnectError::Signer(_) => ConnectResult::Rejected,
        _ => ConnectResult::Unavailable,
    }
}
