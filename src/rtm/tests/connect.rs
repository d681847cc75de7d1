use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json as value;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{NOW, ScriptedAnswer, ScriptedPlatform, bot, granted, json, run_paused, user};
use crate::config::{AssertionServiceConfig, BotConfig};
use crate::domain::{UserDetails, UserId, UserProfile};
use crate::metrics::{ClockDifference, LabelSets, Metrics};
use crate::rtm::{
    CallError, ConnectContext, ConnectError, ConnectMode, Grant, HistoryStart, PlatformConnector,
    PlatformSocket, RetryAdvice, SocketEvent,
};
use crate::runtime::fixtures::{DeadAddress, run};
use crate::tcp::fixtures::{assert_passes_firewall, resolver};
use crate::tls::fixtures::server_tls;
use crate::wall_clock;

const GRANT: &str = "/oAuth/token/jwtgrant";
const START: &str = "/rtm/start";
const SOCKET: &str = "/rtm/bot";
const HISTORY: &str = "/botmessages/rtm";

fn clock() -> ClockDifference {
    let words = LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
    Metrics::new(words).unwrap().clocks.platform
}

fn connector(bot: &BotConfig) -> PlatformConnector {
    PlatformConnector::new(&[Arc::new(bot.clone())], clock()).unwrap()
}

async fn connect(bot: &BotConfig, grant: &mut Option<Grant>) -> Result<PlatformSocket, ConnectError> {
    connector(bot).connect(bot, &user(), ConnectMode::Default, &Rc::default(), grant, NOW).await
}

async fn refused(bot: &BotConfig) -> ConnectError {
    match connect(bot, &mut None).await {
        Err(error) => error,
        Ok(_) => panic!("it connected"),
    }
}

#[test]
fn connect_sends_the_documented_requests() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let mut grant = None;
        connect(&platform.bot(), &mut grant).await.unwrap();

        let [asked] = &platform.seen(GRANT)[..] else { panic!() };
        assert_eq!(asked.line, "POST /api/1.1/oAuth/token/jwtgrant");
        assert_eq!(asked.header("content-type"), Some("application/json"));
        assert_eq!(asked.header("authorization"), None);
        let body = asked.json();
        assert_eq!(body["botInfo"], value!({"chatBot": "Help Bot", "taskBotId": "st-0d3f"}));
        assert_eq!(body["assertion"].as_str().unwrap().split('.').count(), 3);

        let [started] = &platform.seen(START)[..] else { panic!() };
        assert_eq!(started.header("authorization"), Some("bearer token-1"));
        assert_eq!(started.header("x-rtm-v"), None);
        assert_eq!(
            started.json(),
            value!({"botInfo": {"chatBot": "Help Bot", "taskBotId": "st-0d3f"}, "token": {}})
        );

        let [opened] = &platform.seen(SOCKET)[..] else { panic!() };
        assert_eq!(opened.line, "GET /rtm/bot?sid=once&ConnectionMode=Default");
        assert_eq!(opened.header("sec-websocket-protocol"), None);
        assert!(!format!("{grant:?}").contains("token-1"));
    });
}

#[test]
fn requests_pass_a_firewall() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let port = platform.address.port();
        let mut bot = bot(&format!("http://platform.example:{port}"));
        bot.secure_rtm = true;
        let addresses = [platform.address.ip()];
        let connector =
            PlatformConnector::resolving(&[Arc::new(bot.clone())], clock(), &resolver(&addresses));
        let ticket = format!(r#"{{"url":"ws://platform.example:{port}/rtm/bot?sid=once","nonce":"n-7"}}"#);
        platform.answers(START, ScriptedAnswer::Http("200 OK", ticket));
        let (connector, mut grant) = (connector.unwrap(), None);
        connector
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut grant, NOW)
            .await
            .unwrap();
        for page in [HistoryStart::Newest(10), HistoryStart::After("ms-1 &x")] {
            connector.fetch_history_page(&bot, &user(), &Rc::default(), &mut grant, page, NOW).await.unwrap();
        }
        for (path, count) in [(GRANT, 1), (START, 1), (SOCKET, 1), (HISTORY, 2)] {
            let seen = platform.seen(path);
            assert_eq!(seen.len(), count, "{path}");
            for request in seen {
                assert_passes_firewall(&request.line, &request.head, &request.body);
            }
        }
    });
}

