//! Files: uploaded through the bridge, then attached to a message (api.md 1).

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{BotConfig, CallerConfig, CallerScopes, Config};
use rtm_bridge::domain::BotName;
use rtm_sandbox::{Endpoint, Fault, RetryAfter, Sandbox, SandboxOptions};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::{
    Answer, Fleet, RedisOptions, RedisServer, Request, ServedReplica, TestBridge, bot, quiet_platform, run,
    spawn_bridge, spawn_bridge_on, until,
};

const CHUNK: usize = 1 << 20;
const ALICE: &str = "/conversations/alice/attachments";

/// Returns content whose chunks differ.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
}

/// Returns the request for a raw upload.
fn raw(name: &str, content_type: &str, content: Vec<u8>) -> Request {
    Request::new("POST", ALICE)
        .header("Content-Type", content_type)
        .header("Content-Disposition", &format!("attachment; filename*=UTF-8''{name}"))
        .body(content)
}

/// Returns the request for an upload as a form.
fn form(parts: &[(&str, &[u8])]) -> Request {
    let mut body = Vec::new();
    for (disposition, content) in parts {
        let head = format!(
            "--x\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: image/png\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x--\r\n");
    Request::new("POST", ALICE).header("Content-Type", "multipart/form-data; boundary=x").body(body)
}

/// Returns the only uploaded file: its name, its number of chunks, and whether it has this content.
fn uploaded(bridge: &TestBridge, user: &str, content: &[u8]) -> (String, Option<usize>, bool) {
    let files = bridge.script.observed(user).files;
    assert_eq!(files.count(), 1);
    (files[0].name.clone(), files[0].chunks, *files[0].content == *content)
}

/// Sends a head, and then these bytes of the body, over a connection that stays open.
async fn begin(bridge: &TestBridge, head: &str, body: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(bridge.api.0).await.unwrap();
    let head = format!("POST {ALICE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{head}\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    connection
}

const NAMED: &str = "Content-Disposition: attachment; filename=a.txt\r\n";

#[test]
fn uploaded_file_can_be_attached_as_it_is_told() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let answer = bridge.send(raw("Rechnung%20M%C3%A4rz.pdf", "application/pdf", content(1000))).await;
        let file = answer.message(201);
        assert_eq!(file["fileName"], "Rechnung März.pdf");
        assert_eq!((&file["fileType"], &file["size"]), (&json!("attachment"), &json!(1000)));
        assert!(file["fileUrl"].as_str().unwrap().ends_with(file["fileId"].as_str().unwrap()), "{file}");
        assert_eq!(file.as_object().unwrap().len(), 5, "{file}");
        assert_eq!(uploaded(&bridge, "alice", &content(1000)), ("Rechnung März.pdf".to_owned(), None, true));

        let message = bridge.post("alice", &json!({"attachments": [file]})).await.message(200);
        assert_eq!(message["replies"][0]["text"], "I received Rechnung März.pdf (1000 bytes).");
        let heard = bridge.script.seen("alice", 1).await.unwrap();
        assert_eq!(heard.frame["message"]["attachments"], json!([file]));
        assert_eq!(heard.text, "Rechnung März.pdf");
        bridge.finish().await;
    });
}

#[test]
fn form_with_one_file_is_uploaded() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let whole = content(5000);
        let answer =
            bridge.send(form(&[("name=\"file\"; filename=\"C:\\\\me\\\\say %22hi%22.png\"", &whole)])).await;
        let file = answer.message(201);
        assert_eq!((&file["fileName"], &file["fileType"]), (&json!("say \"hi\".png"), &json!("image")));
        assert_eq!(uploaded(&bridge, "alice", &whole), ("say \"hi\".png".to_owned(), None, true));
        assert_eq!(bridge.script.observed("alice").files[0].extension, "png");
        bridge.finish().await;
    });
}

