//! Messages that only connect, so that the bot speaks first, and what a connection tells of its user (api.md 1).

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use rtm_bridge::config::AssertionServiceConfig;
use rtm_sandbox::{Behaviour, CLIENT_ID, CLIENT_SECRET, CutMode, Gate, SandboxOptions, Step, WelcomeTime};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::{Request, TestBridge, bot, quiet_platform, run, spawn_bridge, spawn_bridge_on};

/// A platform whose bot greets.
fn greeting_platform() -> SandboxOptions {
    let behaviour = Behaviour { welcome: WelcomeTime::OnConnect, ..Behaviour::default() };
    SandboxOptions { behaviour, ..quiet_platform() }
}

/// Sends a message that the bot answers.
async fn answered(bridge: &TestBridge, body: Value) {
    bridge.script.next("alice", Step::reply("x"));
    let mut body = body;
    body["turn"] = json!({"expectReplies": 1});
    bridge.post("alice", &body).await.message(200);
}

/// Connects to a bot that says nothing.
async fn silent(bridge: &TestBridge, body: Value) -> Value {
    let mut body = body;
    body["event"] = json!("connect");
    body["turn"] = json!({"deadlineMs": 500});
    let message = bridge.post("alice", &body).await.message(200);
    assert_eq!((&message["endedBy"], &message["replies"]), (&json!("silence"), &json!([])), "{message}");
    message
}

#[test]
fn greeting_of_the_bot_answers_a_connect() {
    run(async {
        for welcome in [Duration::ZERO, Duration::from_millis(500)] {
            let bridge = spawn_bridge_on(greeting_platform(), |config| bot(config).welcome = welcome).await;
            let message = bridge.post("alice", &json!({"event": "connect"})).await.message(200);
            assert_eq!((&message["event"], &message["text"]), (&json!("connect"), &json!("")));
            assert_eq!((&message["status"], &message["complete"]), (&json!("answered"), &json!(true)));
            let reply = &message["replies"][0];
            assert!(reply["text"].as_str().unwrap().starts_with("Hello!"), "{message}");
            assert_eq!((&reply["inReplyTo"], &reply["correlation"]), (&message["id"], &json!("window")));
            assert!(message["sentAt"].is_string() && message["ackedAt"].is_null(), "{message}");
            let seen = bridge.script.observed("alice");
            assert_eq!((seen.messages.count(), seen.others.count()), (0, 0), "no frame is sent");
            assert_eq!(seen.connects[0].mode.as_deref(), Some("Start_New"));
            bridge.finish().await;
        }
    });
}

#[test]
fn connect_is_told_in_the_events() {
    run(async {
        let bridge = spawn_bridge_on(greeting_platform(), |_| {}).await;
        let message = bridge.post("alice", &json!({"event": "connect"})).await.message(200);
        let page = bridge.api.get("/conversations/alice/events").await.message(200);
        let events = page["events"].as_array().unwrap();
        let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap()["data"].clone();
        assert_eq!(of("reply")["inReplyTo"], message["id"]);
        assert_eq!(of("message.answered"), message);
        let read =
            bridge.api.get(format!("/conversations/alice/messages/{}", message["id"].as_str().unwrap()));
        assert_eq!(read.await.message(200), message);
        bridge.finish().await;
    });
}

#[test]
fn silence_of_the_bot_is_an_answer_to_a_connect() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let message = silent(&bridge, json!({})).await;
        assert_eq!((&message["status"], &message["complete"]), (&json!("answered"), &json!(true)));
        assert_eq!(message["firstReplyAt"], Value::Null);
        let began = Instant::now();
        let by_default = bridge.post("alice", &json!({"event": "connect"})).await.message(200);
        assert_eq!(by_default["endedBy"], "silence");
        assert!(began.elapsed() >= Duration::from_secs(5), "the default is five seconds");
        bridge.finish().await;
    });
}

#[test]
fn connect_that_continues_a_session_answers_at_once() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        answered(&bridge, json!({"text": "hi"})).await;
        let began = Instant::now();
        let body = json!({"event": "connect", "session": "continue"});
        for lost in [false, true] {
            if lost {
                bridge.script.drop_sockets("alice", CutMode::Fin);
                bridge.script.connected("alice", 2).await;
            }
            let message = bridge.post("alice", &body).await.message(200);
            assert_eq!((&message["endedBy"], &message["replies"]), (&json!("silence"), &json!([])));
        }
        assert!(began.elapsed() < Duration::from_secs(4), "it did not wait for the deadline");
        let seen = bridge.script.observed("alice");
        assert!(seen.connects.iter().skip(1).all(|connect| connect.mode.as_deref() == Some("Reconnect")));
        bridge.finish().await;
    });
}

