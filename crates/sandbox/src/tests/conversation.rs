//! Tests of the frames on an open socket.

use super::*;

#[test]
fn conversation_runs_from_grant_to_answer() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect("&ConnectionMode=Default").await;
        let active = link.json().await;
        assert_eq!(active["type"], "bot_active");
        assert_eq!(active["recentSessionInfo"], json!({"isActive": false, "sessionId": null}));
        let start = link.json().await;
        assert_eq!((&start["type"], &start["sessionId"]), (&json!("session_start"), &active["sessionId"]));
        assert!(link.brief(1).await[0].starts_with("Hello!"));

        link.say(1_512_722_848_096_u64, "Where is my order?").await;
        let ack = link.json().await;
        assert_eq!(
            ack,
            json!({"ok": true, "replyto": 1_512_722_848_096_u64, "message": "delivered", "type": "ack"})
        );
        let question = link.json().await;
        assert_eq!(
            question["message"][0]["component"]["payload"]["text"],
            question["message"][0]["cInfo"]["body"]
        );
        assert!(question["contextId"].as_str().unwrap().starts_with("dcx-"));
        assert_eq!(question["traceId"], active["traceId"]);
        assert_eq!(link.brief(1).await, ["waiting_for_user_input"]);
        link.say(2, "4711").await;
        let answer = link.brief(4).await;
        assert!(answer[1].starts_with("Thank you. Order 4711 arrives today"), "{answer:?}");
        assert!(answer[2].starts_with("Do you want to ask about another order?"));

        let seen = script.seen("ann", 2).await.unwrap();
        assert_eq!((seen.text.as_str(), seen.client_message_id), ("4711", json!(2)));
        let observed = script.observed("ann");
        assert_eq!(observed.connects[0].mode.as_deref(), Some("Default"));
        assert_eq!((observed.starts, observed.delivered.count()), (1, 4));
        assert_eq!(script.open_sockets("ann"), 1);
    });
}

#[test]
fn connect_mode_decides_about_the_session() {
    run(async |_sandbox, _script, caller| {
        let mut first = caller.connect("&ConnectionMode=Default").await;
        let session = first.json().await["sessionId"].clone();
        for (mode, same, greeted) in [
            ("&ConnectionMode=Default", true, false),
            ("&ConnectionMode=Reconnect", true, false),
            ("&isReconnect=true", true, false),
            ("&ConnectionMode=Start_New&isReconnect=true", false, true),
            ("", false, true),
        ] {
            let mut link = caller.connect(mode).await;
            let active = link.json().await;
            assert_eq!(active["recentSessionInfo"]["isActive"], true, "{mode}");
            if same {
                assert_eq!(active["sessionId"], session, "{mode}");
            } else {
                assert_ne!(active["sessionId"], session, "{mode}");
            }
            link.send(&json!({"type": "ping", "id": 7})).await;
            let next = link.json().await;
            assert_eq!(next["type"] == "session_start", greeted, "{mode}: {next}");
        }
    });
}

#[test]
fn ack_order_follows_the_behaviour() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        for id in [json!(1_512_722_848_096.25), json!("a-uuid"), json!(7)] {
            link.say(id.clone(), "/echo x").await;
            assert_eq!(link.json().await["replyto"], id);
            assert_eq!(link.brief(1).await, ["x"]);
        }
        for (order, frames) in [
            (AckOrder::After, &["x", "ack"][..]),
            (AckOrder::Never, &["x"]),
            (AckOrder::Twice, &["ack", "ack", "x"]),
        ] {
            script.behave(|behaviour| behaviour.ack = order);
            link.say(1, "/echo x").await;
            assert_eq!(link.brief(frames.len()).await, frames);
        }
        script.behave(|behaviour| behaviour.ack = AckOrder::WithoutReplyTo);
        link.say(1, "/echo x").await;
        assert_eq!(link.json().await, json!({"ok": true, "type": "ack"}));
        assert_eq!(link.brief(1).await, ["x"]);
        script.next("ann", vec![Step::AckAs(json!("other"))]);
        link.say(1, "x").await;
        assert_eq!(link.json().await["replyto"], "other");
    });
}

