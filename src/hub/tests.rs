//! The hub with its shards, the memory store and the simulated platform.

use std::sync::atomic::AtomicBool;

use url::Url;

use tokio::time::{Instant, sleep};

use super::*;
use crate::config::{BotConfig, Config};
use crate::domain::fixtures::{new_message, sandbox_conversation};
use crate::domain::{BotName, NewMessage, Problem, ProblemKind, Timestamp, TurnOutcome, TurnRules};
use crate::metrics::LabelSets;
use crate::metrics::Metrics;
use crate::store::MemoryLimits;
use crate::store::fixtures::accept_request;
use rtm_sandbox::{Sandbox, SandboxOptions};

/// The chat bot whose next connect panics if [`PANIC`] is set. Tests run in parallel.
const BUGGY: &str = "Buggy";
static PANIC: AtomicBool = AtomicBool::new(false);

/// Panics in the task of a conversation if a test asked for it.
pub(super) fn panic_if_armed(bot: &BotConfig) {
    assert!(&*bot.chat_bot != BUGGY || !PANIC.swap(false, Ordering::Relaxed), "on purpose");
}

/// The timeout of every wait.
const GUARD: Duration = Duration::from_secs(20);
/// The poll interval for facts without a notification.
const POLL: Duration = Duration::from_millis(5);

struct HubFixture {
    shards: HubThreads,
    metrics: Arc<Metrics>,
    sandbox: Sandbox,
    posted: u128,
}

impl HubFixture {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let mut config = Config::dev(Url::parse(&sandbox.url()).unwrap());
        config.server.threads = 1;
        change(&mut config);
        let metrics = metrics();
        let shards = Hub::start(&config, store(), &metrics, crate::store::outbox_events().0).await.unwrap();
        Self { shards, metrics, sandbox, posted: 0 }
    }

    fn accept(&mut self, user: &str, text: &str) -> AcceptRequest {
        self.posted += 1;
        accept(self.shards.hub(), self.posted, user, text)
    }

    /// Posts a message and waits for its end.
    async fn say(&mut self, user: &str, text: &str) -> TurnOutcome {
        let accept = self.accept(user, text);
        let posted = self.shards.hub().post(accept, Some(GUARD)).await.unwrap();
        posted.message.progress.outcome.unwrap()
    }

    /// Waits until at most this number of conversations is in memory.
    async fn until_at_most(&self, conversations: i64) {
        let fell = async {
            while self.metrics.conversations.get() > conversations {
                sleep(POLL).await;
            }
        };
        timeout(GUARD, fell).await.expect("conversations leave");
    }

    async fn stop(self) {
        self.shards.stop(Instant::now() + GUARD).await;
        assert_eq!(self.metrics.conversations.get(), 0);
        let text = self.metrics.text().unwrap();
        let left: Vec<_> = text.lines().filter(|line| is_socket(line)).collect();
        assert!(left.is_empty(), "closed sockets are still counted: {left:?}");
        self.sandbox.stop().await;
    }
}

pub(super) fn metrics() -> Arc<Metrics> {
    let words = LabelSets { frames_in: FRAMES_IN, frames_out: FRAMES_OUT, routes: &[] };
    Arc::new(Metrics::new(words).unwrap())
}

pub(super) fn store() -> Store {
    Store::memory(MemoryLimits::new(1 << 24, Duration::from_mins(1)))
}

fn accept(hub: &Hub, number: u128, user: &str, text: &str) -> AcceptRequest {
    accept_by(hub.incarnation(), number, user, text)
}

pub(super) fn accept_by(by: Incarnation, number: u128, user: &str, text: &str) -> AcceptRequest {
    let rules = TurnRules::new(Some(1), None, Some(5000)).unwrap();
    let message = NewMessage { rules, ..new_message(sandbox_conversation(user), text) };
    AcceptRequest { watched: true, ..accept_request(by, number, message) }
}

fn is_socket(line: &str) -> bool {
    line.starts_with("rtm_bridge_sockets{") && !line.ends_with(" 0")
}

pub(super) fn quick(config: &mut Config, change: impl FnOnce(&mut BotConfig)) {
    let mut bot = BotConfig::clone(&config.bots[0]);
    bot.welcome = Duration::ZERO;
    change(&mut bot);
    config.bots = vec![Arc::new(bot)];
}

#[tokio::test]
async fn panic_fails_open_messages_and_the_next_one_works() {
    let mut fixture = HubFixture::start(|config| quick(config, |bot| bot.chat_bot = BUGGY.into())).await;
    PANIC.store(true, Ordering::Relaxed);
    let failed = fixture.say("alice", "Hello").await;
    assert!(matches!(failed, TurnOutcome::Failed(Problem { kind: ProblemKind::Internal, .. })), "{failed:?}");
    assert_eq!(fixture.metrics.panics.get(), 1);
    assert!(matches!(fixture.say("alice", "Hello").await, TurnOutcome::Answered(_)));
    timeout(GUARD, fixture.shards.drain(Instant::now() + GUARD)).await.expect("no message is open");
    fixture.stop().await;
}

