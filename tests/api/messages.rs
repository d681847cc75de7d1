//! POST and GET of messages: the resource, waits, order (api.md 1).

use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use crate::support::{Request, run, spawn_bridge};

/// Returns true for an RFC 3339 time in UTC with milliseconds.
fn is_time(value: &Value) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddZ";
    value.as_str().is_some_and(|text| {
        text.len() == pattern.len()
            && text
                .chars()
                .zip(pattern.chars())
                .all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
    })
}

#[test]
fn answered_message_has_every_field() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next(
            "alice",
            vec![
                Step::Ack,
                Step::Say("It left the warehouse.".to_owned()),
                Step::Say("It arrives tomorrow.".to_owned()),
                Step::WaitingForInput,
            ],
        );
        let body = json!({"text": "Where is my order?"});
        let answer = bridge.send(Request::message("alice", &body).prefer("wait=20")).await;
        let message = answer.message(200);
        let id = message["id"].as_str().unwrap();
        assert_eq!(
            answer.header("location"),
            Some(format!("/conversations/alice/messages/{id}?bot=sandbox").as_str())
        );
        assert_eq!(answer.header("preference-applied"), Some("wait=20"));
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("idempotency-replayed"), None);

        let heard = bridge.script.seen("alice", 1).await.unwrap();
        assert_eq!(message["clientMessageId"], heard.client_message_id);
        assert_eq!(heard.text, "Where is my order?");
        for (field, value) in [
            ("bot", json!("sandbox")),
            ("user", json!("alice")),
            ("status", json!("answered")),
            ("complete", json!(true)),
            ("endedBy", json!("inputWait")),
            ("text", json!("Where is my order?")),
            ("error", Value::Null),
            ("callback", Value::Null),
        ] {
            assert_eq!(message.get(field), Some(&value), "{field}: {message}");
        }
        let times: Vec<_> = ["acceptedAt", "sentAt", "ackedAt", "firstReplyAt", "endedAt"]
            .map(|field| {
                assert!(is_time(&message[field]), "{field}: {message}");
                message[field].as_str().unwrap()
            })
            .to_vec();
        assert!(times.is_sorted(), "{times:?}");

        let replies = message["replies"].as_array().unwrap();
        assert_eq!(replies.len(), 2, "{message}");
        let delivered = bridge.script.delivered("alice", 2).await.delivered;
        for (reply, said) in replies.iter().zip(delivered.iter()) {
            assert_eq!(reply["text"], said.text);
            assert_eq!(reply["messageId"], said.message_id);
            assert_eq!(reply["inReplyTo"], id);
            assert_eq!(reply["correlation"], "window");
            assert_eq!(reply["late"], false);
            assert_eq!(reply["agent"], false);
            assert!(reply["createdOn"].is_string(), "{reply}");
            assert_eq!(reply["event"]["messageId"], said.message_id);
            assert_eq!(reply["event"]["type"], "bot_response");
        }
        assert!(replies[0]["seq"].as_u64().unwrap() < replies[1]["seq"].as_u64().unwrap());

        // Each read gives the same resource.
        for _ in 0..2 {
            let read = bridge.api.get(answer.header("location").unwrap()).await;
            assert_eq!(read.message(200), message);
            assert_eq!(read.header("preference-applied"), None);
        }
        bridge.finish().await;
    });
}

#[test]
fn async_post_is_answered_at_once_and_read_later() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        bridge.script.next(
            "alice",
            vec![Step::Ack, Step::Until(gate.clone()), Step::Say("Done.".to_owned()), Step::WaitingForInput],
        );
        let request = Request::message("alice", &json!({"text": "hi"}));
        let answer = bridge.send(request.prefer("respond-async")).await;
        let message = answer.message(202);
        assert_eq!(answer.header("preference-applied"), Some("respond-async"));
        assert_eq!(answer.retry_after(), 1);
        for field in ["complete", "endedBy", "quiet", "error", "sentAt", "ackedAt", "firstReplyAt", "endedAt"]
        {
            assert_eq!(message.get(field), Some(&Value::Null), "{field}: {message}");
        }
        assert_eq!(message["status"], "queued");
        assert_eq!(message["replies"], json!([]));
        let location = answer.header("location").unwrap();

        let acked = bridge.read_when(location, |message| message["status"] == "acked").await;
        assert!(is_time(&acked["sentAt"]) && is_time(&acked["ackedAt"]), "{acked}");
        assert_eq!(acked["complete"], Value::Null);
        // An expired wait returns the current state.
        let read = bridge.send(Request::get(location).prefer("wait=1")).await;
        assert_eq!(read.message(200)["status"], "acked");
        assert_eq!(read.header("preference-applied"), Some("wait=1"));

        // A longer wait ends with the message.
        let wait = bridge.send(Request::get(location).prefer("wait=55"));
        let open = async {
            bridge.read(location).await;
            gate.open();
        };
        let (ended, ()) = tokio::join!(wait, open);
        let ended = ended.message(200);
        assert_eq!((&ended["status"], &ended["replies"][0]["text"]), (&json!("answered"), &json!("Done.")));
        bridge.finish().await;
    });
}

