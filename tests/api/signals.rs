//! Signals of the user's window (api.md 2, `POST …/signals`).

use std::time::Duration;

use rtm_sandbox::Step;
use serde_json::{Value, json};

use super::events::turn;
use crate::support::{Answer, Request, TestBridge, bot, run, spawn_bridge, until};

const SIGNALS: &str = "/conversations/alice/signals";

async fn signal(bridge: &TestBridge, body: &Value) -> Answer {
    bridge.send(Request::new("POST", SIGNALS).json(body)).await
}

/// Returns the frames of alice that are no messages and have this member.
fn heard(bridge: &TestBridge, member: &str) -> Vec<Value> {
    let others = bridge.script.observed("alice").others;
    others.iter().map(|frame| frame.frame.clone()).filter(|frame| frame.get(member).is_some()).collect()
}

#[test]
fn signals_reach_the_platform_over_the_open_socket() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one"]).await;
        for body in [
            json!({"type": "typing"}),
            json!({"type": "stopTyping"}),
            json!({"type": "delivered", "messageId": "ms-1"}),
            json!({"type": "read", "messageId": "ms-1"}),
            json!({"type": "closeAgentChat"}),
        ] {
            let answer = signal(&bridge, &body).await;
            assert_eq!((answer.status, answer.body.len()), (202, 0), "{answer}");
        }
        until("the platform has all", async || heard(&bridge, "event").len() == 5).await;
        let frames = heard(&bridge, "event");
        let events: Vec<_> = frames.iter().map(|frame| frame["event"].as_str().unwrap()).collect();
        let expected = ["typing", "stop_typing", "message_delivered", "message_read", "close_agent_chat"];
        assert_eq!(events, expected);
        assert_eq!((&frames[2]["messageId"], &frames[3]["messageId"]), (&json!("ms-1"), &json!("ms-1")));
        assert!(frames.iter().all(|frame| frame["resourceid"] == "/bot.message"));
        assert!(frames[4]["clientMessageId"].as_u64().is_some_and(|number| number > 1_600_000_000_000));
        // A turn goes on beside them, and the journal has none.
        turn(&bridge, &["two"]).await;
        bridge.finish().await;
    });
}

#[test]
fn receipts_carry_the_desks_own_id_of_the_message() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.behave(|behaviour| behaviour.agent_typing = Duration::ZERO);
        turn(&bridge, &["one"]).await;
        let steps = vec![
            Step::AgentStart,
            Step::AgentSay("Hello".to_owned()),
            Step::AgentSay("I am Alex".to_owned()),
        ];
        bridge.script.push("alice", steps);
        let replies = async || {
            let page = bridge.api.get("/conversations/alice/events?types=reply").await.json();
            let events = page["events"].as_array().unwrap().clone();
            events.into_iter().filter(|event| event["data"]["agent"] == true).collect::<Vec<_>>()
        };
        until("the agent has spoken", async || replies().await.len() == 2).await;
        let said = replies().await;
        for (kind, line) in [("delivered", &said[0]), ("read", &said[0]), ("read", &said[1])] {
            let body = json!({"type": kind, "messageId": line["data"]["messageId"]});
            assert_eq!(signal(&bridge, &body).await.status, 202);
        }
        // A message of the bot has none, and neither has an unknown one.
        assert_eq!(signal(&bridge, &json!({"type": "delivered", "messageId": "ms-1"})).await.status, 202);
        until("the platform has all", async || heard(&bridge, "event").len() == 4).await;
        let frames = heard(&bridge, "event");
        for (frame, line) in frames.iter().zip([&said[0], &said[0], &said[1]]) {
            let desk_id = &line["data"]["event"]["agent_MessageId"];
            assert!(desk_id.is_string());
            assert_eq!(
                (&frame["messageId"], &frame["agent_MessageId"]),
                (&line["data"]["messageId"], desk_id)
            );
        }
        assert_eq!(frames[3].get("agent_MessageId"), None);
        bridge.finish().await;
    });
}

#[test]
fn signal_without_a_socket_is_dropped() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        assert_eq!(signal(&bridge, &json!({"type": "typing"})).await.status, 202);
        turn(&bridge, &["one"]).await;
        assert!(heard(&bridge, "event").is_empty());
        let list = bridge.api.get("/conversations/alice").await.message(200);
        assert_eq!(list["openMessages"], 0);
        bridge.finish().await;
    });
}

#[test]
fn signals_leave_a_part_of_the_rate_for_messages() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).user_rate_per_minute = 8).await;
        turn(&bridge, &["one"]).await;
        for _ in 0..20 {
            assert_eq!(signal(&bridge, &json!({"type": "typing"})).await.status, 202);
        }
        turn(&bridge, &["two"]).await;
        turn(&bridge, &["three"]).await;
        assert_eq!(heard(&bridge, "event").len(), 5, "six of eight are for all frames");
        bridge.finish().await;
    });
}

#[test]
fn invalid_signals_are_refused() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let problem =
            signal(&bridge, &json!({"type": "shout", "x": 1})).await.problem(400, "invalid-request");
        let mut pointers: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/type", "/x"]);
        let text = bridge.send(Request::new("POST", SIGNALS).body("typing")).await;
        text.problem(415, "unsupported-media-type");
        let get = bridge.api.get(SIGNALS).await;
        get.problem(405, "method-not-allowed");
        bridge.finish().await;
    });
}

#[test]
fn replies_are_acknowledged_by_their_key_if_wanted() {
    run(async {
        let reply = || {
            vec![
                Step::Ack,
                Step::Response(json!({"key": "k-1", "timestamp": 1_512_722_848_096_u64, "message": [
                    {"type": "text", "cInfo": {"body": "marked"}}
                ]})),
                Step::Say("without a key".to_owned()),
            ]
        };
        let body = json!({"text": "hi", "turn": {"expectReplies": 2}});
        for (wanted, expected) in [(false, 0), (true, 1)] {
            let bridge = spawn_bridge(|config| bot(config).delivery_acks = wanted).await;
            bridge.script.next("alice", reply());
            bridge.post("alice", &body).await.message(200);
            turn(&bridge, &["last"]).await;
            let acks = heard(&bridge, "key");
            let acks: Vec<_> = acks.iter().filter(|ack| ack["key"] == "k-1").collect();
            assert_eq!(acks.len(), expected, "{acks:?}");
            let number = json!(1_512_722_848_096_u64);
            for ack in acks {
                let whole = json!({"type": "ack", "status": "delivered", "key": "k-1", "id": number,
                                   "replyto": number, "clientMessageId": number});
                assert_eq!(*ack, whole);
            }
            bridge.finish().await;
        }
    });
}
