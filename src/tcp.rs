//! TCP connections to names with several addresses, of which some may be dead.
//!
//! The attempts follow RFC 8305: the next address is tried as soon as an attempt fails, and after 250 ms at the
//! latest. Earlier attempts go on meanwhile, and the first connection wins. So a dead address costs a quarter of a second
//! and not the caller's whole timeout.
//!
//! All clients of the bridge connect by this module, directly or through a proxy (docs/adr/0040). Redis' client brings
//! its own connections, which are always direct.

mod outgoing_stream;
mod proxy_route;
mod tunnel;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_service::{Service, fn_service};
use actix_tls::connect::{ConnectError, ConnectInfo, Connection, Host};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::outgoing_stream::OutgoingStream;
pub use self::proxy_route::ProxyRoute;
pub use self::tunnel::ProxyError;

/// The delay after which the next address is tried too (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The most addresses of a name that a proxy is asked for. Each costs a connection.
const TUNNEL_ADDRESSES_MAX: usize = 4;

/// A function that resolves a host and a port to addresses.
pub type DnsResolver = Rc<dyn Fn(String, u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>>>;

/// Returns the resolver of the system.
pub fn system_resolver() -> DnsResolver {
    Rc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// A way through a proxy, and the name by which the proxy learns of the target.
#[derive(Clone)]
pub struct ProxiedConnect {
    /// The proxy.
    pub route: Rc<ProxyRoute>,
    /// The name of the target.
    pub target: TunnelTarget,
}

/// The name by which a proxy learns of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelTarget {
    /// The host of the URL, which the proxy resolves.
    Host,
    /// An address that we resolved and admitted, or the host if the proxy takes no addresses.
    AdmittedAddress,
}

/// Returns the service by which awc opens connections, with `TCP_NODELAY`: a message is one small write that must not
/// wait. `admit` chooses among the addresses of a name before any of them is connected to.
///
/// With `proxy` it opens tunnels through that to all hosts that the proxy serves, for `http` URLs too. A failure of the
/// proxy is an [`io::Error`] around a [`ProxyError`], because awc keeps no other.
pub fn connector<R, A>(
    resolve: DnsResolver,
    admit: A,
    proxy: Option<ProxiedConnect>,
) -> impl Service<ConnectInfo<R>, Response = Connection<R, OutgoingStream>, Error = ConnectError> + Clone
where
    R: Host + Clone + 'static,
    A: Fn(Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> + Clone + 'static,
{
    fn_service(move |info: ConnectInfo<R>| {
        let (resolve, admit, proxy) = (Rc::clone(&resolve), admit.clone(), proxy.clone());
        // awc's own timeout begins after this call, so that a silent proxy is noticed here first.
        let deadline = proxy.as_ref().map(|proxy| proxy.route.deadline());
        async move {
            let (host, port) = (info.hostname(), info.port());
            let stream = match proxy.zip(deadline).filter(|(proxy, _)| proxy.route.serves(host, port)) {
                None => OutgoingStream::Plain(dial(host, port, &resolve, admit).await?),
                Some((proxy, deadline)) => proxy.open(host, port, &resolve, admit, deadline).await?,
            };
            Ok(Connection::new(info.request().clone(), stream))
        }
    })
}

impl ProxiedConnect {
    /// Opens a tunnel to a host.
    async fn open(
        &self,
        host: &str,
        port: u16,
        resolve: &DnsResolver,
        admit: impl Fn(Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>>,
        deadline: Instant,
    ) -> Result<OutgoingStream, ConnectError> {
        let by_host = format!("{host}:{port}");
        if self.target == TunnelTarget::AdmittedAddress {
            let addresses = admitted(host, port, resolve, admit);
            let addresses =
                timeout_at(deadline, addresses).await.map_err(|_| io_error(io::ErrorKind::TimedOut))??;
            for target in addresses.iter().take(TUNNEL_ADDRESSES_MAX).map(SocketAddr::to_string) {
                match self.route.open(&target, resolve, deadline).await {
                    // The proxy has no route to this address, but perhaps to another one.
                    Err(ProxyError::TargetUnreachable(_)) if addresses.len() > 1 => {}
                    // Some proxies take names only.
                    Err(ProxyError::Refused(_)) if target != by_host => break,
                    opened => return opened.map_err(proxy_failure),
                }
            }
        }
        self.route.open(&by_host, resolve, deadline).await.map_err(proxy_failure)
    }
}

fn proxy_failure(error: ProxyError) -> ConnectError {
    ConnectError::Io(io::Error::other(error))
}

fn io_error(kind: io::ErrorKind) -> ConnectError {
    ConnectError::Io(kind.into())
}

/// Connects to an admitted address of a host.
async fn dial(
    host: &str,
    port: u16,
    resolve: &DnsResolver,
    admit: impl Fn(Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>>,
) -> Result<TcpStream, ConnectError> {
    let addresses = admitted(host, port, resolve, admit).await?;
    let stream = connect_any(addresses, TcpStream::connect).await.map_err(ConnectError::Io)?;
    if let Err(error) = stream.set_nodelay(true) {
        // The connection works without it, only slower.
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    Ok(stream)
}

/// Returns the admitted addresses of a host, at least one.
async fn admitted(
    host: &str,
    port: u16,
    resolve: &DnsResolver,
    admit: impl Fn(Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>>,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let addresses = resolve_host(host, port, resolve).await;
    let addresses = addresses.map_err(|error| ConnectError::Resolver(Box::new(error)))?;
    let addresses = admit(addresses).map_err(ConnectError::Io)?;
    if addresses.is_empty() { Err(ConnectError::NoRecords) } else { Ok(addresses) }
}

/// Connects to a host, which may be a name or an address, with or without brackets.
///
/// # Errors
/// The error of the resolver, or of the last failed attempt.
pub async fn connect(host: &str, port: u16, resolve: &DnsResolver) -> io::Result<TcpStream> {
    connect_any(resolve_host(host, port, resolve).await?, TcpStream::connect).await
}

/// Returns the addresses of a host, which may be a name or an address, with or without brackets.
///
/// # Errors
/// The error of the resolver.
pub async fn resolve_host(host: &str, port: u16, resolve: &DnsResolver) -> io::Result<Vec<SocketAddr>> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match literal.parse() {
        Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
        Err(_) => resolve(host.to_owned(), port).await,
    }
}

/// Returns the first connection that opens, or the last error if all attempts fail.
async fn connect_any<T, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    open: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut addresses = addresses.into_iter().peekable();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        attempts.extend(addresses.next().map(&open));
        let ended = if addresses.peek().is_some() {
            timeout(ATTEMPT_DELAY, attempts.next()).await
        } else {
            Ok(attempts.next().await)
        };
        match ended {
            Ok(Some(Ok(connection))) => return Ok(connection),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) => return Err(failure),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "../tests/support/connect_proxy.rs"]
pub(crate) mod connect_proxy;

/// Names with addresses that a test chooses, and the look of a firewall at a request.
#[cfg(test)]
pub(crate) mod fixtures {
    use std::net::{IpAddr, SocketAddr};
    use std::rc::Rc;

    use super::DnsResolver;

    /// Returns a resolver by which every name has these addresses.
    pub(crate) fn resolver(addresses: &[IpAddr]) -> DnsResolver {
        let addresses: Rc<[IpAddr]> = addresses.into();
        Rc::new(move |_, port| {
            let found = addresses.iter().map(|&address| SocketAddr::new(address, port)).collect();
            Box::pin(async move { Ok(found) })
        })
    }

    /// Content types that the core rule set allows (920420).
    const CONTENT_TYPES: [&str; 8] = [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/xml",
        "application/xml",
        "application/soap+xml",
        "application/json",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    ];
    /// Headers that it forbids (920450).
    const FORBIDDEN: [&str; 9] = [
        "content-encoding",
        "proxy",
        "lock-token",
        "content-range",
        "if",
        "expect",
        "accept-charset",
        "x-http-method-override",
        "x-method-override",
    ];

    /// Panics if the protocol rules (920xxx) of the OWASP core rule set 4 refuse a request at their defaults, or count it
    /// as odd. `line` is the method and the target, `head` has a header a line.
    pub(crate) fn assert_passes_firewall(line: &str, head: &str, body: &str) {
        let (method, target) = line.split_once(' ').unwrap();
        let target = target.trim_end_matches(" HTTP/1.1");
        let headers: Vec<(String, &str)> = head
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        let one = |name: &str| {
            let values: Vec<_> =
                headers.iter().filter(|header| header.0 == name).map(|header| header.1).collect();
            assert!(values.len() <= 1, "{line}: {name} is repeated");
            values.first().copied()
        };
        for (name, value) in &headers {
            assert!(!value.is_empty(), "{line}: {name} is empty");
            assert!(!FORBIDDEN.contains(&name.as_str()), "920450: {name}");
            assert!(!value.contains("\\u") && value.is_ascii(), "920540, 920270: {name}: {value}");
        }
        let host = one("host").expect("920280: no Host");
        assert!(!host.bytes().all(|b| b.is_ascii_digit() || b".:".contains(&b)), "920350: {host}");
        assert!(one("user-agent").is_some(), "920320: {line} has no User-Agent");
        let accept = one("accept").unwrap_or_else(|| panic!("920300: {line} has no Accept"));
        assert!(!accept.contains("charset"), "920600: {accept}");
        assert!(one("accept-encoding").is_none_or(|value| value.len() <= 100), "920520");
        let connection = one("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(!(connection.contains("close") && connection.contains("keep-alive")), "920210: {connection}");
        let (length, coding) = (one("content-length"), one("transfer-encoding"));
        if method == "GET" {
            assert!(length.is_none_or(|length| length == "0") && coding.is_none(), "920170, 920171: {head}");
        } else {
            assert_eq!(method, "POST", "911100");
            assert_eq!((length, coding), (Some(&*body.len().to_string()), None), "920160, 920180, 920181");
            let kind = one("content-type").expect("920340: no Content-Type");
            let mut parts = kind.split(';').map(str::trim);
            assert!(CONTENT_TYPES.contains(&parts.next().unwrap()), "920420: {kind}");
            let charset = |part: &str| part.strip_prefix("charset=") == Some("utf-8");
            assert!(parts.all(charset), "920470, 920480: {kind}");
        }
        assert!(target.starts_with('/') && !target.contains('#'), "920100, 920610: {target}");
        let escapes = target.split('%').skip(1);
        let hex = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|b| b.is_ascii_hexdigit());
        assert!(escapes.into_iter().all(hex) && !target.contains("%00"), "920220, 920270: {target}");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::sleep;

    use super::*;

    /// The behaviour of an address in a test.
    #[derive(Clone, Copy)]
    enum Address {
        Dead,
        Refuses,
        Answers(u64),
    }

    /// Connects to addresses of these behaviours. Returns the winner with the duration in milliseconds, and the order of
    /// the attempts.
    async fn race(addresses: &[Address]) -> (io::Result<(u16, u128)>, Vec<u16>) {
        let tried = RefCell::new(Vec::new());
        let began = Instant::now();
        let ports = (0..).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).take(addresses.len());
        let connected = connect_any(ports, |address| {
            tried.borrow_mut().push(address.port());
            let behaviour = addresses[usize::from(address.port())];
            async move {
                match behaviour {
                    Address::Dead => std::future::pending().await,
                    Address::Refuses => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                    Address::Answers(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(address.port())
                    }
                }
            }
        });
        let connected = connected.await.map(|port| (port, began.elapsed().as_millis()));
        (connected, tried.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn dead_addresses_cost_a_quarter_of_a_second_each() {
        use Address::{Answers, Dead, Refuses};
        for (addresses, winner, tried) in [
            (&[Answers(100), Dead][..], (0, 100), &[0][..]),
            (&[Dead, Answers(20)], (1, 270), &[0, 1]),
            (&[Dead, Dead, Dead, Answers(20)], (3, 770), &[0, 1, 2, 3]),
            (&[Refuses, Answers(20)], (1, 20), &[0, 1]),
            (&[Refuses, Dead, Refuses, Answers(20), Dead], (3, 270), &[0, 1, 2, 3]),
            // A slow address goes on and may still win.
            (&[Answers(400), Answers(200)], (0, 400), &[0, 1]),
            (&[Answers(400), Dead], (0, 400), &[0, 1]),
        ] {
            let (connected, order) = race(addresses).await;
            assert_eq!((connected.unwrap(), &*order), (winner, tried));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn name_without_a_live_address_fails_with_the_last_error() {
        assert_eq!(race(&[]).await.0.unwrap_err().kind(), io::ErrorKind::NotFound);
        let (failed, tried) = race(&[Address::Refuses, Address::Refuses]).await;
        assert_eq!((failed.unwrap_err().kind(), &*tried), (io::ErrorKind::ConnectionRefused, &[0, 1][..]));
    }

    #[tokio::test]
    async fn connector_sets_tcp_nodelay() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = ConnectInfo::new(listener.local_addr().unwrap().to_string());
        let connection = connector(system_resolver(), Ok, None).call(target).await.unwrap();
        let OutgoingStream::Plain(stream) = connection.io_ref() else { panic!("it goes direct") };
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn addresses_with_or_without_brackets_are_not_resolved() {
        let resolve: DnsResolver = Rc::new(|host, _| panic!("{host} was resolved"));
        for host in ["127.0.0.1", "::1", "[::1]"] {
            assert_eq!(resolve_host(host, 80, &resolve).await.unwrap().len(), 1, "{host}");
        }
    }
}