#[test]
fn replies_are_visible_during_the_turn() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        bridge.script.next(
            "alice",
            vec![
                Step::Ack,
                Step::Say("First.".to_owned()),
                Step::Until(gate.clone()),
                Step::Say("Second.".to_owned()),
            ],
        );
        let location = bridge.post_async("alice", &json!({"text": "hi", "turn": {"expectReplies": 2}})).await;
        let message = bridge.read_when(&location, |message| message["status"] == "answering").await;
        assert_eq!(message["replies"][0]["text"], "First.");
        assert_eq!(message["complete"], Value::Null);
        gate.open();
        let message = bridge.ended(&location).await;
        assert_eq!(message["replies"][1]["text"], "Second.");
        assert_eq!(message["endedBy"], "replyCount");
        bridge.finish().await;
    });
}

#[test]
fn wait_is_preferred_or_default_and_at_most_55_s() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.reply.default_wait = std::time::Duration::from_secs(1);
        })
        .await;
        let gate = Gate::new();
        bridge.script.next("alice", vec![Step::Until(gate.clone()), Step::Ack, Step::Say("x".to_owned())]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let answer = bridge.send(Request::message("alice", &body)).await;
        assert!(["sent", "queued"].contains(&answer.message(202)["status"].as_str().unwrap()), "{answer}");
        assert_eq!(answer.header("preference-applied"), None);
        assert_eq!(answer.retry_after(), 1);
        gate.open();
        bridge.ended(answer.header("location").unwrap()).await;

        for (prefer, status, applied) in [
            ("wait=3600", 200, "wait=55"),
            ("respond-async, wait=20", 200, "respond-async, wait=20"),
            ("wait=0", 202, "wait=0"),
            ("wait=soon, respond-async", 202, "respond-async"),
            ("handling=lenient, x; y=\"wait=1\"", 200, ""),
        ] {
            bridge.script.next("alice", Step::reply("x"));
            let answer = bridge.send(Request::message("alice", &body).prefer(prefer)).await;
            answer.message(status);
            assert_eq!(answer.header("preference-applied").unwrap_or_default(), applied, "{prefer}");
            bridge.ended(answer.header("location").unwrap()).await;
        }
        bridge.finish().await;
    });
}

#[test]
fn messages_of_a_user_are_sent_one_by_one_in_order() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        bridge.script.bot({
            let gate = gate.clone();
            move |_, heard| vec![Step::Until(gate.clone()), Step::Ack, Step::Say(heard.text.clone())]
        });
        let mut locations = Vec::new();
        for n in 0..32 {
            let body = json!({"text": format!("number {n}"), "turn": {"expectReplies": 1}});
            locations.push(bridge.post_async("alice", &body).await);
        }
        bridge.script.seen("alice", 1).await;
        // One turn at a time: the second message is still queued.
        assert_eq!(bridge.read(&locations[1]).await["status"], "queued");
        assert_eq!(bridge.script.observed("alice").messages.count(), 1);
        assert_eq!(bridge.open(), 32);
        gate.open();
        for (n, location) in locations.iter().enumerate() {
            let message = bridge.ended(location).await;
            assert_eq!(message["replies"][0]["text"], format!("number {n}"));
            assert_eq!(message["replies"].as_array().unwrap().len(), 1);
        }
        let heard = bridge.script.observed("alice").messages;
        let texts: Vec<_> = heard.iter().map(|heard| heard.text.as_str()).collect();
        let expected: Vec<_> = (0..32).map(|n| format!("number {n}")).collect();
        assert_eq!(texts, expected);
        let ids: Vec<_> = heard.iter().map(|heard| heard.client_message_id.as_u64().unwrap()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        bridge.finish().await;
    });
}

