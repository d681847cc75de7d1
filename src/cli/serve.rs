//! `rtm-bridge serve`

use clap::Args;

use super::{ConfigFile, Failure, is_address_in_use};
use crate::app::Bridge;
use crate::{runtime, telemetry};

/// Run the service until SIGTERM or SIGINT; it then ends what is running, within `server.drain_timeout`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge serve --config /etc/rtm-bridge.toml\n  \
    RTM_BRIDGE__LOG__FORMAT=text rtm-bridge serve --config bridge.toml\n\n\
    Every key of the file can be given as environment variable RTM_BRIDGE__SECTION__KEY, which goes before the file.")]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        // Before the configuration, which derives `max_sockets` from it.
        let raised = runtime::raise_open_files();
        let (config, warnings) = self.config.load()?;
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
                Failure::Start { hint, source: error.into() }
            })?;
            bridge.run_until_signal().await.map_err(|error| Failure::End(error.into()))
        })
        .map_err(Failure::Runtime)?
    }
}
