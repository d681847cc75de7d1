//! A message's fate if its link breaks (api.md 1, "If the link breaks").

use std::time::Duration;

use jiff::SignedDuration;
use rtm_bridge::domain::EntryBody;
use rtm_sandbox::{CutMode, Endpoint, Fault, Gate, SandboxOptions, Step, UserIdStyle, message_elements};
use serde_json::{Value, json};

use crate::support::{TestBridge, bot, quiet_platform, run, spawn_bridge, spawn_bridge_on, until};

fn missed(text: &str) -> Step {
    Step::OnlyHistory(text.to_owned())
}

fn body(deadline: u64) -> Value {
    json!({"text": "hi", "turn": {"deadlineMs": deadline}})
}

/// The options of a platform without history.
fn forgetful() -> SandboxOptions {
    SandboxOptions { history: 0, ..quiet_platform() }
}

/// Returns the correlations and texts of a message's replies.
fn replies(message: &Value) -> Vec<(&str, &str)> {
    let replies = message["replies"].as_array().unwrap();
    replies.iter().map(|r| (r["correlation"].as_str().unwrap(), r["text"].as_str().unwrap())).collect()
}

fn sent(bridge: &TestBridge) -> usize {
    bridge.script.observed("alice").messages.count()
}

#[test]
fn unsent_message_is_sent_over_the_next_link() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).welcome = Duration::from_millis(1500)).await;
        // The link breaks while the message is held for a welcome.
        bridge.script.next_connect("alice", vec![Step::Close(1011)]);
        bridge.script.next("alice", Step::reply("x"));
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(replies(&message), [("window", "x")]);
        assert_eq!(sent(&bridge), 1);
        assert_eq!(bridge.script.observed("alice").connects.count(), 2);
        bridge.finish().await;
    });
}

#[test]
fn missed_replies_are_read_from_history() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (n, end) in [
            Step::Drop(CutMode::Fin),
            Step::Drop(CutMode::Reset),
            Step::Close(1011),
            Step::Close(1006),
            Step::Close(1000),
            Step::CloseWithoutCode,
        ]
        .into_iter()
        .enumerate()
        {
            // A reset may discard unread bytes, so it waits for the reply.
            let (said, gate) = (Step::Say("seen".to_owned()), Gate::new());
            let read = Step::Until(gate.clone());
            bridge.script.next("alice", vec![Step::Ack, said, read, missed("missed"), end.clone()]);
            let location = bridge.post_async("alice", &body(20_000)).await;
            bridge.read_when(&location, |message| message["status"] == "answering").await;
            gate.open();
            let message = bridge.ended(&location).await;
            assert_eq!(replies(&message), [("window", "seen"), ("history", "missed")], "{end:?}");
            assert_eq!(
                (&message["endedBy"], &message["complete"]),
                (&json!("quiet"), &json!(true)),
                "{end:?}"
            );
            let seqs: Vec<_> =
                message["replies"].as_array().unwrap().iter().map(|r| r["seq"].as_u64().unwrap()).collect();
            assert!(seqs[0] < seqs[1]);
            assert_eq!(sent(&bridge), n + 1, "nothing is sent again: {end:?}");
        }
        bridge.finish().await;
    });
}

#[test]
fn missed_line_of_an_agent_is_marked() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let line =
            json!({"type": "template", "payload": {"template_type": "live_agent", "text": "Alex here."}});
        bridge.script.next("alice", vec![Step::Ack, missed(&line.to_string()), Step::Drop(CutMode::Fin)]);
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(replies(&message), [("history", "Alex here.")]);
        assert_eq!(message["replies"][0]["agent"], true);
        bridge.finish().await;
    });
}

#[test]
fn history_without_our_number_proves_that_a_message_arrived() {
    run(async {
        for ids in [UserIdStyle::Missing, UserIdStyle::Foreign] {
            let bridge = spawn_bridge(|_| {}).await;
            bridge.script.behave(|behaviour| behaviour.user_ids = ids);
            bridge.script.next("alice", vec![missed("missed"), Step::Drop(CutMode::Reset)]);
            let body = json!({"text": "Where is it?", "resend": "auto", "turn": {"deadlineMs": 20000}});
            let message = bridge.post("alice", &body).await.message(200);
            assert_eq!(replies(&message), [("history", "missed")], "{ids:?}");
            assert_eq!(sent(&bridge), 1, "it is not sent again: {ids:?}");
            bridge.finish().await;
        }
    });
}

