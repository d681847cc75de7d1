//! Callers that keep a fleet busy during a fault of its store, and the problems that they may get.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::domain::Partition;
use rtm_bridge::domain::fixtures::sandbox_conversation;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Answer, Bot, Caller, Fleet, Ledger, RedisServer, Resp, until};

/// The longest wait of a request.
const WAIT: u64 = 3;
/// A request must not take longer: its wait, one command, and a busy machine.
const NEVER: Duration = Duration::from_secs(10);
/// The pause between a refusal and the retry. It is short because the leases are.
const PAUSE: Duration = Duration::from_millis(50);

/// Users that talk all the time.
pub(super) struct Load {
    pub(super) ledger: Ledger,
    users: usize,
    ends: Cell<bool>,
    /// The number of refusals by problem.
    refused: RefCell<BTreeMap<String, usize>>,
}

impl Load {
    pub(super) fn of(users: usize) -> Self {
        Self { ledger: Ledger::default(), users, ends: Cell::default(), refused: RefCell::default() }
    }

    /// Lets users talk to all replicas while `meanwhile` runs, and until more messages are accepted after it. Only these
    /// problems are allowed.
    pub(super) async fn during(&self, fleet: &Fleet, allowed: &[&str], meanwhile: impl Future<Output = ()>) {
        Bot { replies: 1 }.speak(&fleet.script);
        let callers = fleet.callers();
        let talks = join_all((0..self.users).map(|user| self.talk(&callers, user, allowed)));
        let conducts = async {
            self.more(20).await;
            meanwhile.await;
            self.more(20).await;
            self.ends.set(true);
        };
        tokio::join!(talks, conducts);
        self.ends.set(false);
        println!("{} promised, refused: {:?}", self.ledger.promised(), self.refused.borrow());
    }

    /// Waits until so many more messages are accepted.
    pub(super) async fn more(&self, count: usize) {
        let wanted = self.ledger.promised() + count;
        until("messages are taken", async || self.ledger.promised() >= wanted).await;
    }

    /// Returns how often callers got this problem.
    pub(super) fn told(&self, slug: &str) -> usize {
        self.refused.borrow().get(slug).copied().unwrap_or_default()
    }

    async fn talk(&self, callers: &[Caller], user: usize, allowed: &[&str]) {
        let turn = json!({"turn": {"expectReplies": 1}});
        let name = format!("user{user}");
        let mut number = user;
        while !self.ends.get() {
            number += 1;
            let prefer =
                if number.is_multiple_of(4) { "respond-async".to_owned() } else { format!("wait={WAIT}") };
            let asked = self.ledger.post(callers[number % callers.len()], &name, &turn, &prefer);
            let answer = timeout(NEVER, asked).await.expect("an answer").unwrap();
            if answer.status >= 300 {
                let slug = slug(&answer);
                assert!(allowed.contains(&&*slug), "{answer}");
                if answer.status == 503 {
                    assert!(answer.retry_after() >= 1, "{answer}");
                }
                *self.refused.borrow_mut().entry(slug).or_default() += 1;
                sleep(PAUSE).await;
            }
        }
    }
}

/// Returns the problem of an answer.
fn slug(answer: &Answer) -> String {
    answer.json()["type"].as_str().and_then(|kind| kind.strip_prefix("/problems/")).unwrap().to_owned()
}

/// Returns the duration and the result of a future.
pub(super) async fn timed<T>(what: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let value = what.await;
    (began.elapsed(), value)
}

/// Returns the sum of a counter over all replicas, by its name and labels without the common prefix.
pub(super) async fn sum(fleet: &Fleet, series: &str) -> u64 {
    let mut sum = 0;
    for replica in &fleet.replicas {
        let metrics = replica.admin.get("/metrics").await;
        let value = |line: &str| {
            line.strip_prefix("rtm_bridge_")?.strip_prefix(series)?.strip_prefix(' ')?.parse::<u64>().ok()
        };
        sum += metrics.text().lines().find_map(value).unwrap_or_else(|| panic!("no {series}"));
    }
    sum
}

/// Waits until all replicas report ready.
pub(super) async fn all_ready(fleet: &Fleet) {
    for replica in &fleet.replicas {
        until("the replica is ready", async || replica.admin.get("/readyz").await.status == 200).await;
    }
}

/// Waits until the store has so many replicas as waiters for the message.
pub(super) async fn watched(redis: &RedisServer, location: &str, replicas: usize) {
    let parts: Vec<_> = location.split(['/', '?']).collect();
    let (user, id) = (parts[2], parts[4]);
    let partition = partition(user);
    let key = format!("rtm:{{{partition}}}:c:sandbox/{user}");
    until("it is waited for", async || match redis.command(&["HGET", &key, "s"]).await {
        // The words of open messages are `ID:SIGNS:DIGEST:WATCHERS:..`.
        Resp::Text(state) => state
            .split(' ')
            .find(|word| word.starts_with(id))
            .and_then(|word| word.split(':').nth(3))
            .is_some_and(|watchers| watchers.len() >= replicas * 16),
        _ => false,
    })
    .await;
}

/// Returns the partition of a user of the simulated bot.
pub(super) fn partition(user: &str) -> Partition {
    Partition::of(&sandbox_conversation(user))
}
