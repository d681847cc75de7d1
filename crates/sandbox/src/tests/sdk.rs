//! Tests of what Kore's own SDKs need beside the documented protocol (protocol.md 16).

use super::*;

const ORIGIN: &str = "access-control-allow-origin";

#[test]
fn preflight_allows_the_asked_headers() {
    run(async |sandbox, _script, caller| {
        for path in
            ["/api/oAuth/token/jwtgrant", "/api/1.1/rtm/start", "/api/botmessages/rtm", "/api/unknown"]
        {
            for asked in ["content-type", "authorization", "authorization,content-type", "x-rtm-v"] {
                let request =
                    caller.http.request(awc::http::Method::OPTIONS, format!("{}{path}", sandbox.url()));
                let request = request.insert_header(("Origin", "http://127.0.0.1:8000"));
                let answer =
                    request.insert_header(("Access-Control-Request-Headers", asked)).send().await.unwrap();
                assert_eq!(answer.status(), 204, "{path}");
                let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap();
                assert_eq!((header(ORIGIN), header("access-control-allow-headers")), ("*", asked));
                assert_eq!(header("access-control-allow-methods"), "GET, POST, PUT");
            }
        }
    });
}

#[test]
fn every_answer_of_the_api_allows_every_origin() {
    run(async |sandbox, script, caller| {
        let get =
            async |path: &str| caller.http.get(format!("{}{path}", sandbox.url())).send().await.unwrap();
        let limited = Fault::RateLimited(RetryAfter::Seconds(7));
        script.fault_next(Endpoint::History, 1, limited);
        let faulty = get("/api/botmessages/rtm").await;
        assert_eq!(faulty.headers().get("retry-after").unwrap(), "7");
        let (refused, unknown) = (get("/api/botmessages/rtm").await, get("/api/nowhere").await);
        assert_eq!(
            [faulty.status(), refused.status(), unknown.status()].map(|s| s.as_u16()),
            [429, 401, 404]
        );
        for answer in [&faulty, &refused, &unknown, &get("/sandbox-page").await] {
            assert_eq!(answer.headers().get(ORIGIN).unwrap(), "*");
            assert_eq!(answer.headers().get("access-control-expose-headers").unwrap(), "Retry-After");
        }
        let control = get("/sandbox/heard?wait=0").await;
        assert!(control.headers().get(ORIGIN).is_none(), "a page must not read what others said");
    });
}

