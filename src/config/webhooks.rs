//! `[webhooks]` and `[bots.webhook]`: the receivers of deliveries, and the addresses that they may have.

use std::time::Duration;

use super::config_value::ConfigValue;
use super::diagnostics::Diagnostics;
use super::parse::{ParseResult, duration, list, number, one_of};
use super::proxy::SharedProxies;
use super::section::Section;
use super::{BotWebhookConfig, Config, LegacySignature, PayloadFormat, WebhooksConfig};
use super::{address, certificates, delivery_headers, secret};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

const FORMS: [(&str, PayloadFormat); 3] = [
    ("standard", PayloadFormat::Standard),
    ("cloudevents", PayloadFormat::CloudEvents),
    ("kore-v2", PayloadFormat::KoreV2),
];

const UNENCRYPTED: &str = "is not encrypted: others can read the deliveries; use https";

const PRIVATE: &str = "is not a public address, so the bridge sends no delivery there; `webhooks.allow_private` can allow its range";

/// Parses the format of deliveries.
pub(super) fn webhook_form(value: &ConfigValue) -> ParseResult<PayloadFormat> {
    one_of(&FORMS)(value)
}

/// Reads `[webhooks]`.
pub(super) fn webhooks(section: &mut Section<'_>, proxies: &SharedProxies) -> WebhooksConfig {
    let d = WebhooksConfig::default();
    let max_in_flight = section.or("max_in_flight", d.max_in_flight, number(1..=10_000));
    let max_per_host = section.or("max_per_host", d.max_per_host.min(max_in_flight), number(1..=10_000));
    if max_per_host > max_in_flight {
        let keys = [section.key("max_per_host"), section.key("max_in_flight")];
        let what = format!("{max_per_host} should be at most max_in_flight, {max_in_flight}");
        section.diagnostics.relation_error(&keys, what);
    }
    let allowed = section.or("allowed", d.allowed, list(address::url_pattern));
    let path = section.key("allowed");
    for pattern in &allowed {
        if pattern.is_plain_http() && !address::is_local(pattern.host().as_ref()) {
            section.diagnostics.warn(&path, format!("{pattern} {UNENCRYPTED}"));
        }
    }
    WebhooksConfig {
        allowed,
        allow_private: section.or("allow_private", d.allow_private, list(address::cidr)),
        timeout: section.or("timeout", d.timeout, duration(SECOND..=MINUTE)),
        ca: certificates::authorities(section),
        proxy: proxies.of_webhooks(section),
        max_in_flight,
        max_per_host,
    }
}

/// Reads `[bots.webhook]`. Returns `None` without valid secrets.
pub(super) fn webhook(section: &mut Section<'_>) -> Option<BotWebhookConfig> {
    let url = section.optional("url", address::receiver);
    let secrets =
        section.secret("secrets", "secrets_file", list(secret::webhook_secret), secret::webhook_secrets_text);
    let path = section.key("secrets");
    let given =
        section.diagnostics.was_given(&path) || section.diagnostics.was_given(&section.key("secrets_file"));
    if secrets.as_ref().is_some_and(Vec::is_empty) || (secrets.is_none() && !given) {
        section.diagnostics.error(&path, "is missing: the secrets that sign deliveries, or `secrets_file`");
    }
    let form = section.or("form", PayloadFormat::default(), webhook_form);
    let bearer_token =
        section.secret("bearer_token", "bearer_token_file", secret::bearer_token, secret::bearer_token_text);
    let headers =
        section.secret("headers", "headers_file", delivery_headers::headers, delivery_headers::headers_text);
    let headers = headers.unwrap_or_default();
    if bearer_token.is_some() && headers.iter().any(|(name, _)| **name == *"authorization") {
        let keys =
            ["bearer_token", "bearer_token_file", "headers", "headers_file"].map(|key| section.key(key));
        section
            .diagnostics
            .relation_error(&keys, "is given, and a header `authorization` too; keep one of them");
    }
    let legacy_signature = legacy_signature(section, &headers, bearer_token.is_some());
    let path = section.key("url");
    if url.as_ref().is_some_and(|url| url.scheme() == "http" && !address::is_loopback(url)) {
        section.diagnostics.warn(&path, UNENCRYPTED);
    }
    let own = form != PayloadFormat::default()
        || bearer_token.is_some()
        || !headers.is_empty()
        || legacy_signature.is_some();
    if own && url.is_none() && !section.diagnostics.was_given(&path) {
        section.diagnostics.warn(
            &path,
            "is not given: the bridge then sends only callbacks, and uses only `secrets` for them",
        );
    }
    Some(BotWebhookConfig { url, secrets: secrets?, form, bearer_token, headers, legacy_signature })
}

fn legacy_signature(
    section: &mut Section<'_>,
    headers: &[delivery_headers::HeaderPair],
    has_token: bool,
) -> Option<LegacySignature> {
    let header = section.optional("signature_header", delivery_headers::name);
    let secret =
        section.secret("signature_secret", "signature_secret_file", secret::secret, secret::secret_text);
    let keys = ["signature_header", "signature_secret", "signature_secret_file"].map(|key| section.key(key));
    let [by_name, direct, by_file] = keys.each_ref().map(|key| section.diagnostics.was_given(key));
    if by_name != (direct || by_file) {
        section.diagnostics.relation_error(
            &keys,
            "belongs together with the other: give signature_header and signature_secret, or neither",
        );
    }
    if let Some(header) = &header
        && (headers.iter().any(|(name, _)| name == header) || (has_token && **header == *"authorization"))
    {
        let keys = [section.key("signature_header"), section.key("headers")];
        section
            .diagnostics
            .relation_error(&keys, format!("is `{header}`, which is sent with another value already"));
    }
    Some(LegacySignature { header: header?, secret: secret? })
}

/// Warns of settings that are valid but have no effect.
pub(super) fn check(diagnostics: &mut Diagnostics, config: &Config) {
    let WebhooksConfig { allowed, allow_private, .. } = &config.webhooks;
    for bot in &config.bots {
        let url = bot.webhook.as_ref().and_then(|webhook| webhook.url.as_ref());
        if url.is_some_and(|url| address::is_out_of_reach(url.host().as_ref(), allow_private)) {
            diagnostics.warn(&format!("bots.{}.webhook.url", bot.name), PRIVATE);
        }
    }
    for pattern in allowed {
        if address::is_out_of_reach(pattern.host().as_ref(), allow_private) {
            diagnostics.warn("webhooks.allowed", format!("{pattern} {PRIVATE}"));
        }
    }
    let signs = config.callers.iter().any(|caller| !caller.webhook_secrets.is_empty())
        || config.bots.iter().any(|bot| bot.webhook.is_some());
    if !allowed.is_empty() && !signs {
        diagnostics.warn(
            "webhooks.allowed",
            "has no effect: neither a caller (`webhook_secrets_file`) nor a bot's webhook has a secret to sign with",
        );
    }
}
