//! How much is measured, and everything that depends on the bridge's and the sandbox's own interfaces: their command
//! lines, the configuration, the request, the text that makes the simulated bot answer.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::child::{self, Child};
use crate::failure::Failure;

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
    };
    pub(crate) const QUICK: Self = Self {
        callers: 8,
        users: 20,
        rounds: 3,
        saturation: Duration::from_millis(500),
        rate: 100,
        paced: Duration::from_secs(1),
        idle: [20, 40, 80],
    };

    /// The bridge holds a socket for each idle conversation, and so does the sandbox; some more for the rest.
    pub(crate) fn files_needed(&self) -> u64 {
        u64::try_from(self.idle[2].max(2 * self.users) + 2 * self.callers + 500).unwrap_or(u64::MAX)
    }
}

/// The simulated platform: no rate limit, and nothing kept that grows with the turns.
pub(crate) async fn sandbox(binary: &Path) -> Result<Child, Failure> {
    let address = child::free_address()?;
    let listen = address.to_string();
    let mut child =
        Child::start("the sandbox", binary, &["sandbox", "--listen", &listen, "--load"], address)?;
    child.listening().await?;
    Ok(child)
}

/// The bridge, as a service with the memory store.
pub(crate) async fn bridge(binary: &Path, sandbox: SocketAddr) -> Result<Child, Failure> {
    let (listen, admin) = (child::free_address()?, child::free_address()?);
    let mut file = tempfile::Builder::new().prefix("rtm-bridge-bench").suffix(".toml").tempfile()?;
    file.write_all(config(listen, admin, sandbox).as_bytes())?;
    file.flush()?;
    let path = file.path().to_string_lossy().into_owned();
    let mut child = Child::start("the bridge", binary, &["serve", "--config", &path], listen)?;
    child.keep(file);
    child.ready(admin).await?;
    Ok(child)
}

/// Defaults but for the budgets, which would measure themselves, and the limits that 15 000 conversations need.
fn config(listen: SocketAddr, admin: SocketAddr, sandbox: SocketAddr) -> String {
    format!(
        r#"
[server]
listen = "{listen}"
admin_listen = "{admin}"
max_sockets = 18000

[store]
url = "memory://"
memory_limit = "4GiB"

[[bots]]
name = "bench"
platform = "http://{sandbox}"
api_path = "{API_PATH}"
chat_bot = "{CHAT_BOT}"
task_bot_id = "{TASK_BOT_ID}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
user_rate_per_minute = 0
connects_per_minute = 0
welcome = "0ms"
idle_ttl = "never"

[log]
format = "text"
filter = "warn"
"#
    )
}

/// The request of one user, ready to be written.
pub(crate) fn request(address: SocketAddr, user: usize) -> Vec<u8> {
    let body = format!(r#"{{"text":"{TEXT}","turn":{{"expectReplies":1}}}}"#);
    format!(
        "POST /conversations/user-{user}/messages HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Prefer: wait=30\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The frame that says the same directly.
pub(crate) fn frame(number: u64) -> String {
    format!(
        r#"{{"clientMessageId":{number},"id":{number},"resourceid":"/bot.message","message":{{"body":"{TEXT}","attachments":[]}},"botInfo":{{"chatBot":"{CHAT_BOT}","taskBotId":"{TASK_BOT_ID}"}},"client":"sdk","meta":{{"timezone":"UTC","locale":"en-US"}}}}"#
    )
}
