//! `Idempotency-Key`: a repeated request is the same message (api.md 1).

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{CallerScopes, Config};
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use crate::support::{Answer, Request, run, spawn_bridge};

fn request(user: &str, key: &str, body: &Value) -> Request {
    Request::message(user, body).header("Idempotency-Key", key)
}

fn id(answer: &Answer) -> String {
    let body = answer.json();
    body["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn repeat_gets_the_same_message() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", Step::reply("x"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}, "meta": {"a": 1, "b": [2]}});
        let first = bridge.send(request("alice", "k-1", &body).prefer("wait=20")).await;
        let message = first.message(200);
        assert_eq!(first.header("idempotency-replayed"), None);
        // The same message in other notations.
        for same in [
            body.to_string(),
            r#"{ "turn" : {"expectReplies":1.0,"quietMs":null}, "meta":{"b":[2],"a":1}, "text":"\u0068i" }"#.to_owned(),
            r#"{"session":"continue","resend":"never","text":"hi","turn":{"expectReplies":1},"meta":{"a":1,"b":[2]}}"#.to_owned(),
        ] {
            let again = Request::new("POST", "/conversations/alice/messages")
                .header("Content-Type", "application/json")
                .header("Idempotency-Key", "k-1")
                .body(same);
            let again = bridge.send(again).await;
            assert_eq!(again.message(200), message);
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(again.header("location"), first.header("location"));
        }
        assert_eq!(bridge.script.totals().messages, 1);
        bridge.finish().await;
    });
}

#[test]
fn quoted_key_is_the_plain_one() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", Step::reply("x"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let first = bridge.send(request("alice", "\"8e03 \\\"978\"", &body)).await;
        first.message(200);
        let again = bridge.send(request("alice", "\"8e03 \\\"978\"", &body)).await;
        assert_eq!((id(&again), again.header("idempotency-replayed")), (id(&first), Some("true")));
        bridge.script.next("alice", Step::reply("x"));
        let plain = bridge.send(request("alice", "k-1", &body)).await;
        let quoted = bridge.send(request("alice", "\"k-1\"", &body)).await;
        assert_eq!((id(&quoted), quoted.header("idempotency-replayed")), (id(&plain), Some("true")));
        assert_eq!(bridge.script.totals().messages, 2);
        bridge.finish().await;
    });
}

#[test]
fn other_body_under_the_same_key_is_a_mismatch() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", Step::reply("x"));
        bridge.send(request("alice", "k", &json!({"text": "hi"}))).await.message(200);
        let answer = bridge.send(request("alice", "k", &json!({"text": "ho"}))).await;
        answer.problem(422, "idempotency-mismatch");
        assert_eq!(bridge.script.totals().messages, 1);
        bridge.finish().await;
    });
}

#[test]
fn repeat_waits_with_the_message() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        let said = Step::Say("x".to_owned());
        bridge.script.next("alice", vec![Step::Ack, Step::Until(gate.clone()), said]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let first = bridge.send(request("alice", "k", &body).prefer("respond-async")).await;
        first.message(202);
        let running = bridge.send(request("alice", "k", &body).prefer("respond-async")).await;
        running.message(202);
        assert_eq!(running.header("idempotency-replayed"), Some("true"));
        assert_eq!(running.retry_after(), 1);
        let waiting = || bridge.send(request("alice", "k", &body).prefer("wait=20"));
        let open = async {
            bridge.script.seen("alice", 1).await;
            gate.open();
        };
        let (one, two, ()) = tokio::join!(waiting(), waiting(), open);
        for answer in [&one, &two] {
            assert_eq!(answer.message(200)["status"], "answered");
            assert_eq!(answer.header("idempotency-replayed"), Some("true"));
            assert_eq!(id(answer), id(&first));
        }
        assert_eq!(bridge.script.totals().messages, 1);
        bridge.finish().await;
    });
}

#[test]
fn concurrent_repeats_are_one_message() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", Step::reply("x"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let all = (0..16).map(|_| bridge.send(request("alice", "k", &body).prefer("wait=20")));
        let answers = futures_util::future::join_all(all).await;
        let first = id(&answers[0]);
        assert!(answers.iter().all(|answer| answer.status == 200 && id(answer) == first));
        let fresh = answers.iter().filter(|a| a.header("idempotency-replayed").is_none()).count();
        assert_eq!(fresh, 1);
        assert_eq!(bridge.script.totals().messages, 1);
        bridge.finish().await;
    });
}

#[test]
fn repeat_of_a_failed_message_fails_alike() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", vec![Step::Ack]);
        let body = json!({"text": "hi", "turn": {"deadlineMs": 500}});
        let first = bridge.send(request("alice", "k", &body)).await.problem(504, "no-reply");
        let again = bridge.send(request("alice", "k", &body)).await;
        assert_eq!(again.problem(504, "no-reply")["message"], first["message"]);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(bridge.script.totals().messages, 1);
        bridge.finish().await;
    });
}

#[test]
fn key_belongs_to_its_caller_and_conversation() {
    run(async {
        let scopes = CallerScopes { send: true, read: true, admin: false };
        let change =
            |config: &mut Config| config.callers = vec![caller("crm", scopes), caller("erp", scopes)];
        let bridge = spawn_bridge(change).await;
        let mut ids = Vec::new();
        for (user, key, text) in [("alice", "crm", "a"), ("alice", "erp", "b"), ("bob", "crm", "c")] {
            bridge.script.next(user, Step::reply("x"));
            let body = json!({"text": text, "turn": {"expectReplies": 1}});
            let request = request(user, "k", &body).header("Authorization", &format!("Bearer {key}"));
            let answer = bridge.send(request).await;
            answer.message(200);
            assert_eq!(answer.header("idempotency-replayed"), None);
            ids.push(id(&answer));
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
        bridge.finish().await;
    });
}
