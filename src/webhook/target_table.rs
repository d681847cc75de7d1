//! The options of a delivery: payload format, secrets, and headers. They follow from the configuration and from the
//! origin of the target.
//!
//! A callback is signed with the caller's secrets, or with the bot's if the caller had none. It gets no header that is
//! configured for an endpoint of the bot. A former URL of an endpoint does not get these headers either.

use std::collections::HashMap;

use secrecy::{ExposeSecret as _, SecretString};

use super::sender::{HeaderName, HeaderValue, SenderSetupError, header};
use super::signature::{LegacyKey, SigningSecret};
use crate::config::{BotConfig, BotWebhookConfig, CallerConfig, Config, PayloadFormat};
use crate::domain::{CallbackUrl, DeliveryOrigin, NewDelivery, UrlPattern};

/// The options of every configured bot and caller, with decoded secrets.
pub(super) struct TargetTable {
    /// The patterns that a callback's URL must match.
    allowed: Vec<UrlPattern>,
    bots: HashMap<Box<str>, BotTarget>,
    callers: HashMap<Box<str>, CallerTarget>,
}

struct BotTarget {
    /// The id of the bot on the platform.
    id: Box<str>,
    endpoints: Vec<EndpointTarget>,
    /// The index of the endpoint that signs callbacks of callers without secrets.
    callback_signer: Option<usize>,
}

/// The options of one endpoint of a bot.
struct EndpointTarget {
    name: Box<str>,
    url: Option<Box<str>>,
    format: PayloadFormat,
    secrets: Vec<SigningSecret>,
    extra_headers: ExtraHeaders,
}

struct CallerTarget {
    format: PayloadFormat,
    secrets: Vec<SigningSecret>,
}

/// The headers that only an endpoint of the bot gets.
#[derive(Default)]
pub(super) struct ExtraHeaders {
    /// The configured headers and the bearer token.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The header and the key of the signature for older receivers.
    pub(super) legacy: Option<(HeaderName, LegacyKey)>,
}

/// The options of one delivery.
pub(super) struct DeliveryOptions<'a> {
    pub(super) format: PayloadFormat,
    /// The signing secrets, newest first; never empty.
    pub(super) secrets: &'a [SigningSecret],
    pub(super) extra_headers: Option<&'a ExtraHeaders>,
    /// The id of the bot on the platform.
    pub(super) platform_bot: &'a str,
}

/// The reason why the configuration does not permit a delivery. The text tells the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetRefusal {
    /// The patterns have changed since the callback was accepted.
    #[error(
        "`webhooks.allowed` no longer covers the callback's URL: allow it again, then redeliver the delivery"
    )]
    NotAllowed,
    /// The bot is not configured.
    #[error("the bot {0} is no longer configured, and its secrets sign this delivery: configure it again")]
    Bot(Box<str>),
    /// The bot has no such endpoint and so no secrets.
    #[error(
        "bots.{bot}.webhooks.{name} is no longer configured, and its secrets sign this delivery: configure it again"
    )]
    Endpoint {
        /// The bot.
        bot: Box<str>,
        /// The endpoint.
        name: Box<str>,
    },
    /// The bot has no endpoint and so no secrets for callbacks.
    #[error(
        "bots.{0}.webhooks has no endpoint any more, and its secrets sign this delivery: configure one again"
    )]
    NoEndpoint(Box<str>),
    /// The caller is not configured.
    #[error("the caller {0} is no longer configured, and its secrets sign this delivery: configure it again")]
    Caller(Box<str>),
    /// The caller has no secrets.
    #[error("the caller {0} no longer has webhook_secrets: configure them again")]
    Secrets(Box<str>),
}

impl TargetTable {
    /// Creates the table from the configuration and decodes every secret.
    ///
    /// # Errors
    /// [`SenderSetupError`].
    pub(super) fn new(config: &Config) -> Result<Self, SenderSetupError> {
        let bots = config.bots.iter().map(|bot| Ok((bot.name.as_str().into(), BotTarget::new(bot)?)));
        let callers =
            config.callers.iter().map(|caller| Ok((caller.name.as_str().into(), CallerTarget::new(caller)?)));
        Ok(Self {
            allowed: config.webhooks.allowed.clone(),
            bots: bots.collect::<Result<_, _>>()?,
            callers: callers.collect::<Result<_, _>>()?,
        })
    }

    /// Returns whether a callback may have this URL today.
    fn allows(&self, target: &str) -> bool {
        let url = target.parse::<CallbackUrl>();
        url.is_ok_and(|url| self.allowed.iter().any(|pattern| pattern.covers(&url)))
    }

