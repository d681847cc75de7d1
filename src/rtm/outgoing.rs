//! The frames we send (protocol.md 6), written strictly: what the official SDKs send and nothing else.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::BotConfig;
use crate::domain::{AcceptedMessage, Attachment, JsonObject};

const MESSAGE: &str = "/bot.message";
const CLOSE_SESSION: &str = "/bot.closeConversationSession";

/// What the Web SDK calls itself.
const CLIENT: &str = "sdk";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<u64>,
    id: u64,
    resourceid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said<'a>>,
    bot_info: BotInfo<'a>,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Said<'a> {
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    render_msg: Option<&'a str>,
    attachments: &'a [Attachment],
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BotInfo<'a> {
    chat_bot: &'a str,
    task_bot_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_tags: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    fn new(bot: &'a BotConfig, resourceid: &'a str, id: u64) -> Self {
        Self {
            kind: None,
            client_message_id: Some(id),
            id,
            resourceid,
            message: None,
            bot_info: BotInfo {
                chat_bot: &bot.chat_bot,
                task_bot_id: &bot.task_bot_id,
                custom_data: None,
                meta_tags: None,
            },
            client: CLIENT,
            meta: None,
        }
    }

    fn write(&self) -> String {
        // Writing JSON fails for keys that are no strings and for `Serialize`s that fail by themselves; the
        // structs above hold neither.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a user says (protocol.md 6.1). The platform acknowledges it by its `clientMessageId`.
pub fn message(bot: &BotConfig, message: &AcceptedMessage) -> String {
    let content = &message.new.content;
    let mut frame = Frame::new(bot, MESSAGE, message.client_message_id);
    // The mobile SDKs put custom data into the message, the Web SDK into botInfo, and which of the two a bot
    // reads depends on who wrote it: so it stands in both places.
    let custom_data = content.custom_data.as_ref().map(JsonObject::raw);
    frame.bot_info.custom_data = custom_data;
    // All sources document tags in botInfo. Said twice they could be counted twice.
    frame.bot_info.meta_tags = content.meta_tags.as_ref().map(JsonObject::raw);
    frame.meta = content.meta.as_ref().map(JsonObject::raw);
    frame.message = Some(Said {
        body: content.text(),
        render_msg: content.display_text.as_deref(),
        attachments: &content.attachments,
        custom_data,
    });
    frame.write()
}

/// The application's ping (protocol.md 5.4). Its ids are a counter of their own, so that none can be taken
/// for a message's.
pub fn ping(bot: &BotConfig, id: u64) -> String {
    let mut frame = Frame::new(bot, MESSAGE, id);
    frame.kind = Some("ping");
    frame.client_message_id = None;
    frame.write()
}

/// Ends the platform's session (protocol.md 6.2).
pub fn close_session(bot: &BotConfig, id: u64) -> String {
    Frame::new(bot, CLOSE_SESSION, id).write()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::SecretString;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{ConnectionStyle, JwtAlgorithm};
    use crate::domain::{
        BotName, ConversationId, MessageContent, MessageId, NewMessage, ResendPolicy, SessionRequest,
        Timestamp, TurnRules, UserId,
    };

    fn bot() -> BotConfig {
        let zero = Duration::ZERO;
        BotConfig {
            name: BotName::new("support").unwrap(),
            platform: "https://platform.example".parse().unwrap(),
            api_path: "/api".into(),
            socket_base: None,
            ca: None,
            chat_bot: "Help \"Bot\"".into(),
            task_bot_id: "st-1".into(),
            client_id: "cs-1".into(),
            client_secret: SecretString::from("secret"),
            algorithm: JwtAlgorithm::Hs256,
            secure_rtm: false,
            connection_mode: ConnectionStyle::ConnectionMode,
            anonymous: false,
            history: true,
            quiet: zero,
            deadline: zero,
            welcome: zero,
            late_window: zero,
            history_settle: zero,
            stuck_after: None,
            session_timeout: zero,
            ping_interval: zero,
            idle_ttl: None,
            max_open_messages: 1,
            user_rate_per_minute: 0,
            connects_per_minute: 0,
            max_frame_bytes: 0,
            max_message_bytes: 0,
            webhook: None,
        }
    }

    fn accepted(content: MessageContent) -> AcceptedMessage {
        let conversation =
            ConversationId::new(BotName::new("support").unwrap(), UserId::new("alice").unwrap());
        AcceptedMessage {
            id: MessageId::new(Timestamp::from_millis(1), 1),
            position: 1,
            client_message_id: 1_763_845_000_123,
            accepted_at: Timestamp::from_millis(1),
            new: NewMessage {
                conversation,
                content,
                session: SessionRequest::Continue,
                rules: TurnRules::default(),
                resend: ResendPolicy::Never,
                callback: None,
                trace: crate::domain::TraceId::default(),
            },
        }
    }

    fn parsed(frame: &str) -> Value {
        serde_json::from_str(frame).unwrap()
    }

    #[test]
    fn a_plain_message_has_what_the_platform_needs_and_no_more() {
        let frame = message(&bot(), &accepted(MessageContent::new("Hi \"there\"\n😀").unwrap()));
        let expected = json!({
            "clientMessageId": 1_763_845_000_123_u64,
            "id": 1_763_845_000_123_u64,
            "resourceid": "/bot.message",
            "message": { "body": "Hi \"there\"\n😀", "attachments": [] },
            "botInfo": { "chatBot": "Help \"Bot\"", "taskBotId": "st-1" },
            "client": "sdk",
        });
        assert_eq!(parsed(&frame), expected);
    }

    #[test]
    fn what_is_the_bots_goes_through_untouched() {
        let object = |text: &str| serde_json::from_str::<JsonObject>(text).unwrap();
        let mut content = MessageContent::new("YES_1").unwrap();
        content.display_text = Some("Yes".into());
        content.attachments =
            vec![Attachment { file_id: "f-1".into(), file_name: Some("a.png".into()), file_type: None }];
        content.custom_data = Some(object(r#"{"amount": 1.50, "id": 12345678901234567890123}"#));
        content.meta_tags = Some(object(r#"{"userLevelTags":[{"name":"a","value":"b"}]}"#));
        content.meta = Some(object(r#"{"timezone":"Europe/Paris"}"#));
        let frame = message(&bot(), &accepted(content));
        let both = frame.matches(r#""customData":{"amount": 1.50, "id": 12345678901234567890123}"#).count();
        assert_eq!(both, 2, "{frame}");
        let frame = parsed(&frame);
        assert_eq!(frame["message"]["body"], "YES_1");
        assert_eq!(frame["message"]["renderMsg"], "Yes");
        assert_eq!(frame["message"]["attachments"], json!([{ "fileId": "f-1", "fileName": "a.png" }]));
        assert!(frame["message"]["customData"].is_object() && frame["botInfo"]["customData"].is_object());
        assert_eq!(frame["botInfo"]["metaTags"]["userLevelTags"][0]["name"], "a");
        assert_eq!(frame["message"].get("metaTags"), None);
        assert_eq!(frame["meta"], json!({ "timezone": "Europe/Paris" }));
    }

    #[test]
    fn a_ping_cannot_be_taken_for_a_message() {
        let expected = json!({
            "type": "ping",
            "id": 7,
            "resourceid": "/bot.message",
            "botInfo": { "chatBot": "Help \"Bot\"", "taskBotId": "st-1" },
            "client": "sdk",
        });
        assert_eq!(parsed(&ping(&bot(), 7)), expected);
    }

    #[test]
    fn closing_a_session_carries_no_message() {
        let frame = parsed(&close_session(&bot(), 8));
        assert_eq!(frame["resourceid"], "/bot.closeConversationSession");
        assert_eq!((&frame["id"], &frame["clientMessageId"]), (&json!(8), &json!(8)));
        assert_eq!((frame.get("message"), frame.get("type")), (None, None));
    }
}
