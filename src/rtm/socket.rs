//! One open web socket: whole messages in, text out, and no buffers while it is idle.
//!
//! awc's `Framed` keeps 16 KiB of buffers for each socket. This file takes it apart after the handshake. All sockets
//! of a shard share one buffer for reads and one for writes, and a socket keeps only incomplete data. Bytes are
//! copied out of the shared buffer once, so a message pins only the data of its own read.
//!
//! awc's codec leaves these duties to its user:
//!
//! - answers to pings;
//! - the joining of fragments, and a cap on all fragments together;
//! - a cap that works before a too large frame has arrived;
//! - the close handshake.
//!
//! Text is not checked for UTF-8 here. The decoder reports such a message as malformed.
//!
//! This file does not know the meaning of a message or of a close code (`link/machine/close_code.rs`), or when to ping.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::ws::{CloseReason, Codec, Frame, Item, Message, ProtocolError};
use awc::BoxedSocket;
use bytes::{Buf as _, Bytes, BytesMut};
use bytestring::ByteString;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::timeout;
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::redaction::redact;
use crate::config::BotConfig;

/// Timeout of a send.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a close, the peer's answer included.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes of one read.
const READ_MAX: usize = 64 * 1024;
/// Most bytes of unsent pongs for a peer that does not read. RFC 6455, 5.5.3 allows us to skip all but the last.
const PENDING_PONGS_MAX: usize = 1024;
/// Largest write buffer that is kept after a message, in bytes.
const WRITE_BUFFER_KEPT_MAX: usize = 64 * 1024;

/// Buffers that all sockets of one thread share. They are empty between two polls.
pub(super) struct ScratchBuffers {
    read: Box<[u8]>,
    write: BytesMut,
}

impl Default for ScratchBuffers {
    fn default() -> Self {
        Self { read: vec![0; READ_MAX].into_boxed_slice(), write: BytesMut::new() }
    }
}

/// Event of a socket. Its Debug output shows the length of a message, not its text.
pub enum SocketEvent {
    /// A whole text or binary message, fragments joined. It may be invalid UTF-8.
    Frame(Bytes),
    /// The peer lives: it sent a pong, or a ping that this file has answered.
    KeepAlive,
    /// The socket is over. Every further call returns the same event.
    Closed(SocketClose),
}

impl fmt::Debug for SocketEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(bytes) => write!(f, "Frame({} bytes)", bytes.len()),
            Self::KeepAlive => f.write_str("KeepAlive"),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
        }
    }
}

/// Reason why a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketClose {
    /// Close code as a client sees it (protocol.md 5.5). It is 1005 for a close without code, and 1006 if TCP is gone
    /// or the peer broke the protocol.
    pub code: u16,
    /// Whether we ended the socket, with this code.
    ///
    /// 1009 of ours means that a message exceeds our caps. 1009 of the platform means that our message was too large.
    pub by_us: bool,
    /// Reason for logs: 300 characters at most, masked.
    pub reason: Box<str>,
}

/// Error of a send. It ends the socket, and the message may have arrived or not. After `Broken` a caller may still
/// read: the platform may have sent a reason.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket was already over.
    #[error("the socket is closed ({})", .0.code)]
    Closed(SocketClose),
    /// The peer took no data for 10 s.
    #[error("the platform took no data for 10 s; open a new socket")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke while sending; open a new socket")]
    Broken(#[source] io::Error),
}

/// One open web socket. Dropping it cuts the connection; [`PlatformSocket::close`] performs the close handshake.
pub struct PlatformSocket {
    io: BoxedSocket,
    codec: Codec,
    scratch: Rc<RefCell<ScratchBuffers>>,
    /// Data that is read but not decoded: the start of a frame.
    unread: BytesMut,
    /// Fragments of an incomplete message.
    fragments: BytesMut,
    /// Encoded but not written.
    unsent: BytesMut,
    /// Whether the TLS layer may hold written bytes.
    unflushed: bool,
    /// Whether writing has ended. The peer's earlier frames may still be read.
    write_closed: bool,
    closed: Option<SocketClose>,
    max_frame: u64,
    max_message: usize,
}

