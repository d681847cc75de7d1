//! How much is measured, and everything that depends on the bridge's and the sandbox's own interfaces: their command
//! lines, the configuration, the request, the text that makes the simulated bot answer.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rtm_bridge::domain::Partition;

use crate::child::{self, Child};
use crate::failure::Failure;
use crate::store;

/// What the bot must be told to give one ack and one reply, and the word by which the reply is known.
pub(crate) const TEXT: &str = "/echo quack";
/// See [`TEXT`]. It may be in no welcome.
pub(crate) const SIGN: &str = "quack";

/// The identity of the sandbox's bot.
pub(crate) const CLIENT_ID: &str = "cs-sandbox";
pub(crate) const CLIENT_SECRET: &str = "sandbox-secret";
pub(crate) const TASK_BOT_ID: &str = "st-sandbox";
pub(crate) const CHAT_BOT: &str = "Sandbox";
pub(crate) const API_PATH: &str = "/api/1.1";

/// The bridge's name of the bot.
pub(crate) const BOT: &str = "bench";
/// Where the scripts of the store on Redis are.
pub(crate) const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/store/redis/scripts");

/// The first `clientMessageId`; of thirteen digits, as the bridge's own are.
pub(crate) const FIRST_NUMBER: u64 = 1_700_000_000_000;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Requests that are open at the same time.
    pub(crate) callers: usize,
    pub(crate) users: usize,
    /// Every figure of speed is measured this often; odd, for the median.
    pub(crate) rounds: usize,
    pub(crate) saturation: Duration,
    /// Turns a second at the fixed rate.
    pub(crate) rate: u32,
    pub(crate) paced: Duration,
    /// Idle conversations.
    pub(crate) idle: [usize; 3],
    /// How long it is watched doing nothing, and how long commands are counted otherwise.
    pub(crate) still: Duration,
    /// Between two looks at memory that should have stopped moving.
    pub(crate) look: Duration,
    /// Turns whose round trips are measured, for each delay.
    pub(crate) probes: usize,
    /// `lease_ttl` of the fleets that lose a replica.
    pub(crate) leases: &'static [Duration],
    /// How often a replica is lost, for each of them and each way of going.
    pub(crate) losses: usize,
    /// Readers of events that only listen.
    pub(crate) readers: [usize; 2],
    /// After that a reader has been told that there is nothing.
    pub(crate) comment: Duration,
    /// Receivers of webhooks.
    pub(crate) targets: usize,
    /// Deliveries a second at the fixed rate.
    pub(crate) deliveries: u32,
    /// How long they are measured at saturation, and at the fixed rate.
    pub(crate) delivering: [Duration; 2],
}

impl Sizes {
    pub(crate) const FULL: Self = Self {
        callers: 64,
        users: 1000,
        rounds: 3,
        saturation: Duration::from_secs(8),
        rate: 500,
        paced: Duration::from_secs(20),
        idle: [1000, 5000, 15_000],
        still: Duration::from_secs(10),
        look: Duration::from_secs(1),
        probes: 40,
        leases: &[Duration::from_secs(3), Duration::from_secs(10)],
        losses: 3,
        readers: [1000, 5000],
        comment: Duration::from_secs(17),
        targets: 100,
        deliveries: 200,
        delivering: [Duration::from_secs(4), Duration::from_secs(10)],
    };
    pub(crate) const QUICK: Self = Self {
        callers: 8,
        users: 20,
        rounds: 3,
        saturation: Duration::from_millis(300),
        rate: 100,
        paced: Duration::from_millis(500),
        idle: [20, 40, 80],
        still: Duration::from_millis(500),
        look: Duration::from_millis(100),
        probes: 5,
        leases: &[Duration::from_secs(3)],
        losses: 1,
        readers: [20, 80],
        comment: Duration::ZERO,
        targets: 4,
        deliveries: 100,
        delivering: [Duration::from_millis(300), Duration::from_millis(500)],
    };

    /// The bridge holds a socket for each idle conversation, and so does the sandbox, which also holds those of four
    /// contenders beside each other; some more for the rest.
    pub(crate) fn files_needed(&self) -> u64 {
        u64::try_from(self.idle[2].max(4 * self.users) + 2 * self.callers + 500).unwrap_or(u64::MAX)
    }
}