#[test]
fn file_of_one_chunk_goes_as_a_whole() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.send(raw("a.bin", "application/octet-stream", content(CHUNK))).await.message(201);
        assert_eq!(uploaded(&bridge, "alice", &content(CHUNK)), ("a.bin".to_owned(), None, true));
        assert_eq!(bridge.metric(r#"upload_calls_total{bot="sandbox",call="file",result="ok"}"#).await, 1);
        assert_eq!(bridge.metric(r#"uploaded_bytes_total{bot="sandbox"}"#).await, 1 << 20);
        bridge.finish().await;
    });
}

#[test]
fn longer_file_goes_in_chunks() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let whole = content(2 * CHUNK + 1);
        let answer = bridge.send(form(&[("name=a; filename=a.png", &whole)])).await;
        assert_eq!(answer.message(201)["size"], 2 * CHUNK + 1);
        assert_eq!(uploaded(&bridge, "alice", &whole), ("a.png".to_owned(), Some(3), true));
        for (call, count) in [("token", 1), ("chunk", 3), ("complete", 1), ("url", 1)] {
            let series = format!(r#"upload_calls_total{{bot="sandbox",call="{call}",result="ok"}}"#);
            assert_eq!(bridge.metric(&series).await, count, "{call}");
        }
        until("the memory is free", async || bridge.metric("request_memory_bytes").await == 0).await;
        bridge.finish().await;
    });
}

#[test]
fn chunked_body_needs_no_length() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let whole = content(CHUNK + 5);
        let mut body = Vec::new();
        for piece in whole.chunks(30_000) {
            body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let head = format!("{NAMED}Transfer-Encoding: chunked\r\n");
        let mut connection = begin(&bridge, &head, &body).await;
        assert_eq!(Answer::read(&mut connection, false).await.unwrap().message(201)["size"], CHUNK + 5);
        assert_eq!(uploaded(&bridge, "alice", &whole), ("a.txt".to_owned(), Some(2), true));
        bridge.finish().await;
    });
}

#[test]
fn connection_carries_another_request_after_an_upload() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let mut connection = TcpStream::connect(bridge.api.0).await.unwrap();
        let whole = content(2 * CHUNK);
        for request in [raw("a.txt", "text/plain", whole.clone()), form(&[("name=a; filename=b", &whole)])] {
            let (mut reader, mut writer) = connection.split();
            let bytes = request.into_bytes(bridge.api.0);
            let (written, answer) = tokio::join!(writer.write_all(&bytes), Answer::read(&mut reader, false));
            written.unwrap();
            answer.unwrap().message(201);
        }
        bridge.finish().await;
    });
}

#[test]
fn announced_length_is_judged_before_the_body() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).max_attachment_bytes = 10_000).await;
        let mut connection = begin(&bridge, &format!("{NAMED}Content-Length: 10001\r\n"), b"").await;
        let answer = Answer::read(&mut connection, false).await.unwrap();
        let detail = answer.problem(413, "payload-too-large")["detail"].to_string();
        assert!(detail.contains("10000 bytes"), "{detail}");
        assert_eq!(answer.header("connection"), Some("close"));
        // The same before the caller has sent a body at all.
        let head = format!("{NAMED}Content-Length: 10001\r\nExpect: 100-continue\r\n");
        let mut connection = begin(&bridge, &head, b"").await;
        Answer::read(&mut connection, false).await.unwrap().problem(413, "payload-too-large");
        assert_eq!(bridge.script.totals().file_calls, 0);
        bridge.send(raw("a", "text/plain", content(10_000))).await.message(201);
        bridge.finish().await;
    });
}

