//! The way to one server: names, addresses, the proxy, and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix_service::Service as _;
use actix_tls::connect::Connection;
use actix_tls::connect::rustls_0_23::TlsConnector;
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Url;

use super::advice;
use super::certificate::CertificateFacts;
use super::finding::{CheckStage, DoctorReport, FindingLevel};
use crate::config::ProxyConfig;
use crate::tcp::{self, OutgoingStream, ProxyRoute};
use crate::{tls, wall_clock};

/// The timeout of a lookup, of a connection, and of a TLS handshake.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A server to look at.
pub(super) struct ServerTarget<'a> {
    /// The URL of the server.
    pub(super) url: &'a Url,
    /// The key of the URL, such as `bots.support.platform`.
    pub(super) key: &'a str,
    /// The key of the authorities for it.
    pub(super) ca_key: &'a str,
    /// These authorities, in PEM.
    pub(super) ca: Option<&'a [u8]>,
    /// The proxy for the server.
    pub(super) proxy: Option<&'a Arc<ProxyConfig>>,
    /// Whether an address may be connected to.
    pub(super) admits: &'a dyn Fn(IpAddr) -> bool,
    /// The step for an address that may not be.
    pub(super) not_admitted: &'a str,
    /// The places of a proxy for the server, for the step of a server that is out of reach.
    pub(super) proxy_keys: &'a str,
}

impl ServerTarget<'_> {
    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.url.scheme(), "https" | "wss")
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host(), self.port())
    }
}

/// Looks at the way to a server, and returns whether it is open.
pub(super) async fn examine(target: &ServerTarget<'_>, report: &mut DoctorReport) -> bool {
    let proxy = target.proxy.filter(|proxy| proxy.serves(target.host(), target.port()));
    let is_open = match proxy {
        Some(proxy) => examine_proxy(target, proxy, report).await,
        None => examine_addresses(target, report).await,
    };
    if !is_open {
        return false;
    }
    if target.is_encrypted() {
        examine_certificate(target, proxy, report).await
    } else {
        examine_plain(target, proxy, report).await
    }
}

async fn examine_proxy(
    target: &ServerTarget<'_>,
    proxy: &Arc<ProxyConfig>,
    report: &mut DoctorReport,
) -> bool {
    report.ok(CheckStage::Dns, target.host(), format!("the proxy {proxy} resolves it"));
    let began = Instant::now();
    match open(target, Some(proxy), target.port()).await {
        Ok(_) => {
            let spent = began.elapsed().as_millis();
            let message = format!("{proxy} ({}) connects to {} in {spent} ms", proxy.origin, target.place());
            report.ok(CheckStage::Proxy, proxy.to_string(), message);
            true
        }
        Err(error) => {
            let message = format!("no connection to {}: {error}", target.place());
            report.failed(CheckStage::Proxy, proxy.to_string(), message, advice::for_proxy(proxy));
            false
        }
    }
}

async fn examine_addresses(target: &ServerTarget<'_>, report: &mut DoctorReport) -> bool {
    let resolve = tcp::system_resolver();
    let found = timeout(TIMEOUT, tcp::resolve_host(target.host(), target.port(), &resolve)).await;
    let addresses = match found {
        Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
        failure => {
            let why = match failure {
                Ok(Err(error)) => format!("the name has no address: {error}"),
                Ok(Ok(_)) => "the name has no address".to_owned(),
                Err(_) => "the resolver does not answer".to_owned(),
            };
            let next = format!(
                "check the name in {} and the resolver of this machine; {}",
                target.key,
                advice::needs_proxy(target.proxy_keys)
            );
            report.failed(CheckStage::Dns, target.host(), why, next);
            return false;
        }
    };
    let (admitted, refused): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| (target.admits)(address.ip()));
    let attempts = join_all(admitted.iter().map(|address| connect_to(*address))).await;
    let is_open = attempts.iter().any(Result::is_ok);
    // A dead address beside a living one costs a quarter of a second at each connect.
    let level = if is_open { FindingLevel::Warning } else { FindingLevel::Failed };
    for address in refused {
        let message = format!("{} may not be reached: it is not public", address.ip());
        report.problem(level, CheckStage::Dns, target.host(), message, target.not_admitted);
    }
    for (address, attempt) in admitted.iter().zip(attempts) {
        match attempt {
            Ok(spent) => {
                let message = format!("{address} takes connections ({} ms)", spent.as_millis());
                report.ok(CheckStage::Dns, target.host(), message);
            }
            Err(error) => {
                let message = format!("{address} takes no connection: {error}");
                report.problem(
                    level,
                    CheckStage::Dns,
                    target.host(),
                    message,
                    advice::for_address(is_open, target.proxy_keys),
                );
            }
        }
    }
    is_open
}

