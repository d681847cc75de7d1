//! Opens connections through the SSRF guard: only the admitted addresses of a name are connected to.
//!
//! awc's own connector would connect to any resolved address. One lookup serves both the check and the connection, so a
//! DNS answer that changes in between (DNS rebinding) has no effect. A proxy that takes names only looks the name up
//! again, after the check here.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use awc::http::Uri;

use crate::tcp::{self, DnsResolver, OutgoingStream, ProxiedConnect};
use crate::webhook::ssrf_guard::SsrfGuard;

/// The guard refused every address. awc keeps only an [`io::Error`], so that wraps this one.
#[derive(Debug, thiserror::Error)]
#[error("the address {0} is not public")]
pub(super) struct NotPublicAddress(pub(super) IpAddr);

/// Returns the service by which awc opens connections. `opened` counts them.
pub(super) fn service(
    guard: Rc<SsrfGuard>,
    resolve: DnsResolver,
    opened: Rc<Cell<u64>>,
    proxy: Option<ProxiedConnect>,
) -> impl Service<ConnectInfo<Uri>, Response = Connection<Uri, OutgoingStream>, Error = ConnectError> + Clone
{
    let admit = move |addresses| {
        opened.set(opened.get() + 1);
        admitted(&guard, addresses)
    };
    tcp::connector(resolve, admit, proxy)
}

/// Returns the admitted addresses. Refuses a name that has others only.
fn admitted(guard: &SsrfGuard, mut addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let refused = addresses.iter().find(|address| !guard.admits(address.ip())).copied();
    addresses.retain(|address| guard.admits(address.ip()));
    match refused {
        Some(address) if addresses.is_empty() => Err(io::Error::other(NotPublicAddress(address.ip()))),
        _ => Ok(addresses),
    }
}