#[test]
fn scripted_steps_are_performed_exactly() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        let gate = Gate::new();
        script.next("ann", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("late".into())]);
        script.next_of_any(vec![
            Step::Raw("{not json".into()),
            Step::Binary(b"\xff".to_vec()),
            Step::Event("never_heard_of".into()),
            Step::Message(Vec::new()),
            Step::Response(json!({"messageId": null, "message": [message_elements::minimal("m")]})),
            Step::Frame(json!({"any": "thing"})),
        ]);
        link.say(1, "first").await;
        assert_eq!(link.brief(1).await, ["ack"]);
        link.say(2, "second").await;
        assert_eq!(link.frame().await.unwrap(), b"{not json");
        assert_eq!(link.frame().await.unwrap(), b"\xff");
        assert_eq!(link.json().await["type"], "never_heard_of");
        assert_eq!(link.json().await["message"], json!([]));
        let old = link.json().await;
        assert_eq!((old.get("messageId"), &old["message"][0]["cInfo"]["body"]), (None, &json!("m")));
        assert_eq!(link.json().await, json!({"any": "thing"}));
        gate.open();
        assert_eq!(link.brief(1).await, ["late"], "answers cross the next message");
        script.push("ann", vec![Step::Say("unasked".into())]);
        assert_eq!(link.brief(1).await, ["unasked"]);
    });
}

#[test]
fn stream_has_one_id_and_the_scripted_end() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        for end in [StreamEndMarker::Marked, StreamEndMarker::Complete, StreamEndMarker::Missing] {
            let chunks = vec!["Good ".to_owned(), "day".to_owned()];
            script.push("ann", vec![Step::Stream { chunks, gap: Duration::ZERO, end }]);
            let (first, last) = (link.json().await, link.json().await);
            assert_eq!(first["messageId"], last["messageId"]);
            assert_eq!((&first["sM"], first.get("endChunk")), (&json!(true), None));
            assert_eq!(last.get("endChunk").is_some(), end != StreamEndMarker::Missing);
            let whole = (end == StreamEndMarker::Complete).then(|| json!("Good day"));
            assert_eq!(last.get("completeResponse"), whole.as_ref());
        }
        let chunks = vec!["Good ".to_owned(), "day".to_owned()];
        let end = StreamEndMarker::Plain;
        script.push("ann", vec![Step::Stream { chunks, gap: Duration::ZERO, end }]);
        let (first, _, whole) = (link.json().await, link.json().await, link.json().await);
        assert_eq!((whole.get("sM"), &whole["messageId"]), (None, &first["messageId"]));
        assert_eq!(whole["message"], json!([message_elements::text("Good day")]));
    });
}

#[test]
fn vendor_desk_tells_by_events_and_templates() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.agent_desk = AgentDesk::Vendor);
        let mut link = caller.connect_quietly().await;
        script.push("ann", vec![Step::AgentStart, Step::AgentSay("Hi".into()), Step::AgentEnd]);
        assert_eq!(link.json().await["message"]["type"], "agent_session_active");
        link.brief(2).await;
        let said = link.json().await;
        assert_eq!(said["message"], json!([message_elements::agent_line("Hi")]));
        assert_eq!((said.get("fromAgent"), said.get("author")), (None, None));
        assert_eq!(link.json().await["message"]["type"], "agent_session_inactive");
    });
}

#[test]
fn new_socket_gets_the_newest_responses_again() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.repeats = 2);
        let mut link = caller.connect_quietly().await;
        script.push("ann", ["a", "b", "c"].map(|text| Step::Say(text.into())).into());
        assert_eq!(link.brief(3).await, ["a", "b", "c"]);
        let mut link = caller.connect("&ConnectionMode=Reconnect").await;
        assert_eq!(link.brief(3).await, ["bot_active", "b", "c"]);
    });
}

