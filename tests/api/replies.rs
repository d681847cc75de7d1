//! Replies of a turn: late replies, streamed replies, shapes (api.md 1).

use std::time::Duration;

use rtm_bridge::config::PayloadFormat;
use rtm_sandbox::{CutMode, FramingStyle, Gate, Step, StreamEndMarker, message_elements};
use serde_json::{Value, json};

use super::odd_frames::bridge_for;
use super::turns::{ended, say, texts, turn};
use crate::support::{Receiver, Request, bot, run, spawn_bridge};

#[test]
fn late_reply_joins_its_turn() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        let steps = vec![Step::Ack, say("a"), Step::WaitingForInput, Step::Until(gate.clone()), say("late")];
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!(texts(&message), ["a"]);
        gate.open();
        let id = message["id"].as_str().unwrap();
        let location = format!("/conversations/alice/messages/{id}");
        let read =
            bridge.read_when(&location, |message| message["replies"].as_array().unwrap().len() == 2).await;
        assert_eq!(texts(&read), ["a", "late"]);
        let late = &read["replies"][1];
        assert_eq!((&late["late"], &late["correlation"]), (&json!(true), &json!("window")));
        assert_eq!(late["inReplyTo"], id);
        assert_eq!(read["replies"][0]["late"], false);
        // The end stays unchanged.
        for field in ["status", "endedBy", "complete", "endedAt", "firstReplyAt"] {
            assert_eq!(read[field], message[field], "{field}");
        }
        assert_eq!(bridge.metric(r#"replies_outside_turns_total{bot="sandbox",kind="late"}"#).await, 1);
        bridge.finish().await;
    });
}

#[test]
fn reply_after_the_late_window_is_unsolicited() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).late_window = Duration::ZERO).await;
        let message = turn(&bridge, json!({}), vec![Step::Ack, say("a"), Step::WaitingForInput]).await;
        bridge.script.push("alice", vec![say("too late")]);
        let series = r#"replies_outside_turns_total{bot="sandbox",kind="unsolicited"}"#;
        while bridge.metric(series).await < 1 {}
        let id = message["id"].as_str().unwrap();
        assert_eq!(texts(&bridge.read(&format!("/conversations/alice/messages/{id}")).await), ["a"]);
        bridge.finish().await;
    });
}

#[test]
fn reply_after_the_next_message_belongs_to_it() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        let steps = vec![Step::Ack, say("a"), Step::WaitingForInput, Step::Until(gate.clone()), say("b")];
        let first = turn(&bridge, json!({}), steps).await;
        bridge.script.next("alice", vec![Step::Ack]);
        let body = json!({"text": "next", "turn": {"expectReplies": 1}});
        let location = bridge.post_async("alice", &body).await;
        bridge.script.seen("alice", 2).await;
        gate.open();
        let second = bridge.ended(&location).await;
        assert_eq!(texts(&second), ["b"]);
        assert_eq!(second["replies"][0]["late"], false);
        let id = first["id"].as_str().unwrap();
        assert_eq!(texts(&bridge.read(&format!("/conversations/alice/messages/{id}")).await), ["a"]);
        bridge.finish().await;
    });
}

#[test]
fn streamed_reply_is_one_reply() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let stream = |end| Step::Stream {
            chunks: ["It ", "is ", "on its way."].map(str::to_owned).to_vec(),
            gap: Duration::from_millis(20),
            end,
        };
        for (end, by, complete) in [
            (StreamEndMarker::Marked, "inputWait", true),
            (StreamEndMarker::Complete, "inputWait", true),
            (StreamEndMarker::Missing, "inputWait", true),
            (StreamEndMarker::Plain, "inputWait", true),
        ] {
            let message = turn(&bridge, json!({}), vec![Step::Ack, stream(end), Step::WaitingForInput]).await;
            assert_eq!(texts(&message), ["It is on its way."], "{end:?}");
            assert_eq!(ended(&message), (by, complete), "{end:?}");
        }
        // An unfinished stream extends the turn, here beyond the deadline.
        let message =
            turn(&bridge, json!({"deadlineMs": 1000}), vec![stream(StreamEndMarker::Missing)]).await;
        assert_eq!(ended(&message), ("deadline", false));
        assert_eq!(texts(&message), ["It is on its way."]);
        // A finished stream does not, however it was finished.
        for end in [StreamEndMarker::Marked, StreamEndMarker::Plain] {
            let message = turn(&bridge, json!({}), vec![Step::Ack, stream(end)]).await;
            assert_eq!(ended(&message), ("quiet", true), "{end:?}");
            assert_eq!(texts(&message), ["It is on its way."], "{end:?}");
        }
        bridge.finish().await;
    });
}