#[test]
fn wrong_time_of_one_reply_hides_no_other() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (count, time) in [(1, "2099-01-01T00:00:00.000Z"), (2, "1999-01-01T00:00:00.000Z")] {
            let gate = Gate::new();
            let odd = json!({"createdOn": time, "message": [message_elements::text("seen")]});
            let read = Step::Until(gate.clone());
            let steps =
                vec![Step::Ack, Step::Response(odd), read, missed("missed"), Step::Drop(CutMode::Fin)];
            bridge.script.next("alice", steps);
            let location = bridge.post_async("alice", &body(20_000)).await;
            bridge.read_when(&location, |message| message["status"] == "answering").await;
            gate.open();
            let message = bridge.ended(&location).await;
            assert_eq!(replies(&message), [("window", "seen"), ("history", "missed")], "{time}");
            assert_eq!(message["replies"][0]["createdOn"], time, "it is told as it is");
            assert_eq!(bridge.metric(r#"far_off_times_total{bot="sandbox"}"#).await, count);
        }
        bridge.finish().await;
    });
}

#[test]
fn wrong_clock_of_the_platform_hides_no_reply() {
    run(async {
        for minutes in [10, -10] {
            let bridge = spawn_bridge(|_| {}).await;
            bridge.script.behave(|behaviour| behaviour.clock_lead = SignedDuration::from_mins(minutes));
            for _ in 0..4 {
                bridge.script.next("alice", vec![Step::Ack, missed("missed"), Step::Drop(CutMode::Fin)]);
                let message = bridge.post("alice", &body(20_000)).await.message(200);
                assert_eq!(replies(&message), [("history", "missed")], "{minutes}");
                bridge.script.next("alice", Step::reply("seen"));
                bridge.post("alice", &body(20_000)).await.message(200);
            }
            bridge.finish().await;
        }
    });
}

#[test]
fn link_may_break_repeatedly() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", vec![Step::Ack, missed("first"), Step::Drop(CutMode::Fin)]);
        bridge.script.next_connect("alice", Vec::new());
        bridge.script.next_connect("alice", vec![missed("second"), Step::Drop(CutMode::Reset)]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 2, "deadlineMs": 20000}});
        let message = bridge.post("alice", &body).await.message(200);
        assert_eq!(replies(&message), [("history", "first"), ("history", "second")]);
        assert_eq!(sent(&bridge), 1);
        bridge.finish().await;
    });
}

#[test]
fn history_proves_that_a_message_arrived() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).history_settle = Duration::from_secs(1)).await;
        for delay in [0, 400] {
            // Some platforms record history with a delay.
            bridge.script.behave(|behaviour| behaviour.history_delay = Duration::from_millis(delay));
            bridge.script.next("alice", vec![missed("missed"), Step::Drop(CutMode::Reset)]);
            let message = bridge.post("alice", &body(20_000)).await.message(200);
            assert_eq!(replies(&message), [("history", "missed")]);
            assert!(message["ackedAt"].is_string(), "{message}");
        }
        assert_eq!(sent(&bridge), 2);
        bridge.finish().await;
    });
}

#[test]
fn proved_message_without_reply_fails_at_its_deadline() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", vec![Step::Drop(CutMode::Fin)]);
        let problem = bridge.post("alice", &body(2500)).await.problem(504, "no-reply");
        assert!(problem["message"]["ackedAt"].is_string(), "{problem}");
        assert_eq!(sent(&bridge), 1);
        bridge.finish().await;
    });
}

