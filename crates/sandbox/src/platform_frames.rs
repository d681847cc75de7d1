//! The frames of the platform, written (protocol.md 7).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::behaviour::Spelling;
use super::clock;

/// What every frame of a user says about where it comes from.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) spelling: Spelling,
    pub(super) chat_bot: &'a str,
    pub(super) bot_id: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) trace: &'a str,
    pub(super) context: Option<&'a str>,
    pub(super) now: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BotInfo<'a> {
    chat_bot: &'a str,
    task_bot_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    r#type: &'a str,
    from: &'a str,
    message: &'a [Value],
    message_id: &'a str,
    bot_info: BotInfo<'a>,
    created_on: String,
    timestamp: i64,
    icon: &'a str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_id: Option<&'a str>,
}

/// `reply_to` is JSON: ids are echoed to the letter.
pub(super) fn ack(spelling: Spelling, reply_to: Option<&str>) -> String {
    let kind = Value::String(spelling.spell("ack"));
    match reply_to {
        Some(id) => format!(r#"{{"ok":true,"replyto":{id},"message":"delivered","type":{kind}}}"#),
        None => format!(r#"{{"ok":true,"type":{kind}}}"#),
    }
}

pub(super) fn pong(spelling: Spelling, reply_to: Option<&str>) -> String {
    let kind = Value::String(spelling.spell("pong"));
    match reply_to {
        Some(id) => format!(r#"{{"type":{kind},"replyto":{id},"ok":true}}"#),
        None => format!(r#"{{"type":{kind},"ok":true}}"#),
    }
}

/// A `bot_response`; `fields` go over the usual ones, `null` removes one.
pub(super) fn response(scene: &Scene<'_>, id: &str, message: &[Value], fields: Option<&Value>) -> String {
    let response = Response {
        r#type: &scene.spelling.spell("bot_response"),
        from: "bot",
        message,
        message_id: id,
        bot_info: BotInfo { chat_bot: scene.chat_bot, task_bot_id: scene.bot_id },
        created_on: clock::rfc3339(scene.now),
        timestamp: scene.now.as_millisecond(),
        icon: "https://example.com/bot.png",
        trace_id: scene.trace,
        session_id: scene.session,
        context_id: scene.context,
    };
    match fields {
        None => serde_json::to_string(&response).unwrap_or_default(),
        Some(fields) => with_fields(serde_json::to_value(&response).unwrap_or_default(), fields),
    }
}

/// Any other frame of the platform; `fields` go over the usual ones, `null` removes one.
pub(super) fn event(scene: &Scene<'_>, kind: &str, fields: &Value) -> String {
    let event = json!({
        "type": scene.spelling.spell(kind),
        "from": "bot",
        "botInfo": {
            "chatBot": scene.chat_bot, "taskBotId": scene.bot_id,
            "hostDomain": "sandbox", "os": "sandbox", "device": "server",
        },
        "sessionId": scene.session,
        "formMetaInfo": {"isSecured": true, "formLinkExpiry": 300, "submitExpiry": 600},
        "traceId": scene.trace,
    });
    with_fields(event, fields)
}

/// What another socket of the user said.
pub(super) fn user_message(scene: &Scene<'_>, id: &Value, message: &Value) -> String {
    json!({
        "type": scene.spelling.spell("user_message"),
        "from": "self",
        "id": id,
        "message": message,
        "botInfo": {"chatBot": scene.chat_bot, "taskBotId": scene.bot_id},
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

    const SCENE: Scene<'_> = Scene {
        spelling: Spelling::Documented,
        chat_bot: "Help",
        bot_id: "st-1",
        session: Some("5e"),
        trace: "766866d48cfcbdfe",
        context: None,
        now: Timestamp::constant(1_512_722_909, 0),
    };

    #[test]
    fn ids_are_echoed_to_the_letter() {
        assert_eq!(
            ack(Spelling::Documented, Some("1512722848096.50")),
            r#"{"ok":true,"replyto":1512722848096.50,"message":"delivered","type":"ack"}"#
        );
        assert_eq!(ack(Spelling::Slash, None), r#"{"ok":true,"type":"/ack"}"#);
    }

    #[test]
    fn fields_go_over_the_usual_ones() {
        let fields = json!({"messageId": null, "sM": true});
        let frame = response(&SCENE, "ms-1", &[message_elements::text("Hi")], Some(&fields));
        let frame: Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(frame.get("messageId"), None);
        assert_eq!(frame["sM"], true);
        assert_eq!(frame["createdOn"], "2017-12-08T08:48:29.000Z");
        let plain: Value = serde_json::from_str(&response(&SCENE, "ms-1", &[], None)).unwrap();
        assert_eq!(plain["messageId"], "ms-1");
        assert_eq!(plain.get("contextId"), None);
    }
}