#[test]
fn repeated_key_returns_the_same_connect() {
    run(async {
        let bridge = spawn_bridge_on(greeting_platform(), |_| {}).await;
        let post = async |body: Value| {
            let request = Request::message("alice", &body).prefer("wait=55").header("Idempotency-Key", "k");
            bridge.send(request).await
        };
        let first = post(json!({"event": "connect", "customData": {"a": 1}})).await.message(200);
        let again = post(json!({"customData": {"a": 1.0}, "session": "new", "event": "connect"})).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.message(200), first);
        post(json!({"event": "connect"})).await.problem(422, "idempotency-mismatch");
        assert_eq!(bridge.script.observed("alice").connects.count(), 1);
        bridge.finish().await;
    });
}

#[test]
fn connect_waits_behind_an_open_turn() {
    run(async {
        let bridge = spawn_bridge_on(greeting_platform(), |_| {}).await;
        let gate = Gate::new();
        bridge.script.next_connect("alice", Vec::new());
        bridge.script.next("alice", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("one".to_owned())]);
        let first = bridge.post_async("alice", &json!({"text": "hi", "turn": {"expectReplies": 1}})).await;
        bridge.script.seen("alice", 1).await;
        let second = bridge.post_async("alice", &json!({"event": "connect"})).await;
        assert_eq!(bridge.read(&second).await["status"], "queued");
        assert_eq!(bridge.script.observed("alice").connects.count(), 1);
        gate.open();
        assert_eq!(bridge.ended(&first).await["replies"][0]["text"], "one");
        let greeted = bridge.ended(&second).await;
        assert!(greeted["replies"][0]["text"].as_str().unwrap().starts_with("Hello!"), "{greeted}");
        bridge.finish().await;
    });
}

#[test]
fn member_for_the_bot_beside_a_connect_is_an_error() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let long = "x".repeat(65_536);
        for (body, pointer) in [
            (json!({"event": "connect", "text": "hi"}), "/text"),
            (json!({"event": "connect", "attachments": [{"fileId": "f"}]}), "/attachments"),
            (json!({"event": "disconnect"}), "/event"),
            (json!({"event": "connect", "session": "close"}), "/session"),
            (json!({"event": "connect", "customData": []}), "/customData"),
            (json!({"event": "connect", "customData": {"a": long}}), "/customData"),
            (json!({"text": "hi", "metaTags": {"a": long}}), "/metaTags"),
            (json!({"text": "hi", "profile": {"firstName": ""}}), "/profile/firstName"),
            (json!({"text": "hi", "mergeWith": ""}), "/mergeWith"),
            (json!({"text": "hi", "mergeWith": "alice"}), "/mergeWith"),
            (json!({}), "/text"),
        ] {
            let problem = bridge.post("alice", &body).await.problem(400, "invalid-request");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
        bridge.finish().await;
    });
}

