use proptest::prelude::*;

use super::*;
use crate::domain::FairShare;
use crate::http::api_error::MAX_ERRORS;

fn read(body: &str) -> Result<MessageDraft, Vec<String>> {
    let mut errors = FieldErrors::default();
    let draft = parse_message(body.as_bytes(), &mut errors);
    let pointers: Vec<_> = errors.into_vec().into_iter().map(|error| error.pointer.into_owned()).collect();
    draft.filter(|_| pointers.is_empty()).ok_or(pointers)
}

#[test]
fn complete_message_is_read() {
    let draft = read(
        r#"{"text":"Where is my \"order\"?","displayText":"Order","attachments":[{"fileId":"f","fileName":"a.png"}],
            "customData":{"a": [1, 2.50]},"metaTags":{},"meta":{"locale":"fr-FR"},"session":"newKeepAgent",
            "turn":{"expectReplies":2,"quietMs":50.0,"deadlineMs":6e5},"resend":"auto",
            "callback":{"url":"https://example.org/hook"}}"#,
    )
    .unwrap();
    assert_eq!(draft.content.text(), "Where is my \"order\"?");
    assert_eq!(draft.content.display_text.as_deref(), Some("Order"));
    assert_eq!(draft.content.attachments[0].file_name.as_deref(), Some("a.png"));
    assert_eq!(draft.content.custom_data.unwrap().raw().get(), r#"{"a": [1, 2.50]}"#);
    assert_eq!(draft.session, SessionRequest::NewKeepAgent);
    assert_eq!(draft.rules.expect_replies(), Some(2));
    assert_eq!(draft.rules.quiet(), Some(Duration::from_millis(50)));
    assert_eq!(draft.rules.deadline(), Some(Duration::from_mins(10)));
    assert_eq!(draft.resend, ResendPolicy::Auto);
    assert_eq!(&*draft.callback.unwrap().url, "https://example.org/hook");
}

