//! Probes, metrics and shutdown (api.md 7).

use std::collections::HashMap;
use std::time::Duration;

use rtm_bridge::config::CallerScopes;
use rtm_bridge::config::fixtures::caller;
use rtm_sandbox::{Gate, SocketEnd, Step};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, Request, TestBridge, run, spawn_bridge};

#[test]
fn running_bridge_is_alive_and_ready() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        assert_eq!(bridge.admin.get("/livez").await.status, 200);
        let ready = bridge.admin.get("/readyz").await;
        assert_eq!(ready.status, 200);
        let checks = ready.json()["checks"].clone();
        assert!(checks.as_array().unwrap().iter().all(|check| check["ok"] == true), "{checks}");
        bridge.admin.get("/conversations/alice/messages").await.problem(404, "not-found");
        let post = bridge.admin.send(Request::new("POST", "/readyz")).await;
        post.problem(405, "method-not-allowed");
        assert_eq!(post.header("allow"), Some("GET, HEAD"));
        bridge.finish().await;
    });
}

#[test]
fn health_pages_of_the_api_need_no_key_and_tell_no_detail() {
    run(async {
        let scopes = CallerScopes { send: true, read: true, admin: false };
        let bridge = spawn_bridge(|config| config.callers = vec![caller("crm", scopes)]).await;
        bridge.api.get("/conversations/alice").await.problem(401, "unauthorized");
        for (path, page) in [("/livez", json!({"live": true})), ("/readyz", json!({"ready": true}))] {
            let answer = bridge.api.get(path).await;
            assert_eq!((answer.status, answer.json()), (200, page));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(bridge.api.send(Request::new("HEAD", path)).await.status, 200);
            let post = bridge.api.send(Request::new("POST", path)).await;
            post.problem(405, "method-not-allowed");
            assert_eq!(post.header("allow"), Some("GET, HEAD"));
        }
        // Probes are no requests of callers.
        let counted = scrape(&bridge).await;
        assert!(!counted.keys().any(|series| series.contains(r#"route="/readyz""#)), "{counted:?}");
        bridge.finish().await;
    });
}

#[test]
fn metrics_ask_for_their_token() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.metrics_token = Some("scrape-me".into())).await;
        let scrape = |authorization: Option<&str>| {
            let request = Request::get("/metrics");
            bridge.admin.send(match authorization {
                Some(value) => request.header("Authorization", value),
                None => request,
            })
        };
        for wrong in [
            None,
            Some("Bearer other"),
            Some("scrape-me"),
            Some("Basic scrape-me"),
            Some("Bearer scrape-me2"),
        ] {
            let refused = scrape(wrong).await;
            refused.problem(401, "unauthorized");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
            assert!(!refused.text().contains("scrape-me"), "{refused}");
        }
        assert_eq!(scrape(Some("Bearer scrape-me")).await.status, 200);
        assert_eq!(bridge.admin.get("/readyz").await.status, 200, "probes have no token");
        bridge.finish().await;
    });
}

/// Returns the samples of a scrape. Checks the text format (version 0.0.4): every sample belongs to a family with help
/// and type, and occurs once.
async fn scrape(bridge: &TestBridge) -> HashMap<String, String> {
    let answer = bridge.admin.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.text().ends_with('\n'));
    let mut family = String::new();
    let mut samples = HashMap::new();
    for line in answer.text().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&family), "{line} in {family}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series.to_owned(), value.to_owned()).is_none(), "{line} twice");
        }
    }
    samples
}

