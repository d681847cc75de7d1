//! The list of conversations for operators (api.md 2).

use std::collections::BTreeSet;

use rtm_bridge::config::{CallerConfig, CallerScopes, fixtures};
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use super::events::turn;
use crate::support::{Answer, Request, TestBridge, run, spawn_bridge};

const ADMIN: CallerScopes = CallerScopes { send: false, read: false, admin: true };
const SEND: CallerScopes = CallerScopes { send: true, read: true, admin: false };

/// Returns a caller. Its key is its name.
fn caller(name: &str, scopes: CallerScopes, user_prefix: &str) -> CallerConfig {
    CallerConfig { user_prefix: user_prefix.to_owned(), ..fixtures::caller(name, scopes) }
}

async fn list(bridge: &TestBridge, query: &str) -> Value {
    bridge.api.get(format!("/conversations{query}")).await.message(200)
}

fn users(page: &Value) -> Vec<&str> {
    let listed = page["conversations"].as_array().unwrap();
    listed.iter().map(|listed| listed["user"].as_str().unwrap()).collect()
}

#[test]
fn list_shows_state_activity_owner_and_open_messages() {
    run(async {
        let bridge = spawn_bridge(|config| config.cluster.replica_id = "one".to_owned()).await;
        assert_eq!(list(&bridge, "").await, json!({"conversations": [], "next": null}));
        turn(&bridge, &["one"]).await;
        let gate = Gate::new();
        bridge.script.next("bob", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("two".to_owned())]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let location = bridge.post_async("bob", &body).await;
        bridge.script.seen("bob", 1).await;
        let page = list(&bridge, "").await;
        assert_eq!((users(&page), &page["next"]), (vec!["bob", "alice"], &Value::Null));
        for (listed, user, open) in
            [(&page["conversations"][0], "bob", 1), (&page["conversations"][1], "alice", 0)]
        {
            let state = bridge.api.get(format!("/conversations/{user}")).await.message(200);
            assert_eq!((&listed["bot"], &listed["owner"]), (&json!("sandbox"), &json!("one")));
            assert_eq!((&listed["openMessages"], &listed["state"]), (&json!(open), &json!("ready")));
            for field in ["connection", "openMessages", "lastActivityAt"] {
                assert_eq!(listed[field], state[field], "{field}");
            }
        }
        gate.open();
        bridge.ended(&location).await;
        // A closed conversation is still known.
        let closed = bridge.send(Request::new("DELETE", "/conversations/bob")).await;
        assert_eq!(closed.status, 204);
        assert_eq!(users(&list(&bridge, "?state=ready").await), ["alice"]);
        assert_eq!(users(&list(&bridge, "?state=cold").await), ["bob"]);
        assert_eq!(users(&list(&bridge, "?state=blocked").await), [""; 0]);
        for (active, expected) in
            [("true", vec!["bob", "alice"]), ("false", vec![]), ("1m", vec!["bob", "alice"])]
        {
            assert_eq!(users(&list(&bridge, &format!("?active={active}")).await), expected, "{active}");
        }
        bridge.finish().await;
    });
}

#[test]
fn pages_have_each_conversation_once() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let mut all = BTreeSet::new();
        for number in 0..12 {
            let user = format!("user {number}/é");
            let encoded = user.replace('/', "%2F").replace(' ', "%20").replace('é', "%C3%A9");
            assert_eq!(bridge.post(&encoded, &json!({"text": "hi"})).await.status, 200);
            all.insert(user);
        }
        for limit in [1, 5, 12, 1000] {
            let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let page = list(&bridge, &format!("?limit={limit}&state=ready{after}")).await;
                assert!(users(&page).len() <= limit);
                seen.extend(users(&page).into_iter().map(str::to_owned));
                pages += 1;
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!((seen.len(), seen.into_iter().collect::<BTreeSet<_>>()), (12, all.clone()), "{limit}");
            assert!(pages <= 12 / limit + 1, "{pages} pages of {limit}");
        }
        bridge.finish().await;
    });
}

#[test]
fn list_needs_the_scope_admin_and_covers_the_key() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let sandbox_only =
                CallerConfig { bots: Some(vec![config.bots[0].name.clone()]), ..caller("bot", ADMIN, "") };
            config.callers = vec![
                caller("crm", SEND, ""),
                caller("ops", ADMIN, ""),
                caller("eu", ADMIN, "eu-"),
                sandbox_only,
            ];
        })
        .await;
        let send = async |key: &str, request: Request| -> Answer {
            bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await
        };
        let get = |query: &str| Request::get(format!("/conversations{query}"));
        for user in ["eu-1", "us-1"] {
            let posted = send("crm", Request::message(user, &json!({"text": "hi"}))).await;
            assert!(matches!(posted.status, 200 | 202), "{posted}");
        }
        bridge.send(get("")).await.problem(401, "unauthorized");
        send("crm", get("")).await.problem(403, "forbidden");
        assert_eq!(users(&send("ops", get("")).await.message(200)), ["us-1", "eu-1"]);
        assert_eq!(users(&send("eu", get("")).await.message(200)), ["eu-1"]);
        assert_eq!(users(&send("bot", get("?bot=sandbox")).await.message(200)), ["us-1", "eu-1"]);
        send("bot", get("?bot=other")).await.problem(403, "forbidden");
        assert_eq!(users(&send("ops", get("?bot=other")).await.message(200)), [""; 0]);
        for bad in [
            "?state=open",
            "?active=maybe",
            "?limit=0",
            "?after=x",
            "?user=x",
            "?bot=%20",
            "?active=5",
            "?state=",
        ] {
            send("ops", get(bad)).await.problem(400, "invalid-request");
        }
        let post = send("ops", Request::new("POST", "/conversations")).await;
        post.problem(405, "method-not-allowed");
        let head = send("ops", Request::new("HEAD", "/conversations")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        bridge.finish().await;
    });
}
