//! Builds the frames that the bridge sends (protocol.md 6), with only those members that the official SDKs send.

use serde::Serialize;
use serde_json::value::RawValue;

use super::connect_context::{ConnectContext, custom_data};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<&'a RawValue>,
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

    /// Returns the same with custom data and tags.
    pub(super) const fn with_context(
        self,
        custom_data: Option<&'a RawValue>,
        meta_tags: Option<&'a RawValue>,
    ) -> Self {
        Self { custom_data, meta_tags, ..self }
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
            custom_data: None,
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
///
/// Its own custom data and tags replace those of the connection's context.
pub fn message(bot: &BotConfig, message: &AcceptedMessage, connect: &ConnectContext) -> String {
    let content = &message.new.content;
    let body = content.body();
    let mut frame = OutgoingFrame::new(bot, MESSAGE_RESOURCE, message.client_message_id);
    // The Web SDK puts custom data into botInfo, the mobile SDKs into the message, and the webhook channel at the top.
    // The author of a bot chooses one of these places (protocol.md 14), so the frame has all.
    let data = custom_data(bot, content.custom_data.as_ref().or(connect.custom_data.as_ref()));
    let data = data.as_deref();
    // All sources document tags in botInfo only. A second copy could be counted twice.
    let tags = content.meta_tags.as_ref().or(connect.meta_tags.as_ref());
    frame.bot_info = frame.bot_info.with_context(data, tags.map(JsonObject::raw));
    frame.custom_data = data;
    frame.meta = content.meta.as_ref().map(JsonObject::raw);
    frame.message = Some(OutgoingMessage {
        body: &body,
        render_msg: content.display_text.as_deref(),
        attachments: &content.attachments,
        custom_data: data,
    });
    let frame = frame.to_json();
    match &content.payload_members {
        None => frame,
        Some(members) => with_members(frame, members),
    }
}

/// Adds members to a frame that it lacks.
fn with_members(frame: String, members: &JsonObject) -> String {
    let own = RawValue::from_string(frame.clone()).ok().and_then(|own| JsonObject::new(own).ok());
    own.map_or(frame, |own| own.with_defaults(members).get().to_owned())
}

/// Returns the frame of a message that has only a text.
pub fn text_message(bot: &BotConfig, text: &str, id: u64) -> String {
    let mut frame = OutgoingFrame::new(bot, MESSAGE_RESOURCE, id);
    frame.message =
        Some(OutgoingMessage { body: text, render_msg: None, attachments: &[], custom_data: None });
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
    use std::collections::BTreeMap;

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

    fn message(bot: &BotConfig, accepted: &AcceptedMessage) -> String {
        super::message(bot, accepted, &ConnectContext::default())
    }

    fn file(id: &str, name: &str) -> Attachment {
        Attachment {
            file_id: id.into(),
            file_name: Some(name.into()),
            file_type: None,
            other_members: BTreeMap::new(),
        }
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

    fn object(text: &str) -> JsonObject {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn text_alone_is_framed_like_a_plain_message() {
        let accepted = accepted(MessageContent::new("Hi").unwrap());
        let frame = text_message(&bot(), "Hi", accepted.client_message_id);
        assert_eq!(parsed(&frame), parsed(&message(&bot(), &accepted)));
    }

    #[test]
    fn custom_data_goes_out_untouched() {
        let mut content = MessageContent::new("YES_1").unwrap();
        content.display_text = Some("Yes".into());
        let url = RawValue::from_string(r#""https://bots.example/f-1""#.to_owned()).unwrap();
        content.attachments =
            vec![Attachment { other_members: [("fileUrl".into(), url)].into(), ..file("f-1", "a.png") }];
        content.custom_data = Some(object(r#"{"amount": 1.50, "id": 12345678901234567890123}"#));
        content.meta_tags = Some(object(r#"{"userLevelTags":[{"name":"a","value":"b"}]}"#));
        content.meta = Some(object(r#"{"timezone":"Europe/Paris"}"#));
        let frame = message(&bot(), &accepted(content));
        let places = frame.matches(r#""customData":{"amount": 1.50, "id": 12345678901234567890123}"#).count();
        assert_eq!(places, 3, "{frame}");
        let frame = parsed(&frame);
        assert_eq!(frame["message"]["body"], "YES_1");
        assert_eq!(frame["message"]["renderMsg"], "Yes");
        let file = json!({ "fileId": "f-1", "fileName": "a.png", "fileUrl": "https://bots.example/f-1" });
        assert_eq!(frame["message"]["attachments"], json!([file]));
        assert!(frame["message"]["customData"].is_object() && frame["botInfo"]["customData"].is_object());
        assert!(frame["customData"].is_object());
        assert_eq!(frame["botInfo"]["metaTags"]["userLevelTags"][0]["name"], "a");
        assert_eq!(frame["message"].get("metaTags"), None);
        assert_eq!(frame["meta"], json!({ "timezone": "Europe/Paris" }));
    }

    #[test]
    fn frame_carries_the_context_unless_its_message_has_its_own() {
        let context = ConnectContext {
            custom_data: Some(object(r#"{"tier":"gold"}"#)),
            meta_tags: Some(object(r#"{"userLevelTags":[]}"#)),
            ..ConnectContext::default()
        };
        let bot = BotConfig { custom_data: Some(object(r#"{"from":"bridge","tier":"none"}"#)), ..bot() };
        let sent = |content| parsed(&super::message(&bot, &accepted(content), &context));
        let plain = sent(MessageContent::new("hi").unwrap());
        let both = json!({"from": "bridge", "tier": "gold"});
        for place in [&plain["customData"], &plain["botInfo"]["customData"], &plain["message"]["customData"]]
        {
            assert_eq!(*place, both);
        }
        assert_eq!(plain["botInfo"]["metaTags"], json!({"userLevelTags": []}));
        let mut own = MessageContent::new("hi").unwrap();
        (own.custom_data, own.meta_tags) = (Some(object(r#"{"page":7}"#)), Some(object("{}")));
        let own = sent(own);
        assert_eq!(own["customData"], json!({"from": "bridge", "tier": "none", "page": 7}));
        assert_eq!(own["botInfo"]["metaTags"], json!({}));
    }

    #[test]
    fn payload_members_are_at_the_top_and_replace_no_member() {
        let mut content = MessageContent::new("hi").unwrap();
        content.payload_members =
            Some(object(r#"{"client":"x","from":{"userInfo":{"email":"a@b"}},"n":1.50}"#));
        let frame = message(&bot(), &accepted(content));
        assert!(frame.contains(r#""n":1.50"#), "{frame}");
        let frame = parsed(&frame);
        assert_eq!((&frame["client"], &frame["message"]["body"]), (&json!("sdk"), &json!("hi")));
        assert_eq!(frame["from"]["userInfo"]["email"], "a@b");
    }

    #[test]
    fn message_of_files_alone_has_their_names_as_body() {
        let content = MessageContent::with_attachments("", vec![file("f-1", "a.png")]).unwrap();
        let frame = message(&bot(), &accepted(content));
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
