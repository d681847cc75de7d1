//! Messages of other bot frameworks, written as JSON in a text.

use serde_json::{Value, json};

use super::{ReplyContent, media, of_message, pairs, raw};

/// Reads a text that holds this message, as it is and escaped for HTML.
fn opened(message: &Value) -> ReplyContent {
    let element =
        |text: &str| json!([{"type": "text", "component": {"type": "text", "payload": {"text": text}}}]);
    let written = message.to_string();
    let read = of_message(raw(&element(&written).to_string()));
    let escaped = written.replace('"', "&quot;");
    assert_eq!(of_message(raw(&element(&escaped).to_string())), read, "{message}");
    read
}

fn assert_opened(message: &Value, text: &str, choices: &[(&str, &str)]) {
    let read = opened(message);
    assert_eq!(read.text, text, "{message}");
    assert_eq!(pairs(&read), choices, "{message}");
}

#[test]
fn messages_of_frameworks_are_opened() {
    let cases = [
        (json!({"text": "Hello"}), "Hello", &[][..]),
        (json!([{"text": "One"}, {"text": "Two"}]), "One\nTwo", &[]),
        (
            json!({"type": "ContentEvent", "message": "Which one?", "quickReplies": {"replies": [
                {"type": "button", "title": "A", "click": {"actions": [{"type": "publishText", "text": "say A"}]}},
                {"type": "button", "title": "B", "click": {"actions": [
                    {"type": "link", "web": {"uri": "https://b.example"}}]}}]}}),
            "Which one?\nA\nB: https://b.example",
            &[("A", "say A")],
        ),
        (
            json!({"type": "RichContentEvent", "content": {"type": "vertical", "elements": [
                {"type": "text", "text": "Offers"},
                {"type": "carousel", "elements": [{"type": "vertical", "elements": [
                    {"type": "text", "text": "Fig"},
                    {"type": "button", "title": "Buy", "click": {"actions": [{"type": "publishText", "text": "fig"}]}}]}]},
                {"type": "accordion", "text": "More", "elements": [{"type": "text", "text": "Details"}]}]}}),
            "Offers\nFig\nBuy\nMore\nDetails",
            &[("Buy", "fig")],
        ),
        (
            json!({"attachment": {"type": "template", "payload": {"template_type": "generic", "elements": [
                {"title": "Fig", "subtitle": "Fresh", "buttons": [{"type": "postback", "title": "Buy", "payload": "B"}]}]}}}),
            "Fig – Fresh\nBuy",
            &[("Buy", "B")],
        ),
        (
            json!({"type": "message", "text": "Pick", "suggestedActions": {"actions": [
                {"type": "imBack", "title": "A", "value": "a"}]}}),
            "Pick\nA",
            &[("A", "a")],
        ),
        (
            json!({"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive",
                "content": {"type": "AdaptiveCard", "body": [{"type": "TextBlock", "text": "Hello"},
                    {"type": "ColumnSet", "columns": [{"type": "Column", "items": [{"type": "TextBlock", "text": "Left"}]}]}],
                    "actions": [{"type": "Action.Submit", "title": "Go", "data": {"x": 1}}]}}]}),
            "Hello\nLeft\nGo",
            &[("Go", r#"{"x":1}"#)],
        ),
        (
            json!({"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "Ready?"}},
                {"type": "actions", "elements": [
                    {"type": "button", "text": {"type": "plain_text", "text": "Yes"}, "value": "y"}]}]}),
            "Ready?\nYes",
            &[("Yes", "y")],
        ),
        (
            json!({"text": "Pick", "reply_markup": {"inline_keyboard": [[{"text": "A", "callback_data": "a"}], [{"text": "B"}]]}}),
            "Pick\nA\nB",
            &[("A", "a"), ("B", "B")],
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "button", "header": {"type": "text", "text": "Shop"},
                "body": {"text": "Pick"}, "action": {"buttons": [
                    {"type": "reply", "reply": {"id": "a", "title": "A"}}]}}}),
            "Shop\nPick\nA",
            &[("A", "a")],
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "list", "body": {"text": "Pick"}, "action": {
                "sections": [{"title": "Fruit", "rows": [{"id": "f", "title": "Fig", "description": "Fresh"}]}]}}}),
            "Pick\nFruit\nFig – Fresh",
            &[("Fig", "f")],
        ),
        (
            json!({"fulfillmentMessages": [{"text": {"text": ["Hi"]}}, {"text": {"text": ["there"]}}]}),
            "Hi\nthere",
            &[],
        ),
        (json!({"messages": [{"contentType": "PlainText", "content": "Hi"}]}), "Hi", &[]),
        (
            json!({"message": {"text": "Hi", "quick_replies": [{"content_type": "text", "title": "A", "payload": "a"}]}}),
            "Hi\nA",
            &[("A", "a")],
        ),
        (
            json!({"richContent": [[{"type": "info", "title": "Fig", "subtitle": "Fresh"},
                {"type": "chips", "options": [{"text": "Site", "link": "https://c.example"}, {"text": "Buy"}]}],
                [{"type": "accordion", "title": "More", "text": "Details"}]]}),
            "Fig – Fresh\nSite: https://c.example\nBuy\nMore – Details",
            &[("Buy", "Buy")],
        ),
    ];
    for (message, text, choices) in cases {
        assert_opened(&message, text, choices);
    }
}

