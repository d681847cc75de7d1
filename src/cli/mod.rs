//! The command line: one file per command, and what ends a process.
//!
//! Exit codes (api.md 8): 0, 1 for a failure, 2 for wrong usage (clap's own), 78 (`EX_CONFIG`) for a
//! configuration with mistakes. What a command is asked for goes to standard output, everything else to
//! standard error. Every failure says what to do next.

mod chat;
mod check_config;
mod dev;
mod healthcheck;
mod key;
mod migrate;
mod sandbox;
mod serve;
mod webhook;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, ConfigErrors, ConfigWarning};
use crate::telemetry::TelemetryError;

/// The exit code of a configuration with mistakes: `EX_CONFIG` of sysexits.
const EX_CONFIG: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  rtm-bridge dev                              try it: nothing to install or to configure
  rtm-bridge chat --user me                   talk to a bot through a bridge that runs
  rtm-bridge key new --name crm               make a key for the caller `crm`
  rtm-bridge webhook listen                   see what webhooks bring, while you build a receiver
  rtm-bridge check-config --config FILE       see all mistakes of a configuration
  rtm-bridge migrate --config FILE            bring the store on Redis to this version's schema
  rtm-bridge serve --config FILE              run the service

Each command has its own help: rtm-bridge COMMAND --help";

/// A REST front door to Kore.ai bots: callers post messages over HTTP, the bridge holds the web sockets.
#[derive(Debug, Parser)]
#[command(name = "rtm-bridge", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Chat(chat::Chat),
    Serve(serve::Serve),
    Sandbox(sandbox::Simulate),
    CheckConfig(check_config::CheckConfig),
    Migrate(migrate::Migrate),
    Key(key::Key),
    Webhook(webhook::Webhook),
    Healthcheck(healthcheck::Healthcheck),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration, a TOML file. Without it the file that `RTM_BRIDGE_CONFIG` names is taken, and
    /// without that the environment alone (`RTM_BRIDGE__SECTION__KEY`).
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
        config::load(self.path.as_deref(), config::environment())
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("cannot start the runtime; is the process out of threads or files (ulimit -u, ulimit -n)?")]
    Runtime(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    #[error("the simulated platform cannot listen on {address}; choose another address with {option}")]
    Sandbox { address: std::net::SocketAddr, option: &'static str, source: io::Error },
    #[error("the bridge did not start{}", .hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
    Start { hint: Option<&'static str>, source: Box<dyn Error + Send + Sync> },
    #[error("the bridge did not end well")]
    End(#[source] Box<dyn Error + Send + Sync>),
    #[error("the system gave no random bytes; nothing was made")]
    NoRandomness,
    #[error(transparent)]
    Unhealthy(#[from] healthcheck::Unhealthy),
    #[error(transparent)]
    NoTalk(#[from] chat::NoTalk),
    #[error(transparent)]
    NoWebhook(#[from] webhook::NoWebhook),
    #[error(transparent)]
    NotMigrated(#[from] migrate::NotMigrated),
}

impl Cli {
    /// Carries out the command, and says how the process should end.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Dev(dev) => dev.run(),
            Command::Chat(chat) => chat.run(),
            Command::Serve(serve) => serve.run(),
            Command::Sandbox(simulate) => simulate.run(),
            Command::CheckConfig(check) => check.run(),
            Command::Migrate(migrate) => migrate.run(),
            Command::Key(key) => key.run(),
            Command::Webhook(webhook) => webhook.run(),
            Command::Healthcheck(healthcheck) => healthcheck.run(),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                complain(&failure);
                match failure {
                    Failure::Config(_) => ExitCode::from(EX_CONFIG),
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// Says what failed, and why, down to the first cause.
fn complain(failure: &Failure) {
    let mut text = format!("rtm-bridge: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    // Where standard error is closed there is nobody to tell.
    let _closed = writeln!(io::stderr(), "{text}");
}

/// Prints what was asked for.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether an address was taken, anywhere in the causes.
fn is_address_in_use(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::AddrInUse) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_end() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_taken_address_is_found_below_other_errors() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = Failure::Runtime(taken);
        assert!(is_address_in_use(&failure));
        assert!(!is_address_in_use(&Failure::NoRandomness));
    }
}
