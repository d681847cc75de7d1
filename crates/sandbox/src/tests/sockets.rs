//! Tests of tickets, handshakes, closes and limits.

use super::*;

#[test]
fn ticket_works_once_and_until_its_ttl() {
    run(async |sandbox, script, caller| {
        let url = caller.ticket().await;
        let first = caller.open(&url, &[]).await;
        assert!(first.is_ok());
        assert_eq!(caller.open(&url, &[]).await.err(), Some(401), "used");
        let unknown = format!("ws://{}/rtm/bot?sid=unknown", sandbox.address());
        script.behave(|behaviour| behaviour.stale_sid = StaleSid::Refuse(404));
        assert_eq!(caller.open(&unknown, &[]).await.err(), Some(404));
        script.behave(|behaviour| behaviour.stale_sid = StaleSid::OpenAndClose(1011));
        assert_eq!(caller.open(&unknown, &[]).await.unwrap().end().await, End::Close(Some(1011)));

        script.behave(|behaviour| behaviour.sid_single_use = false);
        let url = caller.ticket().await;
        assert!(caller.open(&url, &[]).await.is_ok());
        assert!(caller.open(&url, &[]).await.is_ok());
        script.behave(|behaviour| {
            behaviour.sid_ttl = Duration::ZERO;
            behaviour.stale_sid = StaleSid::Refuse(410);
        });
        let made = clock::now();
        while clock::now() == made {
            tokio::task::yield_now().await;
        }
        assert_eq!(caller.open(&url, &[]).await.err(), Some(410), "too old");

        script.behave(|behaviour| behaviour.url_base = Some("ws://dummy.com:80".into()));
        assert!(caller.ticket().await.starts_with("ws://dummy.com:80/rtm/bot?sid="));
    });
}

#[test]
fn secure_handshake_needs_three_subprotocols() {
    run(async |sandbox, script, caller| {
        let assertion = caller.assertion(&json!({}));
        let token = caller.post_grant(&assertion).await.1["authorization"]["accessToken"].clone();
        let start = async || {
            let request = caller.http.post(format!("{}/api/rtm/start", sandbox.url()));
            let request = request.bearer_auth(token.as_str().unwrap()).insert_header(("x-rtm-v", "1"));
            let body: Value = request.send().await.unwrap().json().await.unwrap();
            (
                body["url"].as_str().unwrap().to_owned(),
                format!("nonce|{}", body["nonce"].as_str().unwrap_or_default()),
            )
        };
        let jwt = format!("jwt|{assertion}");
        for (secure, selected) in [
            (SecureHandshake::Version, Some("x-rtm-v|1")),
            (SecureHandshake::Jwt, Some(jwt.as_str())),
            (SecureHandshake::Silent, None),
        ] {
            script.behave(|behaviour| behaviour.secure_handshake = secure);
            let (url, nonce) = start().await;
            let link = caller.open(&url, &["x-rtm-v|1", &jwt, &nonce]).await.unwrap();
            assert_eq!(link.protocol.as_deref(), selected);
        }
        // A valid assertion passes if it names the same user.
        let later = format!("jwt|{}", caller.assertion(&json!({"aud": "later"})));
        let (url, nonce) = start().await;
        assert!(caller.open(&url, &["x-rtm-v|1", &later, &nonce]).await.is_ok());
        let others = format!("jwt|{}", caller.assertion(&json!({"sub": "bob"})));
        let (url, nonce) = start().await;
        assert_eq!(caller.open(&url, &["x-rtm-v|1", &others, &nonce]).await.err(), Some(403));
        let (url, _) = start().await;
        assert_eq!(caller.open(&url, &[]).await.err(), Some(403));
        let (url, _) = start().await;
        assert_eq!(caller.open(&url, &["x-rtm-v|1", &jwt, "nonce|wrong"]).await.err(), Some(403));
        script.behave(|behaviour| behaviour.secure_handshake = SecureHandshake::Refuse);
        let (url, nonce) = start().await;
        assert_eq!(caller.open(&url, &["x-rtm-v|1", &jwt, &nonce]).await.err(), Some(403));
        script.behave(|behaviour| behaviour.secure_handshake = SecureHandshake::Unsupported);
        let (url, nonce) = start().await;
        assert_eq!(nonce, "nonce|", "an old platform gives none");
        assert!(caller.open(&url, &[]).await.is_ok());
    });
}