#[test]
fn body_without_a_length_is_cut_at_the_limit() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).max_attachment_bytes = 3 * CHUNK).await;
        let head = format!("{NAMED}Transfer-Encoding: chunked\r\n");
        let connection = begin(&bridge, &head, b"").await;
        let (mut reader, mut writer) = connection.into_split();
        let piece = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
        let sending = async {
            let mut sent = 0;
            while writer.write_all(&piece).await.is_ok() {
                sent += 1 << 16;
            }
            sent
        };
        let (sent, answer) = tokio::join!(sending, Answer::read(&mut reader, false));
        answer.unwrap().problem(413, "payload-too-large");
        assert!(sent < 40 << 20, "{sent}");
        assert_eq!(bridge.script.observed("alice").files.count(), 0);
        until("the memory is free", async || bridge.metric("request_memory_bytes").await == 0).await;
        bridge.finish().await;
    });
}

#[test]
fn body_or_name_that_is_no_file_is_refused() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let one: (&str, &[u8]) = ("name=a; filename=a", b"1");
        let unnamed = Request::new("POST", ALICE).header("Content-Type", "text/plain").body("1");
        for (request, pointer) in [
            (raw("a", "text/plain", Vec::new()), ""),
            (raw("a%0Ab", "text/plain", b"1".to_vec()), "header/Content-Disposition"),
            (raw("..", "text/plain", b"1".to_vec()), "header/Content-Disposition"),
            (unnamed, "header/Content-Disposition"),
            (form(&[]), ""),
            (form(&[one, one]), ""),
            (form(&[("name=a", b"1")]), ""),
            (form(&[("name=a; filename=a", b"")]), ""),
            (form(&[("name=a; filename=\"a\u{1}\"", b"1")]), ""),
        ] {
            println!("{request}");
            let problem = bridge.send(request).await.problem(400, "invalid-request");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
        let no_type =
            Request::new("POST", ALICE).header("Content-Disposition", "attachment; filename=a").body("1");
        bridge.send(no_type).await.problem(415, "unsupported-media-type");
        let packed = raw("a", "text/plain", b"1".to_vec()).header("Content-Encoding", "gzip");
        bridge.send(packed).await.problem(415, "unsupported-media-type");
        bridge.api.get(ALICE).await.problem(405, "method-not-allowed");
        assert_eq!(bridge.script.observed("alice").files.count(), 0);
        bridge.finish().await;
    });
}

#[test]
fn idempotency_key_has_no_effect_on_an_upload() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let request = raw("a", "text/plain", b"1".to_vec()).header("Idempotency-Key", "k");
        let (first, second) = (bridge.send(request.clone()).await, bridge.send(request).await);
        assert_ne!(first.message(201)["fileId"], second.message(201)["fileId"]);
        assert_eq!(second.header("idempotency-replayed"), None);
        bridge.finish().await;
    });
}

#[test]
fn expired_token_is_renewed_once() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let upload = async |length| bridge.send(raw("a", "text/plain", content(length))).await;
        upload(10).await.message(201);
        upload(10).await.message(201);
        assert_eq!(bridge.script.observed("alice").grants, 1, "the grant is kept");
        bridge.script.expire_tokens();
        upload(CHUNK + 1).await.message(201);
        assert_eq!(bridge.script.observed("alice").grants, 2);
        // A token that expires in the middle is renewed too, and the chunk is sent again.
        bridge.script.fault_next(Endpoint::FileChunk, 1, Fault::TokenExpired);
        upload(CHUNK + 1).await.message(201);
        assert_eq!(bridge.script.observed("alice").grants, 3);
        bridge.script.fault(Endpoint::File, Fault::TokenExpired);
        let detail = upload(10).await.problem(502, "platform-rejected")["detail"].to_string();
        assert!(detail.contains("401"), "{detail}");
        assert_eq!(bridge.script.observed("alice").grants, 4);
        bridge.finish().await;
    });
}

