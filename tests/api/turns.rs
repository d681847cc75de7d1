//! The end of a turn (api.md 1).

use std::time::Duration;

use jiff::SignedDuration;
use rtm_bridge::config::QuietRule;
use rtm_sandbox::{
    AgentDesk, Behaviour, CutMode, SandboxOptions, SpellingStyle, Step, WelcomeTime, message_elements,
};
use serde_json::{Value, json};

use crate::support::{TestBridge, bot, run, spawn_bridge, spawn_bridge_on};

pub(super) fn say(text: &str) -> Step {
    Step::Say(text.to_owned())
}

pub(super) fn texts(message: &Value) -> Vec<&str> {
    message["replies"].as_array().unwrap().iter().map(|reply| reply["text"].as_str().unwrap()).collect()
}

/// Runs a turn in which the bot takes these steps, and returns its message.
pub(super) async fn turn(bridge: &TestBridge, turn: Value, steps: Vec<Step>) -> Value {
    bridge.script.next("alice", steps);
    let answer = bridge.post("alice", &json!({"text": "hi", "turn": turn})).await;
    let message = answer.message(200);
    assert_eq!(message["status"], "answered");
    assert_eq!(message["error"], Value::Null);
    message
}

pub(super) fn ended(message: &Value) -> (&str, bool) {
    (message["endedBy"].as_str().unwrap(), message["complete"].as_bool().unwrap())
}

#[test]
fn turn_ends_with_the_expected_replies() {
    run(async {
        let bridge =
            spawn_bridge(|config| bot(config).quiet = QuietRule::Fixed(Duration::from_secs(20))).await;
        let steps = vec![Step::Ack, say("one"), say("two"), say("three")];
        let message = turn(&bridge, json!({"expectReplies": 2}), steps).await;
        assert_eq!(ended(&message), ("replyCount", true));
        assert_eq!(texts(&message), ["one", "two"]);
        bridge.finish().await;
    });
}

#[test]
fn turn_ends_soon_after_the_bot_waits_for_input() {
    run(async {
        let bridge =
            spawn_bridge(|config| bot(config).quiet = QuietRule::Fixed(Duration::from_secs(20))).await;
        // The sign of input may precede the last reply, in any spelling.
        for (spelling, steps) in [
            (SpellingStyle::Documented, vec![Step::Ack, say("a"), say("b"), Step::WaitingForInput]),
            (SpellingStyle::Documented, vec![Step::Ack, say("a"), Step::WaitingForInput, say("b")]),
            (SpellingStyle::Slash, vec![say("a"), say("b"), Step::WaitingForInput, Step::Ack]),
            (SpellingStyle::Upper, vec![Step::Ack, say("a"), say("b"), Step::WaitingForInput]),
            (SpellingStyle::Capitals, vec![Step::Ack, say("a"), say("b"), Step::WaitingForInput]),
        ] {
            bridge.script.behave(|behaviour| behaviour.spelling = spelling);
            let message = turn(&bridge, json!({}), steps).await;
            assert_eq!(ended(&message), ("inputWait", true), "{spelling:?}");
            assert_eq!(texts(&message), ["a", "b"], "{spelling:?}");
        }
        bridge.finish().await;
    });
}

#[test]
fn waiting_for_input_without_reply_ends_nothing() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let settled = Duration::from_millis(400);
        let steps = vec![Step::Ack, Step::WaitingForInput, Step::Wait(settled), say("after all")];
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!(ended(&message), ("quiet", true));
        assert_eq!(texts(&message), ["after all"]);
        bridge.finish().await;
    });
}

