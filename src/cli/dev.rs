//! `rtm-bridge dev`

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use url::Url;

use super::{Failure, is_address_in_use, print};
use crate::app::Bridge;
use crate::config::Config;
use crate::sandbox::{Options, Sandbox};
use crate::{runtime, telemetry};

/// Try it: the bridge, a store in memory and a simulated platform in one process. Nothing to install, no keys.
///
/// Everything listens on this machine only, and everything is gone when it ends. Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rtm-bridge dev\n  rtm-bridge dev --port 8181 --admin-port 9191")]
pub(super) struct Dev {
    /// The port of the API; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The port of `/readyz` and `/metrics`; 0 takes a free one.
    #[arg(long, default_value_t = 9090)]
    admin_port: u16,
}

impl Dev {
    pub(super) fn run(self) -> Result<(), Failure> {
        // Where it stays low, `dev` has room all the same.
        let _stays = runtime::raise_open_files();
        runtime::block_on(self.serve()).map_err(Failure::Runtime)?
    }

    async fn serve(self) -> Result<(), Failure> {
        let options = Options::default();
        let address = options.listen;
        let failed = |source| Failure::Sandbox { address, option: "`rtm-bridge sandbox --listen`", source };
        let sandbox = Sandbox::start(options).await.map_err(failed)?;

        let platform = Url::parse(&sandbox.url())
            .map_err(|error| Failure::Start { hint: None, source: error.into() })?;
        let mut config = Config::dev(platform);
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        config.server.admin_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port));
        telemetry::start(&config.log)?;
        let bridge = Bridge::start(config).await.map_err(|error| {
            let hint = is_address_in_use(&error)
                .then_some("choose free ports, such as --port 8181 --admin-port 9191");
            Failure::Start { hint, source: error.into() }
        })?;
        let addresses = bridge.addresses();
        print(&banner(addresses.api, addresses.admin, sandbox.address()))?;
        let ended = bridge.run_until_signal().await.map_err(|error| Failure::End(error.into()));
        sandbox.stop().await;
        ended
    }
}

fn banner(api: SocketAddr, admin: SocketAddr, sandbox: SocketAddr) -> String {
    format!(
        "\
rtm-bridge {version} is running, with a simulated bot behind it. Say something to it:

  curl -sS http://{api}/conversations/alice/messages \\
    -H 'content-type: application/json' -d '{{\"text\":\"Where is my order?\"}}'

Then try:
  '{{\"text\":\"/help\"}}' shows what else the bot can do, faults included
  http://{api}/docs is the API
  http://{admin}/readyz says whether it is ready; /metrics is beside it

The simulated platform listens on http://{sandbox}. Nothing is kept. Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
    )
}
