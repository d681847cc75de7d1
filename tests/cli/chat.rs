//! `rtm-bridge chat` as a process, against `rtm-bridge dev` and against a scripted bridge.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use serde_json::json;

use super::{outcome, rtm_bridge};
use crate::support::{Caller, Program, Request};

const WELCOME: &str = "[unsolicited] Hello! I am the sandbox bot.";

/// Starts `dev`, and returns it with the URL of its API and the address of its platform.
async fn dev() -> (Program, String, SocketAddr) {
    let mut dev = Program::printing(&["dev", "--port", "0", "--admin-port", "0"]);
    let curl = dev.line_with("curl").await;
    let url = curl.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let url = url.split_once("/conversations").unwrap().0.to_owned();
    let platform = dev.line_with("simulated platform listens on").await;
    let (_, rest) = platform.split_once("http://").unwrap();
    let address = rest.split_once(". ").unwrap().0.parse().unwrap();
    (dev, url, address)
}

fn start(arguments: &[&str]) -> Child {
    let mut chat = rtm_bridge(&[&["chat", "--user", "me"], arguments].concat());
    chat.env("RTM_BRIDGE_KEY", "rtmb_hush")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    chat.spawn().unwrap()
}

/// Runs a chat with these lines as its input.
fn pipe(lines: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut chat = start(arguments);
    // The program may have stopped already; its output says why.
    let _written = chat.stdin.take().unwrap().write_all(lines.as_bytes());
    outcome(&chat.wait_with_output().unwrap())
}

/// Runs blocking code on a thread of its own.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[test]
fn pipe_gets_replies_and_exit_code() {
    crate::support::run(async {
        let (dev, url, _) = dev().await;
        let at = url.clone();
        let (code, out, err) =
            blocking(move || pipe("/echo quack\n\n/stream one two three", &["--url", &at])).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let replies: Vec<&str> = out.lines().filter(|line| !line.starts_with(WELCOME)).collect();
        assert_eq!(replies, ["quack", "one two three"]);

        let at = url.clone();
        let (code, out, err) =
            blocking(move || pipe("not read", &["--url", &at, "/echo one", "/echo two"])).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert_eq!(out.lines().collect::<Vec<_>>(), ["one", "two"], "arguments replace standard input");

        let at = url.clone();
        let (code, out, err) =
            blocking(move || pipe("/close 1008\n", &["--url", &at, "--bot", "sandbox"])).await;
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(err.contains("(failed: ") && err.contains("1 of your messages failed"), "{err}");

        let (code, out, err) = blocking(move || pipe("hi\n", &["--url", &url, "--bot", "nobody"])).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("--bot"), "{err}");
        assert_eq!(dev.terminate().await.code(), Some(0));
    });
}

#[test]
fn bot_speaks_first_if_asked() {
    crate::support::run(async {
        let (dev, url, _) = dev().await;
        let (code, out, err) = blocking(move || pipe("", &["--url", &url, "--connect", "/echo one"])).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].starts_with("Hello! I am the sandbox bot."), "{out}");
        assert_eq!(lines[1..], ["one"], "it follows the greeting");
        assert_eq!(dev.terminate().await.code(), Some(0));
    });
}

#[test]
fn number_sends_the_choice_that_it_names() {
    crate::support::run(async {
        let (dev, url, _) = dev().await;
        let offer = json!({"text": "Which?", "quick_replies": [
            {"title": "Red", "payload": "/echo You took red"}, {"title": "2", "payload": "/echo You took two"}]});
        let lines = format!("/echo {offer}\n2\n2\n/echo {offer}\n 1 \n");
        let (code, out, err) = blocking(move || pipe(&lines, &["--url", &url])).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let replies: Vec<&str> = out.lines().filter(|line| !line.starts_with(WELCOME)).collect();
        let choices = ["Which?", "  1) Red", "  2) 2"];
        assert_eq!(replies[..4], [&choices[..], &["You took two"]].concat());
        // Without choices a number is a message like any other.
        assert_ne!(replies[4], "You took two");
        assert_eq!(replies[replies.len() - 4..], [&choices[..], &["You took red"]].concat());
        assert_eq!(dev.terminate().await.code(), Some(0));
    });
}

