//! Elements, components and bodies around a message.

use serde_json::json;

use super::super::*;
use super::{media, pairs, raw, text};

/// Returns the text of one element whose component has this payload.
fn payload(payload: &str) -> String {
    text(&format!(r#"[{{"type":"text","component":{{"type":"template","payload":{payload}}}}}]"#))
}

#[test]
fn payload_text_wins_over_the_body_and_keeps_blanks() {
    let element = r#"{"component":{"payload":{"text":"Hello "}},"cInfo":{"body":"Hi there!  "}}"#;
    assert_eq!(text(&format!("[{element}]")), "Hello ");
    assert_eq!(text(element), "Hello ", "an element without its list");
    let goes_on = r#"{"component":{"payload":{"text":"Hello"}},"cInfo":{"body":"Hello you"}}"#;
    assert_eq!(text(goes_on), "Hello", "a text is no template");
}

#[test]
fn body_text_is_used_without_payload_text() {
    for component in ["", r#""component":null,"#, r#""component":{},"#, r#""component":{"payload":{}},"#] {
        assert_eq!(text(&format!(r#"[{{{component}"cInfo":{{"body":"Hi"}}}}]"#)), "Hi", "{component}");
    }
    let empty = r#"[{"component":{"payload":{"text":""}},"cInfo":{"body":"Hi"}}]"#;
    assert_eq!(text(empty), "Hi", "an empty text is none");
    let template = r#"{"type":"template","payload":{"template_type":"table","rows":[1]}}"#;
    let body = r#""cInfo":{"body":"a) A \r\n b) B"}"#;
    assert_eq!(text(&format!(r#"[{{"component":{{"payload":{template}}},{body}}}]"#)), "a) A \r\n b) B");
}

#[test]
fn body_may_be_a_template_itself() {
    let template = r#"{"type":"template","payload":{"template_type":"quick_replies","text":"Tea?","quick_replies":[{"title":"Yes"}]}}"#;
    assert_eq!(text(&format!(r#"[{{"type":"text","cInfo":{{"body":{template}}}}}]"#)), "Tea?\nYes");
    let written = json!({"body": template, "isTemplate": true}).to_string();
    assert_eq!(payload(&json!({"text": written}).to_string()), "Tea?\nYes");
}

#[test]
fn each_text_key_is_found_one_payload_down() {
    for key in ["text", "text_message", "title", "heading"] {
        assert_eq!(payload(&format!(r#"{{"{key}":"x"}}"#)), "x");
        assert_eq!(payload(&format!(r#"{{"type":"error","payload":{{"{key}":"x","color":1}}}}"#)), "x");
    }
    assert_eq!(payload(r#"{"heading":"4","title":"3","text_message":"2","text":"1"}"#), "1");
    assert_eq!(payload(r#"{"text":"outer","payload":{"text":"inner"}}"#), "inner");
    assert_eq!(payload(r#"{"text":"outer","payload":{"color":"x"}}"#), "outer");
    assert_eq!(payload(r#"{"title":"Yes","payload":"YES_1"}"#), "Yes");
    assert_eq!(payload(r#"{"text":5}"#), "5");
    let listless = r#"{"text":"outer","payload":{"template_type":"list","elements":[{"title":"One"}]}}"#;
    assert_eq!(payload(listless), "outer\nOne");
}

#[test]
fn payload_string_is_read_as_json_or_text() {
    assert_eq!(payload(r#""Please wait""#), "Please wait");
    assert_eq!(payload(r#""{\"text\":\"in JSON\"}""#), "in JSON");
    assert_eq!(payload(r#""{\"type\":\"template\",\"payload\":{\"text\":\"deep\"}}""#), "deep");
}

#[test]
fn text_that_is_a_json_component_is_searched() {
    let json = r#"{\"type\":\"template\",\"payload\":{\"template_type\":\"button\",\"text\":\"Pick &quot;1&quot;\"}}"#;
    assert_eq!(payload(&format!(r#"{{"text":"{json}"}}"#)), "Pick \"1\"");
    assert_eq!(text(&format!(r#"[{{"cInfo":{{"body":" {json} "}}}}]"#)), "Pick \"1\"");
    let html = "{&quot;type&quot;:&quot;template&quot;,&quot;payload&quot;:{&quot;text&quot;:&quot;a &amp;amp; b&quot;}}";
    assert_eq!(payload(&format!(r#"{{"text":"{html}"}}"#)), "a &amp; b", "unescaped once, not twice");
    let wordless = r#"{\"type\":\"template\",\"payload\":{\"template_type\":\"table\"}}"#;
    assert_eq!(payload(&format!(r#"{{"text":"{wordless}"}}"#)), "");
}

#[test]
fn entities_are_unescaped_once() {
    assert_eq!(
        payload(r#"{"text":"5 &lt; 7 &amp;amp; caf&eacute; <b>bold</b>"}"#),
        "5 < 7 &amp; caf&eacute; <b>bold</b>"
    );
    let button = r#"{"template_type":"button","text":"&quot;Q&quot;","buttons":[{"title":"&lt;A&gt;","payload":"a&amp;b"}]}"#;
    let read = of_message(raw(&format!(r#"[{{"component":{{"payload":{button}}}}}]"#)));
    assert_eq!(read.text, "\"Q\"\n<A>");
    assert_eq!(pairs(&read), [("<A>", "a&amp;b")], "a payload is sent as it is");
}

#[test]
fn elements_with_text_are_joined_by_line_feeds() {
    let [a, b] = ["a", "b"].map(|body| format!(r#"{{"cInfo":{{"body":"{body}"}}}}"#));
    let image = r#"{"component":{"type":"image","payload":{"url":"https://x.example"}}}"#;
    assert_eq!(text(&format!("[{a},{image},null,7.5,{b}]")), "a\nhttps://x.example\nb");
    assert_eq!(text(&format!("[{a},{{}},{b}]")), "a\nb");
    let list = r#"{"component":{"payload":{"template_type":"list","elements":[{"title":"One"}]}}}"#;
    assert_eq!(text(&format!("[{a},{list},{list},{b}]")), "a\nOne\nOne\nb");
}

#[test]
fn message_of_any_shape_has_a_text() {
    for silent in ["[]", "{}", "true", "5", "[[]]", "[{}]", r#"[{"component":[1]}]"#, r#""""#] {
        assert_eq!(of_message(raw(silent)), ReplyContent::default(), "{silent}");
    }
    for hi in [
        r#""Hi""#,
        r#"["Hi"]"#,
        r#"[{"cInfo":"Hi"}]"#,
        r#"[{"component":"Hi"}]"#,
        r#"[{"type":"text","text":"Hi"}]"#,
    ] {
        assert_eq!(text(hi), "Hi", "{hi}");
    }
}

#[test]
fn media_are_named_by_title_or_address() {
    let element = |kind: &str, payload: &str, body: &str| {
        let component = format!(r#"{{"type":"{kind}","payload":{{"type":"{kind}","payload":{payload}}}}}"#);
        of_message(raw(&format!(
            r#"[{{"type":"text","component":{component},"cInfo":{{"body":"{body}"}}}}]"#
        )))
    };
    for (kind, key, expected) in [
        ("image", "url", "image"),
        ("audio", "url", "audio"),
        ("video", "url", "video"),
        ("message", "audioUrl", "audio"),
        ("message", "videoUrl", "video"),
        ("message", "fileUrl", "file"),
        ("document", "url", "file"),
        ("link", "url", "link"),
    ] {
        let alone = element(kind, &format!(r#"{{"{key}":"https://m.example/a?b=1&amp;c=2"}}"#), "");
        assert_eq!(alone.text, "https://m.example/a?b=1&c=2", "{kind}");
        assert_eq!(media(&alone), [(expected, "https://m.example/a?b=1&c=2", "-")], "{kind}");
        let titled = element(kind, &format!(r#"{{"{key}":"https://m.example/a","title":"How to"}}"#), "");
        let told = if expected == "link" { "How to\nhttps://m.example/a" } else { "How to" };
        assert_eq!(titled.text, told, "{kind}");
        assert_eq!(media(&titled), [(expected, "https://m.example/a", "How to")], "{kind}");
    }
    let described = element("image", r#"{"url":"https://m.example/a"}"#, "Your parcel");
    assert_eq!(described.text, "Your parcel");
    let inline = element("image", r#"{"url":"data:image/png;base64,AAAA"}"#, "");
    assert_eq!((&*inline.text, inline.media.len()), ("[image]", 1));
    let large = format!(r#"{{"url":"data:image/png;base64,{}"}}"#, "A".repeat(9000));
    let large = element("image", &large, "");
    assert_eq!((&*large.text, large.media.len()), ("[image]", 0));
}

#[test]
fn attachments_are_files_with_their_names() {
    let element = |body: &str, files: &str| {
        of_message(raw(&format!(r#"[{{"type":"text","cInfo":{{"body":"{body}","attachments":{files}}}}}]"#)))
    };
    let read = element("Your invoice", r#"[{"type":"file","fileId":"f-1","fileName":"invoice.pdf"}]"#);
    assert_eq!(read.text, "Your invoice\ninvoice.pdf");
    assert_eq!(media(&read), [("file", "-", "invoice.pdf")]);
    let files =
        r#"[{"fileType":"image","fileName":"a.png","fileUrl":"https://f.example/a"},{"fileId":"f-2"}]"#;
    let read = element("", files);
    assert_eq!(read.text, "a.png");
    assert_eq!(media(&read), [("image", "https://f.example/a", "a.png"), ("file", "-", "-")]);
    assert_eq!(element("", r#"[{"fileId":"f-2"}]"#).text, "[file]");
    assert_eq!(element("See", r#"[{"fileId":"f-2"},5,null,{}]"#).text, "See");
}

#[test]
fn record_reads_like_its_frame() {
    let record = |components: &str, shown: Option<&str>| of_record(Some(raw(components)), shown);
    let read = record(r#"[{"cT":"image","data":{"url":"https://m.example/a"}}]"#, None);
    assert_eq!(media(&read), [("image", "https://m.example/a", "-")]);
    let two = r#"[{"cT":"text","data":{"text":"one"}},{"cT":"text","data":{"text":"two"}}]"#;
    assert_eq!(record(two, None).text, "one\ntwo");
    assert_eq!(record(two, Some("1")).text, "1\ntwo");
    let template =
        r#"{"type":"template","payload":{"template_type":"button","text":"Pick","buttons":[{"title":"A"}]}}"#;
    let component = json!([{"cT": "text", "data": {"text": template}}]).to_string();
    for (shown, expected) in
        [(None, "Pick\nA"), (Some("Choose"), "Choose\nA"), (Some("Choose: A"), "Choose: A")]
    {
        let read = record(&component, shown);
        assert_eq!((&*read.text, pairs(&read)), (expected, vec![("A", "A")]), "{shown:?}");
    }
    assert_eq!(record(&component, Some(template)).text, "Pick\nA");
    assert_eq!(of_record(None, Some("Hi &lt;")).text, "Hi <");
    let files = r#"[{"cT":"text","data":{"text":"See","attachments":[{"fileName":"a.pdf"}]}}]"#;
    assert_eq!(record(files, None).text, "See\na.pdf");
    assert_eq!(of_user_record(Some(raw(files)), None), "See", "the words that the user sent");
}

#[test]
fn stream_piece_keeps_blanks_and_is_never_json() {
    let component = r#""component":{"payload":{"text":"whole"}}"#;
    let piece = |body: &str| of_piece(raw(&format!(r#"[{{{component},"cInfo":{{"body":"{body}"}}}}]"#)));
    assert_eq!(piece(" a \\n"), " a \n");
    assert_eq!(piece(r#"{\"text\":\"x\"}"#), r#"{"text":"x"}"#);
    assert_eq!(of_piece(raw(r#"[{"component":{"payload":{"text":" b"}}}]"#)), " b");
    assert_eq!(of_complete(raw(r#"" all ""#)).unwrap(), " all ");
    assert_eq!(of_complete(raw(r#"{"text":"all"}"#)).unwrap(), "all");
    assert_eq!(of_complete(raw("\"\"")), None);
    assert_eq!(of_complete(raw("{}")), None);
}

#[test]
fn template_is_distinguished_from_text() {
    assert!(is_template(raw(r#"[{"component":{"type":"template","payload":{}}}]"#)));
    assert!(is_template(raw(r#"[{},{"component":{"payload":{"type":"template"}}}]"#)));
    assert!(!is_template(raw(r#"[{"type":"template","component":{"type":"text"}}]"#)));
    assert!(!is_template(raw("\"template\"")));
}

#[test]
fn wait_template_is_found_in_every_template_place() {
    let template = r#"{"type":"template","payload":{"template_type":"wait_for_response"}}"#;
    let quoted = serde_json::to_string(template).unwrap();
    let html = quoted.replace("\\\"", "&quot;");
    for payload in [template, &quoted, &html] {
        let message = format!(r#"[{{}},{{"component":{{"payload":{payload}}}}}]"#);
        assert!(announces_more(raw(&message)), "{payload}");
    }
    assert!(announces_more(raw(&format!(r#"[{{"cInfo":{{"body":{quoted}}}}}]"#))));
    assert!(!announces_more(raw(r#"[{"cInfo":{"body":"wait_for_response"}}]"#)));
    assert!(!announces_more(raw(r#"[{"component":{"payload":{"template_type":"button"}}}]"#)));
}

#[test]
fn deep_nesting_ends_the_search() {
    let core = r#"{"text":"x","template_type":"wait_for_response"}"#;
    for name in ["payload", "elements", "buttons", "message", "title"] {
        let deep = format!("{}{core}{}", format!("{{\"{name}\":").repeat(5_000), "}".repeat(5_000));
        assert_eq!(of_message(raw(&deep)).text, "", "{name}");
        assert!(!announces_more(raw(&deep)));
    }
    let quoted = |times: u8| {
        (0..times).fold(core.to_owned(), |inner, _| {
            format!(r#"{{"text":{}}}"#, serde_json::to_string(&inner).unwrap())
        })
    };
    assert_eq!(of_message(raw(&quoted(8))).text, "x");
    assert_eq!(of_message(raw(&quoted(14))).text, "");
}