#[test]
fn unproved_message_is_uncertain() {
    run(async {
        let bridge = spawn_bridge_on(forgetful(), |_| {}).await;
        bridge.script.next("alice", vec![Step::Drop(CutMode::Reset)]);
        let problem = bridge.post("alice", &body(20_000)).await.problem(502, "uncertain");
        let message = &problem["message"];
        assert_eq!((&message["status"], &message["ackedAt"]), (&json!("failed"), &Value::Null));
        assert!(message["sentAt"].is_string());
        let seen = bridge.script.observed("alice");
        assert_eq!(seen.messages.count(), 1);
        assert!(seen.history_reads >= 2, "{}", seen.history_reads);
        bridge.finish().await;
    });
}

#[test]
fn unreadable_history_proves_nothing() {
    run(async {
        for history in [true, false] {
            let bridge = spawn_bridge(|config| bot(config).history = history).await;
            bridge.script.fault(Endpoint::History, Fault::Status(403));
            bridge.script.next("alice", vec![missed("never read"), Step::Drop(CutMode::Fin)]);
            bridge.post("alice", &body(20_000)).await.problem(502, "uncertain");
            // The next message is answered.
            bridge.script.next("alice", Step::reply("x"));
            bridge.post("alice", &body(20_000)).await.message(200);
            bridge.finish().await;
        }
    });
}

#[test]
fn unproved_message_is_resent_under_its_id_if_allowed() {
    run(async {
        let bridge = spawn_bridge_on(forgetful(), |_| {}).await;
        bridge.script.next("alice", vec![Step::Drop(CutMode::Reset)]);
        bridge.script.next("alice", Step::reply("at last"));
        let body = json!({"text": "hi", "resend": "auto", "turn": {"expectReplies": 1, "deadlineMs": 20000}});
        let message = bridge.post("alice", &body).await.message(200);
        assert_eq!(replies(&message), [("window", "at last")]);
        let heard = bridge.script.observed("alice").messages;
        assert_eq!(heard.count(), 2);
        assert_eq!(heard[0].client_message_id, heard[1].client_message_id);
        assert_eq!(heard[0].client_message_id, message["clientMessageId"]);
        assert_eq!(heard[0].text, heard[1].text);
        bridge.finish().await;
    });
}

#[test]
fn proved_message_is_never_resent() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", vec![missed("missed"), Step::Drop(CutMode::Reset)]);
        let body = json!({"text": "hi", "resend": "auto", "turn": {"expectReplies": 1, "deadlineMs": 20000}});
        let message = bridge.post("alice", &body).await.message(200);
        assert_eq!(replies(&message), [("history", "missed")]);
        assert_eq!(sent(&bridge), 1);
        bridge.finish().await;
    });
}

#[test]
fn block_fails_the_turn_and_stops_connects() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", vec![Step::Ack, Step::Say("half".to_owned()), Step::Close(1008)]);
        let answer = bridge.post("alice", &body(20_000)).await;
        let problem = answer.problem(502, "bot-blocked");
        assert!((50..=60).contains(&answer.retry_after()), "{answer}");
        assert_eq!(problem["message"]["status"], "failed");
        // A deadline before the end of the block is hopeless. Such messages fail at once, without a connect.
        for _ in 0..3 {
            let answer = bridge.post("alice", &body(20_000)).await;
            answer.problem(502, "bot-blocked");
            assert!((30..=60).contains(&answer.retry_after()), "{answer}");
        }
        assert_eq!(bridge.script.totals().starts, 1);
        assert_eq!(sent(&bridge), 1);
        // Other users are not affected.
        bridge.script.next("bob", Step::reply("x"));
        bridge.post("bob", &body(20_000)).await.message(200);
        assert_eq!(bridge.metric(r#"sockets{bot="sandbox",state="blocked"}"#).await, 1);
        assert_eq!(bridge.metric(r#"turns_total{bot="sandbox",outcome="bot-blocked"}"#).await, 4);
        bridge.finish().await;
    });
}

#[test]
fn platform_rate_limit_is_a_block() {
    run(async {
        let bridge = spawn_bridge_on(SandboxOptions { rate_per_minute: 2, ..quiet_platform() }, |_| {}).await;
        for _ in 0..2 {
            bridge.post("alice", &body(20_000)).await.message(200);
        }
        let answer = bridge.post("alice", &body(20_000)).await;
        answer.problem(502, "bot-blocked");
        assert_eq!(sent(&bridge), 2);
        bridge.finish().await;
    });
}

#[test]
fn message_too_large_for_the_platform_fails_alone() {
    run(async {
        let bridge =
            spawn_bridge_on(SandboxOptions { payload_limit: 8192, ..quiet_platform() }, |_| {}).await;
        let large = json!({"text": "x".repeat(20_000), "resend": "auto"});
        let problem = bridge.post("alice", &large).await.problem(413, "payload-too-large");
        assert_eq!(problem["message"]["status"], "failed");
        bridge.script.next("alice", Step::reply("x"));
        bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(bridge.script.observed("alice").connects.count(), 2);
        bridge.finish().await;
    });
}

#[test]
fn dead_peer_is_noticed() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).ping_interval = Duration::from_millis(300)).await;
        bridge.script.next("alice", vec![Step::Ack, missed("missed"), Step::Hang]);
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(replies(&message), [("history", "missed")]);
        assert_eq!(bridge.script.observed("alice").connects.count(), 2);
        bridge.finish().await;
    });
}

