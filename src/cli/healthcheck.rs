//! `rtm-bridge healthcheck`

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use super::{ConfigFile, Failure};
use crate::runtime;

/// Ask a running bridge whether it is ready: exit code 0 if `/readyz` answers 200, else 1.
///
/// For containers without curl. Without `--url` it asks the `server.admin_listen` of the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rtm-bridge healthcheck --url http://127.0.0.1:9090/readyz")]
pub(super) struct Healthcheck {
    #[command(flatten)]
    config: ConfigFile,
    /// What to ask instead.
    #[arg(long, value_parser = plain_http, conflicts_with = "path")]
    url: Option<Url>,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Why a bridge is not healthy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unhealthy {
    #[error("no connection to {0}; is the bridge running, and is this its admin_listen?")]
    Unreachable(String, #[source] io::Error),
    #[error("{0} did not answer within {1:?}")]
    Slow(String, Duration),
    #[error("{0} did not answer in HTTP; is this its admin_listen?")]
    NotHttp(String),
    #[error("not ready: HTTP status {0}")]
    Status(u16),
}

impl Healthcheck {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (host, target) = if let Some(url) = &self.url {
            let host = url.host_str().unwrap_or_default();
            (format!("{host}:{}", url.port_or_known_default().unwrap_or(80)), url.path().to_owned())
        } else {
            let (config, _) = self.config.load()?;
            (reachable(config.server.admin_listen).to_string(), "/readyz".to_owned())
        };
        let limit = Duration::from_secs(self.timeout);
        let asked = runtime::block_on(async { tokio::time::timeout(limit, ask(&host, &target)).await });
        let status =
            asked.map_err(Failure::Runtime)?.unwrap_or_else(|_| Err(Unhealthy::Slow(host.clone(), limit)))?;
        if status == 200 { Ok(()) } else { Err(Unhealthy::Status(status).into()) }
    }
}

fn plain_http(text: &str) -> Result<Url, &'static str> {
    const WANTED: &str = "should be a URL such as http://127.0.0.1:9090/readyz";
    Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host()).ok_or(WANTED)
}

/// Who listens on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status of the answer. One GET of one known server: no client is needed for it.
async fn ask(host: &str, target: &str) -> Result<u16, Unhealthy> {
    let unreachable = |error| Unhealthy::Unreachable(host.to_owned(), error);
    let mut stream = TcpStream::connect(host).await.map_err(unreachable)?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(unreachable)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(unreachable)?;
    status(&head).ok_or_else(|| Unhealthy::NotHttp(host.to_owned()))
}

/// The status in `HTTP/1.1 200`.
fn status(head: &[u8; 12]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"SSH-2.0-Open"), None);
        assert_eq!(status(b"HTTP/1.1 2x0"), None);
    }

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:9090".parse().unwrap()).to_string(), "127.0.0.1:9090");
        assert_eq!(reachable("[::]:9090".parse().unwrap()).to_string(), "[::1]:9090");
        assert_eq!(reachable("10.0.0.1:9090".parse().unwrap()).to_string(), "10.0.0.1:9090");
    }
}