#[test]
fn session_end_ends_the_turn_even_without_reply() {
    run(async {
        let bridge =
            spawn_bridge(|config| bot(config).quiet = QuietRule::Fixed(Duration::from_secs(20))).await;
        for spelling in [SpellingStyle::Documented, SpellingStyle::Slash, SpellingStyle::Upper] {
            bridge.script.behave(|behaviour| behaviour.spelling = spelling);
            let message = turn(&bridge, json!({}), vec![Step::Ack, Step::EndSession]).await;
            assert_eq!(ended(&message), ("sessionEnd", true));
            assert_eq!(texts(&message), [""; 0]);
            let message = turn(&bridge, json!({}), vec![Step::Ack, say("bye"), Step::EndSession]).await;
            assert_eq!(ended(&message), ("sessionEnd", true));
            assert_eq!(texts(&message), ["bye"]);
        }
        bridge.finish().await;
    });
}

#[test]
fn agent_ends_the_turn_and_its_replies_are_unsolicited() {
    agent_takes_over(AgentDesk::Kore);
}

#[test]
fn agent_of_another_desk_ends_the_turn_too() {
    agent_takes_over(AgentDesk::Vendor);
}

#[test]
fn bot_answers_after_the_end_of_the_agent_was_lost() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, json!({}), vec![Step::Ack, Step::AgentStart]).await;
        bridge.script.drop_sockets("alice", CutMode::Fin);
        bridge.script.closed("alice", 1).await;
        bridge.script.push("alice", vec![Step::AgentEnd]);
        bridge.script.connected("alice", 2).await;
        let steps = vec![Step::Ack, say("Back again."), Step::WaitingForInput];
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!((ended(&message), texts(&message)), (("inputWait", true), vec!["Back again."]));
        bridge.finish().await;
    });
}

fn agent_takes_over(desk: AgentDesk) {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.behave(|behaviour| behaviour.agent_desk = desk);
        let message = turn(&bridge, json!({}), vec![Step::Ack, Step::AgentStart]).await;
        assert_eq!(ended(&message), ("agent", true));
        assert_eq!(message["replies"], json!([]));
        let steps = vec![Step::Ack, Step::AgentSay("Alex here.".to_owned())];
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!(ended(&message), ("agent", true));
        assert_eq!(message["replies"], json!([]), "the ack is all that it waits for");
        let series = r#"replies_outside_turns_total{bot="sandbox",kind="unsolicited"}"#;
        while bridge.metric(series).await < 1 {}
        let page = bridge.read("/conversations/alice/events").await;
        let line = page["events"].as_array().unwrap().iter().find(|event| event["type"] == "reply").unwrap();
        assert_eq!((&line["data"]["text"], &line["data"]["agent"]), (&json!("Alex here."), &json!(true)));
        let steps = vec![Step::Ack, Step::AgentEnd, say("I am back."), Step::WaitingForInput];
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!(ended(&message), ("agent", true));
        let message = turn(&bridge, json!({}), vec![Step::Ack, say("Yes?"), Step::WaitingForInput]).await;
        assert_eq!((ended(&message), texts(&message)), (("inputWait", true), vec!["Yes?"]));
        bridge.finish().await;
    });
}

#[test]
fn turn_ends_after_the_quiet_time() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let message = turn(&bridge, json!({}), vec![Step::Ack, say("one"), say("two")]).await;
        assert_eq!(ended(&message), ("quiet", true));
        assert_eq!(message["quiet"], json!({"ms": 400, "by": "configured"}));
        assert_eq!(texts(&message), ["one", "two"]);
        // With too few replies the requested quiet time ends the turn.
        let rules = json!({"expectReplies": 3, "quietMs": 300});
        let message = turn(&bridge, rules, vec![Step::Ack, say("one")]).await;
        assert_eq!(ended(&message), ("quiet", true));
        assert_eq!(message["quiet"], json!({"ms": 300, "by": "caller"}));
        let message = turn(&bridge, json!({}), vec![Step::Ack, say("Yes?"), Step::WaitingForInput]).await;
        assert_eq!((ended(&message), &message["quiet"]), (("inputWait", true), &Value::Null));
        bridge.finish().await;
    });
}

