//! Requests that nobody should send: what a stranger gets, and what it costs (api.md 5).

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{CallerConfig, CallerScopes, Config};
use rtm_sandbox::Step;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, KoreClient, Request, TestBridge, V2, run, spawn_bridge};

const POST: &str = "POST /conversations/alice/messages HTTP/1.1\r\nHost: localhost\r\n";

/// Sends bytes over a new connection.
async fn sent(bridge: &TestBridge, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = TcpStream::connect(bridge.api.0).await.unwrap();
    // A server that refuses does not read the rest.
    let _written = stream.write_all(bytes.as_ref()).await;
    stream
}

/// Sends bytes, and reads the first answer.
async fn answer(bridge: &TestBridge, bytes: impl AsRef<[u8]>) -> Answer {
    Answer::read(&mut sent(bridge, bytes).await, false).await.unwrap()
}

#[test]
fn body_with_many_members_gets_a_small_answer() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for count in [8_000, 80_000] {
            let members: Vec<String> = (0..count).map(|number| format!("\"m{number}\":1,")).collect();
            let body = format!("{{{}\"text\":\"hi\"}}", members.concat());
            let request = Request::new("POST", "/conversations/alice/messages");
            let answer = bridge.send(request.header("Content-Type", "application/json").body(body)).await;
            let problem = answer.problem(400, "invalid-request");
            assert_eq!(problem["errors"].as_array().unwrap().len(), 50);
            assert!(answer.body.len() < 64 << 10);
        }
        bridge.finish().await;
    });
}

#[test]
fn malformed_head_gets_a_problem_and_is_counted() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let many = "X: y\r\n".repeat(120);
        for (bytes, status, slug) in [
            ("NONSENSE\r\n\r\n".to_owned(), 400, "invalid-request"),
            ("GET /docs HTTP/9.9\r\n\r\n".to_owned(), 400, "invalid-request"),
            (format!("{POST}Content-Length: x\r\n\r\n"), 400, "invalid-request"),
            (format!("{POST}{many}\r\n"), 431, "head-too-large"),
            (format!("{POST}X: {}", "y".repeat(200_000)), 431, "head-too-large"),
        ] {
            let answer = answer(&bridge, &bytes).await;
            let problem = answer.problem(status, slug);
            assert_eq!(answer.header("connection"), Some("close"));
            if status == 400 {
                assert_eq!(problem["errors"][0]["pointer"], "head");
            }
        }
        // An answer before it on the same connection stays as it is.
        let mut stream = sent(&bridge, "GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\nNONSENSE\r\n\r\n").await;
        let mut both = String::new();
        stream.read_to_string(&mut both).await.unwrap();
        assert!(both.starts_with("HTTP/1.1 200 OK\r\n"), "{both}");
        let (_, refusal) = both.rsplit_once("\r\n\r\n").unwrap();
        let problem: Value = serde_json::from_str(refusal).unwrap();
        assert_eq!(problem["type"], "/problems/invalid-request");
        assert_eq!(bridge.metric(r#"malformed_requests_total{code="400"}"#).await, 4);
        assert_eq!(bridge.metric(r#"malformed_requests_total{code="431"}"#).await, 2);
        assert_eq!(bridge.metric(r#"malformed_requests_total{code="408"}"#).await, 0);
        bridge.finish().await;
    });
}

#[test]
fn another_host_is_refused_without_callers() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for (target, host) in [
            ("/conversations/alice", "evil.example"),
            ("/docs", "localhost.evil.example:8080"),
            ("http://evil.example/docs", "localhost"),
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            answer(&bridge, bytes).await.problem(421, "misdirected-request");
        }
        for target in ["/metrics", "/readyz"] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
            let mut stream = TcpStream::connect(bridge.admin.0).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            Answer::read(&mut stream, false).await.unwrap().problem(421, "misdirected-request");
        }
        for host in ["localhost:1", "LOCALHOST", "127.0.0.1:8080", "[::1]"] {
            let bytes = format!("GET /docs HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(answer(&bridge, bytes).await.status, 200, "{host}");
        }
        bridge.finish().await;
    });
}