#[test]
fn passing_fault_of_any_call_is_retried() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let endpoints = [Endpoint::FileToken, Endpoint::FileChunk, Endpoint::FileCommit, Endpoint::FileUrl];
        for (endpoint, fault) in
            endpoints.into_iter().zip([Fault::Status(503), Fault::Drop, Fault::Html(502), Fault::Empty])
        {
            bridge.script.fault_next(endpoint, 1, fault);
        }
        let whole = content(CHUNK + 1);
        let file = bridge.send(raw("a", "text/plain", whole.clone())).await.message(201);
        assert_eq!(uploaded(&bridge, "alice", &whole).1, Some(2));
        // An answer without the URL says that there is none.
        assert_eq!(file["fileUrl"], Value::Null, "{file}");
        bridge.script.fault_next(Endpoint::File, 2, Fault::RateLimited(RetryAfter::Missing));
        assert!(bridge.send(raw("a", "text/plain", content(9))).await.message(201)["fileUrl"].is_string());
        bridge.finish().await;
    });
}

#[test]
fn refusal_of_the_platform_is_told() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let error =
            |status, msg: &str| Fault::Error { status, code: status.to_string(), msg: msg.to_owned() };
        for (fault, status, slug, word) in [
            (error(400, "file type is not allowed"), 502, "platform-rejected", "not allowed"),
            (error(413, "file too large"), 413, "payload-too-large", "file too large"),
            (Fault::Html(500), 502, "platform-unavailable", "500"),
            (Fault::RateLimited(RetryAfter::Seconds(60)), 502, "platform-unavailable", "Rate limit"),
        ] {
            bridge.script.fault(Endpoint::File, fault);
            let answer = bridge.send(raw("a", "text/plain", content(10))).await;
            let detail = answer.problem(status, slug)["detail"].to_string();
            assert!(detail.contains(word), "{detail}");
            assert_eq!(answer.header("retry-after"), word.starts_with("Rate").then_some("60"));
            bridge.script.clear_all_faults();
        }
        bridge.script.expire_tokens();
        bridge.script.fault(Endpoint::Grant, error(401, "unknown client"));
        let answer = bridge.send(raw("a", "text/plain", content(10))).await;
        let detail = answer.problem(502, "platform-rejected")["detail"].to_string();
        assert!(detail.contains("unknown client"), "{detail}");
        let series = r#"upload_calls_total{bot="sandbox",call="grant",result="rejected"}"#;
        assert_eq!(bridge.metric(series).await, 1);
        bridge.finish().await;
    });
}

#[test]
fn platform_without_urls_costs_no_file() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.behave(|behaviour| behaviour.files.urls = false);
        let file = bridge.send(raw("a.png", "image/png", content(10))).await.message(201);
        assert_eq!((&file["fileUrl"], &file["fileType"]), (&Value::Null, &json!("image")));
        let message =
            bridge.post("alice", &json!({"text": "look", "attachments": [file]})).await.message(200);
        assert_eq!(message["replies"][0]["text"], "I received a.png (10 bytes).");
        let attached =
            bridge.script.seen("alice", 1).await.unwrap().frame["message"]["attachments"][0].clone();
        assert_eq!(attached.get("fileUrl"), None, "null means absent");
        bridge.finish().await;
    });
}

#[test]
fn chunks_that_the_platform_lost_are_sent_again() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.behave(|behaviour| behaviour.files.lost_chunks = [0, 2, 4].into());
        let whole = content(4 * CHUNK + 77);
        bridge.send(raw("a", "text/plain", whole.clone())).await.message(201);
        assert_eq!(uploaded(&bridge, "alice", &whole), ("a".to_owned(), Some(5), true));
        assert_eq!(bridge.metric(r#"upload_calls_total{bot="sandbox",call="chunk",result="ok"}"#).await, 8);
        // A platform that never finds them is given up.
        let lost = Fault::Body(404, r#"{"errors":[{"msg":"[1]","code":404,"httpStatus":"404"}]}"#.to_owned());
        bridge.script.fault(Endpoint::FileCommit, lost);
        let answer = bridge.send(raw("a", "text/plain", whole)).await;
        let detail = answer.problem(502, "platform-unavailable")["detail"].to_string();
        assert!(detail.contains("lost parts"), "{detail}");
        assert_eq!(
            bridge.metric(r#"upload_calls_total{bot="sandbox",call="chunk",result="ok"}"#).await,
            8 + 5 + 3
        );
        bridge.finish().await;
    });
}

#[test]
fn caller_that_leaves_ends_its_upload() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let head = format!("{NAMED}Content-Length: {}\r\n", 3 * CHUNK);
        let connection = begin(&bridge, &head, &content(CHUNK + 100_000)).await;
        until("a chunk has arrived", async || bridge.script.totals().file_calls >= 2).await;
        until("the memory shows", async || bridge.metric("request_memory_bytes").await > 1 << 20).await;
        drop(connection);
        until("the memory is free", async || bridge.metric("request_memory_bytes").await == 0).await;
        assert_eq!(bridge.script.observed("alice").files.count(), 0);
        bridge.finish().await;
    });
}