#[test]
fn grant_is_reused_until_shortly_before_expiry() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = platform.bot();
        // NOW is 2026-11-18T11:06:40.987Z, so an hour's life has the full margin of a minute.
        platform.answers(GRANT, json("200 OK", &granted("short", "2026-11-18T12:06:40.987Z")));
        let connector = connector(&bot);
        let mut grant = None;
        for (later, grants) in [(0, 1), (3539, 1), (3540, 2), (3541, 2)] {
            let now = NOW + Duration::from_secs(later);
            connector
                .connect(&bot, &user(), ConnectMode::Reconnect, &Rc::default(), &mut grant, now)
                .await
                .unwrap();
            assert_eq!(platform.seen(GRANT).len(), grants, "after {later} s");
        }
        assert_eq!(platform.seen(START).last().unwrap().header("authorization"), Some("bearer token-1"));
        // A short life has a margin of a tenth. A grant without expiry lasts until a refusal.
        platform.answers(GRANT, json("200 OK", &granted("shorter", "2026-11-18T11:06:50.987Z")));
        let mut grant = None;
        connector
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut grant, NOW)
            .await
            .unwrap();
        let grant = grant.unwrap();
        assert!(
            grant.is_usable(NOW + Duration::from_millis(8999))
                && !grant.is_usable(NOW + Duration::from_secs(9))
        );
        platform.answers(GRANT, json("200 OK", r#"{"authorization":{"accessToken":"for ever"}}"#));
        let forever = r#"{"authorization":{"accessToken":"forever","expiresDate":1795000000}}"#;
        platform.answers(GRANT, json("200 OK", forever));
        let mut grant = None;
        let error = connector
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut grant, NOW)
            .await
            .err()
            .unwrap();
        assert_eq!(
            (error.phase(), error.retry()),
            ("grant", RetryAdvice::Backoff(None)),
            "no header holds a space"
        );
        connector
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut grant, NOW)
            .await
            .unwrap();
        assert!(grant.unwrap().is_usable(NOW + Duration::from_hours(100_000)));
    });
}

#[test]
fn expired_token_is_renewed_once_with_a_new_jwt() {
    run(async {
        let expired = || json("401 Unauthorized", r#"{"errors":[{"msg":"token expired","code":401}]}"#);
        let platform = ScriptedPlatform::start().await;
        let mut grant = None;
        connect(&platform.bot(), &mut grant).await.unwrap();
        platform.answers(GRANT, json("200 OK", &granted("token-2", "2027-01-01T00:00:00Z")));
        platform.answers(START, expired());
        let connector = connector(&platform.bot());
        let later = NOW + Duration::from_secs(5);
        connector
            .connect(&platform.bot(), &user(), ConnectMode::Default, &Rc::default(), &mut grant, later)
            .await
            .unwrap();
        let grants = platform.seen(GRANT);
        assert_eq!(grants.len(), 2);
        assert_ne!(grants[0].json()["assertion"], grants[1].json()["assertion"]);
        assert_eq!(platform.seen(START).last().unwrap().header("authorization"), Some("bearer token-2"));

        platform.answers(START, expired());
        platform
            .answers(START, json("400 Bad Request", r#"{"errors":[{"msg":"no","code":"TOKEN_EXPIRED"}]}"#));
        let error = connector
            .connect(&platform.bot(), &user(), ConnectMode::Default, &Rc::default(), &mut grant, later)
            .await
            .err()
            .unwrap();
        assert!(matches!(error, ConnectError::TokenExpired { .. }) && error.phase() == "start");
        assert!(grant.is_none(), "the next connect begins with a grant");
        assert_eq!(platform.seen(GRANT).len(), 3);
    });
}

#[test]
fn refused_jwt_is_final_and_its_message_masked() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
        let body = format!(
            r#"{{"errors":[{{"msg":"error verifying the jwt: {jwt} {}","code":401}}]}}"#,
            "x ".repeat(400)
        );
        platform.answers(GRANT, ScriptedAnswer::Http("401 Unauthorized", body));
        let error = refused(&platform.bot()).await;
        assert_eq!((error.phase(), error.retry()), ("grant", RetryAdvice::Never));
        assert!(
            error.public_message().starts_with("the platform answered 401: error verifying the jwt: … x x")
        );
        assert_eq!(error.public_message().chars().count(), 300);
        assert!(!format!("{error} {error:?}").contains("eyJ"));
        assert_eq!(platform.seen(GRANT).len(), 1);
    });
}

