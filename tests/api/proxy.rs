//! Turns through a proxy.

use std::sync::Arc;

use rtm_bridge::config::{ProxyConfig, fixtures};
use rtm_sandbox::Step;
use serde_json::json;

use crate::support::{ConnectProxy, ProxyRules, bot, run, spawn_bridge};

fn proxy(tunnel: &ConnectProxy) -> Arc<ProxyConfig> {
    Arc::new(fixtures::proxy(&tunnel.url()))
}

#[test]
fn turn_goes_through_the_proxy_of_its_bot() {
    run(async {
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let mut platform = String::new();
        let bridge = spawn_bridge(|config| {
            let bot = bot(config);
            bot.proxy = Some(proxy(&tunnel));
            platform = bot.platform.as_str().trim_start_matches("http://").trim_end_matches('/').to_owned();
        })
        .await;
        bridge.script.next("alice", Step::reply("through it"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let message = bridge.post("alice", &body).await.message(200);
        assert_eq!(message["replies"][0]["text"], "through it");
        let targets = tunnel.targets();
        assert!(targets.len() >= 2 && targets.iter().all(|target| *target == platform), "{targets:?}");
        drop(tunnel);
        // Its sockets are gone with the proxy.
        let body = json!({"text": "hi", "turn": {"deadlineMs": 700}});
        let problem = bridge.post("alice", &body).await.problem(502, "platform-unavailable");
        assert!(problem["detail"].as_str().unwrap().contains("connection to the proxy"), "{problem}");
        bridge.finish().await;
    });
}

#[test]
fn refusal_of_the_proxy_is_told_and_counted() {
    run(async {
        for (rules, words) in [
            (
                ProxyRules { authorization: Some("Basic hush"), ..ProxyRules::default() },
                "the proxy asks for a user and a password (407)",
            ),
            (
                ProxyRules {
                    answer: Some("HTTP/1.1 403 Forbidden\r\n\r\n".to_owned()),
                    ..ProxyRules::default()
                },
                "the proxy refuses connections to this host (403)",
            ),
        ] {
            let tunnel = ConnectProxy::start(rules).await;
            let bridge = spawn_bridge(|config| bot(config).proxy = Some(proxy(&tunnel))).await;
            let body = json!({"text": "hi", "turn": {"deadlineMs": 700}});
            let problem = bridge.post("alice", &body).await.problem(502, "platform-unavailable");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(words) && !detail.contains("127.0.0.1"), "{detail}");
            let count = r#"connects_total{bot="sandbox",phase="proxy",result="unavailable"}"#;
            assert!(bridge.metric(count).await >= 1);
            bridge.finish().await;
        }
    });
}
