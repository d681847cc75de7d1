//! Builds the frames that the bridge sends (protocol.md 6), with only those members that the official SDKs send.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::BotConfig;
use crate::domain::{AcceptedMessage, Attachment, JsonObject};

pub(super) const MESSAGE_RESOURCE: &str = "/bot.message";
const CLOSE_SESSION_RESOURCE: &str = "/bot.closeConversationSession";

/// The Web SDK's name for itself.
pub(super) const CLIENT_NAME: &str = "sdk";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutgoingFrame<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<u64>,
    id: u64,
    resourceid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<OutgoingMessage<'a>>,
    bot_info: BotInfo<'a>,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutgoingMessage<'a> {
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    render_msg: Option<&'a str>,
    attachments: &'a [Attachment],
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BotInfo<'a> {
    chat_bot: &'a str,
    task_bot_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_tags: Option<&'a RawValue>,
}

impl<'a> BotInfo<'a> {
    /// Returns the name and id of the bot, without custom data and tags.
    pub(super) fn of(bot: &'a BotConfig) -> Self {
        Self { chat_bot: &bot.chat_bot, task_bot_id: &bot.task_bot_id, custom_data: None, meta_tags: None }
    }
}

impl<'a> OutgoingFrame<'a> {
    fn new(bot: &'a BotConfig, resourceid: &'a str, id: u64) -> Self {
        Self {
            kind: None,
            client_message_id: Some(id),
            id,
            resourceid,
            message: None,
            bot_info: BotInfo::of(bot),
            client: CLIENT_NAME,
            meta: None,
        }
    }

    fn to_json(&self) -> String {
        // Writing JSON fails for keys that are no strings and for a failing `Serialize`. The structs above have
        // neither.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Returns the frame of a user's message (protocol.md 6.1). The platform acknowledges it by its `clientMessageId`.
pub fn message(bot: &BotConfig, message: &AcceptedMessage) -> String {
    let content = &message.new.content;
    let body = content.body();
    let mut frame = OutgoingFrame::new(bot, MESSAGE_RESOURCE, message.client_message_id);
    // The mobile SDKs put custom data into the message, the Web SDK puts it into botInfo. The author of a bot chooses
    // which of the two it reads, so the frame has both.
    let custom_data = content.custom_data.as_ref().map(JsonObject::raw);
    frame.bot_info.custom_data = custom_data;
    // All sources document tags in botInfo only. A second copy could be counted twice.
    frame.bot_info.meta_tags = content.meta_tags.as_ref().map(JsonObject::raw);
    frame.meta = content.meta.as_ref().map(JsonObject::raw);
    frame.message = Some(OutgoingMessage {
        body: &body,
        render_msg: content.display_text.as_deref(),
        attachments: &content.attachments,
        custom_data,
    });
    frame.to_json()
}

/// Returns the application's ping (protocol.md 5.4). Pings have a counter of their own, so that no id equals that of
/// a message.
pub fn ping(bot: &BotConfig, id: u64) -> String {
    let mut frame = OutgoingFrame::new(bot, MESSAGE_RESOURCE, id);
    frame.kind = Some("ping");
    frame.client_message_id = None;
    frame.to_json()
}

/// Returns the frame that ends the platform's session (protocol.md 6.2).
pub fn close_session(bot: &BotConfig, id: u64) -> String {
    OutgoingFrame::new(bot, CLOSE_SESSION_RESOURCE, id).to_json()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::fixtures::{accepted_message, conversation, new_message};
    use crate::domain::{MessageContent, NewMessage};

    fn bot() -> BotConfig {
        BotConfig { chat_bot: "Help \"Bot\"".into(), ..crate::rtm::tests::bot("https://bots.example") }
    }

    fn accepted(content: MessageContent) -> AcceptedMessage {
        let new = NewMessage { content, ..new_message(conversation("support", "alice"), "any") };
        AcceptedMessage { position: 1, client_message_id: 1_763_845_000_123, ..accepted_message(new) }
    }

    fn parsed(frame: &str) -> Value {
        serde_json::from_str(frame).unwrap()
    }

    #[test]
    fn plain_message_has_only_the_needed_members() {
        let frame = message(&bot(), &accepted(MessageContent::new("Hi \"there\"\n😀").unwrap()));
        let expected = json!({
            "clientMessageId": 1_763_845_000_123_u64,
            "id": 1_763_845_000_123_u64,
            "resourceid": "/bot.message",
            "message": { "body": "Hi \"there\"\n😀", "attachments": [] },
            "botInfo": { "chatBot": "Help \"Bot\"", "taskBotId": "st-0d3f" },
            "client": "sdk",
        });
        assert_eq!(parsed(&frame), expected);
    }

    #[test]
    fn custom_data_goes_out_untouched() {
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
    fn message_of_files_alone_has_their_names_as_body() {
        let file = Attachment { file_id: "f-1".into(), file_name: Some("a.png".into()), file_type: None };
        let frame = message(&bot(), &accepted(MessageContent::with_attachments("", vec![file]).unwrap()));
        assert_eq!(parsed(&frame)["message"]["body"], "a.png");
    }

    #[test]
    fn ping_has_no_client_message_id() {
        let expected = json!({
            "type": "ping",
            "id": 7,
            "resourceid": "/bot.message",
            "botInfo": { "chatBot": "Help \"Bot\"", "taskBotId": "st-0d3f" },
            "client": "sdk",
        });
        assert_eq!(parsed(&ping(&bot(), 7)), expected);
    }

    #[test]
    fn close_session_frame_has_no_message() {
        let frame = parsed(&close_session(&bot(), 8));
        assert_eq!(frame["resourceid"], "/bot.closeConversationSession");
        assert_eq!((&frame["id"], &frame["clientMessageId"]), (&json!(8), &json!(8)));
        assert_eq!((frame.get("message"), frame.get("type")), (None, None));
    }
}
