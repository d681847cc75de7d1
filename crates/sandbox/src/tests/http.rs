//! Tests of grants, starts and the history, and of their faults.

use super::*;

#[test]
fn grant_has_the_documented_form_on_both_paths() {
    run(async |sandbox, script, caller| {
        let (status, body) = caller.post_grant(&caller.assertion(&json!({}))).await;
        assert_eq!(status, 200);
        assert_eq!(body["authorization"]["token_type"], "bearer");
        assert_eq!(body["userInfo"]["identity"], "cs-sandbox/ann");
        assert!(body["authorization"]["expiresDate"].as_str().unwrap().ends_with('Z'));

        let form = [
            ("assertion", caller.assertion(&json!({}))),
            ("botInfo[chatBot]", "Help".into()),
            ("botInfo[taskBotId]", BOT_ID.into()),
        ];
        let request = caller.http.post(format!("{}/api/oAuth/token/jwtgrant", sandbox.url()));
        assert_eq!(request.send_form(&form).await.unwrap().status(), 200);
        assert_eq!(script.observed("ann").grants, 2);
        sandbox.stop().await;
    });
}

#[test]
fn bad_assertion_is_refused_with_the_documented_text() {
    run(async |_sandbox, script, caller| {
        let (status, body) = caller.post_grant(&caller.assertion(&json!({"iss": "cs-nobody"}))).await;
        assert_eq!(status, 401);
        assert_eq!(body["errors"][0]["code"], 401);
        let once = caller.assertion(&json!({"jti": "only once"}));
        assert_eq!(caller.post_grant(&once).await.0, 200);
        let (status, body) = caller.post_grant(&once).await;
        assert_eq!(status, 401);
        assert_eq!(
            body,
            json!({"errors": [{"msg": "error verifying the jwt: possibly a replay", "code": 401}]})
        );
        assert_eq!(script.totals().grants, 3);
    });
}

#[test]
fn expired_token_is_refused_in_three_spellings() {
    run(async |_sandbox, script, caller| {
        let token = caller.grant().await;
        assert_eq!(caller.post_start(&token).await.0, 200);
        assert_eq!(caller.history(&token, "").await.0, 200);
        script.expire_tokens();
        for (expiry, pointer, value) in [
            (ExpiredTokenStyle::Status, "/errors/0/code", json!(401)),
            (ExpiredTokenStyle::Code, "/errors/0/code", json!("TOKEN_EXPIRED")),
            (ExpiredTokenStyle::Message, "/errors/0/msg", json!("token expired")),
        ] {
            script.behave(|behaviour| behaviour.expired_token = expiry);
            assert_eq!(caller.post_start(&token).await.1.pointer(pointer), Some(&value));
            assert_eq!(caller.history(&token, "").await.1.pointer(pointer), Some(&value));
        }
        let renewed = caller.grant().await;
        assert_eq!(caller.post_start(&renewed).await.0, 200, "a new token is good");
        script.fault_next(Endpoint::Start, 1, Fault::TokenExpired);
        assert_eq!(caller.post_start(&renewed).await.1["errors"][0]["msg"], "token expired");
    });
}

#[test]
fn token_expires_after_its_ttl() {
    let options = SandboxOptions { token_ttl: Duration::ZERO, ..SandboxOptions::default() };
    run_with(options, async |_sandbox, _script, caller| {
        assert_eq!(caller.post_start(&caller.grant().await).await.0, 401);
        assert_eq!(caller.post_start("never given").await.0, 401);
    });
}

