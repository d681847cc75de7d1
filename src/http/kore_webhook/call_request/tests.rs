use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn call(version: ApiVersion, body: &Value) -> Result<ChannelCall, InvalidCall> {
    read(body.to_string().as_bytes(), version)
}

fn message(version: ApiVersion, body: &Value) -> CallMessage {
    match call(version, body).unwrap_or_else(|error| panic!("{body}: {error}")).content {
        CallAction::Message(message) => *message,
        CallAction::SessionClosure => panic!("{body} is a closure"),
    }
}

fn with(members: Value) -> Value {
    let mut body =
        json!({"message": {"type": "text", "val": "hi"}, "from": {"id": "ann"}, "to": {"id": "any"}});
    let Value::Object(members) = members else { panic!("no object") };
    body.as_object_mut().unwrap().extend(members);
    body
}

fn value(object: Option<&JsonObject>) -> Value {
    object.map_or(Value::Null, |object| serde_json::from_str(object.raw().get()).unwrap())
}

#[test]
fn text_of_either_version_is_read() {
    let v1 = json!({"message": {"text": "hi"}, "from": {"id": "ann"}, "to": {"id": "x"}});
    let read = call(ApiVersion::V1, &v1).unwrap();
    assert_eq!(read.user.as_str(), "ann");
    assert_eq!(message(ApiVersion::V1, &v1).content.text(), "hi");
    assert_eq!(call(ApiVersion::V2, &v1).unwrap_err(), InvalidCall::Message);
    let v2 = message(ApiVersion::V2, &with(json!({})));
    assert_eq!((v2.content.text(), v2.session, v2.event), ("hi", SessionRequest::Continue, None));
    assert!(v2.content.custom_data.is_none() && v2.content.payload_members.is_none());
}

#[test]
fn template_and_form_data_become_their_json() {
    let template = json!({"type": "template", "val": {"type": "template", "payload": {"a": 1}}});
    let read = message(ApiVersion::V2, &with(json!({ "message": template })));
    assert_eq!(serde_json::from_str::<Value>(read.content.text()).unwrap(), template["val"]);
    let form = json!({"formId": "f-1", "data": [{"componentId": "c", "input": "x"}], "meta": {}});
    for (version, sent) in [
        (ApiVersion::V2, json!({"type": "formData", "val": form})),
        (ApiVersion::V2, json!({"type": "formData", "formData": form})),
        (ApiVersion::V1, json!({"formData": form})),
    ] {
        let read = message(version, &with(json!({ "message": sent })));
        assert_eq!(serde_json::from_str::<Value>(read.content.text()).unwrap(), form, "{sent}");
        assert_eq!(value(read.content.payload_members.as_ref()), json!({ "formData": form }));
    }
}

#[test]
fn events_are_a_connect_and_a_closure() {
    let event = |name: &str, session: Value| {
        with(json!({"message": {"type": "event", "val": name}, "session": session}))
    };
    for version in [ApiVersion::V1, ApiVersion::V2] {
        for (session, request) in [
            (json!({"new": true}), SessionRequest::New),
            (json!({"new": "true"}), SessionRequest::New),
            (json!(null), SessionRequest::New),
            (json!({"new": false}), SessionRequest::Continue),
        ] {
            let read = message(version, &event("ON_CONNECT", session.clone()));
            assert_eq!((read.event, read.session), (Some(MessageEvent::Connect), request), "{session}");
        }
        let closure = call(version, &event("SESSION_CLOSURE", json!(null))).unwrap();
        assert!(matches!(closure.content, CallAction::SessionClosure));
        assert_eq!(call(version, &event("ON_LEAVE", json!(null))).unwrap_err(), InvalidCall::Event);
    }
    let text = message(ApiVersion::V2, &with(json!({"session": {"new": true}})));
    assert_eq!(text.session, SessionRequest::New);
}

