//! A caller's connection: its limits, its places until the answer is taken, and streams that detach from the server.
//!
//! The connection stands between the socket and actix. It sees each byte, and [`ConnectionProgress`] decides by them when the
//! bridge closes it. A request's places ([`RequestPlaces`]) stay taken until the system has all bytes of the answer, or
//! until the connection is gone. A long answer goes out in pieces, so that it is in memory once.
//!
//! The server keeps two buffers of 8 KiB and a state machine as long as a connection lives. That fits short requests. A
//! stream is one request for days and mostly silent, so it detaches. After the head is written, the server's work on
//! the connection is dropped, and [`detached_stream`] writes the body.
//!
//! Only HTTP/1.1 connections detach: the body is chunked (RFC 9112, 7.1), so its end differs from a broken connection.
//! The response announces that the connection closes after it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_service::Service;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::HeaderMap;
use actix_web::http::{ConnectionType, Version};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::caller_socket::CallerSocket;
use super::connection_limits::ConnectionLimits;
use super::connection_progress::{BodyLength, ConnectionProgress, ConnectionVerdict, CutReason};
use super::detached_stream;
use super::read_pace::ReadPace;
use super::refusal_writer;
use super::request_places::RequestPlaces;

/// Most bytes of one write, if the stream or the answer has more to send.
pub(super) const WRITE_MAX: usize = 16 << 10;
/// Most bytes that are read and dropped after the last answer, so that the peer can read it.
const LINGER_BYTES: usize = 256 << 10;

/// A connection, as the server and a request see it.
#[derive(Clone)]
pub(super) struct DetachableConnection(Rc<RefCell<ConnectionCore>>);

struct ConnectionCore {
    detaching: DetachState,
    progress: ConnectionProgress,
    /// The places of the request in work, until its answer is taken.
    places: RequestPlaces,
    pace: ReadPace,
    /// True if the server has the whole answer, and its next flush hands over the last byte.
    answer_complete: bool,
}

enum DetachState {
    /// The server answers requests.
    Serving(CallerSocket),
    /// The server has the head of a stream and has not written it yet.
    HeadPending(CallerSocket),
    /// The server has written the head.
    HeadWritten(CallerSocket),
    /// The stream has left the server.
    Detached(CallerSocket, BoxBody),
    /// [`serve`] has taken the socket and the body.
    Taken,
}

/// A body that detaches its connection.
struct DetachingBody {
    connection: DetachableConnection,
    /// The body, until it detaches.
    body: Option<BoxBody>,
}

/// The body of a long answer, in pieces.
struct LongBody {
    connection: DetachableConnection,
    bytes: Bytes,
}

impl DetachableConnection {
    fn new(socket: CallerSocket, limits: &ConnectionLimits) -> Self {
        Self(Rc::new(RefCell::new(ConnectionCore {
            detaching: DetachState::Serving(socket),
            progress: ConnectionProgress::new(limits.timeouts, Instant::now()),
            places: RequestPlaces::default(),
            pace: ReadPace::default(),
            answer_complete: false,
        })))
    }

    /// Returns the connection of a request. Tests call handlers without one.
    pub(super) fn of_request(request: &HttpRequest) -> Option<&Self> {
        request.conn_data::<Self>()
    }

    /// Returns the connection of a request whose response may detach.
    pub(super) fn detachable(request: &HttpRequest) -> Option<Self> {
        Self::of_request(request).filter(|_| request.version() == Version::HTTP_11).cloned()
    }

