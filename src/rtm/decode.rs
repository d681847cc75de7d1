//! Decodes one frame of the platform into an [`IncomingFrame`].
//!
//! Decoding never fails. The set of frame types is open and their fields are barely documented. A field of the wrong
//! type must not cost the caller the reply around it. So each field is read by itself ([`crate::domain::lenient_json`]), and
//! an unknown frame is handed on untouched.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::correlation_id::correlation_id;
use super::incoming::{BotResponse, IncomingFrame, StreamInfo};
use crate::domain::Timestamp;
use crate::domain::lenient_json::{
    JsonMember, boolean, is_true, limit_depth, members, string, string_or_number, whole_number,
};
use crate::reply_content::{self, ReplyContent};

/// Meaning of a frame's `type`.
#[derive(Clone, Copy)]
enum FrameType {
    Response,
    Ack,
    Pong,
    Waiting,
    Active,
    SessionStart,
    SessionEnd,
    AgentStart,
    AgentEnd,
    UserMessage,
    Events,
    Platform,
}

/// Every type that a source names (protocol.md 7.1), the frequent ones first.
const FRAME_TYPES: [(&str, FrameType); 22] = [
    ("bot_response", FrameType::Response),
    ("ack", FrameType::Ack),
    ("pong", FrameType::Pong),
    ("waiting_for_user_input", FrameType::Waiting),
    ("bot_active", FrameType::Active),
    ("session_start", FrameType::SessionStart),
    ("session_end", FrameType::SessionEnd),
    ("agent_session_start", FrameType::AgentStart),
    ("agent_session_end", FrameType::AgentEnd),
    ("user_message", FrameType::UserMessage),
    ("events", FrameType::Events),
    ("botKitUnreachable", FrameType::Platform),
    ("form_delivered", FrameType::Platform),
    ("form_submitted", FrameType::Platform),
    ("form_failure", FrameType::Platform),
    ("initial_language", FrameType::Platform),
    ("language_switched", FrameType::Platform),
    ("sbc_details_response", FrameType::Platform),
    ("appInvalidNotification", FrameType::Platform),
    // SDKs have branches for these three, inherited from another product. No recording of Kore.ai has them.
    ("hello", FrameType::Platform),
    ("ready", FrameType::Platform),
    ("ok", FrameType::Platform),
];

impl FrameType {
    /// Returns the meaning of a type, in any case. Case differs between the documents and the wire (protocol.md 7.1).
    fn of(name: &str) -> Option<Self> {
        FRAME_TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, kind)| kind)
    }
}

/// Decodes one frame, text or binary. Never fails.
///
/// A frame is [`IncomingFrame::Malformed`] in one of these cases:
///
/// - It is not UTF-8 or not one JSON object.
/// - It has no `type` that is a text.
pub fn decode_frame(frame: &[u8]) -> IncomingFrame {
    std::str::from_utf8(frame).ok().and_then(decode_text).unwrap_or(IncomingFrame::Malformed)
}

fn decode_text(frame: &str) -> Option<IncomingFrame> {
    let [kind, session_id] = members(frame, ["type", "sessionId"])?;
    if let Cow::Owned(limited) = limit_depth(frame) {
        return decode_text(&limited);
    }
    let kind = string(kind?)?;
    let name = type_name(&kind);
    if name.is_empty() {
        return None;
    }
    let Some(kind) = FrameType::of(name) else { return raw(frame).map(IncomingFrame::Unknown) };
    match kind {
        FrameType::Response => response(frame),
        FrameType::Ack => ack(frame),
        FrameType::Pong => Some(IncomingFrame::Pong),
        FrameType::Waiting => Some(IncomingFrame::WaitingForInput),
        FrameType::Active => active(frame, session_id),
        FrameType::SessionStart => {
            Some(IncomingFrame::SessionStart { session_id: id(session_id), event: raw(frame)? })
        }
        FrameType::SessionEnd => raw(frame).map(IncomingFrame::SessionEnd),
        FrameType::AgentStart => raw(frame).map(IncomingFrame::AgentStart),
        FrameType::AgentEnd => raw(frame).map(IncomingFrame::AgentEnd),
        FrameType::Events => events(frame),
        FrameType::UserMessage => raw(frame).map(IncomingFrame::UserMessage),
        FrameType::Platform => raw(frame).map(IncomingFrame::Platform),
    }
}