#[test]
fn files_are_read_from_each_place_of_each_client() {
    let file = json!({"fileId": "f-1", "fileName": "a.png", "fileType": "image"});
    let text = |files: Value| json!({"type": "text", "val": "look", "attachments": files});
    for body in [
        with(json!({"message": text(json!([file]))})),
        with(json!({"message": text(file.clone())})),
        with(json!({"attachments": [file]})),
        with(json!({"attachments": file})),
    ] {
        let files = message(ApiVersion::V2, &body).content.attachments;
        assert_eq!(serde_json::to_value(&files).unwrap(), json!([file]), "{body}");
    }
    let linked =
        message(ApiVersion::V2, &with(json!({"message": text(json!([{"url": "https://x/b.pdf"}]))})));
    let url = "https://x/b.pdf";
    assert_eq!(
        serde_json::to_value(&linked.content.attachments).unwrap(),
        json!([{"fileId": url, "fileName": "b.pdf", "fileUrl": url, "url": url}])
    );
    let alone = json!({"message": {"attachments": [file]}, "from": {"id": "ann"}});
    assert_eq!(message(ApiVersion::V1, &alone).content.body(), "a.png");
    for none in [json!({}), json!([]), json!([null, {}]), json!(null), json!("")] {
        assert!(message(ApiVersion::V2, &with(json!({"attachments": none}))).content.attachments.is_empty());
    }
    for other in
        [json!([7]), json!("a.png"), json!([file, {"fileName": "a.png"}]), json!([[file]]), json!(true)]
    {
        let refused = call(ApiVersion::V2, &with(json!({"attachments": other}))).unwrap_err();
        assert_eq!(refused, InvalidCall::Attachment, "{other}");
    }
    let many = with(json!({"attachments": vec![file; 21]}));
    assert_eq!(call(ApiVersion::V2, &many).unwrap_err(), InvalidCall::Attachments);
}

#[test]
fn context_goes_where_bots_look_for_it() {
    let tags = json!({"userLevelTags": [{"name": "tier", "value": "gold"}]});
    let from =
        json!({"id": "ann", "userInfo": {"firstName": "Zoë", "lastName": "Ruiz", "email": "z@example.org"}});
    let read = message(
        ApiVersion::V2,
        &with(json!({
            "customData": {"page": 7}, "metaTags": tags, "interactiveLanguage": "fr", "mergeIdentity": "true",
            "from": from, "preferredChannelForResponse": "rtm", "other": [1], "token": "{}", "client": "mine",
        })),
    );
    assert_eq!(value(read.content.custom_data.as_ref()), json!({"page": 7, "interactiveLanguage": "fr"}));
    assert_eq!(value(read.content.meta_tags.as_ref()), tags);
    assert_eq!(
        value(read.content.payload_members.as_ref()),
        json!({
            "from": from, "other": [1], "preferredChannelForResponse": "rtm", "interactiveLanguage": "fr",
            "mergeIdentity": "true",
        })
    );
    assert_eq!(read.details.profile.first_name.as_deref(), Some("Zoë"));
    assert!(read.merges_identity);
    let plain =
        message(ApiVersion::V2, &with(json!({"mergeIdentity": "", "metaTags": "", "customData": []})));
    assert!(!plain.merges_identity && plain.content.custom_data.is_none());
    let large = with(json!({"customData": {"a": "x".repeat(CONTEXT_MAX_BYTES)}}));
    assert_eq!(call(ApiVersion::V2, &large).unwrap_err(), InvalidCall::Size("/customData"));
}

#[test]
fn unusable_body_is_refused_with_its_place() {
    let no_user = json!({"message": {"type": "text", "val": "hi"}});
    for (body, error) in [
        (json!([]), InvalidCall::Body),
        (no_user.clone(), InvalidCall::User),
        (with(json!({"from": {"id": ""}})), InvalidCall::User),
        (with(json!({"from": "ann"})), InvalidCall::User),
        (with(json!({"message": null})), InvalidCall::Message),
        (with(json!({"message": {"type": "text"}})), InvalidCall::Message),
        (with(json!({"message": {"type": "text", "val": ""}})), InvalidCall::Text),
    ] {
        assert_eq!(call(ApiVersion::V2, &body).unwrap_err(), error, "{body}");
    }
    for text in ["", "{", "\u{feff}", r#"{"a":1,"a":2}"#] {
        assert_eq!(read(text.as_bytes(), ApiVersion::V2).unwrap_err(), InvalidCall::Body, "{text}");
    }
    assert_eq!(read(b"\xff", ApiVersion::V2).unwrap_err(), InvalidCall::Body);
    let marked = format!("\u{feff}{}", with(json!({})));
    assert!(read(marked.as_bytes(), ApiVersion::V2).is_ok());
}

#[test]
fn equal_bodies_have_equal_digests() {
    let digest = |text: &str| read(text.as_bytes(), ApiVersion::V2).unwrap().digest;
    let one = digest(r#"{"message":{"type":"text","val":"hi"},"from":{"id":"a"}}"#);
    assert_eq!(one, digest(r#"{ "from": {"id":"a"}, "message": {"val":"h\u0069","type":"text"} }"#));
    assert_ne!(one, digest(r#"{"message":{"type":"text","val":"hi"},"from":{"id":"b"}}"#));
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(text in "\\PC{0,200}") {
        for version in [ApiVersion::V1, ApiVersion::V2] {
            let _read = read(text.as_bytes(), version);
        }
    }
}
