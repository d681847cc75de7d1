//! Erasure of a conversation (api.md 2, `POST …/erase`).

use rtm_bridge::config::{CallerConfig, CallerScopes, fixtures};
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use super::events::{turn, types};
use crate::support::{Answer, Request, TestBridge, run, spawn_bridge};

const ALICE: &str = "/conversations/alice";

async fn erase(bridge: &TestBridge, user: &str) -> Answer {
    erase_with(bridge, user, "").await
}

async fn erase_with(bridge: &TestBridge, user: &str, query: &str) -> Answer {
    bridge.send(Request::new("POST", format!("/conversations/{user}/erase{query}"))).await
}

#[test]
fn erasure_ends_open_messages_and_leaves_nothing() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let first = turn(&bridge, &["one"]).await;
        turn(&bridge, &["two"]).await;
        let gate = Gate::new();
        bridge
            .script
            .next("alice", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("three".to_owned())]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let waiting =
            bridge.send(Request::message("alice", &body).prefer("wait=20").header("Idempotency-Key", "k"));
        let queued = bridge.send(Request::message("alice", &body).prefer("wait=20"));
        let erasing = async {
            bridge.script.seen("alice", 3).await;
            while bridge.open() < 2 {
                tokio::task::yield_now().await;
            }
            erase(&bridge, "alice").await
        };
        let (waited, queued, erased) = tokio::join!(waiting, queued, erasing);
        assert_eq!((erased.status, erased.body.len()), (204, 0), "{erased}");
        waited.problem(410, "erased");
        queued.problem(410, "erased");
        gate.open();
        bridge.script.closed("alice", 1).await;
        let heard = bridge.script.observed("alice").others;
        assert!(heard.iter().any(|frame| frame.frame["resourceid"] == "/bot.closeConversationSession"));

        let location = format!("{ALICE}/messages/{}", first["id"].as_str().unwrap());
        bridge.api.get(location).await.problem(404, "not-found");
        let page = bridge.api.get(format!("{ALICE}/events")).await.message(200);
        assert_eq!(page["events"], json!([]));
        let state = bridge.api.get(ALICE).await.message(200);
        assert_eq!(
            (&state["lastSeq"], &state["openMessages"], &state["lastActivityAt"]),
            (&json!(0), &json!(0), &Value::Null)
        );
        let list = bridge.api.get("/conversations").await.message(200);
        assert_eq!(list["conversations"], json!([]));

        // A later message begins a new conversation, also under a key from before.
        let anew =
            bridge.send(Request::message("alice", &json!({"text": "other"})).header("Idempotency-Key", "k"));
        assert_eq!(anew.await.header("idempotency-replayed"), None);
        let page = bridge.api.get(format!("{ALICE}/events")).await.message(200);
        assert_eq!(page["events"][0]["seq"], 1);
        bridge.finish().await;
    });
}

#[test]
fn erasure_of_an_unknown_user_succeeds_and_repeats() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for _ in 0..2 {
            assert_eq!(erase(&bridge, "nobody").await.status, 204);
        }
        turn(&bridge, &["one"]).await;
        for _ in 0..2 {
            assert_eq!(erase(&bridge, "alice").await.status, 204);
        }
        let (one, other) = tokio::join!(erase(&bridge, "alice"), erase(&bridge, "alice"));
        assert_eq!((one.status, other.status), (204, 204));
        turn(&bridge, &["two"]).await;
        let page = bridge.api.get(format!("{ALICE}/events")).await.message(200);
        assert_eq!(types(&page), ["reply", "message.answered"]);
        bridge.finish().await;
    });
}

#[test]
fn erasure_drops_the_grant_of_the_users_uploads() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let upload = async || {
            let request = Request::new("POST", format!("{ALICE}/attachments"))
                .header("Content-Type", "text/plain")
                .header("Content-Disposition", "attachment; filename=a.txt");
            bridge.send(request.body("hello")).await.message(201);
            bridge.script.observed("alice").grants
        };
        assert_eq!((upload().await, upload().await), (1, 1), "the second one takes the kept grant");
        assert_eq!(erase(&bridge, "alice").await.status, 204);
        assert_eq!(upload().await, 2);
        bridge.finish().await;
    });
}

#[test]
fn erasure_covers_one_user_of_one_bot() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for user in ["alice", "alice2"] {
            bridge.post(user, &json!({"text": "hi"})).await.message(200);
        }
        assert_eq!(erase(&bridge, "alice").await.status, 204);
        let kept = bridge.api.get("/conversations/alice2/events").await.message(200);
        assert!(!types(&kept).is_empty());
        erase_with(&bridge, "alice", "?bot=other").await.problem(404, "not-found");
        erase_with(&bridge, "alice", "?force=true").await.problem(400, "invalid-request");
        let get = bridge.api.get(format!("{ALICE}/erase")).await;
        get.problem(405, "method-not-allowed");
        assert_eq!(get.header("allow"), Some("POST"));
        bridge.finish().await;
    });
}

#[test]
fn erasure_needs_the_scope_admin_and_covers_the_key() {
    run(async {
        let admin = CallerScopes { send: false, read: false, admin: true };
        let all = CallerScopes { send: true, read: true, admin: false };
        let bridge = spawn_bridge(|config| {
            let eu = CallerConfig { user_prefix: "eu-".to_owned(), ..fixtures::caller("eu", admin) };
            config.callers = vec![fixtures::caller("crm", all), fixtures::caller("ops", admin), eu];
        })
        .await;
        let send = async |key: &str, user: &str| {
            let request = Request::new("POST", format!("/conversations/{user}/erase"));
            bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await
        };
        erase(&bridge, "eu-1").await.problem(401, "unauthorized");
        send("crm", "eu-1").await.problem(403, "forbidden");
        send("eu", "us-1").await.problem(403, "forbidden");
        assert_eq!(send("eu", "eu-1").await.status, 204);
        assert_eq!(send("ops", "us-1").await.status, 204);
        bridge.finish().await;
    });
}
