//! `rtm-bridge check-config`

use std::fmt::Write as _;

use clap::Args;

use super::{CommandError, ConfigArgs, print};
use crate::config;

/// Check a configuration, and list all of its mistakes. The exit code is 78 if there are any.
///
/// The command reads what `serve` reads, including the environment and the files of secrets. It starts nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rtm-bridge check-config --config /etc/rtm-bridge.toml")]
pub(super) struct CheckConfigCommand {
    #[command(flatten)]
    config: ConfigArgs,

    /// List every key of a configuration instead, one a line, for programs that write configurations.
    #[arg(long, conflicts_with = "path")]
    keys: bool,
}

impl CheckConfigCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
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
        let _ = writeln!(text, "The configuration is valid (bots: {bots}, callers: {callers}).");
        Ok(print(&text)?)
    }
}