#[test]
fn messages_within_an_answer_are_opened() {
    let cases = [
        (json!({"fulfillmentResponse": {"messages": [{"text": {"text": ["Hi"]}}]}}), "Hi", &[][..]),
        (
            json!({"fulfillmentMessages": [{"quickReplies": {"title": "Pick", "quickReplies": ["A", "B"]}},
                {"card": {"title": "Fig", "buttons": [{"text": "Buy", "postback": "buy"}]}}]}),
            "Pick\nA\nB\nFig\nBuy",
            &[("A", "A"), ("B", "B"), ("Buy", "buy")],
        ),
        (
            json!({"output": {"generic": [{"response_type": "text", "text": "Hi"}, {"response_type": "option",
                "title": "Pick", "options": [{"label": "A", "value": {"input": {"text": "say a"}}}]}]}}),
            "Hi\nPick\nA",
            &[("A", "say a")],
        ),
        (
            json!([{"recipient_id": "u", "text": "Hi", "buttons": [{"title": "A", "payload": "/a"}]},
                {"recipient_id": "u", "custom": {"text": "there"}}]),
            "Hi\nA\nthere",
            &[("A", "/a")],
        ),
        (json!({"type": "text", "text": {"body": "Hi", "preview_url": false}}), "Hi", &[]),
        (json!({"role": "assistant", "content": "Hi"}), "Hi", &[]),
    ];
    for (message, text, choices) in cases {
        assert_opened(&message, text, choices);
    }
}

#[test]
fn files_of_frameworks_are_media() {
    let linked = json!({"file": {"type": "link", "payload":
        {"url": "https://i.example/logo.png", "title": "Our logo", "template_type": "attachment"}}});
    let read = opened(&linked);
    assert_eq!(
        (&*read.text, media(&read)),
        ("Our logo", vec![("file", "https://i.example/logo.png", "Our logo")])
    );
    let read =
        opened(&json!({"attachment": {"type": "image", "payload": {"url": "https://i.example/a.png"}}}));
    assert_eq!(read.text, "https://i.example/a.png");
    assert_eq!(media(&read), [("image", "https://i.example/a.png", "-")]);
    let read = opened(&json!({"type": "message", "text": "See", "attachments": [
        {"contentType": "image/png", "contentUrl": "https://i.example/b.png", "name": "b.png"}]}));
    assert_eq!(
        (&*read.text, media(&read)),
        ("See\nb.png", vec![("image", "https://i.example/b.png", "b.png")])
    );
}

#[test]
fn adaptive_card_tells_all_its_parts() {
    let block = |text: &str| json!({"type": "TextBlock", "text": text});
    let read = opened(&json!({"type": "AdaptiveCard", "body": [block("Order"),
        {"type": "FactSet", "facts": [{"title": "Number", "value": "4711"}, {"title": "State", "value": "sent"}]},
        {"type": "Container", "items": [block("Within")]},
        {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "By"}, "post"]},
        {"type": "Table", "columns": [{"width": 1}, {"width": 1}], "rows": [{"type": "TableRow", "cells": [
            {"type": "TableCell", "items": [block("Fig")]}, {"type": "TableCell", "items": [block("2")]}]}]},
        {"type": "Input.Text", "id": "n", "placeholder": "Your name"},
        {"type": "Input.ChoiceSet", "id": "c", "label": "Colour", "choices": [{"title": "Red", "value": "r"}]},
        {"type": "Image", "url": "https://i.example/a.png", "altText": "Parcel"},
        {"type": "Media", "sources": [{"mimeType": "video/mp4", "url": "https://v.example/a.mp4"}]}],
        "actions": [{"type": "Action.OpenUrl", "title": "Open", "url": "https://o.example"},
            {"type": "Action.Submit", "title": "Go", "data": "go"},
            {"type": "Action.ShowCard", "title": "More", "card": {"type": "AdaptiveCard", "body": [block("Hidden")]}}]}));
    assert_eq!(
        read.text,
        "Order\nNumber – 4711\nState – sent\nWithin\nBy post\nFig | 2\nYour name\nColour\nRed\n\
         Open: https://o.example\nGo\nMore\nParcel"
    );
    assert_eq!(pairs(&read), [("Red", "r"), ("Go", "go")]);
    assert_eq!(
        media(&read),
        [
            ("image", "https://i.example/a.png", "Parcel"),
            ("video", "https://v.example/a.mp4", "-"),
            ("link", "https://o.example", "Open"),
        ]
    );
}

#[test]
fn media_named_by_their_kind_are_read() {
    let read =
        opened(&json!({"type": "image", "image": {"link": "https://i.example/a.png", "caption": "Fig"}}));
    assert_eq!((&*read.text, media(&read)), ("Fig", vec![("image", "https://i.example/a.png", "Fig")]));
    let read = opened(
        &json!({"type": "document", "document": {"link": "https://i.example/a.pdf", "filename": "a.pdf"}}),
    );
    assert_eq!(media(&read), [("file", "https://i.example/a.pdf", "a.pdf")]);
}

#[test]
fn text_that_resembles_a_message_stays() {
    for text in [
        r#"{"orderId":5}"#,
        r#"{"message":"Created","status":200}"#,
        r#"{"message":{"id":5}}"#,
        r#"{"output":{"value":"x"}}"#,
        r#"{"text":{"id":5}}"#,
        r#"{"type":"order","order":{"id":5}}"#,
        r#"{"buttons":[{}]}"#,
        r#"{"blocks":[]}"#,
        "{not json}",
        "[1,2]",
        "[]",
        r#"["a","b"]"#,
        r#""Hello""#,
        r#"{"text":"cut"#,
        "{}",
        "\"",
        "&",
        "{'type':'template','payload':{'text':'Hello'}}",
        r#"See {"text":"Hello"}"#,
    ] {
        let message = json!([{"component": {"type": "text", "payload": {"text": text}}}]).to_string();
        let read = of_message(raw(&message));
        assert_eq!((&*read.text, read.choices.len(), read.media.len()), (text, 0, 0));
    }
}
