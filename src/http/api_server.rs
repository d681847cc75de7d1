//! The HTTP server of a listener, on threads of the bridge.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_service::{Service as _, ServiceFactory as _, fn_service, map_config};
use actix_web::App;
use actix_web::body::{BoxBody, MessageBody as _};
use actix_web::dev::AppConfig;
use actix_web::http::header::HeaderMap;
use actix_web::web::ServiceConfig;
use futures_util::future::{join_all, ready};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::api_error::{ApiError, RETRY_SOON};
use super::connection_limits::ConnectionLimits;
use super::connection_progress::ConnectionTimeouts;
use super::detachable_connection::{self, DetachableConnection};
use super::refusal_writer::RefusalWriter;
use super::server_tls::ServerTls;
use super::trace_context::TraceContext;
use super::{AdminContext, ApiContext, configure, configure_admin, expectation};
use crate::domain::FairShare;
use crate::hub::HubError;
use crate::metrics::Metrics;
use crate::runtime::WorkerThreads;

/// Time for the head of a connection's first request, which actix answers with 408. The others are in
/// [`ConnectionTimeouts`].
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// Timeout of closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The age up to which a connection stays open at a shutdown, because its first request may be on the way.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Time for open requests when the listener stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that the system holds for a peer before it sends them.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 << 10;

/// Connections that may wait for a thread.
const QUEUE: usize = 128;
/// The delay after a failed accept: the process may have no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// The least time between two log lines about failed accepts, or about refused connections.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// Connections to the operator's listener.
const ADMIN_CONNECTIONS: usize = 128;

/// The server of a listener. When it is dropped, the listener and the connections close.
///
/// Its connections run on threads of the bridge. Actix' own servers start threads by themselves, and `HttpServer`
/// accepts only its own type of connection (see `detachable_connection`). So this server uses their parts.
#[derive(Debug)]
pub struct ApiServer {
    /// Closes the listener when it is dropped.
    accepting: oneshot::Sender<Infallible>,
    /// Closes open connections: idle ones at once, the others after their answer.
    closing: Arc<Notify>,
    /// The end of the last connection of each thread.
    ends: Vec<oneshot::Receiver<()>>,
}

/// The parts of a listener's HTTP service. Each thread makes its own service of them.
#[derive(Clone)]
struct HttpServiceSetup<R, E> {
    metrics: Arc<Metrics>,
    /// TLS of the connections.
    tls: Option<Arc<ServerTls>>,
    /// Makes the routes.
    routes: R,
    /// Decides on `Expect: 100-continue`.
    expect: E,
}

/// A connection with its place among all.
type PlacedConnection = (std::net::TcpStream, OwnedSemaphorePermit);

impl ApiServer {
    /// Serves callers on this listener. Their connections go to these threads in turn.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn start(
        context: &Arc<ApiContext>,
        listener: std::net::TcpListener,
        tls: Option<Arc<ServerTls>>,
        threads: &WorkerThreads,
    ) -> io::Result<Self> {
        let (max, memory) = (context.config.server.max_connections, Arc::clone(&context.memory));
        let limits = ConnectionLimits::new(max, memory, Some(context.metrics.connections.clone()));
        let (routed, expecting) = (Arc::clone(context), Arc::clone(context));
        let service = HttpServiceSetup {
            metrics: Arc::clone(&context.metrics),
            tls,
            routes: move || configure(Arc::clone(&routed)),
            expect: move |request| {
                let context = Arc::clone(&expecting);
                async move { expectation::admit(&context, request).await }
            },
        };
        Self::serve(service, limits, listener, threads).await
    }

    /// Serves the operator on this listener, with limits of its own.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn start_admin(
        context: Arc<AdminContext>,
        listener: std::net::TcpListener,
        threads: &WorkerThreads,
    ) -> io::Result<Self> {
        let limits = ConnectionLimits::new(ADMIN_CONNECTIONS, FairShare::new(usize::MAX, 0), None);
        let service = HttpServiceSetup {
            metrics: Arc::clone(&context.metrics),
            tls: None,
            routes: move || configure_admin(Arc::clone(&context)),
            expect: |request| ready(Ok(request)),
        };
        Self::serve(service, limits, listener, threads).await
    }

    async fn serve<R, C, E, F>(
        service: HttpServiceSetup<R, E>,
        limits: ConnectionLimits,
        listener: std::net::TcpListener,
        threads: &WorkerThreads,
    ) -> io::Result<Self>
    where
        R: Fn() -> C + Clone + Send + 'static,
        C: FnOnce(&mut ServiceConfig) + 'static,
        E: Fn(Request) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Request, Response<BoxBody>>> + 'static,
    {
        listener.set_nonblocking(true)?;
        let limits = Arc::new(limits);
        let closing = Arc::new(Notify::new());
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for index in 0..threads.count() {
            let (connections, inbox) = mpsc::channel(QUEUE);
            let (end, ended) = oneshot::channel();
            let (service, limits, closing) = (service.clone(), Arc::clone(&limits), Arc::clone(&closing));
            let serve = async move || {
                serve_connections(service, limits, inbox, closing).await;
                end.send(()).ok();
            };
            threads.run_on(index, serve).await;
            inboxes.push(connections);
            ends.push(ended);
        }
        let (accepting, stopped) = oneshot::channel();
        let accept = async move || {
            tokio::select! {
                _ = stopped => {}
                () = accept(listener, &limits, &inboxes) => {}
            }
        };
        threads.run_on(0, accept).await;
        Ok(Self { accepting, closing, ends })
    }

    /// Returns when the server has ended by itself.
    pub async fn died(&mut self) {
        self.accepting.closed().await;
    }

    /// Closes the open connections: idle ones at once, the others after their answer. New ones are accepted.
    pub fn close_connections(&self) {
        self.closing.notify_waiters();
    }

    /// Closes the listener and all connections, and returns when the open requests are answered.
    pub async fn stop(self) {
        drop(self.accepting);
        join_all(self.ends).await;
    }
}