#[test]
fn unsolicited_reply_is_printed_without_input() {
    crate::support::run(async {
        let (dev, url, platform) = dev().await;
        let mut chat = start(&["--url", &url]);
        let mut input = chat.stdin.take().unwrap();
        let (sender, lines) = mpsc::sync_channel(16);
        let out = BufReader::new(chat.stdout.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        input.write_all(b"/echo first\n").unwrap();
        let lines = blocking(move || {
            while lines.recv().unwrap() != "first" {}
            lines
        })
        .await;
        let push = json!({"user": "me", "text": "Your parcel has arrived"}).to_string();
        let pushed = Caller(platform).send(Request::new("POST", "/sandbox/push").body(push)).await;
        assert_eq!(pushed.status, 200);
        let lines = blocking(move || {
            // It may belong to the open turn, or be late; the bridge decides that.
            assert!(lines.recv().unwrap().ends_with("Your parcel has arrived"));
            lines
        })
        .await;
        // The last line is answered although the input ends.
        input.write_all(b"/slow 300").unwrap();
        drop(input);
        let output = blocking(move || chat.wait_with_output().unwrap()).await;
        assert_eq!(outcome(&output), (Some(0), String::new(), String::new()));
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), ["That took 300 ms."]);
        reading.await.unwrap();
        assert_eq!(dev.terminate().await.code(), Some(0));
    });
}

#[test]
fn unreachable_bridge_exits_1_with_the_next_step() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, out, err) = pipe("hi\n", &["--url", &format!("http://127.0.0.1:{port}")]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("rtm-bridge dev") && err.contains(&port.to_string()), "{err}");
    for wrong in [
        &["--url", "localhost:8080"][..],
        &["--url", "http://key@localhost"],
        &["--url", "http://localhost/?bot=a"],
        &["--bot", "a b"],
        &["--key", "x"],
        &[" "],
    ] {
        assert_eq!(pipe("", wrong).0, Some(2), "{wrong:?}");
    }
    let (code, _, err) = pipe("", &["--key-file", "/nowhere/key"]);
    assert!(code == Some(1) && err.contains("/nowhere/key"), "{err}");
}

/// Answers requests, one a connection and each with its head in lower case, until the program has stopped.
pub(super) fn serve_scripted(mut answer: impl FnMut(&str, TcpStream) + Send, chat: impl FnOnce(&str)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                match read_request(&mut stream) {
                    head if head.is_empty() => return,
                    head => answer(&head, stream),
                }
            }
        });
        let _unblock = Unblock(address);
        chat(&format!("http://{address}"));
    });
}

/// Stops the scripted bridge by a connection without a request, also if the test fails.
struct Unblock(SocketAddr);

impl Drop for Unblock {
    fn drop(&mut self) {
        TcpStream::connect(self.0).ok();
    }
}

/// Returns the head of a request. It reads the body too, because closing would reset the connection otherwise.
fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head
}

/// Writes an answer that ends with the connection.
pub(super) fn respond(mut stream: &TcpStream, head: &str, body: &str) {
    // The program may have stopped already.
    let _written = write!(stream, "HTTP/1.0 {head}\r\n\r\n{body}");
}

pub(super) const STREAM: &str = "200 OK\r\nContent-Type: text/event-stream";
const PROBLEM: &str = "401 Unauthorized\r\nContent-Type: application/problem+json";

