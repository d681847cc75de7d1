use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::domain::{
    AcceptedMessage, Correlation, GapReason, JournalEntry, MessageContent, MessageProgress, NewMessage,
    ResendPolicy, SessionRequest, TurnRules,
};

fn conversation() -> ConversationId {
    ConversationId::new(BotName::new("b").unwrap(), UserId::new("u").unwrap())
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn id() -> MessageId {
    MessageId::new(Timestamp::from_millis(1), 1)
}

fn message(session: SessionRequest, outcome: TurnOutcome) -> Message {
    let accepted = AcceptedMessage {
        id: id(),
        position: 0,
        client_message_id: 1,
        accepted_at: Timestamp::from_millis(1),
        new: NewMessage {
            conversation: conversation(),
            content: MessageContent::new("hi").unwrap(),
            session,
            rules: TurnRules::default(),
            resend: ResendPolicy::Never,
            callback: None,
            trace: crate::domain::TraceId::default(),
        },
    };
    let progress = MessageProgress { outcome: Some(outcome), ..MessageProgress::default() };
    Message { accepted: Arc::new(accepted), progress }
}

fn told(body: EntryBody, message: Option<Message>) -> EntryWithMessage {
    EntryWithMessage { entry: JournalEntry { seq: 7, at: Timestamp::from_millis(1), body }, message }
}

fn written(told: &EntryWithMessage) -> Option<Value> {
    EventView::from_entry(told, &conversation()).map(|event| serde_json::to_value(event).unwrap())
}

#[test]
fn each_entry_has_its_type_and_data() {
    let reply = Reply {
        seq: 7,
        message_id: Some("ms-1".into()),
        in_reply_to: Some(id()),
        correlation: Correlation::Window,
        late: false,
        text: "hi".into(),
        agent: false,
        created_on: None,
        event: raw("{\"a\":1}"),
    };
    let frame = "{\"type\":\"x\"}";
    let problem = Problem::new(crate::domain::ProblemKind::NoReply, "nothing");
    let answered = TurnOutcome::Answered(EndedBy::Quiet);
    let failed = TurnOutcome::Failed(problem.clone());
    for (told, kind, data) in [
        (told(EntryBody::Reply(Arc::new(reply.clone())), None), "reply", json!(reply)),
        (
            told(
                EntryBody::Ended { message: id(), outcome: answered.clone() },
                Some(message(SessionRequest::New, answered.clone())),
            ),
            "message.answered",
            json!(message(SessionRequest::New, answered.clone())),
        ),
        (
            told(
                EntryBody::Ended { message: id(), outcome: failed.clone() },
                Some(message(SessionRequest::Continue, failed.clone())),
            ),
            "message.failed",
            json!(message(SessionRequest::Continue, failed.clone())),
        ),
        (
            told(EntryBody::Ended { message: id(), outcome: failed }, None),
            "message.failed",
            json!({"id": id(), "bot": "b", "user": "u", "status": "failed", "complete": false, "endedBy": null,
                   "error": problem, "endedAt": "1970-01-01T00:00:00.001Z"}),
        ),
        (
            told(EntryBody::Ended { message: id(), outcome: answered }, None),
            "message.answered",
            json!({"id": id(), "bot": "b", "user": "u", "status": "answered", "complete": true,
                   "endedBy": "quiet", "error": null, "endedAt": "1970-01-01T00:00:00.001Z"}),
        ),
        (told(EntryBody::UserMessage(raw(frame)), None), "userMessage", json!({"type": "x"})),
        (told(EntryBody::Platform(raw(frame)), None), "platform", json!({"event": {"type": "x"}})),
        (told(EntryBody::Gap(GapReason::HistoryTooShort), None), "gap", json!({"reason": "historyTooShort"})),
    ] {
        let expected = json!({"seq": 7, "type": kind, "at": "1970-01-01T00:00:00.001Z", "data": data});
        assert_eq!(written(&told), Some(expected), "{told:?}");
        assert!(is_visible(&told));
    }
}

#[test]
fn what_closed_a_conversation_is_not_told() {
    let outcome = TurnOutcome::Answered(EndedBy::SessionEnd);
    let closed = message(SessionRequest::Close, outcome.clone());
    // Not either when nothing is known of the message any more.
    for known in [Some(closed), None] {
        let told = told(EntryBody::Closed { message: id(), outcome: outcome.clone() }, known);
        assert_eq!(written(&told), None);
        assert!(!is_visible(&told));
    }
}

#[test]
fn an_event_of_a_stream_is_one_line_whatever_the_platform_sent() {
    let frame = "{\n\t\"a\" :\r\n [1,\r2],\"b\":\"x\\ny\\u2028\"}";
    let told = told(EntryBody::UserMessage(raw(frame)), None);
    let mut stream = Vec::new();
    let cursor = Cursor { epoch: 1, seq: 7, at: None };
    EventView::from_entry(&told, &conversation()).unwrap().write(Some(cursor), &mut stream);
    let text = String::from_utf8(stream).unwrap();
    let expected = format!(
        "id: {cursor}\nevent: userMessage\ndata: {{\"seq\":7,\"type\":\"userMessage\",\
         \"at\":\"1970-01-01T00:00:00.001Z\",\"data\":{{ \t\"a\" :   [1, 2],\"b\":\"x\\ny\\u2028\"}}}}\n\n"
    );
    assert_eq!(text, expected);
    assert!(!text.contains('\r'));
}

#[test]
fn pieces_have_no_cursor() {
    let mut stream = Vec::new();
    let chunk = ReplyChunk { message_id: Some("ms-1".into()), index: 2, text: "It left".into(), last: false };
    EventView::from_chunk(&chunk).write(None, &mut stream);
    let data = r#"{"type":"chunk","data":{"messageId":"ms-1","index":2,"text":"It left","last":false}}"#;
    assert_eq!(String::from_utf8(stream).unwrap(), format!("event: chunk\ndata: {data}\n\n"));
}