/// Connects to an address, and returns the time that it took.
async fn connect_to(address: SocketAddr) -> Result<Duration, String> {
    let began = Instant::now();
    match timeout(TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(error.kind().to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// Opens a connection to a port of the server as the service does.
async fn open(
    target: &ServerTarget<'_>,
    proxy: Option<&Arc<ProxyConfig>>,
    port: u16,
) -> Result<OutgoingStream, String> {
    let resolve = tcp::system_resolver();
    match proxy {
        Some(proxy) => {
            let route = ProxyRoute::new(proxy, TIMEOUT).map_err(|error| error.to_string())?;
            let place = format!("{}:{port}", target.host());
            route.open(&place, &resolve, Instant::now() + TIMEOUT).await.map_err(|error| error.to_string())
        }
        None => match timeout(TIMEOUT, tcp::connect(target.host(), port, &resolve)).await {
            Ok(Ok(stream)) => Ok(OutgoingStream::Plain(stream)),
            Ok(Err(error)) => Err(error.kind().to_string()),
            Err(_) => Err("no answer".to_owned()),
        },
    }
}

/// The result of a TLS handshake.
enum TlsHandshake {
    Trusted(CertificateFacts),
    Untrusted(CertificateFacts, rustls::Error),
    /// The server does not speak TLS, or hung up.
    Broken(String),
}

/// Shakes hands with a port of the server.
async fn shake_hands(target: &ServerTarget<'_>, proxy: Option<&Arc<ProxyConfig>>, port: u16) -> TlsHandshake {
    let (settings, recorder) = match tls::recording_client(target.ca) {
        Ok(pair) => pair,
        Err(error) => return TlsHandshake::Broken(error.to_string()),
    };
    let stream = match open(target, proxy, port).await {
        Ok(stream) => stream,
        Err(error) => return TlsHandshake::Broken(error),
    };
    let connection = Connection::new(target.host().to_owned(), stream);
    let shaken = timeout(TIMEOUT, TlsConnector::service(settings).call(connection)).await;
    let facts = recorder.shown().map(|certificate| CertificateFacts::read(&certificate)).unwrap_or_default();
    match shaken {
        Ok(Ok(_)) => TlsHandshake::Trusted(facts),
        Err(_) => TlsHandshake::Broken("no answer to the TLS handshake".to_owned()),
        Ok(Err(error)) => match error.downcast::<rustls::Error>() {
            Ok(error @ rustls::Error::InvalidCertificate(_)) => TlsHandshake::Untrusted(facts, error),
            Ok(error) => TlsHandshake::Broken(error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                TlsHandshake::Broken("an address in brackets has no certificate".to_owned())
            }
            Err(error) => TlsHandshake::Broken(error.to_string()),
        },
    }
}

async fn examine_certificate(
    target: &ServerTarget<'_>,
    proxy: Option<&Arc<ProxyConfig>>,
    report: &mut DoctorReport,
) -> bool {
    match shake_hands(target, proxy, target.port()).await {
        TlsHandshake::Trusted(facts) => {
            let message = format!(
                "the certificate is trusted: issued by {}, valid until {}",
                facts.issuer(),
                facts.day()
            );
            report.ok(CheckStage::Tls, target.place(), message);
            true
        }
        TlsHandshake::Untrusted(facts, error) => {
            let now = wall_clock::now().to_string();
            let (message, next) =
                advice::for_certificate(&facts, &error, &now, target.host(), target.key, target.ca_key);
            report.failed(CheckStage::Tls, target.place(), message, next);
            false
        }
        TlsHandshake::Broken(error) => {
            let message = format!("the TLS handshake fails: {error}");
            let next = format!(
                "check port and scheme in {}: a server without TLS on this port needs http://; a firewall may also break TLS",
                target.key
            );
            report.failed(CheckStage::Tls, target.place(), message, next);
            false
        }
    }
}

/// Looks whether a server with an unencrypted URL speaks TLS, on the same port or on that of `https`.
async fn examine_plain(
    target: &ServerTarget<'_>,
    proxy: Option<&Arc<ProxyConfig>>,
    report: &mut DoctorReport,
) -> bool {
    let https = (target.port() == 80).then_some(443);
    for port in [Some(target.port()), https].into_iter().flatten() {
        if !matches!(shake_hands(target, proxy, port).await, TlsHandshake::Broken(_)) {
            let message = format!(
                "the URL begins with {}://, but the server speaks TLS on port {port}",
                target.url.scheme()
            );
            report.failed(
                CheckStage::Tls,
                target.place(),
                message,
                format!("begin {} with https://", target.key),
            );
            return false;
        }
    }
    report.ok(CheckStage::Tls, target.place(), "the connection is not encrypted");
    true
}