#[test]
fn frame_spelling_and_framing_follow_the_behaviour() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        script.behave(|behaviour| behaviour.spelling = SpellingStyle::Capitals);
        link.say(1, "/wait").await;
        let frames = link.brief(3).await;
        assert_eq!((frames[0].as_str(), frames[2].as_str()), ("Ack", "Waiting_For_User_Input"));
        script.behave(|behaviour| {
            behaviour.spelling = SpellingStyle::Documented;
            behaviour.framing = FramingStyle::Fragments(7);
            behaviour.waiting = WaitingOrder::BeforeLast;
        });
        link.say(2, "/wait").await;
        let frames = link.brief(3).await;
        assert_eq!((frames[0].as_str(), frames[1].as_str()), ("ack", "waiting_for_user_input"));
        script.behave(|behaviour| behaviour.framing = FramingStyle::Binary);
        link.say(3, "/echo binary").await;
        assert_eq!(link.brief(2).await, ["ack", "binary"]);
    });
}

#[test]
fn second_socket_hears_or_replaces_the_first() {
    run(async |_sandbox, script, caller| {
        let mut one = caller.connect_quietly().await;
        let mut two = caller.connect_quietly().await;
        script.connected("ann", 2).await;
        one.say(1, "/echo x").await;
        assert_eq!(one.brief(2).await, ["ack", "x"]);
        let echo = two.json().await;
        assert_eq!((&echo["type"], &echo["from"]), (&json!("user_message"), &json!("self")));
        assert_eq!(echo["message"]["body"], "/echo x");
        assert_eq!(two.brief(1).await, ["x"]);
        script.behave(|behaviour| behaviour.replace = true);
        let mut three = caller.connect_quietly().await;
        assert_eq!(one.end().await, End::Close(None));
        assert_eq!(two.end().await, End::Close(None));
        three.say(2, "/echo y").await;
        assert_eq!(three.brief(2).await, ["ack", "y"]);
    });
}

#[test]
fn agent_takes_over_and_leaves() {
    run(async |_sandbox, _script, caller| {
        let mut link = caller.connect_quietly().await;
        link.say(1, "/agent").await;
        let frames = link.brief(8).await;
        assert_eq!(frames[2..7], ["agent_session_start", "events", "events", "events", "events"]);
        assert!(frames[7].starts_with("Hi, this is Alex"));
        link.say(2, "Hi Alex").await;
        assert_eq!(link.brief(5).await, ["ack", "events", "events", "events", "events"]);
        let said = link.json().await;
        assert_eq!((&said["fromAgent"], &said["author"]["type"]), (&json!(true), &json!("AGENT")));
        link.say(3, "/bot").await;
        let frames = link.brief(6).await;
        assert_eq!(frames[3..], ["events", "agent_session_end", "I am back."], "behind the receipts");
        link.say(4, "Hi").await;
        assert_eq!(link.brief(2).await[1], "Hello! What can I do for you?");
    });
}

#[test]
fn pings_events_and_session_ends_are_answered() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect("").await;
        link.brief(3).await;
        link.send(&json!({"type": "ping", "resourceid": "/bot.message", "id": 7})).await;
        assert_eq!(link.json().await["type"], "pong");
        link.send(&json!({"resourceid": "/bot.clientEvent", "id": 8, "preDefinedEvent": {"type": "TYPING_STARTED"}})).await;
        assert_eq!(link.json().await, json!({"ok": true, "type": "ack"}));
        link.send(&json!({"resourceid": "/bot.closeConversationSession", "id": 9, "clientMessageId": 9}))
            .await;
        assert_eq!(link.brief(2).await, ["ack", "session_end"]);
        link.frames.send(Message::Text("{broken".into())).await.unwrap();
        link.say(10, "/echo still here").await;
        assert_eq!(link.brief(3).await, ["session_start", "ack", "still here"]);
        let observed = script.observed("ann");
        assert_eq!((observed.pings, observed.others.count()), (1, 3));

        link.frames.send(Message::Ping("abc".into())).await.unwrap();
        let pong = link.frames.next().await.unwrap().unwrap();
        assert_eq!(pong, Frame::Pong("abc".into()));
    });
}

