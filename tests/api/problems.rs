//! Every failure has one form, and names the error and its place (api.md 5).

use std::collections::BTreeSet;

use rtm_bridge::domain::ProblemKind;
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use crate::support::{Answer, Request, bot, run, spawn_bridge};

/// Returns the pointers of a 400.
#[track_caller]
fn pointers(answer: &Answer) -> BTreeSet<String> {
    let problem = answer.problem(400, "invalid-request");
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()), "{answer}");
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

fn set(pointers: &[&str]) -> BTreeSet<String> {
    pointers.iter().map(|&pointer| pointer.to_owned()).collect()
}

#[test]
fn every_error_in_a_body_has_its_pointer() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(64 * 1024 + 1));
        for (body, expected) in [
            ("", &[""][..]),
            ("{", &[""]),
            ("[]", &[""]),
            ("null", &[""]),
            ("{\"text\":\"a\"} x", &[""]),
            ("{}", &["/text"]),
            ("{\"text\":null}", &["/text"]),
            ("{\"text\":\"\"}", &["/text"]),
            ("{\"text\":7}", &["/text"]),
            (&long, &["/text"]),
            ("{\"text\":\"a\",\"txt\":1}", &["/txt"]),
            ("{\"text\":\"a\",\"a/b~c\":1}", &["/a~1b~0c"]),
            ("{\"text\":\"a\",\"session\":\"fresh\"}", &["/session"]),
            ("{\"text\":\"a\",\"resend\":\"always\"}", &["/resend"]),
            ("{\"text\":\"a\",\"customData\":[]}", &["/customData"]),
            ("{\"text\":\"a\",\"attachments\":[{\"fileId\":1}]}", &["/attachments/0/fileId"]),
            ("{\"text\":\"a\",\"turn\":{\"expectReplies\":0}}", &["/turn/expectReplies"]),
            ("{\"text\":\"a\",\"turn\":{\"expectReplies\":51}}", &["/turn/expectReplies"]),
            ("{\"text\":\"a\",\"turn\":{\"expectReplies\":1.5}}", &["/turn/expectReplies"]),
            ("{\"text\":\"a\",\"turn\":{\"quietMs\":49}}", &["/turn/quietMs"]),
            ("{\"text\":\"a\",\"turn\":{\"quietMs\":60001}}", &["/turn/quietMs"]),
            ("{\"text\":\"a\",\"turn\":{\"deadlineMs\":499}}", &["/turn/deadlineMs"]),
            ("{\"text\":\"a\",\"turn\":{\"deadlineMs\":600001}}", &["/turn/deadlineMs"]),
            ("{\"text\":\"a\",\"turn\":{\"quiteMs\":100}}", &["/turn/quiteMs"]),
            // All errors at once.
            (
                "{\"txt\":1,\"session\":3,\"turn\":{\"quietMs\":1}}",
                &["/text", "/txt", "/session", "/turn/quietMs"],
            ),
        ] {
            let request = Request::new("POST", "/conversations/alice/messages")
                .header("Content-Type", "application/json")
                .body(body);
            let short: String = body.chars().take(80).collect();
            assert_eq!(pointers(&bridge.send(request).await), set(expected), "{short}");
        }
        assert_eq!(bridge.script.totals().grants, 0, "nothing was accepted");
        bridge.finish().await;
    });
}

#[test]
fn every_error_outside_a_body_has_its_pointer() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let long = "u".repeat(257);
        let key = "k".repeat(256);
        for (target, headers, expected) in [
            ("/conversations/a%00b/messages", &[][..], &["path/user"][..]),
            ("/conversations/a%0Ab/messages", &[], &["path/user"]),
            ("/conversations/%zz/messages", &[], &["path/user"]),
            ("/conversations/%ff/messages", &[], &["path/user"]),
            (&format!("/conversations/{long}/messages"), &[], &["path/user"]),
            ("/conversations/alice/messages?bto=sandbox", &[], &["query/bto"]),
            ("/conversations/alice/messages?bot=", &[], &["query/bot"]),
            ("/conversations/alice/messages", &[("Idempotency-Key", "a b")], &["header/Idempotency-Key"]),
            ("/conversations/alice/messages", &[("Idempotency-Key", &key)], &["header/Idempotency-Key"]),
            (
                "/conversations/alice/messages?x=1",
                &[("Prefer", "wait"), ("Idempotency-Key", "ä")],
                &["query/x", "header/Idempotency-Key"],
            ),
        ] {
            let mut request = Request::new("POST", target).json(&json!({"text": "hi"}));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            assert_eq!(pointers(&bridge.send(request).await), set(expected), "{target} {headers:?}");
        }
        // A preference that cannot be honoured is none.
        let get = Request::get("/conversations/alice/messages/01JD9ZZZZZZZZZZZZZZZZZZZZZ");
        bridge.send(get.prefer("wait=-1")).await.problem(404, "not-found");
        // The longest valid user.
        let request = Request::message(&"u".repeat(256), &json!({"text": "hi"})).prefer("wait=0");
        let location = bridge.send(request).await.header("location").unwrap().to_owned();
        bridge.ended(&location).await;
        bridge.finish().await;
    });
}