#[test]
fn helper_signs_for_the_secret_of_an_app() {
    run(async |sandbox, _script, caller| {
        let form = "clientId=cs-sandbox&clientSecret=sandbox-secret&identity=t12&aud=&isAnonymous=false";
        let request = caller.http.post(format!("{}/users/sts", sandbox.url()));
        let request = request.content_type("application/x-www-form-urlencoded; charset=UTF-8");
        let signed: Value = request.send_body(form).await.unwrap().json().await.unwrap();
        let (status, grant) = caller.post_grant(signed["jwt"].as_str().unwrap()).await;
        assert_eq!((status.as_u16(), &grant["userInfo"]["identity"]), (200, &json!("cs-sandbox/t12")));
        assert_eq!(grant["userInfo"]["enrollType"], "free");

        let body = json!({"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "identity": "a", "isAnonymous": true});
        let (status, signed) = caller.call("POST", "/users/sts", &body.to_string()).await;
        let grant = caller.post_grant(signed["jwt"].as_str().unwrap()).await.1;
        assert_eq!((status, &grant["userInfo"]["enrollType"]), (200, &json!("anonymous")));
        for wrong in
            [form.replace("sandbox-secret", "wrong"), form.replace("cs-sandbox", "cs-other"), String::new()]
        {
            assert_eq!(caller.call("POST", "/users/sts", &wrong).await.0, 401, "{wrong}");
        }
        assert_eq!(caller.call("POST", "/users/sts", &form.replace("t12", "")).await.0, 400);
    });
}

#[test]
fn api_key_and_console_login_lead_to_a_grant() {
    run(async |_sandbox, _script, caller| {
        let (status, signed) = caller.call("POST", "/api/platform/websdk", "apiKey=ek-123&ity=ann").await;
        assert_eq!((status, &signed["botInfo"]["_id"], &signed["ity"]), (200, &json!(BOT_ID), &json!("ann")));
        assert!(signed["botInfo"]["name"].is_string());
        let grant = caller.post_grant(signed["jwt"].as_str().unwrap()).await.1;
        assert_eq!(grant["userInfo"]["identity"], "cs-sandbox/ann");
        let (_, anonymous) = caller.call("POST", "/api/platform/websdk", "apiKey=ek-123").await;
        let grant = caller.post_grant(anonymous["jwt"].as_str().unwrap()).await.1;
        assert_eq!(
            grant["userInfo"]["identity"],
            format!("cs-sandbox/{}", anonymous["ity"].as_str().unwrap())
        );
        assert_eq!(caller.call("POST", "/api/platform/websdk", "").await.0, 401);

        let login = json!({
            "client_id": "1", "client_secret": "1", "scope": "1", "grant_type": "password",
            "username": "tester", "password": "any",
        });
        let (status, login) = caller.call("POST", "/api/1.1/oauth/token", &login.to_string()).await;
        let token = login["authorization"]["accessToken"].as_str().unwrap();
        let request = caller.http.post(format!("{}/api/1.1/users/sts", caller.url)).bearer_auth(token);
        let signed: Value = request.send().await.unwrap().json().await.unwrap();
        let grant = caller.post_grant(signed["jwt"].as_str().unwrap()).await.1;
        assert_eq!((status, &grant["userInfo"]["identity"]), (200, &json!("cs-sandbox/tester")));
        assert_eq!(caller.call("POST", "/api/1.1/oauth/token", "{}").await.0, 401);
    });
}

#[test]
fn app_with_an_api_key_refuses_others() {
    let key = AppKey::Secret(CLIENT_SECRET.into());
    let rules = AppRules { api_key: Some("ek-1".into()), enforce_jti: true, ..AppRules::default() };
    let apps = vec![ClientApp { rules, ..ClientApp::new(CLIENT_ID, key) }];
    run_with(SandboxOptions { apps, ..SandboxOptions::default() }, async |_sandbox, _script, caller| {
        assert_eq!(caller.call("POST", "/api/platform/websdk", "apiKey=ek-2").await.0, 401);
        let (_, signed) = caller.call("POST", "/api/platform/websdk", "apiKey=ek-1&ity=ann").await;
        let assertion = signed["jwt"].as_str().unwrap();
        assert_eq!(caller.post_grant(assertion).await.0, 200, "the helper's assertion has the jti");
        assert_eq!(caller.post_grant(assertion).await.0, 401, "it works once");
        let (status, refusal) = caller.post_grant(&caller.assertion(&json!({}))).await;
        assert_eq!(status, 401);
        assert!(refusal["errors"][0]["msg"].as_str().unwrap().contains("requires a \"jti\""), "{refusal}");
    });
}

#[test]
fn theme_and_pictures_are_served() {
    run(async |sandbox, script, caller| {
        let (status, theme) =
            caller.call("GET", &format!("/api/websdkthemes/{BOT_ID}/activetheme"), "").await;
        assert_eq!((status, &theme["activeTheme"]), (200, &json!(true)));
        for colour in ["/botMessage/bubbleColor", "/userMessage/fontColor", "/widgetHeader/backgroundColor"] {
            assert!(theme.pointer(colour).unwrap().as_str().unwrap().starts_with('#'), "{colour}");
        }
        assert_eq!(caller.call("GET", &format!("/api/1.1/botmeta/{BOT_ID}"), "").await.0, 200);
        assert_eq!(caller.call("GET", "/api/botmeta/st-unknown", "").await.0, 404);

        let mut link = caller.connect_quietly().await;
        link.say(1, "/template carousel").await;
        link.brief(1).await;
        let frame = link.json().await;
        let pictures = ["/icon", "/message/0/component/payload/payload/elements/0/image_url"];
        for place in pictures {
            let url = frame.pointer(place).unwrap().as_str().unwrap();
            assert!(url.starts_with(&sandbox.url()), "{url}");
            let mut picture = caller.http.get(url).send().await.unwrap();
            assert!(picture.body().await.unwrap().starts_with(b"\x89PNG"), "{url}");
        }
        let page = caller.history(&caller.grant().await, "").await.1;
        assert_eq!(page["icon"], frame["icon"]);
        script.wait_until(|script| script.totals().history_reads == 1).await;
    });
}

#[test]
fn history_is_read_in_pages_of_a_hundred() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        script.push("ann", (1..=130).map(|n| Step::OnlyHistory(n.to_string())).collect());
        script.delivered("ann", 130).await;
        link.send(&json!({"type": "ping"})).await;
        let token = caller.grant().await;
        let texts = async |query: &str| {
            let (_, page) = caller.history(&token, query).await;
            let texts = page["messages"].as_array().unwrap().iter();
            let texts: Vec<u32> = texts
                .map(|record| record["components"][0]["data"]["text"].as_str().unwrap().parse().unwrap())
                .collect();
            (texts.len(), texts.first().copied(), texts.last().copied(), page["moreAvailable"] == true)
        };
        assert_eq!(texts("limit=100").await, (100, Some(31), Some(130), true));
        assert_eq!(texts("offset=100&limit=10").await, (10, Some(21), Some(30), true));
        assert_eq!(texts("offset=120&limit=10").await, (10, Some(1), Some(10), false));
        assert_eq!(texts("limit=1000").await.0, 100);
        assert_eq!(texts("").await, (10, Some(121), Some(130), true));
        let newest = (10, Some(121), Some(130), true);
        assert_eq!(texts("limit=10&offset=0&forward=true").await, newest);
        assert_eq!(texts("limit=10&limit=10&direction=0").await, newest);
        let (_, page) = caller.history(&token, "limit=2").await;
        let id = page["messages"][0]["_id"].as_str().unwrap();
        assert_eq!(texts(&format!("direction=1&msgId={id}")).await, (1, Some(130), Some(130), false));
        assert_eq!(texts(&format!("direction=0&limit=1&msgId={id}")).await, (1, Some(128), Some(128), true));
        assert_eq!(caller.history(&token, "limit=many").await.0, 400);
    });
}

