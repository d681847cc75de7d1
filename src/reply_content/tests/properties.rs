//! Promises for random messages: reading ends, its output is bounded, and plain text comes through.

use proptest::prelude::*;
use serde_json::json;

use super::super::content_draft::{MAX_BYTES, MAX_COUNT, MAX_LINES_BYTES, MAX_TITLE_BYTES};
use super::super::*;
use super::raw;

/// Generates JSON of any shape that often uses names with a meaning.
fn json_value() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "payload",
        "template_type",
        "text",
        "title",
        "elements",
        "buttons",
        "quick_replies",
        "columns",
        "Values",
        "url",
        "image_url",
        "attachments",
        "component",
        "cInfo",
        "body",
        "data",
        "default_action",
        "type",
        "value",
        "message",
        "content",
        "collection",
        "fileName",
    ]);
    let word = prop::sample::select(vec![
        "template",
        "postback",
        "web_url",
        "image",
        "multi_select",
        "table",
        "ours",
        "https://a.example/?b&amp;c",
        "{&quot;text&quot;:&quot;a&quot;}",
        "[{\"title\":\"x\"}]",
        "\"{\\\"text\\\":1}\"",
        "",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| json!(text).to_string()),
        word.prop_map(|text| json!(text).to_string()),
    ];
    leaf.prop_recursive(7, 64, 6, move |inner| {
        let member = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            inner.prop_map(|value| json!(value).to_string()),
        ]
    })
}

fn text_element(text: &str) -> String {
    json!([{"type": "text", "component": {"type": "text", "payload": {"text": text}}, "cInfo": {"body": text}}])
        .to_string()
}

/// Checks the limits of choices and media. Returns the bytes of all choices.
fn check_limits(content: &ReplyContent) -> usize {
    assert!(content.choices.len() <= MAX_COUNT && content.media.len() <= MAX_COUNT);
    let titles = content.choices.iter().map(|choice| &choice.title);
    assert!(
        titles
            .chain(content.media.iter().flat_map(|media| &media.title))
            .all(|title| title.len() <= MAX_TITLE_BYTES)
    );
    let bytes = |media: &ReplyMedia| {
        [&media.url, &media.title].into_iter().flatten().map(|text| text.len()).sum::<usize>()
    };
    assert!(content.media.iter().map(bytes).sum::<usize>() <= MAX_BYTES);
    let bytes = content.choices.iter().map(|choice| choice.title.len() + choice.payload.len()).sum();
    assert!(bytes <= MAX_BYTES);
    bytes
}

proptest! {
    #[test]
    fn random_message_has_bounded_content(message in json_value()) {
        let content = of_message(raw(&message));
        check_limits(&content);
        prop_assert!(content.text.len() <= message.len() + MAX_LINES_BYTES + 64);
        prop_assert_eq!(&of_message(raw(&message)), &content);
        prop_assert_eq!(of_record(Some(raw(&message)), None).choices, content.choices);
    }

    #[test]
    fn plain_text_comes_through_unchanged(words in "[a-zäß0-9 .,!?\"'\\\\/\n]{1,40}") {
        let read = of_message(raw(&text_element(&words)));
        prop_assert_eq!(&read, &ReplyContent { text: words.clone(), ..ReplyContent::default() });
        let record = json!([{"cT": "text", "data": {"text": words}}]).to_string();
        prop_assert_eq!(of_record(Some(raw(&record)), None).text, &*words);
        let piece = json!([{"cInfo": {"body": words}}]).to_string();
        prop_assert_eq!(of_piece(raw(&piece)), words);
    }

    #[test]
    fn text_reads_again_as_itself(message in json_value()) {
        let text = of_message(raw(&message)).text;
        // Text that still looks like markup was written with more than one escape.
        if text.trim().is_empty() || text.contains('&') || text.trim_start().starts_with(['{', '[', '"']) {
            return Ok(());
        }
        prop_assert_eq!(of_message(raw(&text_element(&text))).text, text);
    }
}

#[test]
fn large_template_is_cut_at_its_limits() {
    let element = json!({"title": "A title of some length", "subtitle": "s".repeat(500),
        "image_url": format!("https://i.example/{}", "i".repeat(800)),
        "buttons": [{"title": "t".repeat(3000), "payload": "p".repeat(900)}]});
    let elements: Vec<_> = (0..2000)
        .map(|number| {
            let mut element = element.clone();
            element["title"] = json!(format!("Title {number}"));
            element["buttons"][0]["payload"] = json!(format!("{number}{}", "p".repeat(900)));
            element
        })
        .collect();
    let payload = json!({"template_type": "list", "text": "w".repeat(100_000), "elements": elements});
    let content = of_message(raw(&json!([{"component": {"payload": payload}}]).to_string()));
    assert!(check_limits(&content) > MAX_BYTES / 2);
    assert!(content.text.starts_with(&"w".repeat(100_000)), "the bot's own words are whole");
    assert!(content.text.len() <= 100_000 + MAX_LINES_BYTES + 16 && content.text.ends_with('…'));
    assert!(content.choices[0].title.ends_with('…'));
}
