//! A simulated Kore.ai platform, for trying the bridge out and for tests.
//!
//! It implements the server's side of protocol.md 2 to 7 on loopback. Every fault and every difference between
//! versions is a switch (protocol.md 11). People control it by messages (`/help`), tests by a [`SandboxScript`].
//!
//! ```text
//!  client ──► endpoints (grant, start, history), uploads ──► fault_injection ──► answer
//!         ──► upgrade ──► socket_task ──► client_frames ──► steps: a script's, or the default bot's
//!                                                           │
//!  SandboxScript::push ─────────────────────────────────────┴──► step_runner ──► sockets, history, observations
//! ```
//!
//! A script ([`BotScript`]) replaces the default bot, and `/sandbox/…` controls a sandbox from outside (`control`).
//!
//! It shares no wire type with the bridge, so that two readings of the protocol check each other. It keeps everything
//! in memory, per user and without end. It must not be reachable from outside.

mod assertion;
mod assertion_signer;
mod behaviour;
mod bot_script;
mod client_frames;
mod clock;
mod commands;
mod connection_cut;
mod control;
mod default_bot;
mod endpoints;
mod fault_injection;
mod fault_spec;
mod faults;
mod heard_log;
mod history;
mod history_content;
mod id_generator;
mod lenient_query;
pub mod message_elements;
mod multipart_form;
mod observations;
mod placeholders;
mod platform_frames;
mod platform_state;
mod random_sequence;
mod random_span;
mod random_steps;
mod script;
mod script_mistake;
mod script_progress;
mod script_step;
mod script_values;
mod scripted_bot;
mod session;
mod sharded_map;
mod socket_handle;
mod socket_task;
mod step;
mod step_runner;
#[cfg(test)]
mod tests;
mod upgrade;
mod uploads;
mod web_sdk;
mod webhook_channel;
mod webhook_posts;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use tokio::task::JoinHandle;

pub use assertion::{AppKey, AppRules, ClientApp};
pub use behaviour::{
    AckOrder, AgentDesk, Behaviour, ExpiredTokenStyle, FramingStyle, HistoryTextStyle, SecureHandshake,
    SpellingStyle, StaleSid, UserIdStyle, WaitingOrder, WelcomeTime,
};
pub use bot_script::BotScript;
pub use faults::{Endpoint, Fault, RetryAfter};
pub use observations::{
    CloseObservation, ConnectObservation, DeliveryObservation, FileObservation, FrameKind, GrantObservation,
    ObservationList, PlatformTotals, ReceivedFrame, SocketEnd, UserObservations,
};
pub use platform_state::BotUser;
pub use script::SandboxScript;
pub use script_mistake::ScriptMistake;
pub use scripted_bot::ScriptedBot;
pub use step::{CutMode, Gate, ReceiptKind, ReceiptScope, Step, StreamEndMarker};
pub use uploads::FileBehaviour;

/// Id of the default sandbox's app.
pub const CLIENT_ID: &str = "cs-sandbox";
/// Secret of that app. It is public, because it protects no data.
pub const CLIENT_SECRET: &str = "sandbox-secret";
/// Id of the default sandbox's bot.
pub const BOT_ID: &str = "st-sandbox";

/// Settings of a sandbox at its start. [`Behaviour`] holds those that can change while it runs.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Apps that may ask for grants.
    pub apps: Vec<ClientApp>,
    /// Accepted algorithms of assertions.
    pub algorithms: Vec<Algorithm>,
    /// Ids of its bots (`st-…`); the first is the default of [`BotUser`]. If the list is empty, every id is a bot and
    /// [`BotUser`] has to name it.
    pub bots: Vec<String>,
    /// Bots that follow a script. The others are the default bot.
    pub scripted_bots: Arc<[ScriptedBot]>,
    /// Faults planned at the start and at each reset. Without a number they last until they are cleared.
    pub faults: Vec<(Endpoint, Option<usize>, Fault)>,
    /// Life of a token.
    pub token_ttl: Duration,
    /// Life of an assertion that the helper `/users/sts` signs.
    pub assertion_ttl: Duration,
    /// Most user messages per bot and user in any 60 s; a further one closes the socket with 1008. 0: no limit.
    pub rate_per_minute: u32,
    /// Largest message of a client, in bytes; a larger one closes the socket with 1009.
    pub payload_limit: usize,
    /// Idle time after which a socket is closed without a code; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Idle time after which a session ends; `None`: never.
    pub session_timeout: Option<Duration>,
    /// Behaviour at the start.
    pub behaviour: Behaviour,
    /// Messages kept per user for the history API; 0: none.
    pub history: usize,
    /// Most bytes of the log for `/sandbox/heard`; 0: no log.
    pub heard_bytes: usize,
    /// Key for `/sandbox/…`, as a bearer token; `None`: every client may control the sandbox.
    pub control_key: Option<SecretString>,
    /// Whether to keep observations. They cost memory for each message, so load tests switch them off.
    pub observe: bool,
    /// Whether [`CutMode::Reset`] really resets, and [`CutMode::Fin`] does not linger for a second. Costs a second
    /// file descriptor per connection.
    pub resets: bool,
    /// Worker threads.
    pub workers: usize,
    /// Seed of all ids, tokens and nonces.
    pub seed: u64,
}

