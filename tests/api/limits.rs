//! Platform limits that the bridge keeps (api.md 1 and 9).

use std::time::Duration;

use rtm_sandbox::{SandboxOptions, Step, message_elements};
use serde_json::json;

use crate::support::{Request, bot, quiet_platform, run, spawn_bridge, spawn_bridge_on};

#[test]
fn user_over_the_rate_waits_without_failing() {
    run(async {
        let bridge = spawn_bridge_on(SandboxOptions { rate_per_minute: 2, ..quiet_platform() }, |config| {
            bot(config).user_rate_per_minute = 2;
            config.server.drain_timeout = Duration::from_millis(1500);
        })
        .await;
        bridge.script.bot(|_, _| Step::reply("x"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1, "deadlineMs": 500}});
        for _ in 0..2 {
            bridge.post("alice", &body).await.message(200);
        }
        // Its deadline has passed at the answer: time in the rate limit does not count.
        let held = bridge.send(Request::message("alice", &body).prefer("wait=1")).await;
        assert_eq!(held.message(202)["status"], "queued");
        bridge.post("bob", &body).await.message(200);
        let seen = bridge.script.observed("alice");
        assert_eq!(
            (seen.messages.count(), seen.closes.count()),
            (2, 0),
            "the platform has no reason to block"
        );
        assert_eq!(bridge.open(), 1);
        let (stop, _, _, _, sandbox) = bridge.into_stop();
        stop.await;
        sandbox.stop().await;
    });
}

#[test]
fn connects_of_a_bot_count_over_all_users() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).connects_per_minute = 2).await;
        bridge.script.bot(|_, _| Step::reply("x"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1, "deadlineMs": 700}});
        bridge.post("alice", &body).await.message(200);
        bridge.post("bob", &body).await.message(200);
        // The wait for a connect counts towards the deadline.
        bridge.post("carol", &body).await.problem(502, "platform-unavailable");
        assert_eq!(bridge.script.totals().starts, 2);
        // A connected user is not affected.
        bridge.post("alice", &body).await.message(200);
        bridge.finish().await;
    });
}

#[test]
fn oversized_frame_costs_the_link_but_not_the_reply() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).max_frame_bytes = 16 << 10).await;
        let text = "x".repeat(20_000);
        let large = Step::Message(vec![message_elements::minimal(&text)]);
        bridge.script.next("alice", vec![Step::Ack, large]);
        let message = bridge.post("alice", &json!({"text": "hi"})).await.message(200);
        assert_eq!(message["replies"][0]["text"], text);
        assert_eq!(message["replies"][0]["correlation"], "history");
        assert_eq!(bridge.metric(r#"socket_closes_total{bot="sandbox",code="1009"}"#).await, 1);
        bridge.finish().await;
    });
}