#[test]
fn caller_that_stops_is_refused_within_seconds() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let head = format!("{NAMED}Content-Length: {}\r\n", 3 * CHUNK);
        // Bytes that came at once earn no longer pause than 10 s.
        let mut connection = begin(&bridge, &head, &content(2 * CHUNK)).await;
        let answer =
            tokio::time::timeout(Duration::from_secs(15), Answer::read(&mut connection, false)).await;
        let answer = answer.unwrap().unwrap();
        let detail = answer.problem(400, "invalid-request")["detail"].to_string();
        assert!(detail.contains("10 s"), "{detail}");
        assert_eq!(answer.header("connection"), Some("close"));
        bridge.finish().await;
    });
}

const SEND: CallerScopes = CallerScopes { send: true, read: false, admin: false };

fn keyed(key: &str, request: Request) -> Request {
    request.header("Authorization", &format!("Bearer {key}"))
}

#[test]
fn upload_needs_the_scope_and_the_bot_of_a_message() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let reader = caller("reader", CallerScopes { send: false, read: true, admin: true });
            let other = CallerConfig { user_prefix: "eu-".to_owned(), ..caller("other", SEND) };
            config.callers = vec![caller("sender", SEND), reader, other];
        })
        .await;
        let request = || raw("a", "text/plain", b"1".to_vec());
        bridge.send(request()).await.problem(401, "unauthorized");
        for key in ["reader", "other"] {
            bridge.send(keyed(key, request())).await.problem(403, "forbidden");
        }
        bridge.send(keyed("sender", request())).await.message(201);
        let elsewhere = |query: &str| {
            keyed("sender", Request::new("POST", format!("{ALICE}{query}")))
                .header("Content-Type", "text/plain")
        };
        bridge.send(elsewhere("?bot=nobody")).await.problem(404, "not-found");
        bridge.send(elsewhere("?bott=x")).await.problem(400, "invalid-request");
        bridge.finish().await;
    });
}

/// Adds a second bot to a configuration.
fn add_bot(config: &mut Config) {
    let name = BotName::new("second").unwrap();
    let second = BotConfig { name, task_bot_id: "st-2".to_owned(), ..bot(config).clone() };
    config.bots.push(Arc::new(second));
}

#[test]
fn uploads_of_one_bot_leave_places_for_another() {
    run(async {
        let platform =
            SandboxOptions { bots: vec!["st-sandbox".to_owned(), "st-2".to_owned()], ..quiet_platform() };
        let bridge = spawn_bridge_on(platform, add_bot).await;
        let head = format!("{NAMED}Content-Length: 100000\r\n");
        let mut uploads = Vec::new();
        for _ in 0..32 {
            uploads.push(begin(&bridge, &head, b"1").await);
        }
        let small = |query: &str| {
            let request =
                Request::new("POST", format!("{ALICE}{query}")).header("Content-Type", "text/plain");
            request.header("Content-Disposition", "attachment; filename=a").body("1")
        };
        until("the share is used up", async || {
            let answer = bridge.send(small("?bot=sandbox")).await;
            if answer.status == 503 {
                let detail = answer.problem(503, "overloaded")["detail"].to_string();
                assert!(detail.contains("this bot's share of uploads"), "{detail}");
                assert_eq!(answer.retry_after(), 1);
            }
            answer.status == 503
        })
        .await;
        bridge.send(small("?bot=second")).await.message(201);
        drop(uploads);
        until("there is room again", async || bridge.send(small("?bot=sandbox")).await.status == 201).await;
        bridge.finish().await;
    });
}

