//! Replies that name their message (docs/exact-correlation.md).

use std::time::Duration;

use rtm_bridge::config::QuietRule;
use rtm_sandbox::{Gate, Step, message_elements};
use serde_json::{Value, json};

use super::turns::{say, texts};
use crate::support::{run, spawn_bridge};

/// Returns a reply with the message's number in a JSON text, as the bot's JavaScript prompt writes it.
fn echoing(text: &str, id: &Value) -> Step {
    let json = json!({ "type": "message", "payload": { "text": text, "clientMessageId": id } });
    Step::Message(vec![message_elements::text(&json.to_string())])
}

#[test]
fn cooperating_bot_is_correlated_exactly() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let body = json!({"text": "/exact It left.", "turn": {"expectReplies": 1}});
        let message = bridge.post("alice", &body).await.message(200);
        assert_eq!(texts(&message), ["It left."]);
        assert_eq!(message["replies"][0]["correlation"], "exact");
        let event = &message["replies"][0]["event"];
        let echoed = event.pointer("/message/0/component/payload/clientMessageId");
        assert_eq!(echoed, Some(&message["clientMessageId"]));
        bridge.finish().await;
    });
}

#[test]
fn problem_names_the_message_that_a_reply_named() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let debug = || say("Debug: {\"clientMessageId\":1512722880914}");
        for (steps, slug) in [(vec![Step::Ack, debug()], "no-reply"), (vec![debug()], "no-ack")] {
            bridge.script.next("alice", steps);
            let body = json!({"text": "hi", "turn": {"deadlineMs": 600}});
            let problem = bridge.post("alice", &body).await.problem(504, slug);
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("names another message (clientMessageId 1512722880914)"), "{detail}");
        }
        bridge.script.next("alice", vec![Step::Ack]);
        let body = json!({"text": "hi", "turn": {"deadlineMs": 600}});
        let problem = bridge.post("alice", &body).await.problem(504, "no-reply");
        assert!(!problem["detail"].as_str().unwrap().contains("another"), "a silent bot named none");
        bridge.finish().await;
    });
}

#[test]
fn late_reply_finds_its_own_message() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        let through = gate.clone();
        bridge.script.bot(move |_, heard| {
            let id = &heard.client_message_id;
            match heard.text.as_str() {
                "first" => vec![
                    Step::Ack,
                    say("a moment"),
                    Step::WaitingForInput,
                    Step::Until(through.clone()),
                    echoing("to the first", id),
                    echoing("to the second", &json!(id.as_u64().unwrap_or_default() + 1_000_000_000_000)),
                ],
                _ => vec![Step::Ack],
            }
        });
        let first = bridge.post("alice", &json!({"text": "first"})).await.message(200);
        assert_eq!(texts(&first), ["a moment"]);
        let body = json!({"text": "second", "turn": {"deadlineMs": 60_000}});
        let second = bridge.post_async("alice", &body).await;
        bridge.script.seen("alice", 2).await;
        gate.open();
        let location = format!("/conversations/alice/messages/{}", first["id"].as_str().unwrap());
        let first =
            bridge.read_when(&location, |message| message["replies"].as_array().unwrap().len() == 2).await;
        assert_eq!(texts(&first), ["a moment", "to the first"]);
        let late = &first["replies"][1];
        assert_eq!((&late["late"], &late["correlation"]), (&json!(true), &json!("exact")));
        // The other reply answers a message of another client.
        let series = r#"replies_outside_turns_total{bot="sandbox",kind="unsolicited"}"#;
        while bridge.metric(series).await < 1 {}
        assert_eq!(bridge.read(&second).await["replies"], json!([]));
        let now = bridge.read(&second).await["clientMessageId"].clone();
        bridge.script.push("alice", vec![echoing("to the second", &now), Step::WaitingForInput]);
        let second = bridge.ended(&second).await;
        assert_eq!(texts(&second), ["to the second"]);
        assert_eq!(second["replies"][0]["correlation"], "exact");
        bridge.finish().await;
    });
}

#[test]
fn sandbox_shows_exact_late_replies() {
    run(async {
        let bridge = spawn_bridge(|config| {
            crate::support::bot(config).quiet = QuietRule::Fixed(Duration::from_millis(50))
        })
        .await;
        let first = bridge.post("alice", &json!({"text": "/exact 300 It left."})).await.message(200);
        assert_eq!(texts(&first), ["It will come."]);
        let location = format!("/conversations/alice/messages/{}", first["id"].as_str().unwrap());
        let first =
            bridge.read_when(&location, |message| message["replies"].as_array().unwrap().len() == 2).await;
        let late = &first["replies"][1];
        assert_eq!((&late["text"], &late["correlation"]), (&json!("It left."), &json!("exact")));
        bridge.finish().await;
    });
}