#[test]
fn every_shape_has_its_plain_text() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (shape, text) in [
            ("text", "Plain text"),
            ("minimal", "Text without a component"),
            ("quick_replies", "Was that helpful? \r\n\r\n a) Yes \r\n b) No \r\n"),
            ("buttons", "Which order do you mean? \r\n\r\n a) 4711 \r\n b) 4712 \r\n"),
            ("list", "Your orders\nOrder 4711 – Arrives today\nTrack\nOrder 4712 – Being packed\nTrack"),
            ("table", "Your orders\nOrder | Status\n4711 | on its way\n4712 | being packed"),
            ("image", "Your parcel"),
            ("link", "Track your parcel\nhttps://example.com/track/4711"),
            ("template_in_body", "Is the body readable?\nNo"),
            ("json_text", "Say \"yes\"?\nYes"),
            ("payload_string", "Say \"yes\"?\nYes"),
            ("payload_plain", "You are number 2 in the queue"),
            ("quot", "Your parcel \"4711\" is on its way"),
            ("error", "Something went wrong"),
            ("attachment", "Your invoice\ninvoice.pdf"),
            ("two", "The first of two elements\nThe second of two elements"),
            ("live_agent", "Hi, this is Alex"),
        ] {
            let elements = message_elements::named(shape).unwrap();
            let steps = vec![Step::Ack, Step::Message(elements.clone())];
            let message = turn(&bridge, json!({"expectReplies": 1}), steps).await;
            assert_eq!(texts(&message), [text], "{shape}");
            // The platform's frame is kept unchanged.
            let told = message["replies"][0]["event"]["message"].to_string();
            // The sandbox serves the pictures of its templates itself.
            let site = told.split('"').find_map(|text| text.strip_suffix("/sandbox/parcel.png"));
            let sent = json!(elements).to_string();
            assert_eq!(told, sent.replace(message_elements::SITE, site.unwrap_or_default()), "{shape}");
        }
        bridge.finish().await;
    });
}

/// A template with choices and a picture, and what a reply tells of it.
fn drinks() -> (Value, Value) {
    let button =
        |title: &str| json!({"type": "postback", "title": title, "payload": format!("drink {title}")});
    let template = json!({"type": "template", "payload": {"template_type": "carousel", "elements": [
        {"title": "Hot", "image_url": "https://i.example/hot.png", "buttons": [button("Tea"), button("Coffee")]}]}});
    let told = json!({
        "text": "Hot\nTea\nCoffee",
        "choices": [{"title": "Tea", "payload": "drink Tea"}, {"title": "Coffee", "payload": "drink Coffee"}],
        "media": [{"kind": "image", "url": "https://i.example/hot.png", "title": "Hot"}],
    });
    (template, told)
}

fn told_of(reply: &Value) -> Value {
    json!({"text": reply["text"], "choices": reply["choices"], "media": reply["media"]})
}

#[test]
fn choices_and_media_are_told_in_every_form() {
    run(async {
        let (template, told) = drinks();
        let element = json!({"type": "text", "component": {"type": "template", "payload": template}});
        for format in [PayloadFormat::Standard, PayloadFormat::CloudEvents] {
            let receiver = Receiver::start();
            let bridge = bridge_for(&receiver, format).await;
            let mut stream = bridge.api.events_with(Request::get("/conversations/alice/events")).await;
            let steps =
                vec![Step::Ack, Step::Message(vec![element.clone()]), say("plain"), Step::WaitingForInput];
            let message = turn(&bridge, json!({}), steps).await;
            assert_eq!(told_of(&message["replies"][0]), told);
            let plain = json!({"text": "plain", "choices": [], "media": []});
            assert_eq!(told_of(&message["replies"][1]), plain, "the lists are always there");
            let location = format!("/conversations/alice/messages/{}", message["id"].as_str().unwrap());
            assert_eq!(told_of(&bridge.read(&location).await["replies"][0]), told, "from the store");
            let page = bridge.read("/conversations/alice/events").await;
            let events = page["events"].as_array().unwrap();
            let reply = events.iter().find(|event| event["type"] == "reply").unwrap();
            assert_eq!(told_of(&reply["data"]), told);
            while !stream.block().await.unwrap().contains(r#""payload":"drink Coffee""#) {}
            let body = receiver.requests_at_least(1).await[0].json();
            let data = if format == PayloadFormat::Standard { &body["data"] } else { &body };
            assert_eq!(told_of(&data["replies"][0]), told);
            // A late reply, and one that belongs to no turn.
            bridge.script.push("alice", vec![Step::Message(vec![element.clone()])]);
            let body = receiver.requests_at_least(2).await[1].json();
            let data = if format == PayloadFormat::Standard { &body["data"] } else { &body };
            assert_eq!((told_of(data), &data["late"]), (told.clone(), &json!(true)));
            bridge.finish().await;
        }
    });
}

#[test]
fn reply_from_history_reads_like_its_frame() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let (template, told) = drinks();
        let steps = vec![Step::Ack, Step::Drop(CutMode::Fin), Step::OnlyHistory(template.to_string())];
        let message = turn(&bridge, json!({"expectReplies": 1}), steps).await;
        assert_eq!(told_of(&message["replies"][0]), told);
        assert_eq!(message["replies"][0]["correlation"], "history");
        bridge.finish().await;
    });
}

