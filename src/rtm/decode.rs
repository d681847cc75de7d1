//! One frame of the platform, in our words.
//!
//! Reading never fails: the set of frame types is open, their fields are barely documented, and a field of
//! the wrong type must not cost the caller the reply it stands in. So each field is looked for by itself
//! ([`super::lenient_json`]), and what cannot be understood is handed on as it came.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::correlation_id::echo;
use super::incoming::{BotResponse, IncomingFrame, StreamInfo};
use super::lenient_json::{Member, is_too_deep, is_true, label, number, pick, string, truth};
use super::text_extraction as text;
use crate::domain::Timestamp;

/// What a frame type means to us.
#[derive(Clone, Copy)]
enum Kind {
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
const KINDS: [(&str, Kind); 22] = [
    ("bot_response", Kind::Response),
    ("ack", Kind::Ack),
    ("pong", Kind::Pong),
    ("waiting_for_user_input", Kind::Waiting),
    ("bot_active", Kind::Active),
    ("session_start", Kind::SessionStart),
    ("session_end", Kind::SessionEnd),
    ("agent_session_start", Kind::AgentStart),
    ("agent_session_end", Kind::AgentEnd),
    ("user_message", Kind::UserMessage),
    ("events", Kind::Events),
    ("botKitUnreachable", Kind::Platform),
    ("form_delivered", Kind::Platform),
    ("form_submitted", Kind::Platform),
    ("form_failure", Kind::Platform),
    ("initial_language", Kind::Platform),
    ("language_switched", Kind::Platform),
    ("sbc_details_response", Kind::Platform),
    ("appInvalidNotification", Kind::Platform),
    // SDKs have branches for these three, inherited from another product; Kore.ai was never seen to send them.
    ("hello", Kind::Platform),
    ("ready", Kind::Platform),
    ("ok", Kind::Platform),
];

impl Kind {
    /// Types differ in case and leading slash between the documents and the wire (protocol.md 7.1).
    fn of(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, kind)| kind)
    }
}

/// Reads one frame, text or binary; never fails.
///
/// [`IncomingFrame::Malformed`] is what is not UTF-8, not one JSON object, without a `type` that is a text, or
/// nested deeper than 128 levels, which readers after us could not take.
pub fn translate(frame: &[u8]) -> IncomingFrame {
    std::str::from_utf8(frame).ok().and_then(understood).unwrap_or(IncomingFrame::Malformed)
}

fn understood(frame: &str) -> Option<IncomingFrame> {
    if is_too_deep(frame) {
        return None;
    }
    let [kind, session_id] = pick(frame, ["type", "sessionId"])?;
    let kind = string(kind?)?;
    let name = kind.trim();
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() {
        return None;
    }
    let Some(kind) = Kind::of(name) else { return raw(frame).map(IncomingFrame::Unknown) };
    match kind {
        Kind::Response => response(frame),
        Kind::Ack => ack(frame),
        Kind::Pong => Some(IncomingFrame::Pong),
        Kind::Waiting => Some(IncomingFrame::WaitingForInput),
        Kind::Active => active(frame, session_id),
        Kind::SessionStart => {
            Some(IncomingFrame::SessionStart { session_id: id(session_id), event: raw(frame)? })
        }
        Kind::SessionEnd => raw(frame).map(IncomingFrame::SessionEnd),
        Kind::AgentStart => raw(frame).map(IncomingFrame::AgentStart),
        Kind::AgentEnd => raw(frame).map(IncomingFrame::AgentEnd),
        Kind::Events => events(frame),
        Kind::UserMessage => raw(frame).map(IncomingFrame::UserMessage),
        Kind::Platform => raw(frame).map(IncomingFrame::Platform),
    }
}

/// An ack that says no, or that names something which cannot be a number of ours, acknowledges nothing of
/// ours; one that names nothing answers a frame without an id (protocol.md 6.2) or is an older platform's.
fn ack(frame: &str) -> Option<IncomingFrame> {
    let [ok, names @ ..] = pick(frame, ["ok", "replyto", "reply_to", "replyTo"])?;
    let reply_to = names.into_iter().flatten().find_map(number);
    let names_another = reply_to.is_none() && names.iter().any(Option::is_some);
    if names_another || ok.and_then(truth) == Some(false) {
        return raw(frame).map(IncomingFrame::Platform);
    }
    Some(IncomingFrame::Ack { reply_to })
}

/// An event around a live agent. Platforms that send no `agent_session_start` and `_end` say the same so (protocol.md
/// 7.1, 7.7).
fn events(frame: &str) -> Option<IncomingFrame> {
    let [message] = pick(frame, ["message"])?;
    let kind = message.and_then(|message| pick(message.get(), ["type"])).and_then(|[kind]| string(kind?));
    let is = |name: &str| kind.as_ref().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(name));
    if is("typing") || is("stoptyping") {
        return Some(IncomingFrame::Typing);
    }
    let event = raw(frame)?;
    Some(if is("agent_connected") {
        IncomingFrame::AgentStart(event)
    } else if is("agent_disconnected") {
        IncomingFrame::AgentEnd(event)
    } else {
        IncomingFrame::Platform(event)
    })
}

fn active(frame: &str, session_id: Member<'_>) -> Option<IncomingFrame> {
    let [recent] = pick(frame, ["recentSessionInfo"])?;
    let recent = recent.and_then(|recent| pick(recent.get(), ["isActive", "sessionId"]));
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
    ];
    let [message, message_id, created_on, session_id, from_agent, author, streamed, end, complete] =
        pick(frame, names)?;
    let last = is_true(end);
    let (text, stream) = if last || is_true(streamed) {
        let (text, complete) = streamed_text(message, last.then_some(complete).flatten(), last);
        (text, Some(StreamInfo { last, complete: complete.map(String::into_boxed_str) }))
    } else {
        (message.map(text::of_message).unwrap_or_default(), None)
    };
    Some(IncomingFrame::Response(Box::new(BotResponse {
        message_id: id(message_id),
        text: text.into_boxed_str(),
        agent: is_true(from_agent) || author.is_some_and(is_agent),
        created_on: time(created_on),
        stream,
        more_follows: message.is_some_and(text::announces_more),
        session_id: id(session_id),
        echoes: echo(frame),
        event: raw(frame)?,
    })))
}

