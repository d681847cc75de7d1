//! Connects for a user: sessions, credentials, handshakes, keep-alive, idle links.

use std::time::Duration;

use rtm_bridge::config::{BotConfig, ConnectionStyle, JwtAlgorithm};
use rtm_sandbox::{
    AppKey, CLIENT_ID, ClientApp, CutMode, Endpoint, ExpiredTokenStyle, Fault, RetryAfter, SandboxOptions,
    SecureHandshake, SocketEnd, Step,
};
use serde_json::{Value, json};

use crate::support::{TestBridge, bot, quiet_platform, run, spawn_bridge, spawn_bridge_on};

/// Sends a message that the bot answers.
async fn answered(bridge: &TestBridge, user: &str, session: &str) {
    bridge.script.next(user, Step::reply("x"));
    let body = json!({"text": "hi", "session": session, "turn": {"expectReplies": 1}});
    bridge.post(user, &body).await.message(200);
}

/// Sends a message with a short deadline.
async fn hurried(bridge: &TestBridge, slug: &str) -> Value {
    let body = json!({"text": "hi", "turn": {"deadlineMs": 700}});
    let problem = bridge.post("alice", &body).await.problem(502, slug);
    assert_eq!(problem["message"]["status"], "failed");
    assert_eq!(problem["message"]["error"]["detail"], problem["detail"]);
    assert_eq!(bridge.script.totals().messages, 0, "it was not sent");
    problem
}

fn modes(bridge: &TestBridge, user: &str) -> Vec<String> {
    let connects = bridge.script.observed(user).connects;
    connects.iter().map(|c| c.mode.clone().unwrap_or_default()).collect()
}

#[test]
fn session_continues_or_restarts_as_asked() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        answered(&bridge, "alice", "continue").await;
        answered(&bridge, "alice", "new").await;
        answered(&bridge, "alice", "newKeepAgent").await;
        answered(&bridge, "alice", "continue").await;
        bridge.script.drop_sockets("alice", CutMode::Fin);
        bridge.script.connected("alice", 4).await;
        answered(&bridge, "alice", "continue").await;
        assert_eq!(modes(&bridge, "alice"), ["Default", "Start_New", "Start_New_Resume_Agent", "Reconnect"]);
        let seen = bridge.script.observed("alice");
        let sockets: Vec<_> = seen.messages.iter().map(|heard| heard.socket).collect();
        let connects: Vec<_> = seen.connects.iter().map(|connected| connected.socket).collect();
        assert_eq!(sockets, [connects[0], connects[1], connects[2], connects[2], connects[3]]);
        // The old session's socket was closed with a close frame.
        assert_eq!(seen.closes[0].ending, SocketEnd::ByClient(Some(1000)));
        assert_eq!(seen.closes[1].ending, SocketEnd::ByClient(Some(1000)));
        assert_eq!(seen.grants, 1, "one token does for all");
        bridge.finish().await;
    });
}

#[test]
fn old_platform_gets_its_own_parameters() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).connection_mode = ConnectionStyle::IsReconnect).await;
        answered(&bridge, "alice", "continue").await;
        bridge.script.drop_sockets("alice", CutMode::Reset);
        bridge.script.connected("alice", 2).await;
        answered(&bridge, "alice", "continue").await;
        answered(&bridge, "alice", "new").await;
        let connects = bridge.script.observed("alice").connects;
        let asked: Vec<_> = connects.iter().map(|c| (c.is_reconnect, c.mode.is_some())).collect();
        assert_eq!(asked, [(false, false), (true, false), (false, false)]);
        bridge.finish().await;
    });
}

#[test]
fn expired_token_costs_one_grant() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        answered(&bridge, "alice", "continue").await;
        for (n, spelling) in [ExpiredTokenStyle::Status, ExpiredTokenStyle::Code, ExpiredTokenStyle::Message]
            .into_iter()
            .enumerate()
        {
            bridge.script.behave(|behaviour| behaviour.expired_token = spelling);
            bridge.script.expire_tokens();
            bridge.script.drop_sockets("alice", CutMode::Fin);
            let seen = bridge.script.connected("alice", n + 2).await;
            assert_eq!(seen.grants, n + 2, "{spelling:?}");
            answered(&bridge, "alice", "continue").await;
        }
        assert_eq!(bridge.script.totals().grants, 4);
        bridge.finish().await;
    });
}

