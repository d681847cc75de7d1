//! Calls of the clients of protocol.md 9.6, as they were recorded, and what each needs of the answer.

use rtm_bridge::config::V1TextForm;
use rtm_sandbox::Step;
use serde_json::{Value, json};

use super::kore_webhook::door;
use crate::support::{Answer, KoreClient, Request, TestBridge, V1, V2, run, spawn_bridge};

/// Sends a call as a client does, and checks what each of them needs: exactly 200, and a JSON body.
async fn call(client: &KoreClient, path: &str, body: &Value) -> Value {
    let answer: Answer = client.send(Request::new("POST", path).json(body)).await;
    assert_eq!(answer.status, 200, "{answer}");
    assert!(answer.header("content-type").unwrap().contains("application/json"), "{answer}");
    answer.json()
}

/// Returns a client with the claims of the Web SDK's and of Botium's first connector.
fn issuer(bridge: &TestBridge, user: &str) -> KoreClient {
    let claims = json!({
        "iss": "cs-sandbox", "aud": "https://idproxy.kore.com/authorize", "sub": user, "isAnonymous": true,
        "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
    });
    KoreClient::with_claims(bridge.api, &claims, "sandbox-secret")
}

#[test]
fn botium_reads_a_text_or_a_list() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let client = issuer(&bridge, "b7a1");
        let say =
            |text: &str| json!({"message": {"text": text}, "from": {"id": "b7a1"}, "to": {"id": "0c6e"}});
        let one = call(&client, &format!("{V1}/hookInstance/ivrInst-9"), &say("/echo one")).await;
        assert_eq!(one["text"], "one");
        let two = call(&client, V1, &say("/several 2")).await;
        assert_eq!(two["text"], json!(["Message 1 of 2", "Message 2 of 2"]));
        bridge.finish().await;
    });
}

#[test]
fn web_sdk_starts_and_speaks_in_both_versions() {
    run(async {
        let bridge = spawn_bridge(|config| door(config, |door| door.v1_text = V1TextForm::Array)).await;
        bridge.script.next_connect("web", vec![Step::Say("Welcome".into())]);
        let client = issuer(&bridge, "web");
        // The start of each page: history, description, and a connect.
        let history = "/api/chathistory/st-sandbox/ivr?botId=st-sandbox&limit=20";
        assert!(client.send(Request::get(history)).await.json()["messages"].is_array());
        assert!(client.send(Request::get("/api/botmeta/st-sandbox")).await.json()["icon"].is_string());
        let message = |message: Value, new: bool| {
            json!({
                "session": {"new": new}, "message": message, "preferredChannelForResponse": "rtm",
                "from": {"id": "web", "userInfo": {"firstName": "", "lastName": "", "email": ""}},
                "to": {"id": "Kore.ai", "groupInfo": {"id": "", "name": ""}}, "token": {}, "mergeIdentity": "",
            })
        };
        let connect = json!({"type": "event", "val": "ON_CONNECT"});
        let greeting = call(&client, V2, &message(connect.clone(), true)).await;
        assert_eq!((&greeting["data"][0]["val"], &greeting["_v"]), (&json!("Welcome"), &json!("v2")));
        let said = json!({"type": "text", "val": "/echo one", "attachments": []});
        let answer = call(&client, V2, &message(said, false)).await;
        assert_eq!((&answer["data"][0]["val"], answer.get("pollId")), (&json!("one"), None));
        // Version 1 throws on a text that is no list, also of the connect.
        let greeting = call(&client, V1, &message(connect, true)).await;
        assert!(greeting["text"].is_array(), "{greeting}");
        let answer = call(&client, V1, &message(json!({"text": "/echo two"}), false)).await;
        assert_eq!(answer["text"], json!(["two"]));
        bridge.finish().await;
    });
}

#[test]
fn mobile_sdks_send_files_and_members_in_their_places() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        // Android: both ids, times in milliseconds, files at the top.
        let claims = json!({
            "appId": "cs-sandbox", "iss": "cs-sandbox", "sub": "and", "userIdentity": "and",
            "iat": 1_700_000_000_000_u64, "exp": 4_000_000_000_000_u64,
        });
        let android = KoreClient::with_claims(bridge.api, &claims, "sandbox-secret");
        let body = json!({
            "session": {"new": false}, "message": {"type": "text", "val": "look"}, "from": {"id": "and"},
            "to": {"id": "st-sandbox"}, "customData": {"tier": "gold"}, "token": "{}",
            "attachments": [{"fileId": "f-1", "fileName": "a.png", "fileType": "image", "fileExtn": "png"}],
        });
        call(&android, V2, &body).await;
        let frame = bridge.script.seen("and", 1).await.unwrap().frame;
        assert_eq!(frame["message"]["attachments"], body["attachments"]);
        for place in [&frame["customData"], &frame["message"]["customData"], &frame["botInfo"]["customData"]]
        {
            assert_eq!(*place, json!({"tier": "gold"}));
        }
        // iOS: a file as an object within the message, and never a new session.
        let ios = issuer(&bridge, "ios");
        let body = json!({
            "session": {"new": false}, "from": {"id": "ios", "userInfo": {"firstName": "Zoë", "user_data": {"a": 1}}},
            "message": {"type": "text", "val": "look", "attachments": {"fileId": "f-2", "fileName": "b.pdf"}},
            "to": {"id": "any"}, "interactiveLanguage": "fr", "shop": "Paris",
        });
        call(&ios, V2, &body).await;
        let frame = bridge.script.seen("ios", 1).await.unwrap().frame;
        assert_eq!(frame["message"]["attachments"], json!([{"fileId": "f-2", "fileName": "b.pdf"}]));
        assert_eq!((&frame["shop"], &frame["interactiveLanguage"]), (&json!("Paris"), &json!("fr")));
        assert_eq!((&frame["from"], &frame["client"]), (&body["from"], &json!("sdk")));
        bridge.finish().await;
    });
}

#[test]
fn documented_calls_of_backends_work() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        // A token without times, tags on all levels, and a template.
        let client = KoreClient::new(bridge.api);
        let tags = json!({"messageLevelTags": [{"name": "order", "value": "7"}]});
        let template = json!({"type": "template", "payload": {"template_type": "button"}});
        let body = json!({
            "message": {"type": "template", "val": template}, "from": {"id": "doc"}, "to": {"id": "x"},
            "metaTags": tags, "mergeIdentity": true,
        });
        call(&client, V2, &body).await;
        let frame = bridge.script.seen("doc", 1).await.unwrap().frame;
        assert_eq!(frame["botInfo"]["metaTags"], tags);
        let said: Value = serde_json::from_str(frame["message"]["body"].as_str().unwrap()).unwrap();
        assert_eq!(said, template);
        // A backend reads `data[0]` unguarded, and polls only while there is a status.
        let body =
            json!({"message": {"type": "text", "val": "/echo hi"}, "from": {"id": "doc"}, "to": {"id": "x"}});
        let answer = call(&client, V2, &body).await;
        assert_eq!((&answer["data"][0]["val"], answer.get("status")), (&json!("hi"), None));
        for member in ["endOfTask", "endReason"] {
            assert!(answer.get(member).is_some(), "{member}");
        }
        bridge.finish().await;
    });
}
