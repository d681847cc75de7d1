//! Tests of the control API.

use super::*;

#[test]
fn next_answers_are_given_in_order() {
    run(async |_sandbox, _script, caller| {
        let mut link = caller.connect_quietly().await;
        let next = json!({"user": "ann", "reply": ["one", {"wait": "1ms"}, {"do": "waitingForInput"}]});
        assert_eq!(
            caller.call("POST", "/sandbox/next", &next.to_string()).await,
            (200, json!({"planned": 1}))
        );
        let next = json!({"user": "ann", "reply": "two", "ack": "never"});
        assert_eq!(
            caller.call("POST", "/sandbox/next", &next.to_string()).await,
            (200, json!({"planned": 2}))
        );
        let any = json!({"reply": {"close": 1011}});
        assert_eq!(caller.call("POST", "/sandbox/next", &any.to_string()).await.0, 200);
        link.say(1, "Hi").await;
        assert_eq!(link.brief(3).await, ["ack", "one", "waiting_for_user_input"]);
        link.say(2, "Hi").await;
        assert_eq!(link.brief(1).await, ["two"]);
        link.say(3, "Hi").await;
        assert_eq!(link.brief(1).await, ["ack"]);
        assert_eq!(link.end().await, End::Close(Some(1011)));

        let connect = json!({"user": "ann", "on": "connect", "reply": "Welcome, ${user}"});
        assert_eq!(caller.call("POST", "/sandbox/next", &connect.to_string()).await.0, 200);
        assert_eq!(caller.connect("").await.brief(1).await, ["Welcome, ann"]);
    });
}