#[test]
fn failing_platform_is_retried() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (n, (endpoint, fault)) in [
            (Endpoint::Grant, Fault::Status(503)),
            (Endpoint::Grant, Fault::Html(502)),
            (Endpoint::Grant, Fault::Drop),
            (Endpoint::Start, Fault::Status(500)),
            (Endpoint::Start, Fault::Html(502)),
            (Endpoint::Start, Fault::Empty),
            (Endpoint::Start, Fault::Body(200, "[]".to_owned())),
            (Endpoint::Upgrade, Fault::Status(503)),
            (Endpoint::Upgrade, Fault::Drop),
        ]
        .into_iter()
        .enumerate()
        {
            let user = format!("user-{n}");
            bridge.script.fault_next(endpoint, 1, fault.clone());
            answered(&bridge, &user, "continue").await;
            let seen = bridge.script.observed(user.as_str());
            assert_eq!((seen.messages.count(), seen.connects.count()), (1, 1), "{endpoint:?} {fault:?}");
        }
        assert_eq!(bridge.script.totals().grants, 9 + 3, "only what failed was tried again");
        bridge.finish().await;
    });
}

#[test]
fn busy_platform_is_retried_after_its_delay() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (user, endpoint, retry) in [
            ("a", Endpoint::Grant, RetryAfter::Seconds(1)),
            ("b", Endpoint::Start, RetryAfter::Date(Duration::from_secs(2))),
            ("c", Endpoint::Start, RetryAfter::Missing),
        ] {
            bridge.script.fault_next(endpoint, 1, Fault::RateLimited(retry));
            let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
            bridge.script.next(user, Step::reply("x"));
            let location = bridge.post_async(user, &body).await;
            let seen = bridge.script.connected(user, 1).await;
            let message = bridge.ended(&location).await;
            assert_eq!(message["status"], "answered");
            let accepted: jiff::Timestamp = message["acceptedAt"].as_str().unwrap().parse().unwrap();
            let waited = seen.connects[0].at.duration_since(accepted).as_millis();
            // An HTTP date has whole seconds, so up to one second is lost.
            assert!(waited >= if retry == RetryAfter::Missing { 0 } else { 950 }, "{user}: {waited} ms");
        }
        bridge.finish().await;
    });
}

#[test]
fn failing_platform_is_unavailable_at_the_deadline() {
    run(async {
        for (endpoint, fault, words) in [
            (Endpoint::Grant, Fault::Status(503), "503"),
            (Endpoint::Grant, Fault::Html(502), "502"),
            (Endpoint::Start, Fault::Empty, "lacks the needed fields"),
            (Endpoint::Start, Fault::RateLimited(RetryAfter::Seconds(30)), "429"),
            (Endpoint::Upgrade, Fault::Status(502), "502"),
            (Endpoint::Start, Fault::Hang, ""),
        ] {
            let bridge = spawn_bridge(|_| {}).await;
            bridge.script.fault(endpoint, fault.clone());
            let problem = hurried(&bridge, "platform-unavailable").await;
            assert!(problem["detail"].as_str().unwrap().contains(words), "{fault:?}: {problem}");
            bridge.finish().await;
        }
    });
}

#[test]
fn missing_platform_is_unavailable() {
    run(async {
        // Port 1 has no listener.
        let nowhere = |bot: &mut BotConfig| bot.platform = "http://127.0.0.1:1".parse().unwrap();
        let bridge = spawn_bridge(|config| nowhere(bot(config))).await;
        hurried(&bridge, "platform-unavailable").await;
        let series = r#"connects_total{bot="sandbox",phase="grant",result="unavailable"}"#;
        assert!(bridge.metric(series).await >= 1);
        bridge.finish().await;
    });
}

#[test]
fn wrong_credentials_fail_with_the_platforms_words() {
    run(async {
        for (change, words) in [
            ((|bot| bot.client_secret = "wrong".into()) as fn(&mut BotConfig), "invalid signature"),
            (|bot| bot.client_id = "cs-nobody".to_owned(), "unknown client"),
        ] {
            let bridge = spawn_bridge(|config| change(bot(config))).await;
            let body = json!({"text": "hi"});
            let problem = bridge.post("alice", &body).await.problem(502, "platform-rejected");
            assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
            assert_eq!(problem["message"]["status"], "failed");
            // The bridge does not ask again for a while, as the answer would be the same.
            bridge.post("alice", &body).await.problem(502, "platform-rejected");
            assert_eq!(bridge.script.totals().grants, 1);
            let series = r#"connects_total{bot="sandbox",phase="grant",result="rejected"}"#;
            assert_eq!(bridge.metric(series).await, 1);
            let users = r#"refused_users_total{bot="sandbox"}"#;
            assert_eq!(bridge.metric(users).await, 1);
            bridge.post("bob", &body).await.problem(502, "platform-rejected");
            assert_eq!(bridge.metric(users).await, 2);
            bridge.finish().await;
        }
    });
}

#[test]
fn unknown_bot_is_rejected() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).task_bot_id = "st-nobody".to_owned()).await;
        bridge.post("alice", &json!({"text": "hi"})).await.problem(502, "platform-rejected");
        bridge.finish().await;
    });
}

