//! One open web socket: whole messages in, text out, and no memory held while nothing moves.
//!
//! awc's `Framed` keeps 16 KiB of buffers per socket for as long as it lives. Here it is taken apart after the
//! handshake: all sockets of a shard read into one scratch buffer and write from another, and a socket keeps
//! only what is incomplete. Bytes are copied out of the scratch once, so that a message pins no more than what
//! was read together with it.
//!
//! awc's codec leaves to its user: answers to pings, the joining of fragments, a cap on all fragments together,
//! a cap that works before a too large frame has arrived, and the close handshake. All of that is here. Text is
//! not checked for UTF-8: a message that is none is handed on and found malformed when it is read.
//!
//! What it does not know: what a message says, and when to ping.

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

use super::refusal::fit;
use crate::config::BotConfig;

/// The longest that a send may wait for the peer to take it.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that a close takes, the peer's answer included.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes read at once at most.
const READ_MAX: usize = 64 * 1024;
/// Unsent pongs kept for a peer that does not read, in bytes; RFC 6455, 5.5.3 lets us skip all but the last.
const PONGS_MAX: usize = 1024;
/// The write buffer is let go of after a message that made it larger than this, in bytes.
const WRITE_KEPT: usize = 64 * 1024;

/// The buffers that all sockets of one thread share. They hold nothing between two polls.
pub(super) struct Scratch {
    read: Box<[u8]>,
    write: BytesMut,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { read: vec![0; READ_MAX].into_boxed_slice(), write: BytesMut::new() }
    }
}

/// What came. Its Debug shows the length of a message and not what it says.
pub enum SocketEvent {
    /// A whole text or binary message, fragments joined. Not checked for UTF-8.
    Frame(Bytes),
    /// The peer lives: a ping, which has been answered, or a pong.
    Heard,
    /// The socket is over; every further call says the same.
    Closed(SocketClose),
}

impl fmt::Debug for SocketEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(bytes) => write!(f, "Frame({} bytes)", bytes.len()),
            Self::Heard => f.write_str("Heard"),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
        }
    }
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketClose {
    /// The close code as a client sees it: 1005 for a close without code, 1006 where TCP is gone or the peer
    /// broke the protocol, else the code sent (protocol.md 5.5).
    pub code: u16,
    /// Whether we ended it and the code is the one that we sent: 1009 for a message above our own caps. From
    /// the platform 1009 says that ours was too large.
    pub ours: bool,
    /// The reason given, for logs: 300 characters at most, masked.
    pub reason: Box<str>,
}

/// Why something could not be sent, which ends the socket; whether it arrived is not known. After `Broken` the
/// socket may be read on: the platform may have said why.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket was over before.
    #[error("the socket is closed ({})", .0.code)]
    Closed(SocketClose),
    /// The peer took nothing for 10 s.
    #[error("the platform took no data for 10 s; open a new socket")]
    Deadline,
    /// The connection broke.
    #[error("the connection broke while sending; open a new socket")]
    Broken(#[source] io::Error),
}

/// One open web socket. Dropping it cuts the connection; [`PlatformSocket::close`] says goodbye.
pub struct PlatformSocket {
    io: BoxedSocket,
    codec: Codec,
    scratch: Rc<RefCell<Scratch>>,
    /// Read and not decoded: a frame's beginning.
    unread: BytesMut,
    /// The fragments of a message that is not complete.
    parts: BytesMut,
    /// Encoded and not written.
    unsent: BytesMut,
    /// Whether written bytes may still sit in the TLS layer.
    unflushed: bool,
    /// Whether writing failed; what the peer said before may still be read.
    mute: bool,
    closed: Option<SocketClose>,
    max_frame: u64,
    max_message: usize,
}