#[test]
fn doubled_parameter_opens_the_socket() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect("&isReconnect=true&isReconnect=true").await;
        assert_eq!(link.brief(1).await, ["bot_active"]);
        assert!(script.connected("ann", 1).await.connects[0].is_reconnect);
    });
}

#[test]
fn connect_without_welcome_gets_none() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect("&pwe=quickchat&pwcflowId=f-1&isSkipOnConnect=true").await;
        assert_eq!(link.brief(2).await, ["bot_active", "session_start"]);
        link.say(1, "/echo x").await;
        assert_eq!(link.brief(2).await, ["ack", "x"]);
        script.behave(|behaviour| behaviour.welcome = WelcomeTime::AfterFirstMessage);
        let mut link = caller.connect("&isSkipOnConnect=true").await;
        assert_eq!(link.brief(2).await, ["bot_active", "session_start"]);
        link.say(1, "/echo y").await;
        assert_eq!(link.brief(2).await, ["ack", "y"]);
    });
}

#[test]
fn secure_handshake_takes_an_expired_assertion() {
    run(async |sandbox, script, caller| {
        let token = caller.grant().await;
        let now = clock::now().as_second();
        let jwt = format!("jwt|{}", caller.assertion(&json!({"iat": now - 60, "exp": now - 1})));
        let open = async || {
            let request = caller.http.post(format!("{}/api/rtm/start", sandbox.url()));
            let request = request.bearer_auth(&token).insert_header(("x-rtm-v", "1"));
            let body: Value = request.send().await.unwrap().json().await.unwrap();
            let nonce = format!("nonce|{}", body["nonce"].as_str().unwrap());
            caller.open(body["url"].as_str().unwrap(), &["x-rtm-v|1", &jwt, &nonce]).await.err()
        };
        assert_eq!(open().await, None);
        script.behave(|behaviour| behaviour.handshake_checks_expiry = true);
        assert_eq!(open().await, Some(403));
    });
}

