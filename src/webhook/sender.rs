//! Sends to strangers.

use crate::config::Webhooks;

/// Why there is no sender; a mistake of configuration or build, found at start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// `webhooks.ca_file` holds no certificates.
    #[error("webhooks.ca_file holds no certificate authority in PEM")]
    Authorities,
    /// A secret cannot sign.
    #[error("{whose}: {error}")]
    Secret {
        /// Whose: `bots.support.webhook` or `callers.crm`.
        whose: Box<str>,
        /// Why.
        #[source]
        error: super::signature::InvalidSecret,
    },
}

/// Sends for one thread. It is `!Send`: made on the thread that uses it.
pub(super) struct Sender {}

impl Sender {
    /// A sender with these limits.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(super) fn new(config: &Webhooks) -> Result<Self, SetupError> {
        let _ = config;
        Ok(Self {})
    }
}
