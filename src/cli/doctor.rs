//! `rtm-bridge doctor`

use clap::Args;

use super::{CommandError, ConfigArgs, print};
use crate::doctor::{self, CheckReport, CheckStage, DoctorOptions, DoctorReport, FindingLevel};
use crate::domain::UserId;
use crate::runtime;

/// Examine a configuration from this machine: each step to the platform, the store and the receivers, in order.
///
/// Each line begins with `ok`, `warning` or `failed`, and names the next step. The bot gets no message, and receivers get
/// nothing, without the options for it. The exit code is 0 with warnings too, 1 if a check failed, and 78 if the
/// configuration has errors.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge doctor --config /etc/rtm-bridge.toml\n  \
    rtm-bridge doctor --config /etc/rtm-bridge.toml --say 'Hello' --post\n  \
    rtm-bridge doctor --config /etc/rtm-bridge.toml --json")]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Send this message to each bot, and print the first reply. It opens a session of the user.
    #[arg(long, value_name = "TEXT")]
    say: Option<String>,
    /// Post a test event to each bot's webhook: a `reply.unsolicited` of the user.
    #[arg(long)]
    post: bool,
    /// The user in whose name the platform is asked.
    #[arg(long, value_name = "NAME", default_value = "rtm-bridge-doctor", value_parser = |text: &str| UserId::new(text))]
    user: UserId,
}

/// Why an examination has no good end.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoctorError {
    #[error("the configuration has errors; correct them, then run doctor again")]
    Configuration,
    #[error("a check failed; its line names the next step")]
    Failed,
}

impl DoctorCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (config, warnings) = match self.config.load() {
            Ok(loaded) => loaded,
            Err(errors) => {
                let mut report = DoctorReport::default();
                for error in errors.iter() {
                    report.failed(CheckStage::Configuration, "", error.to_string(), "correct this key");
                }
                self.print(&report)?;
                return Err(DoctorError::Configuration.into());
            }
        };
        let options = DoctorOptions { user: self.user.clone(), say: self.say.clone(), post: self.post };
        let mut report =
            runtime::block_on(doctor::examine(&config, &options)).map_err(CommandError::Runtime)?;
        let (bots, callers) = (config.bots.len(), config.callers.len());
        let message = format!("valid, and its files can be read (bots: {bots}, callers: {callers})");
        report.ok(CheckStage::Configuration, "", message);
        for warning in &warnings {
            report.add(CheckReport {
                check: CheckStage::Configuration,
                level: FindingLevel::Warning,
                about: None,
                message: warning.to_string(),
                next: None,
            });
        }
        self.print(&report)?;
        if report.level() == FindingLevel::Failed { Err(DoctorError::Failed.into()) } else { Ok(()) }
    }

    fn print(&self, report: &DoctorReport) -> Result<(), CommandError> {
        Ok(print(&if self.json { report.to_json() } else { report.to_text() })?)
    }
}