impl PlatformSocket {
    /// The socket on a connection whose handshake is done. `early` came in one segment with the 101.
    pub(super) fn new(io: BoxedSocket, early: &[u8], bot: &BotConfig, scratch: Rc<RefCell<Scratch>>) -> Self {
        let max_frame = bot.max_frame_bytes.min(bot.max_message_bytes);
        Self {
            io,
            codec: Codec::new().client_mode().max_size(max_frame),
            scratch,
            unread: BytesMut::from(early),
            parts: BytesMut::new(),
            unsent: BytesMut::new(),
            unflushed: false,
            mute: false,
            closed: None,
            max_frame: u64::try_from(max_frame).unwrap_or(u64::MAX),
            max_message: bot.max_message_bytes,
        }
    }

    /// The next thing that comes. Safe to cancel: nothing is lost by dropping the future between two polls.
    pub async fn next(&mut self) -> SocketEvent {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a text message as one frame, in one write where the connection takes it. If the future is dropped
    /// after its first poll, the message still goes out, whole, with the next call of any kind.
    ///
    /// # Errors
    /// [`SocketError`], after 10 s at most; the socket is over then.
    pub async fn send(&mut self, text: impl Into<ByteString>) -> Result<(), SocketError> {
        self.write(Message::Text(text.into())).await
    }

    /// Sends a ping of the web socket's own kind; the pong comes as [`SocketEvent::Heard`].
    ///
    /// # Errors
    /// As [`PlatformSocket::send`].
    pub async fn ping(&mut self) -> Result<(), SocketError> {
        self.write(Message::Ping(Bytes::new())).await
    }

    /// Says goodbye with `code`, waits for the peer's answer, a second at most in all, and hangs up.
    pub async fn close(mut self, code: u16) {
        let goodbye = async {
            if self.closed.is_none() {
                let reason = CloseReason { code: code.into(), description: None };
                self.write(Message::Close(Some(reason))).await.ok();
                // Nothing follows a close frame, neither pongs nor another one (RFC 6455, 5.5.1).
                self.mute();
                while !matches!(self.next().await, SocketEvent::Closed(_)) {}
            }
            // So that TLS says goodbye too.
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await.ok();
        };
        // A peer that does not answer is left as it is.
        timeout(CLOSE_DEADLINE, goodbye).await.ok();
    }

    /// The bytes its buffers hold on to.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.unread.capacity() + self.parts.capacity() + self.unsent.capacity()
    }

