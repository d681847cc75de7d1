//! The configuration of webhooks: `[webhooks]`, and the endpoints of the bots.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

use super::ProxyConfig;
use crate::domain::{DeliveryKind, UrlPattern};

/// One of `[[bots.webhooks]]`: an endpoint.
#[derive(Debug, Clone)]
pub struct BotWebhookConfig {
    /// The name of the endpoint, unique among those of its bot.
    pub name: Box<str>,
    /// The receiver. An endpoint without one gets no event: its `secrets` sign callbacks.
    pub url: Option<Url>,
    /// The kinds of events that the endpoint gets.
    pub types: Vec<DeliveryKind>,
    /// The extent of the data of its events.
    pub payload: PayloadExtent,
    /// `whsec_` secrets and `whsk_` private keys, newest first.
    pub secrets: Vec<SecretString>,
    /// The format of deliveries.
    pub form: PayloadFormat,
    /// The token of the header `Authorization: Bearer …`.
    pub bearer_token: Option<SecretString>,
    /// Additional headers of every delivery, by name.
    pub headers: Vec<(Box<str>, SecretString)>,
    /// The additional signature for older receivers.
    pub legacy_signature: Option<LegacySignature>,
    /// The time for which every attempt must fail until the endpoint is switched off; `None` for never.
    pub disable_after: Option<Duration>,
}

/// The extent of an event's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadExtent {
    /// All data.
    #[default]
    Full,
    /// Ids and links only, for receivers that may not hold what people say.
    Thin,
}

/// The format of a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadFormat {
    /// `type`, `timestamp` and `data` (Standard Webhooks).
    #[default]
    Standard,
    /// `CloudEvents` 1.0 over HTTP, in binary mode.
    CloudEvents,
    /// `CloudEvents` 1.0 over HTTP, in structured mode.
    CloudEventsStructured,
    /// The format of the platform's own webhook channel, with the whole turn in one post (protocol.md 9.4).
    KoreV2,
    /// The asynchronous form of that channel: each reply is a post, and the end of the turn is another one.
    KoreChannel(KoreApiVersion),
}

/// The version of the platform's webhook channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KoreApiVersion {
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

/// `bots.webhooks.signature_header` and `signature_secret`: HMAC-SHA256 of the body, in hexadecimal.
#[derive(Debug, Clone)]
pub struct LegacySignature {
    /// The header's name.
    pub header: Box<str>,
    /// The key of the signature.
    pub secret: SecretString,
}

impl Default for BotWebhookConfig {
    fn default() -> Self {
        Self {
            name: "main".into(),
            url: None,
            types: DeliveryKind::DEFAULT.to_vec(),
            payload: PayloadExtent::default(),
            secrets: Vec::new(),
            form: PayloadFormat::default(),
            bearer_token: None,
            headers: Vec::new(),
            legacy_signature: None,
            disable_after: Some(Duration::from_hours(5 * 24)),
        }
    }
}

/// `[webhooks]`
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// The patterns for callbacks. A callback must match one of them.
    pub allowed: Vec<UrlPattern>,
    /// Address ranges that deliveries may reach although they are not public.
    pub allow_private: Vec<IpNet>,
    /// The timeout of one attempt.
    pub timeout: Duration,
    /// Certificate authorities for receivers beside the public ones, in PEM.
    pub ca: Option<Vec<u8>>,
    /// The proxy for deliveries. Empty for direct ones.
    pub proxy: Option<Arc<ProxyConfig>>,
    /// The largest number of concurrent attempts.
    pub max_in_flight: usize,
    /// The largest number of concurrent attempts to one host.
    pub max_per_host: usize,
}
