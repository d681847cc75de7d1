//! Properties of the decoding of random frames and history.

use proptest::prelude::*;
use rtm_bridge::rtm::{IncomingFrame, decode_frame, decode_history_page};

/// Generates JSON of any shape that often uses meaningful names.
fn json() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "type",
        "message",
        "component",
        "payload",
        "cInfo",
        "body",
        "text",
        "title",
        "sM",
        "endChunk",
        "completeResponse",
        "replyto",
        "ok",
        "author",
        "template_type",
        "messageId",
        "createdOn",
        "messages",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| f.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        prop::sample::select(vec![
            "bot_response",
            "ack",
            "template",
            "wait_for_response",
            "{&quot;text&quot;:1}"
        ])
        .prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        let member = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            inner.prop_map(|value| serde_json::to_string(&value).unwrap()),
        ]
    })
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(frame: Vec<u8>) {
        prop_assert!(IncomingFrame::KINDS.contains(&decode_frame(&frame).kind()));
    }

    #[test]
    fn random_message_keeps_the_response(message in json()) {
        let frame = format!(r#"{{"type":"bot_response","messageId":"ms-1","message":{message}}}"#);
        let IncomingFrame::Response(response) = decode_frame(frame.as_bytes()) else { panic!("{frame}") };
        prop_assert_eq!(response.message_id.as_deref(), Some("ms-1"));
        prop_assert_eq!(response.event.get(), frame);
    }

    #[test]
    fn random_record_keeps_the_page(record in json()) {
        let body = format!(r#"{{"messages":[{record},{{"type":"incoming","_id":"ms-1"}}]}}"#);
        let page = decode_history_page(body.as_bytes()).unwrap();
        let last = page.records.last().and_then(|record| record.id.as_deref());
        prop_assert_eq!(last, Some("ms-1"));
    }

    #[test]
    fn cut_frame_is_malformed(cut in 0usize..70) {
        let frame = r#"{"type":"bot_response","message":[{"cInfo":{"body":"Hi \u00e4"}}],"x":1}"#;
        let cut = frame.get(..cut).unwrap();
        prop_assert_eq!(decode_frame(cut.as_bytes()).kind(), "malformed");
    }
}
