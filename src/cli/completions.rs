//! `rtm-bridge completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{CommandError, CommandLine, print};

/// Print a script that completes commands and options in a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge completions bash > ~/.local/share/bash-completion/completions/rtm-bridge\n  \
    rtm-bridge completions zsh > ~/.zfunc/_rtm-bridge\n  \
    rtm-bridge completions fish > ~/.config/fish/completions/rtm-bridge.fish")]
pub(super) struct CompletionsCommand {
    /// The shell that reads the script.
    shell: Shell,
}

impl CompletionsCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut CommandLine::command(), "rtm-bridge", &mut script);
        Ok(print(&String::from_utf8_lossy(&script))?)
    }
}