#[test]
fn many_users_are_answered_concurrently() {
    run(async {
        let whole = spawn_bridge(|config| config.server.max_sockets = 400).await;
        whole.script.bot(|_, heard| Step::reply(format!("to {}", heard.text)));
        let users: Vec<_> = (0..200).map(|n| format!("user-{n}")).collect();
        let bridge = &whole;
        let all = users.iter().map(|user| async move {
            let body = json!({"text": format!("from {user}"), "turn": {"expectReplies": 1}});
            let message = bridge.post(user, &body).await.message(200);
            assert_eq!(message["replies"][0]["text"], format!("to from {user}"));
            assert_eq!(message["user"], *user);
        });
        futures_util::future::join_all(all).await;
        for user in &users {
            assert_eq!(bridge.script.observed(user.as_str()).messages.count(), 1, "{user}");
        }
        assert_eq!(bridge.script.totals().messages, 200);
        whole.finish().await;
    });
}

#[test]
fn objects_for_the_bot_arrive_unchanged() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let body = json!({
            "text": "payload-7", "displayText": "Order status",
            "attachments": [{"fileId": "f-1", "fileName": "a.pdf", "fileType": "attachment", "size": 5, "x": [{}]}],
            "customData": {"tier": "gold", "nested": {"a": [1, 2.5, null, true], "ü": "\u{1F600}"}},
            "metaTags": {"messageTags": [{"name": "n", "value": "v"}]},
            "meta": {"timezone": "Europe/Paris", "locale": "fr-FR"},
            "turn": {"expectReplies": 1},
        });
        bridge.post("alice", &body).await.message(200);
        let heard = bridge.script.seen("alice", 1).await.unwrap();
        assert_eq!(heard.text, "payload-7");
        let frame = heard.frame;
        assert_eq!(frame["message"]["renderMsg"], "Order status", "{frame}");
        assert_eq!(frame["message"]["attachments"], body["attachments"], "{frame}");
        assert_eq!(frame["message"]["customData"], body["customData"], "{frame}");
        assert_eq!(frame["botInfo"]["metaTags"], body["metaTags"], "{frame}");
        assert_eq!(frame["meta"], body["meta"], "{frame}");
        assert_eq!(frame["botInfo"]["chatBot"], "Sandbox", "{frame}");
        assert_eq!(frame["botInfo"]["taskBotId"], "st-sandbox", "{frame}");
        bridge.finish().await;
    });
}

#[test]
fn message_of_files_alone_tells_the_bot_their_names() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let files = json!([{"fileId": "f-1", "fileName": "a.pdf"}, {"fileId": "f-2"}]);
        for (number, body) in (1..).zip([
            json!({"attachments": files, "turn": {"expectReplies": 1}}),
            json!({"text": "", "attachments": files, "turn": {"expectReplies": 1}}),
        ]) {
            bridge.script.next("alice", Step::reply("x"));
            let message = bridge.post("alice", &body).await.message(200);
            assert_eq!(message["text"], "", "the caller wrote none");
            let heard = bridge.script.seen("alice", number).await.unwrap();
            assert_eq!(heard.text, "a.pdf, f-2");
            assert_eq!(heard.frame["message"]["attachments"], files);
        }
        bridge.finish().await;
    });
}

#[test]
fn users_of_every_kind_reach_the_platform() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (path, user) in
            [("Zo%C3%AB", "Zoë"), ("a%2Fb%3Fc", "a/b?c"), ("a+b%20c", "a+b c"), ("%252F", "%2F")]
        {
            bridge.script.next(user, Step::reply("hello"));
            let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
            let answer = bridge.post(path, &body).await;
            assert_eq!(answer.message(200)["user"], user);
            assert_eq!(bridge.script.observed(user).messages.count(), 1, "{user}");
            let location = answer.header("location").unwrap();
            assert_eq!(bridge.read(location).await["user"], user);
        }
        bridge.finish().await;
    });
}

#[test]
fn hanging_up_revokes_nothing() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        let said = Step::Say("x".to_owned());
        bridge.script.next("alice", vec![Step::Ack, Step::Until(gate.clone()), said]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let request = || Request::message("alice", &body).header("Idempotency-Key", "k").prefer("wait=55");
        tokio::select! {
            answer = bridge.send(request()) => panic!("answered: {answer}"),
            _ = bridge.script.seen("alice", 1) => {}
        }
        gate.open();
        // A repeated request gets the outcome.
        let answer = bridge.send(request()).await;
        assert_eq!(answer.message(200)["replies"][0]["text"], "x");
        assert_eq!(answer.header("idempotency-replayed"), Some("true"));
        assert_eq!(bridge.script.totals().messages, 1);
        bridge.finish().await;
    });
}
