use actix_web::body::MessageBody as _;
use serde_json::Value;

use super::*;
use crate::domain::fixtures::{accepted_message, conversation, message, new_message};
use crate::domain::{EndedBy, Problem};
use crate::http::trace_context::TraceContext;

const LOCATION: &str = "/conversations/a%2F%C3%AB/messages/00000000010000000000000001?bot=b.1";

fn posted(outcome: Option<TurnOutcome>, replayed: bool) -> (HttpResponse, Value) {
    let message = message(accepted_message(new_message(conversation("b.1", "a/ë"), "hi")), outcome);
    let trace = TraceContext::from_headers(&header::HeaderMap::new());
    let response =
        posted_response(PostResult { message, replayed }, Some(HeaderValue::from_static("wait=3")))
            .unwrap_or_else(|failure| failure.response("/", trace));
    let (head, body) = response.into_parts();
    let body = serde_json::from_slice(&body.try_into_bytes().unwrap()).unwrap();
    (head.map_into_boxed_body(), body)
}

fn sent<'a>(response: &'a HttpResponse, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn answered_message_is_a_200() {
    let (response, body) = posted(Some(TurnOutcome::Answered(EndedBy::Quiet(None))), true);
    assert_eq!(response.status(), 200);
    assert_eq!(sent(&response, "location"), Some(LOCATION));
    assert_eq!(sent(&response, "content-type"), Some("application/json"));
    assert_eq!(sent(&response, "cache-control"), Some("no-store"));
    assert_eq!(sent(&response, "preference-applied"), Some("wait=3"));
    assert_eq!(sent(&response, "idempotency-replayed"), Some("true"));
    assert_eq!(sent(&response, "retry-after"), None);
    assert_eq!((&body["status"], &body["user"]), (&"answered".into(), &"a/ë".into()));
}

#[test]
fn open_message_is_a_202() {
    let (response, body) = posted(None, false);
    assert_eq!(response.status(), 202);
    assert_eq!(sent(&response, "location"), Some(LOCATION));
    assert_eq!(sent(&response, "retry-after"), Some("1"));
    assert_eq!(sent(&response, "idempotency-replayed"), None);
    assert_eq!(body["status"], "queued");
}

#[test]
fn failed_message_is_its_problem_with_the_message() {
    let blocked =
        Problem::new(ProblemKind::BotBlocked, "closed with 1008").retry_after(Duration::from_mins(1));
    let (response, body) = posted(Some(TurnOutcome::Failed(blocked)), true);
    assert_eq!(response.status(), 502);
    assert_eq!(sent(&response, "location"), Some(LOCATION));
    assert_eq!(sent(&response, "content-type"), Some("application/problem+json"));
    assert_eq!(sent(&response, "retry-after"), Some("60"));
    assert_eq!(sent(&response, "idempotency-replayed"), Some("true"));
    assert_eq!(sent(&response, "preference-applied"), Some("wait=3"));
    assert_eq!(body["type"], "/problems/bot-blocked");
    assert_eq!(body["instance"], LOCATION);
    assert_eq!(body["message"]["status"], "failed");
    assert_eq!(body["message"]["error"]["type"], "/problems/bot-blocked");
    assert!(body.get("errors").is_none());
}

#[test]
fn wait_precedes_respond_async_and_the_default() {
    let default = Duration::from_secs(15);
    let check = |wait: Option<u64>, respond_async, callback| {
        let prefer = PreferHeader { wait: wait.map(Duration::from_secs), respond_async };
        choose_wait(prefer, callback, default).map(|wait| wait.as_secs())
    };
    assert_eq!(check(None, false, false), Some(15));
    assert_eq!(check(Some(3), false, false), Some(3));
    assert_eq!(check(Some(3), true, true), Some(3));
    assert_eq!(check(Some(0), false, false), None);
    assert_eq!(check(None, true, false), None);
    assert_eq!(check(None, false, true), None);
}
