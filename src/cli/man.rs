//! `rtm-bridge man`

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::{CommandError, CommandLine, print};

/// Print the manual page, or write a page for each command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge man > rtm-bridge.1\n  \
    rtm-bridge man --out-dir /usr/local/share/man/man1")]
pub(super) struct ManCommand {
    /// Write the pages of all commands into this directory: `rtm-bridge.1`, `rtm-bridge-serve.1` and so on.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

impl ManCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        // The pages of the `help` commands would repeat the others.
        let command = CommandLine::command().disable_help_subcommand(true);
        if let Some(directory) = self.out_dir {
            let written = clap_mangen::generate_to(command, &directory);
            let directory = directory.display().to_string();
            return written.map_err(|source| CommandError::ManualPages { directory, source });
        }
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        Ok(print(&String::from_utf8_lossy(&page))?)
    }
}