#[test]
fn context_of_a_connect_reaches_grant_start_and_frames() {
    run(async {
        let bridge = spawn_bridge(|config| {
            bot(config).custom_data = Some(serde_json::from_str(r#"{"from":"bridge"}"#).unwrap());
        })
        .await;
        let tags = json!({"userLevelTags": [{"name": "tier", "value": "gold"}]});
        silent(&bridge, json!({"customData": {"page": "loans"}, "metaTags": tags})).await;
        answered(&bridge, json!({"text": "hi"})).await;
        answered(&bridge, json!({"text": "hi", "customData": {"page": "cards"}})).await;
        bridge.script.drop_sockets("alice", CutMode::Fin);
        bridge.script.connected("alice", 2).await;
        answered(&bridge, json!({"text": "hi"})).await;
        answered(&bridge, json!({"text": "hi", "session": "new"})).await;

        let (loans, cards) =
            (json!({"from": "bridge", "page": "loans"}), json!({"from": "bridge", "page": "cards"}));
        let seen = bridge.script.observed("alice");
        let info = &seen.grant_requests[0].bot_info;
        assert_eq!((&info["customData"], &info["metaTags"]), (&loans, &tags));
        assert_eq!((seen.start_infos[0].clone(), seen.start_infos[1].clone()), (info.clone(), info.clone()));
        let default = json!({"from": "bridge"});
        let sent = [&loans, &cards, &loans, &default];
        for (heard, data) in seen.messages.iter().zip(sent) {
            let frame = &heard.frame;
            for place in
                [&frame["customData"], &frame["message"]["customData"], &frame["botInfo"]["customData"]]
            {
                assert_eq!(place, data, "{frame}");
            }
        }
        assert_eq!(seen.messages[0].frame["botInfo"]["metaTags"], tags);
        assert_eq!(seen.messages[3].frame["botInfo"].get("metaTags"), None, "another session has none");
        assert_eq!(seen.start_infos[2]["customData"], default);
        assert_eq!(seen.grants, 2, "the cached grant had another context");
        bridge.finish().await;
    });
}

#[test]
fn welcome_is_skipped_if_the_operator_says_so() {
    run(async {
        let bridge = spawn_bridge_on(greeting_platform(), |config| bot(config).skip_welcome = true).await;
        silent(&bridge, json!({})).await;
        answered(&bridge, json!({"text": "hi"})).await;
        bridge.script.drop_sockets("alice", CutMode::Fin);
        let seen = bridge.script.connected("alice", 2).await;
        assert!(seen.connects[0].query.ends_with("&isSkipOnConnect=true"), "{}", seen.connects[0].query);
        assert!(!seen.connects[1].query.contains("isSkipOnConnect"), "{}", seen.connects[1].query);
        bridge.finish().await;
    });
}

#[test]
fn details_of_the_user_go_into_the_assertion() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let bot = bot(config);
            bot.jti = true;
            bot.claims = serde_json::from_value(json!({"tenant": "bank-7"})).unwrap();
        })
        .await;
        let profile = json!({"firstName": "Zoë", "lastName": "Ruiz"});
        answered(&bridge, json!({"text": "hi", "profile": profile, "mergeWith": "visitor-7"})).await;
        answered(&bridge, json!({"text": "hi", "session": "new"})).await;
        answered(&bridge, json!({"text": "hi", "mergeWith": "visitor-8"})).await;
        assert_eq!(
            bridge.script.observed("alice").grants,
            1,
            "the cached grant serves until the next connect"
        );
        answered(&bridge, json!({"text": "hi", "session": "new"})).await;
        let seen = bridge.script.observed("alice");
        let [first, second] = &seen.grant_requests[..] else { panic!("{:?}", seen.grant_requests) };
        for (grant, merged) in [(first, "visitor-7"), (second, "visitor-8")] {
            assert_eq!((&grant.header["fName"], &grant.header["lName"]), (&json!("Zoë"), &json!("Ruiz")));
            let claims = &grant.claims;
            assert_eq!((&claims["identityToMerge"], &claims["sub"]), (&json!(merged), &json!("alice")));
            assert_eq!((&claims["tenant"], claims["jti"].is_string()), (&json!("bank-7"), true));
        }
        assert_ne!(first.claims["jti"], second.claims["jti"]);
        bridge.finish().await;
    });
}

/// Answers the requests for an assertion with these, as the customer's own service would.
async fn serve_assertions(listener: TcpListener, answers: Vec<(u16, String)>) {
    for (status, body) in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains("isAnonymous") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
        }
        let request = String::from_utf8_lossy(&request).to_lowercase();
        assert!(request.contains("authorization: bearer hush"), "{request}");
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[test]
fn assertion_service_replaces_the_secret_of_the_bridge() {
    run(async {
        let claims =
            json!({"iss": CLIENT_ID, "sub": "alice", "iat": 1_700_000_000, "exp": 4_000_000_000_u64});
        let key = EncodingKey::from_secret(CLIENT_SECRET.as_bytes());
        let jwt = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/users/sts", listener.local_addr().unwrap()).parse().unwrap();
        let bridge = spawn_bridge(|config| {
            let bot = bot(config);
            bot.client_secret = "".into();
            bot.assertion_service = Some(AssertionServiceConfig { url, bearer_token: Some("hush".into()) });
        })
        .await;
        let answers = vec![(503, String::new()), (200, json!({"jwt": jwt}).to_string())];
        tokio::join!(serve_assertions(listener, answers), answered(&bridge, json!({"text": "hi"})));
        assert_eq!(bridge.script.observed("alice").grant_requests[0].claims, claims);
        let failed = r#"connects_total{bot="sandbox",phase="assertion",result="unavailable"}"#;
        assert_eq!(bridge.metric(failed).await, 1, "it was asked again");
        bridge.finish().await;
    });
}
