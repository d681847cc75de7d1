use std::sync::Arc;

use super::*;
use crate::config::{self, LegacySignature};
use crate::domain::{BotName, DeliveryKind};
use crate::webhook::tests::{SECRET, taken};

const OTHER: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
const URL: &str = "https://hooks.example.com/in";

/// A configuration of one bot with a webhook and one caller with secrets of its own.
pub(in crate::webhook) fn config(change: impl FnOnce(&mut BotWebhookConfig, &mut CallerConfig)) -> Config {
    let mut webhook = BotWebhookConfig {
        url: Some(URL.parse().unwrap()),
        secrets: vec![SECRET.into()],
        form: PayloadFormat::Standard,
        bearer_token: None,
        headers: Vec::new(),
        legacy_signature: None,
    };
    let mut caller = CallerConfig {
        name: "crm".to_owned(),
        key_sha256: [0; 32],
        scopes: config::CallerScopes::default(),
        bots: None,
        user_prefix: String::new(),
        rate_per_minute: 0,
        max_open_requests: 0,
        webhook_secrets: vec![OTHER.into()],
        webhook_form: PayloadFormat::CloudEvents,
    };
    change(&mut webhook, &mut caller);
    let bot = BotConfig {
        task_bot_id: "st-0d3f".to_owned(),
        webhook: Some(webhook),
        ..BotConfig::new(BotName::new("support").unwrap(), "https://bots.kore.ai".parse().unwrap())
    };
    let platform = bot.platform.clone();
    Config { bots: vec![Arc::new(bot)], callers: vec![caller], ..Config::dev(platform) }
}

fn delivery(origin: DeliveryOrigin) -> NewDelivery {
    NewDelivery { origin, ..taken(URL, DeliveryKind::MessageAnswered, "{}").delivery }
}

fn callback(signer: Option<&str>) -> DeliveryOrigin {
    DeliveryOrigin::Callback { signer: signer.map(Into::into) }
}

/// What a manner signs, which tells its secrets apart.
fn signed(manner: &DeliveryOptions<'_>) -> String {
    crate::webhook::signature::sign(manner.secrets, "id", 1, b"")
}

fn with(secret: &str) -> String {
    crate::webhook::signature::sign(&[SigningSecret::parse(&secret.into()).unwrap()], "id", 1, b"")
}

#[test]
fn the_bots_webhook_gets_all_that_is_configured_for_it() {
    let config = config(|webhook, _| {
        webhook.form = PayloadFormat::KoreV2;
        webhook.bearer_token = Some("t0ken".into());
        webhook.headers = vec![("X-Tenant".into(), "blue".into())];
        webhook.legacy_signature =
            Some(LegacySignature { header: "X-Hub-Signature".into(), secret: "older".into() });
    });
    let targets = TargetTable::new(&config).unwrap();
    let delivery = delivery(DeliveryOrigin::Bot);
    let manner = targets.manner(&delivery).unwrap();
    assert_eq!((manner.form, manner.bot), (PayloadFormat::KoreV2, "st-0d3f"));
    assert_eq!(signed(&manner), with(SECRET));
    let extras = manner.extras.unwrap();
    let headers: Vec<_> =
        extras.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("x-tenant", "blue"), ("authorization", "Bearer t0ken")]);
    assert!(extras.headers.iter().all(|(_, value)| value.is_sensitive()));
    assert_eq!(extras.legacy.as_ref().map(|(name, _)| name.as_str()), Some("x-hub-signature"));
}

#[test]
fn a_callback_gets_a_signature_and_nothing_else_of_the_bots() {
    let config = config(|webhook, _| {
        webhook.form = PayloadFormat::KoreV2;
        webhook.bearer_token = Some("t0ken".into());
    });
    let targets = TargetTable::new(&config).unwrap();
    // Even where it is the very URL of the bot's webhook.
    let (by_bot, by_caller) = (delivery(callback(None)), delivery(callback(Some("crm"))));
    let manner = targets.manner(&by_bot).unwrap();
    assert!(manner.extras.is_none());
    assert_eq!((manner.form, signed(&manner)), (PayloadFormat::Standard, with(SECRET)));
    let manner = targets.manner(&by_caller).unwrap();
    assert!(manner.extras.is_none());
    assert_eq!((manner.form, signed(&manner)), (PayloadFormat::CloudEvents, with(OTHER)));
}

#[test]
fn a_webhook_that_moved_takes_its_credentials_along() {
    let config = config(|webhook, _| {
        webhook.url = Some("https://new.example.com/in".parse().unwrap());
        webhook.bearer_token = Some("t0ken".into());
    });
    let targets = TargetTable::new(&config).unwrap();
    let delivery = delivery(DeliveryOrigin::Bot);
    let manner = targets.manner(&delivery).unwrap();
    assert!(manner.extras.is_none());
    assert_eq!(signed(&manner), with(SECRET));
}

#[test]
fn what_is_not_configured_any_more_is_told_by_name() {
    let mut config = config(|_, caller| caller.webhook_secrets.clear());
    let targets = TargetTable::new(&config).unwrap();
    let refused = |targets: &TargetTable, origin| targets.manner(&delivery(origin)).err();
    assert_eq!(refused(&targets, callback(Some("crm"))), Some(MissingSigner::Secrets("crm".into())));
    assert_eq!(refused(&targets, callback(Some("gone"))), Some(MissingSigner::Caller("gone".into())));

    let bot = BotConfig { webhook: None, ..(*config.bots[0]).clone() };
    config.bots = vec![Arc::new(bot)];
    let targets = TargetTable::new(&config).unwrap();
    for origin in [DeliveryOrigin::Bot, callback(None)] {
        assert_eq!(refused(&targets, origin), Some(MissingSigner::Webhook("support".into())));
    }
    config.bots.clear();
    let targets = TargetTable::new(&config).unwrap();
    assert_eq!(refused(&targets, DeliveryOrigin::Bot), Some(MissingSigner::Bot("support".into())));
    config.callers[0].webhook_secrets.push(OTHER.into());
    let targets = TargetTable::new(&config).unwrap();
    let orphan = delivery(callback(Some("crm")));
    assert_eq!(targets.manner(&orphan).unwrap().bot, "support", "a callback needs its caller only");
}

#[test]
fn secrets_and_headers_that_cannot_be_are_found_at_start_and_not_quoted() {
    let said = |change: &dyn Fn(&mut BotWebhookConfig, &mut CallerConfig)| {
        let error = TargetTable::new(&config(|webhook, caller| change(webhook, caller))).err().unwrap();
        format!("{error} {error:?}")
    };
    let words = said(&|webhook, _| webhook.secrets.push("whsec_hush!".into()));
    assert!(words.contains("bots.support.webhook") && !words.contains("hush"), "{words}");
    let words = said(&|_, caller| caller.webhook_secrets.push("hush".into()));
    assert!(words.contains("callers.crm") && !words.contains("hush"), "{words}");
    let words = said(&|webhook, _| webhook.bearer_token = Some("hu\nsh".into()));
    assert!(words.contains("Authorization") && !words.contains("sh\""), "{words}");
    let words = said(&|webhook, _| webhook.headers.push(("x y".into(), "hush".into())));
    assert!(words.contains("x y") && !words.contains("hush"), "{words}");
}
