//! A receiver of webhooks: remembers what it is sent, and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rtm_bridge::domain::Timestamp;
use rtm_bridge::runtime::shard_thread;
use rtm_bridge::store::Clock;
use rtm_bridge::webhook::signature::{SigningSecret, verify};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A secret that receivers and bridges share.
pub(crate) const SECRET: &str = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";
/// Another one.
pub(crate) const OTHER_SECRET: &str = "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC";

/// What it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// When it had come, by this machine's clock.
    pub(crate) at: Timestamp,
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// This status, and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// This status, as soon as the test says [`Receiver::answer_held`].
    Held(u16),
    /// Nothing, until one of both gives up.
    Nothing,
}

type Judge = Box<dyn Fn(&Told) -> Reply + Send>;

/// A receiver on a thread of its own; it ends when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    judge: Arc<Mutex<Judge>>,
    told: watch::Receiver<Vec<Told>>,
    /// How often it hung up.
    hangs_up: watch::Sender<usize>,
    /// How often it answered what it held.
    answers_held: watch::Sender<usize>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new())
    }
}

impl Told {
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

    /// The user whose conversation it tells of, by the standard body.
    pub(crate) fn user(&self) -> String {
        self.json()["data"]["user"].as_str().unwrap().to_owned()
    }

    /// Whether somebody who has this secret signed it just now.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let secret = SigningSecret::parse(&secret.into()).unwrap();
        let (at, signature) = (self.header("webhook-timestamp"), self.header("webhook-signature"));
        verify(&[secret], self.id(), at, signature, &self.body, Clock::wall().now()).is_ok()
    }
}

impl Receiver {
    /// A receiver that takes everything.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(Box::new(|_| Reply::status(204))));
        let (telling, told) = watch::channel(Vec::new());
        let (end, mut ended) = watch::channel(false);
        let (hangs_up, answers_held) = (watch::Sender::new(0), watch::Sender::new(0));
        let judging = Arc::clone(&judge);
        let signals = Signals { hung_up: hangs_up.subscribe(), answered: answers_held.subscribe() };
        let run = async move || {
            let listener = TcpListener::from_std(listener).unwrap();
            let telling = Arc::new(telling);
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        let (judge, telling) = (Arc::clone(&judging), Arc::clone(&telling));
                        connections.spawn_local(serve(stream, judge, telling, signals.clone()));
                    }
                    _ = ended.changed() => return,
                }
            }
        };
        let thread = Some(shard_thread("receiver", run).unwrap());
        Self { address, judge, told, hangs_up, answers_held, end, thread }
    }

    /// Answers so from now on.
    pub(crate) fn answers(&self, judge: impl Fn(&Told) -> Reply + Send + 'static) {
        *self.judge.lock().unwrap() = Box::new(judge);
    }

    /// Lets go of all that it has not answered.
    pub(crate) fn hang_up(&self) {
        self.hangs_up.send_modify(|times| *times += 1);
    }

    /// Answers all that it holds.
    pub(crate) fn answer_held(&self) {
        self.answers_held.send_modify(|times| *times += 1);
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it takes this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that it was sent so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.borrow().clone()
    }

    /// What it was sent, as soon as it is so much.
    pub(crate) async fn told_at_least(&self, count: usize) -> Vec<Told> {
        self.told_when(|told| told.len() >= count).await
    }

    /// What it was sent, as soon as it is so.
    pub(crate) async fn told_when(&self, is_so: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        self.told.clone().wait_for(|told| is_so(told)).await.expect("the receiver runs").clone()
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

/// What a test tells all connections.
#[derive(Clone)]
struct Signals {
    hung_up: watch::Receiver<usize>,
    answered: watch::Receiver<usize>,
}

/// Serves a connection until the other side lets go of it.
async fn serve(
    mut stream: TcpStream,
    judge: Arc<Mutex<Judge>>,
    telling: Arc<watch::Sender<Vec<Told>>>,
    mut signals: Signals,
) {
    signals.hung_up.mark_unchanged();
    let mut inbox = Vec::new();
    while let Some(told) = read(&mut stream, &mut inbox).await {
        let reply = judge.lock().unwrap()(&told);
        println!("-> receiver: {} {}, attempt {}: {reply:?}", told.path, told.id(), told.attempt());
        signals.answered.mark_unchanged();
        telling.send_modify(|all| all.push(told));
        let (status, headers) = match reply {
            Reply::Status(status, headers) => (status, headers),
            held => {
                let other_side =
                    async { while stream.read(&mut [0; 256]).await.is_ok_and(|size| size > 0) {} };
                tokio::select! {
                    () = other_side => return,
                    _ = signals.hung_up.changed() => return,
                    _ = signals.answered.changed(), if matches!(held, Reply::Held(_)) => {}
                }
                let Reply::Held(status) = held else { return };
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

async fn read(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> Option<Told> {
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
    let mut told = Told { path, headers, body: Vec::new(), at: Timestamp::default() };
    let end = head + told.header("content-length").parse::<usize>().unwrap();
    while inbox.len() < end {
        if stream.read_buf(inbox).await.ok()? == 0 {
            return None;
        }
    }
    told.body = inbox[head..end].to_vec();
    told.at = Clock::wall().now();
    inbox.drain(..end);
    Some(told)
}