#[test]
fn metrics_follow_the_turns() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let before = scrape(&bridge).await;
        bridge.script.next("alice", vec![Step::Ack, Step::Say("x".to_owned()), Step::WaitingForInput]);
        bridge.post("alice", &json!({"text": "hi"})).await.message(200);
        bridge.script.next("alice", vec![Step::Ack]);
        let body = json!({"text": "hi", "turn": {"deadlineMs": 500}});
        bridge.post("alice", &body).await.problem(504, "no-reply");
        bridge.script.push("alice", vec![Step::Close(1000)]);
        bridge.script.closed("alice", 1).await;
        while bridge.metric(r#"socket_closes_total{bot="sandbox",code="1000"}"#).await < 1 {}
        bridge.api.get("/nowhere").await.problem(404, "not-found");

        let after = scrape(&bridge).await;
        let messages = "/conversations/{user}/messages";
        let requests = |code, method, route| {
            let name = "http_request_duration_seconds_count";
            format!(r#"{name}{{code="{code}",method="{method}",route="{route}"}}"#)
        };
        for (series, moved) in [
            (r#"turns_total{bot="sandbox",outcome="inputWait"}"#.to_owned(), 1),
            (r#"turns_total{bot="sandbox",outcome="no-reply"}"#.to_owned(), 1),
            (r#"turns_total{bot="sandbox",outcome="no-ack"}"#.to_owned(), 0),
            (r#"turn_stage_duration_seconds_count{bot="sandbox",stage="queue"}"#.to_owned(), 2),
            (r#"turn_stage_duration_seconds_count{bot="sandbox",stage="connect"}"#.to_owned(), 2),
            (r#"turn_stage_duration_seconds_count{bot="sandbox",stage="ack"}"#.to_owned(), 2),
            (r#"turn_stage_duration_seconds_count{bot="sandbox",stage="first_reply"}"#.to_owned(), 1),
            (r#"turn_stage_duration_seconds_count{bot="sandbox",stage="end"}"#.to_owned(), 2),
            (r#"connects_total{bot="sandbox",phase="socket",result="ok"}"#.to_owned(), 1),
            (r#"frames_total{bot="sandbox",direction="out",type="message"}"#.to_owned(), 2),
            (r#"frames_total{bot="sandbox",direction="in",type="ack"}"#.to_owned(), 2),
            (r#"socket_closes_total{bot="sandbox",code="1000"}"#.to_owned(), 1),
            (requests("200", "POST", messages), 1),
            (requests("504", "POST", messages), 1),
            (requests("404", "GET", "other"), 1),
            ("panics_total".to_owned(), 0),
        ] {
            let series = format!("rtm_bridge_{series}");
            let value = |samples: &HashMap<String, String>| samples.get(&series)?.parse::<u64>().ok();
            // The series of a status code appears with its first request.
            let before = value(&before).unwrap_or_default();
            assert_eq!(value(&after).map(|after| after - before), Some(moved), "{series}");
        }
        assert!(after.keys().any(|series| series.starts_with("process_")));
        assert!(!after.keys().any(|series| series.contains("alice")), "users are in no label");
        bridge.finish().await;
    });
}

#[test]
fn gauges_show_sockets_and_open_messages() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        bridge.script.next("alice", vec![Step::Until(gate.clone()), Step::Ack, Step::Say("x".to_owned())]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let location = bridge.post_async("alice", &body).await;
        bridge.script.seen("alice", 1).await;
        let ready = r#"sockets{bot="sandbox",state="ready"}"#;
        while bridge.metric("open_messages").await < 1 {}
        assert_eq!(bridge.metric(ready).await, 1);
        assert_eq!(bridge.metric("conversations").await, 1);
        gate.open();
        bridge.ended(&location).await;
        while bridge.metric("open_messages").await > 0 {}
        assert_eq!(bridge.metric(ready).await, 1, "the socket stays");
        bridge.finish().await;
    });
}

#[test]
fn stopping_bridge_is_unready_before_it_refuses() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.server.grace = Duration::from_secs(2);
            config.server.drain_timeout = Duration::from_secs(8);
        })
        .await;
        let gate = Gate::new();
        let steps = |gate: &Gate| vec![Step::Ack, Step::Until(gate.clone()), Step::Say("x".to_owned())];
        bridge.script.next("alice", steps(&gate));
        bridge.script.next("bob", Step::reply("in time"));
        bridge.script.next("bob", Step::reply("in time, too"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let held = Request::message("alice", &body).prefer("wait=20");
        let (stop, script, api, admin, sandbox) = bridge.into_stop();
        let waiting = api.send(held);
        let during = async {
            script.seen("alice", 1).await;
            while admin.get("/readyz").await.status == 200 {}
            let ready = admin.get("/readyz").await;
            assert_eq!(ready.status, 503);
            let checks = ready.json()["checks"].clone();
            let drain = checks.as_array().unwrap().iter().find(|check| check["name"] == "drain").unwrap();
            assert_eq!(drain["ok"], false);
            assert_eq!(admin.get("/livez").await.status, 200, "it lives on");
            let page = api.get("/readyz").await;
            assert_eq!((page.status, page.json()), (503, json!({"ready": false})));
            assert_eq!(page.header("connection"), Some("close"));
            // During `grace` the bridge accepts requests, and each answer closes its connection.
            let answer = api.send(Request::message("bob", &body).prefer("wait=20")).await;
            answer.message(200);
            assert_eq!(answer.header("connection"), Some("close"));
            // A repeated message takes only one place.
            let again = Request::message("bob", &body).header("Idempotency-Key", "k");
            let refused = loop {
                let answer = api.send(again.clone()).await;
                if answer.status != 200 {
                    break answer;
                }
            };
            refused.problem(503, "draining");
            assert!(refused.retry_after() >= 1);
            assert_eq!(refused.header("connection"), Some("close"));
            gate.open();
        };
        let stop = async {
            script.seen("alice", 1).await;
            stop.await;
        };
        let (answer, (), ()) = tokio::join!(waiting, during, stop);
        // A turn that ends in time is answered.
        assert_eq!(answer.message(200)["replies"][0]["text"], "x");
        for user in ["alice", "bob"] {
            let seen = script.closed(user, 1).await;
            assert!(matches!(seen.closes[0].ending, SocketEnd::ByClient(Some(_))), "{:?}", seen.closes[0]);
        }
        sandbox.stop().await;
    });
}

#[test]
fn idle_connection_closes_before_requests_are_refused() {
    run(async {
        let bridge = spawn_bridge(|config| {
            // Idle connections close when a tenth of the grace is left.
            config.server.grace = Duration::from_secs(5);
            config.server.drain_timeout = Duration::from_secs(15);
        })
        .await;
        let gate = Gate::new();
        bridge.script.next("alice", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("x".to_owned())]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let location = bridge.post_async("alice", &body).await;
        let mut idle = TcpStream::connect(bridge.api.0).await.unwrap();
        idle.write_all(&Request::get(&*location).into_bytes(bridge.api.0)).await.unwrap();
        let answer = Answer::read(&mut idle, false).await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None), "it may be kept");
        let (stop, _, api, _, sandbox) = bridge.into_stop();
        let during = async {
            assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "it is closed");
            // A new connection works: the bridge still accepts requests.
            api.send(Request::message("bob", &body)).await.message(200);
            gate.open();
        };
        tokio::join!(during, stop);
        sandbox.stop().await;
    });
}

#[test]
fn unfinished_turn_is_handed_off_in_its_state() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.server.drain_timeout = Duration::from_secs(3);
            // A later request is answered at once with the current state.
            config.server.grace = Duration::from_millis(1500);
        })
        .await;
        bridge.script.next("alice", vec![Step::Ack, Step::Say("half".to_owned()), Step::Until(Gate::new())]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 2}});
        let location = bridge.post_async("alice", &body).await;
        bridge.read_when(&location, |message| message["status"] == "answering").await;
        let (stop, script, api, _, sandbox) = bridge.into_stop();
        let began = tokio::time::Instant::now();
        let waiting = async {
            let answer = api.send(Request::get(location).prefer("wait=20")).await;
            (answer, began.elapsed())
        };
        let stop = async {
            stop.await;
            began.elapsed()
        };
        let ((answer, answered), stopped) = tokio::join!(waiting, stop);
        let message = answer.message(200);
        assert_eq!(message["status"], "answering");
        assert_eq!(message["complete"], Value::Null);
        assert_eq!(message["replies"][0]["text"], "half");
        // At two thirds of `drain_timeout`.
        assert!((1900..2900).contains(&answered.as_millis()), "{answered:?}");
        assert!(stopped < Duration::from_millis(3500), "{stopped:?}");
        let seen = script.closed("alice", 1).await;
        assert!(matches!(seen.closes[0].ending, SocketEnd::ByClient(Some(_))), "{:?}", seen.closes[0]);
        sandbox.stop().await;
    });
}

#[test]
fn post_with_unfinished_turn_is_202_at_the_stop() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.drain_timeout = Duration::from_millis(1500)).await;
        bridge.script.next("alice", vec![Step::Ack]);
        let request = Request::message("alice", &json!({"text": "hi"})).prefer("wait=20");
        let (stop, script, api, _, sandbox) = bridge.into_stop();
        let stop = async {
            script.seen("alice", 1).await;
            stop.await;
        };
        let (answer, ()) = tokio::join!(api.send(request), stop);
        let message = answer.message(202);
        assert_eq!(answer.retry_after(), 1);
        assert!(["sent", "acked"].contains(&message["status"].as_str().unwrap()), "{message}");
        sandbox.stop().await;
    });
}
