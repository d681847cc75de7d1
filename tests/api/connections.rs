//! Connections and memory: callers that send or take slowly, or not at all (api.md 7).

use futures_util::StreamExt as _;
use rtm_sandbox::{Gate, Step};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::events::turn;
use crate::support::{Answer, Caller, Request, TestBridge, run, spawn_bridge, until};

/// Sends bytes over a new connection.
async fn open(to: Caller, bytes: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(to.0).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection
}

/// Has the bot say some megabytes to `alice`.
async fn long_journal(bridge: &TestBridge) {
    let text = "x".repeat(400_000);
    for _ in 0..4 {
        turn(bridge, &[&text]).await;
    }
}

/// Asks for the whole journal of `alice`, and reads nothing of the answer.
async fn unread_page(bridge: &TestBridge) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut connection = socket.connect(bridge.api.0).await.unwrap();
    let request = Request::get("/conversations/alice/events?limit=1000").into_bytes(bridge.api.0);
    connection.write_all(&request).await.unwrap();
    connection
}

#[test]
fn bodies_without_an_end_are_refused_without_memory() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.memory_limit = 4 << 20).await;
        bridge.script.bot(|_, _| Step::reply("x"));
        let body = json!({"text": "hi", "customData": {"x": "x".repeat(1_000_000)}});
        let whole = Request::message("alice", &body).into_bytes(bridge.api.0);
        let mut waiting = Vec::new();
        for _ in 0..8 {
            waiting.push(open(bridge.api, &whole[..whole.len() - 10]).await);
        }
        // At least four of them do not fit, in whatever order they come.
        let answers = waiting.iter_mut().map(|connection| Box::pin(Answer::read(connection, false)));
        let answers: Vec<_> =
            answers.collect::<futures_util::stream::FuturesUnordered<_>>().take(4).collect().await;
        for answer in answers {
            let answer = answer.unwrap();
            answer.problem(503, "overloaded");
            assert_eq!((answer.retry_after(), answer.header("connection")), (1, Some("close")));
        }
        until("the memory shows", async || bridge.metric("request_memory_bytes").await > 0).await;
        drop(waiting);
        until("the memory is free", async || bridge.metric("request_memory_bytes").await == 0).await;
        bridge.post("alice", &json!({"text": "hi"})).await.message(200);
        bridge.finish().await;
    });
}

#[test]
fn answers_that_are_not_taken_keep_their_places() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.max_requests = 3).await;
        long_journal(&bridge).await;
        let mut readers = Vec::new();
        for _ in 0..3 {
            readers.push(unread_page(&bridge).await);
        }
        until("the places are taken", async || {
            let answer = bridge.api.get("/docs").await;
            answer.status == 503
                && answer.problem(503, "overloaded")["detail"].to_string().contains("open requests")
        })
        .await;
        // An answer that is taken gives its place back.
        let mut reader = readers.pop().unwrap();
        let taken = Answer::read(&mut reader, false).await.unwrap();
        assert!(taken.body.len() > 3_000_000, "{}", taken.body.len());
        until("a place is free", async || bridge.api.get("/docs").await.status == 200).await;
        drop(readers);
        until("all are free", async || bridge.metric("request_memory_bytes").await == 0).await;
        bridge.finish().await;
    });
}

#[test]
fn pages_that_are_not_taken_are_refused_without_memory() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.memory_limit = 8 << 20).await;
        long_journal(&bridge).await;
        let readers = [unread_page(&bridge).await, unread_page(&bridge).await, unread_page(&bridge).await];
        until("the memory is taken", async || bridge.metric("request_memory_bytes").await > 6_000_000).await;
        let page = Request::get("/conversations/alice/events?limit=1000");
        bridge.send(page.clone()).await.problem(503, "overloaded");
        // Small answers still fit, and streams wait for room.
        assert_eq!(bridge.api.get("/docs").await.status, 200);
        let mut stream = bridge.api.events("/conversations/alice/events?after=latest").await;
        drop(readers);
        until("the memory is free", async || bridge.send(page.clone()).await.status == 200).await;
        turn(&bridge, &["one"]).await;
        assert_eq!(stream.expect("reply").await["text"], "one");
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn connections_over_the_limit_are_refused() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.max_connections = 3).await;
        let gate = Gate::new();
        for user in ["a", "b"] {
            let steps = vec![Step::Ack, Step::Until(gate.clone()), Step::Say("x".to_owned())];
            bridge.script.next(user, steps);
        }
        let wait = |user| {
            let request = Request::message(user, &json!({"text": "hi"})).prefer("wait=20");
            request.into_bytes(bridge.api.0)
        };
        let mut waits = [open(bridge.api, &wait("a")).await, open(bridge.api, &wait("b")).await];
        // The third place goes to the newest of those that have no request in work.
        let mut half = open(bridge.api, b"GET /docs HTTP/1.1\r\nHost: h\r\n").await;
        until("they are open", async || bridge.metric("connections").await == 3).await;
        assert_eq!(bridge.api.get("/docs").await.status, 200);
        assert_eq!(half.read(&mut [0; 100]).await.unwrap_or(0), 0);
        assert_eq!(bridge.metric(r#"connections_cut_total{reason="evicted"}"#).await, 1);

        let stream = bridge.api.events("/conversations/a/events").await;
        bridge.api.get("/docs").await.problem(503, "overloaded");
        assert!(bridge.metric(r#"connections_cut_total{reason="refused"}"#).await > 0);
        assert_eq!(bridge.admin.get("/livez").await.status, 200);
        gate.open();
        for wait in &mut waits {
            Answer::read(wait, false).await.unwrap().message(200);
        }
        drop((stream, waits));
        bridge.finish().await;
    });
}

#[test]
fn admin_listener_cuts_a_chunked_body() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for to in [bridge.api, bridge.admin] {
            let head = b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
            let connection = open(to, head).await;
            let (mut reader, mut writer) = connection.into_split();
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
            let sending = async {
                let mut sent = 0;
                while writer.write_all(&chunk).await.is_ok() {
                    sent += chunk.len();
                }
                sent
            };
            let (bytes, answer) = tokio::join!(sending, Answer::read(&mut reader, false));
            assert!(bytes < 32 << 20, "{bytes}");
            assert!([404, 405].contains(&answer.unwrap().status));
        }
        bridge.finish().await;
    });
}
