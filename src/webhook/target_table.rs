//! What goes with a delivery beside what it tells: form, secrets, headers. All of it follows from the configuration and
//! from who named the target.
//!
//! A callback is a caller's: it is signed with the caller's secrets, or with the bot's where the caller has none, and
//! gets nothing else of what is configured for the bot's own webhook. Nor does a target that was the bot's webhook
//! before its URL was changed.

use std::collections::HashMap;

use secrecy::{ExposeSecret as _, SecretString};

use super::sender::{HeaderName, HeaderValue, SenderSetupError, header};
use super::signature::{LegacyKey, SigningSecret};
use crate::config::{BotConfig, BotWebhookConfig, CallerConfig, Config, PayloadFormat};
use crate::domain::{DeliveryOrigin, NewDelivery};

/// Every bot and caller of the configuration, ready to sign.
pub(super) struct TargetTable {
    bots: HashMap<Box<str>, BotTarget>,
    callers: HashMap<Box<str>, CallerTarget>,
}

struct BotTarget {
    /// Its id on the platform.
    id: Box<str>,
    /// None where the bot has no webhook: nothing signs then.
    webhook: Option<OwnWebhook>,
}

/// A bot's own webhook.
struct OwnWebhook {
    url: Option<Box<str>>,
    form: PayloadFormat,
    secrets: Vec<SigningSecret>,
    extras: ExtraHeaders,
}

struct CallerTarget {
    form: PayloadFormat,
    secrets: Vec<SigningSecret>,
}

/// What is sent to the bot's own webhook and to nobody else.
#[derive(Default)]
pub(super) struct ExtraHeaders {
    /// Headers, authorization among them.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The signature for older receivers.
    pub(super) legacy: Option<(HeaderName, LegacyKey)>,
}

/// How one delivery is sent.
pub(super) struct DeliveryOptions<'a> {
    /// In what form.
    pub(super) form: PayloadFormat,
    /// What signs, newest first; never empty.
    pub(super) secrets: &'a [SigningSecret],
    /// What else goes with it.
    pub(super) extras: Option<&'a ExtraHeaders>,
    /// The bot's id on the platform.
    pub(super) bot: &'a str,
}

/// Why a delivery cannot be sent by this configuration, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MissingSigner {
    /// The bot is gone.
    #[error("the bot {0}, whose secrets sign this, is not configured any more: configure it again")]
    Bot(Box<str>),
    /// The bot has no webhook, whose secrets would sign.
    #[error("bots.{0}.webhook is not configured any more, and its secrets sign this: configure it again")]
    Webhook(Box<str>),
    /// The caller is gone.
    #[error("the caller {0}, whose secrets sign this, is not configured any more: configure it again")]
    Caller(Box<str>),
    /// The caller has no secrets.
    #[error("the caller {0} has no webhook_secrets any more: configure them again")]
    Secrets(Box<str>),
}

impl TargetTable {
    /// Reads the configuration, and decodes every secret.
    ///
    /// # Errors
    /// [`SenderSetupError`].
    pub(super) fn new(config: &Config) -> Result<Self, SenderSetupError> {
        let bots = config.bots.iter().map(|bot| Ok((bot.name.as_str().into(), BotTarget::new(bot)?)));
        let callers =
            config.callers.iter().map(|caller| Ok((caller.name.as_str().into(), CallerTarget::new(caller)?)));
        Ok(Self { bots: bots.collect::<Result<_, _>>()?, callers: callers.collect::<Result<_, _>>()? })
    }

