//! `[bots.kore_webhook]`: the door for callers of the platform's webhook channel.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::client_key::ClientKey;
use super::parse::{self, boolean, duration, list, number, one_of};
use super::section::Section;
use super::verification_key::JWT_ALGORITHMS;
use super::{
    BotConfig, BotWebhookConfig, CallerConfig, CallerScopes, Config, KoreApiVersion, PayloadFormat, RateScope,
};
use super::{address, secret, webhooks};
use crate::domain::{BotName, DeliveryKind};

const VERSIONS: [(&str, KoreApiVersion); 2] = [("v1", KoreApiVersion::V1), ("v2", KoreApiVersion::V2)];

/// The name of the endpoint of the asynchronous mode.
pub(super) const KORE_ENDPOINT: &str = "kore-webhook";

const TEXT_FORMS: [(&str, V1TextForm); 2] = [("string", V1TextForm::String), ("array", V1TextForm::Array)];

/// `[bots.kore_webhook]`
#[derive(Debug, Clone)]
pub struct KoreWebhookConfig {
    /// The form of one reply in answers of version 1.
    pub v1_text: V1TextForm,
    /// The time after which a call with a first reply is answered, although its turn goes on.
    pub hold: Duration,
    /// The clients, as callers.
    pub clients: Vec<CallerConfig>,
    /// Whether replies are posted to `callback_url`, and calls are only acknowledged.
    pub is_asynchronous: bool,
}

/// `bots.kore_webhook.v1_text`: the form of `text` for one reply. Several are always a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V1TextForm {
    /// A text, as the platform writes it.
    String,
    /// A list of one text, which Kore's Web SDK needs.
    Array,
}

/// A client of the webhook channel of a bot, which shows JWTs in place of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct KoreClient {
    /// The bot.
    pub bot: BotName,
    /// The client's id, which its JWTs name.
    pub id: String,
    /// The key that verifies them.
    pub key: ClientKey,
}

impl KoreWebhookConfig {
    /// Returns a door with every default, whose only client is the bot's own app. Returns `None` for a bot without a usable
    /// key of its own.
    pub fn of_app(bot: &BotConfig) -> Option<Self> {
        let key = ClientKey::of_app(bot.algorithm, &bot.client_secret)?;
        Some(Self { clients: vec![client(bot, bot.client_id.clone(), key)], ..Self::default() })
    }
}

impl KoreWebhookConfig {
    /// Returns the endpoint of the asynchronous mode, which gets each reply by itself.
    pub fn endpoint(url: Url, version: KoreApiVersion, secrets: Vec<SecretString>) -> BotWebhookConfig {
        BotWebhookConfig {
            name: KORE_ENDPOINT.into(),
            url: Some(url),
            types: vec![
                DeliveryKind::MessageAnswered,
                DeliveryKind::MessageFailed,
                DeliveryKind::Reply,
                DeliveryKind::ReplyLate,
                DeliveryKind::ReplyUnsolicited,
            ],
            secrets,
            form: PayloadFormat::KoreChannel(version),
            ..BotWebhookConfig::default()
        }
    }
}

impl Default for KoreWebhookConfig {
    /// Returns a door without clients.
    fn default() -> Self {
        // A client gives up after 11 s (protocol.md 9.6).
        Self {
            v1_text: V1TextForm::String,
            hold: Duration::from_secs(10),
            clients: Vec::new(),
            is_asynchronous: false,
        }
    }
}

impl Config {
    /// Adds the clients of all doors to the callers, whose limits hold for them too.
    pub fn add_kore_clients(&mut self) {
        self.callers.retain(|caller| caller.kore_client.is_none());
        let doors = self.bots.iter().filter_map(|bot| bot.kore_webhook.as_ref());
        self.callers.extend(doors.flat_map(|door| door.clients.iter().cloned()));
    }

    /// Returns whether there are callers beside clients of the webhook channel.
    pub fn has_callers(&self) -> bool {
        self.callers.iter().any(|caller| caller.kore_client.is_none())
    }
}

/// Returns a client without limits.
fn client(bot: &BotConfig, id: String, key: ClientKey) -> CallerConfig {
    CallerConfig {
        // No name of `[[callers]]` has a slash.
        name: format!("{}/{id}", bot.name),
        key_sha256: None,
        jwt: None,
        scopes: CallerScopes { send: true, read: true, admin: false },
        bots: Some(vec![bot.name.clone()]),
        user_prefix: String::new(),
        rate_per_minute: 0,
        rate_scope: RateScope::default(),
        max_open_requests: 0,
        max_open_messages: 0,
        webhook_secrets: Vec::new(),
        webhook_form: PayloadFormat::Standard,
        kore_client: Some(KoreClient { bot: bot.name.clone(), id, key }),
    }
}