#[tokio::test]
async fn idle_conversations_are_evicted_and_come_back() {
    let mut fixture = HubFixture::start(|config| {
        config.server.max_sockets = 4;
        quick(config, |_| ());
    })
    .await;
    for user in 0..12 {
        assert!(matches!(fixture.say(&format!("user-{user}"), "Hello").await, TurnOutcome::Answered(_)));
    }
    fixture.until_at_most(4).await;
    for user in 0..12 {
        assert!(matches!(fixture.say(&format!("user-{user}"), "Hello").await, TurnOutcome::Answered(_)));
    }
    fixture.until_at_most(4).await;
    fixture.stop().await;
}

#[tokio::test]
async fn burst_evicts_enough_for_all_of_its_messages() {
    let mut fixture = HubFixture::start(|config| {
        config.server.max_sockets = 10;
        quick(config, |_| ());
    })
    .await;
    for round in 0..3 {
        let hub = fixture.shards.hub().clone();
        let accepts: Vec<_> =
            (0..8).map(|user| fixture.accept(&format!("{round}-{user}"), "Hello")).collect();
        let posts = accepts.into_iter().map(|accept| hub.post(accept, Some(GUARD)));
        for posted in futures_util::future::join_all(posts).await {
            assert!(matches!(posted.unwrap().message.progress.outcome, Some(TurnOutcome::Answered(_))));
        }
    }
    fixture.until_at_most(10).await;
    fixture.stop().await;
}

#[tokio::test]
async fn stop_releases_waiters_and_partitions_at_once() {
    let mut fixture = HubFixture::start(|config| quick(config, |_| ())).await;
    let accept = fixture.accept("alice", "/silent");
    let (id, conversation) = (accept.id, accept.message.conversation.clone());
    let hub = fixture.shards.hub().clone();
    hub.post(accept, None).await.unwrap();
    let waiting = hub.message(&conversation, id, Some(GUARD));
    let stopping = async {
        // The command of the wait is in the queue before the stop.
        tokio::task::yield_now().await;
        let started = Instant::now();
        fixture.shards.refuse();
        fixture.shards.stop(started + GUARD).await;
        started.elapsed()
    };
    let (message, took) = tokio::join!(waiting, stopping);
    assert!(!message.unwrap().unwrap().progress.has_ended());
    assert!(took < Duration::from_secs(3), "{took:?}");
    let partition = Partition::of(&conversation);
    assert!(
        hub.store
            .claim(partition, Incarnation(7), Duration::from_secs(1), crate::store::ClaimMode::Free)
            .await
            .unwrap()
            .fence()
            .is_some()
    );
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn end_before_the_answer_to_the_accept_counts() {
    let (commands, mut inbox) = mpsc::channel(8);
    let shard = ShardHandle { commands, busy: Arc::default() };
    let store = store();
    let leases = Arc::new(LeaseTable::new(Incarnation(1), Duration::from_mins(1), 1));
    let hub = Hub {
        store: store.clone(),
        leases: Arc::clone(&leases),
        shards: [shard].into(),
        metrics: metrics().fleet.clone(),
        fleet: watch::channel(Arc::default()).1,
        waits: Arc::default(),
        max_busy: 1,
        rhythms: Arc::default(),
        shares: Arc::new(OpenMessageShares::new(&Config::dev(Url::parse("http://127.0.0.1:1").unwrap()))),
    };
    let accept = accept(&hub, 1, "alice", "Hello");
    let (id, conversation) = (accept.id, accept.message.conversation.clone());
    let partition = Partition::of(&conversation);
    let claim = store.claim(partition, Incarnation(1), Duration::from_mins(1), crate::store::ClaimMode::Free);
    leases.claimed(partition, claim.await.unwrap().fence().unwrap(), Instant::now());
    let posting = hub.post(accept, Some(GUARD));
    let ending = async {
        let Some(ShardCommand::Accept(command)) = inbox.recv().await else { panic!("a message") };
        let AcceptCommand { accept, waiter, answer, .. } = *command;
        // The turn ends before the answer of the store arrives.
        store.accept(accept).await.unwrap();
        let mut message = store.message(&conversation, id, None).await.unwrap().unwrap();
        message.progress.outcome = Some(TurnOutcome::Answered(crate::domain::EndedBy::ReplyCount));
        message.progress.ended_at = Some(Timestamp::from_millis(1));
        waiter.expect("a waiter").send(Completion::Ended(message)).unwrap();
        answer
    };
    let (posted, answer) = tokio::join!(timeout(GUARD, posting), ending);
    assert!(posted.unwrap().unwrap().message.progress.has_ended());
    drop(answer);
}

mod fleet;
mod subscribers;
