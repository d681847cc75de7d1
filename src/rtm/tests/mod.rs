//! Tests of connects, calls and sockets against a scripted platform. Connects use real TCP, frames an in-memory pipe.

mod connect;
mod jwt;
mod proxy;
mod redaction;
mod refusal;
mod socket;
mod ticket;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use url::Url;

use crate::config::BotConfig;
use crate::domain::{BotName, Timestamp, UserId};
use crate::runtime::fixtures::spawn;

const SECRET: &str = "a shared secret of this test";
const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_987);

pub(super) fn bot(platform: &str) -> BotConfig {
    BotConfig {
        chat_bot: "Help Bot".to_owned(),
        task_bot_id: "st-0d3f".to_owned(),
        client_id: "cs-1a2b".to_owned(),
        client_secret: SECRET.into(),
        ..BotConfig::new(BotName::new("support").unwrap(), Url::parse(platform).unwrap())
    }
}

fn user() -> UserId {
    UserId::new("alice@example.com").unwrap()
}

/// Runs a test on a runtime like that of a shard, with a clock that jumps to the next timer when the test is idle.
fn run_paused<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// A request as the platform received it.
#[derive(Debug, Clone)]
struct RecordedRequest {
    /// `POST /api/1.1/rtm/start`
    line: String,
    /// Headers as sent, one a line.
    head: String,
    body: String,
}

impl RecordedRequest {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Reaction of the scripted platform to one request.
enum ScriptedAnswer {
    /// Status line, headers and body. `content-length` is added.
    Http(&'static str, String),
    /// 101 with these bytes in the same segment. The socket then stays open and silent.
    Upgrade(Vec<u8>),
    /// No answer on an open connection.
    Hang,
    /// No answer on a cut connection.
    Cut,
}

fn json(status: &'static str, body: &str) -> ScriptedAnswer {
    ScriptedAnswer::Http(status, body.to_owned())
}

/// A platform on loopback that answers as documented, unless a test scripts another answer.
struct ScriptedPlatform {
    address: SocketAddr,
    secure: bool,
    connections: Cell<usize>,
    seen: RefCell<Vec<RecordedRequest>>,
    scripted: RefCell<HashMap<&'static str, VecDeque<ScriptedAnswer>>>,
    /// Number of sockets that the client hung up. `bell` rings for each.
    hung_up: RefCell<usize>,
    bell: Notify,
}

impl ScriptedPlatform {
    async fn start() -> Rc<Self> {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<Arc<rustls::ServerConfig>>) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let platform = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            secure: tls.is_some(),
            connections: Cell::default(),
            seen: RefCell::default(),
            scripted: RefCell::default(),
            hung_up: RefCell::default(),
            bell: Notify::new(),
        });
        let accepting = Rc::clone(&platform);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let platform = Rc::clone(&accepting);
                platform.connections.set(platform.connections.get() + 1);
                let tls = tls.clone();
                spawn(async move {
                    match tls {
                        None => platform.serve(stream).await,
                        Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => platform.serve(stream).await,
                            Err(_) => platform.bell.notify_one(),
                        },
                    }
                });
            }
        });
        platform
    }

    fn url(&self) -> String {
        if self.secure {
            format!("https://localhost:{}", self.address.port())
        } else {
            format!("http://{}", self.address)
        }
    }

    fn bot(&self) -> BotConfig {
        bot(&self.url())
    }

    /// Scripts the answer to the next request whose path has this end.
    fn answers(&self, path: &'static str, answer: ScriptedAnswer) {
        self.scripted.borrow_mut().entry(path).or_default().push_back(answer);
    }

    /// Returns the requests to paths with this end.
    fn seen(&self, path: &str) -> Vec<RecordedRequest> {
        let matches = |seen: &&RecordedRequest| {
            let target = seen.line.split(' ').nth(1).unwrap();
            target.split('?').next().unwrap().ends_with(path)
        };
        self.seen.borrow().iter().filter(matches).cloned().collect()
    }

    fn next_answer(&self, target: &str) -> ScriptedAnswer {
        let path = target.split('?').next().unwrap();
        let mut scripted = self.scripted.borrow_mut();
        let script = scripted.iter_mut().find(|(suffix, _)| path.ends_with(**suffix));
        if let Some(answer) = script.and_then(|(_, answers)| answers.pop_front()) {
            return answer;
        }
        let scheme = if self.secure { "wss://localhost" } else { "ws://127.0.0.1" };
        match path {
            "/api/1.1/oAuth/token/jwtgrant" => {
                json("200 OK", &granted("token-1", "2027-06-28T06:52:23.160Z"))
            }
            "/api/1.1/rtm/start" => ScriptedAnswer::Http(
                "200 OK",
                format!(r#"{{"url":"{scheme}:{}/rtm/bot?sid=once"}}"#, self.address.port()),
            ),
            "/rtm/bot" => ScriptedAnswer::Upgrade(Vec::new()),
            "/api/1.1/botmessages/rtm" => json("200 OK", r#"{"messages":[]}"#),
            _ => json("404 Not Found", "nothing here"),
        }
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut bytes = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut bytes).await {
            let target = seen.line.split(' ').nth(1).unwrap().to_owned();
            let key = seen.header("sec-websocket-key").map(str::to_owned);
            self.seen.borrow_mut().push(seen);
            match self.next_answer(&target) {
                ScriptedAnswer::Http(head, body) => {
                    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                }
                ScriptedAnswer::Upgrade(more) => {
                    let accept = actix_http::ws::hash_key(key.unwrap().as_bytes());
                    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                        connection: upgrade\r\nsec-websocket-accept: "
                        .to_vec();
                    answer.extend(accept);
                    answer.extend(b"\r\n\r\n");
                    answer.extend(more);
                    stream.write_all(&answer).await.unwrap();
                    stream.flush().await.unwrap();
                    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
                    *self.hung_up.borrow_mut() += 1;
                    self.bell.notify_one();
                    return;
                }
                ScriptedAnswer::Hang => std::future::pending().await,
                ScriptedAnswer::Cut => return,
            }
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<RecordedRequest> {
    let mut read_until = async |done: &dyn Fn(&[u8]) -> Option<usize>, bytes: &mut Vec<u8>| loop {
        if let Some(end) = done(bytes) {
            return Some(bytes.drain(..end).collect::<Vec<u8>>());
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head_end = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let head = String::from_utf8(read_until(&head_end, bytes).await?).unwrap();
    let (line, head) = head.split_once("\r\n").unwrap();
    let mut seen = RecordedRequest {
        line: line.trim_end_matches(" HTTP/1.1").to_owned(),
        head: head.to_owned(),
        body: String::new(),
    };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    let body = read_until(&|bytes| (bytes.len() >= length).then_some(length), bytes).await?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}

fn granted(token: &str, expires: &str) -> String {
    format!(
        r#"{{"authorization":{{"accessToken":"{token}","token_type":"bearer","expiresDate":"{expires}"}},"userInfo":{{}}}}"#
    )
}