#[test]
fn missing_resource_is_404() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let answer = bridge.post("alice", &json!({"text": "hi"})).await;
        let id = answer.message(200)["id"].as_str().unwrap().to_owned();
        for target in [
            "/",
            "/problems/nonsense",
            "/conversations/alice/messages/not-an-id",
            "/conversations/alice/messages/01JD9ZZZZZZZZZZZZZZZZZZZZZ",
            "/conversations/alice/messages/01JD9ZZZZZZZZZZZZZZZZZZZZZ?bot=sandbox",
            &format!("/conversations/alice/messages/{id}?bot=another"),
            &format!("/conversations/bob/messages/{id}"),
            "/metrics",
        ] {
            let answer = bridge.api.get(target).await;
            let problem = answer.problem(404, "not-found");
            assert_eq!(problem["instance"], target.split('?').next().unwrap());
        }
        let request = Request::new("POST", "/conversations/alice/messages?bot=another");
        bridge.send(request.json(&json!({"text": "hi"}))).await.problem(404, "not-found");
        bridge.finish().await;
    });
}

#[test]
fn wrong_method_is_405_with_the_allowed_ones() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let id = "01JD9ZZZZZZZZZZZZZZZZZZZZZ";
        for (method, target, allow) in [
            ("GET", "/conversations/alice/messages".to_owned(), "POST"),
            ("PUT", "/conversations/alice/messages".to_owned(), "POST"),
            ("DELETE", format!("/conversations/alice/messages/{id}"), "GET, HEAD"),
            ("POST", "/openapi.json".to_owned(), "GET, HEAD"),
            ("POST", "/problems/draining".to_owned(), "GET, HEAD"),
        ] {
            let answer = bridge.send(Request::new(method, target)).await;
            answer.problem(405, "method-not-allowed");
            assert_eq!(answer.header("allow"), Some(allow), "{method}");
        }
        bridge.finish().await;
    });
}

#[test]
fn large_or_non_json_body_is_refused_unread() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let post = || Request::new("POST", "/conversations/alice/messages");
        let large = post().json(&json!({"text": "hi", "customData": {"x": "y".repeat(1024 * 1024)}}));
        let answer = bridge.send(large).await;
        let problem = answer.problem(413, "payload-too-large");
        assert_eq!(problem.get("message"), None, "nothing was accepted");
        assert_eq!(answer.header("connection"), Some("close"));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            let request = post().header("Content-Type", kind).body("{\"text\":\"hi\"}");
            bridge.send(request).await.problem(415, "unsupported-media-type");
        }
        bridge.send(post().body("{\"text\":\"hi\"}")).await.problem(415, "unsupported-media-type");
        let packed = post().json(&json!({"text": "hi"})).header("Content-Encoding", "gzip");
        bridge.send(packed).await.problem(415, "unsupported-media-type");
        // All types of JSON.
        for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.example+json"] {
            let request = post().header("Content-Type", kind).body("{\"text\":\"hi\"}");
            bridge.send(request).await.message(200);
        }
        bridge.finish().await;
    });
}

#[test]
fn callback_is_refused_if_none_is_allowed() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let body = json!({"text": "hi", "callback": {"url": "https://legacy.example/hook"}});
        bridge.post("alice", &body).await.problem(422, "callback-refused");
        bridge.finish().await;
    });
}

