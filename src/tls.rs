//! TLS for HTTP/1.1 clients: trusted authorities and settings.
//!
//! All awc clients use it. awc's defaults would offer HTTP/2, which opens no web socket. They would also read the
//! system's authorities, which a minimal image lacks.
//!
//! Redis' client brings its own TLS.

mod certificate_recorder;
mod server_verifier;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

pub use self::certificate_recorder::CertificateRecorder;
use self::server_verifier::ServerVerifier;

/// Failure to set up TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Library(#[from] rustls::Error),
    /// The input holds no certificates of authorities.
    #[error("ca_file must hold certificates of authorities in PEM (`-----BEGIN CERTIFICATE-----`)")]
    Authorities,
}

/// Returns settings that trust Mozilla's certificate authorities and those of `ca` (PEM). A server may also show a
/// self-signed certificate of `ca`.
///
/// # Errors
/// [`TlsError::Authorities`] if `ca` is present and holds no valid certificate of an authority.
pub fn client(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(ca)?))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// Returns the settings of [`client`], and a recorder of the certificates that servers show.
///
/// # Errors
/// As [`client`].
pub fn recording_client(
    ca: Option<&[u8]>,
) -> Result<(Arc<ClientConfig>, Arc<CertificateRecorder>), TlsError> {
    let recorder = Arc::new(CertificateRecorder::new(verifier(ca)?));
    let mut tls = ClientConfig::clone(&*client(ca)?);
    tls.dangerous().set_certificate_verifier(Arc::clone(&recorder) as Arc<_>);
    Ok((Arc::new(tls), recorder))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Returns the verifier that trusts Mozilla's certificate authorities and the certificates of `ca` (PEM).
fn verifier(ca: Option<&[u8]>) -> Result<ServerVerifier, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut named = Vec::new();
    if let Some(pem) = ca {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| TlsError::Authorities)?;
            roots.add(certificate.clone()).map_err(|_| TlsError::Authorities)?;
            named.push(certificate);
        }
        if named.is_empty() {
            return Err(TlsError::Authorities);
        }
    }
    ServerVerifier::new(roots, named, &provider())
}

/// Servers for the tests of clients.
#[cfg(test)]
pub(crate) mod fixtures {
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    /// Returns the configuration of a server with this certificate and key in PEM. The server prefers HTTP/2.
    pub(crate) fn server_tls(certificate: &[u8], key: &[u8]) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_authorities_in_pem_are_accepted() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "none", broken] {
            assert!(matches!(client(Some(pem.as_bytes())), Err(TlsError::Authorities)), "{pem:?}");
        }
        assert!(client(Some(include_bytes!("../tests/fixtures/tls.pem"))).is_ok());
        assert_eq!(client(None).unwrap().alpn_protocols, [b"http/1.1"]);
    }
}