impl Default for SandboxOptions {
    /// Returns the documented platform on a free port of loopback, with [`CLIENT_ID`] and [`BOT_ID`].
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            apps: vec![ClientApp::new(CLIENT_ID, AppKey::Secret(SecretString::from(CLIENT_SECRET)))],
            algorithms: vec![Algorithm::HS256, Algorithm::HS512, Algorithm::RS256, Algorithm::RS512],
            bots: vec![BOT_ID.to_owned()],
            scripted_bots: Arc::default(),
            faults: Vec::new(),
            token_ttl: Duration::from_hours(30 * 24),
            assertion_ttl: Duration::from_hours(1),
            rate_per_minute: 60,
            payload_limit: 1024 * 1024,
            idle_timeout: Some(Duration::from_mins(2)),
            session_timeout: Some(Duration::from_mins(15)),
            behaviour: Behaviour::default(),
            history: 200,
            heard_bytes: 16 << 20,
            control_key: None,
            observe: true,
            resets: true,
            workers: 1,
            seed: 0,
        }
    }
}

impl SandboxOptions {
    /// Returns settings for load tests: no observations, no history, no rate limit and no idle timeouts.
    pub fn for_load(workers: usize) -> Self {
        Self {
            rate_per_minute: 0,
            idle_timeout: None,
            session_timeout: None,
            history: 0,
            heard_bytes: 0,
            observe: false,
            resets: false,
            workers,
            ..Self::default()
        }
    }

    /// Returns the scripted bot with this id.
    fn scripted_bot(&self, id: &str) -> Option<&ScriptedBot> {
        self.scripted_bots.iter().find(|bot| bot.id.value == id)
    }

    fn has_bot(&self, id: &str) -> bool {
        self.bots.is_empty() || self.bots.iter().any(|bot| bot == id)
    }
}

/// A running sandbox. Dropping it stops it without waiting.
pub struct Sandbox {
    address: SocketAddr,
    platform: Arc<platform_state::PlatformState>,
    server: ServerHandle,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Sandbox {
    /// Starts a sandbox, which accepts connections on return. Needs a tokio runtime, which also runs the steps of
    /// [`SandboxScript::push`].
    ///
    /// # Errors
    /// The address cannot be listened on.
    #[expect(clippy::unused_async, reason = "it needs a running tokio, which an async function cannot lack")]
    pub async fn start(options: SandboxOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let (workers, resets) = (options.workers.max(1), options.resets);
        let platform = Arc::new(platform_state::PlatformState {
            behaviour: RwLock::new(Arc::new(options.behaviour.clone())),
            faults: faults::FaultQueue::default(),
            ids: id_generator::IdGenerator::new(options.seed),
            users: sharded_map::ShardedMap::default(),
            grants: sharded_map::ShardedMap::default(),
            grant_epoch: AtomicU64::new(0),
            tickets: sharded_map::ShardedMap::default(),
            used_jtis: Mutex::new(HashMap::new()),
            scripted_for_any: Mutex::new(VecDeque::new()),
            scripted_for_any_count: AtomicUsize::new(0),
            bot: RwLock::new(None),
            script_progress: script_progress::ScriptProgress::new(),
            counts: platform_state::PlatformCounters::default(),
            changed: tokio::sync::watch::Sender::new(()),
            runtime: tokio::runtime::Handle::current(),
            address: OnceLock::from(address),
            uploads: uploads::UploadedFiles::default(),
            heard: heard_log::HeardLog::new(options.heard_bytes),
            logins: sharded_map::ShardedMap::default(),
            polls: sharded_map::ShardedMap::default(),
            options,
        });
        platform.plan_faults();
        let shared = Data::from(Arc::clone(&platform));
        let app = move || {
            App::new()
                .app_data(shared.clone())
                .wrap(from_fn(web_sdk::allow_every_origin))
                .configure(endpoints::routes)
        };
        let server = HttpServer::new(app)
            .workers(workers)
            .backlog(4096)
            .max_connections(50_000)
            .disable_signals()
            .on_connect(move |io, data| {
                if let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() {
                    let _best_effort = stream.set_nodelay(true);
                    if resets && let Ok(second) = stream.as_fd().try_clone_to_owned() {
                        data.insert(upgrade::ConnectionHandle(Mutex::new(Some(second.into()))));
                    }
                }
            })
            .listen(listener)?
            .run();
        let handle = server.handle();
        let running = tokio::runtime::Handle::current().spawn(server);
        Ok(Self { address, platform, server: handle, running: Some(running) })
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address as `http://…`, the bridge's URL of the platform.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a handle that controls and observes the sandbox.
    pub fn script(&self) -> SandboxScript {
        SandboxScript(Arc::clone(&self.platform))
    }

    /// Stops the sandbox. Open sockets are dropped without a close frame.
    pub async fn stop(mut self) {
        self.server.stop(false).await;
        if let Some(running) = self.running.take() {
            // An I/O error stops it too.
            let _ended = running.await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The call itself sends the command. The future only waits for the end.
        drop(self.server.stop(false));
    }
}