    /// How this delivery is sent.
    ///
    /// # Errors
    /// [`Unsigned`] where the configuration has nothing to sign it with any more.
    pub(super) fn manner<'a>(
        &'a self,
        delivery: &'a NewDelivery,
    ) -> Result<DeliveryOptions<'a>, MissingSigner> {
        let name = delivery.conversation.bot.as_str();
        let bot = self.bots.get(name);
        let own = || {
            let bot = bot.ok_or_else(|| MissingSigner::Bot(name.into()))?;
            bot.webhook.as_ref().ok_or_else(|| MissingSigner::Webhook(name.into()))
        };
        let manner = |form, secrets, extras| {
            // A caller's callbacks outlive the bot that they tell of.
            let bot = bot.map_or(name, |bot| &bot.id);
            DeliveryOptions { form, secrets, extras, bot }
        };
        match &delivery.origin {
            DeliveryOrigin::Bot => {
                let own = own()?;
                let extras = (own.url.as_ref() == Some(&delivery.target)).then_some(&own.extras);
                Ok(manner(own.form, &own.secrets, extras))
            }
            DeliveryOrigin::Callback { signer: None } => {
                Ok(manner(PayloadFormat::Standard, &own()?.secrets, None))
            }
            DeliveryOrigin::Callback { signer: Some(signer) } => {
                let caller = self.callers.get(signer).ok_or_else(|| MissingSigner::Caller(signer.clone()))?;
                if caller.secrets.is_empty() {
                    return Err(MissingSigner::Secrets(signer.clone()));
                }
                Ok(manner(caller.form, &caller.secrets, None))
            }
        }
    }
}

impl BotTarget {
    fn new(bot: &BotConfig) -> Result<Self, SenderSetupError> {
        let webhook =
            bot.webhook.as_ref().map(|webhook| OwnWebhook::new(bot.name.as_str(), webhook)).transpose()?;
        Ok(Self { id: bot.task_bot_id.as_str().into(), webhook })
    }
}

impl OwnWebhook {
    fn new(bot: &str, webhook: &BotWebhookConfig) -> Result<Self, SenderSetupError> {
        let mut headers = Vec::with_capacity(webhook.headers.len() + 1);
        for (name, value) in &webhook.headers {
            headers.push((header_name(bot, name)?, header_value(bot, name, value.expose_secret())?));
        }
        if let Some(token) = &webhook.bearer_token {
            let value = SecretString::from(format!("Bearer {}", token.expose_secret()));
            headers.push((header::AUTHORIZATION, header_value(bot, "Authorization", value.expose_secret())?));
        }
        let legacy = webhook.legacy_signature.as_ref();
        let legacy = legacy
            .map(|legacy| Ok((header_name(bot, &legacy.header)?, LegacyKey::new(&legacy.secret))))
            .transpose()?;
        Ok(Self {
            url: webhook.url.as_ref().map(|url| url.as_str().into()),
            form: webhook.form,
            secrets: secrets(&webhook.secrets, || format!("bots.{bot}.webhook"))?,
            extras: ExtraHeaders { headers, legacy },
        })
    }
}

impl CallerTarget {
    fn new(caller: &CallerConfig) -> Result<Self, SenderSetupError> {
        let secrets = secrets(&caller.webhook_secrets, || format!("callers.{}", caller.name))?;
        Ok(Self { form: caller.webhook_form, secrets })
    }
}

fn secrets(
    texts: &[SecretString],
    whose: impl Fn() -> String,
) -> Result<Vec<SigningSecret>, SenderSetupError> {
    let secret = |text| {
        SigningSecret::parse(text).map_err(|error| SenderSetupError::Secret { whose: whose().into(), error })
    };
    texts.iter().map(secret).collect()
}

fn header_name(bot: &str, name: &str) -> Result<HeaderName, SenderSetupError> {
    let unusable = |_| SenderSetupError::Header { bot: bot.into(), name: name.into() };
    HeaderName::from_bytes(name.as_bytes()).map_err(unusable)
}

fn header_value(bot: &str, name: &str, value: &str) -> Result<HeaderValue, SenderSetupError> {
    let unusable = |_| SenderSetupError::Header { bot: bot.into(), name: name.into() };
    let mut value = HeaderValue::from_str(value).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
pub(super) mod tests;
