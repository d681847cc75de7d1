//! `[webhooks]` and `[[bots.webhooks]]`: the receivers of deliveries, and the addresses that they may have.

use std::time::Duration;

use super::config_value::ConfigValue;
use super::diagnostics::Diagnostics;
use super::kore_webhook::KORE_ENDPOINT;
use super::parse::{
    self, InvalidValue, ParseResult, as_text, duration, duration_or_never, list, number, one_of, quoted,
};
use super::proxy::SharedProxies;
use super::section::Section;
use super::{BotWebhookConfig, Config, LegacySignature, PayloadExtent, PayloadFormat, WebhooksConfig};
use super::{address, certificates, delivery_headers, secret};
use crate::domain::{BotName, DeliveryKind};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

const FORMS: [(&str, PayloadFormat); 4] = [
    ("standard", PayloadFormat::Standard),
    ("cloudevents", PayloadFormat::CloudEvents),
    ("cloudevents-structured", PayloadFormat::CloudEventsStructured),
    ("kore-v2", PayloadFormat::KoreV2),
];

const EXTENTS: [(&str, PayloadExtent); 2] = [("full", PayloadExtent::Full), ("thin", PayloadExtent::Thin)];

/// The remedy for a configuration with the former single endpoint.
const GONE: &str = "is a list of endpoints now: write [[bots.webhooks]] instead of [bots.webhook], with the same keys and \
                    a `name`, such as name = \"main\" (in variables WEBHOOKS__MAIN instead of WEBHOOK)";

pub(super) const UNENCRYPTED: &str = "is not encrypted: others can read the deliveries; use https";

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

/// Reads `[[bots.webhooks]]`.
pub(super) fn endpoints(section: &mut Section<'_>) -> Vec<BotWebhookConfig> {
    section.removed("webhook", GONE);
    let endpoints = section.tables("webhooks", endpoint);
    let mut unaddressed = endpoints.iter().filter(|endpoint| endpoint.url.is_none());
    if let (Some(first), Some(second)) = (unaddressed.next(), unaddressed.next()) {
        let key = section.key(&format!("webhooks.{}.url", second.name));
        let what = format!(
            "is not given, and that of `{}` neither; only one endpoint of a bot may be there for its secrets alone",
            first.name
        );
        section.diagnostics.error(&key, what);
    }
    endpoints
}

/// Reads one of `[[bots.webhooks]]`. Returns `None` without a valid name and valid secrets.
fn endpoint(section: &mut Section<'_>) -> Option<BotWebhookConfig> {
    let d = BotWebhookConfig::default();
    let name = section.required("name", "the endpoint's name in deliveries and metrics", endpoint_name);
    let types = section.or("types", d.types, types);
    let payload = section.or("payload", d.payload, one_of(&EXTENTS));
    let url = section.optional("url", address::receiver);
    let secrets =
        section.secret("secrets", "secrets_file", list(secret::webhook_secret), secret::webhook_secrets_text);
    let path = section.key("secrets");
    let given =
        section.diagnostics.was_given(&path) || section.diagnostics.was_given(&section.key("secrets_file"));
    if secrets.as_ref().is_some_and(Vec::is_empty) || (secrets.is_none() && !given) {
        section.diagnostics.error(&path, "is missing: the secrets that sign deliveries, or `secrets_file`");
    }
    let form = section.or("form", d.form, webhook_form);
    check_kore_form(section, form, &types, payload);
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
    let disable_after = section.or("disable_after", d.disable_after, duration_or_never(SECOND..=30 * DAY));
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
    Some(BotWebhookConfig {
        name: name?,
        url,
        types,
        payload,
        secrets: secrets?,
        form,
        bearer_token,
        headers,
        legacy_signature,
        disable_after,
    })
}

/// Rejects what the form of the platform's own channel cannot carry.
fn check_kore_form(
    section: &mut Section<'_>,
    form: PayloadFormat,
    types: &[DeliveryKind],
    payload: PayloadExtent,
) {
    if form != PayloadFormat::KoreV2 {
        return;
    }
    if let Some(kind) = types.iter().find(|kind| !DeliveryKind::DEFAULT.contains(kind)) {
        let what =
            format!("has `{}`, which the form kore-v2 cannot carry; choose another form", kind.as_str());
        let keys = [section.key("types"), section.key("form")];
        section.diagnostics.relation_error(&keys, what);
    }
    if payload == PayloadExtent::Thin {
        let keys = [section.key("payload"), section.key("form")];
        section.diagnostics.relation_error(&keys, "is thin, and the form kore-v2 is always full; choose one");
    }
}

/// Parses the name of an endpoint, which has the form of a bot's name.
fn endpoint_name(value: &ConfigValue) -> ParseResult<Box<str>> {
    let name = BotName::new(&parse::text(value)?).map(|name| name.as_str().into());
    name.map_err(|_| {
        InvalidValue("should be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'".to_owned())
    })
}

fn delivery_kind(value: &ConfigValue) -> ParseResult<DeliveryKind> {
    let text = as_text(value, "\"message.answered\"")?;
    // Replies within a turn are for the endpoint of the webhook channel only.
    let mut kinds = DeliveryKind::ALL.into_iter().filter(|kind| *kind != DeliveryKind::Reply);
    kinds.clone().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let first = kinds.next().map_or("", DeliveryKind::as_str);
        let all = kinds.fold(first.to_owned(), |all, kind| format!("{all}, {}", kind.as_str()));
        InvalidValue(format!("{} is not one of {all}", quoted(text)))
    })
}

/// Parses the kinds of events that an endpoint gets.
fn types(value: &ConfigValue) -> ParseResult<Vec<DeliveryKind>> {
    let mut kinds = list(delivery_kind)(value)?;
    if kinds.is_empty() {
        return parse::invalid(
            "is empty, so the endpoint would get no event; leave it out for the usual ones",
        );
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
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
        for BotWebhookConfig { name, url, .. } in &bot.webhooks {
            let url = url.as_ref();
            if url.is_some_and(|url| address::is_out_of_reach(url.host().as_ref(), allow_private)) {
                let key = match &**name {
                    KORE_ENDPOINT => "kore_webhook.callback_url".to_owned(),
                    name => format!("webhooks.{name}.url"),
                };
                diagnostics.warn(&format!("bots.{}.{key}", bot.name), PRIVATE);
            }
        }
    }
    for pattern in allowed {
        if address::is_out_of_reach(pattern.host().as_ref(), allow_private) {
            diagnostics.warn("webhooks.allowed", format!("{pattern} {PRIVATE}"));
        }
    }
    let signs = config.callers.iter().any(|caller| !caller.webhook_secrets.is_empty())
        || config.bots.iter().any(|bot| !bot.webhooks.is_empty());
    if !allowed.is_empty() && !signs {
        diagnostics.warn(
            "webhooks.allowed",
            "has no effect: neither a caller (`webhook_secrets_file`) nor a bot (`webhooks`) has a secret to sign with",
        );
    }
}
