use std::sync::Arc;

use super::*;
use crate::config::{self, LegacySignature, fixtures};
use crate::domain::DeliveryKind;
use crate::webhook::tests::{SECRET, claimed};

const OTHER: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
const URL: &str = "https://hooks.example.com/in";

/// Returns a configuration of one bot with a webhook and one caller with secrets.
pub(in crate::webhook) fn config(change: impl FnOnce(&mut BotWebhookConfig, &mut CallerConfig)) -> Config {
    let mut webhook = BotWebhookConfig {
        url: Some(URL.parse().unwrap()),
        secrets: vec![SECRET.into()],
        ..BotWebhookConfig::default()
    };
    let mut caller = CallerConfig {
        webhook_secrets: vec![OTHER.into()],
        webhook_form: PayloadFormat::CloudEvents,
        ..fixtures::caller("crm", config::CallerScopes::default())
    };
    change(&mut webhook, &mut caller);
    let bot =
        BotConfig { task_bot_id: "st-0d3f".to_owned(), webhooks: vec![webhook], ..fixtures::bot("support") };
    let platform = bot.platform.clone();
    let mut config = Config { bots: vec![Arc::new(bot)], callers: vec![caller], ..Config::dev(platform) };
    config.webhooks.allowed = vec!["https://hooks.example.com/".parse().unwrap()];
    config
}

fn delivery(origin: DeliveryOrigin) -> NewDelivery {
    NewDelivery { origin, ..claimed(URL, DeliveryKind::MessageAnswered, "{}").delivery }
}

fn endpoint(name: &str) -> DeliveryOrigin {
    DeliveryOrigin::Endpoint(name.into())
}

fn callback(signer: Option<&str>) -> DeliveryOrigin {
    DeliveryOrigin::Callback { signer: signer.map(Into::into) }
}

/// Returns a signature by these options, which identifies their secrets.
fn signed(options: &DeliveryOptions<'_>) -> String {
    crate::webhook::signature::sign(options.secrets, "id", 1, b"")
}

fn with(secret: &str) -> String {
    crate::webhook::signature::sign(&[SigningSecret::parse(&secret.into()).unwrap()], "id", 1, b"")
}

#[test]
fn bot_webhook_gets_all_its_configured_options() {
    let config = config(|webhook, _| {
        webhook.form = PayloadFormat::KoreV2;
        webhook.bearer_token = Some("t0ken".into());
        webhook.headers = vec![("X-Tenant".into(), "blue".into())];
        webhook.legacy_signature =
            Some(LegacySignature { header: "X-Hub-Signature".into(), secret: "older".into() });
    });
    let targets = TargetTable::new(&config).unwrap();
    let delivery = delivery(endpoint("main"));
    let options = targets.options(&delivery).unwrap();
    assert_eq!((options.format, options.platform_bot), (PayloadFormat::KoreV2, "st-0d3f"));
    assert_eq!(signed(&options), with(SECRET));
    let extra_headers = options.extra_headers.unwrap();
    let headers: Vec<_> =
        extra_headers.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("x-tenant", "blue"), ("authorization", "Bearer t0ken")]);
    assert!(extra_headers.headers.iter().all(|(_, value)| value.is_sensitive()));
    assert_eq!(extra_headers.legacy.as_ref().map(|(name, _)| name.as_str()), Some("x-hub-signature"));
}

#[test]
fn callback_gets_only_a_signature_of_the_bot() {
    let config = config(|webhook, _| {
        webhook.form = PayloadFormat::KoreV2;
        webhook.bearer_token = Some("t0ken".into());
    });
    let targets = TargetTable::new(&config).unwrap();
    // The callback has the same URL as the bot's webhook.
    let (by_bot, by_caller) = (delivery(callback(None)), delivery(callback(Some("crm"))));
    let options = targets.options(&by_bot).unwrap();
    assert!(options.extra_headers.is_none());
    assert_eq!((options.format, signed(&options)), (PayloadFormat::Standard, with(SECRET)));
    let options = targets.options(&by_caller).unwrap();
    assert!(options.extra_headers.is_none());
    assert_eq!((options.format, signed(&options)), (PayloadFormat::CloudEvents, with(OTHER)));
}

