//! TLS of the callers' listener (`[server.tls]`), whose certificate can be replaced while the bridge runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::caller_socket::CallerSocket;
use crate::config::ServerTlsConfig;

/// Timeout of a handshake, as long as that of a request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that a connection keeps encrypted for a slow caller.
const BUFFER_BYTES: usize = 16 << 10;

/// Failure to use the certificates of `[server.tls]`.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// The library refuses the certificate, its key or the settings.
    #[error("the certificate or its key cannot be used")]
    Certificate(#[from] rustls::Error),
    /// A file holds no PEM that the library can read.
    #[error("a file of server.tls holds no PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The authorities cannot verify certificates of callers.
    #[error("client_ca_file cannot verify certificates of callers")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// The settings of a listener with a certificate, checked and ready for use.
#[derive(Debug)]
pub struct TlsSettings(Arc<ServerConfig>);

/// The certificate of the callers' listener. Open connections keep the one that they began with.
#[derive(Debug)]
pub struct ServerTls(RwLock<Arc<ServerConfig>>);

impl ServerTls {
    /// Creates the settings of these certificates.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(files: &ServerTlsConfig) -> Result<Self, ServerTlsError> {
        TlsSettings::new(files).map(|settings| Self(RwLock::new(settings.0)))
    }

    /// Replaces the certificate, its key and the authorities of callers, for later connections.
    pub fn replace(&self, settings: TlsSettings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings.0;
    }

    /// Performs the handshake of a connection. Returns `None` if it fails or takes too long.
    pub(super) async fn accept(&self, socket: TcpStream) -> Option<CallerSocket> {
        let settings = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let limit = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(BUFFER_BYTES));
        match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(settings).accept_with(socket, limit)).await {
            Ok(Ok(stream)) => Some(CallerSocket::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                debug!(%error, "a TLS handshake of a caller failed");
                None
            }
            Err(_) => {
                debug!("a TLS handshake of a caller took too long");
                None
            }
        }
    }
}

impl TlsSettings {
    /// Reads and checks the certificates.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(files: &ServerTlsConfig) -> Result<Self, ServerTlsError> {
        let chain = CertificateDer::pem_slice_iter(&files.certificate).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(files.key.expose_secret().as_bytes())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &files.client_ca {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate?)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut tls = builder.with_single_cert(chain, key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(tls)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: (&[u8], &str) = (
        include_bytes!("../../tests/fixtures/tls/server.crt"),
        include_str!("../../tests/fixtures/tls/server.key"),
    );
    const OTHER: (&[u8], &str) =
        (include_bytes!("../../tests/fixtures/tls.pem"), include_str!("../../tests/fixtures/tls.key.pem"));

    fn files((certificate, key): (&[u8], &str)) -> ServerTlsConfig {
        ServerTlsConfig { certificate: certificate.to_vec(), key: key.into(), client_ca: None }
    }

    #[test]
    fn certificate_with_another_key_is_refused() {
        assert!(TlsSettings::new(&files(OTHER)).is_ok());
        assert!(TlsSettings::new(&files((SERVER.0, OTHER.1))).is_err());
    }
}
