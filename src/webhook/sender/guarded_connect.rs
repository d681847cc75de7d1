//! Opens connections through the SSRF guard: resolves the name, checks each address, and connects to an admitted one.
//!
//! It replaces awc's own connector, which would connect to any resolved address. One lookup serves both the check and
//! the connection, so a DNS answer that changes in between (DNS rebinding) has no effect.

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

/// The connect timeout of each address but the last. The last address may use the remaining time.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// A function that resolves a host and a port to addresses.
pub(super) type DnsResolver = Rc<dyn Fn(String, u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>>>;

/// Returns the resolver of the system.
pub(super) fn system() -> DnsResolver {
    Rc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// The guard refused every address. awc keeps only an [`io::Error`], so that wraps this one.
#[derive(Debug, thiserror::Error)]
#[error("the address {0} is not public")]
pub(super) struct NotPublicAddress(pub(super) IpAddr);

/// Returns the service by which awc opens connections. `opened` counts them.
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
                // The connection works without it.
                tracing::debug!(%error, "TCP_NODELAY cannot be set");
            }
            Ok(Connection::new(info.request().clone(), stream))
        }
    })
}

/// Resolves the host, which may be an address itself.
async fn addresses(info: &ConnectInfo<Uri>, resolve: &DnsResolver) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = info.request().hostname();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse() {
        return Ok(vec![SocketAddr::new(address, info.port())]);
    }
    let found = resolve(host.to_owned(), info.port()).await;
    found.map_err(|error| ConnectError::Resolver(Box::new(error)))
}

/// Connects to the first admitted address that answers.
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
            timeout(ADDRESS_TIMEOUT, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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