/// Decodes an ack. An ack without a number answers a frame without an id (protocol.md 6.2), or an older platform sent
/// it. An ack with `ok: false` or with an id of another form acknowledges no message of ours.
fn ack(frame: &str) -> Option<IncomingFrame> {
    let [ok, names @ ..] = members(frame, ["ok", "replyto", "reply_to", "replyTo"])?;
    let reply_to = names.into_iter().flatten().find_map(whole_number);
    let names_another = reply_to.is_none() && names.iter().any(Option::is_some);
    if names_another || ok.and_then(boolean) == Some(false) {
        return raw(frame).map(IncomingFrame::Platform);
    }
    Some(IncomingFrame::Ack { reply_to })
}

/// Returns the name in a `type`, without blanks and the slash of some documents (protocol.md 7.1).
fn type_name(kind: &str) -> &str {
    let name = kind.trim();
    name.strip_prefix('/').unwrap_or(name)
}

/// Decodes an event around a human agent. Some platforms send these in place of `agent_session_start` and
/// `agent_session_end`, and desks of other vendors have names of their own (protocol.md 7.1, 7.7, 7.11).
fn events(frame: &str) -> Option<IncomingFrame> {
    let [message] = members(frame, ["message"])?;
    let kind = message.and_then(|message| members(message.get(), ["type"])).and_then(|[kind]| string(kind?));
    let is_one_of = |names: &[&str]| {
        let name = kind.as_deref().map(type_name);
        name.is_some_and(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    };
    let event = raw(frame)?;
    Some(if is_one_of(&["typing", "stoptyping", "stop_typing"]) {
        IncomingFrame::Typing(event)
    } else if is_one_of(&["agent_connected", "agent_session_active", "agent_session_start"]) {
        IncomingFrame::AgentStart(event)
    } else if is_one_of(&["agent_disconnected", "agent_session_inactive", "agent_session_end"]) {
        IncomingFrame::AgentEnd(event)
    } else {
        IncomingFrame::Platform(event)
    })
}

fn active(frame: &str, session_id: JsonMember<'_>) -> Option<IncomingFrame> {
    let [recent] = members(frame, ["recentSessionInfo"])?;
    let recent = recent.and_then(|recent| members(recent.get(), ["isActive", "sessionId"]));
    let [is_active, recent_id] = recent.unwrap_or_default();
    let session_continues = is_true(is_active);
    let recent_id = recent_id.filter(|_| session_continues);
    Some(IncomingFrame::Active { session_id: id(session_id.or(recent_id)), session_continues })
}

fn response(frame: &str) -> Option<IncomingFrame> {
    let names = [
        "message",
        "messageId",
        "createdOn",
        "sessionId",
        "fromAgent",
        "author",
        "sM",
        "endChunk",
        "completeResponse",
        "agent_MessageId",
        "enableLiveChatMetaData",
        "timestamp",
    ];
    let [message, message_id, created_on, session_id, from_agent, author, streamed, end, complete, rest @ ..] =
        members(frame, names)?;
    let [agent_message_id, live_chat, timestamp] = rest;
    let last = is_true(end);
    let (content, stream) = if last || is_true(streamed) {
        let (content, complete) = streamed_content(message, last.then_some(complete).flatten(), last);
        (content, Some(StreamInfo { last, complete: complete.map(String::into_boxed_str) }))
    } else {
        (message.map(reply_content::of_message).unwrap_or_default(), None)
    };
    let is_agent_line = message.is_some_and(reply_content::is_agent_line);
    let more_follows = message.is_some_and(reply_content::announces_more);
    // SDKs show no line of an agent without a text, and an announcement alone says nothing.
    let has_content = || !is_agent_line && !more_follows && message.is_some_and(reply_content::has_content);
    let complete = stream.as_ref().and_then(|stream| stream.complete.as_deref()).unwrap_or_default();
    let is_blank = content.text.trim().is_empty() && complete.trim().is_empty() && !has_content();
    let is_marked = is_true(from_agent)
        || id(agent_message_id).is_some()
        || live_chat.is_some_and(|raw| boolean(raw) != Some(false))
        || author.is_some_and(is_agent);
    Some(IncomingFrame::Response(Box::new(BotResponse {
        message_id: id(message_id),
        text: content.text.into_boxed_str(),
        choices: content.choices.into(),
        media: content.media.into(),
        is_blank,
        agent: is_agent_line || is_marked,
        created_on: time(created_on).or_else(|| time(timestamp)),
        stream,
        more_follows,
        session_id: id(session_id),
        correlation_id: correlation_id(frame),
        event: raw(frame)?,
    })))
}

/// Returns the piece of a streamed frame, and the whole text if the last frame has it. A stream that ends in a
/// template ends in its whole answer, not in another piece (protocol.md 7.4).
fn streamed_content(
    message: JsonMember<'_>,
    complete: JsonMember<'_>,
    last: bool,
) -> (ReplyContent, Option<String>) {
    let complete = complete.and_then(reply_content::of_complete);
    let Some(message) = message else { return (ReplyContent::default(), complete) };
    if !reply_content::is_template(message) {
        let has_files = message.get().contains("\"attachments\"");
        let files = if has_files { reply_content::of_message(message) } else { ReplyContent::default() };
        return (ReplyContent { text: reply_content::of_piece(message), ..files }, complete);
    }
    let mut content = reply_content::of_message(message);
    if !last {
        return (content, None);
    }
    let text = std::mem::take(&mut content.text);
    (content, complete.or_else(|| Some(text).filter(|text| !text.is_empty())))
}

/// Returns the frame without the blanks around it.
fn raw(frame: &str) -> Option<Box<RawValue>> {
    serde_json::from_str::<&RawValue>(frame).ok().map(ToOwned::to_owned)
}

/// Returns an id as text. The platform's ids are strings; a number counts as written.
pub(super) fn id(member: JsonMember<'_>) -> Option<Box<str>> {
    member.and_then(string_or_number).map(Cow::into_owned).map(String::into_boxed_str)
}

/// Returns an ISO time, or the time in seconds or milliseconds that a number or its digits name. Returns `None` for
/// any other value.
pub(super) fn time(member: JsonMember<'_>) -> Option<Timestamp> {
    let text = string_or_number(member?)?;
    let text = text.trim();
    Timestamp::parse(text).or_else(|| since_epoch(text.parse().ok()?))
}

/// Returns the time that is so many seconds or milliseconds after the Unix epoch. The size tells the unit.
fn since_epoch(number: f64) -> Option<Timestamp> {
    const SECONDS: std::ops::Range<f64> = 1e8..1e11;
    /// Ends before the year 10 000.
    const MILLISECONDS: std::ops::Range<f64> = 1e11..2.53e14;
    let millis = if SECONDS.contains(&number) { number * 1000.0 } else { number };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the range of milliseconds, and a fraction does not count"
    )]
    let at = || Timestamp::from_millis(millis as u64);
    MILLISECONDS.contains(&millis).then(at)
}

