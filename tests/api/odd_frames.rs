//! Odd JSON of the platform: what was accepted is told in every form, at once (api.md 1, 3 and 4).

use rtm_bridge::config::{BotWebhookConfig, PayloadFormat};
use rtm_sandbox::Step;
use serde_json::{Value, json};

use crate::support::{Receiver, Request, SECRET, TestBridge, bot, run, spawn_bridge};

/// Members that strict readers refuse, or that have a type of their own.
fn oddities() -> Vec<String> {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let mut odd: Vec<String> = [
        r#""n":[1e999,-1e999,-0,1.0,1e-999,12345678901234567890123,-12345678901234567890]"#,
        r#""s":"cut \ud83d, \udc00, nul \u0000, \u2028, \/""#,
        r#""\ud83d":1,"\u0000":{"":null}"#,
        r#""twice":1,"twice":{"twice":[2]}"#,
        r#""createdOn":1763845000123,"sessionId":7,"author":5,"icon":null,"timestamp":"soon""#,
        r#""createdOn":1e999,"sessionId":null,"fromAgent":"no","botInfo":[],"traceId":{}"#,
        r#""createdOn":{"a":1},"sessionId":[],"sM":"","endChunk":null,"completeResponse":{}"#,
    ]
    .map(str::to_owned)
    .into();
    odd.extend([64, 119, 128, 1000, 100_000].map(|levels| format!(r#""d":{}"#, deep(levels))));
    odd
}

fn response(n: usize, odd: &str) -> Step {
    let message = format!(r#"[{{"type":"text","cInfo":{{"body":"said {n}"}}}}]"#);
    Step::Raw(format!(r#"{{"type":"bot_response","messageId":"ms-{n}","message":{message},{odd}}}"#))
}

/// Returns the answer without the events in it, which a strict reader may refuse.
fn mentions(answer: &str, text: &str) -> bool {
    answer.contains(&format!("\"text\":\"{text}\""))
}

pub(super) async fn bridge_for(receiver: &Receiver, format: PayloadFormat) -> TestBridge {
    spawn_bridge(|config| {
        config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
        bot(config).webhooks = vec![BotWebhookConfig {
            url: Some(receiver.url("/bot").parse().unwrap()),
            secrets: vec![SECRET.into()],
            form: format,
            ..BotWebhookConfig::default()
        }];
    })
    .await
}

#[test]
fn odd_reply_is_told_in_every_form() {
    run(async {
        for format in [PayloadFormat::Standard, PayloadFormat::CloudEvents, PayloadFormat::KoreV2] {
            let receiver = Receiver::start();
            let bridge = bridge_for(&receiver, format).await;
            let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
            let mut stream = bridge.api.events_with(Request::get("/conversations/alice/events")).await;
            for (n, odd) in oddities().iter().enumerate() {
                let said = format!("said {n}");
                bridge.script.next("alice", vec![Step::Ack, response(n, odd)]);
                let answer = bridge.post("alice", &body).await;
                assert!(answer.status == 200 && mentions(answer.text(), &said), "{odd:.200}");
                let page = bridge.api.get("/conversations/alice/events?limit=1000").await;
                assert!(page.status == 200 && mentions(page.text(), &said), "{odd:.200}");
                while !stream.block().await.unwrap().contains(&format!("\"text\":\"{said}\"")) {}
                let bodies = receiver.requests_at_least(n + 1).await;
                let body = String::from_utf8(bodies[n].body.clone()).unwrap();
                assert!(body.contains(&said), "{format:?} {odd:.200}");
                assert_eq!(bodies[n].attempt(), 1, "nothing holds it up: {odd:.200}");
            }
            bridge.finish().await;
        }
    });
}

#[test]
fn deep_frame_is_readable_and_keeps_its_parts() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        bridge.script.next("alice", vec![Step::Ack, response(0, &format!(r#""d":{deep}"#))]);
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        let message = bridge.post("alice", &body).await.message(200);
        let mut value = &message["replies"][0]["event"]["d"];
        while let Value::Array(inner) = value {
            value = &inner[0];
        }
        let rest = value.as_str().unwrap();
        assert_eq!(rest.matches('[').count() + 119, 500, "the deep part is told as its JSON");
        bridge.finish().await;
    });
}