#[test]
fn deadline_ends_a_turn_with_replies() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        // With `expectReplies` alone, silence ends nothing.
        let rules = json!({"expectReplies": 3, "deadlineMs": 900});
        let message = turn(&bridge, rules, vec![Step::Ack, say("one"), say("two")]).await;
        assert_eq!(ended(&message), ("deadline", false));
        assert_eq!(texts(&message), ["one", "two"]);
        // The bot announced more and did not send it.
        let more = Step::Message(message_elements::named("wait_for_response").unwrap());
        let message = turn(&bridge, json!({"deadlineMs": 900}), vec![Step::Ack, more]).await;
        assert_eq!(ended(&message), ("deadline", false));
        bridge.finish().await;
    });
}

#[test]
fn turn_is_limited_to_100_replies_or_4_mib() {
    run(async {
        let bridge =
            spawn_bridge(|config| bot(config).quiet = QuietRule::Fixed(Duration::from_secs(20))).await;
        let message = turn(&bridge, json!({}), vec![say("again"); 101]).await;
        assert_eq!(ended(&message), ("limit", false));
        assert_eq!(texts(&message).len(), 100);
        let large = Step::Message(vec![message_elements::minimal(&"x".repeat(900_000))]);
        let message = turn(&bridge, json!({}), vec![large; 6]).await;
        assert_eq!(ended(&message), ("limit", false));
        assert_eq!(texts(&message).len(), 5);
        bridge.finish().await;
    });
}

#[test]
fn silence_until_the_deadline_is_a_failure() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (steps, slug, acked) in [(vec![Step::Ack], "no-reply", true), (Vec::new(), "no-ack", false)] {
            bridge.script.next("alice", steps);
            let body = json!({"text": "hi", "turn": {"deadlineMs": 500}});
            let answer = bridge.post("alice", &body).await;
            let problem = answer.problem(504, slug);
            let message = &problem["message"];
            let location = answer.header("location").unwrap();
            assert_eq!(message["status"], "failed");
            assert_eq!(message["complete"], false);
            assert_eq!(message["endedBy"], Value::Null);
            assert_eq!(message["error"]["type"], format!("/problems/{slug}"));
            assert_eq!(message["error"]["status"], 504);
            assert_eq!(message["replies"], json!([]));
            assert_eq!(message["ackedAt"].is_string(), acked, "{message}");
            assert_eq!(problem["instance"], location);
            // Reading a failed message succeeds.
            assert_eq!(&bridge.read(location).await, message);
            assert_eq!(&bridge.ended(location).await, message);
        }
        bridge.finish().await;
    });
}

#[test]
fn ack_may_follow_the_reply_or_be_missing() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (steps, acked) in [
            (vec![say("x"), Step::Ack], true),
            (vec![Step::Ack, Step::Ack, say("x")], true),
            (vec![say("x")], false),
            (vec![Step::AckAs(json!(4711)), say("x")], false),
        ] {
            let message = turn(&bridge, json!({}), steps.clone()).await;
            assert_eq!(ended(&message), ("quiet", true));
            assert_eq!(texts(&message), ["x"]);
            assert_eq!(message["ackedAt"].is_string(), acked, "{steps:?} {message}");
        }
        bridge.finish().await;
    });
}

#[test]
fn ack_is_known_in_every_spelling() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for spell in [
            (|id: u64| json!(id)) as fn(u64) -> Value,
            |id| json!(id.to_string()),
            |id| serde_json::from_str(&format!("{id}.0")).unwrap(),
        ] {
            bridge.script.bot(move |_, heard| {
                vec![Step::AckAs(spell(heard.client_message_id.as_u64().unwrap())), say("x")]
            });
            let message = bridge.post("alice", &json!({"text": "hi"})).await.message(200);
            assert!(message["ackedAt"].is_string(), "{message}");
        }
        bridge.finish().await;
    });
}

/// The options of a platform with a welcome.
fn greeting(change: impl FnOnce(&mut Behaviour)) -> SandboxOptions {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    SandboxOptions { behaviour, ..SandboxOptions::default() }
}

