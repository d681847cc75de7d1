//! Certificates, roots and keys in PEM. The bridge reads them once, so that errors appear at start.

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret as _, SecretString};

use super::parse::{InvalidValue, ParseResult, text};
use super::pem::with_line_ends;
use super::section::Section;

/// Reads the certificate authorities of `ca_file`.
pub(super) fn authorities(section: &mut Section<'_>) -> Option<Vec<u8>> {
    let path = section.optional("ca_file", text)?;
    section.file("ca_file", &path, roots)
}

/// Returns the certificates in PEM, as TLS reads them.
pub(super) fn chain(pem: &str) -> ParseResult<Vec<u8>> {
    let pem = with_line_ends(pem);
    certificates(&pem).map(|_| pem.as_bytes().to_vec())
}

fn certificates(pem: &str) -> ParseResult<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(InvalidValue("holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)".to_owned())),
    }
}

/// Returns the certificate authorities in PEM, as TLS reads them.
pub(super) fn roots(pem: &str) -> ParseResult<Vec<u8>> {
    let pem = with_line_ends(pem);
    let mut roots = RootCertStore::empty();
    certificates(&pem)?
        .into_iter()
        .try_for_each(|certificate| roots.add(certificate))
        .map_err(|error| InvalidValue(format!("holds a certificate that cannot be a root: {error}")))?;
    Ok(pem.as_bytes().to_vec())
}

/// Returns the private key in PEM, as TLS reads it.
pub(super) fn key(pem: &str) -> ParseResult<SecretString> {
    let pem = with_line_ends(pem);
    private_key(&pem).map(|_| SecretString::from(&*pem))
}

fn private_key(pem: &str) -> ParseResult<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        InvalidValue(
            "holds no private key in PEM (`-----BEGIN PRIVATE KEY-----`), or an encrypted one".to_owned(),
        )
    })
}

pub(super) fn is_key_pair(certificate: &[u8], key: &SecretString) -> bool {
    let pair = std::str::from_utf8(certificate).ok().zip(Some(key.expose_secret()));
    let Some((Ok(chain), Ok(key))) = pair.map(|(chain, key)| (certificates(chain), private_key(key))) else {
        return false;
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).is_ok()
}
