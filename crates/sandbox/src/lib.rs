//! A simulated Kore.ai platform: for trying the bridge out, for its tests, and for those of its users.
//!
//! It plays the server's side of protocol.md 2 to 7 on loopback, with every fault and every difference
//! between versions as a switch (protocol.md 11, without the webhook channel). People steer it by what they
//! type (`/help`), tests by a [`Script`].
//!
//! ```text
//!  client ──► endpoints (grant, start, history) ──► faults strike ──► answer
//!         ──► upgrade ──► life (one task a socket) ──► heard ──► steps: a script's, or the default bot's
//!                                                           │
//!  Script::push ────────────────────────────────────────────┴──► player ──► sockets, history, record
//! ```
//!
//! It reads the protocol on its own and shares no wire type with the bridge: two readings of the
//! same document check each other. It keeps everything in memory, per user and for ever; it is not meant to
//! be reachable from outside.

mod assertion;
mod behaviour;
mod client_frames;
mod clock;
mod commands;
mod connection_cut;
mod default_bot;
mod endpoints;
mod fault_injection;
mod faults;
mod history;
pub mod message_elements;
mod observations;
mod platform;
mod platform_frames;
mod script;
mod session;
mod simulated_socket;
mod socket_task;
mod step;
mod step_runner;
#[cfg(test)]
mod tests;
mod upgrade;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use tokio::task::JoinHandle;

pub use assertion::{Client, ClientKey};
pub use behaviour::{AckOrder, Behaviour, Expiry, Framing, Secure, Spelling, StaleSid, Waiting, Welcome};
pub use faults::{Endpoint, Fault, RetryAfter};
pub use observations::{Closed, Connected, Delivered, Ending, Heard, Kept, Observed, Totals};
pub use platform::Who;
pub use script::Script;
pub use step::{Cut, Gate, Step, StreamEnd};

/// The id of the app that the default sandbox knows.
pub const CLIENT_ID: &str = "cs-sandbox";
/// Its secret. It is public: nothing is behind it.
pub const CLIENT_SECRET: &str = "sandbox-secret";
/// The id of the default sandbox's bot.
pub const BOT_ID: &str = "st-sandbox";

/// What a sandbox is at its start; what can change while it runs is in [`Behaviour`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The apps that may ask for grants.
    pub clients: Vec<Client>,
    /// The algorithms that assertions may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// The ids of its bots (`st-…`), the first is the one that [`Who`] means by default. None: every id is a
    /// bot, and [`Who`] has to name it.
    pub bots: Vec<String>,
    /// How long a token is good for.
    pub token_ttl: Duration,
    /// User messages per bot and user in any 60 s, else close code 1008; 0: no limit.
    pub rate_per_minute: u32,
    /// The largest message a client may send, in bytes, else close code 1009.
    pub payload_limit: usize,
    /// A socket that says nothing for so long is closed without a code; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A session that nobody uses for so long ends; `None`: never.
    pub session_timeout: Option<Duration>,
    /// How it behaves at first.
    pub behaviour: Behaviour,
    /// Messages that are kept per user for the history API; 0: none.
    pub history: usize,
    /// Whether to observe. Costs memory for each message: off for load tests.
    pub record: bool,
    /// Whether [`Cut::Reset`] really resets and [`Cut::Fin`] does not linger for a second. Costs a second file
    /// descriptor per connection.
    pub resets: bool,
    /// Worker threads.
    pub workers: usize,
    /// What all ids, tokens and nonces follow from.
    pub seed: u64,
}

impl Default for Options {
    /// A platform on a free port of loopback, as documented, that knows [`CLIENT_ID`] and [`BOT_ID`].
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            clients: vec![Client {
                id: CLIENT_ID.to_owned(),
                key: ClientKey::Secret(SecretString::from(CLIENT_SECRET)),
            }],
            algorithms: vec![Algorithm::HS256, Algorithm::HS512, Algorithm::RS256, Algorithm::RS512],
            bots: vec![BOT_ID.to_owned()],
            token_ttl: Duration::from_hours(30 * 24),
            rate_per_minute: 60,
            payload_limit: 1024 * 1024,
            idle_timeout: Some(Duration::from_mins(2)),
            session_timeout: Some(Duration::from_mins(15)),
            behaviour: Behaviour::default(),
            history: 200,
            record: true,
            resets: true,
            workers: 1,
            seed: 0,
        }
    }
}

impl Options {
    /// For load tests: nothing is observed or kept, no rate limit, and a socket whose turn has not come is not closed for
    /// saying nothing.
    pub fn for_load(workers: usize) -> Self {
        Self {
            rate_per_minute: 0,
            idle_timeout: None,
            session_timeout: None,
            history: 0,
            record: false,
            resets: false,
            workers,
            ..Self::default()
        }
    }
}

/// A running sandbox. Dropping it stops it, without waiting.
pub struct Sandbox {
    address: SocketAddr,
    platform: Arc<platform::Platform>,
    server: ServerHandle,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Sandbox {
    /// Starts a sandbox; it accepts connections when this returns. Needs a tokio runtime, which also runs
    /// what [`Script::push`] pushes.
    ///
    /// # Errors
    /// The address cannot be listened on.
    #[expect(clippy::unused_async, reason = "it needs a running tokio, which an async function cannot lack")]
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let (workers, resets) = (options.workers.max(1), options.resets);
        let platform = Arc::new(platform::Platform {
            behaviour: RwLock::new(Arc::new(options.behaviour.clone())),
            faults: faults::Faults::default(),
            ids: platform::Ids::new(options.seed),
            users: platform::Shards::default(),
            grants: platform::Shards::default(),
            grant_epoch: AtomicU64::new(0),
            tickets: platform::Shards::default(),
            used_jtis: Mutex::new(HashMap::new()),
            next: Mutex::new(VecDeque::new()),
            nexts: AtomicUsize::new(0),
            bot: RwLock::new(None),
            counts: platform::Counts::default(),
            changed: tokio::sync::watch::Sender::new(()),
            runtime: tokio::runtime::Handle::current(),
            address: OnceLock::from(address),
            options,
        });
        let shared = Data::from(Arc::clone(&platform));
        let server =
            HttpServer::new(move || App::new().app_data(shared.clone()).configure(endpoints::routes))
                .workers(workers)
                .backlog(4096)
                .max_connections(50_000)
                .disable_signals()
                .on_connect(move |io, data| {
                    if let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() {
                        let _best_effort = stream.set_nodelay(true);
                        if resets && let Ok(second) = stream.as_fd().try_clone_to_owned() {
                            data.insert(upgrade::Connection(Mutex::new(Some(second.into()))));
                        }
                    }
                })
                .listen(listener)?
                .run();
        let handle = server.handle();
        let running = tokio::runtime::Handle::current().spawn(server);
        Ok(Self { address, platform, server: handle, running: Some(running) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as `http://…`: what the bridge calls the platform.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its strings and its window.
    pub fn script(&self) -> Script {
        Script(Arc::clone(&self.platform))
    }

    /// Stops it; open sockets are dropped without a close frame.
    pub async fn stop(mut self) {
        self.server.stop(false).await;
        if let Some(running) = self.running.take() {
            // It ends with an I/O error at worst, and then it is stopped all the same.
            let _ended = running.await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The command is sent by the call itself; the future only waits for its end.
        drop(self.server.stop(false));
    }
}