    /// Returns the options of a delivery.
    ///
    /// # Errors
    /// [`TargetRefusal`] if the configuration no longer permits the target, or no longer has a secret for it.
    pub(super) fn options<'a>(
        &'a self,
        delivery: &'a NewDelivery,
    ) -> Result<DeliveryOptions<'a>, TargetRefusal> {
        let name = delivery.conversation.bot().as_str();
        let bot = self.bots.get(name);
        let configured = || bot.ok_or_else(|| TargetRefusal::Bot(name.into()));
        let options = |format, secrets, extra_headers| {
            // A callback of a caller is sent even if its bot is no longer configured.
            let platform_bot = bot.map_or(name, |bot| &bot.id);
            DeliveryOptions { format, secrets, extra_headers, platform_bot }
        };
        if matches!(delivery.origin, DeliveryOrigin::Callback { .. }) && !self.allows(&delivery.target) {
            return Err(TargetRefusal::NotAllowed);
        }
        match &delivery.origin {
            DeliveryOrigin::Endpoint(endpoint) => {
                let own = configured()?.endpoints.iter().find(|own| own.name == *endpoint);
                let own =
                    own.ok_or_else(|| TargetRefusal::Endpoint { bot: name.into(), name: endpoint.clone() })?;
                let headers = (own.url.as_ref() == Some(&delivery.target)).then_some(&own.extra_headers);
                Ok(options(own.format, &own.secrets, headers))
            }
            DeliveryOrigin::Callback { signer: None } => {
                let BotTarget { endpoints, callback_signer, .. } = configured()?;
                let own = callback_signer.and_then(|index| endpoints.get(index));
                let own = own.ok_or_else(|| TargetRefusal::NoEndpoint(name.into()))?;
                Ok(options(PayloadFormat::Standard, &own.secrets, None))
            }
            DeliveryOrigin::Callback { signer: Some(signer) } => {
                let caller = self.callers.get(signer).ok_or_else(|| TargetRefusal::Caller(signer.clone()))?;
                if caller.secrets.is_empty() {
                    return Err(TargetRefusal::Secrets(signer.clone()));
                }
                Ok(options(caller.format, &caller.secrets, None))
            }
        }
    }
}

impl BotTarget {
    fn new(bot: &BotConfig) -> Result<Self, SenderSetupError> {
        let current = bot.endpoints();
        let endpoints = current.iter().map(|endpoint| EndpointTarget::new(bot.name.as_str(), endpoint));
        let signer = bot.callback_signer().map(|signer| signer.name);
        Ok(Self {
            id: bot.task_bot_id.as_str().into(),
            endpoints: endpoints.collect::<Result<_, _>>()?,
            callback_signer: current.iter().position(|endpoint| Some(&endpoint.name) == signer.as_ref()),
        })
    }
}

impl EndpointTarget {
    fn new(bot: &str, webhook: &BotWebhookConfig) -> Result<Self, SenderSetupError> {
        let owner = &*format!("bots.{bot}.webhooks.{}", webhook.name);
        let mut headers = Vec::with_capacity(webhook.headers.len() + 1);
        for (name, value) in &webhook.headers {
            headers.push((header_name(owner, name)?, header_value(owner, name, value.expose_secret())?));
        }
        if let Some(token) = &webhook.bearer_token {
            let value = SecretString::from(format!("Bearer {}", token.expose_secret()));
            headers
                .push((header::AUTHORIZATION, header_value(owner, "Authorization", value.expose_secret())?));
        }
        let legacy = webhook.legacy_signature.as_ref();
        let legacy = legacy
            .map(|legacy| Ok((header_name(owner, &legacy.header)?, LegacyKey::new(&legacy.secret))))
            .transpose()?;
        Ok(Self {
            name: webhook.name.clone(),
            url: webhook.url.as_ref().map(|url| url.as_str().into()),
            format: webhook.form,
            secrets: secrets(&webhook.secrets, || owner.to_owned())?,
            extra_headers: ExtraHeaders { headers, legacy },
        })
    }
}

impl CallerTarget {
    fn new(caller: &CallerConfig) -> Result<Self, SenderSetupError> {
        let secrets = secrets(&caller.webhook_secrets, || format!("callers.{}", caller.name))?;
        Ok(Self { format: caller.webhook_form, secrets })
    }
}

fn secrets(
    texts: &[SecretString],
    owner: impl Fn() -> String,
) -> Result<Vec<SigningSecret>, SenderSetupError> {
    let secret = |text| {
        SigningSecret::parse(text).map_err(|error| SenderSetupError::Secret { owner: owner().into(), error })
    };
    texts.iter().map(secret).collect()
}

fn header_name(owner: &str, name: &str) -> Result<HeaderName, SenderSetupError> {
    let unusable = |_| SenderSetupError::Header { owner: owner.into(), name: name.into() };
    HeaderName::from_bytes(name.as_bytes()).map_err(unusable)
}

fn header_value(owner: &str, name: &str, value: &str) -> Result<HeaderValue, SenderSetupError> {
    let unusable = |_| SenderSetupError::Header { owner: owner.into(), name: name.into() };
    let mut value = HeaderValue::from_str(value).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
pub(super) mod tests;