#[test]
fn unusable_answers_are_retried_with_backoff() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        for (path, answer) in [
            (GRANT, json("500 Oops", "<html>token</html>")),
            (GRANT, json("200 OK", "<html></html>")),
            (GRANT, json("200 OK", r#"{"authorization":{}}"#)),
            (GRANT, json("404 Not Found", "<html>no route</html>")),
            (START, json("503 Busy", "")),
            (START, json("403 Forbidden", "<html>no route</html>")),
            (START, json("200 OK", "{}")),
            (START, json("200 OK", "<html></html>")),
            (START, json("200 OK", r#"{"url":"nowhere"}"#)),
            (START, ScriptedAnswer::Cut),
            (START, ScriptedAnswer::Http("200 OK", "x".repeat(300 * 1024))),
            (SOCKET, json("401 Unauthorized", "")),
            (SOCKET, json("404 Not Found", "")),
            (SOCKET, json("502 Bad Gateway", "")),
            (SOCKET, json("200 OK", "")),
            (SOCKET, ScriptedAnswer::Cut),
        ] {
            platform.answers(path, answer);
            let error = refused(&platform.bot()).await;
            assert_eq!(error.retry(), RetryAdvice::Backoff(None), "{error:?}");
            let phase = if path == GRANT {
                "grant"
            } else if path == START {
                "start"
            } else {
                "socket"
            };
            assert_eq!(error.phase(), phase, "{error:?}");
            assert!(!error.public_message().contains("html") && !error.public_message().is_empty());
        }
        // A ticket is never used twice.
        assert_eq!(platform.seen(SOCKET).len(), 5);
        assert_eq!(platform.seen(START).len(), 12);
    });
}

#[test]
fn status_429_passes_retry_after_on() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        platform.answers(START, json("429 Too Many Requests\r\nretry-after: 7", ""));
        assert_eq!(
            refused(&platform.bot()).await.retry(),
            RetryAdvice::Backoff(Some(Duration::from_secs(7)))
        );
    });
}

#[test]
fn platform_clock_is_compared_at_every_answer() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let clock = clock();
        let connector = PlatformConnector::new(&[Arc::new(platform.bot())], clock.clone()).unwrap();
        let dated = |off: i64, more: &str| -> &'static str {
            let seconds = (wall_clock::now().as_millis() / 1000).saturating_add_signed(off);
            let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
            format!("200 OK\r\ndate: {date}{more}").leak()
        };
        let history = async |answer| {
            platform.answers(HISTORY, json(answer, r#"{"messages":[]}"#));
            let mut grant = None;
            connector
                .fetch_history_page(&platform.bot(), &user(), &Rc::default(), &mut grant, None, NOW)
                .await
                .unwrap();
            clock.seconds()
        };
        assert_eq!(history("200 OK").await, None);
        assert_eq!(history(dated(0, "")).await, Some(0.0));
        let ahead = history(dated(65, "")).await.unwrap();
        assert!((60.0..=65.0).contains(&ahead), "{ahead}");
        let ahead = history(dated(-360, "\r\nage: 300")).await.unwrap();
        assert!(ahead > 0.0, "{ahead}: the answer of a cache is old");
        let ahead = history(dated(-360, "")).await.unwrap();
        assert!((-360.0..-355.0).contains(&ahead), "{ahead}");
    });
}

