//! A caller's connection that an event stream can detach from the HTTP server.
//!
//! The server keeps two buffers of 8 KiB and a state machine as long as a connection lives. That fits short requests. A
//! stream is one request for days and mostly silent, so it detaches. After the head is written, the server's work on
//! the connection is dropped. This module then writes the body. Between two events it keeps only the socket and the
//! body.
//!
//! Only HTTP/1.1 connections detach: the body is chunked (RFC 9112, 7.1), so its end differs from a broken connection.
//! The response announces that the connection closes after it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::error::DispatchError;
use actix_service::Service;
use actix_web::HttpRequest;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::Version;
use actix_web::rt::net::TcpStream;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Most bytes of one write, if the stream has more to send.
const WRITE_MAX: usize = 16 << 10;
/// The chunk that ends a body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A connection, as the server and a request see it.
#[derive(Clone)]
pub(super) struct DetachableConnection(Rc<RefCell<DetachState>>);

enum DetachState {
    /// The server answers requests.
    Serving(TcpStream),
    /// The server has the head of a stream and has not written it yet.
    HeadPending(TcpStream),
    /// The server has written the head.
    HeadWritten(TcpStream),
    /// The stream has left the server.
    Detached(TcpStream, BoxBody),
    /// [`serve`] has taken the socket and the body.
    Taken,
}

/// A body that detaches its connection.
struct DetachingBody {
    connection: DetachableConnection,
    /// The body, until it detaches.
    body: Option<BoxBody>,
}

impl DetachableConnection {
    fn new(socket: TcpStream) -> Self {
        Self(Rc::new(RefCell::new(DetachState::Serving(socket))))
    }

    /// Returns the connection of a request whose response may detach.
    pub(super) fn of_request(request: &HttpRequest) -> Option<Self> {
        request.conn_data::<Self>().filter(|_| request.version() == Version::HTTP_11).cloned()
    }

    /// Returns a response body that detaches. The response must close its connection.
    pub(super) fn detaching_body(self, body: BoxBody) -> impl MessageBody<Error = Infallible> + 'static {
        DetachingBody { connection: self, body: Some(body) }
    }

    fn is_detached(&self) -> bool {
        matches!(*self.0.borrow(), DetachState::Detached(..))
    }

    /// Takes the socket and the body of a detached stream.
    fn take_detached(&self) -> Option<(TcpStream, BoxBody)> {
        match self.0.replace(DetachState::Taken) {
            DetachState::Detached(socket, body) => Some((socket, body)),
            _ => None,
        }
    }

    fn transition(&self, next: impl FnOnce(DetachState) -> DetachState) {
        let now = self.0.replace(DetachState::Taken);
        self.0.replace(next(now));
    }

    /// Runs `work` with the socket as long as the server owns it.
    fn with_socket<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> T) -> Option<T> {
        match &mut *self.0.borrow_mut() {
            DetachState::Serving(socket)
            | DetachState::HeadPending(socket)
            | DetachState::HeadWritten(socket) => Some(work(Pin::new(socket))),
            DetachState::Detached(..) | DetachState::Taken => None,
        }
    }
}

impl MessageBody for DetachingBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let body = self.body.take();
        let mut rest = None;
        self.connection.transition(|state| match (state, body) {
            (DetachState::HeadWritten(socket), Some(body)) => DetachState::Detached(socket, body),
            // The server just got the head. Its flush wakes this body.
            (DetachState::Serving(socket) | DetachState::HeadPending(socket), body) => {
                rest = body;
                DetachState::HeadPending(socket)
            }
            (state, _) => state,
        });
        self.body = rest;
        // The body is pending even after it detached. `serve` then drops the server's work before it can read another
        // request.
        Poll::Pending
    }
}

impl AsyncRead for DetachableConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with_socket(|socket| socket.poll_read(cx, to)).unwrap_or(Poll::Ready(Ok(())))
    }
}

impl AsyncWrite for DetachableConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with_socket(|socket| socket.poll_write(cx, bytes)).unwrap_or(Poll::Ready(Ok(bytes.len())))
    }

    /// The server flushes after the socket has taken all of its bytes.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transition(|state| match state {
            DetachState::HeadPending(socket) => {
                cx.waker().wake_by_ref();
                DetachState::HeadWritten(socket)
            }
            state => state,
        });
        self.with_socket(|socket| socket.poll_flush(cx)).unwrap_or(Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_socket(|socket| socket.poll_shutdown(cx)).unwrap_or(Poll::Ready(Ok(())))
    }
}

/// Serves a connection, and writes the body of a stream that detaches from it.
pub(super) async fn serve<S>(socket: TcpStream, server: Rc<S>) -> Result<(), DispatchError>
where
    S: Service<(DetachableConnection, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let peer = socket.peer_addr().ok();
    let connection = DetachableConnection::new(socket);
    // The server's work has a heap allocation of its own, which a stream does not keep.
    let mut work = Box::pin(server.call((connection.clone(), peer)));
    let until_detached = poll_fn(|cx| match work.as_mut().poll(cx) {
        // The server's result is void: the connection was not its own any more.
        _ if connection.is_detached() => Poll::Ready(Ok(())),
        end => end,
    });
    until_detached.await?;
    drop((work, server));
    if let Some((socket, body)) = connection.take_detached() {
        // A failed write only means that the caller has left.
        write_body(socket, body).await.ok();
    }
    Ok(())
}

/// Writes a body until its end, or until the caller leaves.
async fn write_body(mut socket: TcpStream, mut body: BoxBody) -> io::Result<()> {
    loop {
        let next = poll_fn(|cx| {
            if poll_closed(&socket, cx).is_ready() {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            poll_chunks(&mut body, cx)
        });
        let (frame, more) = next.await?;
        socket.write_all(&frame).await?;
        if !more {
            return socket.shutdown().await;
        }
    }
}

/// Collects the chunks that are ready, up to one write. The flag says whether more may follow.
fn poll_chunks(body: &mut BoxBody, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, bool)>> {
    let mut frame = Vec::new();
    while frame.len() < WRITE_MAX {
        match body.as_pin_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => write_chunk(&piece, &mut frame)?,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error.to_string()))),
            Poll::Ready(None) => {
                frame.extend_from_slice(LAST_CHUNK);
                return Poll::Ready(Ok((frame, false)));
            }
            Poll::Pending if frame.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok((frame, true)))
}

/// Writes a chunk. An empty chunk would end the body, so it is skipped.
fn write_chunk(piece: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
    if !piece.is_empty() {
        write!(frame, "{:x}\r\n", piece.len())?;
        frame.extend_from_slice(piece);
        frame.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Completes if the caller has closed its side or the connection is broken. Further bytes of the caller are dropped, as
/// the connection serves no second request.
fn poll_closed(socket: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let read = ready!(socket.poll_read_ready(cx)).and_then(|()| socket.try_read(&mut [0; 256]));
        match read {
            Ok(0) => return Poll::Ready(()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Poll::Ready(()),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
