//! Verifies the certificates of servers. A self-signed certificate that an operator named is accepted too.
//!
//! `openssl req -x509` marks a certificate as that of an authority, also if it is meant for one server. webpki refuses such
//! a certificate when a server shows it. An operator who puts it into `ca_file` trusts it, so this verifier accepts it from
//! a server that shows exactly this one. Its period and its name are judged as those of any other.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::TlsError;

/// The verifier of all clients.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    /// The certificates of `ca_file`.
    named: Vec<CertificateDer<'static>>,
}

impl ServerVerifier {
    /// Creates a verifier that trusts these roots, and the certificates that an operator named.
    pub(super) fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(Self { inner: builder.build().map_err(|_| TlsError::Authorities)?, named })
    }
}

/// Returns whether the only fault of a certificate is that it is one of an authority. webpki judges its period before.
fn is_of_authority(OtherError(reason): &OtherError) -> bool {
    reason.to_string() == "CaUsedAsEndEntity"
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(reason)))
                if is_of_authority(&reason) && self.named.iter().any(|named| named == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::pem::PemObject as _;

    use super::super::verifier;
    use super::*;

    const SELF_SIGNED: &[u8] = include_bytes!("../../tests/fixtures/tls/self_signed.crt");
    const AUTHORITY: &[u8] = include_bytes!("../../tests/fixtures/tls/ca.crt");
    const DAY: u64 = 24 * 60 * 60;

    /// Judges a certificate that a server of this name shows, so many days after 1970.
    fn judged(ca: &[u8], shown: &[u8], name: &'static str, days: u64) -> Result<(), Error> {
        let verifier = verifier(Some(ca)).unwrap();
        let shown = CertificateDer::from_pem_slice(shown).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(days * DAY));
        verifier.verify_server_cert(&shown, &[], &ServerName::try_from(name).unwrap(), &[], now).map(drop)
    }

    #[test]
    fn self_signed_certificate_is_accepted_if_it_was_named() {
        const PRESENT: u64 = 57 * 366;
        assert_eq!(judged(SELF_SIGNED, SELF_SIGNED, "localhost", PRESENT), Ok(()));
        let bundle = [AUTHORITY, SELF_SIGNED].concat();
        assert_eq!(judged(&bundle, SELF_SIGNED, "localhost", PRESENT), Ok(()));
        let refused = |ca, shown, name, days| judged(ca, shown, name, days).unwrap_err().to_string();
        assert!(refused(AUTHORITY, SELF_SIGNED, "localhost", PRESENT).contains("CaUsedAsEndEntity"));
        assert!(refused(SELF_SIGNED, SELF_SIGNED, "example.com", PRESENT).contains("not valid for name"));
        for (days, word) in [(10, "not valid yet"), (160 * 366, "expired")] {
            let error = refused(SELF_SIGNED, SELF_SIGNED, "localhost", days);
            assert!(error.contains(word), "{error}");
        }
    }
}
