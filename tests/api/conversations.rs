//! A conversation as a resource (api.md 2).

use std::time::Duration;

use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use super::events::{turn, types};
use crate::support::{Request, TestBridge, run, spawn_bridge};

const ALICE: &str = "/conversations/alice";

#[test]
fn unknown_conversation_is_cold() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let state = bridge.api.get("/conversations/Zo%C3%AB").await.message(200);
        assert_eq!((&state["bot"], &state["user"]), (&json!("sandbox"), &json!("Zoë")));
        assert_eq!(state["connection"]["state"], "cold");
        assert_eq!((&state["lastSeq"], &state["openMessages"]), (&json!(0), &json!(0)));
        for field in ["sessionId", "lastActivityAt"] {
            assert_eq!(state.get(field), Some(&Value::Null), "{field}: {state}");
        }
        let head = bridge.send(Request::new("HEAD", ALICE)).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        bridge.api.get(format!("{ALICE}?bot=nobody")).await.problem(404, "not-found");
        bridge.api.get(format!("{ALICE}?limit=1")).await.problem(400, "invalid-request");
        let post = bridge.send(Request::new("POST", ALICE)).await;
        post.problem(405, "method-not-allowed");
        assert_eq!(post.header("allow"), Some("GET, HEAD, DELETE"));
        bridge.finish().await;
    });
}

/// Runs one turn of alice's and lets a second one wait at the gate. Returns the second message's location.
async fn second_turn(bridge: &TestBridge) -> (Gate, String) {
    turn(bridge, &["one"]).await;
    let gate = Gate::new();
    let steps = vec![Step::Ack, Step::Until(gate.clone()), Step::Say("two".to_owned())];
    bridge.script.next("alice", steps);
    let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
    let location = bridge.post_async("alice", &body).await;
    bridge.script.seen("alice", 2).await;
    (gate, location)
}

#[test]
fn conversation_shows_its_state() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let (gate, location) = second_turn(&bridge).await;
        let state = bridge.api.get(ALICE).await.message(200);
        assert_eq!(state["connection"]["state"], "ready", "{state}");
        let page = bridge.api.get(format!("{ALICE}/events")).await.message(200);
        let last = page["events"].as_array().unwrap().last().unwrap()["seq"].clone();
        assert_eq!((&state["lastSeq"], &state["openMessages"]), (&last, &json!(1)), "{state}");
        assert!(state["lastActivityAt"].as_str().unwrap().ends_with('Z'), "{state}");
        gate.open();
        bridge.ended(&location).await;
        bridge.finish().await;
    });
}

#[test]
fn delete_ends_the_session_and_keeps_the_journal() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let (gate, location) = second_turn(&bridge).await;
        let delete = bridge.send(Request::new("DELETE", ALICE));
        let open = async {
            // The end has its place in the lane behind earlier messages.
            while bridge.metric("open_messages").await < 2 {}
            gate.open();
        };
        let (deleted, ()) = tokio::join!(delete, open);
        assert_eq!((deleted.status, deleted.body.len()), (204, 0), "{deleted}");
        assert_eq!(bridge.read(&location).await["replies"][0]["text"], "two");
        bridge.script.closed("alice", 1).await;
        assert_eq!(bridge.api.get(ALICE).await.message(200)["connection"]["state"], "cold");
        let page = bridge.api.get(format!("{ALICE}/events")).await.message(200);
        assert_eq!(types(&page), ["reply", "message.answered", "reply", "message.answered"], "{page}");
        // A second DELETE has nothing to do.
        assert_eq!(bridge.send(Request::new("DELETE", ALICE)).await.status, 204);
        // The conversation continues.
        turn(&bridge, &["three"]).await;
        bridge.finish().await;
    });
}

#[test]
fn expired_end_of_a_session_is_no_event() {
    run(async {
        let bridge = spawn_bridge(|config| config.store.message_ttl = Duration::from_millis(300)).await;
        turn(&bridge, &["one"]).await;
        assert_eq!(bridge.send(Request::new("DELETE", ALICE)).await.status, 204);
        // Messages expire in the order of their ends.
        let last = turn(&bridge, &["two"]).await;
        let location = format!("{ALICE}/messages/{}", last["id"].as_str().unwrap());
        while bridge.api.get(&location).await.status != 404 {}
        let page = bridge.api.get(format!("{ALICE}/events")).await.message(200);
        assert_eq!(types(&page), ["reply", "message.answered", "reply", "message.answered"], "{page}");
        assert!(page["events"][1]["data"]["replies"].is_null(), "it has expired too: {page}");
        bridge.finish().await;
    });
}

#[test]
fn message_cannot_end_the_session() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let body = json!({"text": "hi", "session": "close"});
        let problem = bridge.post("alice", &body).await.problem(400, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], "/session");
        assert_eq!(bridge.open(), 0);
        bridge.finish().await;
    });
}