#[test]
fn wrong_control_request_says_what_to_send() {
    run(async |sandbox, _script, caller| {
        for (path, body, reason) in [
            ("next", r#"{"user": "ann"}"#, "missing field `reply`"),
            ("next", r#"{"reply": {"wait": "soon"}}"#, "300ms"),
            ("next", r#"{"on": "connect", "reply": "Hi"}"#, "name the user"),
            ("faults", r#"{"endpoint": "moon", "fault": "hang"}"#, "unknown variant `moon`"),
            ("push", r#"{"user": "ann"}"#, "\"text\""),
            ("push", r#"{"user": "ann", "text": "a", "reply": "b"}"#, "\"text\""),
            ("push", r#"{"user": "ann", "bot": "st-other", "text": "a"}"#, BOT_ID),
            ("next", r#"{"user": "ann", "bot": "st-other", "reply": "a"}"#, BOT_ID),
        ] {
            let request = caller.http.post(format!("{}/sandbox/{path}", sandbox.url()));
            let mut answer = request.send_body(body).await.unwrap();
            let told = String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap();
            assert_eq!(answer.status(), 400, "{body}");
            assert!(told.contains(reason), "{body}: {told}");
        }
        assert_eq!(caller.call("GET", "/sandbox/heard?after=x", "").await.0, 400);
    });
}

#[test]
fn faults_are_planned_and_cleared() {
    run(async |_sandbox, _script, caller| {
        let token = caller.grant().await;
        let faults = json!([
            {"endpoint": "start", "times": 1, "fault": {"status": 503}},
            {"endpoint": "history", "fault": {"rateLimited": 3}},
            {"endpoint": "grant", "fault": {"html": 502}},
        ]);
        let planned = caller.call("POST", "/sandbox/faults", &faults.to_string()).await;
        assert_eq!(planned, (200, json!({"planned": 3})));
        assert_eq!(caller.post_start(&token).await.0, 503);
        assert_eq!(caller.post_start(&token).await.0, 200);
        for _ in 0..2 {
            assert_eq!(caller.history(&token, "").await.0, 429);
        }
        assert_eq!(caller.call("DELETE", "/sandbox/faults?endpoint=history", "").await.0, 204);
        assert_eq!(caller.history(&token, "").await.0, 200);
        let grant = async || caller.call("POST", "/api/oAuth/token/jwtgrant", "{}").await.0;
        assert_eq!(grant().await, 502);
        assert_eq!(caller.call("DELETE", "/sandbox/faults", "").await.0, 204);
        assert_eq!(grant().await, 400);
        assert_eq!(caller.call("DELETE", "/sandbox/faults?endpoint=moon", "").await.0, 400);
    });
}

#[test]
fn heard_tells_all_in_order_and_waits() {
    run(async |sandbox, _script, caller| {
        let mut link = caller.connect("").await;
        link.brief(3).await;
        link.say(1, "/silent").await;
        link.send(&json!({"type": "ping", "id": 2})).await;
        link.brief(2).await;
        let (_, page) = caller.call("GET", "/sandbox/heard?user=ann", "").await;
        let events = page["events"].as_array().unwrap();
        let told: Vec<_> = events
            .iter()
            .map(|event| event.get("type").unwrap_or(&event["kind"]).as_str().unwrap())
            .collect();
        assert_eq!(told, ["grant", "start", "connect", "message", "ping"]);
        assert_eq!(
            (&events[3]["text"], &events[3]["frame"]["clientMessageId"]),
            (&json!("/silent"), &json!(1))
        );
        assert_eq!((&events[0]["app"], &events[0]["bot"]), (&json!(CLIENT_ID), &json!(BOT_ID)));
        assert_eq!((&page["after"], &page["dropped"]), (&events[4]["seq"], &json!(false)));

        let path = format!("/sandbox/heard?user=ann&after={}", page["after"]);
        assert_eq!(caller.call("GET", &format!("{path}&wait=0"), "").await.1["events"], json!([]));
        let bob = Caller::of(&sandbox, "bob");
        let (waited, ()) = tokio::join!(caller.call("GET", &path, ""), async {
            bob.grant().await;
            link.say(3, "awaited").await;
        });
        assert_eq!(waited.1["events"][0]["text"], "awaited");
        link.frames.send(Message::Close(None)).await.unwrap();
        let path = format!("/sandbox/heard?user=ann&after={}", waited.1["after"]);
        let closed = caller.call("GET", &path, "").await.1["events"][0].clone();
        assert_eq!((&closed["kind"], &closed["ending"]), (&json!("close"), &json!("client")));
        assert!(!page.to_string().contains(CLIENT_SECRET));
    });
}

#[test]
fn reset_brings_the_start_back() {
    let options = SandboxOptions {
        faults: vec![(Endpoint::History, Some(1), Fault::Status(503))],
        ..SandboxOptions::default()
    };
    run_with(options, async |_sandbox, script, caller| {
        let token = caller.grant().await;
        assert_eq!(caller.history(&token, "").await.0, 503);
        let mut link = caller.connect_quietly().await;
        link.say(1, "/echo x").await;
        link.brief(2).await;
        script.behave(|behaviour| behaviour.pong = false);
        let next = json!({"reply": "planned"}).to_string();
        assert_eq!(caller.call("POST", "/sandbox/next", &next).await.0, 200);
        let (status, answer) = caller.call("POST", "/sandbox/reset", "").await;
        assert_eq!((status, answer["after"].as_u64() > Some(3)), (200, true));
        assert_eq!(link.frame().await.err(), Some(End::Gone));
        assert_eq!(caller.post_start(&token).await.0, 401, "tokens are gone");

        let token = caller.grant().await;
        assert_eq!(caller.history(&token, "").await.0, 503, "the faults of the start are planned again");
        assert_eq!(caller.history(&token, "").await.1["total"], 0);
        let mut link = caller.connect_quietly().await;
        link.send(&json!({"type": "ping"})).await;
        link.say(1, "/echo y").await;
        assert_eq!(link.brief(3).await, ["pong", "ack", "y"]);
        let heard =
            caller.call("GET", &format!("/sandbox/heard?after={}&wait=0", answer["after"]), "").await.1;
        assert_eq!((&heard["events"][0]["kind"], &heard["dropped"]), (&json!("grant"), &json!(false)));
    });
}

#[test]
fn control_key_is_needed_where_there_is_one() {
    let options = SandboxOptions { control_key: Some("key".into()), ..SandboxOptions::default() };
    run_with(options, async |sandbox, _script, caller| {
        for (method, path) in [
            ("POST", "push"),
            ("POST", "next"),
            ("POST", "faults"),
            ("DELETE", "faults"),
            ("POST", "reset"),
            ("GET", "heard?wait=0"),
        ] {
            assert_eq!(caller.call(method, &format!("/sandbox/{path}"), "{}").await.0, 401, "{path}");
        }
        let heard = |key: &str| {
            caller.http.get(format!("{}/sandbox/heard?wait=0", sandbox.url())).bearer_auth(key).send()
        };
        assert_eq!(heard("wrong").await.unwrap().status(), 401);
        assert_eq!(heard("key").await.unwrap().status(), 200);
        assert_eq!(
            caller.http.get(format!("{}/sandbox/bot.png", sandbox.url())).send().await.unwrap().status(),
            200
        );
        assert_eq!(
            caller.post_grant(&caller.assertion(&json!({}))).await.0,
            200,
            "the platform needs no key"
        );
    });
}