#[test]
fn planned_fault_hits_each_endpoint() {
    run(async |sandbox, script, caller| {
        let token = caller.grant().await;
        let grant_url = format!("{}/api/oAuth/token/jwtgrant", sandbox.url());
        let start_url = format!("{}/api/rtm/start", sandbox.url());
        let post = || caller.http.post(&grant_url).send_json(&json!({}));

        script.fault_next(Endpoint::Grant, 1, Fault::RateLimited(RetryAfter::Seconds(7)));
        script.fault_next(Endpoint::Grant, 1, Fault::RateLimited(RetryAfter::Date(Duration::from_mins(1))));
        script.fault_next(Endpoint::Grant, 1, Fault::RateLimited(RetryAfter::Missing));
        let limited = post().await.unwrap();
        assert_eq!(limited.status(), 429);
        assert_eq!(limited.headers().get("retry-after").unwrap(), "7");
        let dated = post().await.unwrap();
        let date = dated.headers().get("retry-after").unwrap().to_str().unwrap();
        let until = httpdate::parse_http_date(date).unwrap();
        assert!(until > std::time::SystemTime::from(clock::after(clock::now(), Duration::from_secs(50))));
        assert!(post().await.unwrap().headers().get("retry-after").is_none());

        script.fault_next(Endpoint::History, 1, Fault::Status(503));
        assert_eq!(caller.history(&token, "").await.0, 503);

        script.fault_next(Endpoint::Start, 1, Fault::Empty);
        assert_eq!(caller.post_start(&token).await, (StatusCode::OK, json!({})));
        let start = || caller.http.post(&start_url).bearer_auth(&token);
        script.fault_next(Endpoint::Start, 1, Fault::Html(502));
        let mut html = start().send().await.unwrap();
        assert_eq!(html.status(), 502);
        assert!(html.body().await.unwrap().starts_with(b"<html>"));

        script.fault_next(Endpoint::Start, 1, Fault::Drop);
        assert!(start().send().await.is_err(), "the connection ends without an answer");
        script.fault(Endpoint::Start, Fault::Hang);
        let waits = start().timeout(Duration::from_millis(50)).send().await;
        assert!(matches!(waits, Err(awc::error::SendRequestError::Timeout)), "{waits:?}");
        script.clear_faults(Endpoint::Start);
        script.fault_next(Endpoint::Start, 1, Fault::Slow(Duration::from_millis(1)));
        assert_eq!(caller.post_start(&token).await.0, 200);
        let error = Fault::Error { status: 400, code: "4002".into(), msg: "Invalid SDK credentials".into() };
        script.fault_next(Endpoint::Start, 1, error);
        assert_eq!(caller.post_start(&token).await.1["errors"][0]["code"], 4002);

        let url = caller.ticket().await;
        script.fault_next(Endpoint::Upgrade, 1, Fault::Status(503));
        assert_eq!(caller.open(&url, &[]).await.err(), Some(503));
        assert!(caller.open(&url, &[]).await.is_ok(), "the ticket was not used up");
    });
}

#[test]
fn history_is_paged_and_delayed() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        script.next(
            "ann",
            vec![
                Step::Ack,
                Step::Say("one".into()),
                Step::OnlyHistory("two".into()),
                Step::Say("three".into()),
            ],
        );
        link.say(1_512_722_848_096_u64, "Hi").await;
        assert_eq!(link.brief(3).await, ["ack", "one", "three"]);
        let token = caller.grant().await;
        let (_, page) = caller.history(&token, "limit=100").await;
        assert_eq!(page["total"], 4);
        assert_eq!(page["moreAvailable"], false);
        let messages = page["messages"].as_array().unwrap();
        assert_eq!(messages[0]["type"], "incoming");
        assert_eq!(messages[0]["userMsgId"], 1_512_722_848_096_u64);
        let texts: Vec<_> = messages.iter().map(|m| m["components"][0]["data"]["text"].clone()).collect();
        assert_eq!(texts, ["Hi", "one", "two", "three"]);

        let first = messages[0]["_id"].as_str().unwrap();
        let (_, forward) = caller.history(&token, &format!("limit=2&forward=true&msgId={first}")).await;
        assert_eq!(forward["moreAvailable"], true);
        assert_eq!(forward["messages"][0]["_id"], messages[1]["_id"]);
        let delivered = script.observed("ann").delivered;
        assert_eq!(delivered[0].message_id, messages[1]["_id"].as_str().unwrap());
        assert!(delivered[1].sockets.is_empty());

        script.behave(|behaviour| {
            behaviour.history_limit = 1;
            behaviour.history_delay = Duration::from_hours(1);
        });
        script.push("ann", vec![Step::Say("four".into())]);
        assert_eq!(link.brief(1).await, ["four"]);
        let (_, page) = caller.history(&token, "limit=100").await;
        assert_eq!((&page["total"], page["messages"].as_array().unwrap().len()), (&json!(4), 1));
        assert_eq!(script.observed("ann").history_reads, 3);
    });
}

#[test]
fn help_page_is_served_and_push_delivers() {
    run(async |sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        script.connected("ann", 1).await;
        let mut page = caller.http.get(sandbox.url()).send().await.unwrap();
        let page = String::from_utf8(page.body().await.unwrap().to_vec()).unwrap();
        assert!(page.contains("/several N"), "{page}");
        assert!(!page.contains(CLIENT_SECRET));
        let push = || caller.http.post(format!("{}/sandbox/push", sandbox.url()));
        let mut pushed = push().send_body(r#"{"user": "ann", "text": "Ding dong"}"#).await.unwrap();
        assert_eq!(pushed.json::<Value>().await.unwrap(), json!({"sockets": 1}));
        assert_eq!(link.brief(1).await, ["Ding dong"]);
        assert_eq!(push().send_body("{}").await.unwrap().status(), 400);
    });
}
