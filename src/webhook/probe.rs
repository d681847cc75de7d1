//! Looks at one receiver for `rtm-bridge doctor`, with the guard and the sender of deliveries.

use std::net::IpAddr;

use serde_json::value::RawValue;

use super::attempt::{AttemptOutcome, attempt};
use super::sender::{DeliverySender, SenderSetupError};
use super::ssrf_guard::SsrfGuard;
use super::target_table::TargetTable;
use crate::config::{BotConfig, BotWebhookConfig, Config, WebhooksConfig};
use crate::domain::{ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin, NewDelivery, TraceId, UserId};
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