#[test]
fn each_endpoint_has_its_own_options() {
    let mut config = config(|webhook, _| webhook.bearer_token = Some("t0ken".into()));
    let audit = |url: Option<&str>| BotWebhookConfig {
        name: "audit".into(),
        url: url.map(|url| url.parse().unwrap()),
        secrets: vec![OTHER.into()],
        form: PayloadFormat::CloudEvents,
        ..BotWebhookConfig::default()
    };
    // Both endpoints have one URL.
    for (url, signs_callbacks) in [(Some(URL), SECRET), (None, OTHER)] {
        let mut bot = (*config.bots[0]).clone();
        bot.webhooks.truncate(1);
        bot.webhooks.push(audit(url));
        config.bots = vec![Arc::new(bot)];
        let targets = TargetTable::new(&config).unwrap();
        let [main, audit, callback] = [endpoint("main"), endpoint("audit"), callback(None)].map(delivery);
        let (first, second) = (targets.options(&main).unwrap(), targets.options(&audit).unwrap());
        assert_eq!((first.format, signed(&first)), (PayloadFormat::Standard, with(SECRET)));
        assert_eq!((second.format, signed(&second)), (PayloadFormat::CloudEvents, with(OTHER)));
        assert_eq!(first.extra_headers.map(|extra| extra.headers.len()), Some(1));
        assert!(second.extra_headers.is_none_or(|extra| extra.headers.is_empty()));
        assert_eq!(signed(&targets.options(&callback).unwrap()), with(signs_callbacks), "{url:?}");
    }
}

#[test]
fn former_url_of_a_webhook_gets_no_credentials() {
    let config = config(|webhook, _| {
        webhook.url = Some("https://new.example.com/in".parse().unwrap());
        webhook.bearer_token = Some("t0ken".into());
    });
    let targets = TargetTable::new(&config).unwrap();
    let delivery = delivery(endpoint("main"));
    let options = targets.options(&delivery).unwrap();
    assert!(options.extra_headers.is_none());
    assert_eq!(signed(&options), with(SECRET));
}

#[test]
fn callback_needs_a_pattern_at_each_attempt() {
    let mut config = config(|_, _| ());
    let mut refusal = |allowed: &[&str], origin| {
        config.webhooks.allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        TargetTable::new(&config).unwrap().options(&delivery(origin)).err()
    };
    for origin in [callback(None), callback(Some("crm"))] {
        assert_eq!(refusal(&["https://*.example.com/in"], origin.clone()), None);
        for narrower in [&[][..], &["https://hooks.example.com/out"], &["http://hooks.example.com/"]] {
            assert_eq!(refusal(narrower, origin.clone()), Some(TargetRefusal::NotAllowed), "{narrower:?}");
        }
    }
    assert_eq!(refusal(&[], endpoint("main")), None, "the bot's own webhook needs no pattern");
}

#[test]
fn missing_signer_is_reported_by_name() {
    let mut config = config(|_, caller| caller.webhook_secrets.clear());
    let targets = TargetTable::new(&config).unwrap();
    let refused = |targets: &TargetTable, origin| targets.options(&delivery(origin)).err();
    assert_eq!(refused(&targets, callback(Some("crm"))), Some(TargetRefusal::Secrets("crm".into())));
    assert_eq!(refused(&targets, callback(Some("gone"))), Some(TargetRefusal::Caller("gone".into())));

    let bot = BotConfig { webhooks: Vec::new(), ..(*config.bots[0]).clone() };
    config.bots = vec![Arc::new(bot)];
    let targets = TargetTable::new(&config).unwrap();
    let gone = TargetRefusal::Endpoint { bot: "support".into(), name: "main".into() };
    assert_eq!(refused(&targets, endpoint("main")), Some(gone));
    assert_eq!(refused(&targets, callback(None)), Some(TargetRefusal::NoEndpoint("support".into())));
    config.bots.clear();
    let targets = TargetTable::new(&config).unwrap();
    assert_eq!(refused(&targets, endpoint("main")), Some(TargetRefusal::Bot("support".into())));
    config.callers[0].webhook_secrets.push(OTHER.into());
    let targets = TargetTable::new(&config).unwrap();
    let orphan = delivery(callback(Some("crm")));
    assert_eq!(targets.options(&orphan).unwrap().platform_bot, "support", "a callback needs its caller only");
}

#[test]
fn invalid_secret_or_header_fails_the_start_unquoted() {
    let said = |change: &dyn Fn(&mut BotWebhookConfig, &mut CallerConfig)| {
        let error = TargetTable::new(&config(|webhook, caller| change(webhook, caller))).err().unwrap();
        format!("{error} {error:?}")
    };
    let words = said(&|webhook, _| webhook.secrets.push("whsec_hush!".into()));
    assert!(words.contains("bots.support.webhooks.main") && !words.contains("hush"), "{words}");
    let words = said(&|_, caller| caller.webhook_secrets.push("hush".into()));
    assert!(words.contains("callers.crm") && !words.contains("hush"), "{words}");
    let words = said(&|webhook, _| webhook.bearer_token = Some("hu\nsh".into()));
    assert!(words.contains("Authorization") && !words.contains("sh\""), "{words}");
    let words = said(&|webhook, _| webhook.headers.push(("x y".into(), "hush".into())));
    assert!(words.contains("x y") && !words.contains("hush"), "{words}");
}