#[test]
fn expired_token_does_not_stop_history() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let steps = vec![Step::Ack, missed("missed"), Step::ExpireTokens, Step::Drop(CutMode::Fin)];
        bridge.script.next("alice", steps);
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(replies(&message), [("history", "missed")]);
        assert_eq!(bridge.script.totals().grants, 2);
        bridge.finish().await;
    });
}

#[test]
fn failed_history_is_read_again() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).history_settle = Duration::from_secs(1)).await;
        bridge.script.fault_next(Endpoint::History, 1, Fault::Status(503));
        bridge.script.next("alice", vec![Step::Ack, missed("missed"), Step::Drop(CutMode::Fin)]);
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(replies(&message), [("history", "missed")]);
        bridge.finish().await;
    });
}

#[test]
fn replies_without_a_socket_are_journaled_once() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).idle_ttl = Some(Duration::from_mins(1))).await;
        bridge.script.next("alice", Step::reply("before"));
        bridge.post("alice", &body(20_000)).await.message(200);
        // The next sockets are refused for a while, so the bridge hears nothing.
        bridge.script.fault(Endpoint::Start, Fault::Status(503));
        bridge.script.drop_sockets("alice", CutMode::Fin);
        until("the socket to be gone", async || bridge.script.open_sockets("alice") == 0).await;
        for text in ["one", "two"] {
            bridge.script.push("alice", vec![Step::Say(text.to_owned())]);
        }
        bridge.script.clear_faults(Endpoint::Start);
        bridge.script.next("alice", Step::reply("after"));
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        // The frame and a page of history race, so either may tell it.
        assert_eq!(message["replies"].as_array().map(Vec::len), Some(1));
        assert_eq!(message["replies"][0]["text"], "after");
        until("both to be found", async || told(&bridge).len() == 4).await;
        // The second read of history repeats no reply.
        until("the second look", async || bridge.script.observed("alice").history_reads >= 2).await;
        let mut told = told(&bridge);
        assert_eq!(told[0], ("window", "before".to_owned()));
        told.sort_by(|(_, one), (_, other)| one.cmp(other));
        told.remove(0);
        let rest = [("window", "before"), ("history", "one"), ("history", "two")];
        assert_eq!(told, rest.map(|(how, text)| (how, text.to_owned())));
        bridge.finish().await;
    });
}

/// Returns the replies in the conversation's journal.
fn told(bridge: &TestBridge) -> Vec<(&'static str, String)> {
    let entries = bridge.journal("alice");
    let replies = entries.iter().filter_map(|entry| match &entry.body {
        EntryBody::Reply(reply) => Some((reply.correlation.as_str(), reply.text.to_string())),
        _ => None,
    });
    replies.collect()
}

#[test]
fn silent_turn_finds_its_reply_in_history() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).stuck_after = Some(Duration::from_secs(1))).await;
        bridge.script.next("alice", vec![Step::Ack, missed("missed")]);
        let message = bridge.post("alice", &body(20_000)).await.message(200);
        assert_eq!(replies(&message), [("history", "missed")]);
        assert_eq!(bridge.script.observed("alice").connects.count(), 1);
        bridge.finish().await;
    });
}
