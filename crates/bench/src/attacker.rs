//! The attacks of one caller or stranger, made by a thread of their own.
//!
//! The thread has many connections that each repeat one act until the attack ends. A real attacker has a machine of its own.
//! So the thread has the lowest priority: it takes the CPU time that the measured processes leave.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::bench_error::BenchError;
use crate::http::HttpConnection;
use crate::setup;

/// A connection that was refused or cut comes again after this time.
const PAUSE: Duration = Duration::from_millis(100);

/// The user of the attacker's conversation.
pub(crate) const VICTIM: &str = "mallory";

/// An attack.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Attack {
    /// Bodies of a megabyte with 120 000 unknown members.
    HostileBodies,
    /// Connections with one answered request and half a head behind it.
    HalfHeads,
    /// Chunked bodies without an end whose request was refused.
    RefusedBodies,
    /// Bodies of a megabyte without their last byte.
    UnfinishedBodies,
    /// Pages of 4 MB whose reader reads nothing.
    UnreadPages,
    /// Waits for bots that stay silent, each in a new conversation.
    SilentBots,
    /// A bot that says 4 KB after 4 KB into one conversation, without a pause.
    FloodingBot,
}

/// The addresses that an attack knows, and the key that it has.
#[derive(Clone)]
pub(crate) struct AttackTarget {
    pub(crate) bridge: SocketAddr,
    pub(crate) sandbox: SocketAddr,
    pub(crate) key: &'static str,
}

impl Attack {
    pub(crate) const ALL: [Self; 7] = [
        Self::HostileBodies,
        Self::HalfHeads,
        Self::RefusedBodies,
        Self::UnfinishedBodies,
        Self::UnreadPages,
        Self::SilentBots,
        Self::FloodingBot,
    ];

    /// Describes the attack with its number of connections.
    pub(crate) fn name(self, scale: usize) -> String {
        let what = match self {
            Self::HostileBodies => "callers with bodies of 120 000 unknown members",
            Self::HalfHeads => "connections with half a head behind a request",
            Self::RefusedBodies => "endless chunked bodies behind a 401",
            Self::UnfinishedBodies => "bodies of 1 MiB without the last byte",
            Self::UnreadPages => "pages of 4 MB that are not read",
            Self::SilentBots => "waits for silent bots in new conversations",
            Self::FloodingBot => "bot that says 4 KB after 4 KB, without a pause",
        };
        format!("{} {what}", self.connections(scale))
    }

    /// Returns the number of connections, divided by `scale`.
    fn connections(self, scale: usize) -> usize {
        let full: usize = match self {
            Self::FloodingBot => 1,
            Self::HostileBodies => 4,
            Self::RefusedBodies => 8,
            Self::UnreadPages => 200,
            Self::UnfinishedBodies | Self::SilentBots => 300,
            Self::HalfHeads => 2000,
        };
        full.div_ceil(scale)
    }
}