    /// Returns a response body that detaches. The response must close its connection.
    pub(super) fn detaching_body(self, body: BoxBody) -> impl MessageBody<Error = Infallible> + 'static {
        DetachingBody { connection: self, body: Some(body) }
    }

    /// Takes note that work on a request with these headers begins.
    pub(super) fn request_begun(&self, headers: &HeaderMap) {
        self.0.borrow_mut().progress.request_begun(BodyLength::of(headers));
    }

    /// Allows a body of this length for the request in work.
    pub(super) fn allow_body(&self, bytes: usize) {
        self.0.borrow_mut().progress.allow_body(bytes);
    }

    /// Gives access to the places that the request holds until its answer is taken.
    pub(super) fn with_places<T>(&self, change: impl FnOnce(&mut RequestPlaces) -> T) -> T {
        change(&mut self.0.borrow_mut().places)
    }

    /// Prepares an answer. A connection with an unread body closes behind it. A stream holds places of its own.
    pub(super) fn answer(&self, mut response: HttpResponse) -> HttpResponse {
        let mut state = self.0.borrow_mut();
        if state.progress.answer_begun() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        match response.body().size() {
            BodySize::Stream => {
                state.places = RequestPlaces::default();
                response
            }
            BodySize::Sized(length) if length > WRITE_MAX as u64 => {
                response.map_body(|_, body| match body.try_into_bytes() {
                    Ok(bytes) => BoxBody::new(LongBody { connection: self.clone(), bytes }),
                    Err(body) => body,
                })
            }
            _ => {
                state.answer_complete = true;
                response
            }
        }
    }

    fn is_detached(&self) -> bool {
        matches!(self.0.borrow().detaching, DetachState::Detached(..))
    }

    /// Takes the socket, and the body of a detached stream.
    fn take_socket(&self) -> Option<(CallerSocket, Option<BoxBody>)> {
        match std::mem::replace(&mut self.0.borrow_mut().detaching, DetachState::Taken) {
            DetachState::Serving(socket)
            | DetachState::HeadPending(socket)
            | DetachState::HeadWritten(socket) => Some((socket, None)),
            DetachState::Detached(socket, body) => Some((socket, Some(body))),
            DetachState::Taken => None,
        }
    }

    fn transition(&self, next: impl FnOnce(DetachState) -> DetachState) {
        let mut state = self.0.borrow_mut();
        let now = std::mem::replace(&mut state.detaching, DetachState::Taken);
        state.detaching = next(now);
    }
}

impl ConnectionCore {
    /// Returns the socket as long as the server owns it.
    fn socket(&mut self) -> Option<Pin<&mut CallerSocket>> {
        match &mut self.detaching {
            DetachState::Serving(socket)
            | DetachState::HeadPending(socket)
            | DetachState::HeadWritten(socket) => Some(Pin::new(socket)),
            DetachState::Detached(..) | DetachState::Taken => None,
        }
    }
}

impl MessageBody for LongBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.bytes.len().min(WRITE_MAX);
        Poll::Ready((length > 0).then(|| Ok(self.bytes.split_to(length))))
    }
}

impl Drop for LongBody {
    fn drop(&mut self) {
        self.connection.0.borrow_mut().answer_complete = true;
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
    /// Reads nothing above the request's allowance. [`serve`] then closes the connection after the answer.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if !state.progress.may_read() {
            return Poll::Pending;
        }
        let begun = ready!(state.pace.poll_turn(cx));
        let Some(socket) = state.socket() else { return Poll::Ready(Ok(())) };
        let before = to.filled().len();
        let read = socket.poll_read(cx, to);
        let received = to.filled().get(before..).unwrap_or_default();
        state.progress.received(received, Instant::now);
        state.pace.on_read(received.len(), begun);
        read
    }
}

impl AsyncWrite for DetachableConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        let Some(socket) = state.socket() else { return Poll::Ready(Ok(bytes.len())) };
        let written = socket.poll_write(cx, bytes);
        state.progress.written(written.is_ready(), Instant::now);
        written
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
        let mut state = self.0.borrow_mut();
        // Only with TLS may bytes wait here that the system does not have.
        let flushed = state.socket().map_or(Poll::Ready(Ok(())), |socket| socket.poll_flush(cx));
        state.progress.written(flushed.is_ready(), Instant::now);
        if flushed.is_ready() && std::mem::take(&mut state.answer_complete) {
            state.places = RequestPlaces::default();
            state.progress.answer_taken(Instant::now());
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().socket().map_or(Poll::Ready(Ok(())), |socket| socket.poll_shutdown(cx))
    }
}

