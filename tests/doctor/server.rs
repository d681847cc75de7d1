//! Servers on loopback that stand for a platform or a receiver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// A server that gives each request the same answer.
pub(super) struct PlainServer {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl PlainServer {
    /// Starts a server whose clock is ahead by so many seconds.
    pub(super) async fn start(ahead: i64, status: u16, kind: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    // A TLS client that finds no TLS here hangs up.
                    if head.first() == Some(&0x16) || stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ndate: {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    date(ahead),
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
                // A close with unread bytes would reset the connection.
                while stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
            }
        });
        Self { address, _tasks: tasks }
    }

    pub(super) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "the date differs from the wall clock's by a known span")]
fn date(ahead: i64) -> String {
    let span = Duration::from_secs(ahead.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if ahead < 0 { now - span } else { now + span })
}

/// A server for `localhost` that takes TLS from connections and passes them on.
pub(super) struct TlsFront {
    port: u16,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    /// Starts a front with the certificate of this name in `tests/fixtures/tls`.
    pub(super) async fn start(upstream: SocketAddr, certificate: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
        let read = |end: &str| std::fs::read(format!("{folder}/{certificate}.{end}")).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
        let settings = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn_local(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn_local(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Self { port, _tasks: tasks }
    }

    pub(super) fn url(&self, scheme: &str) -> Url {
        format!("{scheme}://localhost:{}", self.port).parse().unwrap()
    }
}