impl PlatformSocket {
    /// Wraps a connection after its handshake. `early` came in one segment with the 101.
    pub(super) fn new(
        io: BoxedSocket,
        early: &[u8],
        bot: &BotConfig,
        scratch: Rc<RefCell<ScratchBuffers>>,
    ) -> Self {
        let max_frame = bot.max_frame_bytes.min(bot.max_message_bytes);
        Self {
            io,
            codec: Codec::new().client_mode().max_size(max_frame),
            scratch,
            unread: BytesMut::from(early),
            fragments: BytesMut::new(),
            unsent: BytesMut::new(),
            unflushed: false,
            write_closed: false,
            closed: None,
            max_frame: u64::try_from(max_frame).unwrap_or(u64::MAX),
            max_message: bot.max_message_bytes,
        }
    }

    /// Waits for the next event. Cancel-safe: a future dropped between two polls loses nothing.
    pub async fn next(&mut self) -> SocketEvent {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a text message as one frame, in one write if the connection takes it.
    ///
    /// If the future is dropped after its first poll, the next call of any kind sends the rest of the message.
    ///
    /// # Errors
    /// [`SocketError`], after 10 s at most; the socket is over then.
    pub async fn send(&mut self, text: impl Into<ByteString>) -> Result<(), SocketError> {
        self.write(Message::Text(text.into())).await
    }

    /// Sends a web socket ping. The pong comes as [`SocketEvent::KeepAlive`].
    ///
    /// # Errors
    /// As [`PlatformSocket::send`].
    pub async fn ping(&mut self) -> Result<(), SocketError> {
        self.write(Message::Ping(Bytes::new())).await
    }

    /// Sends a close frame with `code`, waits for the peer's answer and hangs up. Takes a second at most.
    pub async fn close(mut self, code: u16) {
        let handshake = async {
            if self.closed.is_none() {
                let reason = CloseReason { code: code.into(), description: None };
                self.write(Message::Close(Some(reason))).await.ok();
                // Neither pongs nor a second close frame may follow a close frame (RFC 6455, 5.5.1).
                self.close_write();
                while !matches!(self.next().await, SocketEvent::Closed(_)) {}
            }
            // TLS needs its own close.
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await.ok();
        };
        // A peer that does not answer is abandoned.
        timeout(CLOSE_TIMEOUT, handshake).await.ok();
    }

    /// Returns the bytes that its buffers hold.
    #[cfg(test)]
    pub(super) fn buffered_capacity(&self) -> usize {
        self.unread.capacity() + self.fragments.capacity() + self.unsent.capacity()
    }

    async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        if let Some(closed) = &self.closed {
            return Err(SocketError::Closed(closed.clone()));
        }
        let mut message = Some(message);
        let writing = poll_fn(|cx| {
            if let Some(message) = message.take() {
                self.poll_start_write(cx, message)
            } else {
                self.poll_flush(cx)
            }
        });
        match timeout(SEND_TIMEOUT, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // The socket stays readable: a close frame with the reason may be waiting.
                self.close_write();
                Err(SocketError::Broken(error))
            }
            Err(_) => {
                self.mark_closed(1006, false, "the platform took no data");
                Err(SocketError::Timeout)
            }
        }
    }

    /// Encodes a message and writes the part that the connection takes at once. The rest goes to `unsent`.
    fn poll_start_write(&mut self, cx: &mut Context<'_>, message: Message) -> Poll<io::Result<()>> {
        if self.write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.unsent.is_empty() {
            self.encode(message)?;
            return self.poll_flush(cx);
        }
        let scratch = Rc::clone(&self.scratch);
        let buffer = &mut scratch.borrow_mut().write;
        buffer.clear();
        self.codec.encode(message, buffer).map_err(io::Error::other)?;
        let taken = match Pin::new(&mut self.io).poll_write(cx, buffer)? {
            Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(taken) => taken,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        buffer.advance(taken);
        self.unsent.extend_from_slice(buffer);
        if buffer.capacity() > WRITE_BUFFER_KEPT_MAX {
            *buffer = BytesMut::new();
        }
        self.poll_flush(cx)
    }

    fn encode(&mut self, message: Message) -> io::Result<()> {
        self.codec.encode(message, &mut self.unsent).map_err(io::Error::other)
    }

    /// Writes all unsent bytes, then releases their buffer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.unsent.advance(taken);
        }
        self.unsent = BytesMut::new();
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends writing. Reading goes on, because the peer may have sent the reason for its hang-up.
    fn close_write(&mut self) {
        self.write_closed = true;
        self.unflushed = false;
        self.unsent = BytesMut::new();
    }

    /// Continues writing without waiting. The reader finds errors later.
    fn flush_if_possible(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            self.close_write();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        if let Some(closed) = &self.closed {
            return Poll::Ready(SocketEvent::Closed(closed.clone()));
        }
        self.flush_if_possible(cx);
        loop {
            if let Some(received) = self.decode(cx) {
                return Poll::Ready(received);
            }
            let scratch = Rc::clone(&self.scratch);
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch.read);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            match (read, buffer.filled()) {
                (Ok(()), []) => return Poll::Ready(self.mark_closed(1006, false, "the connection was cut")),
                (Ok(()), bytes) => self.unread.extend_from_slice(bytes),
                (Err(error), _) => return Poll::Ready(self.mark_closed(1006, false, &error.to_string())),
            }
        }
    }

    /// Returns the next event from the bytes that have been read.
    fn decode(&mut self, cx: &mut Context<'_>) -> Option<SocketEvent> {
        loop {
            if payload_length(&self.unread).is_some_and(|length| length > self.max_frame) {
                return Some(self.close_too_big(cx));
            }
            let frame = match self.codec.decode(&mut self.unread) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.release_read_buffer();
                    return None;
                }
                Err(ProtocolError::Overflow) => return Some(self.close_too_big(cx)),
                Err(error) => {
                    self.queue_close_frame(cx, 1002);
                    return Some(self.mark_closed(1006, false, &error.to_string()));
                }
            };
            match frame {
                Frame::Text(bytes) | Frame::Binary(bytes) => {
                    self.release_read_buffer();
                    return Some(SocketEvent::Frame(bytes));
                }
                Frame::Continuation(item) => {
                    let (bytes, last) = match item {
                        Item::FirstText(bytes) | Item::FirstBinary(bytes) | Item::Continue(bytes) => {
                            (bytes, false)
                        }
                        Item::Last(bytes) => (bytes, true),
                    };
                    if self.fragments.len() + bytes.len() > self.max_message {
                        return Some(self.close_too_big(cx));
                    }
                    self.fragments.extend_from_slice(&bytes);
                    if last {
                        self.release_read_buffer();
                        return Some(SocketEvent::Frame(std::mem::take(&mut self.fragments).freeze()));
                    }
                }
                Frame::Ping(payload) => {
                    if !self.write_closed
                        && self.unsent.len() < PENDING_PONGS_MAX
                        && self.encode(Message::Pong(payload)).is_ok()
                    {
                        self.flush_if_possible(cx);
                    }
                    self.release_read_buffer();
                    return Some(SocketEvent::KeepAlive);
                }
                Frame::Pong(_) => {
                    self.release_read_buffer();
                    return Some(SocketEvent::KeepAlive);
                }
                Frame::Close(reason) => {
                    let code = reason.as_ref().map_or(1005, |reason| reason.code.into());
                    let text = reason.and_then(|reason| reason.description).unwrap_or_default();
                    self.queue_close_frame(cx, if code == 1005 { 1000 } else { code });
                    return Some(self.mark_closed(code, false, &text));
                }
            }
        }
    }

    /// Releases the read buffer if it is empty.
    fn release_read_buffer(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }

    fn close_too_big(&mut self, cx: &mut Context<'_>) -> SocketEvent {
        self.queue_close_frame(cx, 1009);
        self.mark_closed(1009, true, "a message above max_frame_bytes or max_message_bytes")
    }

    /// Sends a close frame if the connection takes it now.
    fn queue_close_frame(&mut self, cx: &mut Context<'_>, code: u16) {
        let reason = CloseReason { code: code.into(), description: None };
        if !self.write_closed && self.encode(Message::Close(Some(reason))).is_ok() {
            self.flush_if_possible(cx);
        }
    }

    fn mark_closed(&mut self, code: u16, by_us: bool, reason: &str) -> SocketEvent {
        let closed = SocketClose { code, by_us, reason: redact(reason) };
        self.closed = Some(closed.clone());
        self.unread = BytesMut::new();
        self.fragments = BytesMut::new();
        self.close_write();
        SocketEvent::Closed(closed)
    }
}

/// Returns the payload length that a frame's head announces (RFC 6455, 5.2), or `None` for an incomplete head. The
/// codec compares a length with its cap only after the whole frame has arrived. Without this check a peer could fill
/// the memory first.
fn payload_length(head: &[u8]) -> Option<u64> {
    match head {
        [_, length, rest @ ..] => match (length & 0x7f, rest) {
            (126, [a, b, ..]) => Some(u16::from_be_bytes([*a, *b]).into()),
            (126, _) => None,
            (127, rest) => rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
            (short, _) => Some(short.into()),
        },
        _ => None,
    }
}