#[test]
fn socket_ending_is_recorded_with_its_reason() {
    run(async |_sandbox, script, caller| {
        let mut count = 0;
        for (step, end, how) in [
            (Step::Close(1011), End::Close(Some(1011)), SocketEnd::ByPlatform(Some(1011))),
            (Step::CloseWithoutCode, End::Close(None), SocketEnd::ByPlatform(None)),
            (Step::Drop(CutMode::Fin), End::Gone, SocketEnd::Cut),
            (Step::Drop(CutMode::Reset), End::Gone, SocketEnd::Cut),
        ] {
            let mut link = caller.connect_quietly().await;
            script.next("ann", vec![step]);
            link.say(1, "Hi").await;
            assert_eq!(link.end().await, end);
            count += 1;
            let closes = script.closed("ann", count).await.closes;
            assert_eq!(closes[count - 1].ending, how);
        }
        let mut link = caller.connect_quietly().await;
        let reason = CloseReason { code: CloseCode::Away, description: None };
        link.frames.send(Message::Close(Some(reason))).await.unwrap();
        assert_eq!(link.end().await, End::Close(Some(1001)), "a close is answered");
        let closes = script.closed("ann", 5).await.closes;
        assert_eq!(closes[4].ending, SocketEnd::ByClient(Some(1001)));
        drop(caller.connect_quietly().await);
        assert_eq!(script.closed("ann", 6).await.closes[5].ending, SocketEnd::Lost);
        script.wait_until(|script| script.totals().open_sockets == 0).await;
    });
}

#[test]
fn ack_is_sent_before_the_connection_drops() {
    run(async |_sandbox, _script, caller| {
        let mut link = caller.connect_quietly().await;
        link.say(1, "/drop you missed this").await;
        assert_eq!(link.brief(1).await, ["ack"]);
        assert_eq!(link.frame().await.err(), Some(End::Gone));
        let (_, page) = caller.history(&caller.grant().await, "").await;
        assert_eq!(page["messages"][1]["components"][0]["data"]["text"], "you missed this");
    });
}