#[test]
fn redirects_are_not_followed() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let other = ScriptedPlatform::start().await;
        for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
            for path in [GRANT, START] {
                let status: &'static str =
                    format!("{status}\r\nlocation: http://localhost:{}/x?a=b", other.address.port()).leak();
                platform.answers(path, json(status, ""));
                let error = refused(&platform.bot()).await;
                assert_eq!(error.retry(), RetryAdvice::Backoff(None));
                assert!(
                    error.public_message().contains("redirects to localhost (3"),
                    "{}",
                    error.public_message()
                );
            }
        }
        assert!(other.seen.borrow().is_empty(), "nothing was reposted");
    });
}

#[test]
fn refused_connection_is_retried_with_backoff() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bot = bot(&format!("http://{}", listener.local_addr().unwrap()));
        drop(listener);
        let error = refused(&bot).await;
        assert!(
            matches!(error, ConnectError::Unreachable { error: CallError::Connection(_), .. }),
            "{error:?}"
        );
        assert_eq!(error.retry(), RetryAdvice::Backoff(None));
    });
}

#[test]
fn each_phase_times_out() {
    run_paused(async {
        let platform = ScriptedPlatform::start().await;
        for (path, phase) in [(GRANT, "grant"), (START, "start"), (SOCKET, "socket")] {
            platform.answers(path, ScriptedAnswer::Hang);
            let error = refused(&platform.bot()).await;
            assert!(
                matches!(error, ConnectError::Unreachable { error: CallError::Timeout, .. }),
                "{error:?}"
            );
            assert_eq!(error.phase(), phase);
        }
        // TLS against a server that accepts and stays silent.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bot = bot(&format!("https://localhost:{}", listener.local_addr().unwrap().port()));
        let error = refused(&bot).await;
        assert!(matches!(error, ConnectError::Unreachable { error: CallError::Timeout, .. }), "{error:?}");
    });
}

#[test]
fn calls_pass_beside_more_than_100_sockets() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = platform.bot();
        let connector = connector(&bot);
        let mut grant = None;
        let mut sockets = Vec::new();
        for _ in 0..130 {
            let mode = ConnectMode::Reconnect;
            sockets
                .push(connector.connect(&bot, &user(), mode, &Rc::default(), &mut grant, NOW).await.unwrap());
        }
        connector
            .fetch_history_page(&bot, &user(), &Rc::default(), &mut grant, Some("ms-1"), NOW)
            .await
            .unwrap();
        // No socket is pooled: a dropped socket is a cut connection.
        drop(sockets);
        while *platform.hung_up.borrow() < 130 {
            platform.bell.notified().await;
        }
    });
}

#[test]
fn simultaneous_calls_are_bounded_and_succeed() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = platform.bot();
        let connector = connector(&bot);
        let calls = (0..200).map(async |_| {
            connector
                .fetch_history_page(&bot, &user(), &Rc::default(), &mut None, HistoryStart::Newest(0), NOW)
                .await
                .unwrap()
        });
        futures_util::future::join_all(calls).await;
        assert_eq!(platform.seen(HISTORY).len(), 200);
        assert!(platform.connections.get() <= 64, "{}", platform.connections.get());
    });
}

#[test]
fn frames_in_the_segment_of_the_101_are_kept() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        platform.answers(SOCKET, ScriptedAnswer::Upgrade(b"\x81\x05hello\x81\x02hi\x81\x04ha".to_vec()));
        let mut socket = connect(&platform.bot(), &mut None).await.unwrap();
        assert!(matches!(socket.next().await, SocketEvent::Frame(bytes) if bytes == "hello"));
        assert!(matches!(socket.next().await, SocketEvent::Frame(bytes) if bytes == "hi"));
    });
}

