use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::domain::fixtures::{self, accepted_message, new_message, raw_json, reply};
use crate::domain::{GapReason, JournalEntry, NewMessage, QuietSource, SessionRequest};

fn conversation() -> ConversationId {
    fixtures::conversation("b", "u")
}

fn id() -> MessageId {
    MessageId::new(Timestamp::from_millis(1), 1)
}

fn message(session: SessionRequest, outcome: TurnOutcome) -> Message {
    let new = NewMessage { session, ..new_message(conversation(), "hi") };
    fixtures::message(accepted_message(new), Some(outcome))
}

fn item(body: EntryBody, message: Option<Message>) -> EntryWithMessage {
    EntryWithMessage { entry: JournalEntry { seq: 7, at: Timestamp::from_millis(1), body }, message }
}

fn written(item: &EntryWithMessage) -> Option<Value> {
    EventView::from_entry(item, &conversation()).map(|event| serde_json::to_value(event).unwrap())
}

#[test]
fn entry_becomes_its_type_and_data() {
    let reply =
        Reply { message_id: Some("ms-1".into()), event: raw_json("{\"a\":1}"), ..reply(7, Some(id()), "hi") };
    let frame = "{\"type\":\"x\"}";
    let problem = Problem::new(crate::domain::ProblemKind::NoReply, "nothing");
    let wait = QuietWait { wait: std::time::Duration::from_millis(140), by: QuietSource::Learned };
    let answered = TurnOutcome::Answered(EndedBy::Quiet(Some(wait)));
    let failed = TurnOutcome::Failed(problem.clone());
    for (item, kind, data) in [
        (item(EntryBody::Reply(Arc::new(reply.clone())), None), "reply", json!(reply)),
        (
            item(
                EntryBody::Ended { message: id(), outcome: answered.clone() },
                Some(message(SessionRequest::New, answered.clone())),
            ),
            "message.answered",
            json!(message(SessionRequest::New, answered.clone())),
        ),
        (
            item(
                EntryBody::Ended { message: id(), outcome: failed.clone() },
                Some(message(SessionRequest::Continue, failed.clone())),
            ),
            "message.failed",
            json!(message(SessionRequest::Continue, failed.clone())),
        ),
        (
            item(EntryBody::Ended { message: id(), outcome: failed }, None),
            "message.failed",
            json!({"id": id(), "bot": "b", "user": "u", "status": "failed", "complete": false, "endedBy": null,
                   "quiet": null, "error": problem, "endedAt": "1970-01-01T00:00:00.001Z"}),
        ),
        (
            item(EntryBody::Ended { message: id(), outcome: answered }, None),
            "message.answered",
            json!({"id": id(), "bot": "b", "user": "u", "status": "answered", "complete": true,
                   "endedBy": "quiet", "quiet": {"ms": 140, "by": "learned"}, "error": null, "endedAt": "1970-01-01T00:00:00.001Z"}),
        ),
        (item(EntryBody::UserMessage(raw_json(frame)), None), "userMessage", json!({"type": "x"})),
        (item(EntryBody::Platform(raw_json(frame)), None), "platform", json!({"event": {"type": "x"}})),
        (item(EntryBody::Gap(GapReason::HistoryTooShort), None), "gap", json!({"reason": "historyTooShort"})),
    ] {
        let expected = json!({"seq": 7, "type": kind, "at": "1970-01-01T00:00:00.001Z", "data": data});
        assert_eq!(written(&item), Some(expected), "{item:?}");
    }
}

#[test]
fn end_of_a_conversation_is_invisible() {
    let outcome = TurnOutcome::Answered(EndedBy::SessionEnd);
    let closed = message(SessionRequest::Close, outcome.clone());
    // The event stays invisible if its message has expired.
    for known in [Some(closed), None] {
        let item = item(EntryBody::Closed { message: id(), outcome: outcome.clone() }, known);
        assert_eq!(written(&item), None);
    }
}

#[test]
fn event_is_one_line_for_any_frame() {
    let frame = "{\n\t\"a\" :\r\n [1,\r2],\"b\":\"x\\ny\\u2028\"}";
    let item = item(EntryBody::UserMessage(raw_json(frame)), None);
    let mut stream = Vec::new();
    let cursor = Cursor { epoch: 1, seq: 7, at: None };
    EventView::from_entry(&item, &conversation()).unwrap().write(Some(cursor), &mut stream);
    let text = String::from_utf8(stream).unwrap();
    let expected = format!(
        "id: {cursor}\nevent: userMessage\ndata: {{\"seq\":7,\"type\":\"userMessage\",\
         \"at\":\"1970-01-01T00:00:00.001Z\",\"data\":{{ \t\"a\" :   [1, 2],\"b\":\"x\\ny\\u2028\"}}}}\n\n"
    );
    assert_eq!(text, expected);
    assert!(!text.contains('\r'));
}

#[test]
fn live_frame_has_neither_place_nor_time() {
    let frame = raw_json(r#"{"type":"events"}"#);
    let event = serde_json::to_value(EventView::from_live(&frame)).unwrap();
    assert_eq!(event, json!({"type": "platform", "data": {"event": {"type": "events"}}}));
}

#[test]
fn chunk_has_no_cursor() {
    let mut stream = Vec::new();
    let chunk = ReplyChunk { message_id: Some("ms-1".into()), index: 2, text: "It left".into(), last: false };
    EventView::from_chunk(&chunk).write(None, &mut stream);
    let data = r#"{"type":"chunk","data":{"messageId":"ms-1","index":2,"text":"It left","last":false}}"#;
    assert_eq!(String::from_utf8(stream).unwrap(), format!("event: chunk\ndata: {data}\n\n"));
}