#[test]
fn welcome_waits_for_the_first_message() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| {
            behaviour.welcome = WelcomeTime::AfterFirstMessage;
            behaviour.active_last = true;
            behaviour.hello = true;
        });
        let mut link = caller.connect("").await;
        assert_eq!(link.brief(3).await, ["hello", "session_start", "bot_active"]);
        link.say(1, "/echo x").await;
        let frames = link.brief(3).await;
        assert_eq!((frames[0].as_str(), frames[2].as_str()), ("ack", "x"));
        assert!(frames[1].starts_with("Hello!"));
        link.say(2, "/echo y").await;
        assert_eq!(link.brief(2).await, ["ack", "y"]);
    });
}

#[test]
fn late_welcome_delays_no_answer() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.welcome_delay = Duration::from_millis(100));
        let mut link = caller.connect("").await;
        link.say(1, "/echo x").await;
        let frames = link.brief(5).await;
        assert_eq!(frames[..4], ["bot_active", "session_start", "ack", "x"]);
        assert!(frames[4].starts_with("Hello!"));
    });
}

#[test]
fn silenced_platform_answers_no_ping() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| (behaviour.pong, behaviour.ws_pong) = (false, false));
        let mut link = caller.connect_quietly().await;
        link.send(&json!({"type": "ping"})).await;
        link.frames.send(Message::Ping("abc".into())).await.unwrap();
        link.say(1, "/echo x").await;
        assert_eq!(
            link.frames.next().await.unwrap().unwrap(),
            Frame::Text(r#"{"ok":true,"replyto":1,"message":"delivered","type":"ack"}"#.into())
        );
        let observed = script.observed("ann");
        assert_eq!((observed.pings, observed.ws_pings), (1, 1));
    });
}

#[test]
fn each_element_shape_arrives() {
    let options = SandboxOptions { rate_per_minute: 0, ..SandboxOptions::default() };
    run_with(options, async |sandbox, _script, caller| {
        let mut link = caller.connect_quietly().await;
        for name in message_elements::NAMES {
            link.say(1, &format!("/template {name}")).await;
            assert_eq!(link.brief(1).await, ["ack"]);
            assert_eq!(
                link.json().await["message"],
                Value::from(message_elements::at_site(
                    &message_elements::named(name).unwrap(),
                    &sandbox.url()
                )),
                "{name}"
            );
        }
    });
}

#[test]
fn load_options_keep_no_data() {
    let options = SandboxOptions::for_load(2);
    run_with(options, async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        for n in 0..100 {
            link.say(n, "/echo x").await;
            assert_eq!(link.brief(2).await, ["ack", "x"]);
        }
        assert_eq!(script.totals().messages, 100);
        assert_eq!(script.observed("ann").messages.count(), 0);
        let (_, page) = caller.history(&caller.grant().await, "").await;
        assert_eq!(page["total"], 0);
    });
}

#[test]
fn bots_have_separate_users() {
    let options =
        SandboxOptions { bots: vec![BOT_ID.into(), "st-other".into()], ..SandboxOptions::default() };
    run_with(options, async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        script.push(("st-other", "ann"), vec![Step::Say("for the other".into())]);
        script.delivered(("st-other", "ann"), 1).await;
        script.push((BOT_ID, "ann"), vec![Step::Say("for this one".into())]);
        assert_eq!(link.brief(1).await, ["for this one"]);
    });
}
