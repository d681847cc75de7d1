//! `rtm-bridge dev`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Failure, is_address_in_use, print, webhook};
use crate::app::Bridge;
use crate::config::{BotWebhookConfig, Config, PayloadFormat};
use crate::{runtime, telemetry};
use rtm_sandbox::{Options, Sandbox};

/// Where `rtm-bridge webhook listen` listens by default, by both of its names.
const CALLBACKS: [&str; 2] = ["http://127.0.0.1:9099/", "http://localhost:9099/"];

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
        let secret = webhook::new_secret()?;
        take_callbacks(&mut config, &secret);
        telemetry::start(&config.log)?;
        let bridge = Bridge::start(config).await.map_err(|error| {
            let hint = is_address_in_use(&error)
                .then_some("choose free ports, such as --port 8181 --admin-port 9191");
            Failure::Start { hint, source: error.into() }
        })?;
        let addresses = bridge.addresses();
        print(&banner(addresses.api, addresses.admin, sandbox.address(), secret.expose_secret()))?;
        let ended = bridge.run_until_signal().await.map_err(|error| Failure::End(error.into()));
        sandbox.stop().await;
        ended
    }
}

/// Lets callers name a receiver on this machine. The bot has none of its own, so that nothing is posted unasked.
fn take_callbacks(config: &mut Config, secret: &SecretString) {
    for bot in &mut config.bots {
        Arc::make_mut(bot).webhook = Some(BotWebhookConfig {
            url: None,
            secrets: vec![secret.clone()],
            form: PayloadFormat::Standard,
            bearer_token: None,
            headers: Vec::new(),
            legacy_signature: None,
        });
    }
    config.webhooks.allowed = CALLBACKS.iter().filter_map(|pattern| pattern.parse().ok()).collect();
    config.webhooks.allow_private =
        vec![IpAddr::from(Ipv4Addr::LOCALHOST).into(), IpAddr::from(Ipv6Addr::LOCALHOST).into()];
}

fn banner(api: SocketAddr, admin: SocketAddr, sandbox: SocketAddr, secret: &str) -> String {
    let [callback, _] = CALLBACKS;
    format!(
        "\
rtm-bridge {version} is running, with a simulated bot behind it. Say something to it:

  curl -sS http://{api}/conversations/alice/messages \\
    -H 'content-type: application/json' -d '{{\"text\":\"Where is my order?\"}}'

Or have the answer posted, to what listens in another terminal:

  RTM_BRIDGE_WEBHOOK_SECRET={secret} \\
    {program} webhook listen

  curl -sS http://{api}/conversations/alice/messages -H 'content-type: application/json' \\
    -d '{{\"text\":\"Where is my order?\",\"callback\":{{\"url\":\"{callback}\"}}}}'

Then try:
  '{{\"text\":\"/help\"}}' shows what else the bot can do, faults included
  http://{api}/docs is the API
  http://{admin}/readyz says whether it is ready; /metrics is beside it

The simulated platform listens on http://{sandbox}. Nothing is kept. Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
        program = program(),
    )
}

/// What this program was started as, where it can be pasted as it is.
fn program() -> String {
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    std::env::args_os()
        .next()
        .and_then(|name| name.into_string().ok())
        .filter(plain)
        .unwrap_or_else(|| "rtm-bridge".to_owned())
}
