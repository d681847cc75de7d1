//! A receiver of webhooks that records its requests. The test sets its answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rtm_bridge::domain::Timestamp;
use rtm_bridge::runtime::local_thread;
use rtm_bridge::store::Clock;
use rtm_bridge::webhook::signature::{SignatureKey, verify};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The secret that receivers and bridges share.
pub(crate) const SECRET: &str = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";
/// A secret that no bridge has.
pub(crate) const OTHER_SECRET: &str = "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC";

/// A request that the receiver got.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The time of its arrival by the wall clock.
    pub(crate) at: Timestamp,
}

/// The answer of a receiver.
#[derive(Clone, Debug)]
pub(crate) enum ReceiverAnswer {
    /// This status and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// This status after the test calls [`Receiver::answer_held`].
    Held(u16),
    /// No answer until one side closes the connection.
    Silence,
}

type AnswerRule = Box<dyn Fn(&ReceivedRequest) -> ReceiverAnswer + Send>;

/// A receiver on a thread of its own. The thread ends when the receiver is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    rule: Arc<Mutex<AnswerRule>>,
    requests: watch::Receiver<Vec<ReceivedRequest>>,
    /// The number of calls of `hang_up`.
    hangs_up: watch::Sender<usize>,
    /// The number of calls of `answer_held`.
    answers_held: watch::Sender<usize>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ReceiverAnswer {
    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new())
    }
}

impl ReceivedRequest {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.optional(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }

    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.header("webhook-attempt").parse().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the user of the conversation in a standard body.
    pub(crate) fn user(&self) -> String {
        self.json()["data"]["user"].as_str().unwrap().to_owned()
    }

    /// Returns whether the request has a fresh signature by this secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let secret = SignatureKey::parse(&secret.into()).unwrap();
        let (at, signature) = (self.header("webhook-timestamp"), self.header("webhook-signature"));
        verify(&[secret], self.id(), at, signature, &self.body, Clock::wall().now()).is_ok()
    }
}

impl Receiver {
    /// Starts a receiver that answers 204.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<AnswerRule>> = Arc::new(Mutex::new(Box::new(|_| ReceiverAnswer::status(204))));
        let (record, requests) = watch::channel(Vec::new());
        let (end, mut ended) = watch::channel(false);
        let (hangs_up, answers_held) = (watch::Sender::new(0), watch::Sender::new(0));
        let shared_rule = Arc::clone(&rule);
        let signals = Signals { hung_up: hangs_up.subscribe(), answered: answers_held.subscribe() };
        let run = async move || {
            let listener = TcpListener::from_std(listener).unwrap();
            let record = Arc::new(record);
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        let (rule, record) = (Arc::clone(&shared_rule), Arc::clone(&record));
                        connections.spawn_local(serve(stream, rule, record, signals.clone()));
                    }
                    _ = ended.changed() => return,
                }
            }
        };
        let thread = Some(local_thread("receiver", run).unwrap());
        Self { address, rule, requests, hangs_up, answers_held, end, thread }
    }

    /// Sets the answers to further requests.
    pub(crate) fn answers(&self, rule: impl Fn(&ReceivedRequest) -> ReceiverAnswer + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Closes the connections of all unanswered requests.
    pub(crate) fn hang_up(&self) {
        self.hangs_up.send_modify(|times| *times += 1);
    }

    /// Answers all held requests.
    pub(crate) fn answer_held(&self) {
        self.answers_held.send_modify(|times| *times += 1);
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its URL with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.borrow().clone()
    }

    /// Waits for this number of requests and returns them.
    pub(crate) async fn requests_at_least(&self, count: usize) -> Vec<ReceivedRequest> {
        self.requests_when(|requests| requests.len() >= count).await
    }

    /// Waits until the condition holds and returns the requests.
    pub(crate) async fn requests_when(
        &self,
        is_so: impl Fn(&[ReceivedRequest]) -> bool,
    ) -> Vec<ReceivedRequest> {
        self.requests.clone().wait_for(|requests| is_so(requests)).await.expect("the receiver runs").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The signals of a test to all connections.
#[derive(Clone)]
struct Signals {
    hung_up: watch::Receiver<usize>,
    answered: watch::Receiver<usize>,
}

/// Serves a connection until the bridge closes it.
async fn serve(
    mut stream: TcpStream,
    rule: Arc<Mutex<AnswerRule>>,
    record: Arc<watch::Sender<Vec<ReceivedRequest>>>,
    mut signals: Signals,
) {
    signals.hung_up.mark_unchanged();
    let mut inbox = Vec::new();
    while let Some(request) = read(&mut stream, &mut inbox).await {
        let answer = rule.lock().unwrap()(&request);
        println!("-> receiver: {} {}, attempt {}: {answer:?}", request.path, request.id(), request.attempt());
        signals.answered.mark_unchanged();
        record.send_modify(|all| all.push(request));
        let (status, headers) = match answer {
            ReceiverAnswer::Status(status, headers) => (status, headers),
            held => {
                let other_side =
                    async { while stream.read(&mut [0; 256]).await.is_ok_and(|size| size > 0) {} };
                tokio::select! {
                    () = other_side => return,
                    _ = signals.hung_up.changed() => return,
                    _ = signals.answered.changed(), if matches!(held, ReceiverAnswer::Held(_)) => {}
                }
                let ReceiverAnswer::Held(status) = held else { return };
                (status, Vec::new())
            }
        };
        let mut lines = vec![format!("HTTP/1.1 {status} So"), "Content-Length: 0".to_owned()];
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let answer = lines.join("\r\n") + "\r\n\r\n";
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> Option<ReceivedRequest> {
    let head = loop {
        if let Some(at) = inbox.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(inbox).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(inbox[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut line = lines.next().unwrap().split(' ');
    assert_eq!(line.next(), Some("POST"));
    let path = line.next().unwrap().to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = ReceivedRequest { path, headers, body: Vec::new(), at: Timestamp::default() };
    let end = head + request.header("content-length").parse::<usize>().unwrap();
    while inbox.len() < end {
        if stream.read_buf(inbox).await.ok()? == 0 {
            return None;
        }
    }
    request.body = inbox[head..end].to_vec();
    request.at = Clock::wall().now();
    inbox.drain(..end);
    Some(request)
}
