//! Test events, for operators and for `rtm-bridge doctor`, with the guard and the sender of deliveries.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::attempt::{AttemptOutcome, attempt};
use super::sender::{DeliverySender, SenderSetupError};
use super::ssrf_guard::SsrfGuard;
use super::target_table::TargetTable;
use crate::config::{BotConfig, BotWebhookConfig, Config, WebhooksConfig};
use crate::domain::{
    BotName, ConversationId, DeliveryAttempt, DeliveryId, DeliveryKind, DeliveryOrigin, NewDelivery, TraceId,
    UserId,
};
use crate::store::ClaimedDelivery;
use crate::wall_clock;

/// Returns whether deliveries may go to this address.
pub fn may_deliver_to(config: &WebhooksConfig, address: IpAddr) -> bool {
    SsrfGuard::new(&config.allow_private).admits(address)
}

/// Posts a test event to an endpoint of a bot: an unsolicited reply in the conversation of `user`. Returns the status
/// of the receiver, or the reason in words.
///
/// # Errors
/// [`SenderSetupError`] as at a start.
pub async fn post_test_event(
    config: &Config,
    bot: &BotConfig,
    endpoint: &BotWebhookConfig,
    user: &UserId,
) -> Result<Result<u16, String>, SenderSetupError> {
    const REPLY: &str = r#"{"seq":0,"messageId":null,"inReplyTo":null,"correlation":"unsolicited","late":false,"text":"A test event of rtm-bridge doctor","agent":false,"createdOn":null,"event":{}"#;
    let (sender, targets) = (DeliverySender::new(&config.webhooks)?, TargetTable::new(config)?);
    let Some(url) = &endpoint.url else {
        return Ok(Err("there is no URL".to_owned()));
    };
    let conversation = ConversationId::new(bot.name.clone(), user.clone());
    let now = wall_clock::now();
    let text = |text: &str| serde_json::Value::from(text);
    let data = format!("{REPLY},\"bot\":{},\"user\":{}}}", text(bot.name.as_str()), text(user.as_str()));
    let Ok(data) = RawValue::from_string(data) else { return Ok(Err("the event is no JSON".to_owned())) };
    let delivery = NewDelivery {
        id: DeliveryId::of(&conversation, 0, 0, now),
        kind: DeliveryKind::ReplyUnsolicited,
        conversation,
        message: None,
        target: url.as_str().into(),
        origin: DeliveryOrigin::Endpoint(endpoint.name.clone()),
        trace: TraceId::default(),
        created_at: now,
        data,
    };
    let claimed = ClaimedDelivery { delivery, since: now, made: 0, step: 0, token: 0, now };
    let result = attempt(&sender, &targets, &claimed).await;
    let error = result.attempt.error.map(String::from);
    Ok(match (result.outcome, result.attempt.status) {
        (AttemptOutcome::Delivered, Some(status)) => Ok(status),
        _ => Err(error.unwrap_or_default()),
    })
}

/// Returns a test event for an endpoint; `None` if it has no URL.
pub(super) fn test_event(bot: &BotConfig, endpoint: &BotWebhookConfig) -> Option<ClaimedDelivery> {
    let now = wall_clock::now();
    let conversation = ConversationId::new(bot.name.clone(), UserId::new("test").ok()?);
    let data = TestEvent { bot: &bot.name, webhook: &endpoint.name, text: "A test event of rtm-bridge" };
    let delivery = NewDelivery {
        id: DeliveryId::of(&conversation, fastrand::u64(..), 0, now),
        kind: DeliveryKind::Test,
        conversation,
        message: None,
        target: endpoint.url.as_ref()?.as_str().into(),
        origin: DeliveryOrigin::Endpoint(endpoint.name.clone()),
        trace: TraceId::default(),
        created_at: now,
        data: to_raw_value(&data).ok()?,
    };
    Some(ClaimedDelivery { delivery, since: now, made: 0, step: 0, token: 0, now })
}

/// The data of a test event.
#[derive(Serialize)]
struct TestEvent<'a> {
    bot: &'a BotName,
    webhook: &'a str,
    text: &'static str,
}

/// Posts a signed test event to an endpoint, and returns what the receiver answered. `None` means that the endpoint has
/// no URL.
///
/// # Errors
/// [`SenderSetupError`] as at a start.
pub async fn test_endpoint(
    config: &Config,
    bot: &BotConfig,
    endpoint: &BotWebhookConfig,
) -> Result<Option<DeliveryAttempt>, SenderSetupError> {
    let (sender, targets) = (DeliverySender::new(&config.webhooks)?, TargetTable::new(config)?);
    let Some(claimed) = test_event(bot, endpoint) else { return Ok(None) };
    Ok(Some(attempt(&sender, &targets, &claimed).await.attempt))
}
