use serde_json::{Value, json};

use super::*;
use crate::domain::{DeliveryKind, DeliveryOrigin};
use crate::webhook::signature::{SignatureKey, SigningSecret, verify};
use crate::webhook::target_table::{ExtraHeaders, TargetTable};
use crate::webhook::tests::{HAPPENED, NOW, SECRET, claimed};

const TARGET: &str = "https://hooks.example.com/in";

fn secret() -> SigningSecret {
    SigningSecret::parse(&SECRET.into()).unwrap()
}

/// Composes a request for a target of this format with one secret.
fn composed(claimed: &ClaimedDelivery, form: PayloadFormat) -> (HeaderMap, Bytes) {
    let secrets = [secret()];
    compose(
        claimed,
        &DeliveryOptions { format: form, secrets: &secrets, extra_headers: None, platform_bot: "st-0d3f" },
        0xb7,
        claimed.now,
    )
    .unwrap()
}

fn json(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn standard_body_is_type_time_and_the_stored_data() {
    // The data is copied byte for byte: order, blanks and numbers stay.
    let data = r#"{"b":1.0 ,"a":"\u00e9", "n":12345678901234567890123}"#;
    let (headers, body) =
        composed(&claimed(TARGET, DeliveryKind::MessageAnswered, data), PayloadFormat::Standard);
    let expected =
        format!(r#"{{"type":"message.answered","timestamp":"2026-11-18T11:06:39.001Z","data":{data}}}"#);
    assert_eq!(body, expected);
    assert_eq!(HAPPENED.to_string(), "2026-11-18T11:06:39.001Z");
    assert_eq!(header(&headers, "content-type"), Some("application/json"));
    assert_eq!(header(&headers, "user-agent"), Some(concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header(&headers, "webhook-attempt"), Some("1"));
    assert_eq!(header(&headers, "webhook-timestamp"), Some("1795000000"));
    assert_eq!(
        header(&headers, "traceparent"),
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000b7-01")
    );
    let claimed = |name| header(&headers, name).unwrap();
    let checked = verify(
        &[SignatureKey::parse(&SECRET.into()).unwrap()],
        claimed("webhook-id"),
        claimed("webhook-timestamp"),
        claimed("webhook-signature"),
        &body,
        NOW,
    );
    assert_eq!(checked, Ok(()));
    assert_eq!(headers.keys().filter(|name| name.as_str().starts_with("ce-")).count(), 0);
}

#[test]
fn second_attempt_has_the_same_id_and_body() {
    for form in [
        PayloadFormat::Standard,
        PayloadFormat::CloudEvents,
        PayloadFormat::CloudEventsStructured,
        PayloadFormat::KoreV2,
    ] {
        let data = r#"{"replies":[],"complete":true}"#;
        let first = claimed(TARGET, DeliveryKind::MessageAnswered, data);
        let mut second = first.clone();
        (second.made, second.now) = (4, NOW + std::time::Duration::from_mins(10));
        let ((before, body), (after, again)) = (composed(&first, form), composed(&second, form));
        assert_eq!(body, again);
        assert_eq!(before.get("webhook-id"), after.get("webhook-id"));
        assert_eq!(header(&after, "webhook-attempt"), Some("5"));
        assert_eq!(header(&after, "webhook-timestamp"), Some("1795000600"));
        assert_ne!(before.get("webhook-signature"), after.get("webhook-signature"));
    }
}

#[test]
fn delivery_without_a_trace_has_no_traceparent() {
    let mut outside = claimed(TARGET, DeliveryKind::ReplyUnsolicited, "{}");
    outside.delivery.trace = TraceId::default();
    assert_eq!(composed(&outside, PayloadFormat::Standard).0.get("traceparent"), None);
}

#[test]
fn cloud_event_has_its_attributes_in_headers() {
    let claimed = claimed(TARGET, DeliveryKind::ReplyLate, r#"{"text":"hi"}"#);
    let (headers, body) = composed(&claimed, PayloadFormat::CloudEvents);
    assert_eq!(body, r#"{"text":"hi"}"#);
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", claimed.delivery.id.to_string().as_str()),
        ("ce-type", "io.github.rtm-bridge.reply.late"),
        ("ce-source", "/conversations/Zo%C3%AB%20%2F%201?bot=support"),
        ("ce-time", "2026-11-18T11:06:39.001Z"),
        ("ce-subject", "01JD9ZZZZZZZZZZZZZZZZZZZZZ"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(header(&headers, name), Some(value), "{name}");
    }
    let mut alone = claimed;
    alone.delivery.message = None;
    assert_eq!(composed(&alone, PayloadFormat::CloudEvents).0.get("ce-subject"), None);
}

#[test]
fn structured_cloud_event_has_its_attributes_in_the_body() {
    let claimed = claimed(TARGET, DeliveryKind::ReplyLate, r#"{"text":"hi", "n":1.0}"#);
    let (headers, body) = composed(&claimed, PayloadFormat::CloudEventsStructured);
    assert_eq!(header(&headers, "content-type"), Some("application/cloudevents+json"));
    assert_eq!(headers.keys().filter(|name| name.as_str().starts_with("ce-")).count(), 0);
    let expected = json!({
        "specversion": "1.0", "id": claimed.delivery.id, "type": "io.github.rtm-bridge.reply.late",
        "source": "/conversations/Zo%C3%AB%20%2F%201?bot=support", "subject": "01JD9ZZZZZZZZZZZZZZZZZZZZZ",
        "time": "2026-11-18T11:06:39.001Z", "datacontenttype": "application/json",
        "data": {"text": "hi", "n": 1.0},
    });
    assert_eq!(json(&body), expected);
    assert!(body.ends_with(br#""data":{"text":"hi", "n":1.0}}"#), "the data is copied byte for byte");
    let mut alone = claimed;
    alone.delivery.message = None;
    assert_eq!(json(&composed(&alone, PayloadFormat::CloudEventsStructured).1).get("subject"), None);
}

#[test]
fn event_without_a_form_in_the_platform_channel_is_refused() {
    let secrets = [secret()];
    let options = || DeliveryOptions {
        format: PayloadFormat::KoreV2,
        secrets: &secrets,
        extra_headers: None,
        platform_bot: "st",
    };
    let gap = claimed(TARGET, DeliveryKind::Gap, r#"{"reason":"replyCut"}"#);
    assert!(matches!(compose(&gap, &options(), 1, NOW), Err(PayloadError::Data)));
    let test = claimed(TARGET, DeliveryKind::Test, r#"{"bot":"support","text":"A test"}"#);
    assert_eq!(json(&compose(&test, &options(), 1, NOW).unwrap().1)["data"][0]["val"], "A test");
}

#[test]
fn kore_body_of_a_turn_matches_the_platform_channel() {
    let data = json!({
        "id": "01JD9", "status": "answered", "complete": true, "endedBy": "quiet",
        "replies": [
            {"seq": 1, "messageId": "ms-1", "text": "Hello \"you\"", "createdOn": "2026-11-18T11:33:18.500Z",
             "event": {"type": "bot_response", "message": [{"type": "text", "cInfo": {"body": "Hello"}}]}},
            {"seq": 2, "messageId": null, "text": "Pick one", "createdOn": null,
             "event": {"message": [
                {"type": "text", "component": {"type": "text", "payload": {"text": "First"}}, "cInfo": {"body": "x"}},
                {"type": "text", "cInfo": {"body": "Second"}},
                {"type": "text", "component": {"type": "template",
                    "payload": {"type": "template", "payload": {"template_type": "button", "text": "Pick one"}}}},
             ]}},
        ],
    });
    let claimed = claimed(TARGET, DeliveryKind::MessageAnswered, &data.to_string());
    let (headers, body) = composed(&claimed, PayloadFormat::KoreV2);
    let happened = "2026-11-18T11:06:39.001Z";
    assert_eq!(
        json(&body),
        json!({
            "to": "Zoë / 1", "from": "st-0d3f",
            "data": [
                {"type": "text", "val": "Hello \"you\"", "createdOn": "2026-11-18T11:33:18.500Z", "messageId": "ms-1"},
                {"type": "text", "val": "First", "createdOn": happened},
                {"type": "text", "val": "Second", "createdOn": happened},
                {"type": "template",
                 "val": {"type": "template", "payload": {"template_type": "button", "text": "Pick one"}},
                 "createdOn": happened},
            ],
            "_v": "v2", "endOfTask": true, "endReason": "Fulfilled",
        })
    );
    assert!(headers.contains_key("webhook-signature"));
}

#[test]
fn kore_body_of_an_end_or_a_reply_has_its_end_reason() {
    let kore = |kind, data: &Value| {
        json(&composed(&claimed(TARGET, kind, &data.to_string()), PayloadFormat::KoreV2).1)
    };
    let failed = kore(
        DeliveryKind::MessageFailed,
        &json!({"replies": [], "complete": false, "error": {"type": "/problems/no-reply"}}),
    );
    assert_eq!(failed["data"], json!([]));
    assert_eq!((&failed["endOfTask"], &failed["endReason"]), (&json!(true), &json!("interrupted")));
    let cut = kore(DeliveryKind::MessageAnswered, &json!({"replies": [], "complete": false}));
    assert_eq!(cut["endReason"], json!("interrupted"));

    let reply = json!({"messageId": "ms-2", "text": "later", "createdOn": null, "event": {"any": "thing"}});
    for kind in [DeliveryKind::ReplyLate, DeliveryKind::ReplyUnsolicited] {
        let claimed = kore(kind, &reply);
        assert_eq!(claimed["data"][0]["val"], json!("later"));
        assert_eq!((&claimed["endOfTask"], claimed.get("endReason")), (&json!(false), None));
    }
}

#[test]
fn kore_body_of_any_frame_has_its_text() {
    for event in [
        json!({}),
        json!({"message": null}),
        json!({"message": "text"}),
        json!({"message": []}),
        json!({"message": [1, null, "x", {}, {"component": 1}]}),
        json!({"message": [{"component": {"payload": {"type": "error", "payload": {"text": "no"}}}}]}),
        json!({"message": [{"component": {"payload": {"type": "text", "payload": {"text": "no"}}}}]}),
        json!({"components": [{"cT": "text", "data": {"text": "from history"}}]}),
        json!(["no frame at all"]),
        json!("no frame at all"),
    ] {
        let reply = json!({"messageId": "ms-2", "text": "said", "createdOn": null, "event": event});
        let claimed = claimed(TARGET, DeliveryKind::ReplyLate, &reply.to_string());
        let parts = json(&composed(&claimed, PayloadFormat::KoreV2).1)["data"].take();
        assert_eq!(parts.as_array().map(Vec::len), Some(1), "{event}");
        assert_eq!((&parts[0]["type"], &parts[0]["val"]), (&json!("text"), &json!("said")), "{event}");
    }
}

#[test]
fn kore_body_of_odd_json_has_its_parts() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let template = format!(
        r#"{{"type":"template","payload":{{"n":[1e999,-0,1.0,12345678901234567890123],"t":"\ud83d \u0000","d":{deep}}}}}"#
    );
    let event = format!(
        r#"{{"\udc00":1e999,"a":1,"a":2,"message":[{{"component":{{"payload":{template}}}}},{{"cInfo":{{"body":"cut \ud83d"}}}}]}}"#
    );
    let reply = format!(r#"{{"messageId":"ms-\u0000","text":"said","createdOn":null,"event":{event}}}"#);
    let message = format!(r#"{{"replies":[{reply}],"complete":true}}"#);
    for (kind, data) in [(DeliveryKind::ReplyLate, &reply), (DeliveryKind::MessageAnswered, &message)] {
        let body = composed(&claimed(TARGET, kind, data), PayloadFormat::KoreV2).1;
        let body = str::from_utf8(&body).unwrap();
        assert!(body.contains(&template), "the template is unchanged: {body}");
        assert!(body.contains(r#""val":"cut "#) && body.contains(r#""messageId":"ms-\u0000""#), "{body}");
    }
}

#[test]
fn malformed_data_is_an_error_without_a_quote() {
    let claimed = claimed(TARGET, DeliveryKind::MessageAnswered, r#"{"secret":"hush"}"#);
    let secrets = [secret()];
    let options = DeliveryOptions {
        format: PayloadFormat::KoreV2,
        secrets: &secrets,
        extra_headers: None,
        platform_bot: "st-0d3f",
    };
    let error = compose(&claimed, &options, 1, NOW).unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn request_to_the_bot_webhook_has_its_headers() {
    let config = crate::webhook::target_table::tests::config(|webhook, _| {
        webhook.bearer_token = Some("t0ken".into());
        webhook.headers = vec![("X-Tenant".into(), "blue".into()), ("X-Tenant".into(), "green".into())];
        webhook.legacy_signature =
            Some(crate::config::LegacySignature { header: "X-Signature".into(), secret: "key".into() });
    });
    let targets = TargetTable::new(&config).unwrap();
    let mut claimed = claimed(TARGET, DeliveryKind::MessageAnswered, "{}");
    claimed.delivery.origin = DeliveryOrigin::Endpoint("main".into());
    let options = targets.options(&claimed.delivery).unwrap();
    let _: &ExtraHeaders = options.extra_headers.unwrap();
    let (headers, body) = compose(&claimed, &options, 1, NOW).unwrap();
    assert_eq!(header(&headers, "authorization"), Some("Bearer t0ken"));
    assert_eq!(headers.get_all("x-tenant").count(), 2);
    let digits = header(&headers, "x-signature").unwrap();
    assert_eq!(digits.len(), 64);
    assert_eq!(digits, signature::LegacyKey::new(&"key".into()).sign(&body));
}
