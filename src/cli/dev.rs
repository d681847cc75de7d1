//! `rtm-bridge dev`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jsonwebtoken::Algorithm;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::sandbox::SandboxCommandError;
use super::{CommandError, is_address_in_use, print, sandbox, webhook};
use crate::app::Bridge;
use crate::config::{BotConfig, BotWebhookConfig, Config, JwtAlgorithm, KoreWebhookConfig};
use crate::domain::BotName;
use crate::{runtime, telemetry};
use rtm_sandbox::{AppKey, ClientApp, Sandbox, SandboxOptions};

/// The default address of `rtm-bridge webhook listen`, by both of its host names.
const CALLBACK_URLS: [&str; 2] = ["http://127.0.0.1:9099/", "http://localhost:9099/"];

/// Try the bridge with a simulated platform and a memory store in one process, without keys.
///
/// The bridge listens on this machine only, and all data is lost when it stops. Ctrl-C stops it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rtm-bridge dev\n  rtm-bridge dev --port 8181 --admin-port 9191\n  \
    rtm-bridge dev --script bot.yaml")]
pub(super) struct DevCommand {
    /// The port of the API; 0 chooses a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The port of `/readyz` and `/metrics`; 0 chooses a free one.
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    admin_port: u16,
    /// A script with bots, apps and faults for the simulated platform, as YAML (docs/sandbox.md). Requests name its bots by
    /// their ids (`?bot=st-…`); the first one is the default.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

impl DevCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        // The usual limit is enough for `dev`.
        let _refused = runtime::raise_open_files();
        runtime::block_on(self.serve()).map_err(CommandError::Runtime)?
    }

    async fn serve(self) -> Result<(), CommandError> {
        let mut options = SandboxOptions::default();
        if let Some(path) = &self.script {
            sandbox::script(path)?.apply(&mut options);
        }
        let given = options.clone();
        let address = options.listen;
        let failed =
            |source| CommandError::SandboxListen { address, option: "`rtm-bridge sandbox --listen`", source };
        let sandbox = Sandbox::start(options).await.map_err(failed)?;

        let platform = Url::parse(&sandbox.url())
            .map_err(|error| CommandError::BridgeStart { hint: None, source: error.into() })?;
        let mut config = Config::dev(platform.clone());
        if self.script.is_some() {
            config.bots = scripted_bots(&given, &platform)?;
            config.default_bot = config.bots.first().map(|bot| bot.name.clone());
            config.add_kore_clients();
        }
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        config.server.admin_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port));
        let secret = webhook::generate_secret()?;
        allow_callbacks(&mut config, &secret);
        telemetry::start(&config.log)?;
        let bridge = Bridge::start(config).await.map_err(|error| {
            let hint = is_address_in_use(&error)
                .then_some("choose free ports, such as --port 8181 --admin-port 9191");
            CommandError::BridgeStart { hint, source: error.into() }
        })?;
        let addresses = bridge.addresses();
        print(&banner(
            addresses.api,
            addresses.admin,
            sandbox.address(),
            secret.expose_secret(),
            self.script.is_some(),
        ))?;
        let stopped = bridge.run_until_signal().await.map_err(|error| CommandError::BridgeStop(error.into()));
        sandbox.stop().await;
        stopped
    }
}

/// Returns the configuration of the bots of a script.
fn scripted_bots(
    options: &SandboxOptions,
    platform: &Url,
) -> Result<Vec<Arc<BotConfig>>, SandboxCommandError> {
    let secret = |app: &ClientApp| match &app.key {
        AppKey::Secret(secret) if !app.rules.enforce_jwe => Some(secret.clone()),
        _ => None,
    };
    let app = options.apps.iter().find_map(|app| Some((app, secret(app)?)));
    let (app, secret) = app.ok_or(SandboxCommandError::NoSecret)?;
    let takes_hs256 = app.rules.algorithms.is_empty() || app.rules.algorithms.contains(&Algorithm::HS256);
    let bots = options.bots.iter().map(|id| {
        let name = BotName::new(id).map_err(|_| SandboxCommandError::BotName(id.clone()))?;
        let mut bot = BotConfig {
            chat_bot: id.clone(),
            task_bot_id: id.clone(),
            client_id: app.id.clone(),
            client_secret: secret.clone(),
            algorithm: if takes_hs256 { JwtAlgorithm::Hs256 } else { JwtAlgorithm::Hs512 },
            jti: app.rules.enforce_jti,
            ..BotConfig::new(name, platform.clone())
        };
        bot.kore_webhook = KoreWebhookConfig::of_app(&bot);
        Ok(Arc::new(bot))
    });
    bots.collect()
}

/// Allows callbacks to a receiver on this machine. The bot has no receiver of its own, so the bridge posts only on request.
fn allow_callbacks(config: &mut Config, secret: &SecretString) {
    for bot in &mut config.bots {
        Arc::make_mut(bot).webhooks =
            vec![BotWebhookConfig { secrets: vec![secret.clone()], ..BotWebhookConfig::default() }];
    }
    config.webhooks.allowed = CALLBACK_URLS.iter().filter_map(|pattern| pattern.parse().ok()).collect();
    config.webhooks.allow_private =
        vec![IpAddr::from(Ipv4Addr::LOCALHOST).into(), IpAddr::from(Ipv6Addr::LOCALHOST).into()];
}

fn banner(
    api: SocketAddr,
    admin: SocketAddr,
    sandbox: SocketAddr,
    secret: &str,
    is_scripted: bool,
) -> String {
    let [callback, _] = CALLBACK_URLS;
    let (text, more) = if is_scripted {
        ("Hello", "?bot=ID behind a path: another bot of the script than the first one")
    } else {
        ("Where is my order?", "the message /help: the bot lists its other commands, failures included")
    };
    format!(
        "\
rtm-bridge {version} is running, with a simulated bot behind it. Send it a message:

  curl -sS http://{api}/conversations/alice/messages \\
    -H 'content-type: application/json' -d '{{\"text\":\"{text}\"}}'

Or receive the answer as a webhook. Listen in another terminal:

  RTM_BRIDGE_WEBHOOK_SECRET={secret} \\
    {program} webhook listen

and send a message with a callback:

  curl -sS http://{api}/conversations/alice/messages -H 'content-type: application/json' \\
    -d '{{\"text\":\"{text}\",\"callback\":{{\"url\":\"{callback}\"}}}}'

More to try:
  {program} chat --user alice --url http://{api}
  {more}
  http://{api}/openapi.json: the description of the API
  http://{admin}/readyz: whether the bridge is ready; /metrics is beside it

The simulated platform listens on http://{sandbox}. All data is lost at the end. Ctrl-C stops the bridge.
",
        version = env!("CARGO_PKG_VERSION"),
        program = program(),
    )
}

/// Returns the path by which this program was started, if a shell takes it unquoted.
fn program() -> String {
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    std::env::args_os()
        .next()
        .and_then(|name| name.into_string().ok())
        .filter(plain)
        .unwrap_or_else(|| "rtm-bridge".to_owned())
}
