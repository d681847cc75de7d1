//! Callers over TLS, and the certificates of the fixtures.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Answer;

/// Returns a file of the fixtures.
pub(crate) fn pem(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A connection of a caller over TLS.
pub(crate) struct TlsCaller(pub(crate) TlsStream<TcpStream>);

impl TlsCaller {
    /// Connects as a caller that trusts this authority, with a certificate of its own or without.
    pub(crate) async fn connect(address: SocketAddr, authority: &str, certified: bool) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem(authority)).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = if certified {
            let chain = vec![CertificateDer::from_pem_slice(&pem("tls/client.crt")).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(&pem("tls/client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, socket).await.map(Self)
    }

    /// Sends a request with this head and this body.
    pub(crate) async fn send(&mut self, head: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let head = format!("{head}\r\nHost: localhost\r\nContent-Type: application/json");
        self.0.write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes()).await
    }

    /// Reads an answer.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        Answer::read(&mut self.0, false).await
    }

    /// Checks that the server lives.
    pub(crate) async fn live(&mut self) -> io::Result<()> {
        self.send("GET /livez HTTP/1.1", "").await?;
        assert_eq!(self.answer().await?.status, 200);
        Ok(())
    }
}