#[test]
fn uploads_without_memory_are_refused() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.memory_limit = 3 * CHUNK).await;
        let head = format!("{NAMED}Content-Length: {}\r\n", 20 * CHUNK);
        let uploads = [begin(&bridge, &head, b"1").await, begin(&bridge, &head, b"1").await];
        until("two uploads have begun", async || bridge.metric("request_memory_bytes").await > 2 << 20).await;
        let refused = bridge.send(raw("a", "text/plain", content(2 * CHUNK))).await;
        refused.problem(503, "overloaded");
        // A small file takes little.
        bridge.send(raw("a", "text/plain", content(10))).await.message(201);
        drop(uploads);
        bridge.finish().await;
    });
}

/// Returns the memory of a replica's process, in bytes.
#[cfg(target_os = "linux")]
async fn resident_memory(replica: &ServedReplica) -> i64 {
    let metrics = replica.admin.get("/metrics").await;
    let mut lines = metrics.text().lines();
    lines.find_map(|line| line.strip_prefix("process_resident_memory_bytes ")?.parse().ok()).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn memory_of_an_upload_is_a_chunk() {
    const UPLOADS: i64 = 4;
    // Calls without a pause would slow down the uploads.
    const LOOK: Duration = Duration::from_millis(20);
    run(async {
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let replica = ServedReplica::start("a", &sandbox.url(), "memory://", "").await;
        let upload = |length| replica.api.send(raw("a", "text/plain", content(length)));
        upload(2 * CHUNK).await.message(201);
        let before = resident_memory(&replica).await;
        let done = std::cell::Cell::new(false);
        let uploads = async {
            let answers = futures_util::future::join_all((0..UPLOADS).map(|_| upload(20 * CHUNK))).await;
            done.set(true);
            answers
        };
        let watch = async {
            let mut most = 0;
            while !done.get() {
                most = most.max(resident_memory(&replica).await);
                sleep(LOOK).await;
            }
            most
        };
        let (answers, most) = tokio::join!(uploads, watch);
        for answer in answers {
            assert_eq!(answer.message(201)["size"], 20 * CHUNK);
        }
        let each = (most - before) / UPLOADS;
        println!("{each} bytes for each upload");
        assert!(each < 4 << 20, "{each}");
        drop(replica);
        sandbox.stop().await;
    });
}

#[test]
fn any_replica_takes_a_file_and_its_message() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 2, |_| {}).await;
        for (number, replica) in fleet.replicas.iter().enumerate() {
            let whole = content(CHUNK + number);
            let file = replica.api.send(raw("a.txt", "text/plain", whole.clone())).await.message(201);
            let files = fleet.script.observed("alice").files;
            assert!(*files[number].content == *whole, "{number}");
            for (turn, other) in fleet.replicas.iter().enumerate() {
                let body = json!({"attachments": [file], "turn": {"expectReplies": 1}});
                let message =
                    other.api.send(Request::message("alice", &body).prefer("wait=55")).await.message(200);
                let text = format!("I received a.txt ({} bytes).", whole.len());
                assert_eq!(message["replies"][0]["text"], text);
                let heard = fleet.script.seen("alice", 2 * number + turn + 1).await.unwrap();
                assert_eq!(heard.frame["message"]["attachments"], json!([file]));
            }
        }
        fleet.finish().await;
    });
}
