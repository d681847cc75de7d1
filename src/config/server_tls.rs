//! The table `server.tls` of the configuration.

use secrecy::SecretString;

use super::certificates::{self, is_key_pair};
use super::parse::text;
use super::section::Section;

/// `[server.tls]`
#[derive(Debug, Clone)]
pub struct ServerTlsConfig {
    /// The certificates that callers see, in PEM: the listener's own first.
    pub certificate: Vec<u8>,
    /// The key of the first certificate, in PEM.
    pub key: SecretString,
    /// The authorities of callers' certificates, in PEM. Empty if callers need none.
    pub client_ca: Option<Vec<u8>>,
}

/// Reads the table, and the files that it names.
pub(super) fn server_tls(section: &mut Section<'_>) -> Option<ServerTlsConfig> {
    let [certificate, key, client_ca] =
        ["cert_file", "key_file", "client_ca_file"].map(|key| section.optional(key, text));
    let keys = [section.key("cert_file"), section.key("key_file")];
    let (Some(certificate), Some(key)) = (certificate, key) else {
        section
            .diagnostics
            .relation_error(&keys, "cert_file and key_file are both needed in [server.tls]: give both");
        return None;
    };
    let certificate = section.file("cert_file", &certificate, certificates::chain);
    let key = section.file("key_file", &key, certificates::key);
    let client_ca = match client_ca {
        Some(path) => Some(section.file("client_ca_file", &path, certificates::roots)?),
        None => None,
    };
    let (certificate, key) = certificate.zip(key)?;
    if !is_key_pair(&certificate, &key) {
        section.diagnostics.relation_error(&keys, "key_file is not the key of the certificate in cert_file");
        return None;
    }
    Some(ServerTlsConfig { certificate, key, client_ca })
}