    async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        if let Some(closed) = &self.closed {
            return Err(SocketError::Closed(closed.clone()));
        }
        let mut message = Some(message);
        let writing = poll_fn(|cx| {
            if let Some(message) = message.take() { self.start(cx, message) } else { self.poll_flush(cx) }
        });
        match timeout(SEND_DEADLINE, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // Not ended: a close frame that says why may be waiting to be read.
                self.mute();
                Err(SocketError::Broken(error))
            }
            Err(_) => {
                self.end(1006, false, "the platform took no data");
                Err(SocketError::Deadline)
            }
        }
    }

    /// Encodes a message and writes what the connection takes of it at once; the rest becomes `unsent`.
    fn start(&mut self, cx: &mut Context<'_>, message: Message) -> Poll<io::Result<()>> {
        if self.mute {
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
        if buffer.capacity() > WRITE_KEPT {
            *buffer = BytesMut::new();
        }
        self.poll_flush(cx)
    }

    fn encode(&mut self, message: Message) -> io::Result<()> {
        self.codec.encode(message, &mut self.unsent).map_err(io::Error::other)
    }

    /// Writes what is unsent, and lets go of its buffer once it is empty.
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

    /// Writes nothing any more. The peer's last words may still be read: it may have said why it hung up.
    fn mute(&mut self) {
        self.mute = true;
        self.unflushed = false;
        self.unsent = BytesMut::new();
    }

    /// Goes on writing in passing; failing and waiting are the reader's to find.
    fn nudge(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            self.mute();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        if let Some(closed) = &self.closed {
            return Poll::Ready(SocketEvent::Closed(closed.clone()));
        }
        self.nudge(cx);
        loop {
            if let Some(received) = self.decode(cx) {
                return Poll::Ready(received);
            }
            let scratch = Rc::clone(&self.scratch);
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch.read);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            match (read, buffer.filled()) {
                (Ok(()), []) => return Poll::Ready(self.end(1006, false, "the connection was cut")),
                (Ok(()), bytes) => self.unread.extend_from_slice(bytes),
                (Err(error), _) => return Poll::Ready(self.end(1006, false, &error.to_string())),
            }
        }
    }

    /// The next thing in what has been read.
    fn decode(&mut self, cx: &mut Context<'_>) -> Option<SocketEvent> {
        loop {
            if payload_length(&self.unread).is_some_and(|length| length > self.max_frame) {
                return Some(self.too_big(cx));
            }
            let frame = match self.codec.decode(&mut self.unread) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.shrink();
                    return None;
                }
                Err(ProtocolError::Overflow) => return Some(self.too_big(cx)),
                Err(error) => {
                    self.say_goodbye(cx, 1002);
                    return Some(self.end(1006, false, &error.to_string()));
                }
            };
            match frame {
                Frame::Text(bytes) | Frame::Binary(bytes) => {
                    self.shrink();
                    return Some(SocketEvent::Frame(bytes));
                }
                Frame::Continuation(item) => {
                    let (bytes, last) = match item {
                        Item::FirstText(bytes) | Item::FirstBinary(bytes) | Item::Continue(bytes) => {
                            (bytes, false)
                        }
                        Item::Last(bytes) => (bytes, true),
                    };
                    if self.parts.len() + bytes.len() > self.max_message {
                        return Some(self.too_big(cx));
                    }
                    self.parts.extend_from_slice(&bytes);
                    if last {
                        self.shrink();
                        return Some(SocketEvent::Frame(std::mem::take(&mut self.parts).freeze()));
                    }
                }
                Frame::Ping(payload) => {
                    if !self.mute
                        && self.unsent.len() < PONGS_MAX
                        && self.encode(Message::Pong(payload)).is_ok()
                    {
                        self.nudge(cx);
                    }
                    self.shrink();
                    return Some(SocketEvent::Heard);
                }
                Frame::Pong(_) => {
                    self.shrink();
                    return Some(SocketEvent::Heard);
                }
                Frame::Close(reason) => {
                    let code = reason.as_ref().map_or(1005, |reason| reason.code.into());
                    let text = reason.and_then(|reason| reason.description).unwrap_or_default();
                    self.say_goodbye(cx, if code == 1005 { 1000 } else { code });
                    return Some(self.end(code, false, &text));
                }
            }
        }
    }

    /// Keeps of what has been read only what is not decoded.
    fn shrink(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }

    fn too_big(&mut self, cx: &mut Context<'_>) -> SocketEvent {
        self.say_goodbye(cx, 1009);
        self.end(1009, true, "a message above max_frame_bytes or max_message_bytes")
    }

    /// Sends a close frame if the connection takes it now.
    fn say_goodbye(&mut self, cx: &mut Context<'_>, code: u16) {
        let reason = CloseReason { code: code.into(), description: None };
        if !self.mute && self.encode(Message::Close(Some(reason))).is_ok() {
            self.nudge(cx);
        }
    }

    fn end(&mut self, code: u16, ours: bool, reason: &str) -> SocketEvent {
        let closed = SocketClose { code, ours, reason: fit(reason) };
        self.closed = Some(closed.clone());
        self.unread = BytesMut::new();
        self.parts = BytesMut::new();
        self.mute();
        SocketEvent::Closed(closed)
    }
}

/// The payload length that a frame's head announces (RFC 6455, 5.2); `None` while the head is incomplete.
///
/// The codec compares a length with its cap only once the whole frame is there, so it would let a peer fill the
/// memory first.
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
