//! The sizes of all measurements, and the interfaces of the bridge and the sandbox. These are command lines, the
//! configuration, requests, and the text that the simulated bot answers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rtm_bridge::domain::{Partition, Sha256};

use crate::bench_error::BenchError;
use crate::child_process::{self, ChildProcess};
use crate::store;

/// The word in the reply of a fast bot. No welcome contains it.
pub(crate) const SIGN: &str = "quack";

/// How fast the simulated bot answers. Each text gets one ack and one reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerPace {
    AtOnce,
    /// The reply comes 200 ms after the ack.
    Slow,
}

impl AnswerPace {
    /// Returns the text that has the bot answer so.
    const fn text(self) -> &'static str {
        match self {
            Self::AtOnce => "/echo quack",
            Self::Slow => "/slow 200",
        }
    }

    /// Returns words of the reply. No welcome contains them.
    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::AtOnce => SIGN,
            Self::Slow => "took 200",
        }
    }
}

/// The identity of the sandbox's bot.
pub(crate) const CLIENT_ID: &str = "cs-sandbox";
pub(crate) const CLIENT_SECRET: &str = "sandbox-secret";
pub(crate) const TASK_BOT_ID: &str = "st-sandbox";
pub(crate) const CHAT_BOT: &str = "Sandbox";
pub(crate) const API_PATH: &str = "/api/1.1";

/// The bot's name in the bridge.
pub(crate) const BOT: &str = "bench";
/// The directory of the Redis store's scripts.
pub(crate) const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/store/redis/scripts");

/// The first `clientMessageId`, with thirteen digits as the bridge's own ids have.
pub(crate) const FIRST_NUMBER: u64 = 1_700_000_000_000;

/// The sizes of all measurements.
#[derive(Clone, Copy)]
pub(crate) struct BenchSizes {
    /// The number of concurrent requests.
    pub(crate) callers: usize,
    /// The number of concurrent requests to a slow bot at the fixed rate.
    pub(crate) slow_callers: usize,
    pub(crate) users: usize,
    /// The number of measurements of each speed. It is odd for the median.
    pub(crate) rounds: usize,
    pub(crate) saturation: Duration,
    /// The turns per second at the fixed rate.
    pub(crate) rate: u32,
    pub(crate) paced: Duration,
    /// The numbers of idle conversations.
    pub(crate) idle: [usize; 3],
    /// The duration of an idle measurement and of a count of commands.
    pub(crate) still: Duration,
    /// The time between two looks at memory.
    pub(crate) look: Duration,
    /// The number of turns for the round trips at each delay.
    pub(crate) probes: usize,
    /// The `lease_ttl` of the fleets that lose a replica.
    pub(crate) leases: &'static [Duration],
    /// The number of losses for each lease time and each way.
    pub(crate) losses: usize,
    /// The numbers of readers of idle conversations.
    pub(crate) readers: [usize; 2],
    /// The time after which a reader has got a comment.
    pub(crate) comment: Duration,
    /// The number of webhook receivers.
    pub(crate) targets: usize,
    /// The deliveries per second at the fixed rate.
    pub(crate) deliveries: u32,
    /// The duration of deliveries at saturation and at the fixed rate.
    pub(crate) delivering: [Duration; 2],
    /// The divisor of the connections of an attack.
    pub(crate) attack_scale: usize,
}

impl BenchSizes {
    pub(crate) const FULL: Self = Self {
        callers: 64,
        slow_callers: 256,
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
        attack_scale: 1,
    };
    pub(crate) const QUICK: Self = Self {
        callers: 8,
        slow_callers: 32,
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
        attack_scale: 50,
    };

    /// Returns the number of open files. The bridge and the sandbox hold a socket for each idle conversation. The sandbox
    /// also holds those of five concurrent contenders, and this process their callers.
    pub(crate) fn files_needed(&self) -> u64 {
        let contender = self.users + self.callers + self.slow_callers;
        u64::try_from((self.idle[2] + self.callers).max(5 * contender) + 500).unwrap_or(u64::MAX)
    }
}

/// Starts the simulated platform: no rate limit, no history, and no end of idle sessions.
pub(crate) async fn sandbox(binary: &Path) -> Result<ChildProcess, BenchError> {
    sandbox_with(binary, &["--load"]).await
}

/// Starts the simulated platform with these bots with webhooks.
pub(crate) async fn sandbox_of(binary: &Path, hooks: &[BotReceiver]) -> Result<ChildProcess, BenchError> {
    let ids: Vec<String> = hooks.iter().map(|hook| task_bot_id(&hook.bot)).collect();
    let bots = std::iter::once(TASK_BOT_ID).chain(ids.iter().map(String::as_str));
    let options: Vec<&str> = std::iter::once("--load").chain(bots.flat_map(|id| ["--bot", id])).collect();
    sandbox_with(binary, &options).await
}

