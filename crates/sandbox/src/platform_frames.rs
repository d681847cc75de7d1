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
    /// URL of the bot's picture.
    pub(super) icon: String,
    pub(super) now: Timestamp,
    /// Whether a dialog runs, if the platform tells the ends of tasks.
    pub(super) task_runs: Option<bool>,
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
    /// Part of a delivery ack, beside the timestamp.
    key: &'a str,
    icon: &'a str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_id: Option<&'a str>,
    #[serde(flatten)]
    task: Option<TaskEnd>,
}

/// Members about the end of a task (protocol.md 7.7).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskEnd {
    end_of_task: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_task_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_task_name: Option<&'static str>,
}

impl TaskEnd {
    fn of(runs: bool) -> Self {
        Self {
            end_of_task: !runs,
            end_reason: (!runs).then_some("Fulfilled"),
            completed_task_id: (!runs).then_some("dg-sandbox"),
            completed_task_name: (!runs).then_some("Sandbox dialog"),
        }
    }
}

/// Identity of a response.
#[derive(Debug, Clone)]
pub(super) struct ResponseId {
    /// `messageId`
    pub(super) message_id: String,
    /// `timestamp` in ms. It rises from response to response, so that delivery acks differ.
    pub(super) timestamp: i64,
    /// `key`
    pub(super) key: String,
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
    id: &ResponseId,
    message: &[Value],
    fields: Option<&Value>,
) -> String {
    let response = BotResponseFrame {
        r#type: &context.spelling.spell("bot_response"),
        from: "bot",
        message,
        message_id: &id.message_id,
        bot_info: ResponseBotInfo { chat_bot: context.chat_bot, task_bot_id: context.bot_id },
        created_on: clock::rfc3339(context.now),
        timestamp: id.timestamp,
        key: &id.key,
        icon: &context.icon,
        trace_id: context.trace,
        session_id: context.session,
        context_id: context.context,
        task: context.task_runs.map(TaskEnd::of),
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

    fn context(task_runs: Option<bool>) -> FrameContext<'static> {
        FrameContext {
            spelling: SpellingStyle::Documented,
            chat_bot: "Help",
            bot_id: "st-1",
            session: Some("5e"),
            trace: "766866d48cfcbdfe",
            context: None,
            icon: "http://sandbox/sandbox/bot.png".to_owned(),
            now: Timestamp::constant(1_512_722_909, 0),
            task_runs,
        }
    }

    fn id() -> ResponseId {
        ResponseId { message_id: "ms-1".to_owned(), timestamp: 7, key: "k".to_owned() }
    }

    fn built(task_runs: Option<bool>, message: &[Value], fields: Option<&Value>) -> Value {
        serde_json::from_str(&response(&context(task_runs), &id(), message, fields)).unwrap()
    }

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
        let frame = built(None, &[message_elements::text("Hi")], Some(&fields));
        assert_eq!(frame.get("messageId"), None);
        assert_eq!(frame["sM"], true);
        assert_eq!(frame["createdOn"], "2017-12-08T08:48:29.000Z");
        let plain = built(None, &[], None);
        assert_eq!((&plain["messageId"], &plain["key"]), (&json!("ms-1"), &json!("k")));
        assert_eq!(plain.get("contextId"), None);
        assert_eq!(plain.get("endOfTask"), None);
    }

    #[test]
    fn end_of_task_is_told_if_the_platform_does() {
        let running = built(Some(true), &[], None);
        assert_eq!((&running["endOfTask"], running.get("endReason")), (&json!(false), None));
        let ended = built(Some(false), &[], None);
        assert_eq!((&ended["endOfTask"], &ended["endReason"]), (&json!(true), &json!("Fulfilled")));
        assert!(ended["completedTaskId"].is_string() && ended["completedTaskName"].is_string());
    }
}