/// Returns whether an `author` is a human agent.
pub(super) fn is_agent(author: &RawValue) -> bool {
    members(author.get(), ["type"])
        .and_then(|[kind]| string(kind?))
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("agent"))
}
#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &str) -> IncomingFrame {
        decode_frame(frame.as_bytes())
    }

    fn response(rest: &str) -> BotResponse {
        match read(&format!(r#"{{"type":"bot_response",{rest}}}"#)) {
            IncomingFrame::Response(response) => *response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_type_in_any_case_and_with_slash_is_decoded() {
        for (name, _) in FRAME_TYPES {
            let kind = read(&format!(r#"{{"type":"{name}"}}"#)).kind();
            assert_ne!(kind, "unknown", "{name}");
            assert_ne!(kind, "malformed", "{name}");
            for variant in [name.to_uppercase(), format!("/{name}"), format!(" /{} ", name.to_lowercase())] {
                assert_eq!(read(&format!(r#"{{"type":"{variant}"}}"#)).kind(), kind, "{variant}");
            }
        }
    }

    #[test]
    fn frame_without_usable_type_is_malformed() {
        let frames = [
            "",
            "null",
            "[]",
            "\"ack\"",
            "{}",
            r#"{"type":null}"#,
            r#"{"type":5}"#,
            r#"{"type":""}"#,
            r#"{"type":" / "}"#,
            r#"{"type":"ack""#,
            r#"{"type":"ack"}{"type":"ack"}"#,
        ];
        for frame in frames {
            assert_eq!(read(frame).kind(), "malformed", "{frame}");
        }
        assert_eq!(decode_frame(b"{\"type\":\"ack\",\"x\":\"\xff\"}").kind(), "malformed");
    }

    #[test]
    fn deep_frame_keeps_its_text_and_uses_no_stack() {
        for depth in [119, 120, 128, 500_000] {
            let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let response = response(&format!(r#""message":[{{"cInfo":{{"body":"Hi"}}}}],"x":{deep}"#));
            assert_eq!(&*response.text, "Hi", "{depth}");
            assert_eq!(response.event.get().contains(&deep), depth < 120, "{depth}");
            assert!(serde_json::from_str::<serde_json::Value>(response.event.get()).is_ok(), "{depth}");
        }
    }

    #[test]
    fn ack_with_any_number_form_names_the_message() {
        for key in ["replyto", "reply_to", "replyTo"] {
            for id in ["1512722848096", "1512722848096.0", "\"1512722848096\""] {
                let ack = read(&format!(r#"{{"ok":true,"{key}":{id},"message":"delivered","type":"ack"}}"#));
                assert!(matches!(ack, IncomingFrame::Ack { reply_to: Some(1_512_722_848_096) }), "{ack:?}");
            }
        }
        for nameless in [r#"{"ok":true,"type":"ack"}"#, r#"{"type":"ack","replyto":null}"#] {
            assert!(matches!(read(nameless), IncomingFrame::Ack { reply_to: None }), "{nameless}");
        }
    }

    #[test]
    fn ack_of_no_message_of_ours_is_a_platform_event() {
        for other in
            [r#""ok":false,"replyto":7"#, r#""ok":"false""#, r#""replyto":"an-uuid""#, r#""replyto":{}"#]
        {
            assert_eq!(read(&format!(r#"{{"type":"ack",{other}}}"#)).kind(), "platform", "{other}");
        }
    }

    #[test]
    fn bot_active_reports_whether_the_session_continues() {
        let active = |rest: &str| match read(&format!(r#"{{"type":"Bot_Active"{rest}}}"#)) {
            IncomingFrame::Active { session_id, session_continues } => (session_id, session_continues),
            other => panic!("{other:?}"),
        };
        assert_eq!(active(""), (None, false));
        assert_eq!(active(r#","sessionId":"s1","recentSessionInfo":5"#), (Some("s1".into()), false));
        let recent =
            |is_active| format!(r#","recentSessionInfo":{{"isActive":{is_active},"sessionId":"s2"}}"#);
        assert_eq!(active(&recent("true")), (Some("s2".into()), true));
        assert_eq!(active(&recent("false")), (None, false));
        assert_eq!(active(&recent("7")), (None, false));
    }

    #[test]
    fn field_of_wrong_type_counts_as_absent() {
        for odd in
            ["null", "5", "true", "[]", "{}", "\"\"", "[[{}]]", "{\"type\":{}}", "1e999", "\"\\ud83d\""]
        {
            let names = ["messageId", "createdOn", "sessionId", "fromAgent", "author", "icon", "traceId"];
            let odd: Vec<_> = names.iter().map(|name| format!(r#""{name}":{odd}"#)).collect();
            let response = response(&format!(r#"{},"message":[{{"cInfo":{{"body":"Hi"}}}}]"#, odd.join(",")));
            assert_eq!(&*response.text, "Hi");
            assert_eq!(response.created_on, None);
        }
        for message in ["null", "5", "[]", "{}", "[null]", "[5,{}]"] {
            let response = response(&format!(r#""message":{message},"messageId":"ms-1""#));
            assert_eq!(response.message_id.as_deref(), Some("ms-1"));
            assert_eq!(&*response.text, "", "{message}");
        }
        assert_eq!(response(r#""messageId":17"#).message_id.as_deref(), Some("17"));
    }

    #[test]
    fn doubled_key_keeps_its_last_value() {
        let response = response(r#""messageId":"ms-1","messageId":"ms-2","message":1,"message":"Hi""#);
        assert_eq!((response.message_id.as_deref(), &*response.text), (Some("ms-2"), "Hi"));
    }

    #[test]
    fn event_is_the_frame_without_outer_blanks() {
        let frame = r#"{ "type" : "bot_response", "n": 1.50, "n": 12345678901234567890 }"#;
        let IncomingFrame::Response(response) = read(&format!("\n {frame}\t")) else { panic!() };
        assert_eq!(response.event.get(), frame);
        assert_eq!(response.message_id, None);
    }

    #[test]
    fn response_of_an_agent_is_marked() {
        for agent in [r#""fromAgent":true"#, r#""author":{"type":"AGENT"}"#, r#""author":{"type":"Agent"}"#] {
            assert!(response(agent).agent, "{agent}");
        }
        for bot in [r#""fromAgent":false"#, r#""author":{"type":"USER"}"#, r#""author":"AGENT""#, r#""x":1"#]
        {
            assert!(!response(bot).agent, "{bot}");
        }
    }

    #[test]
    fn desk_events_begin_and_end_the_agent() {
        let event = |name: &str| {
            let frame = format!(r#"{{"type":"events","from":"bot","message":{{"type":"{name}"}}}}"#);
            read(&frame).kind()
        };
        for name in
            ["agent_connected", "agent_session_active", "Agent_Session_Active", " /agent_session_start "]
        {
            assert_eq!(event(name), "agent_session_start", "{name}");
        }
        for name in
            ["agent_disconnected", "agent_session_inactive", "AGENT_SESSION_INACTIVE", "agent_session_end"]
        {
            assert_eq!(event(name), "agent_session_end", "{name}");
        }
        for name in ["agent_session", "message_read", "inactive"] {
            assert_eq!(event(name), "platform", "{name}");
        }
    }

    #[test]
    fn live_chat_marks_tell_an_agent() {
        let template = r#"{"type":"template","payload":{"template_type":"live_agent","text":"Hi"}}"#;
        let quoted = serde_json::to_string(template).unwrap();
        for agent in [
            r#""agent_MessageId":"a-1""#.to_owned(),
            r#""enableLiveChatMetaData":true"#.to_owned(),
            r#""enableLiveChatMetaData":{"a":1}"#.to_owned(),
            format!(r#""message":[{{"component":{{"payload":{template}}}}}]"#),
            format!(r#""message":[{{"component":{{"payload":{quoted}}}}}]"#),
            format!(r#""message":[{{"cInfo":{{"body":{quoted}}}}}]"#),
        ] {
            assert!(response(&agent).agent, "{agent}");
        }
        let other = template.replace("live_agent", "button");
        for bot in [
            r#""agent_MessageId":"""#.to_owned(),
            r#""enableLiveChatMetaData":false"#.to_owned(),
            r#""message":[{"cInfo":{"body":"live_agent"}}]"#.to_owned(),
            format!(r#""message":[{{"component":{{"payload":{other}}}}}]"#),
        ] {
            assert!(!response(&bot).agent, "{bot}");
        }
    }

    #[test]
    fn response_without_content_is_blank() {
        for blank in [
            "null",
            "[]",
            "{}",
            "[{}]",
            "[null]",
            "[[]]",
            "\"\"",
            "\" \\n\"",
            r#"[{"type":"text","component":{"type":"text","payload":{"text":""}},"cInfo":{"body":" "}}]"#,
            r#"[{"_id":"x","type":"text","cInfo":{"body":"","attachments":[]}}]"#,
            r#"[{"component":{"payload":{"payload":{"template_type":"live_agent","text":" "}}}}]"#,
            r#"[{"component":{"payload":{"payload":{"template_type":"wait_for_response"}}}}]"#,
        ] {
            assert!(response(&format!(r#""message":{blank}"#)).is_blank, "{blank}");
        }
        assert!(response(r#""x":1"#).is_blank);
        for said in [
            "\"Hi\"",
            "[\"Hi\"]",
            r#"[{"cInfo":{"body":"Hi"}}]"#,
            r#"[{"cInfo":{"body":"","attachments":[{"fileId":"f"}]}}]"#,
            r#"[{"component":{"payload":{"payload":{"template_type":"table"}}}}]"#,
            r#"[{"component":{"payload":{"url":"https://x"}}}]"#,
        ] {
            assert!(!response(&format!(r#""message":{said}"#)).is_blank, "{said}");
        }
        assert!(response(r#""sM":true,"endChunk":true,"message":[]"#).is_blank);
        assert!(!response(r#""sM":true,"endChunk":true,"message":[],"completeResponse":"all""#).is_blank);
    }

    #[test]
    fn time_in_any_form_is_read() {
        let at = Some(Timestamp::from_millis(1_512_722_848_000));
        for time in [
            r#""createdOn":"2017-12-08T08:47:28.000Z""#,
            r#""createdOn":1512722848000"#,
            r#""createdOn":1512722848000.25"#,
            r#""createdOn":"1512722848000""#,
            r#""createdOn":1512722848"#,
            r#""createdOn":null,"timestamp":1512722848000"#,
            r#""createdOn":{},"timestamp":"1512722848000""#,
        ] {
            assert_eq!(response(time).created_on, at, "{time}");
        }
        for none in ["1e999", "-1512722848000", "12345678901234567890", "\"soon\"", "0", "-0", "true"] {
            assert_eq!(response(&format!(r#""createdOn":{none}"#)).created_on, None, "{none}");
        }
    }

    #[test]
    fn stream_is_decoded_piece_by_piece() {
        let body = |text: &str| {
            format!(r#""messageId":"ms-1","sM":true,"message":[{{"cInfo":{{"body":"{text}"}}}}]"#)
        };
        let piece = response(&format!(r#"{},"completeResponse":"too early""#, body(" and ")));
        assert_eq!(&*piece.text, " and ");
        assert_eq!(piece.stream, Some(StreamInfo { last: false, complete: None }));
        let last = response(&format!(r#"{},"endChunk":true"#, body("")));
        assert_eq!((&*last.text, last.stream), ("", Some(StreamInfo { last: true, complete: None })));
        for complete in [r#""a and b""#, r#"{"text":"a and b"}"#, r#"{"payload":{"text":"a and b"}}"#] {
            let last = response(&format!(r#"{},"endChunk":true,"completeResponse":{complete}"#, body(" b")));
            assert_eq!(last.stream, Some(StreamInfo { last: true, complete: Some("a and b".into()) }));
        }
        assert_eq!(response(r#""sM":false,"endChunk":false"#).stream, None);
        assert!(response(r#""endChunk":true"#).stream.is_some(), "an end ends a stream, marked or not");
    }

    #[test]
    fn stream_ending_in_a_template_has_the_whole_answer() {
        let template = r#""message":[{"component":{"type":"template","payload":{"type":"template","payload":{"template_type":"answerTemplate","text":"all"}}},"cInfo":{"body":"{}"}}]"#;
        let last = response(&format!(r#""sM":true,"endChunk":true,{template}"#));
        assert_eq!(&*last.text, "");
        assert_eq!(last.stream, Some(StreamInfo { last: true, complete: Some("all".into()) }));
    }
}
