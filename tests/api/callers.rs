//! Callers and their rights (api.md 6).

use std::sync::Arc;

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{BotConfig, CallerConfig, CallerScopes, Config};
use rtm_bridge::domain::BotName;
use rtm_sandbox::{SandboxOptions, Step};
use serde_json::json;

use crate::support::{Answer, Request, TestBridge, bot, quiet_platform, run, spawn_bridge_on};

const SEND: CallerScopes = CallerScopes { send: true, read: false, admin: false };
const READ: CallerScopes = CallerScopes { send: false, read: true, admin: false };
const ADMIN: CallerScopes = CallerScopes { send: false, read: false, admin: true };

/// Starts a bridge with two bots and several callers.
async fn guarded() -> TestBridge {
    let platform =
        SandboxOptions { bots: vec!["st-sandbox".to_owned(), "st-2".to_owned()], ..quiet_platform() };
    let bridge = spawn_bridge_on(platform, |config: &mut Config| {
        let second = BotConfig {
            name: BotName::new("second").unwrap(),
            task_bot_id: "st-2".to_owned(),
            ..bot(config).clone()
        };
        config.bots.push(Arc::new(second));
        let only = |name: &str| Some(vec![BotName::new(name).unwrap()]);
        config.callers = vec![
            caller("sends", SEND),
            caller("reads", READ),
            caller("administers", ADMIN),
            CallerConfig { bots: only("second"), ..caller("second-only", SEND) },
            CallerConfig { user_prefix: "acme-".to_owned(), ..caller("acme-only", SEND) },
        ];
    })
    .await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

/// Sends a message under a key.
async fn send(bridge: &TestBridge, key: &str, user: &str, query: &str) -> Answer {
    let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
    let request = Request::new("POST", format!("/conversations/{user}/messages{query}")).json(&body);
    bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await
}

#[test]
fn unknown_caller_gets_401() {
    run(async {
        let bridge = guarded().await;
        let request = || Request::message("alice", &json!({"text": "hi"}));
        for authorization in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer nobody"),
            Some("Basic c2VuZHM6"),
            Some("sends"),
            Some("Bearer sends reads"),
        ] {
            let request = match authorization {
                Some(value) => request().header("Authorization", value),
                None => request(),
            };
            let answer = bridge.send(request).await;
            let problem = answer.problem(401, "unauthorized");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{answer}");
            assert!(!problem["detail"].as_str().unwrap().contains("nobody"), "keys are not repeated");
        }
        let get = bridge.api.get("/conversations/alice/messages/01JD9ZZZZZZZZZZZZZZZZZZZZZ").await;
        get.problem(401, "unauthorized");
        // An unknown caller learns nothing about existing resources.
        let body = json!({"txt": 1});
        let wrong = Request::new("POST", "/conversations/alice/messages?bot=nobody").json(&body);
        bridge.send(wrong).await.problem(401, "unauthorized");
        // The scheme's case is ignored.
        bridge.send(request().header("Authorization", "bearer sends")).await.message(200);
        // The API's description needs no key.
        for target in ["/docs", "/openapi.json", "/problems/unauthorized"] {
            assert_eq!(bridge.api.get(target).await.status, 200, "{target}");
        }
        bridge.finish().await;
    });
}

#[test]
fn no_scope_includes_another() {
    run(async {
        let bridge = guarded().await;
        let answer = send(&bridge, "sends", "alice", "").await;
        answer.message(200);
        let location = answer.header("location").unwrap().to_owned();
        for key in ["reads", "administers"] {
            send(&bridge, key, "alice", "").await.problem(403, "forbidden");
        }
        for (key, status) in [("reads", 200), ("sends", 403), ("administers", 403)] {
            let request = Request::get(location.clone());
            let answer = bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await;
            assert_eq!(answer.status, status, "{key}: {answer}");
            if status == 403 {
                answer.problem(403, "forbidden");
            }
        }
        bridge.finish().await;
    });
}

#[test]
fn caller_may_be_limited_to_bots() {
    run(async {
        let bridge = guarded().await;
        let answer = send(&bridge, "second-only", "alice", "?bot=second").await;
        assert_eq!(answer.message(200)["bot"], "second");
        assert!(answer.header("location").unwrap().ends_with("?bot=second"));
        // The default bot, a named bot and a missing bot get the same answer.
        for query in ["", "?bot=sandbox", "?bot=nobody"] {
            send(&bridge, "second-only", "alice", query).await.problem(403, "forbidden");
        }
        assert_eq!(bridge.script.observed(("st-2", "alice")).messages.count(), 1);
        assert_eq!(bridge.script.totals().messages, 1);
        // A caller of all bots learns which bots do not exist.
        send(&bridge, "sends", "alice", "?bot=nobody").await.problem(404, "not-found");
        bridge.finish().await;
    });
}

#[test]
fn caller_may_be_limited_to_a_user_prefix() {
    run(async {
        let bridge = guarded().await;
        send(&bridge, "acme-only", "acme-alice", "").await.message(200);
        send(&bridge, "acme-only", "%61cme-bob", "").await.message(200);
        for user in ["alice", "Acme-alice", "%20acme-alice", "acme"] {
            send(&bridge, "acme-only", user, "").await.problem(403, "forbidden");
        }
        bridge.finish().await;
    });
}

#[test]
fn caller_merges_only_identities_with_its_prefix() {
    run(async {
        let bridge = guarded().await;
        let merge = async |key: &str, identity: &str| {
            let body = json!({"text": "hi", "turn": {"expectReplies": 1}, "mergeWith": identity});
            let request = Request::message("acme-alice", &body);
            bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await
        };
        let problem = merge("acme-only", "bob").await.problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("identity to merge"), "{problem}");
        merge("acme-only", "acme-visitor").await.message(200);
        merge("sends", "bob").await.message(200);
        bridge.finish().await;
    });
}