/// The piece and, of the last frame, the whole. A stream that ends in a template ends in its whole answer,
/// not in another piece of it (protocol.md 7.4).
fn streamed_text(message: Member<'_>, complete: Member<'_>, last: bool) -> (String, Option<String>) {
    let complete = complete.and_then(text::of_complete);
    let Some(message) = message else { return (String::new(), complete) };
    if !text::is_template(message) {
        return (text::of_piece(message), complete);
    }
    let text = text::of_message(message);
    if last {
        (String::new(), complete.or_else(|| Some(text).filter(|text| !text.is_empty())))
    } else {
        (text, None)
    }
}

/// The frame as it came, without the blanks around it.
fn raw(frame: &str) -> Option<Box<RawValue>> {
    serde_json::from_str::<&RawValue>(frame).ok().map(ToOwned::to_owned)
}

/// An id; the platform's are strings, and a number is taken at its word.
pub(super) fn id(member: Member<'_>) -> Option<Box<str>> {
    member.and_then(label).map(Cow::into_owned).map(String::into_boxed_str)
}

/// An ISO time; none where it is something else.
pub(super) fn time(member: Member<'_>) -> Option<Timestamp> {
    Timestamp::parse(string(member?)?.trim())
}

/// Whether an `author` is a human agent.
pub(super) fn is_agent(author: &RawValue) -> bool {
    pick(author.get(), ["type"])
        .and_then(|[kind]| string(kind?))
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("agent"))
}
#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &str) -> IncomingFrame {
        translate(frame.as_bytes())
    }

    fn response(rest: &str) -> BotResponse {
        match read(&format!(r#"{{"type":"bot_response",{rest}}}"#)) {
            IncomingFrame::Response(response) => *response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_known_type_is_known_in_any_case_and_with_a_slash() {
        for (name, _) in KINDS {
            let kind = read(&format!(r#"{{"type":"{name}"}}"#)).kind();
            assert_ne!(kind, "unknown", "{name}");
            assert_ne!(kind, "malformed", "{name}");
            for variant in [name.to_uppercase(), format!("/{name}"), format!(" /{} ", name.to_lowercase())] {
                assert_eq!(read(&format!(r#"{{"type":"{variant}"}}"#)).kind(), kind, "{variant}");
            }
        }
    }

    #[test]
    fn what_has_no_usable_type_is_malformed() {
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
        assert_eq!(translate(b"{\"type\":\"ack\",\"x\":\"\xff\"}").kind(), "malformed");
    }

    #[test]
    fn nesting_is_bounded_and_costs_no_stack() {
        let nested = |depth: usize| {
            format!(r#"{{"type":"bot_response","message":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert_eq!(read(&nested(127)).kind(), "bot_response");
        assert_eq!(read(&nested(128)).kind(), "malformed");
        assert_eq!(read(&nested(500_000)).kind(), "malformed");
    }

    #[test]
    fn acks_name_numbers_in_every_shape() {
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
    fn acks_that_acknowledge_nothing_of_ours_are_only_told() {
        for other in
            [r#""ok":false,"replyto":7"#, r#""ok":"false""#, r#""replyto":"an-uuid""#, r#""replyto":{}"#]
        {
            assert_eq!(read(&format!(r#"{{"type":"ack",{other}}}"#)).kind(), "platform", "{other}");
        }
    }

    #[test]
    fn active_says_whether_the_session_goes_on() {
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
    fn fields_of_wrong_types_are_absent_and_spoil_nothing() {
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
    fn doubled_keys_do_no_harm() {
        let response = response(r#""messageId":"ms-1","messageId":"ms-2","message":1,"message":"Hi""#);
        assert_eq!((response.message_id.as_deref(), &*response.text), (Some("ms-2"), "Hi"));
    }

    #[test]
    fn the_event_is_the_frame_without_the_blanks_around_it() {
        let frame = r#"{ "type" : "bot_response", "n": 1.50, "n": 12345678901234567890 }"#;
        let IncomingFrame::Response(response) = read(&format!("\n {frame}\t")) else { panic!() };
        assert_eq!(response.event.get(), frame);
        assert_eq!(response.message_id, None);
    }

    #[test]
    fn agents_are_told_from_the_bot() {
        for agent in [r#""fromAgent":true"#, r#""author":{"type":"AGENT"}"#, r#""author":{"type":"Agent"}"#] {
            assert!(response(agent).agent, "{agent}");
        }
        for bot in [r#""fromAgent":false"#, r#""author":{"type":"USER"}"#, r#""author":"AGENT""#, r#""x":1"#]
        {
            assert!(!response(bot).agent, "{bot}");
        }
    }

    #[test]
    fn streams_are_read_piece_by_piece() {
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
    fn a_stream_that_ends_in_a_template_ends_in_its_whole_answer() {
        let template = r#""message":[{"component":{"type":"template","payload":{"type":"template","payload":{"template_type":"answerTemplate","text":"all"}}},"cInfo":{"body":"{}"}}]"#;
        let last = response(&format!(r#""sM":true,"endChunk":true,{template}"#));
        assert_eq!(&*last.text, "");
        assert_eq!(last.stream, Some(StreamInfo { last: true, complete: Some("all".into()) }));
    }
}
