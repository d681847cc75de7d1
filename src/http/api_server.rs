//! The listener for callers.

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

/// Idle connections of callers are kept this long: longer than load balancers keep theirs, so that they close
/// first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a caller may leave what was sent to it unacknowledged, or have no room for more.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that is being closed may take for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long open requests have when the listener ends, in seconds.
const SHUTDOWN_SECONDS: u64 = 5;

/// Starts to serve callers on so many threads. Where this fails nothing was started. Whenever `close_connections` tells all who wait
/// for it, the connections that are open then close: idle ones at once, the others behind their answer.
///
/// It is put together here and not by `HttpServer`, because that knows no connections but its own: see `connection`.
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
            // Who has closed its side takes no answer any more, and no place among the waits.
            .h1_allow_half_closed(false)
            // Else idle connections would hold up the end.
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

/// Lets the system send at once, and cut a connection whose other side takes nothing any more. Nobody else can do that: a
/// response is not asked for more while what it gave is not taken, and a peer that lives but does not read answers
/// every probe.
fn configure_socket(socket: &TcpStream) {
    let set = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let set = set.and(socket2::SockRef::from(socket).set_tcp_user_timeout(Some(STALL_TIMEOUT)));
    if let Err(error) = set {
        debug!(%error, "a connection that stands still will not be cut");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_that_stands_still_is_cut_by_the_system() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, _theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (ours, _) = ours.unwrap();
        configure_socket(&ours);
        assert_eq!(socket2::SockRef::from(&ours).tcp_user_timeout().unwrap(), Some(STALL_TIMEOUT));
        assert!(ours.nodelay().unwrap());
    }
}
