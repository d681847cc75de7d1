//! Two callers beside each other: a greedy one leaves room for a modest one (api.md 6).

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{BotConfig, CallerConfig, CallerScopes, Config};
use rtm_bridge::domain::BotName;
use rtm_sandbox::{SandboxOptions, Step};
use serde_json::json;

use crate::support::{Answer, Request, TestBridge, bot, quiet_platform, run, spawn_bridge_on, until};

const BOTH: CallerScopes = CallerScopes { send: true, read: true, admin: false };

/// Starts a bridge with two callers. The bot is silent towards users whose name begins with `silent`.
async fn shared(change: impl FnOnce(&mut Config)) -> TestBridge {
    let platform =
        SandboxOptions { bots: vec!["st-sandbox".to_owned(), "st-2".to_owned()], ..quiet_platform() };
    let bridge = spawn_bridge_on(platform, |config| {
        config.callers = vec![caller("greedy", BOTH), caller("modest", BOTH)];
        change(config);
    })
    .await;
    bridge
        .script
        .bot(|user, _| if user.user().starts_with("silent") { vec![Step::Ack] } else { Step::reply("x") });
    bridge
}

fn message(key: &str, user: &str, query: &str, deadline: u32) -> Request {
    let body = json!({"text": "hi", "turn": {"expectReplies": 1, "deadlineMs": deadline}});
    let request = Request::new("POST", format!("/conversations/{user}/messages{query}")).json(&body);
    request.header("Authorization", &format!("Bearer {key}"))
}

/// Posts messages to silent users of a bot until one is refused. Returns their number and the refusal.
async fn fill(bridge: &TestBridge, key: &str, query: &str) -> (usize, Answer) {
    for index in 0..100 {
        let request = message(key, &format!("silent-{key}-{index}"), query, 1500).prefer("respond-async");
        let answer = bridge.send(request).await;
        if answer.status != 202 {
            return (index, answer);
        }
    }
    panic!("none is refused");
}

async fn all_ended(bridge: TestBridge) {
    until("all messages have ended", async || bridge.open() == 0).await;
    bridge.finish().await;
}

#[test]
fn waits_of_one_caller_leave_places_for_another() {
    run(async {
        let bridge = shared(|config| config.server.max_requests = 10).await;
        let waits = (0..20).map(|index| {
            let request = message("greedy", &format!("silent-{index}"), "", 1500).prefer("wait=20");
            bridge.send(request)
        });
        let waits = futures_util::future::join_all(waits);
        let modest = async {
            until("the greedy caller waits", async || bridge.open() == 5).await;
            bridge.send(message("modest", "alice", "", 5000).prefer("wait=20")).await.message(200);
        };
        let (answers, ()) = tokio::join!(waits, modest);
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
        assert_eq!(refused.len(), 15);
        let detail = refused[0].problem(503, "overloaded")["detail"].to_string();
        assert!(detail.contains("share of open requests"), "{detail}");
        all_ended(bridge).await;
    });
}

#[test]
fn silent_bot_of_one_caller_leaves_sockets_for_another() {
    run(async {
        let bridge = shared(|config| config.server.max_sockets = 12).await;
        let (taken, refused) = fill(&bridge, "greedy", "").await;
        assert_eq!(taken, 6);
        let detail = refused.problem(503, "overloaded")["detail"].to_string();
        assert!(detail.contains("this caller's share of open messages"), "{detail}");
        assert_eq!(refused.retry_after(), 1);
        bridge.send(message("modest", "alice", "", 5000).prefer("wait=20")).await.message(200);
        // The places come back when the messages have ended, although no caller waits for them.
        until("there is room again", async || {
            let again = message("greedy", "bob", "", 5000).prefer("wait=20");
            bridge.send(again).await.status == 200
        })
        .await;
        all_ended(bridge).await;
    });
}

#[test]
fn silent_bot_leaves_sockets_for_another_bot() {
    run(async {
        let bridge = shared(|config| {
            config.server.max_sockets = 12;
            config.callers.clear();
            let second = BotConfig {
                name: BotName::new("second").unwrap(),
                task_bot_id: "st-2".to_owned(),
                ..bot(config).clone()
            };
            config.bots.push(Arc::new(second));
        })
        .await;
        let (taken, refused) = fill(&bridge, "any", "?bot=sandbox").await;
        assert_eq!(taken, 6);
        let detail = refused.problem(503, "overloaded")["detail"].to_string();
        assert!(detail.contains("this bot's share"), "{detail}");
        bridge.send(message("any", "alice", "?bot=second", 5000).prefer("wait=20")).await.message(200);
        all_ended(bridge).await;
    });
}

#[test]
fn connects_of_one_caller_leave_some_for_another() {
    run(async {
        let bridge = shared(|config| {
            bot(config).connects_per_minute = 8;
            config.server.drain_timeout = Duration::from_millis(1500);
        })
        .await;
        let greedy = (0..20).map(|index| {
            let request = message("greedy", &format!("user-{index}"), "", 2000).prefer("wait=20");
            bridge.send(request)
        });
        let greedy = futures_util::future::join_all(greedy);
        let modest = async {
            until("the greedy caller has its connects", async || bridge.script.totals().starts >= 6).await;
            for user in ["alice", "bob"] {
                bridge.send(message("modest", user, "", 2000).prefer("wait=20")).await.message(200);
            }
        };
        let (answers, ()) = tokio::join!(greedy, modest);
        let answered = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!((answered, bridge.script.totals().starts), (6, 8));
        all_ended(bridge).await;
    });
}

#[test]
fn open_messages_of_a_caller_are_limited() {
    run(async {
        let bridge = shared(|config| {
            config.callers = vec![CallerConfig { max_open_messages: 2, ..caller("few", BOTH) }];
        })
        .await;
        let (taken, refused) = fill(&bridge, "few", "").await;
        assert_eq!(taken, 2);
        let detail = refused.problem(429, "rate-limited")["detail"].to_string();
        assert!(detail.contains("2 open messages"), "{detail}");
        until("there is room again", async || {
            bridge.send(message("few", "bob", "", 5000).prefer("wait=20")).await.status == 200
        })
        .await;
        all_ended(bridge).await;
    });
}