/// A running attack. A drop ends it.
pub(crate) struct RunningAttack {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningAttack {
    /// Starts the attack on this bridge with the attacker's key.
    pub(crate) fn start(attack: Attack, target: AttackTarget, scale: usize) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("attack".to_owned()).spawn(move || {
            if let Err(error) = lower_priority() {
                eprintln!(
                    "attack: it competes for the CPU, because its priority could not be lowered: {error}"
                );
            }
            let connections = LocalSet::new();
            let request: Rc<[u8]> = request(attack, &target).into();
            for number in 0..attack.connections(scale) {
                let request = Rc::clone(&request);
                let target = target.clone();
                connections.spawn_local(async move {
                    for round in 0_u64.. {
                        let request = match attack {
                            Attack::SilentBots => silent(&target, number, round).into(),
                            _ => Rc::clone(&request),
                        };
                        // A refused or cut connection is what the bridge should make of it.
                        let _ = act(attack, &target, &request).await;
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
            runtime.block_on(connections.run_until(async {
                // The sender may be dropped instead: the attack ends either way.
                let _ = ended.await;
            }));
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for RunningAttack {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed.
            let _ = thread.join();
        }
    }
}

/// Gives the calling thread the lowest priority.
fn lower_priority() -> std::io::Result<()> {
    let thread = std::fs::read_link("/proc/thread-self")?;
    let id = thread.file_name().unwrap_or_default();
    let lowered = Command::new("renice").args(["-n", "19", "-p"]).arg(id).stdout(Stdio::null()).status()?;
    if lowered.success() { Ok(()) } else { Err(std::io::Error::other("renice failed")) }
}

/// Returns what each connection of an attack sends.
fn request(attack: Attack, target: &AttackTarget) -> Vec<u8> {
    let AttackTarget { bridge, sandbox, key } = target;
    let post = |framing: &str, authorization: &str| {
        format!(
            "POST /conversations/{VICTIM}/messages HTTP/1.1\r\nHost: {bridge}\r\n{authorization}\
             Content-Type: application/json\r\n{framing}\r\n\r\n"
        )
    };
    let authorization = format!("Authorization: Bearer {key}\r\n");
    match attack {
        Attack::HostileBodies => {
            let members: Vec<String> = (0..120_000).map(|number| format!(r#""{number:x}":1"#)).collect();
            let body = format!(r#"{{{},"text":"x"}}"#, members.join(","));
            (post(&format!("Content-Length: {}", body.len()), &authorization) + &body).into_bytes()
        }
        Attack::HalfHeads => {
            let get = format!("GET /openapi.json HTTP/1.1\r\nHost: {bridge}\r\n");
            format!("{get}Range: bytes=0-1\r\n\r\n{get}").into_bytes()
        }
        Attack::RefusedBodies => post("Transfer-Encoding: chunked", "").into_bytes(),
        Attack::UnfinishedBodies => {
            let body = " ".repeat(MIB - 1);
            (post(&format!("Content-Length: {MIB}"), &authorization) + &body).into_bytes()
        }
        Attack::UnreadPages => format!(
            "GET /conversations/{VICTIM}/events?limit=1000 HTTP/1.1\r\nHost: {bridge}\r\n{authorization}\r\n"
        )
        .into_bytes(),
        Attack::FloodingBot => setup::push(*sandbox, VICTIM, &"m".repeat(4000)),
        Attack::SilentBots => Vec::new(),
    }
}

/// Returns a request that waits for a bot that says nothing.
fn silent(target: &AttackTarget, number: usize, round: u64) -> Vec<u8> {
    let AttackTarget { bridge, key, .. } = target;
    let body = r#"{"text":"/silent"}"#;
    format!(
        "POST /conversations/{VICTIM}-{number}-{round}/messages HTTP/1.1\r\nHost: {bridge}\r\n\
         Authorization: Bearer {key}\r\nContent-Type: application/json\r\nPrefer: wait=5\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const MIB: usize = 1 << 20;

/// Makes one connection of an attack, until it is cut or the act is over.
async fn act(attack: Attack, target: &AttackTarget, request: &[u8]) -> Result<(), BenchError> {
    if attack == Attack::FloodingBot {
        let mut connection = HttpConnection::open(target.sandbox).await?;
        loop {
            connection.exchange(request).await?;
        }
    }
    let socket = TcpSocket::new_v4()?;
    if attack == Attack::UnreadPages {
        // So that the page is not taken by this side's system.
        socket.set_recv_buffer_size(4096)?;
    }
    let mut stream = socket.connect(target.bridge).await?;
    stream.write_all(request).await?;
    match attack {
        Attack::HostileBodies | Attack::SilentBots => {
            stream.read_exact(&mut [0; 12]).await?;
        }
        Attack::RefusedBodies => {
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        Attack::HalfHeads | Attack::UnfinishedBodies => {
            let mut taken = [0; 4096];
            while stream.read(&mut taken).await? > 0 {}
        }
        // The page is not read until the bridge cuts the connection.
        Attack::UnreadPages => {
            stream.ready(tokio::io::Interest::ERROR).await?;
        }
        Attack::FloodingBot => {}
    }
    Ok(())
}