/// Starts a bridge with callers of each kind.
async fn guarded() -> TestBridge {
    let scopes = |send, read| CallerScopes { send, read, admin: false };
    let bridge = spawn_bridge(|config: &mut Config| {
        config.callers = vec![
            caller("sends", scopes(true, false)),
            caller("reads", scopes(false, true)),
            CallerConfig { rate_per_minute: 2, ..caller("few", scopes(true, false)) },
            CallerConfig { user_prefix: "crm-".to_owned(), ..caller("crm", scopes(true, false)) },
        ];
        config.add_kore_clients();
    })
    .await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

#[test]
fn body_is_asked_for_only_after_the_head_passed() {
    run(async {
        let bridge = guarded().await;
        let json = "Content-Type: application/json\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n";
        let key = |name: &str| format!("Authorization: Bearer {name}\r\n");
        for (head, status, slug) in [
            (format!("{POST}{json}"), 401, "unauthorized"),
            (format!("{POST}{}{json}", key("nobody")), 401, "unauthorized"),
            (format!("{POST}{}{json}", key("reads")), 403, "forbidden"),
            (format!("{POST}{}{json}", key("crm")), 403, "forbidden"),
            (
                format!("{POST}{}{}", key("sends"), json.replace("application/json", "text/plain")),
                415,
                "unsupported-media-type",
            ),
            (format!("{POST}{}{}", key("sends"), json.replace("13", "1048577")), 413, "payload-too-large"),
            (format!("{}{json}", POST.replace("alice/messages", "alice")), 401, "unauthorized"),
            (
                format!("POST /deliveries/redrive HTTP/1.1\r\nHost: h\r\n{}{json}", key("sends")),
                403,
                "forbidden",
            ),
            (format!("POST /tokens HTTP/1.1\r\nHost: h\r\n{}{json}", key("sends")), 403, "forbidden"),
            (
                format!(
                    "POST /tokens HTTP/1.1\r\nHost: h\r\n{}{}",
                    key("reads"),
                    json.replace("13", "1048577")
                ),
                413,
                "payload-too-large",
            ),
            (
                format!("POST /webhooks/sandbox/main/test HTTP/1.1\r\nHost: h\r\n{}{json}", key("reads")),
                403,
                "forbidden",
            ),
            (format!("{}{}{json}", POST.replace("messages", "signals"), key("reads")), 403, "forbidden"),
        ] {
            // The first answer is the last one: nothing asks for the body.
            let answer = answer(&bridge, &head).await;
            answer.problem(status, slug);
            assert_eq!(answer.header("connection"), Some("close"), "{head}");
        }
        assert_eq!(bridge.script.totals().messages, 0);
        bridge.finish().await;
    });
}

#[test]
fn stranger_is_asked_for_no_body_on_any_route() {
    run(async {
        let bridge = guarded().await;
        let public = ["/openapi.json", "/docs", "/problems/{slug}", "/livez", "/readyz"];
        for route in rtm_bridge::http::ROUTES {
            let bot = if ["/chatbot", "/api"].iter().any(|door| route.starts_with(door)) {
                "st-sandbox"
            } else {
                "sandbox"
            };
            let parts = route.split('/').map(|part| match part {
                "{bot}" => bot,
                part if part.starts_with('{') => "x",
                part => part,
            });
            let path = parts.collect::<Vec<_>>().join("/");
            let path = if path.starts_with('/') { path } else { format!("/{path}") };
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                if method == "GET" && public.contains(route) {
                    continue;
                }
                for key in ["", "Authorization: Bearer stranger\r\n", "Authorization: Bearer a.b.c\r\n"] {
                    let head = format!(
                        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Type: application/json\r\n\
                         Content-Length: 13\r\nExpect: 100-continue\r\n\r\n"
                    );
                    assert_eq!(answer(&bridge, &head).await.status, 401, "{head}");
                }
            }
        }
        bridge.finish().await;
    });
}

#[test]
fn door_asks_for_a_body_only_after_the_head_passed() {
    run(async {
        let bridge = guarded().await;
        let client = KoreClient::new(bridge.api);
        let key = format!("Authorization: bearer {}\r\n", client.token());
        let json = "Content-Type: application/json\r\nExpect: 100-continue\r\n";
        let call = |head: &str, length: usize| {
            format!("POST {V2} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {length}\r\n\r\n")
        };
        let other = key.replace("bearer ", "bearer x");
        for (head, length, status) in [
            (json.to_owned(), 13, 401),
            (format!("{other}{json}"), 13, 401),
            (format!("{key}{json}"), 1_048_577, 413),
            (format!("{key}{}", json.replace("application/json", "text/plain")), 13, 415),
        ] {
            let answer = answer(&bridge, call(&head, length)).await;
            assert_eq!(answer.status, status, "{head}");
            let error = &answer.json()["errors"][0];
            assert_eq!(error["code"], status, "the platform's form: {answer}");
        }
        let file = "POST /api/attachments/file/st-sandbox/rtm HTTP/1.1\r\nHost: localhost\r\n";
        let form = "Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n";
        let long = format!("{file}{key}{form}Content-Length: 99999999\r\n\r\n");
        assert_eq!(answer(&bridge, long).await.status, 413);

        let body = json!({"message": {"type": "text", "val": "/echo x"}, "from": {"id": "ann"}}).to_string();
        let mut stream = sent(&bridge, call(&format!("{key}{json}"), body.len())).await;
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(body.as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.unwrap().status, 200);
        bridge.finish().await;
    });
}

#[test]
fn expected_body_is_counted_and_taken_once() {
    run(async {
        let bridge = guarded().await;
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}}).to_string();
        let head = format!(
            "{POST}Authorization: Bearer few\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Expect: 100-continue\r\n\r\n",
            body.len()
        );
        for left in [1, 0] {
            let mut stream = sent(&bridge, &head).await;
            let mut interim = [0; 25];
            stream.read_exact(&mut interim).await.unwrap();
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
            stream.write_all(body.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await.unwrap();
            answer.message(200);
            let limit = answer.header("ratelimit").unwrap();
            assert!(limit.starts_with(&format!("\"default\";r={left};")), "{limit}");
        }
        let refused = answer(&bridge, &head).await;
        refused.problem(429, "rate-limited");
        assert!(refused.header("ratelimit").is_some() && refused.retry_after() > 0);
        bridge.finish().await;
    });
}
