//! The server of the callers' listener, on the threads of the shards.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{Service as _, ServiceFactory as _, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use futures_util::future::join_all;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::detachable_connection::{self, DetachableConnection};
use super::refusal_writer::RefusalWriter;
use super::{ApiContext, configure, expectation};
use crate::runtime::WorkerThreads;

/// Lifetime of an idle connection. It exceeds that of load balancers, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Longest time that a peer may leave sent bytes unacknowledged, or its receive window full.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The age up to which a connection stays open at a shutdown, because its first request may be on the way.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Time for open requests when the listener stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that may wait for a thread.
const QUEUE: usize = 128;
/// The delay after a failed accept: the process may have no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The server of callers. When it is dropped, the listener and the connections close.
///
/// Its connections run on the threads of the shards. Actix' own servers start threads by themselves, and `HttpServer`
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

impl ApiServer {
    /// Serves the connections of this listener on these threads, in turn.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn start(
        context: &Arc<ApiContext>,
        listener: std::net::TcpListener,
        threads: &WorkerThreads,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let closing = Arc::new(Notify::new());
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for index in 0..threads.count() {
            let (connections, inbox) = mpsc::channel(QUEUE);
            let (end, ended) = oneshot::channel();
            let (context, closing) = (Arc::clone(context), Arc::clone(&closing));
            let serve = async move || {
                serve_connections(context, inbox, closing).await;
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
                () = accept(listener, &inboxes) => {}
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
async fn accept(listener: std::net::TcpListener, threads: &[mpsc::Sender<std::net::TcpStream>]) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    for first in (0..threads.len()).cycle() {
        let socket = loop {
            match listener.accept().await.and_then(|(socket, _)| socket.into_std()) {
                Ok(socket) => break socket,
                Err(error) if is_of_the_process(&error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
                // The caller has left, or the network between failed.
                Err(error) => {
                    debug!(%error, "a connection failed before it was accepted");
                    yield_now().await;
                }
            }
        };
        if !hand_over(socket, threads, first).await {
            return;
        }
    }
}

/// Returns whether the process or the system lacks files or memory. Other errors belong to one connection.
fn is_of_the_process(error: &io::Error) -> bool {
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| lacking.iter().any(|errno| errno.raw_os_error() == code))
}

/// Gives a connection to the first thread from this one on that has room, or waits for this one. Returns `false` if a thread
/// takes no more.
async fn hand_over(
    mut socket: std::net::TcpStream,
    threads: &[mpsc::Sender<std::net::TcpStream>],
    first: usize,
) -> bool {
    for thread in threads.iter().cycle().skip(first).take(threads.len()) {
        match thread.try_send(socket) {
            Ok(()) => return true,
            Err(TrySendError::Full(returned)) => socket = returned,
            Err(TrySendError::Closed(_)) => return false,
        }
    }
    let Some(thread) = threads.get(first) else { return false };
    thread.send(socket).await.is_ok()
}

/// Serves connections on this thread until the listener has closed and the last of them has ended.
async fn serve_connections(
    context: Arc<ApiContext>,
    mut connections: mpsc::Receiver<std::net::TcpStream>,
    closing: Arc<Notify>,
) {
    let stopping = CancellationToken::new();
    let stopped = stopping.clone();
    let (metrics, expecting) = (Arc::clone(&context.metrics), Arc::clone(&context));
    let requests = HttpService::build()
        .keep_alive(KEEP_ALIVE)
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
        .expect(fn_service(move |request| {
            let context = Arc::clone(&expecting);
            async move { expectation::admit(&context, request).await }
        }))
        .h1(map_config(App::new().configure(configure(context)), |()| AppConfig::default()));
    let Ok(requests) = requests.new_service(()).await else { return };
    let requests = Rc::new(requests);
    let requests = Rc::new(fn_service(move |(connection, peer): (DetachableConnection, _)| {
        let writer = RefusalWriter::new(connection.clone(), Arc::clone(&metrics));
        let served = requests.call((writer, peer));
        async move {
            let served = served.await;
            if served.is_err() {
                timeout(CLOSE_TIMEOUT, drop_rest(connection)).await.ok();
            }
            served
        }
    }));
    let open = TaskTracker::new();
    while let Some(socket) = connections.recv().await {
        let Ok(socket) = TcpStream::from_std(socket) else { continue };
        configure_socket(&socket);
        open.spawn_local(detachable_connection::serve(socket, Rc::clone(&requests)));
    }
    open.close();
    stopping.cancel();
    timeout(SHUTDOWN_TIMEOUT, open.wait()).await.ok();
}

/// Closes our side of a connection that failed, and drops what the caller still sends. An unread rest would reset the
/// connection, and the caller would lose the refusal.
async fn drop_rest(mut connection: DetachableConnection) {
    let mut rest = [0; 4096];
    if connection.shutdown().await.is_ok() {
        while connection.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    }
}

/// Disables Nagle's algorithm and lets the system cut a connection whose peer reads nothing.
///
/// Only the system can do that. Actix does not poll a response until the peer takes its bytes. A peer that does not read
/// still answers keep-alive probes.
fn configure_socket(socket: &TcpStream) {
    let set = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let set = set.and(socket2::SockRef::from(socket).set_tcp_user_timeout(Some(STALL_TIMEOUT)));
    if let Err(error) = set {
        debug!(%error, "socket options failed; a stalled connection will stay open");
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
        configure_socket(&ours);
        assert_eq!(socket2::SockRef::from(&ours).tcp_user_timeout().unwrap(), Some(STALL_TIMEOUT));
        assert!(ours.nodelay().unwrap());
    }
}
