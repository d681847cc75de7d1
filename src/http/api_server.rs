//! The server of the callers' listener.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{ServiceFactory as _, fn_factory, fn_service, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;
use tokio::sync::Notify;
use tracing::debug;

use super::detachable_connection::{self, DetachableConnection};
use super::{ApiContext, configure};

/// Lifetime of an idle connection. It exceeds that of load balancers, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Longest time that a peer may leave sent bytes unacknowledged, or its receive window full.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for open requests when the listener stops, in seconds.
const SHUTDOWN_SECONDS: u64 = 5;

/// Starts the server of callers on this many threads. A failed start leaves nothing running.
///
/// A notification of all waiters of `close_connections` closes the open connections: idle ones at once, the others
/// after their answer.
///
/// Actix' `HttpServer` accepts only its own type of connection, so this function assembles the server by itself (see
/// `detachable_connection`).
///
/// # Errors
/// The listener cannot be used.
pub fn serve(
    context: Arc<ApiContext>,
    listener: TcpListener,
    threads: usize,
    close_connections: Arc<Notify>,
) -> io::Result<Server> {
    let server = Server::build();
    let stopping = server.graceful_shutdown_signal();
    let connections = move || {
        let (stopping, close_connections) = (stopping.clone(), Arc::clone(&close_connections));
        let requests = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_disconnect_timeout(CLOSE_TIMEOUT)
            // A caller that closed its side gets no answer, and its wait must end.
            .h1_allow_half_closed(false)
            // Idle connections would delay the shutdown otherwise.
            .graceful_shutdown_signal(move || {
                let (stopping, closing) = (stopping.clone(), Arc::clone(&close_connections).notified_owned());
                async move {
                    tokio::select! {
                        () = stopping.notified() => {}
                        () = closing => {}
                    }
                }
            })
            .on_connect_ext(|connection: &DetachableConnection, data| {
                data.insert(connection.clone());
            })
            .h1(map_config(App::new().configure(configure(Arc::clone(&context))), |()| AppConfig::default()));
        fn_factory(move || {
            let requests = requests.new_service(());
            async move {
                let requests = Rc::new(requests.await?);
                Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                    configure_socket(&socket);
                    detachable_connection::serve(socket, Rc::clone(&requests))
                }))
            }
        })
    };
    let server = server.workers(threads).shutdown_timeout(SHUTDOWN_SECONDS).disable_signals();
    Ok(server.listen("api", listener, connections)?.run())
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
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, _theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (ours, _) = ours.unwrap();
        configure_socket(&ours);
        assert_eq!(socket2::SockRef::from(&ours).tcp_user_timeout().unwrap(), Some(STALL_TIMEOUT));
        assert!(ours.nodelay().unwrap());
    }
}
