//! Builds the frames of signals and receipts (protocol.md 6.2, 6.3), with the members that the official SDKs send.

use serde::Serialize;

use super::outgoing::{BotInfo, CLIENT_NAME, MESSAGE_RESOURCE};
use crate::config::BotConfig;
use crate::domain::lenient_json::{members, string_or_number, whole_number};
use crate::domain::{SignalKind, UserSignal};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignalFrame<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<u64>,
    id: u64,
    resourceid: &'a str,
    event: &'a str,
    message: EmptyMessage,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(rename = "agent_MessageId", skip_serializing_if = "Option::is_none")]
    agent_message_id: Option<&'a str>,
    bot_info: BotInfo<'a>,
    client: &'a str,
}

#[derive(Serialize)]
struct EmptyMessage {
    body: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// A signal with what its frame needs beside it.
#[derive(Clone, Debug)]
pub struct OutgoingSignal {
    /// The signal.
    pub signal: UserSignal,
    /// Stands for a `clientMessageId` where the SDKs have one, and equals that of no open message.
    pub number: u64,
    /// The desk's own id of the agent's message that a receipt names.
    pub agent_message_id: Option<Box<str>>,
}

/// Returns the frame of a signal. `id` comes from the counter of pings.
pub fn signal(bot: &BotConfig, outgoing: &OutgoingSignal, id: u64) -> String {
    let OutgoingSignal { signal, number, agent_message_id } = outgoing;
    let (event, client_message_id) = match signal.kind {
        SignalKind::Typing => ("typing", None),
        SignalKind::StopTyping => ("stop_typing", None),
        SignalKind::Delivered => ("message_delivered", None),
        SignalKind::Read => ("message_read", None),
        SignalKind::CloseAgentChat => ("close_agent_chat", Some(*number)),
    };
    let is_receipt = matches!(signal.kind, SignalKind::Delivered | SignalKind::Read);
    to_json(&SignalFrame {
        client_message_id,
        id: client_message_id.unwrap_or(id),
        resourceid: MESSAGE_RESOURCE,
        event,
        message: EmptyMessage { body: "", kind: "" },
        message_id: signal.message_id.as_deref().filter(|_| is_receipt),
        agent_message_id: agent_message_id.as_deref().filter(|_| is_receipt),
        bot_info: BotInfo::of(bot),
        client: CLIENT_NAME,
    })
}

/// Returns the desk's own id of a human agent's message, if the frame of the message has one.
pub fn agent_message_id(frame: &str) -> Option<Box<str>> {
    let [id] = members(frame, ["agent_MessageId"])?;
    string_or_number(id?).filter(|id| !id.is_empty()).map(Into::into)
}

/// The marks of a response by which its delivery is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryMarks {
    /// Some responses have none (protocol.md 7.2). The acknowledgement then has the key alone.
    timestamp: Option<u64>,
    key: Box<str>,
}

impl DeliveryMarks {
    /// Returns the marks of a response; `None` if it has no key.
    pub fn of_frame(frame: &str) -> Option<Self> {
        let [timestamp, key] = members(frame, ["timestamp", "key"])?;
        let key = string_or_number(key?).filter(|key| !key.is_empty())?;
        Some(Self { timestamp: timestamp.and_then(whole_number), key: key.into() })
    }
}

/// Returns the frame that acknowledges the delivery of a response. It names neither the bot nor the client.
pub fn delivery_ack(marks: &DeliveryMarks) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct AckFrame<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        client_message_id: Option<u64>,
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        replyto: Option<u64>,
        status: &'a str,
        key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    }
    let DeliveryMarks { timestamp, key } = marks;
    to_json(&AckFrame {
        client_message_id: *timestamp,
        kind: "ack",
        replyto: *timestamp,
        status: "delivered",
        key,
        id: *timestamp,
    })
}

