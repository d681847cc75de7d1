//! Callbacks as callers request them (api.md 4): the accepted URLs, and the answer to a POST with one.

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{CallerConfig, CallerScopes, Config};
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use crate::support::{Answer, Request, TestBridge, run, spawn_bridge};

/// A closed port at a private address, to which no request is sent.
const TARGET: &str = "http://127.0.0.1:9/in/crm";

/// Returns a caller with a webhook secret whose key is its name.
fn signing(name: &str) -> CallerConfig {
    CallerConfig {
        webhook_secrets: vec![format!("whsec_{}", "QUFB".repeat(8)).into()],
        ..caller(name, CallerScopes { send: true, read: true, admin: true })
    }
}

async fn allowing(patterns: &[&str]) -> TestBridge {
    let bridge = spawn_bridge(|config: &mut Config| {
        config.webhooks.allowed = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        config.callers =
            vec![signing("crm"), CallerConfig { webhook_secrets: Vec::new(), ..signing("mute") }];
    })
    .await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

fn body(url: &str) -> Value {
    json!({"text": "hi", "turn": {"expectReplies": 1}, "callback": {"url": url}})
}

async fn post(bridge: &TestBridge, key: &str, url: &str) -> Answer {
    let request = Request::message("alice", &body(url));
    bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await
}

#[test]
fn post_with_a_callback_waits_only_on_request() {
    run(async {
        let bridge = allowing(&["http://127.0.0.1:9/in"]).await;
        let gate = Gate::new();
        bridge.script.next("alice", vec![Step::Until(gate.clone()), Step::Ack, Step::Say("x".to_owned())]);
        // The bot is silent until the POST is answered.
        let answer = post(&bridge, "crm", TARGET).await;
        let message = answer.message(202);
        assert_eq!(message["callback"], json!({"url": TARGET}));
        assert_eq!(answer.retry_after(), 1);
        gate.open();
        let location = answer.header("location").unwrap().to_owned();
        let read = Request::get(location).prefer("wait=20").header("Authorization", "Bearer crm");
        let ended = bridge.send(read).await.message(200);
        assert_eq!((&ended["status"], &ended["callback"]), (&json!("answered"), &json!({"url": TARGET})));
        // A POST with `wait` waits.
        let request = Request::message("alice", &body(TARGET)).prefer("wait=20");
        let answer = bridge.send(request.header("Authorization", "Bearer crm")).await;
        assert_eq!(answer.message(200)["status"], "answered");
        assert_eq!(answer.header("preference-applied"), Some("wait=20"));
        // The target has no receiver.
        bridge.finish_leaving(2).await;
    });
}

#[test]
fn callback_not_allowed_or_unsigned_is_refused() {
    run(async {
        let patterns = ["http://127.0.0.1:9/in", "https://*.example.com/hooks"];
        let bridge = allowing(&patterns).await;
        for (url, word) in [
            ("https://elsewhere.example/hooks", "https://*.example.com/hooks"),
            ("https://a.example.com/hooksX", "http://127.0.0.1:9/in"),
            ("http://a.example.com/hooks", "http://127.0.0.1:9/in"),
            ("https://a.example.com/hooks/../admin", "dot segment"),
            ("https://a.example.com/hooks/%2e%2e/admin", "dot segment"),
            ("https://a.example.com/hooks%2fadmin", "escaped slash"),
            ("https://me:hush@a.example.com/hooks", "credentials"),
            ("https://a.example.com/hooks#x", "fragment"),
            ("https://a.example.com\\hooks", "backslash"),
        ] {
            let problem = post(&bridge, "crm", url).await.problem(422, "callback-refused");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(word) && !detail.contains("hush"), "{url}: {detail}");
            assert_eq!(problem.get("message"), None, "the message was accepted");
        }
        let problem = post(&bridge, "mute", TARGET).await.problem(422, "callback-refused");
        assert!(problem["detail"].as_str().unwrap().contains("secret"), "{problem}");
        for url in ["/in/crm", "ftp://127.0.0.1:9/in", "http://127.0.0.1:99999/in"] {
            let problem = post(&bridge, "crm", url).await.problem(400, "invalid-request");
            assert_eq!(problem["errors"][0]["pointer"], "/callback/url");
        }
        assert_eq!(bridge.script.totals().messages, 0);
        bridge.finish().await;
    });
}

#[test]
fn repeat_with_another_callback_is_a_mismatch() {
    run(async {
        let bridge = allowing(&["http://127.0.0.1:9/"]).await;
        let send = |url: &str| {
            let request = Request::message("alice", &body(url)).header("Idempotency-Key", "k");
            bridge.send(request.prefer("wait=20").header("Authorization", "Bearer crm"))
        };
        let first = send(TARGET).await.message(200);
        assert_eq!(send(TARGET).await.message(200)["id"], first["id"]);
        send("http://127.0.0.1:9/out").await.problem(422, "idempotency-mismatch");
        bridge.finish_leaving(1).await;
    });
}