/// The simulated platform: no rate limit, nothing kept that grows with the turns, and no end for who waits for his
/// round.
pub(crate) async fn sandbox(binary: &Path) -> Result<Child, Failure> {
    sandbox_with(binary, &["--load"]).await
}

/// The same, which knows the bots with webhooks too.
pub(crate) async fn sandbox_of(binary: &Path, hooks: &[Hook]) -> Result<Child, Failure> {
    let ids: Vec<String> = hooks.iter().map(|hook| task_bot_id(&hook.bot)).collect();
    let bots = std::iter::once(TASK_BOT_ID).chain(ids.iter().map(String::as_str));
    let options: Vec<&str> = std::iter::once("--load").chain(bots.flat_map(|id| ["--bot", id])).collect();
    sandbox_with(binary, &options).await
}

/// The simulated platform, which also remembers what was said: what a take-over asks it for.
pub(crate) async fn remembering_sandbox(binary: &Path) -> Result<Child, Failure> {
    sandbox_with(binary, &["--rate-per-minute", "0"]).await
}

async fn sandbox_with(binary: &Path, options: &[&str]) -> Result<Child, Failure> {
    let address = child::free_address()?;
    let listen = address.to_string();
    let arguments = [&["sandbox", "--listen", &listen], options].concat();
    let mut child = Child::start("the sandbox", binary, &arguments, address)?;
    child.listening().await?;
    Ok(child)
}

/// What differs between bridges.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) sandbox: SocketAddr,
    /// `store.url`.
    pub(crate) store: String,
    /// `cluster.lease_ttl`, where it is not the default.
    pub(crate) lease: Option<Duration>,
    /// Bots beside [`BOT`], each with a webhook of its own.
    pub(crate) hooks: Vec<Hook>,
}

/// A bot, and where it is told of.
#[derive(Clone)]
pub(crate) struct Hook {
    pub(crate) bot: String,
    pub(crate) address: SocketAddr,
}

impl Terms {
    /// The memory store, and every default.
    pub(crate) fn new(sandbox: SocketAddr) -> Self {
        Self { sandbox, store: "memory://".to_owned(), lease: None, hooks: Vec::new() }
    }

    /// With a Redis here.
    pub(crate) fn on(self, redis: SocketAddr) -> Self {
        Self { store: store::url(redis), ..self }
    }
}

/// The bridge, as a service.
pub(crate) async fn bridge(binary: &Path, terms: &Terms) -> Result<Child, Failure> {
    let (listen, admin) = (child::free_address()?, child::free_address()?);
    let mut file = tempfile::Builder::new().prefix("rtm-bridge-bench").suffix(".toml").tempfile()?;
    file.write_all(config(listen, admin, terms).as_bytes())?;
    file.flush()?;
    let path = file.path().to_string_lossy().into_owned();
    let mut child = Child::start("the bridge", binary, &["serve", "--config", &path], listen)?;
    child.keep(file);
    child.ready(admin).await?;
    Ok(child)
}

