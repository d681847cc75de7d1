//! The command line: one file for each command, and the exit code of the process.
//!
//! Exit codes (docs/api.md 8): 0 for success, 1 for a failure, 2 for wrong usage (from clap), 78 (`EX_CONFIG`) for an
//! invalid configuration. The result of a command goes to standard output, everything else to standard error. Each
//! error says what to do next.

mod api_client;
mod chat;
mod check_config;
mod completions;
mod dev;
mod doctor;
mod healthcheck;
mod key;
mod man;
mod migrate;
mod rhythm;
mod sandbox;
mod serve;
mod webhook;

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::stream::RawStream;
use clap::builder::styling::{AnsiColor, Style};
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, ConfigErrors, ConfigWarning};
use crate::telemetry::{self, TelemetryError, masked};

/// The exit code for an invalid configuration, from sysexits.
const EX_CONFIG: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  rtm-bridge dev                            try the bridge; there is nothing to install or configure
  rtm-bridge chat --user me                 talk to a bot through a running bridge
  rtm-bridge rhythm --bot NAME              show what a running bridge learned of a bot's rhythm
  rtm-bridge key new --name crm             create a key for the caller `crm`
  rtm-bridge webhook listen                 print deliveries while you build a receiver
  rtm-bridge check-config --config FILE     list all mistakes of a configuration
  rtm-bridge doctor --config FILE           try each step to the platform, the store and the receivers
  rtm-bridge migrate --config FILE          bring the Redis store to this version's schema
  rtm-bridge serve --config FILE            run the service

Each command has its own help: rtm-bridge COMMAND --help";

/// A REST bridge to Kore.ai bots: callers post messages over HTTP, and the bridge holds the web sockets.
#[derive(Debug, Parser)]
#[command(name = "rtm-bridge", version, after_help = EXAMPLES)]
pub struct CommandLine {
    #[command(subcommand)]
    command: BridgeCommand,
}

#[derive(Debug, Subcommand)]
enum BridgeCommand {
    Dev(dev::DevCommand),
    Chat(chat::ChatCommand),
    Serve(serve::ServeCommand),
    Sandbox(sandbox::SandboxCommand),
    CheckConfig(check_config::CheckConfigCommand),
    Doctor(doctor::DoctorCommand),
    Migrate(migrate::MigrateCommand),
    Rhythm(rhythm::RhythmCommand),
    Key(key::KeyCommand),
    Webhook(webhook::WebhookCommand),
    Healthcheck(healthcheck::HealthcheckCommand),
    Completions(completions::CompletionsCommand),
    Man(man::ManCommand),
}

/// The configuration's place.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration, a TOML file. Without it, `RTM_BRIDGE_CONFIG` names the file; without both, the environment
    /// (`RTM_BRIDGE__SECTION__KEY`) holds the whole configuration.
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
        config::load(self.path.as_deref(), config::environment())
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(
        "cannot start a thread or the runtime; raise the limits of processes and files (ulimit -u, ulimit -n)"
    )]
    Runtime(#[source] io::Error),
    #[error("cannot write to standard output; check its pipe or disk")]
    Output(#[from] io::Error),
    #[error("the simulated platform cannot listen on {address}; choose another address with {option}")]
    SandboxListen { address: SocketAddr, option: &'static str, source: io::Error },
    #[error("the bridge did not start{}", .hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
    BridgeStart { hint: Option<&'static str>, source: Box<dyn Error + Send + Sync> },
    #[error("the bridge stopped with an error; see its log")]
    BridgeStop(#[source] Box<dyn Error + Send + Sync>),
    #[error("the system returned no random bytes, so nothing was created; try again")]
    NoRandomBytes,
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    #[error(transparent)]
    Healthcheck(#[from] healthcheck::HealthcheckError),
    #[error(transparent)]
    Chat(#[from] chat::ChatError),
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxCommandError),
    #[error(transparent)]
    Webhook(#[from] webhook::WebhookCommandError),
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateCommandError),
    #[error(transparent)]
    Rhythm(#[from] rhythm::RhythmCommandError),
    #[error("cannot write the manual pages to {directory}; give a writable directory with --out-dir")]
    ManualPages { directory: String, source: io::Error },
}

impl CommandLine {
    /// Runs the command, and returns the exit code of the process.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            BridgeCommand::Dev(dev) => dev.run(),
            BridgeCommand::Chat(chat) => chat.run(),
            BridgeCommand::Serve(serve) => serve.run(),
            BridgeCommand::Sandbox(sandbox) => sandbox.run(),
            BridgeCommand::CheckConfig(check) => check.run(),
            BridgeCommand::Doctor(doctor) => doctor.run(),
            BridgeCommand::Migrate(migrate) => migrate.run(),
            BridgeCommand::Rhythm(rhythm) => rhythm.run(),
            BridgeCommand::Key(key) => key.run(),
            BridgeCommand::Webhook(webhook) => webhook.run(),
            BridgeCommand::Healthcheck(healthcheck) => healthcheck.run(),
            BridgeCommand::Completions(completions) => completions.run(),
            BridgeCommand::Man(man) => man.run(),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_error(&error);
                match error {
                    CommandError::Config(_)
                    | CommandError::Doctor(doctor::DoctorError::Configuration)
                    | CommandError::Sandbox(sandbox::SandboxCommandError::Script(_)) => {
                        ExitCode::from(EX_CONFIG)
                    }
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// Prints an error with its causes, in the colours of clap's own errors. A server may have written parts of it.
fn print_error(error: &CommandError) {
    let style = style_on(&io::stderr(), AnsiColor::Red.on_default().bold());
    let mut text = format!("{style}rtm-bridge:{style:#} {}", masked(&error.to_string()));
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&masked(&error.to_string()));
        cause = error.source();
    }
    // A closed standard error leaves no other place for the message.
    let _closed = writeln!(io::stderr(), "{text}");
}

/// Returns the style if the stream shows colour, and no style otherwise.
fn style_on(stream: &impl RawStream, style: Style) -> Style {
    if telemetry::shows_colour(stream) { style } else { Style::new() }
}

/// Prints a command's result.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether an address in use is among an error's causes.
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

/// Warns of a file of secrets that others can change.
fn warn_of_open_file(path: &Path) {
    if config::writable_by_others(path) {
        // A closed standard error leaves no other place for the warning.
        let _closed = writeln!(
            io::stderr(),
            "rtm-bridge: every user of this machine can change {}: take their right to write from the file and its folder \
             (chmod o-w)",
            path.display()
        );
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> io::Result<()> {
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
    fn command_line_definition_is_valid() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn address_in_use_is_found_among_causes() {
        let error = CommandError::Runtime(io::Error::from(io::ErrorKind::AddrInUse));
        assert!(is_address_in_use(&error));
        assert!(!is_address_in_use(&CommandError::NoRandomBytes));
    }
}
