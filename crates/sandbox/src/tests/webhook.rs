//! Tests of the webhook channel.

use super::*;

/// Returns a token as webhook callers sign it.
fn token(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(CLIENT_SECRET.as_bytes())).unwrap()
}

async fn post(caller: &Caller, path: &str, claims: &Value, body: &Value) -> (u16, Value) {
    let request = caller.http.post(format!("{}{path}", caller.url)).bearer_auth(token(claims));
    let mut response = request.timeout(Duration::from_secs(20)).send_json(body).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn app() -> Value {
    json!({"sub": "any", "appId": CLIENT_ID})
}

fn v2(text: &str) -> Value {
    json!({"message": {"type": "text", "val": text}, "from": {"id": "ann"}, "to": {"id": "x"}})
}

#[test]
fn v1_answers_a_text_or_a_list() {
    run(async |_sandbox, script, caller| {
        let say = async |text: &str| {
            let body = json!({"message": {"text": text}, "from": {"id": "ann"}, "to": {"id": "x"}});
            post(&caller, "/chatbot/hooks/st-sandbox/hookInstance/ivrInst-9", &app(), &body).await
        };
        let (status, answer) = say("/echo one").await;
        assert_eq!((status, &answer["text"], &answer["endOfTask"]), (200, &json!("one"), &json!(true)));
        assert_eq!(say("/several 2").await.1["text"], json!(["Message 1 of 2", "Message 2 of 2"]));
        let template = say("/buttons").await.1["text"].as_str().unwrap().to_owned();
        assert!(template.starts_with("{&quot;payload&quot;"), "{template}");
        assert_eq!(say("/silent").await.1["text"], json!([]));
        script.next("ann", vec![Step::Say("planned".into())]);
        assert_eq!(say("anything").await.1["text"], "planned");
        let heard = caller.call("GET", "/sandbox/heard?user=ann&wait=0", "").await.1;
        assert_eq!(heard["events"][0]["body"]["message"]["text"], "/echo one");
    });
}

#[test]
fn v2_answers_data_and_events() {
    run(async |_sandbox, _script, caller| {
        let path = "/chatbot/v2/webhook/st-sandbox";
        let (status, answer) = post(&caller, path, &app(), &v2("/echo one")).await;
        assert_eq!((status, &answer["_v"], &answer["endReason"]), (200, &json!("v2"), &json!("Fulfilled")));
        let one = &answer["data"][0];
        assert_eq!((&one["type"], &one["val"]), (&json!("text"), &json!("one")));
        assert!(one["messageId"].as_str().unwrap().starts_with("ms-") && one["createdOn"].is_string());
        let template = post(&caller, path, &app(), &v2("/quick")).await.1["data"][0].clone();
        assert_eq!((&template["type"], &template["val"]["type"]), (&json!("template"), &json!("template")));
        let event = |name: &str| json!({"session": {"new": true}, "message": {"type": "event", "val": name}, "from": {"id": "ann"}});
        let (_, greeting) = post(&caller, path, &app(), &event("ON_CONNECT")).await;
        assert!(greeting["data"][0]["val"].as_str().unwrap().starts_with("Hello!"), "{greeting}");
        let closure = json!({"message": {"type": "event", "val": "SESSION_CLOSURE"}, "from": {"id": "ann"}});
        for outcome in ["SESSION_CLOSURE_SUCCESS", "SESSION_CLOSURE_IGNORED"] {
            assert_eq!(post(&caller, path, &app(), &closure).await.1["data"][0]["eventType"], outcome);
        }
    });
}

#[test]
fn poll_brings_later_responses_once() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.webhook_polling = true);
        let gate = Gate::new();
        let steps = vec![Step::Say("first".into()), Step::Until(gate.clone()), Step::Say("second".into())];
        script.next("ann", steps);
        let path = "/chatbot/v2/webhook/st-sandbox";
        let (_, answer) = post(&caller, path, &app(), &v2("Hi")).await;
        assert_eq!((&answer["data"][0]["val"], answer.get("endOfTask")), (&json!("first"), None));
        let id = answer["pollId"].as_str().unwrap();
        let poll = async || {
            let request =
                caller.http.get(format!("{}{path}/poll/{id}", caller.url)).bearer_auth(token(&app()));
            let mut response = request.send().await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap())
        };
        assert_eq!(poll().await.1["status"], "Inprogress");
        gate.open();
        script.delivered("ann", 2).await;
        let (_, done) = poll().await;
        assert_eq!((&done["data"][0]["val"], &done["endOfTask"]), (&json!("second"), &json!(true)));
        let (status, read) = poll().await;
        assert_eq!((status, &read["errors"][0]["msg"]), (400, &json!("No data found")));
    });
}

/// Starts a receiver, and returns its URL and the bodies that it gets.
fn receiver() -> (url::Url, tokio::sync::mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap()).parse().unwrap();
    let (sender, bodies) = tokio::sync::mpsc::channel(16);
    let app = move || {
        let sender = sender.clone();
        let take = move |body: actix_web::web::Json<Value>| {
            sender.try_send(body.into_inner()).unwrap();
            std::future::ready(actix_web::HttpResponse::Ok())
        };
        App::new().route("/in", actix_web::web::post().to(take))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
    actix_web::rt::spawn(server.run());
    (url, bodies)
}