#[test]
fn user_of_two_bots_has_two_conversations() {
    run(async {
        let bridge = guarded().await;
        let answer = send(&bridge, "sends", "alice", "?bot=second").await;
        let id = answer.message(200)["id"].as_str().unwrap().to_owned();
        let read = |query: &str| {
            let target = format!("/conversations/alice/messages/{id}{query}");
            bridge.send(Request::get(target).header("Authorization", "Bearer reads"))
        };
        read("?bot=second").await.message(200);
        read("").await.problem(404, "not-found");
        bridge.finish().await;
    });
}

#[test]
fn key_covers_conversations_and_events_like_messages() {
    run(async {
        let bridge = guarded().await;
        let call = |method: &str, key: &str, target: &str| {
            let request = Request::new(method, target).header("Authorization", &format!("Bearer {key}"));
            bridge.send(request)
        };
        let (alice, events) = ("/conversations/alice", "/conversations/alice/events");
        for (method, target) in [("GET", alice), ("DELETE", alice), ("GET", events)] {
            bridge.send(Request::new(method, target)).await.problem(401, "unauthorized");
            call(method, "administers", target).await.problem(403, "forbidden");
        }
        for target in [alice, events] {
            call("GET", "reads", target).await.message(200);
            call("GET", "sends", target).await.problem(403, "forbidden");
        }
        call("DELETE", "reads", alice).await.problem(403, "forbidden");
        assert_eq!(call("DELETE", "sends", alice).await.status, 204);
        call("DELETE", "second-only", alice).await.problem(403, "forbidden");
        assert_eq!(call("DELETE", "second-only", "/conversations/alice?bot=second").await.status, 204);
        call("DELETE", "acme-only", alice).await.problem(403, "forbidden");
        assert_eq!(call("DELETE", "acme-only", "/conversations/acme-alice").await.status, 204);
        bridge.finish().await;
    });
}

#[test]
fn caller_may_have_a_rate_limit() {
    run(async {
        let bridge = spawn_bridge_on(quiet_platform(), |config: &mut Config| {
            let both = CallerScopes { read: true, ..SEND };
            config.callers =
                vec![CallerConfig { rate_per_minute: 4, ..caller("few", both) }, caller("many", both)];
        })
        .await;
        let request =
            |key: &str, target: &str| Request::get(target).header("Authorization", &format!("Bearer {key}"));
        let policy = "\"default\";q=4;w=60";
        // A stream has the fields in its head and counts once, however long it lasts.
        let stream = bridge.api.events_with(request("few", "/conversations/alice/events")).await;
        let head = stream.head.join("\n").to_lowercase();
        assert!(head.contains(&format!("ratelimit-policy: {policy}")), "{head}");
        assert!(head.contains("ratelimit: \"default\";r=3;t=15"), "{head}");
        for (target, status, left) in
            [("/conversations/alice", 200, 2), ("/nowhere", 404, 1), ("/conversations/%zz", 400, 0)]
        {
            let answer = bridge.send(request("few", target)).await;
            assert_eq!(answer.status, status, "{answer}");
            assert_eq!(answer.header("ratelimit-policy"), Some(policy));
            assert_eq!(answer.header("ratelimit"), Some(format!("\"default\";r={left};t=15").as_str()));
        }
        let refused = send(&bridge, "few", "alice", "").await;
        let problem = refused.problem(429, "rate-limited");
        assert!(problem["detail"].as_str().unwrap().contains('4'), "{problem}");
        assert!((1..=15).contains(&refused.retry_after()), "{refused}");
        assert!(refused.header("ratelimit").unwrap().starts_with("\"default\";r=0;t="), "{refused}");
        assert_eq!(bridge.script.totals().messages, 0, "nothing was accepted");
        // Other callers have their own limits or none. Without a limit the fields are absent.
        let free = bridge.send(request("many", "/conversations/alice")).await;
        free.message(200);
        assert_eq!(free.header("ratelimit"), None);
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn caller_may_have_a_limit_of_open_requests() {
    run(async {
        let bridge = spawn_bridge_on(quiet_platform(), |config: &mut Config| {
            let both = CallerScopes { read: true, ..SEND };
            config.callers =
                vec![CallerConfig { max_open_requests: 2, ..caller("few", both) }, caller("many", both)];
        })
        .await;
        let request =
            |key: &str, target: &str| Request::get(target).header("Authorization", &format!("Bearer {key}"));
        let events = "/conversations/alice/events";
        // A stream and a wait take one permit each, on all routes together.
        let stream = bridge.api.events_with(request("few", events)).await;
        let wait = bridge.send(request("few", events).prefer("wait=20"));
        let others = async {
            while bridge.metric("subscribers").await < 2 {}
            for target in ["/conversations/alice", events, "/conversations/alice/messages/x"] {
                let refused = bridge.send(request("few", target)).await;
                let problem = refused.problem(429, "rate-limited");
                assert!(problem["detail"].as_str().unwrap().contains('2'), "{problem}");
                assert_eq!(refused.retry_after(), 1);
            }
            send(&bridge, "few", "alice", "").await.problem(429, "rate-limited");
            // A caller without a limit is not affected.
            bridge.send(request("many", events)).await.message(200);
            // A caller that hangs up returns its permit.
            drop(stream);
            while bridge.send(request("few", "/conversations/alice")).await.status == 429 {}
            bridge.script.bot(|_, _| Step::reply("x"));
            send(&bridge, "few", "alice", "").await.message(200);
        };
        let (wait, ()) = tokio::join!(wait, others);
        wait.message(200);
        bridge.finish().await;
    });
}