#[test]
fn secure_handshake_offers_three_subprotocols_in_one_header() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let mut bot = platform.bot();
        bot.secure_rtm = true;
        let ticket = |nonce: &str| {
            let url = format!("ws://{}/rtm/bot?sid=1", platform.address);
            ScriptedAnswer::Http("200 OK", value!({"url": url, "nonce": nonce}).to_string())
        };
        platform.answers(START, ticket("n-7"));
        connect(&bot, &mut None).await.unwrap();
        assert_eq!(platform.seen(START)[0].header("x-rtm-v"), Some("1"));
        let opened = &platform.seen(SOCKET)[0];
        let offers =
            opened.head.lines().filter(|line| line.to_lowercase().starts_with("sec-websocket-protocol"));
        assert_eq!(offers.count(), 1);
        let offer: Vec<_> = opened.header("sec-websocket-protocol").unwrap().split(", ").collect();
        assert_eq!((offer[0], offer[2]), ("x-rtm-v|1", "nonce|n-7"));
        assert_eq!(offer[1].strip_prefix("jwt|").unwrap().split('.').count(), 3);

        // An unsafe nonce is not sent. Without a nonce the handshake is the classic one.
        platform.answers(START, ticket("a\r\nb: c"));
        assert_eq!(refused(&bot).await.retry(), RetryAdvice::Backoff(None));
        connect(&bot, &mut None).await.unwrap();
        assert_eq!(platform.seen(SOCKET).last().unwrap().header("sec-websocket-protocol"), None);
    });
}

#[test]
fn history_is_fetched_page_by_page() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = platform.bot();
        let connector = connector(&bot);
        let mut grant = None;
        platform.answers(HISTORY, json("401 Unauthorized", ""));
        let after = Some("ms-1 &x");
        let body = connector
            .fetch_history_page(&bot, &user(), &Rc::default(), &mut grant, after, NOW)
            .await
            .unwrap();
        assert_eq!(body, r#"{"messages":[]}"#);
        connector
            .fetch_history_page(&bot, &user(), &Rc::default(), &mut grant, HistoryStart::Newest(20), NOW)
            .await
            .unwrap();
        let lines: Vec<_> = platform.seen(HISTORY).iter().map(|seen| seen.line.clone()).collect();
        let forward = "GET /api/1.1/botmessages/rtm?botId=st-0d3f&limit=10&forward=true&msgId=ms-1+%26x";
        assert_eq!(
            lines,
            [forward, forward, "GET /api/1.1/botmessages/rtm?botId=st-0d3f&limit=10&offset=20"]
        );
        assert_eq!(platform.seen(GRANT).len(), 2, "a 401 here renews the token too");
        platform.answers(HISTORY, json("404 Not Found", r#"{"errors":[{"msg":"no history","code":404}]}"#));
        let error = connector
            .fetch_history_page(&bot, &user(), &Rc::default(), &mut grant, after, NOW)
            .await
            .unwrap_err();
        assert_eq!((error.phase(), error.retry()), ("history", RetryAdvice::Never));
    });
}

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/fixtures/tls.pem");

const KEY: &[u8] = include_bytes!("../../../tests/fixtures/tls.key.pem");

#[test]
fn tls_checks_the_certificate_and_avoids_h2() {
    run(async {
        let platform = ScriptedPlatform::start_with(Some(server_tls(CERTIFICATE, KEY))).await;
        let bot = platform.bot();
        let other = BotConfig { name: crate::domain::BotName::new("other").unwrap(), ..bot.clone() };
        let own = BotConfig { ca: Some(CERTIFICATE.into()), ..bot.clone() };
        let connector = PlatformConnector::new(&[Arc::new(own), Arc::new(other.clone())], clock()).unwrap();
        let mut socket = connector
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut None, NOW)
            .await
            .unwrap();
        socket.send("over TLS").await.unwrap();
        socket.close(1000).await;
        while *platform.hung_up.borrow() == 0 {
            platform.bell.notified().await;
        }

        // The authorities of one bot do not count for another.
        let apart =
            connector.connect(&other, &user(), ConnectMode::Default, &Rc::default(), &mut None, NOW).await;
        assert!(matches!(apart, Err(ConnectError::Unreachable { error: CallError::Tls(_), .. })));
        let error = refused(&bot).await;
        assert!(matches!(error, ConnectError::Unreachable { error: CallError::Tls(_), .. }), "{error:?}");
        assert_eq!(error.retry(), RetryAdvice::Backoff(None));
    });
}

