//! The parsers of the configuration and of keys, for the fuzz targets. Each function takes any bytes, and panics if a promise
//! is broken.

#![expect(clippy::missing_panics_doc, reason = "a panic is what a fuzzer looks for")]

use std::path::Path;

use secrecy::SecretString;

use super::{FileText, JwtAlgorithm, certificates, jwt_key, read};

/// A configuration. Its files have the same text as the configuration itself.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let files = |_: &Path| Ok(FileText::from(text.to_owned()));
    match read(text, "fuzzed.toml", std::iter::empty::<(&str, &str)>(), &files) {
        Ok((config, _)) => assert!(!config.bots.is_empty(), "a configuration without a bot"),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// Keys and certificates in PEM.
pub fn pem(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let secret = SecretString::from(text);
    for algorithm in [JwtAlgorithm::Hs256, JwtAlgorithm::Rs256] {
        let _key = jwt_key(algorithm, &secret);
    }
    let _chain = certificates::chain(text);
    let _roots = certificates::roots(text);
    let _key = certificates::key(text);
}