/// Accepts connections and gives them to the threads in turn. Returns when a thread takes no more.
async fn accept(
    listener: std::net::TcpListener,
    limits: &ConnectionLimits,
    threads: &[mpsc::Sender<PlacedConnection>],
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let (mut failures, mut refusals) = (OccasionalLog::default(), OccasionalLog::default());
    for first in (0..threads.len()).cycle() {
        let connection = loop {
            match listener.accept().await.and_then(|(socket, _)| socket.into_std()) {
                Ok(socket) => {
                    if let Some(place) = limits.admit().await {
                        break (socket, place);
                    }
                    refuse(socket);
                    if let Some(since) = refusals.next() {
                        warn!(refused = since, "connections are refused: server.max_connections is reached");
                    }
                }
                Err(error) if is_of_the_process(&error) => {
                    limits.count_accept_error();
                    if let Some(since) = failures.next() {
                        warn!(%error, failed = since, "a connection could not be accepted");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
                // The caller has left, or the network between failed.
                Err(error) => {
                    debug!(%error, "a connection failed before it was accepted");
                    yield_now().await;
                }
            }
        };
        if !hand_over(connection, threads, first).await {
            return;
        }
    }
}

/// Logs an event that may come many times a second, at most once in [`LOG_INTERVAL`].
#[derive(Debug, Default)]
struct OccasionalLog {
    last: Option<Instant>,
    count: u64,
}

impl OccasionalLog {
    /// Returns the number of events since the last line if another line is due.
    fn next(&mut self) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

/// Answers a connection above the limit, and closes it. The answer fits into the system's buffer.
fn refuse(mut socket: std::net::TcpStream) {
    let failure = ApiError::from(HubError::Overloaded("open connections"));
    let response = failure.response("/", TraceContext::from_headers(&HeaderMap::new()));
    let (status, body) = (response.status(), response.into_body().try_into_bytes().unwrap_or_default());
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         retry-after: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        RETRY_SOON.as_secs(),
        body.len()
    );
    let answered = socket
        .write_all(&[head.as_bytes(), &body].concat())
        .and_then(|()| socket.shutdown(std::net::Shutdown::Write));
    if let Err(error) = answered {
        debug!(%error, "a connection was refused without an answer");
    }
    // A close with unread bytes would break the connection, and the caller would perhaps lose the answer.
    let _discarded = socket.read(&mut [0; 4096]);
}

/// Returns whether the process or the system lacks files or memory. Other errors belong to one connection.
fn is_of_the_process(error: &io::Error) -> bool {
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| lacking.iter().any(|errno| errno.raw_os_error() == code))
}

/// Gives a connection to the first thread from this one on that has room, or waits for this one. Returns `false` if a thread
/// takes no more.
async fn hand_over(
    mut connection: PlacedConnection,
    threads: &[mpsc::Sender<PlacedConnection>],
    first: usize,
) -> bool {
    for thread in threads.iter().cycle().skip(first).take(threads.len()) {
        match thread.try_send(connection) {
            Ok(()) => return true,
            Err(TrySendError::Full(returned)) => connection = returned,
            Err(TrySendError::Closed(_)) => return false,
        }
    }
    let Some(thread) = threads.get(first) else { return false };
    thread.send(connection).await.is_ok()
}

/// Serves connections on this thread until the listener has closed and the last of them has ended.
async fn serve_connections<R, C, E, F>(
    service: HttpServiceSetup<R, E>,
    limits: Arc<ConnectionLimits>,
    mut connections: mpsc::Receiver<PlacedConnection>,
    closing: Arc<Notify>,
) where
    R: Fn() -> C,
    C: FnOnce(&mut ServiceConfig) + 'static,
    E: Fn(Request) -> F + Clone + 'static,
    F: Future<Output = Result<Request, Response<BoxBody>>> + 'static,
{
    let HttpServiceSetup { routes, expect, metrics, tls } = service;
    let stopping = CancellationToken::new();
    let stopped = stopping.clone();
    let requests = HttpService::build()
        // The connection itself ends its waits.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(FIRST_HEAD)
        .client_disconnect_timeout(CLOSE_TIMEOUT)
        // A caller that closed its side gets no answer, and its wait must end.
        .h1_allow_half_closed(false)
        // Idle connections would delay the shutdown otherwise.
        .graceful_shutdown_signal(move || {
            let (closing, opened) = (Arc::clone(&closing).notified_owned(), Instant::now());
            let stopped = stopped.clone().cancelled_owned();
            async move {
                tokio::select! {
                    () = closing => {}
                    () = stopped => {}
                }
                sleep_until(opened + FIRST_REQUEST).await;
            }
        })
        .on_connect_ext(|writer: &RefusalWriter<DetachableConnection>, data| {
            data.insert(writer.connection.clone());
        })
        .expect(fn_service(expect))
        .h1(map_config(App::new().configure(routes()), |()| AppConfig::default()));
    let Ok(requests) = requests.new_service(()).await else { return };
    let requests = Rc::new(requests);
    let requests = Rc::new(fn_service(move |(connection, peer): (DetachableConnection, _)| {
        requests.call((RefusalWriter::new(connection, Arc::clone(&metrics)), peer))
    }));
    let open = TaskTracker::new();
    while let Some((socket, place)) = connections.recv().await {
        let Ok(socket) = TcpStream::from_std(socket) else { continue };
        configure_socket(&socket, limits.timeouts);
        let (requests, limits, tls) = (Rc::clone(&requests), Arc::clone(&limits), tls.clone());
        open.spawn_local(async move {
            let _open = limits.count_open();
            let socket = match tls {
                Some(tls) => tls.accept(socket).await,
                None => Some(socket.into()),
            };
            if let Some(socket) = socket {
                // The server has logged its errors.
                detachable_connection::serve(socket, requests, &limits).await.ok();
            }
            drop(place);
        });
        // Hundreds of connections at once would otherwise hold up every request by the work of all of them.
        yield_now().await;
    }
    open.close();
    stopping.cancel();
    timeout(SHUTDOWN_TIMEOUT, open.wait()).await.ok();
}

/// Disables Nagle's algorithm, and has the system cut a connection whose peer has gone.
///
/// The system also holds few unsent bytes, so that the bridge sees whether the peer reads.
fn configure_socket(socket: &TcpStream, timeouts: ConnectionTimeouts) {
    let set = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let set = {
        let socket = socket2::SockRef::from(socket);
        set.and(socket.set_tcp_user_timeout(Some(timeouts.stall)))
            .and(socket.set_tcp_notsent_lowat(UNSENT_BYTES))
    };
    #[cfg(not(target_os = "linux"))]
    let _unused = timeouts;
    if let Err(error) = set {
        debug!(%error, "socket options failed; the system notices late that a peer has gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn socket_cuts_a_stalled_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, _theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (ours, _) = ours.unwrap();
        let timeouts = ConnectionTimeouts::default();
        configure_socket(&ours, timeouts);
        let socket = socket2::SockRef::from(&ours);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(timeouts.stall));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert!(ours.nodelay().unwrap());
    }
}