/// Starts the simulated platform with a history, which a failover reads.
pub(crate) async fn remembering_sandbox(binary: &Path) -> Result<ChildProcess, BenchError> {
    sandbox_with(binary, &["--rate-per-minute", "0"]).await
}

async fn sandbox_with(binary: &Path, options: &[&str]) -> Result<ChildProcess, BenchError> {
    let address = child_process::free_address()?;
    let listen = address.to_string();
    let arguments = [&["sandbox", "--listen", &listen], options].concat();
    let mut child = ChildProcess::start("the sandbox", binary, &arguments, address)?;
    child.listening().await?;
    Ok(child)
}

/// The differences between bridges.
#[derive(Clone)]
pub(crate) struct BridgeTerms {
    pub(crate) sandbox: SocketAddr,
    /// `store.url`.
    pub(crate) store: String,
    /// `cluster.lease_ttl`, if it is not the default.
    pub(crate) lease: Option<Duration>,
    /// The bots beside [`BOT`], each with a webhook of its own.
    pub(crate) hooks: Vec<BotReceiver>,
    /// The names and keys of callers. The chart's limits go with them; without callers the limits are those of 15 000
    /// conversations.
    pub(crate) callers: Vec<(&'static str, &'static str)>,
    /// Further keys of [`BOT`].
    pub(crate) bot_keys: &'static str,
    /// Further tables, in TOML.
    pub(crate) tables: String,
}

/// A bot with its receiver.
#[derive(Clone)]
pub(crate) struct BotReceiver {
    pub(crate) bot: String,
    pub(crate) address: SocketAddr,
}

impl BridgeTerms {
    /// Creates terms with the memory store and every default.
    pub(crate) fn new(sandbox: SocketAddr) -> Self {
        Self {
            sandbox,
            store: "memory://".to_owned(),
            lease: None,
            hooks: Vec::new(),
            callers: Vec::new(),
            bot_keys: "",
            tables: String::new(),
        }
    }

    /// Uses the Redis at this address.
    pub(crate) fn on(self, redis: SocketAddr) -> Self {
        Self { store: store::url(redis), ..self }
    }
}

/// Starts the bridge as a service.
pub(crate) async fn bridge(binary: &Path, terms: &BridgeTerms) -> Result<ChildProcess, BenchError> {
    let (listen, admin) = (child_process::free_address()?, child_process::free_address()?);
    let mut file = tempfile::Builder::new().prefix("rtm-bridge-bench").suffix(".toml").tempfile()?;
    file.write_all(config(listen, admin, terms).as_bytes())?;
    file.flush()?;
    let path = file.path().to_string_lossy().into_owned();
    let mut child = ChildProcess::start("the bridge", binary, &["serve", "--config", &path], listen)?;
    child.keep(file);
    child.ready(admin).await?;
    Ok(child)
}

/// Returns a configuration with defaults, except for rate limits and the limits that 15 000 conversations need. It
/// suppresses the warning about a Redis without persistence.
fn config(listen: SocketAddr, admin: SocketAddr, terms: &BridgeTerms) -> String {
    let BridgeTerms { sandbox, store, lease, hooks, callers, bot_keys, tables } = terms;
    let (connections, connects) = if callers.is_empty() { (18_000, 0) } else { (4000, CONNECTS) };
    // A command must be able to fail and be repeated within a lease.
    let times = lease.map_or_else(String::new, |lease| {
        let (lease, command) = (lease.as_millis(), COMMAND.min(lease / 4).as_millis());
        format!("store.command_timeout = \"{command}ms\"\ncluster.lease_ttl = \"{lease}ms\"")
    });
    let memory = if store.starts_with("memory") { r#"store.memory_limit = "4GiB""# } else { "" };
    let webhooks = if hooks.is_empty() { "" } else { r#"webhooks.allow_private = ["127.0.0.0/8"]"# };
    let hooked = hooks.iter().map(|hook| {
        let webhook = format!(
            "[[bots.webhooks]]\nname = \"main\"\nurl = \"http://{}/hook\"\nsecrets = [\"{SECRET}\"]",
            hook.address
        );
        bot(&hook.bot, &task_bot_id(&hook.bot), *sandbox, connects) + &webhook
    });
    let bots: String =
        std::iter::once(bot(BOT, TASK_BOT_ID, *sandbox, connects) + bot_keys).chain(hooked).collect();
    let callers: String = callers.iter().map(|(name, key)| caller(name, key)).collect();
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
max_connections = {connections}

[log]
format = "text"
filter = "warn,rtm_bridge::store::redis::health=error"
{bots}
{callers}
{tables}"#
    )
}

/// `connects` is the limit of connects a minute.
fn bot(name: &str, id: &str, sandbox: SocketAddr, connects: u32) -> String {
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
connects_per_minute = {connects}
welcome = "0ms"
idle_ttl = "never"
"#
    )
}