#[test]
fn name_with_a_dead_first_address_is_reached_by_the_next() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let port = platform.address.port();
        let dead = DeadAddress::new(2, port);
        let bot = bot(&format!("http://platform.example:{port}"));
        let addresses = [dead.address.ip(), platform.address.ip()];
        let connector =
            PlatformConnector::resolving(&[Arc::new(bot.clone())], clock(), &resolver(&addresses)).unwrap();
        let ticket = format!(r#"{{"url":"ws://platform.example:{port}/rtm/bot?sid=once"}}"#);
        platform.answers(START, ScriptedAnswer::Http("200 OK", ticket));
        let mut grant = None;
        let began = Instant::now();
        connector
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut grant, NOW)
            .await
            .unwrap();
        connector.fetch_history_page(&bot, &user(), &Rc::default(), &mut grant, None, NOW).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "the dead address used up a timeout");
        for path in [GRANT, START, SOCKET, HISTORY] {
            assert_eq!(platform.seen(path).len(), 1, "{path}");
        }
    });
}

#[test]
fn invalid_ca_file_names_its_bot() {
    let ca = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bot = BotConfig { ca: Some(ca.into()), ..bot("https://bots.example") };
    let error = PlatformConnector::new(&[Arc::new(bot)], clock()).err().unwrap();
    assert!(error.to_string().starts_with("bot support: ca_file"), "{error}");
}

#[test]
fn invalid_key_names_its_bot() {
    let mut bot = bot("https://bots.example");
    bot.client_secret = "".into();
    let error = PlatformConnector::new(&[Arc::new(bot)], clock()).err().unwrap();
    assert_eq!(error.to_string(), "bot support: the client secret is empty");
}

fn context(data: &str) -> Rc<ConnectContext> {
    let custom_data = Some(serde_json::from_str(data).unwrap());
    Rc::new(ConnectContext { custom_data, ..ConnectContext::default() })
}