/// Serves a connection within its limits, and writes the body of a stream that detaches from it.
pub(super) async fn serve<S>(
    socket: impl Into<CallerSocket>,
    server: Rc<S>,
    limits: &ConnectionLimits,
) -> Result<(), DispatchError>
where
    S: Service<(DetachableConnection, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let connection = DetachableConnection::new(socket.into(), limits);
    // The server's work has a heap allocation of its own, which a stream does not keep.
    let end = Box::pin(serve_requests(connection.clone(), server, limits)).await;
    let Some((mut socket, body)) = connection.take_socket() else { return end.map(drop) };
    drop(connection);
    match (body, &end) {
        // A failed write only means that the caller has left.
        (Some(body), _) => detached_stream::write(socket, body, limits).await.unwrap_or_default(),
        (None, Ok(Some(CutReason::Stalled))) => reset(&socket),
        (None, Ok(Some(CutReason::SlowHead))) => {
            // The buffer of the system has room for it, as the last answer is taken.
            let refusal = refusal_writer::late_head();
            let written = async {
                socket.write_all(&refusal).await?;
                socket.flush().await
            };
            written.now_or_never();
            linger(socket, limits.timeouts.linger).await;
        }
        // A server that failed has refused the request.
        (None, Ok(Some(CutReason::Unread)) | Err(_)) => linger(socket, limits.timeouts.linger).await,
        (None, Ok(_)) => {}
    }
    end.map(drop)
}

/// Serves requests until the connection ends or detaches. Returns the reason if the bridge has to close it.
async fn serve_requests<S>(
    connection: DetachableConnection,
    server: Rc<S>,
    limits: &ConnectionLimits,
) -> Result<Option<CutReason>, DispatchError>
where
    S: Service<(DetachableConnection, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let peer = connection.0.borrow_mut().socket().and_then(|socket| socket.tcp().peer_addr().ok());
    let mut work = pin!(server.call((connection.clone(), peer)));
    // The timer is early if a request came since it was set. It is set again then, which costs less than to set it for each
    // request.
    let mut timer = pin!(sleep_until(Instant::now() + limits.timeouts.keep_alive));
    let mut evicted = pin!(None);
    let mut evictable = None;
    let closed = poll_fn(|cx| {
        connection.0.borrow_mut().pace.begin_round();
        loop {
            match work.as_mut().poll(cx) {
                // The server's result is void: the connection was not its own any more.
                _ if connection.is_detached() => return Poll::Ready(Ok(None)),
                Poll::Ready(end) => return Poll::Ready(end.map(|()| None)),
                Poll::Pending => {}
            }
            if connection.0.borrow().progress.is_evictable() {
                if evictable.is_none() {
                    evictable = Some(limits.evictable());
                    evicted.set(Some(limits.evicted()));
                }
                while evicted.as_mut().as_pin_mut().is_some_and(|evicted| evicted.poll(cx).is_ready()) {
                    if limits.are_full() {
                        return Poll::Ready(Ok(Some(CutReason::Evicted)));
                    }
                    // Another place has become free meanwhile.
                    evicted.set(Some(limits.evicted()));
                }
            } else if evictable.take().is_some() {
                evicted.set(None);
            }
            let verdict = connection.0.borrow().progress.verdict(Instant::now(), limits.are_scarce());
            match verdict {
                ConnectionVerdict::Open => return Poll::Pending,
                ConnectionVerdict::Close(reason) => return Poll::Ready(Ok(Some(reason))),
                ConnectionVerdict::Until(at) => {
                    if at < timer.deadline() || timer.is_elapsed() {
                        timer.as_mut().reset(at);
                    }
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    });
    let closed = closed.await?;
    if let Some(reason) = closed {
        limits.count_close(reason);
    }
    Ok(closed)
}

/// Breaks a connection whose peer takes no bytes. The system then drops what it holds for the peer.
pub(super) fn reset(socket: &CallerSocket) {
    // Without this option the system would go on trying.
    socket2::SockRef::from(socket.tcp()).set_linger(Some(Duration::ZERO)).ok();
}

/// Closes a connection whose peer may still send. A close with unread bytes would break it, and the peer would perhaps lose
/// the answer.
async fn linger(mut socket: CallerSocket, span: Duration) {
    let until_closed = async {
        socket.shutdown().await?;
        let mut rest = socket.take(LINGER_BYTES as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // The peer gets no more time or bytes than these.
    timeout(span, until_closed).await.ok();
}

#[cfg(test)]
mod tests;