#[test]
fn broken_stream_resumes_behind_its_last_event() {
    let half = r#"{"seq":1,"type":"reply","data":{"text":"half","correlation":"window"}}"#;
    let whole = r#"{"seq":2,"type":"reply","data":{"text":"whole","correlation":"window"}}"#;
    let end = r#"{"seq":3,"type":"message.answered","data":{"id":"m1","status":"answered","complete":true,"replies":[{}]}}"#;
    let first =
        format!("retry: 10\nid: c1\nevent: reply\ndata: {half}\n\nid: c2\nevent: reply\ndata: {{\"seq\"");
    let second =
        format!("id: c2\nevent: reply\ndata: {whole}\n\nid: c3\nevent: message.answered\ndata: {end}\n\n");
    let (mut resumed, mut streams) = (Vec::new(), Vec::new());
    let bridge = |head: &str, stream: TcpStream| {
        assert!(head.contains("authorization: bearer rtmb_hush\r\n"), "{head}");
        if head.starts_with("post") {
            assert!(head.contains("prefer: respond-async\r\n"), "{head}");
            respond(
                &stream,
                "202 Accepted\r\nContent-Type: application/json",
                r#"{"id":"m1","status":"queued"}"#,
            );
            streams.pop().map(|mut open: TcpStream| open.write_all(first.as_bytes()).unwrap()).unwrap();
        } else {
            assert!(head.starts_with("get /conversations/me/events?after=latest"), "{head}");
            assert!(head.contains("accept: text/event-stream\r\n"), "{head}");
            resumed.extend(
                head.lines()
                    .find_map(|line| line.strip_prefix("last-event-id:"))
                    .map(|id| id.trim().to_owned()),
            );
            match resumed.len() {
                1 => respond(&stream, STREAM, ""),
                2 => return respond(&stream, "503 Service Unavailable\r\nContent-Type: text/html", "away"),
                _ => respond(&stream, STREAM, &second),
            }
            streams.push(stream);
        }
    };
    serve_scripted(bridge, |url| {
        let (code, out, err) = pipe("hi\n", &["--url", url]);
        assert_eq!((code, out.as_str()), (Some(0), "half\nwhole\n"), "{err}");
        assert!(err.contains("connection is lost") && err.contains("connected again"), "{err}");
        assert!(!err.contains("hush"), "{err}");
    });
    assert_eq!(resumed, ["", "c1", "c1"]);
}

#[test]
fn refusal_is_printed_without_the_key() {
    let problem = r#"{"title":"A valid caller key is needed","detail":"Send one."}"#;
    serve_scripted(
        |_, stream| respond(&stream, PROBLEM, problem),
        |url| {
            let (code, out, err) = pipe("hi\n", &["--url", url]);
            assert_eq!((code, out.as_str()), (Some(1), ""));
            assert!(err.contains("A valid caller key is needed: Send one.; give the caller's key"), "{err}");
            assert!(!err.contains("hush"), "{err}");
        },
    );
    serve_scripted(
        |_, stream| respond(&stream, "200 OK\r\nContent-Type: text/html", "<h1>nginx</h1>"),
        |url| {
            let (code, _, err) = pipe("hi\n", &["--url", url]);
            assert!(code == Some(1) && err.contains("server.listen"), "{err}");
        },
    );
}

#[test]
fn words_of_a_server_cannot_steer_standard_error() {
    let problem = "{\"title\":\"\\u001b[2Jgone\\u202e\",\"detail\":\"\\u009b31m\\rforged\"}";
    serve_scripted(
        |_, stream| respond(&stream, PROBLEM, problem),
        |url| {
            let (code, out, err) = pipe("hi\n", &["--url", url]);
            assert_eq!((code, out.as_str()), (Some(1), ""));
            assert!(err.contains("[2Jgone") && err.contains("forged"), "{err}");
            assert!(!err.contains(['\u{1b}', '\u{9b}', '\r', '\u{202e}']), "{err:?}");
        },
    );
}

#[test]
fn key_file_is_read_before_the_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "rtmb_file\n").unwrap();
    let bridge = |head: &str, stream: TcpStream| {
        assert!(head.contains("authorization: bearer rtmb_file\r\n"), "{head}");
        respond(&stream, PROBLEM, "{}");
    };
    serve_scripted(bridge, |url| {
        let (code, _, err) = pipe("", &["--url", url, "--key-file", path]);
        assert!(code == Some(1) && err.contains("HTTP status 401"), "{err}");
    });
    for invalid in ["", "two words", "r\u{e9}sum\u{e9}"] {
        std::fs::write(path, invalid).unwrap();
        let (code, _, err) = pipe("", &["--key-file", path]);
        assert!(code == Some(1) && err.contains(path) && err.contains("holds no key"), "{err}");
        assert!(invalid.is_empty() || !err.contains(invalid), "{err}");
    }
}
