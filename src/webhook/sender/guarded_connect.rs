//! Opens connections: resolves the name, asks the guard about every address, and connects to one that passed.
//!
//! awc resolves and connects by itself, and would connect to whatever comes out. This stands in its place, so there is
//! nothing between the check and the connection that could answer differently.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use actix_service::{Service, fn_service};
use actix_tls::connect::{ConnectError, ConnectInfo, Connection, Host as _};
use awc::http::Uri;
use futures_util::future::LocalBoxFuture;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::webhook::ssrf_guard::SsrfGuard;

/// How long one of several addresses may take to be connected to; the last may take what is left.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(2);

/// Looks up a name: the addresses of a host and a port.
pub(super) type DnsResolver = Rc<dyn Fn(String, u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>>>;

/// The resolver of the system.
pub(super) fn system() -> DnsResolver {
    Rc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// Why a name leads nowhere that a delivery may go to. It travels inside of an [`io::Error`], since awc keeps no other.
#[derive(Debug, thiserror::Error)]
#[error("the address {0} is not public")]
pub(super) struct NotPublicAddress(pub(super) IpAddr);

/// The service that awc opens connections with; `opened` counts them.
pub(super) fn service(
    guard: Rc<SsrfGuard>,
    resolve: DnsResolver,
    opened: Rc<Cell<u64>>,
) -> impl Service<ConnectInfo<Uri>, Response = Connection<Uri, TcpStream>, Error = ConnectError> + Clone {
    fn_service(move |info: ConnectInfo<Uri>| {
        let (guard, resolve) = (Rc::clone(&guard), Rc::clone(&resolve));
        opened.set(opened.get() + 1);
        async move {
            let addresses = addresses(&info, &resolve).await?;
            let stream = connect(&guard, &addresses, TcpStream::connect).await?;
            if let Err(error) = stream.set_nodelay(true) {
                // Slower, not wrong.
                tracing::debug!(%error, "TCP_NODELAY cannot be set");
            }
            Ok(Connection::new(info.request().clone(), stream))
        }
    })
}

/// The addresses of the host, which may be one itself.
async fn addresses(info: &ConnectInfo<Uri>, resolve: &DnsResolver) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = info.request().hostname();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse() {
        return Ok(vec![SocketAddr::new(address, info.port())]);
    }
    let found = resolve(host.to_owned(), info.port()).await;
    found.map_err(|error| ConnectError::Resolver(Box::new(error)))
}

/// Connects to the first address that passes the guard and answers.
async fn connect<T, F>(
    guard: &SsrfGuard,
    addresses: &[SocketAddr],
    open: impl Fn(SocketAddr) -> F,
) -> Result<T, ConnectError>
where
    F: Future<Output = io::Result<T>>,
{
    let refused = addresses.iter().find(|address| !guard.admits(address.ip()));
    let mut failure = match refused {
        Some(address) => ConnectError::Io(io::Error::other(NotPublicAddress(address.ip()))),
        None => ConnectError::NoRecords,
    };
    let mut admitted = addresses.iter().filter(|address| guard.admits(address.ip())).peekable();
    while let Some(&address) = admitted.next() {
        let opening = open(address);
        let opened = if admitted.peek().is_some() {
            timeout(ADDRESS_DEADLINE, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            opening.await
        };
        match opened {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = ConnectError::Io(error),
        }
    }
    Err(failure)
}