#[test]
fn identity_has_the_same_ids_in_each_grant() {
    run(async |sandbox, _script, caller| {
        let info = async |caller: &Caller| {
            caller.post_grant(&caller.assertion(&json!({}))).await.1["userInfo"].clone()
        };
        let (first, second) = (info(&caller).await, info(&caller).await);
        assert_eq!(first, second);
        assert!(first["userId"].as_str().unwrap().starts_with("u-"));
        assert_ne!(info(&Caller::of(&sandbox, "bob")).await["userId"], first["userId"]);
    });
}

#[test]
fn delivery_acks_can_be_told_apart() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        link.say(1, "/several 3").await;
        link.brief(1).await;
        let (mut last, mut acks) = (0, 0);
        for _ in 0..3 {
            let frame = link.json().await;
            let at = frame["timestamp"].as_i64().unwrap();
            assert!(at > last, "{at} after {last}");
            last = at;
            let key = frame["key"].as_str().unwrap();
            link.send(&json!({
                "clientMessageId": at, "type": "ack", "replyto": at, "status": "delivered", "key": key, "id": at,
            }))
            .await;
            acks += 1;
        }
        let observed = script.observed_when("ann", |seen| seen.others.count() == acks).await;
        assert!(observed.others.iter().all(|frame| frame.kind == FrameKind::DeliveryAck));
        link.say(2, "/stream one two").await;
        link.brief(1).await;
        let (one, two) = (link.json().await, link.json().await);
        assert!(
            one["timestamp"].as_i64() > Some(last) && one["timestamp"].as_i64() < two["timestamp"].as_i64()
        );
        assert_eq!(one["messageId"], two["messageId"]);
    });
}

#[test]
fn signals_are_recorded_and_acked_by_switch() {
    let options = SandboxOptions { rate_per_minute: 2, ..SandboxOptions::default() };
    run_with(options, async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        let signal = |event: &str| json!({"id": 7, "resourceid": "/bot.message", "event": event, "message": {"body": "", "type": ""}});
        for _ in 0..3 {
            link.send(&signal("typing")).await;
            assert_eq!(link.json().await["replyto"], 7);
        }
        let observed = script.observed("ann");
        assert_eq!(
            (observed.others[0].kind, &observed.others[0].frame["event"]),
            (FrameKind::Signal, &json!("typing"))
        );
        script.behave(|behaviour| (behaviour.signal_acks, behaviour.signals_count) = (false, true));
        link.send(&signal("stop_typing")).await;
        link.say(1, "/echo x").await;
        assert_eq!(link.brief(2).await, ["ack", "x"], "no ack of the signal");
        link.send(&signal("typing")).await;
        assert_eq!(link.end().await, End::Close(Some(1008)), "the third frame of the minute");
    });
}

#[test]
fn agent_shows_signs() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.agent_typing = Duration::from_millis(60));
        let mut link = caller.connect_quietly().await;
        link.say(1, "/agent").await;
        assert_eq!(link.brief(3).await[2], "agent_session_start");
        let connected = link.json().await;
        assert_eq!(
            (&connected["customEvent"], &connected["message"]["type"]),
            (&json!("EVENT"), &json!("agent_connected"))
        );
        assert_eq!(connected["message"]["agentInfo"]["firstName"], "Alex");
        let read = link.json().await;
        assert_eq!(
            (&read["message"]["type"], &read["message"]["clientMessageId"]),
            (&json!("message_read"), &json!("all"))
        );
        assert_eq!(link.json().await["message"]["type"], "typing");
        let began = tokio::time::Instant::now();
        assert_eq!(link.json().await["message"]["type"], "stoptyping");
        assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
        assert_eq!(link.json().await["fromAgent"], true);

        link.say(4711, "hello?").await;
        link.brief(1).await;
        for kind in ["message_delivered", "message_read"] {
            let receipt = link.json().await;
            let told = (&receipt["message"]["type"], &receipt["message"]["clientMessageId"]);
            assert_eq!(told, (&json!(kind), &json!(4711)));
        }
    });
}