#[test]
fn kore_form_reads_texts_beside_templates() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver, PayloadFormat::KoreV2).await;
        let file = json!({"cInfo": {"body": "See", "attachments": [{"fileId": "f", "fileName": "a.pdf"}]}});
        let elements = vec![message_elements::quick_replies("Tea?", &["Yes"]), file];
        turn(&bridge, json!({"expectReplies": 1}), vec![Step::Ack, Step::Message(elements)]).await;
        let body = receiver.requests_at_least(1).await[0].json();
        assert_eq!(body["data"][0]["type"], "template");
        assert_eq!(
            (&body["data"][1]["type"], &body["data"][1]["val"]),
            (&json!("text"), &json!("See\na.pdf"))
        );
        bridge.finish().await;
    });
}

#[test]
fn blank_response_is_an_event_and_no_reply() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let blank = |message: Value| Step::Frame(json!({"type": "bot_response", "message": message}));
        let blanks = [json!([]), json!(null), json!([{}]), json!(""), message_elements_of("")];
        let mut steps = vec![Step::Ack];
        steps.extend(blanks.into_iter().map(blank));
        steps.push(say("a"));
        let message = turn(&bridge, json!({"expectReplies": 1}), steps).await;
        assert_eq!((texts(&message), ended(&message)), (vec!["a"], ("replyCount", true)));
        let page = bridge.read("/conversations/alice/events").await;
        let kinds: Vec<_> =
            page["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
        let told = kinds.iter().filter(|kind| **kind == "platform").count();
        assert!(told >= 5, "each is told as an event: {kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| **kind == "reply").count(), 1);
        bridge.finish().await;
    });
}

/// A `message` of one text element.
fn message_elements_of(text: &str) -> Value {
    json!([message_elements::text(text)])
}

#[test]
fn other_frames_are_no_replies() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let twice = json!({
            "messageId": "ms-twice",
            "message": [message_elements::text("once")],
        });
        let steps = vec![
            Step::Raw("{not JSON".to_owned()),
            Step::Frame(json!({"type": "heard_of_by_nobody", "x": [1]})),
            Step::Frame(json!([])),
            Step::Frame(json!({"type": 7})),
            Step::Binary(vec![0xff, 0xfe, 0x00]),
            Step::Event("typing".to_owned()),
            Step::Ack,
            Step::Response(twice.clone()),
            Step::Response(twice),
            Step::WaitingForInput,
        ];
        let message = turn(&bridge, json!({}), steps).await;
        assert_eq!(ended(&message), ("inputWait", true));
        assert_eq!(texts(&message), ["once"]);
        let duplicate = r#"replies_outside_turns_total{bot="sandbox",kind="duplicate"}"#;
        assert_eq!(bridge.metric(duplicate).await, 1);
        bridge.finish().await;
    });
}

#[test]
fn frames_may_be_split_and_joined() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for framing in [FramingStyle::Binary, FramingStyle::Fragments(1), FramingStyle::Fragments(100)] {
            bridge.script.behave(|behaviour| behaviour.framing = framing);
            let steps = vec![Step::Ack, say("Grüße \u{1F600}"), Step::WaitingForInput];
            let message = turn(&bridge, json!({}), steps).await;
            assert_eq!(texts(&message), ["Grüße \u{1F600}"], "{framing:?}");
            assert_eq!(ended(&message), ("inputWait", true), "{framing:?}");
        }
        bridge.finish().await;
    });
}
