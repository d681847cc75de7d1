//! `rtm-bridge healthcheck`

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

use super::{CommandError, ConfigArgs};
use crate::runtime;
use crate::tcp::{self, DnsResolver};

/// Ask a running bridge whether it is ready. The exit code is 0 if `/readyz` answers 200, else 1.
///
/// It serves containers without curl. Without --url it asks the `server.admin_listen` of the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rtm-bridge healthcheck --url http://127.0.0.1:9090/readyz")]
pub(super) struct HealthcheckCommand {
    #[command(flatten)]
    config: ConfigArgs,
    /// The URL to ask instead.
    #[arg(long, value_parser = http_url, conflicts_with = "path")]
    url: Option<Url>,
    /// The timeout of the answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

const USER_AGENT: &str = concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"));

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthcheckError {
    #[error("no connection to {0}; start the bridge, or give the address of its admin_listen with --url")]
    Unreachable(String, #[source] io::Error),
    #[error("{0} did not answer within {1:?}; see the bridge's log, or give it more time with --timeout")]
    Timeout(String, Duration),
    #[error("{0} did not answer in HTTP; give the address of its admin_listen with --url")]
    NotHttp(String),
    #[error("not ready: HTTP status {0}; GET the same URL to read the reason")]
    Status(u16),
}

impl HealthcheckCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (host, port, target) = if let Some(url) = &self.url {
            let host = url.host_str().unwrap_or_default().to_owned();
            (host, url.port_or_known_default().unwrap_or(80), url.path().to_owned())
        } else {
            let (config, _) = self.config.load()?;
            let address = loopback(config.server.admin_listen);
            (address.ip().to_string(), address.port(), "/readyz".to_owned())
        };
        let timeout = Duration::from_secs(self.timeout);
        let asked = runtime::block_on(async {
            let resolve = tcp::system_resolver();
            tokio::time::timeout(timeout, request_status(&host, port, &target, &resolve)).await
        });
        let status = asked
            .map_err(CommandError::Runtime)?
            .unwrap_or_else(|_| Err(HealthcheckError::Timeout(authority(&host, port), timeout)))?;
        if status == 200 { Ok(()) } else { Err(HealthcheckError::Status(status).into()) }
    }
}

fn http_url(text: &str) -> Result<Url, &'static str> {
    const WANTED: &str = "give a URL such as http://127.0.0.1:9090/readyz";
    Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host()).ok_or(WANTED)
}

/// Returns the address to ask. A bridge that listens on all addresses is asked on loopback.
fn loopback(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Returns host and port as for the header `Host`. An IPv6 address has brackets there.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Returns the status of the answer. One GET of a known server needs no HTTP client.
async fn request_status(
    host: &str,
    port: u16,
    target: &str,
    resolve: &DnsResolver,
) -> Result<u16, HealthcheckError> {
    let authority = authority(host, port);
    let unreachable = |error| HealthcheckError::Unreachable(authority.clone(), error);
    let mut stream = tcp::connect(host, port, resolve).await.map_err(unreachable)?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(unreachable)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(unreachable)?;
    parse_status(&head).ok_or_else(|| HealthcheckError::NotHttp(authority.clone()))
}

/// Returns the status in `HTTP/1.1 200`.
fn parse_status(head: &[u8; 12]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::runtime::fixtures::{DeadAddress, run};
    use crate::tcp::fixtures::resolver;

    #[test]
    fn status_is_read_from_http_only() {
        assert_eq!(parse_status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(parse_status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(parse_status(b"SSH-2.0-Open"), None);
        assert_eq!(parse_status(b"HTTP/1.1 2x0"), None);
    }

    #[test]
    fn name_with_a_dead_first_address_is_asked_at_the_next() {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let dead = DeadAddress::new(3, port);
            let resolve = resolver(&[dead.address.ip(), Ipv4Addr::LOCALHOST.into()]);
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                String::from_utf8(head[..length].to_vec()).unwrap()
            };
            let asked = timeout(Duration::from_secs(3), async {
                tokio::join!(request_status("bridge.example", port, "/readyz", &resolve), answer)
            });
            let (status, head) = asked.await.unwrap();
            assert_eq!(status.unwrap(), 200);
            assert!(head.contains(&format!("\r\nHost: bridge.example:{port}\r\n")), "{head}");
        });
    }

    #[test]
    fn ipv6_address_in_a_url_or_configuration_has_brackets() {
        assert_eq!(authority("::1", 9090), "[::1]:9090");
        assert_eq!(authority("[::1]", 9090), "[::1]:9090");
        assert_eq!(authority("bridge", 80), "bridge:80");
    }

    #[test]
    fn unspecified_address_is_asked_on_loopback() {
        assert_eq!(loopback("0.0.0.0:9090".parse().unwrap()).to_string(), "127.0.0.1:9090");
        assert_eq!(loopback("[::]:9090".parse().unwrap()).to_string(), "[::1]:9090");
        assert_eq!(loopback("10.0.0.1:9090".parse().unwrap()).to_string(), "10.0.0.1:9090");
    }
}
