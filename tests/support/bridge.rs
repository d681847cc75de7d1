//! A bridge as the program runs it, on free ports, with its own simulated platform.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::app::Bridge;
use rtm_bridge::config::{BotConfig, Config, QuietRule};
use rtm_bridge::domain::fixtures::sandbox_conversation;
use rtm_bridge::domain::{DeliveryState, JournalEntry, ReadStart};
use rtm_bridge::store::{DeliveryQuery, Store};
use rtm_sandbox::{Behaviour, Sandbox, SandboxOptions, SandboxScript, WelcomeTime};
use serde_json::Value;

use super::{Answer, Caller, Request, until};

/// A bridge, its platform, and a caller. End it with [`TestBridge::finish`].
pub(crate) struct TestBridge {
    pub(crate) bridge: Bridge,
    sandbox: Sandbox,
    pub(crate) script: SandboxScript,
    pub(crate) api: Caller,
    pub(crate) admin: Caller,
}

/// Returns the only bot of a configuration.
pub(crate) fn bot(config: &mut Config) -> &mut BotConfig {
    Arc::make_mut(&mut config.bots[0])
}

/// Starts a bridge whose bot sends no welcome and ends its turns soon.
pub(crate) async fn spawn_bridge(change: impl FnOnce(&mut Config)) -> TestBridge {
    spawn_bridge_on(quiet_platform(), change).await
}

/// Starts a bridge with these options of the platform.
pub(crate) async fn spawn_bridge_on(options: SandboxOptions, change: impl FnOnce(&mut Config)) -> TestBridge {
    let sandbox = Sandbox::start(options).await.unwrap();
    let mut config = small(&sandbox.url());
    change(&mut config);
    let bridge = Bridge::start(config).await.unwrap();
    let addresses = bridge.addresses();
    TestBridge {
        bridge,
        script: sandbox.script(),
        sandbox,
        api: Caller(addresses.api),
        admin: Caller(addresses.admin),
    }
}

/// Returns the configuration of a small, fast bridge on free ports for this platform.
pub(super) fn small(platform: &str) -> Config {
    let mut config = Config::dev(platform.parse().unwrap());
    config.server.listen.set_port(0);
    config.server.admin_listen.set_port(0);
    config.server.threads = 1;
    config.server.grace = Duration::ZERO;
    config.server.ready_without_store = Duration::ZERO;
    config.server.drain_timeout = Duration::from_secs(3);
    let simulated = bot(&mut config);
    simulated.welcome = Duration::ZERO;
    simulated.quiet = QuietRule::Fixed(Duration::from_millis(400));
    simulated.history_settle = Duration::from_millis(200);
    simulated.user_rate_per_minute = 0;
    simulated.connects_per_minute = 0;
    config
}

/// Returns the options of a documented platform without a welcome.
pub(crate) fn quiet_platform() -> SandboxOptions {
    SandboxOptions {
        behaviour: Behaviour { welcome: WelcomeTime::Off, ..Behaviour::default() },
        rate_per_minute: 0,
        ..SandboxOptions::default()
    }
}

impl TestBridge {
    pub(crate) async fn send(&self, request: Request) -> Answer {
        self.api.send(request).await
    }

    /// Returns a caller of the platform itself.
    pub(crate) fn platform(&self) -> Caller {
        Caller(self.sandbox.address())
    }

    /// Posts a body with the longest possible wait.
    pub(crate) async fn post(&self, user: &str, body: &Value) -> Answer {
        self.send(Request::message(user, body).prefer("wait=55")).await
    }

    /// Posts a body without a wait and returns the message's location.
    pub(crate) async fn post_async(&self, user: &str, body: &Value) -> String {
        let answer = self.send(Request::message(user, body).prefer("respond-async")).await;
        answer.message(202);
        answer.header("location").unwrap().to_owned()
    }

    /// Returns the current message at a location.
    pub(crate) async fn read(&self, location: &str) -> Value {
        self.api.get(location).await.message(200)
    }

    /// Returns the message at a location after its end.
    pub(crate) async fn ended(&self, location: &str) -> Value {
        self.send(Request::get(location).prefer("wait=55")).await.message(200)
    }

    /// Returns the message at a location as soon as the condition holds.
    pub(crate) async fn read_when(&self, location: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.read(location).await;
            if is_so(&message) {
                return message;
            }
        }
    }

    /// Returns a counter or gauge by its name and labels, without the common prefix.
    pub(crate) async fn metric(&self, series: &str) -> i64 {
        let text = self.admin.get("/metrics").await;
        let value = |line: &str| {
            line.strip_prefix("rtm_bridge_")?.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned)
        };
        let value = text.text().lines().find_map(value);
        value.unwrap_or_else(|| panic!("no {series} in {}", text.text())).parse().unwrap()
    }

    /// Returns the number of messages that have not ended.
    pub(crate) fn open(&self) -> usize {
        let Store::Memory(memory) = self.bridge.store() else { panic!("the embedded store") };
        memory.stats().open
    }

    /// Returns the journal of a user's conversation.
    pub(crate) fn journal(&self, user: &str) -> Vec<JournalEntry> {
        let Store::Memory(memory) = self.bridge.store() else { panic!("the embedded store") };
        let conversation = sandbox_conversation(user);
        let (mut after, mut entries) = (ReadStart::Oldest, Vec::new());
        loop {
            let page = memory.page(&conversation, after, 1000, None);
            assert!(!page.gap, "not the whole journal");
            entries.extend(page.entries.into_iter().map(|told| told.entry));
            if !page.more {
                return entries;
            }
            after = ReadStart::Cursor(page.next);
        }
    }

    /// Returns the number of deliveries that are pending.
    pub(crate) fn undelivered(&self) -> usize {
        let Store::Memory(memory) = self.bridge.store() else { panic!("the embedded store") };
        let pending = Some(DeliveryState::Pending);
        memory
            .deliveries(&DeliveryQuery { state: pending, limit: 1000, ..DeliveryQuery::default() })
            .deliveries
            .len()
    }

    /// Ends the bridge and checks that no message is open and no delivery is pending.
    pub(crate) async fn finish(self) {
        until("nothing is left in the outbox", async || self.undelivered() == 0).await;
        self.finish_leaving(0).await;
    }

    /// Ends the bridge with this number of pending deliveries, which are lost with the memory store.
    pub(crate) async fn finish_leaving(self, undelivered: usize) {
        assert_eq!(self.open(), 0, "messages are open at the end of the test");
        assert_eq!(self.undelivered(), undelivered, "deliveries in the outbox at the end of the test");
        println!("the bridge stops");
        self.bridge.stop().await;
        println!("the platform stops");
        self.sandbox.stop().await;
    }

    /// Returns a future that ends the bridge, with the script and the caller for later checks.
    pub(crate) fn into_stop(self) -> (impl Future<Output = ()>, SandboxScript, Caller, Caller, Sandbox) {
        let Self { bridge, sandbox, script, api, admin } = self;
        (async move { bridge.stop().await }, script, api, admin, sandbox)
    }
}