fn to_json(frame: &impl Serialize) -> String {
    // Writing JSON fails for keys that are no strings and for a failing `Serialize`. The structs above have neither.
    serde_json::to_string(frame).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(frame: &str) -> Value {
        serde_json::from_str(frame).unwrap()
    }

    #[test]
    fn signal_has_the_members_of_the_sdks() {
        let bot = crate::rtm::tests::bot("https://bots.example");
        let frame = |kind, message_id: Option<&str>| {
            let of = OutgoingSignal {
                signal: UserSignal { kind, message_id: message_id.map(Into::into) },
                number: 1_763_845_000_123,
                agent_message_id: message_id.filter(|id| *id == "ms-agent").map(|_| "a-1".into()),
            };
            let mut frame = parsed(&signal(&bot, &of, 7));
            let common = frame.as_object_mut().unwrap();
            assert_eq!(common.remove("resourceid"), Some(json!("/bot.message")));
            assert_eq!(common.remove("message"), Some(json!({"body": "", "type": ""})));
            assert_eq!(common.remove("client"), Some(json!("sdk")));
            assert_eq!(common.remove("botInfo").unwrap()["taskBotId"], "st-0d3f");
            frame
        };
        for (kind, event) in
            [(SignalKind::Delivered, "message_delivered"), (SignalKind::Read, "message_read")]
        {
            let ids = json!({"event": event, "messageId": "ms-agent", "agent_MessageId": "a-1", "id": 7});
            assert_eq!(frame(kind, Some("ms-agent")), ids);
        }
        assert_eq!(frame(SignalKind::Typing, Some("ms-agent")), json!({"event": "typing", "id": 7}));
        assert_eq!(frame(SignalKind::StopTyping, None), json!({"event": "stop_typing", "id": 7}));
        assert_eq!(
            frame(SignalKind::Delivered, Some("ms-1")),
            json!({"event": "message_delivered", "messageId": "ms-1", "id": 7})
        );
        assert_eq!(
            frame(SignalKind::Read, Some("ms-1")),
            json!({"event": "message_read", "messageId": "ms-1", "id": 7})
        );
        assert_eq!(frame(SignalKind::Read, None), json!({"event": "message_read", "id": 7}));
        let number = 1_763_845_000_123_u64;
        assert_eq!(
            frame(SignalKind::CloseAgentChat, None),
            json!({"event": "close_agent_chat", "id": number, "clientMessageId": number})
        );
    }

    #[test]
    fn id_of_a_desk_is_read_from_its_message() {
        assert_eq!(agent_message_id(r#"{"agent_MessageId":"a-1"}"#).as_deref(), Some("a-1"));
        assert_eq!(agent_message_id(r#"{"agent_MessageId":17}"#).as_deref(), Some("17"));
        for none in [
            "{}",
            r#"{"agent_MessageId":""}"#,
            r#"{"agent_MessageId":null}"#,
            r#"{"agent_MessageId":{}}"#,
            "[]",
        ] {
            assert_eq!(agent_message_id(none), None, "{none}");
        }
    }

    #[test]
    fn delivery_is_acknowledged_by_timestamp_and_key() {
        let marks = DeliveryMarks::of_frame(r#"{"timestamp":1512722848096,"key":"k-\"1\"","x":1}"#).unwrap();
        let number = 1_512_722_848_096_u64;
        assert_eq!(
            parsed(&delivery_ack(&marks)),
            json!({"clientMessageId": number, "type": "ack", "replyto": number, "status": "delivered",
                   "key": "k-\"1\"", "id": number})
        );
        for keyed in [r#"{"key":"k"}"#, r#"{"timestamp":"soon","key":"k"}"#] {
            let ack = delivery_ack(&DeliveryMarks::of_frame(keyed).unwrap());
            assert_eq!(parsed(&ack), json!({"type": "ack", "status": "delivered", "key": "k"}), "{keyed}");
        }
        for bad in ["{}", r#"{"timestamp":1}"#, r#"{"key":""}"#, r#"{"key":{}}"#, "[]"] {
            assert_eq!(DeliveryMarks::of_frame(bad), None, "{bad}");
        }
    }
}