/// Reads `[bots.kore_webhook]`. Returns `None` if it is off. `has_secret` says whether the bot has a usable secret.
///
/// In its asynchronous mode the door adds an endpoint to those of the bot.
pub(super) fn door(
    section: &mut Section<'_>,
    bot: &mut BotConfig,
    has_secret: bool,
) -> Option<KoreWebhookConfig> {
    let d = KoreWebhookConfig::default();
    let enabled = section.or("enabled", true, boolean);
    let own_clients = section.tables("clients", |section| read_client(section, bot));
    let mut door = KoreWebhookConfig {
        v1_text: section.or("v1_text", d.v1_text, one_of(&TEXT_FORMS)),
        // Load balancers end silent requests after 60 s.
        hold: section.or("hold", d.hold, duration(Duration::from_millis(100)..=Duration::from_secs(55))),
        clients: own_clients,
        is_asynchronous: false,
    };
    let endpoint = endpoint(section, bot);
    door.is_asynchronous = endpoint.is_some();
    bot.webhooks.extend(endpoint.filter(|_| enabled));
    let path = section.key("clients");
    if !section.diagnostics.was_given(&path) && enabled {
        match KoreWebhookConfig::of_app(bot).filter(|_| has_secret) {
            Some(own) => door.clients = own.clients,
            None if bot.assertion_service.is_some() => section.diagnostics.error(
                &path,
                "is missing: the bot has no `client_secret` that could verify its own app's JWTs",
            ),
            // The bot's own key has an error that is told already.
            None => {}
        }
    }
    enabled.then_some(door)
}

/// Reads the keys of the asynchronous mode. Returns its endpoint, or `None` without a URL.
fn endpoint(section: &mut Section<'_>, bot: &BotConfig) -> Option<BotWebhookConfig> {
    let url = section.optional("callback_url", address::receiver);
    let version = section.or("version", KoreApiVersion::V2, one_of(&VERSIONS));
    let secrets = section.secret(
        "callback_secrets",
        "callback_secrets_file",
        list(secret::webhook_secret),
        secret::webhook_secrets_text,
    );
    let url = url?;
    let path = section.key("callback_url");
    if url.scheme() == "http" && !address::is_loopback(&url) {
        section.diagnostics.warn(&path, webhooks::UNENCRYPTED);
    }
    if bot.webhooks.iter().any(|own| &*own.name == KORE_ENDPOINT) {
        let what =
            format!("makes an endpoint `{KORE_ENDPOINT}`, and [[bots.webhooks]] has one too; rename that");
        section.diagnostics.error(&path, what);
    }
    // The platform's own posts have no signature, so secrets are no duty.
    let secrets = secrets.or_else(|| bot.callback_signer().map(|signer| signer.secrets));
    Some(KoreWebhookConfig::endpoint(url, version, secrets.unwrap_or_default()))
}

/// Reads one of `clients`. Returns `None` if a required key is missing or invalid.
fn read_client(section: &mut Section<'_>, bot: &BotConfig) -> Option<CallerConfig> {
    let id = section.required("id", "the client's id, which its JWTs name as `appId` or `iss`", parse::text);
    let algorithm = section.optional("algorithm", one_of(&JWT_ALGORITHMS));
    let shared = section.secret("secret", "secret_file", secret::secret, secret::secret_text);
    let public = section.secret("public_key", "public_key_file", secret::secret, secret::secret_text);
    let [by_secret, by_key] = [["secret", "secret_file"], ["public_key", "public_key_file"]]
        .map(|keys| keys.map(|key| section.key(key)));
    let given = |keys: &[String; 2]| keys.iter().find(|key| section.diagnostics.was_given(key)).cloned();
    let key = match (given(&by_secret), given(&by_key)) {
        (None, None) => {
            let what = "is missing: `secret`, `secret_file`, `public_key` or `public_key_file` verifies the client's JWTs";
            section.diagnostics.error(&by_secret[0], what);
            None
        }
        (Some(secret), Some(_)) => {
            section.diagnostics.error(&secret, "is given, and a public key too; keep one of them");
            None
        }
        (Some(at), None) => shared.map(|secret| (at, ClientKey::of_secret(&secret, algorithm))),
        (None, Some(at)) => public.map(|pem| (at, ClientKey::of_public_key(&pem, algorithm))),
    };
    let limited = ClientLimits::read(section);
    let (at, key) = key?;
    let key = key.map_err(|error| section.diagnostics.error(&at, error.to_string())).ok()?;
    Some(limited.on(client(bot, id?, key)))
}

/// The limits of a client, which are those of `[[callers]]`.
struct ClientLimits {
    user_prefix: String,
    rate_per_minute: u32,
    max_open_requests: u32,
    max_open_messages: u32,
}

impl ClientLimits {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            user_prefix: section.or("user_prefix", String::new(), parse::text),
            rate_per_minute: section.or("rate_per_minute", 0, number(0..=10_000_000)),
            max_open_requests: section.or("max_open_requests", 0, number(0..=1_000_000)),
            max_open_messages: section.or("max_open_messages", 0, number(0..=1_000_000)),
        }
    }

    fn on(self, caller: CallerConfig) -> CallerConfig {
        let Self { user_prefix, rate_per_minute, max_open_requests, max_open_messages } = self;
        CallerConfig { user_prefix, rate_per_minute, max_open_requests, max_open_messages, ..caller }
    }
}