#[test]
fn reset_cut_resets_the_connection() {
    use tokio::io::AsyncReadExt as _;

    run(async |sandbox, script, caller| {
        script.next_connect("ann", Vec::new());
        let url = caller.ticket().await;
        let path = url.split_once("/rtm").unwrap().1;
        let mut raw = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
        let request = format!(
            "GET /rtm{path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
        );
        tokio::io::AsyncWriteExt::write_all(&mut raw, request.as_bytes()).await.unwrap();
        script.connected("ann", 1).await;
        let mut buffer = [0; 4096];
        assert!(raw.read(&mut buffer).await.unwrap() > 0, "101");
        script.drop_sockets("ann", CutMode::Reset);
        let end = raw.read(&mut buffer).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn hung_socket_answers_no_frame() {
    run(async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        script.next("ann", vec![Step::Hang, Step::OnlyHistory("hung".into())]);
        link.say(1, "Hi").await;
        script.delivered("ann", 1).await;
        link.send(&json!({"type": "ping"})).await;
        script.push("ann", vec![Step::Say("unheard".into())]);
        script.delivered("ann", 2).await;
        script.drop_sockets("ann", CutMode::Fin);
        assert_eq!(link.frame().await.err(), Some(End::Gone), "neither pong nor text");
        let observed = script.closed("ann", 1).await;
        assert_eq!((observed.pings, observed.closes[0].ending), (0, SocketEnd::Cut));
    });
}

#[tokio::test]
async fn sandbox_runs_on_a_plain_tokio_runtime() {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let mut raw = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut raw, request).await.unwrap();
    let mut page = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut raw, &mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    sandbox.stop().await;
}

#[test]
fn stopped_sandbox_drops_its_sockets_and_port() {
    run(async |sandbox, _script, caller| {
        let address = sandbox.address();
        let mut link = caller.connect_quietly().await;
        sandbox.stop().await;
        assert_eq!(link.end().await, End::Gone);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn exceeded_limit_closes_with_its_code() {
    let options = SandboxOptions { rate_per_minute: 2, payload_limit: 20_000, ..SandboxOptions::default() };
    run_with(options, async |sandbox, script, caller| {
        script.bot(|_, heard| Step::reply(heard.text.len().to_string()));
        let mut link = caller.connect_quietly().await;
        link.say(1, &"x".repeat(18_000)).await;
        assert_eq!(link.brief(2).await, ["ack", "18000"]);
        link.say(2, "two").await;
        assert_eq!(link.brief(2).await, ["ack", "3"]);
        link.say(3, "three").await;
        assert_eq!(link.end().await, End::Close(Some(1008)));
        assert_eq!(script.observed("ann").messages.count(), 2);

        let bob = Caller::of(&sandbox, "bob");
        let mut link = bob.connect_quietly().await;
        link.say(1, &"x".repeat(20_000)).await;
        assert_eq!(link.end().await, End::Close(Some(1009)), "in one frame");
        let mut link = bob.connect_quietly().await;
        for item in [Item::FirstText(vec![b'x'; 15_000].into()), Item::Last(vec![b'x'; 15_000].into())] {
            link.frames.send(Message::Continuation(item)).await.unwrap();
        }
        assert_eq!(link.end().await, End::Close(Some(1009)), "in fragments");
        let mut link = bob.connect_quietly().await;
        link.frames.send(Message::Binary(vec![0xff, 0xfe].into())).await.unwrap();
        assert_eq!(link.end().await, End::Close(Some(1007)));
    });
}

#[test]
fn fragments_and_binary_frames_are_accepted() {
    run(async |_sandbox, script, caller| {
        script.bot(|_, heard| Step::reply(heard.text.clone()));
        let mut link = caller.connect_quietly().await;
        let frame = |id: u32, text: &str| {
            json!({"id": id, "resourceid": "/bot.message", "message": {"body": text}}).to_string()
        };
        link.frames.send(Message::Binary(frame(1, "binary").into_bytes().into())).await.unwrap();
        assert_eq!(link.brief(2).await, ["ack", "binary"]);
        let long = "ä".repeat(20_000);
        let bytes = frame(2, &long).into_bytes();
        let (first, last) = bytes.split_at(16_385);
        for item in [Item::FirstText(first.to_vec().into()), Item::Last(last.to_vec().into())] {
            link.frames.send(Message::Continuation(item)).await.unwrap();
        }
        assert_eq!(link.brief(2).await, ["ack", long.as_str()]);
    });
}

#[test]
fn idle_socket_and_session_end() {
    let options = SandboxOptions {
        idle_timeout: Some(Duration::from_millis(120)),
        session_timeout: Some(Duration::from_millis(30)),
        behaviour: Behaviour { closing_message: Some("Still there?".into()), ..Behaviour::default() },
        ..SandboxOptions::default()
    };
    run_with(options, async |_sandbox, _script, caller| {
        let mut link = caller.connect("").await;
        assert_eq!(link.brief(2).await, ["bot_active", "session_start"]);
        assert!(link.brief(1).await[0].starts_with("Hello!"));
        assert_eq!(link.brief(2).await, ["Still there?", "session_end"]);
        assert_eq!(link.end().await, End::Close(None));
    });
}