fn caller(name: &str, key: &str) -> String {
    let hash = Sha256::digest(key).map(|byte| format!("{byte:02x}")).concat();
    format!("\n[[callers]]\nname = \"{name}\"\nkey_sha256 = \"{hash}\"\nscopes = [\"send\", \"read\"]\n")
}

/// Returns the platform's id of a bot with a webhook.
pub(crate) fn task_bot_id(bot: &str) -> String {
    format!("st-{bot}")
}

/// The secret that signs deliveries.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The default of `store.command_timeout`.
const COMMAND: Duration = Duration::from_secs(2);
/// The default of `bots.connects_per_minute`, where callers share the bridge.
const CONNECTS: u32 = 250;

/// The number of characters of an incarnation in Redis.
pub(crate) const INCARNATION: usize = 16;

/// Returns the key of the heartbeats in Redis: a sorted set of incarnations, each followed by a name.
pub(crate) const fn heartbeats() -> &'static str {
    "rtm:{fleet}:replicas"
}

/// Returns the key of a lease in Redis: a hash with the owner's incarnation in the field `o`.
pub(crate) fn lease(partition: Partition) -> String {
    format!("rtm:{{{partition}}}:lease")
}

/// Returns the name of a user. Concurrent bridges use separate groups, because the platform sends each user's messages to
/// all of the user's sockets.
pub(crate) fn user(group: &str, number: usize) -> String {
    format!("{group}-{number}")
}

/// Returns the bytes of a user's request.
pub(crate) fn request(user: &str, pace: AnswerPace) -> Vec<u8> {
    request_at(&format!("/conversations/{user}/messages"), "", pace)
}

/// Returns the bytes of a user's request with a caller's key.
pub(crate) fn request_with_key(user: &str, key: &str, pace: AnswerPace) -> Vec<u8> {
    let authorization = format!("Authorization: Bearer {key}\r\n");
    request_at(&format!("/conversations/{user}/messages"), &authorization, pace)
}

/// Returns the bytes of a user's request to this bot.
pub(crate) fn request_to(bot: &str, user: &str) -> Vec<u8> {
    request_at(&format!("/conversations/{user}/messages?bot={bot}"), "", AnswerPace::AtOnce)
}

fn request_at(path: &str, headers: &str, pace: AnswerPace) -> Vec<u8> {
    let text = pace.text();
    let body = format!(r#"{{"text":"{text}","turn":{{"expectReplies":1}}}}"#);
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Type: application/json\r\n\
         Prefer: wait=30\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns the request of a reader of one user's new events.
pub(crate) fn reading(user: &str) -> Vec<u8> {
    format!(
        "GET /conversations/{user}/events?after=latest HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    )
    .into_bytes()
}

/// Returns the request that makes the simulated bot speak unasked.
pub(crate) fn push(sandbox: SocketAddr, user: &str, text: &str) -> Vec<u8> {
    pushed(sandbox, &format!(r#"{{"user":"{user}","text":"{text}"}}"#))
}

/// Returns the request that makes the bot with this id speak unasked.
pub(crate) fn push_by(sandbox: SocketAddr, id: &str, user: &str, text: &str) -> Vec<u8> {
    pushed(sandbox, &format!(r#"{{"bot":"{id}","user":"{user}","text":"{text}"}}"#))
}

fn pushed(sandbox: SocketAddr, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /sandbox/push HTTP/1.1\r\nHost: {sandbox}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The sandbox's answer if one socket received the text.
pub(crate) const PUSHED: &[u8] = br#"{"sockets":1}"#;

/// Returns the frame with the same text for a direct turn.
pub(crate) fn frame(number: u64, pace: AnswerPace) -> String {
    let text = pace.text();
    format!(
        r#"{{"clientMessageId":{number},"id":{number},"resourceid":"/bot.message","message":{{"body":"{text}","attachments":[]}},"botInfo":{{"chatBot":"{CHAT_BOT}","taskBotId":"{TASK_BOT_ID}"}},"client":"sdk","meta":{{"timezone":"UTC","locale":"en-US"}}}}"#
    )
}
