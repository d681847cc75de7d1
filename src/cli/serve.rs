//! `rtm-bridge serve`

use clap::Args;

use super::{CommandError, ConfigArgs, is_address_in_use};
use crate::app::Bridge;
use crate::config::{self, LoadedConfig};
use crate::{runtime, telemetry};

/// Run the service until SIGTERM or Ctrl-C. It then finishes open work within `server.drain_timeout`. SIGHUP, or a change of a
/// file, reloads callers, webhooks, limits and the log's filter.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge serve --config /etc/rtm-bridge.toml\n  \
    RTM_BRIDGE__LOG__FORMAT=text rtm-bridge serve --config bridge.toml\n\n\
    An environment variable RTM_BRIDGE__SECTION__KEY overrides the key of the file.")]
pub(super) struct ServeCommand {
    #[command(flatten)]
    config: ConfigArgs,
}

impl ServeCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        // Before the configuration is read: the default of `max_sockets` depends on the limit.
        let raised = runtime::raise_open_files();
        let path = self.config.path.clone();
        let read = move || config::load_again(path.as_deref(), config::environment());
        let LoadedConfig { result, sources } = read();
        let (config, warnings) = result?;
        telemetry::start(&config.log)?;
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
        for warning in &warnings {
            tracing::warn!(key = warning.key, "configuration: {warning}");
        }
        runtime::block_on(async {
            let bridge = Bridge::start(config).await.map_err(|error| {
                let hint = is_address_in_use(&error)
                    .then_some("choose other ports with server.listen and server.admin_listen");
                CommandError::BridgeStart { hint, source: error.into() }
            })?;
            let ended = bridge.run_reloading(Box::new(read), &sources).await;
            ended.map_err(|error| CommandError::BridgeStop(error.into()))
        })
        .map_err(CommandError::Runtime)?
    }
}
