//! A caller's connection, and how a stream of events leaves the server that answers requests.
//!
//! The server keeps two buffers of 8 KiB and the machine of an HTTP connection for as long as the connection lives, which
//! is right for requests that come one after the other. A stream is one request for days in which mostly nothing is
//! said. So it parts: once its head is written, the server's work on the connection is dropped, with whatever else it
//! was about to read or answer there. What follows is written here, and between two events there is nothing but the
//! socket and the body.
//!
//! Only who speaks HTTP/1.1 gets that: the body is chunked (RFC 9112, 7.1), so that its end can be told from a broken
//! connection. The response says that the connection closes behind it.

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

/// What is written at once of a stream that has much to say.
const WRITE_MAX: usize = 16 << 10;
/// The chunk that ends a body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A connection, as the server sees it and as a request finds it.
#[derive(Clone)]
pub(super) struct DetachableConnection(Rc<RefCell<DetachState>>);

enum DetachState {
    /// Requests are answered.
    Serving(TcpStream),
    /// The head of a stream is in the server's hands.
    HeadPending(TcpStream),
    /// The head is written.
    HeadWritten(TcpStream),
    /// The stream goes on without the server.
    Detached(TcpStream, BoxBody),
    /// It does so by now.
    Taken,
}

/// A body that parts.
struct DetachingBody {
    connection: DetachableConnection,
    /// None when it has.
    body: Option<BoxBody>,
}

impl DetachableConnection {
    fn new(socket: TcpStream) -> Self {
        Self(Rc::new(RefCell::new(DetachState::Serving(socket))))
    }

    /// The connection of a request whose answer could part.
    pub(super) fn of_request(request: &HttpRequest) -> Option<Self> {
        request.conn_data::<Self>().filter(|_| request.version() == Version::HTTP_11).cloned()
    }

    /// The body of a response that parts. The response must close its connection.
    pub(super) fn detaching_body(self, body: BoxBody) -> impl MessageBody<Error = Infallible> + 'static {
        DetachingBody { connection: self, body: Some(body) }
    }

    fn is_detached(&self) -> bool {
        matches!(*self.0.borrow(), DetachState::Detached(..))
    }

    /// What has parted.
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

    /// Does something with the socket, for as long as it is the server's.
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
            // Its head was handed to the server just before; who writes that wakes us.
            (DetachState::Serving(socket) | DetachState::HeadPending(socket), body) => {
                rest = body;
                DetachState::HeadPending(socket)
            }
            (state, _) => state,
        });
        self.body = rest;
        // Also when it has parted: who polls this is dropped then, and must not take up the next request before.
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

    /// The server asks for this when the socket has taken all that it had.
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

/// Serves a connection, and writes the stream that parts from it, if one does.
pub(super) async fn serve<S>(socket: TcpStream, server: Rc<S>) -> Result<(), DispatchError>
where
    S: Service<(DetachableConnection, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let peer = socket.peer_addr().ok();
    let connection = DetachableConnection::new(socket);
    // On the heap of its own, so that a stream keeps none of it.
    let mut work = Box::pin(server.call((connection.clone(), peer)));
    let until_detached = poll_fn(|cx| match work.as_mut().poll(cx) {
        // What it says now is of no account: it had no connection any more.
        _ if connection.is_detached() => Poll::Ready(Ok(())),
        end => end,
    });
    until_detached.await?;
    drop((work, server));
    if let Some((socket, body)) = connection.take_detached() {
        // Whatever breaks it off, the caller has gone.
        write_body(socket, body).await.ok();
    }
    Ok(())
}

/// Writes a body to its end, or until the caller goes.
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

/// The next chunks, as many as there are and may be written at once; and whether more may follow.
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

/// An empty one would end the body.
fn write_chunk(piece: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
    if !piece.is_empty() {
        write!(frame, "{:x}\r\n", piece.len())?;
        frame.extend_from_slice(piece);
        frame.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Whether the caller has closed his side, or the connection is broken. What he sends is of no use: there is one
/// request on a connection that closes.
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