#[test]
fn asynchronous_call_posts_each_response_by_itself() {
    run(async |_sandbox, script, caller| {
        let (url, mut bodies) = receiver();
        script.behave(|behaviour| behaviour.webhook_post_url = Some(url));
        let (status, answer) =
            post(&caller, "/chatbot/v2/webhook/st-sandbox", &app(), &v2("/several 2")).await;
        let trace = answer["traceId"].as_str().unwrap();
        assert_eq!((status, &answer["status"], &answer["_v"]), (200, &json!("ok"), &json!("v2")));
        assert!(trace.starts_with("RTM-TRACE-"), "{trace}");
        for text in ["Message 1 of 2", "Message 2 of 2"] {
            let posted = bodies.recv().await.unwrap();
            let one = &posted["data"][0];
            assert_eq!(
                (&one["type"], &one["val"], &posted["_v"]),
                (&json!("text"), &json!(text), &json!("v2"))
            );
            assert!(one["createdOn"].is_string());
            assert_eq!((posted.get("to"), posted.get("endOfTask"), one.get("messageId")), (None, None, None));
        }
        let end = bodies.recv().await.unwrap();
        assert_eq!((&end["endOfTask"], &end["endReason"]), (&json!(true), &json!("Fulfilled")));
        // Unsolicited responses reach the receiver too.
        caller.call("POST", "/sandbox/push", r#"{"user": "ann", "text": "By the way"}"#).await;
        assert_eq!(bodies.recv().await.unwrap()["data"][0]["val"], "By the way");

        let body = json!({"message": {"text": "/buttons"}, "from": {"id": "bob"}});
        let (status, answer) = post(&caller, "/chatbot/hooks/st-sandbox", &app(), &body).await;
        assert_eq!((status, answer.get("text")), (200, None));
        let posted = bodies.recv().await.unwrap();
        assert_eq!((&posted["to"], &posted["from"]), (&json!("bob"), &json!("st-sandbox")));
        assert!(posted["text"].as_str().unwrap().starts_with("{&quot;"), "{posted}");
        assert_eq!(bodies.recv().await.unwrap()["endOfTask"], true);
        // Version 1 has no proactive messages.
        caller.call("POST", "/sandbox/push", r#"{"user": "bob", "text": "not posted"}"#).await;
        let heard = async |user: &str| {
            let events = caller.call("GET", &format!("/sandbox/heard?user={user}&wait=0"), "").await.1;
            let events = events["events"].as_array().unwrap().clone();
            events.iter().filter(|event| event["kind"] == "webhookPost" && event["status"] == 200).count()
        };
        while (heard("ann").await, heard("bob").await) != (4, 2) {
            tokio::task::yield_now().await;
        }
        assert!(bodies.try_recv().is_err());
    });
}

#[test]
fn dead_receiver_loses_its_posts_and_refuses_no_call() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.webhook_post_url = "http://127.0.0.1:1/".parse().ok());
        let (status, _) = post(&caller, "/chatbot/v2/webhook/st-sandbox", &app(), &v2("/echo one")).await;
        assert_eq!(status, 200);
        loop {
            let events = caller.call("GET", "/sandbox/heard?user=ann&after=1", "").await.1;
            let posts = events["events"].as_array().unwrap();
            if posts.len() == 2 {
                assert!(
                    posts.iter().all(|post| post["kind"] == "webhookPost" && post["status"].is_null()),
                    "{events}"
                );
                return;
            }
        }
    });
}

#[test]
fn bad_call_is_refused_as_documented() {
    run(async |_sandbox, _script, caller| {
        let path = "/chatbot/v2/webhook/st-sandbox";
        let refused = async |claims: Value, body: Value| {
            let (status, answer) = post(&caller, path, &claims, &body).await;
            assert_eq!(answer["_v"], "v2");
            (status, answer["errors"][0]["msg"].as_str().unwrap().to_owned())
        };
        let unauthorized = (401, "Invalid Access token".to_owned());
        assert_eq!(refused(json!({"appId": "CS-SANDBOX"}), v2("Hi")).await, unauthorized);
        assert_eq!(refused(json!({"appId": CLIENT_ID, "userIdentity": "bob"}), v2("Hi")).await, unauthorized);
        assert_eq!(refused(json!({"iss": CLIENT_ID, "exp": 1}), v2("Hi")).await, unauthorized);
        let invalid = (400, "Invalid Request Payload".to_owned());
        assert_eq!(refused(app(), json!({"message": {"type": "text", "val": "Hi"}})).await, invalid);
        assert_eq!(refused(app(), json!({"message": {"text": "Hi"}, "from": {"id": "ann"}})).await, invalid);
    });
}

#[test]
fn history_of_the_channel_is_read_with_the_token() {
    run(async |_sandbox, _script, caller| {
        post(&caller, "/chatbot/v2/webhook/st-sandbox", &app(), &v2("/echo one")).await;
        let url = format!("{}/api/chathistory/st-sandbox/ivr?botId=st-sandbox&limit=10", caller.url);
        let request = caller.http.get(&url).bearer_auth(caller.assertion(&json!({})));
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(
            (&page["total"], &page["messages"][1]["channels"]),
            (&json!(2), &json!([{"type": "ivr"}]))
        );
        assert_eq!(page["messages"][0].get("userMsgId"), None);
        assert_eq!(caller.http.get(&url).send().await.unwrap().status(), 401);
    });
}
