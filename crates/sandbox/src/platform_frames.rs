//! Builds the platform's frames (protocol.md 7).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::behaviour::SpellingStyle;
use super::clock;

/// Members that are common to the frames of one user.
#[derive(Debug)]
pub(super) struct FrameContext<'a> {
    pub(super) spelling: SpellingStyle,
    pub(super) chat_bot: &'a str,
    pub(super) bot_id: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) trace: &'a str,
    pub(super) context: Option<&'a str>,
    pub(super) now: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseBotInfo<'a> {
    chat_bot: &'a str,
    task_bot_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BotResponseFrame<'a> {
    r#type: &'a str,
    from: &'a str,
    message: &'a [Value],
    message_id: &'a str,
    bot_info: ResponseBotInfo<'a>,
    created_on: String,
    timestamp: i64,
    icon: &'a str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_id: Option<&'a str>,
}

/// Builds an ack. `reply_to` is JSON, so that ids return unchanged.
pub(super) fn ack(spelling: SpellingStyle, reply_to: Option<&str>) -> String {
    let kind = Value::String(spelling.spell("ack"));
    match reply_to {
        Some(id) => format!(r#"{{"ok":true,"replyto":{id},"message":"delivered","type":{kind}}}"#),
        None => format!(r#"{{"ok":true,"type":{kind}}}"#),
    }
}

pub(super) fn pong(spelling: SpellingStyle, reply_to: Option<&str>) -> String {
    let kind = Value::String(spelling.spell("pong"));
    match reply_to {
        Some(id) => format!(r#"{{"type":{kind},"replyto":{id},"ok":true}}"#),
        None => format!(r#"{{"type":{kind},"ok":true}}"#),
    }
}

/// Builds a `bot_response`. `fields` replace the usual ones; a `null` removes one.
pub(super) fn response(
    context: &FrameContext<'_>,
    id: &str,
    message: &[Value],
    fields: Option<&Value>,
) -> String {
    let response = BotResponseFrame {
        r#type: &context.spelling.spell("bot_response"),
        from: "bot",
        message,
        message_id: id,
        bot_info: ResponseBotInfo { chat_bot: context.chat_bot, task_bot_id: context.bot_id },
        created_on: clock::rfc3339(context.now),
        timestamp: context.now.as_millisecond(),
        icon: "https://example.com/bot.png",
        trace_id: context.trace,
        session_id: context.session,
        context_id: context.context,
    };
    match fields {
        None => serde_json::to_string(&response).unwrap_or_default(),
        Some(fields) => with_fields(serde_json::to_value(&response).unwrap_or_default(), fields),
    }
}

/// Builds any other frame. `fields` replace the usual ones; a `null` removes one.
pub(super) fn event(context: &FrameContext<'_>, kind: &str, fields: &Value) -> String {
    let event = json!({
        "type": context.spelling.spell(kind),
        "from": "bot",
        "botInfo": {
            "chatBot": context.chat_bot, "taskBotId": context.bot_id,
            "hostDomain": "sandbox", "os": "sandbox", "device": "server",
        },
        "sessionId": context.session,
        "formMetaInfo": {"isSecured": true, "formLinkExpiry": 300, "submitExpiry": 600},
        "traceId": context.trace,
    });
    with_fields(event, fields)
}

/// Builds the frame that shows a message of one socket to the user's other sockets.
pub(super) fn user_message(context: &FrameContext<'_>, id: &Value, message: &Value) -> String {
    json!({
        "type": context.spelling.spell("user_message"),
        "from": "self",
        "id": id,
        "message": message,
        "botInfo": {"chatBot": context.chat_bot, "taskBotId": context.bot_id},
    })
    .to_string()
}

fn with_fields(mut frame: Value, fields: &Value) -> String {
    if let (Some(frame), Some(fields)) = (frame.as_object_mut(), fields.as_object()) {
        overlay(frame, fields);
    }
    frame.to_string()
}

fn overlay(frame: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (name, value) in fields {
        if value.is_null() {
            frame.remove(name);
        } else {
            frame.insert(name.clone(), value.clone());
        }
    }
    frame.retain(|_, value| !value.is_null());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message_elements;

    const CONTEXT: FrameContext<'_> = FrameContext {
        spelling: SpellingStyle::Documented,
        chat_bot: "Help",
        bot_id: "st-1",
        session: Some("5e"),
        trace: "766866d48cfcbdfe",
        context: None,
        now: Timestamp::constant(1_512_722_909, 0),
    };

    #[test]
    fn ack_returns_the_id_unchanged() {
        assert_eq!(
            ack(SpellingStyle::Documented, Some("1512722848096.50")),
            r#"{"ok":true,"replyto":1512722848096.50,"message":"delivered","type":"ack"}"#
        );
        assert_eq!(ack(SpellingStyle::Slash, None), r#"{"ok":true,"type":"/ack"}"#);
    }

    #[test]
    fn given_fields_replace_the_usual_ones() {
        let fields = json!({"messageId": null, "sM": true});
        let frame = response(&CONTEXT, "ms-1", &[message_elements::text("Hi")], Some(&fields));
        let frame: Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(frame.get("messageId"), None);
        assert_eq!(frame["sM"], true);
        assert_eq!(frame["createdOn"], "2017-12-08T08:48:29.000Z");
        let plain: Value = serde_json::from_str(&response(&CONTEXT, "ms-1", &[], None)).unwrap();
        assert_eq!(plain["messageId"], "ms-1");
        assert_eq!(plain.get("contextId"), None);
    }
}
