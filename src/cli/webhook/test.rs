//! `rtm-bridge webhook test`

use clap::Args;

use super::WebhookCommandError;
use crate::cli::{CommandError, ConfigArgs, print};
use crate::config::{BotConfig, BotWebhookConfig, Config};
use crate::domain::DeliveryAttempt;
use crate::runtime;
use crate::webhook;

/// Post a signed test event to an endpoint of the configuration, and print what the receiver answered.
///
/// The event goes from this machine, with the secrets, headers and limits of the configuration. The exit code is 0 if the
/// receiver took it (2xx), else 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook test --config /etc/rtm-bridge.toml\n  \
    rtm-bridge webhook test --config /etc/rtm-bridge.toml support crm")]
pub(super) struct TestCommand {
    #[command(flatten)]
    config: ConfigArgs,
    /// The bot. Without it the configuration must have one endpoint only.
    #[arg(value_name = "BOT")]
    bot: Option<String>,
    /// The name of the endpoint. Without it the bot must have one endpoint only.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl TestCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (config, _) = self.config.load()?;
        let (bot, endpoint) = self.find(&config)?;
        let attempt = runtime::block_on(webhook::test_endpoint(&config, bot, endpoint))
            .map_err(CommandError::Runtime)?
            .map_err(|error| WebhookCommandError::Setup(error.to_string()))?;
        let Some(attempt) = attempt else { return Err(WebhookCommandError::NoUrl.into()) };
        print(&text(&attempt))?;
        match attempt.error {
            None => Ok(()),
            Some(error) => Err(WebhookCommandError::NotTaken(error.into()).into()),
        }
    }

    /// Returns the endpoint that the arguments name, among those with a URL.
    fn find<'c>(
        &self,
        config: &'c Config,
    ) -> Result<(&'c BotConfig, &'c BotWebhookConfig), WebhookCommandError> {
        let bots =
            config.bots.iter().filter(|bot| self.bot.as_ref().is_none_or(|name| name == bot.name.as_str()));
        let endpoints = bots.flat_map(|bot| bot.webhooks.iter().map(move |endpoint| (&**bot, endpoint)));
        let fits = |endpoint: &BotWebhookConfig| {
            endpoint.url.is_some() && self.name.as_ref().is_none_or(|name| **name == *endpoint.name)
        };
        let found: Vec<_> = endpoints.filter(|(_, endpoint)| fits(endpoint)).collect();
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(WebhookCommandError::NoEndpoint),
            several => {
                let names: Vec<_> =
                    several.iter().map(|(bot, endpoint)| format!("{} {}", bot.name, endpoint.name)).collect();
                Err(WebhookCommandError::SeveralEndpoints(names.join(", ")))
            }
        }
    }
}

/// Returns the status, the duration, and the first bytes of the body.
fn text(attempt: &DeliveryAttempt) -> String {
    let status = attempt.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let body = attempt.response.as_deref().map(|body| format!("{}\n", body.trim_end())).unwrap_or_default();
    format!("{status} in {} ms\n{body}", attempt.duration.as_millis())
}
