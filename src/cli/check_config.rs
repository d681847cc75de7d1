//! `rtm-bridge check-config`

use std::fmt::Write as _;

use clap::Args;

use super::{ConfigFile, Failure, print};
use crate::config;

/// Check a configuration: all mistakes at once, exit code 78 if there are any.
///
/// It reads what `serve` would read, environment and files of secrets included, and starts nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rtm-bridge check-config --config /etc/rtm-bridge.toml")]
pub(super) struct CheckConfig {
    #[command(flatten)]
    config: ConfigFile,

    /// Only list every key there is, one a line, for programs that write configurations.
    #[arg(long, conflicts_with = "path")]
    keys: bool,
}

impl CheckConfig {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.keys {
            return Ok(print(
                &config::keys().into_iter().fold(String::new(), |text, key| text + &key + "\n"),
            )?);
        }
        let (config, warnings) = self.config.load()?;
        let mut text = String::new();
        // Writing to a String cannot fail.
        for warning in &warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        let (bots, callers) = (config.bots.len(), config.callers.len());
        let _ = writeln!(text, "The configuration is fine (bots: {bots}, callers: {callers}).");
        Ok(print(&text)?)
    }
}