#[test]
fn grant_and_start_carry_the_context() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let mut bot = platform.bot();
        bot.custom_data = Some(serde_json::from_str(r#"{"from":"bridge"}"#).unwrap());
        let (connector, mut grant) = (connector(&bot), None);
        let mut connect = async |context: &Rc<ConnectContext>| {
            let mode = ConnectMode::StartNew;
            connector.connect(&bot, &user(), mode, context, &mut grant, NOW).await.unwrap();
        };
        let tagged = ConnectContext {
            meta_tags: Some(serde_json::from_str(r#"{"userLevelTags":[]}"#).unwrap()),
            ..(*context(r#"{"tier":"gold"}"#)).clone()
        };
        connect(&Rc::new(tagged)).await;
        let expected = value!({
            "chatBot": "Help Bot", "taskBotId": "st-0d3f", "customData": {"from": "bridge", "tier": "gold"},
            "metaTags": {"userLevelTags": []},
        });
        for path in [GRANT, START] {
            assert_eq!(platform.seen(path)[0].json()["botInfo"], expected, "{path}");
        }
        connect(&context(r#"{"tier":"gold"}"#)).await;
        assert_eq!(platform.seen(GRANT).len(), 2, "the tags differ");
        connect(&context(r#"{"tier":"gold"}"#)).await;
        assert_eq!((platform.seen(GRANT).len(), platform.seen(START).len()), (2, 3), "the grant serves");
        connect(&Rc::default()).await;
        let plain = value!({"chatBot": "Help Bot", "taskBotId": "st-0d3f", "customData": {"from": "bridge"}});
        assert_eq!(platform.seen(GRANT)[2].json()["botInfo"], plain);
        assert_eq!(platform.seen(START)[3].json()["botInfo"], plain);
    });
}

#[test]
fn details_of_the_user_need_a_new_grant_and_merge_once() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = platform.bot();
        let (connector, mut grant) = (connector(&bot), None);
        let mut grants = async |name: Option<&str>, merge: Option<&str>| {
            let profile = UserProfile { first_name: name.map(Into::into), last_name: None };
            let merge_with = merge.map(|user| UserId::new(user).unwrap());
            let details = UserDetails { profile, merge_with };
            let context = Rc::new(ConnectContext { details, ..ConnectContext::default() });
            let mode = ConnectMode::Default;
            connector.connect(&bot, &user(), mode, &context, &mut grant, NOW).await.unwrap();
            platform.seen(GRANT).len()
        };
        assert_eq!(grants(None, None).await, 1);
        assert_eq!(grants(Some("Zoë"), None).await, 2);
        assert_eq!(grants(Some("Zoë"), Some("visitor")).await, 3);
        assert_eq!(grants(Some("Zoë"), None).await, 3, "it is merged already");
        assert_eq!(grants(Some("Zoë"), Some("guest")).await, 4);
        assert_eq!(grants(None, None).await, 5);
    });
}

const SERVICE: &str = "/users/sts";

/// Returns a bot whose owner runs the assertion service, without a secret of its own.
fn served(platform: &ScriptedPlatform) -> BotConfig {
    let url = format!("{}/users/sts?app=1", platform.url()).parse().unwrap();
    let service = AssertionServiceConfig { url, bearer_token: Some("hush".into()) };
    BotConfig { client_secret: "".into(), assertion_service: Some(service), ..platform.bot() }
}

#[test]
fn assertion_service_makes_each_assertion() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = BotConfig { secure_rtm: true, ..served(&platform) };
        platform.answers(SERVICE, json("200 OK", r#"{"jwt":"a.b.c"}"#));
        platform.answers(SERVICE, json("201 Created", r#"{"jwt":"d.e.f"}"#));
        let url = format!("{}/rtm/bot?sid=1", platform.url().replace("http", "ws"));
        platform.answers(START, json("200 OK", &format!(r#"{{"url":"{url}","nonce":"n"}}"#)));
        let details = UserDetails {
            profile: UserProfile { first_name: Some("Zoë".into()), last_name: Some("Ruiz".into()) },
            merge_with: UserId::new("visitor").ok(),
        };
        let context = Rc::new(ConnectContext { details, ..ConnectContext::default() });
        let mode = ConnectMode::Default;
        connector(&bot).connect(&bot, &user(), mode, &context, &mut None, NOW).await.unwrap();
        let asked = platform.seen(SERVICE);
        assert_eq!(asked[0].line, "POST /users/sts?app=1");
        assert_eq!(asked[0].header("authorization"), Some("Bearer hush"));
        let body = value!({
            "clientId": "cs-1a2b", "identity": "alice@example.com", "isAnonymous": false,
            "aud": "https://idproxy.kore.com/authorize", "fName": "Zoë", "lName": "Ruiz",
        });
        let mut merging = body.clone();
        merging["identityToMerge"] = value!("visitor");
        assert_eq!([asked[0].json(), asked[1].json()], [merging, body], "the handshake merges nothing");
        assert_eq!(platform.seen(GRANT)[0].json()["assertion"], "a.b.c");
        let offered = platform.seen(SOCKET)[0].header("sec-websocket-protocol").unwrap().to_owned();
        assert_eq!(offered, "x-rtm-v|1, jwt|d.e.f, nonce|n");
    });
}

#[test]
fn failure_of_the_assertion_service_tells_its_step() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = served(&platform);
        for (answer, retry, words) in [
            (json("401 Unauthorized", "who are you"), RetryAdvice::Never, "answered 401 without a reason"),
            (json("403 Forbidden", r#"{"errors":[{"msg":"no"}]}"#), RetryAdvice::Never, "answered 403: no"),
            (json("503 Busy", ""), RetryAdvice::Backoff(None), "answered 503"),
            (json("404 Not Found", "<html>"), RetryAdvice::Backoff(None), "answered 404"),
            (json("200 OK", "{}"), RetryAdvice::Backoff(None), "lacks the needed fields"),
            (ScriptedAnswer::Cut, RetryAdvice::Backoff(None), "assertion service"),
        ] {
            platform.answers(SERVICE, answer);
            let error = refused(&bot).await;
            let said = error.public_message();
            assert_eq!((error.phase(), error.retry()), ("assertion", retry), "{said}");
            assert!(said.contains("the assertion service") && said.contains(words), "{said}");
            assert!(!format!("{error:?} {error}").contains("hush"));
        }
        assert!(platform.seen(GRANT).is_empty());
    });
}

#[test]
fn assertion_service_gets_the_format_that_it_takes() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = served(&platform);
        let (connector, details) = (connector(&bot), UserDetails::default());
        let fetch = async || connector.assertion(&bot, &user(), &details, NOW).await;
        for refusal in ["415 Unsupported Media Type", "400 Bad Request", "422 Unprocessable Content"] {
            platform.answers(SERVICE, json(refusal, "a form, please"));
            platform.answers(SERVICE, json("200 OK", r#"{"jwt":"a.b.c"}"#));
            fetch().await.unwrap();
            // It stays with the form until that is refused.
            platform.answers(SERVICE, json("200 OK", r#"{"jwt":"a.b.c"}"#));
            fetch().await.unwrap();
            platform.answers(SERVICE, json("415 Unsupported Media Type", "JSON, please"));
            platform.answers(SERVICE, json("200 OK", r#"{"jwt":"a.b.c"}"#));
            fetch().await.unwrap();
        }
        let asked = platform.seen(SERVICE);
        let types: Vec<_> = asked.iter().map(|request| request.header("content-type").unwrap()).collect();
        let (object, form) = ("application/json", "application/x-www-form-urlencoded");
        assert_eq!(types, [object, form, form, form, object].repeat(3));
        let fields = "clientId=cs-1a2b&identity=alice%40example.com&isAnonymous=false\
                      &aud=https%3A%2F%2Fidproxy.kore.com%2Fauthorize";
        assert_eq!(asked[1].body, fields);
        assert!(asked.iter().all(|request| request.header("authorization") == Some("Bearer hush")));
    });
}

#[test]
fn user_that_the_assertion_service_refuses_is_refused() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let bot = served(&platform);
        for second in ["400 Bad Request", "415 Unsupported Media Type", "401 Unauthorized"] {
            platform.answers(SERVICE, json("400 Bad Request", r#"{"errors":[{"msg":"no such user"}]}"#));
            platform.answers(SERVICE, json(second, "no form"));
            let error = refused(&bot).await;
            assert_eq!((error.phase(), error.retry()), ("assertion", RetryAdvice::Never));
            assert_eq!(error.public_message(), "the assertion service answered 400: no such user");
        }
        platform.answers(SERVICE, json("415 Unsupported Media Type", ""));
        platform.answers(SERVICE, json("503 Busy", ""));
        let error = refused(&bot).await;
        assert_eq!(error.retry(), RetryAdvice::Backoff(None), "{error}");
    });
}

#[test]
fn silent_assertion_service_times_out() {
    run_paused(async {
        let platform = ScriptedPlatform::start().await;
        platform.answers(SERVICE, ScriptedAnswer::Hang);
        let error = refused(&served(&platform)).await;
        assert_eq!(error.public_message(), "the assertion service did not answer in time");
    });
}