#[test]
fn secure_handshake_works_with_any_subprotocol() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).secure_rtm = true).await;
        for (user, secure) in [
            ("a", SecureHandshake::Version),
            ("b", SecureHandshake::Jwt),
            ("c", SecureHandshake::Nonce),
            ("d", SecureHandshake::Silent),
            ("e", SecureHandshake::Unsupported),
        ] {
            bridge.script.behave(|behaviour| behaviour.secure_handshake = secure);
            answered(&bridge, user, "continue").await;
            // This connect reuses the token.
            answered(&bridge, user, "new").await;
            assert_eq!(bridge.script.observed(user).grants, 1);
        }
        bridge.script.behave(|behaviour| behaviour.secure_handshake = SecureHandshake::Refuse);
        let body = json!({"text": "hi", "turn": {"deadlineMs": 700}});
        bridge.post("f", &body).await.problem(502, "platform-unavailable");
        bridge.finish().await;
    });
}

#[test]
fn socket_base_replaces_the_platforms_host() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let bot = bot(config);
            let mut base = bot.platform.clone();
            base.set_scheme("ws").unwrap();
            bot.socket_base = Some(base);
        })
        .await;
        bridge.script.behave(|behaviour| behaviour.url_base = Some("ws://dummy.example:80".to_owned()));
        answered(&bridge, "alice", "continue").await;
        bridge.finish().await;
    });
}

#[test]
fn bot_may_sign_with_a_private_key() {
    run(async {
        let public = include_str!("../fixtures/rsa.public.pem").to_owned();
        let key = AppKey::RsaPublicPem(public);
        for algorithm in [JwtAlgorithm::Rs256, JwtAlgorithm::Rs512] {
            let apps = vec![ClientApp::new(CLIENT_ID, key.clone())];
            let bridge = spawn_bridge_on(SandboxOptions { apps, ..quiet_platform() }, |config| {
                let bot = bot(config);
                bot.algorithm = algorithm;
                bot.client_secret = include_str!("../fixtures/rsa.pem").into();
            })
            .await;
            answered(&bridge, "alice", "continue").await;
            bridge.finish().await;
        }
    });
}

#[test]
fn idle_socket_closes_and_reopens_on_demand() {
    run(async {
        let idle = Duration::from_millis(200);
        let bridge = spawn_bridge(|config| bot(config).idle_ttl = Some(idle)).await;
        answered(&bridge, "alice", "continue").await;
        let seen = bridge.script.closed("alice", 1).await;
        assert_eq!(seen.closes[0].ending, SocketEnd::ByClient(Some(1000)));
        assert_eq!(seen.connects.count(), 1);
        answered(&bridge, "alice", "continue").await;
        assert_eq!(modes(&bridge, "alice"), ["Default", "Reconnect"]);
        bridge.finish().await;
    });
}

#[test]
fn idle_sockets_close_at_the_socket_limit() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.max_sockets = 1).await;
        answered(&bridge, "alice", "continue").await;
        answered(&bridge, "bob", "continue").await;
        let seen = bridge.script.closed("alice", 1).await;
        assert_eq!(seen.closes[0].ending, SocketEnd::ByClient(Some(1000)));
        assert_eq!(bridge.script.observed("bob").closes.count(), 0);
        bridge.finish().await;
    });
}

#[test]
fn open_socket_is_pinged() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).ping_interval = Duration::from_millis(100)).await;
        answered(&bridge, "alice", "continue").await;
        let seen = bridge.script.observed_when("alice", |seen| seen.pings + seen.ws_pings >= 3).await;
        assert_eq!(seen.connects.count(), 1);
        assert!(bridge.metric(r#"frames_total{bot="sandbox",direction="out",type="ping"}"#).await >= 1);
        bridge.finish().await;
    });
}

#[test]
fn lost_idle_link_reconnects() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        answered(&bridge, "alice", "continue").await;
        for (n, code) in [1001, 1011, 1012, 4000].into_iter().enumerate() {
            bridge.script.push("alice", vec![Step::Close(code)]);
            bridge.script.connected("alice", n + 2).await;
        }
        answered(&bridge, "alice", "continue").await;
        for code in ["1001", "1011", "1012", "other"] {
            let series = format!(r#"socket_closes_total{{bot="sandbox",code="{code}"}}"#);
            assert_eq!(bridge.metric(&series).await, 1, "{code}");
        }
        bridge.finish().await;
    });
}

#[test]
fn idle_link_ended_by_the_platform_stays_closed() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        answered(&bridge, "alice", "continue").await;
        bridge.script.push("alice", vec![Step::Close(1000)]);
        bridge.script.closed("alice", 1).await;
        let state = |state| format!(r#"sockets{{bot="sandbox",state="{state}"}}"#);
        while bridge.metric(&state("ready")).await > 0 {}
        for other in ["connecting", "backing_off"] {
            assert_eq!(bridge.metric(&state(other)).await, 0, "{other}");
        }
        assert_eq!(bridge.script.observed("alice").connects.count(), 1);
        answered(&bridge, "alice", "continue").await;
        bridge.finish().await;
    });
}