#[test]
fn text_may_be_empty_beside_attachments() {
    for text in ["", r#""text":null,"#, r#""text":"","#] {
        let draft =
            read(&format!(r#"{{{text}"attachments":[{{"fileId":"f","fileName":"a.png"}}]}}"#)).unwrap();
        assert_eq!((draft.content.text(), &*draft.content.body()), ("", "a.png"));
        for none in ["[]", "null"] {
            let errors = read(&format!(r#"{{{text}"attachments":{none}}}"#)).unwrap_err();
            assert_eq!(errors, ["/text"]);
        }
        // Files with an error may well stand for a text.
        let errors = read(&format!(r#"{{{text}"attachments":[{{}}]}}"#)).unwrap_err();
        assert_eq!(errors, ["/attachments/0/fileId"]);
    }
}

#[test]
fn connect_needs_no_text_and_begins_a_session() {
    let draft = read(r#"{"event":"connect","customData":{"a": 1.50},"metaTags":{"b":2}}"#).unwrap();
    assert_eq!((draft.event, draft.content.text()), (Some(MessageEvent::Connect), ""));
    assert_eq!(draft.session, SessionRequest::New);
    assert_eq!(draft.content.custom_data.unwrap().raw().get(), r#"{"a": 1.50}"#);
    assert_eq!(draft.content.meta_tags.unwrap().raw().get(), r#"{"b":2}"#);
    let same = r#"{"event":"connect","session":"continue","text":"","attachments":[],"displayText":null}"#;
    assert_eq!(read(same).unwrap().session, SessionRequest::Continue);
    assert_eq!(read(r#"{"event":null,"text":"hi"}"#).unwrap().event, None);
}

#[test]
fn connect_with_a_message_for_the_bot_is_refused() {
    let all =
        r#"{"event":"connect","text":"hi","displayText":"Hi","attachments":[{"fileId":"f"}],"meta":{}}"#;
    let mut errors = read(all).unwrap_err();
    errors.sort();
    assert_eq!(errors, ["/attachments", "/displayText", "/meta", "/text"]);
    for event in ["\"hello\"", "7", "{}", "\"Connect\""] {
        assert_eq!(read(&format!(r#"{{"event":{event}}}"#)).unwrap_err(), ["/event"], "{event}");
    }
    assert_eq!(read(r#"{"event":"connect","session":"close"}"#).unwrap_err(), ["/session"]);
}

#[test]
fn context_has_a_limit_in_bytes() {
    let with = |key: &str, length: usize| {
        let filler = "x".repeat(length - r#"{"a":""}"#.len());
        read(&format!(r#"{{"text":"hi","{key}":{{"a":"{filler}"}}}}"#))
    };
    for key in ["customData", "metaTags"] {
        assert!(with(key, CONTEXT_MAX_BYTES).is_ok());
        assert_eq!(with(key, CONTEXT_MAX_BYTES + 1).unwrap_err(), [format!("/{key}")]);
    }
}

#[test]
fn user_details_are_checked_by_field() {
    let draft =
        read(r#"{"text":"hi","profile":{"firstName":"Zoë","lastName":"Ruiz"},"mergeWith":"visitor/7"}"#);
    let details = draft.unwrap().user_details.unwrap();
    assert_eq!(details.profile.first_name.as_deref(), Some("Zoë"));
    assert_eq!(details.profile.last_name.as_deref(), Some("Ruiz"));
    assert_eq!(details.merge_with.unwrap().as_str(), "visitor/7");
    assert_eq!(
        read(r#"{"text":"hi","profile":{"firstName":null},"mergeWith":null}"#).unwrap().user_details,
        None
    );
    let long = "x".repeat(257);
    let bad = format!(
        r#"{{"text":"hi","profile":{{"firstName":"","lastName":"{long}","age":3}},"mergeWith":"{long}"}}"#
    );
    let mut errors = read(&bad).unwrap_err();
    errors.sort();
    assert_eq!(errors, ["/mergeWith", "/profile/age", "/profile/firstName", "/profile/lastName"]);
    assert_eq!(
        read(r#"{"text":"hi","profile":"Zoë","mergeWith":7}"#).unwrap_err(),
        ["/profile", "/mergeWith"]
    );
}

#[test]
fn unknown_members_of_an_attachment_are_kept() {
    let file = r#"{"size":1.50,"fileId":"f","fileUrl":null,"custom":{"a" : [true]}}"#;
    let draft = read(&format!(r#"{{"text":"a","attachments":[{file}]}}"#)).unwrap();
    let kept = serde_json::to_string(&draft.content.attachments).unwrap();
    assert_eq!(kept, r#"[{"fileId":"f","custom":{"a" : [true]},"size":1.50}]"#);
}

#[test]
fn byte_order_mark_before_the_body_is_ignored() {
    assert_eq!(read("\u{feff} {\"text\":\"a\"}").unwrap().content.text(), "a");
    assert_eq!(read("\u{feff}\u{feff}{}").unwrap_err(), [""]);
}

#[test]
fn null_means_absent() {
    let draft = read(
        r#"{"text":"a","displayText":null,"attachments":null,"customData":null,"metaTags":null,"meta":null,
            "session":null,"turn":null,"resend":null,"callback":null}"#,
    )
    .unwrap();
    assert!(draft.content.meta.is_none() && draft.callback.is_none());
    assert_eq!(read(r#"{"text":null}"#).unwrap_err(), ["/text"]);
}

#[test]
fn reading_stops_at_the_fiftieth_error() {
    // What follows the last member that is read is no JSON. An error of the whole body would show that it was read.
    let broken = |member: &str, count| format!("{{{} this is no JSON", member.repeat(count));
    for member in [r#""x":1,"#, r#""text":"a","#, r#""x":{"y":[1]},"#] {
        let errors = read(&broken(member, 120_000)).unwrap_err();
        assert_eq!(errors.len(), MAX_ERRORS);
        assert!(errors.iter().all(|pointer| !pointer.is_empty()), "{member}");
        let errors = read(&broken(member, MAX_ERRORS - 1)).unwrap_err();
        assert_eq!(errors.last().unwrap(), "", "{member}");
    }
    let files = vec![format!("{{{}\"fileId\":\"f\"}}", r#""x":1,"#.repeat(20)); MAX_ATTACHMENTS].join(",");
    let errors = read(&format!(r#"{{"text":"a","attachments":[{files}],"y":1}}"#)).unwrap_err();
    assert_eq!(errors.len(), MAX_ERRORS);
    assert_eq!(errors.iter().filter(|pointer| pointer.starts_with("/attachments/2/")).count(), 11);
}

#[test]
fn long_name_of_a_member_is_cut() {
    let errors = read(&format!(r#"{{"text":"a","{}":1}}"#, "x".repeat(900_000))).unwrap_err();
    assert!(errors[0].len() < 100 && errors[0].starts_with("/xxx"), "{}", errors[0].len());
}

#[test]
fn every_error_has_its_pointer() {
    for (body, pointers) in [
        ("{}".to_owned(), &["/text"][..]),
        (r#"{"text":5}"#.to_owned(), &["/text"]),
        (r#"{"text":"\ud800"}"#.to_owned(), &["/text"]),
        (format!(r#"{{"text":"{}"}}"#, "x".repeat(65_537)), &["/text"]),
        (r#"{"text":"a","text":"a"}"#.to_owned(), &["/text"]),
        (r#"{"text":"a","\u0074ext":"b"}"#.to_owned(), &["/text"]),
        (r#"{"text":"a","Text":"a","a/b~":1}"#.to_owned(), &["/Text", "/a~1b~0"]),
        (r#"{"text":"a","session":"Continue"}"#.to_owned(), &["/session"]),
        (r#"{"text":"a","session":"close"}"#.to_owned(), &["/session"]),
        (r#"{"text":"a","session":{"continue":null}}"#.to_owned(), &["/session"]),
        (r#"{"text":"a","resend":true}"#.to_owned(), &["/resend"]),
        (r#"{"text":"a","turn":[1,50,500]}"#.to_owned(), &["/turn"]),
        (
            r#"{"text":"a","turn":{"expectReplies":51,"quietMs":"50","deadlineMs":-1}}"#.to_owned(),
            &["/turn/expectReplies", "/turn/quietMs", "/turn/deadlineMs"],
        ),
        (r#"{"text":"a","turn":{"quietMs":1e400}}"#.to_owned(), &["/turn/quietMs"]),
        (
            r#"{"text":"a","customData":[],"metaTags":"{","meta":1}"#.to_owned(),
            &["/customData", "/metaTags", "/meta"],
        ),
        (r#"{"text":"a","customData":{"a":{"b":1,"b":2}}}"#.to_owned(), &["/customData"]),
        (format!(r#"{{"text":"a","meta":{{"a":{}{}}}}}"#, "[".repeat(200), "]".repeat(200)), &["/meta"]),
        (r#"{"text":"a","attachments":{"fileId":"f"}}"#.to_owned(), &["/attachments"]),
        (
            r#"{"text":"a","attachments":["f",{"fileId":""},{}]}"#.to_owned(),
            &["/attachments/0", "/attachments/1/fileId", "/attachments/2/fileId"],
        ),
        (
            r#"{"text":"a","attachments":[{"fileId":"f","a":1,"a":1},{"fileId":"f","b":null,"b":1}]}"#
                .to_owned(),
            &["/attachments/0/a", "/attachments/1/b"],
        ),
        (
            r#"{"text":"a","attachments":[{"fileId":"f","a":{"b":1,"b":2}}]}"#.to_owned(),
            &["/attachments/0/a"],
        ),
        (format!(r#"{{"text":"a","attachments":[{}1]}}"#, "1,".repeat(20)), &["/attachments"]),
        (r#"{"text":"a","callback":"https://example.org/"}"#.to_owned(), &["/callback"]),
        (r#"{"text":"a","callback":["https://example.org/"]}"#.to_owned(), &["/callback"]),
        (r#"{"text":"a","callback":{}}"#.to_owned(), &["/callback/url"]),
        (r#"{"text":"a","callback":{"url":"/hook"}}"#.to_owned(), &["/callback/url"]),
        (r#"{"text":"a","callback":{"url":"ftp://example.org/"}}"#.to_owned(), &["/callback/url"]),
    ] {
        assert_eq!(read(&body).unwrap_err(), pointers, "{body:.200}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_draft_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut errors = FieldErrors::default();
        let draft = parse_message(&bytes, &mut errors);
        prop_assert_eq!(draft.is_none(), !errors.is_empty());
    }

    #[test]
    fn valid_text_stays_unchanged(text in ".{1,200}") {
        let draft = read(&serde_json::json!({ "text": text }).to_string()).unwrap();
        prop_assert_eq!(draft.content.text(), text);
    }

    #[test]
    fn draft_exists_exactly_without_errors(
        text in prop_oneof![Just("\"a\""), Just("\"\""), Just("1"), Just("null")],
        session in prop_oneof![Just("\"new\""), Just("\"old\""), Just("null"), Just("[]")],
        quiet in prop_oneof![Just("49"), Just("50"), Just("60000"), Just("60001"), Just("50.5"), Just("\"x\"")],
    ) {
        let body = format!(r#"{{"text":{text},"session":{session},"turn":{{"quietMs":{quiet}}}}}"#);
        let mut errors = FieldErrors::default();
        let draft = parse_message(body.as_bytes(), &mut errors);
        prop_assert_eq!(draft.is_some(), errors.is_empty());
        let right = text == "\"a\"" && matches!(session, "\"new\"" | "null") && matches!(quiet, "50" | "60000");
        prop_assert_eq!(draft.is_some(), right);
    }
}

/// Reads a body whose pieces of this size come at these intervals. Returns its length, and the time that it took.
async fn read_slowly(pieces: usize, size: usize, interval: Duration) -> (Result<usize, ApiError>, Duration) {
    let start = Instant::now();
    let pieces = futures_util::stream::unfold(pieces, async |left| {
        tokio::time::sleep(interval).await;
        (left > 0).then(|| (Ok::<_, ()>(Bytes::from(vec![b' '; size])), left - 1))
    });
    let mut memory = FairShare::new(4 << 20, 0).empty_permit(None);
    let body = collect(Box::pin(pieces), &mut memory, &LongWork::default()).await;
    (body.map(|body| body.len()), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn body_must_keep_a_rate_but_may_be_slow() {
    let second = Duration::from_secs(1);
    // A megabyte at 16 KiB a second takes a minute.
    let (body, took) = read_slowly(64, 16 << 10, second).await;
    assert_eq!((body.unwrap(), took), (1 << 20, 65 * second));
    for (size, interval, most) in [(0, second / 2, 10), (1, second, 10), (16 << 10, 3 * second, 15)] {
        let (body, took) = read_slowly(60, size, interval).await;
        assert_eq!(body.unwrap_err().problem().kind, ProblemKind::InvalidRequest);
        assert!(took <= most * second, "{took:?}");
    }
}

#[tokio::test]
async fn body_without_memory_is_refused() {
    let budget = FairShare::new(100_000, 0);
    let chunk = || futures_util::stream::iter((0..10).map(|_| Ok::<_, ()>(Bytes::from(vec![b' '; 30_000]))));
    let mut memory = std::sync::Arc::clone(&budget).empty_permit(None);
    let refused = collect(chunk(), &mut memory, &LongWork::default()).await.unwrap_err();
    assert_eq!(refused.problem().kind, ProblemKind::Overloaded);
    drop(memory);
    let mut memory = std::sync::Arc::clone(&budget).empty_permit(None);
    assert_eq!(collect(chunk().take(1), &mut memory, &LongWork::default()).await.unwrap().len(), 30_000);
    assert!(budget.taken() >= 30_000);
}