/// Defaults but for the budgets, which would measure themselves, and the limits that 15 000 conversations need. That
/// Redis writes nothing to disk is known here and need not be warned of.
fn config(listen: SocketAddr, admin: SocketAddr, terms: &Terms) -> String {
    let Terms { sandbox, store, lease, hooks } = terms;
    // A command must be able to fail and be repeated within a lease.
    let times = lease.map_or_else(String::new, |lease| {
        let (lease, command) = (lease.as_millis(), COMMAND.min(lease / 4).as_millis());
        format!("store.command_timeout = \"{command}ms\"\ncluster.lease_ttl = \"{lease}ms\"")
    });
    let memory = if store.starts_with("memory") { r#"store.memory_limit = "4GiB""# } else { "" };
    let webhooks = if hooks.is_empty() { "" } else { r#"webhooks.allow_private = ["127.0.0.0/8"]"# };
    let hooked = hooks.iter().map(|hook| {
        let webhook =
            format!("[bots.webhook]\nurl = \"http://{}/hook\"\nsecrets = [\"{SECRET}\"]", hook.address);
        bot(&hook.bot, &task_bot_id(&hook.bot), *sandbox) + &webhook
    });
    let bots: String = std::iter::once(bot(BOT, TASK_BOT_ID, *sandbox)).chain(hooked).collect();
    format!(
        r#"
store.url = "{store}"
{memory}
{times}
{webhooks}

[server]
listen = "{listen}"
admin_listen = "{admin}"
max_sockets = 18000

[log]
format = "text"
filter = "warn,rtm_bridge::store::redis::health=error"
{bots}"#
    )
}

fn bot(name: &str, id: &str, sandbox: SocketAddr) -> String {
    format!(
        r#"
[[bots]]
name = "{name}"
platform = "http://{sandbox}"
api_path = "{API_PATH}"
chat_bot = "{CHAT_BOT}"
task_bot_id = "{id}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
user_rate_per_minute = 0
connects_per_minute = 0
welcome = "0ms"
idle_ttl = "never"
"#
    )
}

/// The platform's id of a bot with a webhook.
pub(crate) fn task_bot_id(bot: &str) -> String {
    format!("st-{bot}")
}

/// What deliveries are signed with.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The default of `store.command_timeout`.
const COMMAND: Duration = Duration::from_secs(2);

/// The characters of an incarnation on Redis.
pub(crate) const INCARNATION: usize = 16;

/// The key of the heartbeats on Redis: a sorted set, of incarnations with a name behind each.
pub(crate) const fn heartbeats() -> &'static str {
    "rtm:{fleet}:replicas"
}

/// The key of a lease on Redis: a hash, its owner's incarnation in the field `o`.
pub(crate) fn lease(partition: Partition) -> String {
    format!("rtm:{{{partition}}}:lease")
}

/// A user. Groups keep those of bridges beside each other apart, for the platform tells each of a user's sockets what
/// was said on the others.
pub(crate) fn user(group: &str, number: usize) -> String {
    format!("{group}-{number}")
}

/// The request of one user, ready to be written.
pub(crate) fn request(user: &str) -> Vec<u8> {
    request_at(&format!("/conversations/{user}/messages"))
}

/// The same, where there are more bots than one.
pub(crate) fn request_to(bot: &str, user: &str) -> Vec<u8> {
    request_at(&format!("/conversations/{user}/messages?bot={bot}"))
}

fn request_at(path: &str) -> Vec<u8> {
    let body = format!(r#"{{"text":"{TEXT}","turn":{{"expectReplies":1}}}}"#);
    format!(
        "POST {path} HTTP/1.1\r\nHost: bridge\r\nContent-Type: application/json\r\n\
         Prefer: wait=30\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The request of a reader of one user's events, from now on.
pub(crate) fn reading(user: &str) -> Vec<u8> {
    format!(
        "GET /conversations/{user}/events?after=latest HTTP/1.1\r\nHost: bridge\r\nAccept: text/event-stream\r\n\r\n"
    )
    .into_bytes()
}

/// The request that lets the simulated bot say something unasked.
pub(crate) fn push(sandbox: SocketAddr, user: &str, text: &str) -> Vec<u8> {
    pushed(sandbox, &format!(r#"{{"user":"{user}","text":"{text}"}}"#))
}

/// The same of the bot with this id, where there are more than one.
pub(crate) fn push_by(sandbox: SocketAddr, id: &str, user: &str, text: &str) -> Vec<u8> {
    pushed(sandbox, &format!(r#"{{"bot":"{id}","user":"{user}","text":"{text}"}}"#))
}

fn pushed(sandbox: SocketAddr, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /sandbox/push HTTP/1.1\r\nHost: {sandbox}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What the sandbox answers where one socket was there to be told.
pub(crate) const PUSHED: &[u8] = br#"{"sockets":1}"#;

/// The frame that says the same directly.
pub(crate) fn frame(number: u64) -> String {
    format!(
        r#"{{"clientMessageId":{number},"id":{number},"resourceid":"/bot.message","message":{{"body":"{TEXT}","attachments":[]}},"botInfo":{{"chatBot":"{CHAT_BOT}","taskBotId":"{TASK_BOT_ID}"}},"client":"sdk","meta":{{"timezone":"UTC","locale":"en-US"}}}}"#
    )
}