#[test]
fn context_of_a_connect_reaches_the_bot() {
    run(async |sandbox, script, caller| {
        let info =
            |number: u32| json!({"chatBot": "Help", "taskBotId": BOT_ID, "customData": {"number": number}});
        let grant = json!({"assertion": caller.assertion(&json!({})), "botInfo": info(1)});
        let (_, granted) = caller.call("POST", "/api/oAuth/token/jwtgrant", &grant.to_string()).await;
        let mut start = info(2);
        start["metaTags"] = json!({"userLevelTags": [{"name": "a", "value": "b"}]});
        let request = caller.http.post(format!("{}/api/rtm/start", sandbox.url()));
        let request = request.bearer_auth(granted["authorization"]["accessToken"].as_str().unwrap());
        let request = request.insert_header(("Origin", "http://shop.example"));
        let body = json!({"botInfo": start, "language": "de", "token": {}});
        let started: Value = request.send_json(&body).await.unwrap().json().await.unwrap();
        let mut link = caller.open(started["url"].as_str().unwrap(), &[]).await.unwrap();
        assert_eq!(link.brief(1).await, ["bot_active"]);
        let language = link.json().await;
        assert_eq!(
            (&language["type"], &language["langDetails"]),
            (&json!("initial_language"), &json!({"language": "de"}))
        );
        let welcome = link.brief(2).await.swap_remove(1);
        assert!(
            welcome.contains(r#"Your customData: {"number":2}"#) && welcome.contains("userLevelTags"),
            "{welcome}"
        );
        assert_eq!(script.observed("ann").starts, 1);
        let (_, heard) = caller.call("GET", "/sandbox/heard?user=ann&wait=0", "").await;
        let events = heard["events"].as_array().unwrap();
        let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["grant", "start", "connect"]);
        assert_eq!(events[0]["botInfo"]["customData"]["number"], 1);
        assert_eq!(
            (&events[1]["language"], &events[1]["origin"]),
            (&json!("de"), &json!("http://shop.example"))
        );
    });
}

#[test]
fn text_is_escaped_and_tasks_end_by_switch() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| (behaviour.escape_html, behaviour.end_of_task) = (true, true));
        let mut link = caller.connect_quietly().await;
        link.say(1, "/echo it's < 5").await;
        link.brief(1).await;
        let frame = link.json().await;
        assert_eq!(frame["message"][0]["component"]["payload"]["text"], "it&#39;s &lt; 5");
        assert_eq!((&frame["endOfTask"], &frame["endReason"]), (&json!(true), &json!("Fulfilled")));
        link.say(2, "Where is my order?").await;
        link.brief(1).await;
        let question = link.json().await;
        assert_eq!((&question["endOfTask"], question.get("endReason")), (&json!(false), None));
        let page = caller.history(&caller.grant().await, "").await.1;
        assert_eq!(page["messages"][1]["components"][0]["data"]["text"], "it's < 5");
    });
}

#[test]
fn history_shows_the_text_of_the_frame() {
    run(async |_sandbox, _script, caller| {
        let mut link = caller.connect_quietly().await;
        for (id, name) in ["payload_plain", "differing", "two", "attachment"].into_iter().enumerate() {
            link.say(id, &format!("/template {name}")).await;
            link.brief(2).await;
        }
        link.send(&json!({
            "id": 9, "clientMessageId": 9, "resourceid": "/bot.message",
            "message": {"body": "/silent", "attachments": [{"fileId": "f-9", "fileName": "a.png", "fileType": "image"}]},
        }))
        .await;
        link.brief(1).await;
        let page = caller.history(&caller.grant().await, "limit=100").await.1;
        let records = page["messages"].as_array().unwrap();
        let text = |n: usize, part: usize| records[n]["components"][part]["data"]["text"].as_str().unwrap();
        assert_eq!((text(1, 0), text(3, 0)), ("You are number 2 in the queue", "Hello "));
        assert_eq!((text(5, 0), text(5, 1)), ("The first of two elements", "The second of two elements"));
        assert_eq!(records[7]["components"][0]["data"]["attachments"][0]["fileName"], "invoice.pdf");
        assert_eq!(
            (&records[8]["type"], &records[8]["attachments"][0]["fileId"]),
            (&json!("incoming"), &json!("f-9"))
        );
    });
}