#[test]
fn full_lane_refuses_until_a_message_ends() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).max_open_messages = 2).await;
        let gate = Gate::new();
        let steps = || vec![Step::Until(gate.clone()), Step::Ack, Step::Say("x".to_owned())];
        bridge.script.next("alice", steps());
        bridge.script.next("alice", steps());
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let first = bridge.post_async("alice", &body).await;
        let second = bridge.post_async("alice", &body).await;
        let answer = bridge.post("alice", &body).await;
        let problem = answer.problem(429, "lane-full");
        assert!(answer.retry_after() >= 1);
        assert!(problem["detail"].as_str().unwrap().contains('2'));
        assert_eq!(problem.get("message"), None);
        // Other users have their own lanes.
        bridge.script.next("bob", Step::reply("x"));
        bridge.post("bob", &body).await.message(200);
        gate.open();
        bridge.ended(&first).await;
        bridge.ended(&second).await;
        bridge.script.next("alice", Step::reply("x"));
        bridge.post("alice", &body).await.message(200);
        bridge.finish().await;
    });
}

/// Checks that a bridge at its limit refuses a message, and recovers.
async fn overload(change: impl FnOnce(&mut rtm_bridge::config::Config)) {
    let bridge = spawn_bridge(change).await;
    let gate = Gate::new();
    bridge.script.next("alice", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("x".to_owned())]);
    let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
    let first = bridge.post("alice", &body);
    let more = async {
        bridge.script.seen("alice", 1).await;
        let answer = bridge.post("bob", &body).await;
        let problem = answer.problem(503, "overloaded");
        assert!(answer.retry_after() >= 1);
        assert_eq!(problem.get("message"), None);
        gate.open();
    };
    let (first, ()) = tokio::join!(first, more);
    first.message(200);
    assert_eq!(bridge.script.observed("bob").messages.count(), 0);
    bridge.script.next("bob", Step::reply("x"));
    // The count of an ended message falls a moment later.
    while bridge.post("bob", &body).await.status == 503 {}
    bridge.finish().await;
}

#[test]
fn bridge_with_all_sockets_in_turns_is_overloaded() {
    run(overload(|config| config.server.max_sockets = 1));
}

#[test]
fn bridge_with_too_many_requests_is_overloaded() {
    run(overload(|config| config.server.max_requests = 1));
}

#[test]
fn store_full_of_open_messages_is_overloaded() {
    run(async {
        let bridge = spawn_bridge(|config| config.store.memory_limit = 128 << 10).await;
        let gate = Gate::new();
        bridge.script.bot({
            let gate = gate.clone();
            move |_, _| vec![Step::Until(gate.clone()), Step::Ack, Step::Say("x".to_owned())]
        });
        let body = json!({"text": "x".repeat(20_000), "turn": {"expectReplies": 1}});
        let mut taken = Vec::new();
        let refused = loop {
            let request = Request::message("alice", &body).prefer("respond-async");
            let answer = bridge.send(request).await;
            if answer.status != 202 {
                break answer;
            }
            taken.push(answer.header("location").unwrap().to_owned());
        };
        assert!((1..=6).contains(&taken.len()), "{}", taken.len());
        refused.problem(503, "overloaded");
        assert!(refused.retry_after() >= 1);
        // The accepted message is answered, and an ended one makes room.
        gate.open();
        let last = taken.last().unwrap();
        assert_eq!(bridge.ended(last).await["status"], "answered");
        bridge.post("alice", &body).await.message(200);
        bridge.finish().await;
    });
}

#[test]
fn callers_trace_continues() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let request =
            Request::get("/nowhere").header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
        assert_eq!(bridge.send(request).await.problem(404, "not-found")["traceId"], trace);
        let other = bridge.api.get("/nowhere").await.problem(404, "not-found");
        assert_ne!(other["traceId"], trace);
        bridge.finish().await;
    });
}

#[test]
fn every_problem_has_a_page() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for kind in ProblemKind::ALL {
            let page = bridge.api.get(format!("/problems/{}", kind.slug())).await;
            assert_eq!(page.status, 200);
            assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page}");
            assert!(page.text().contains(kind.title()), "{page}");
        }
        bridge.finish().await;
    });
}

#[test]
fn api_description_is_served() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let answer = bridge.api.get("/openapi.json").await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with("application/json"));
        let openapi: Value = answer.json();
        assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"), "{}", openapi["openapi"]);
        assert!(openapi["paths"]["/conversations/{user}/messages"]["post"].is_object());
        assert!(openapi["paths"]["/conversations/{user}/messages/{id}"]["get"].is_object());
        let docs = bridge.api.get("/docs").await;
        assert_eq!(docs.status, 200);
        assert!(docs.header("content-type").unwrap().starts_with("text/html"));
        let head = bridge.send(Request::new("HEAD", "/docs")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        bridge.finish().await;
    });
}