#[test]
fn welcome_is_never_a_reply() {
    run(async {
        for delay in [0, 300] {
            let delay = Duration::from_millis(delay);
            let platform = greeting(|behaviour| behaviour.welcome_delay = delay);
            let bridge = spawn_bridge_on(platform, |config| {
                bot(config).welcome = Duration::from_millis(1200);
            })
            .await;
            let steps = vec![Step::Ack, say("the answer"), Step::WaitingForInput];
            let message = turn(&bridge, json!({}), steps).await;
            assert_eq!(texts(&message), ["the answer"]);
            assert_eq!(ended(&message), ("inputWait", true));
            let delivered = bridge.script.observed("alice").delivered;
            assert_eq!(delivered.count(), 2, "the welcome was said");
            assert_eq!(
                bridge.metric(r#"replies_outside_turns_total{bot="sandbox",kind="unsolicited"}"#).await,
                1
            );
            bridge.finish().await;
        }
    });
}

#[test]
fn continued_session_waits_for_no_welcome() {
    run(async {
        let bridge = spawn_bridge_on(greeting(|_| {}), |config| {
            let bot = bot(config);
            bot.welcome = Duration::from_secs(3);
            // Each connect asks for the default mode, which may bring a welcome.
            bot.session_timeout = Duration::ZERO;
        })
        .await;
        bridge.script.next_connect("alice", Vec::new());
        let rules = json!({"expectReplies": 1});
        turn(&bridge, rules.clone(), Step::reply("x")).await;
        bridge.script.drop_sockets("alice", CutMode::Fin);
        let seen = bridge.script.connected("alice", 2).await;
        assert_eq!(seen.connects[1].mode.as_deref(), Some("Default"));
        turn(&bridge, rules, Step::reply("y")).await;
        let heard = bridge.script.seen("alice", 2).await.unwrap();
        assert_eq!(heard.socket, seen.connects[1].socket);
        assert!(
            heard.at.duration_since(seen.connects[1].at) < SignedDuration::from_millis(2500),
            "it was held"
        );
        bridge.finish().await;
    });
}

#[test]
fn welcome_hold_of_0_ms_does_not_wait() {
    run(async {
        let bridge = spawn_bridge_on(greeting(|b| b.welcome = WelcomeTime::AfterFirstMessage), |_| {}).await;
        let steps = vec![Step::Ack, say("the answer"), Step::WaitingForInput];
        // On such a platform the bridge cannot tell the two apart.
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!(texts(&message).len(), 2);
        assert_eq!(texts(&message)[1], "the answer");
        bridge.finish().await;
    });
}

#[test]
fn quiet_time_of_a_known_bot_is_learned() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let bot = bot(config);
            bot.quiet = QuietRule::Auto;
            bot.quiet_min = Duration::from_millis(50);
            // The time of an unknown bot too.
            bot.quiet_max = Duration::from_millis(200);
        })
        .await;
        let first = turn(&bridge, json!({}), vec![Step::Ack, say("It is 10:30 am.")]).await;
        assert_eq!(first["quiet"], json!({"ms": 200, "by": "default"}));
        // What it learned is seen when the next message goes out.
        let mut turns = 1;
        let learned = loop {
            turns += 1;
            let steps = vec![Step::Ack, say(&format!("It is {turns}:15."))];
            let message = turn(&bridge, json!({}), steps).await;
            if message["quiet"]["by"] == "learned" || turns == 60 {
                break message;
            }
        };
        assert_eq!(learned["quiet"], json!({"ms": 50, "by": "learned"}), "after {turns} turns");
        let late =
            vec![Step::Ack, say("It is 7:00."), Step::Wait(Duration::from_millis(150)), say("And late.")];
        let cut = turn(&bridge, json!({}), late).await;
        assert_eq!((ended(&cut), texts(&cut)), (("quiet", true), vec!["It is 7:00."]));
        let series = r#"turn_early_cuts_total{bot="sandbox"}"#;
        while bridge.metric(series).await < 1 {}
        let next = turn(&bridge, json!({}), vec![Step::Ack, say("It is 8:00.")]).await;
        assert_eq!(next["quiet"]["ms"], 200, "the bot may go on again");
        bridge.finish().await;
    });
}
