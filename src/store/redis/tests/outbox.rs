//! The keys and the cost of deliveries in Redis, and lists of deliveries.

use super::*;
use crate::domain::fixtures::{new_delivery, raw_json, sandbox_conversation};
use crate::domain::{DeliveryAttempt, DeliveryId, DeliveryState, NewDelivery};
use crate::store::{
    BeginResult, ClaimedDelivery, DEAD_TTL, DeliveryPage, DeliveryQuery, FinishRequest, FinishResult,
    QueueId, RedeliverResult, RetryDecision, StoreError, StoreRefusal,
};

const HOOK: &str = "https://legacy.example/hook";
const WINDOW: Duration = Duration::from_secs(20);

/// A conversation's owner that delivers too.
struct Owner {
    store: RedisStore,
    conversation: ConversationId,
    fence: Fence,
    write: u64,
}

impl Owner {
    async fn of(store: &RedisStore, conversation: ConversationId) -> Self {
        let claim = store.claim(Partition::of(&conversation), ME, LEASE, ClaimMode::Expired).await.unwrap();
        Self { store: store.clone(), conversation, fence: claim.fence().unwrap(), write: 0 }
    }

    fn partition(&self) -> Partition {
        Partition::of(&self.conversation)
    }

    fn queue(&self) -> QueueId {
        QueueId::of(&self.conversation, Some("main"), HOOK)
    }

    /// Returns a name in Redis.
    fn key(&self, name: &str) -> String {
        format!("t:{{{}}}:{name}", self.partition())
    }

    /// Writes that many deliveries of this time.
    async fn deliver(&mut self, at: Timestamp, many: u64) -> Vec<DeliveryId> {
        self.write += 1;
        let (mut changes, mut ids) = (Vec::new(), Vec::new());
        for number in 1..=many {
            let seq = self.write * 10_000 + number;
            let id = DeliveryId::of(&self.conversation, 7, seq, at);
            let data = raw_json(r#"{"text":"It left the warehouse."}"#);
            let new = NewDelivery { id, data, ..new_delivery(&self.conversation, seq, at, HOOK) };
            changes.extend([reply(seq, at, None, "hello"), ConversationChange::Deliver(Box::new(new))]);
            ids.push(id);
        }
        let write = numbered(self.write, changes);
        self.store.write(self.fence, &self.conversation, &write).await.unwrap();
        ids
    }

    async fn begin(&self, queue: QueueId) -> BeginResult {
        let token = fastrand::u64(..);
        self.store.begin(self.partition(), self.fence, queue, token, WINDOW).await.unwrap()
    }

    /// Attempts the first delivery of the queue once.
    async fn attempt(&self, queue: QueueId, decision: RetryDecision) -> FinishResult {
        let BeginResult::Taken(taken) = self.begin(queue).await else { panic!("nothing is due") };
        self.finish(queue, &taken, decision).await
    }

    async fn finish(&self, queue: QueueId, taken: &ClaimedDelivery, decision: RetryDecision) -> FinishResult {
        let attempt = DeliveryAttempt {
            at: taken.now,
            status: Some(503),
            error: Some("answered 503".into()),
            duration: Duration::from_millis(7),
            response: None,
        };
        let finish =
            FinishRequest { claimed: Box::new(taken.clone()), attempt, decision, reports: Vec::new() };
        self.store.finish(self.partition(), self.fence, queue, &finish).await.unwrap()
    }
}

/// Returns the partition's outbox keys, each with its remaining lifetime.
async fn keys(server: &Server) -> Vec<(String, Option<Duration>)> {
    let mut keys = Vec::new();
    for key in server.ask::<Vec<String>>(&["KEYS", "*"]).await {
        let Some((_, name)) = key.split_once("}:") else { continue };
        let name = match name.split_at_checked(2) {
            Some((kind @ ("d:" | "o:"), _)) => kind,
            Some(("x:", _)) => name,
            _ if name == "due" => name,
            _ => continue,
        };
        let left: i64 = server.ask(&["PTTL", &key]).await;
        keys.push((name.to_owned(), u64::try_from(left).ok().map(Duration::from_millis)));
    }
    keys.sort();
    keys
}

/// Checks that these keys exist, and about this lifetime of those that expire.
async fn expect(server: &Server, expected: &[(&str, Option<Duration>)]) {
    let keys = keys(server).await;
    let names = |keys: &[(String, Option<Duration>)]| keys.iter().map(|(name, _)| name.clone()).collect();
    let expected_names: Vec<String> = expected.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(expected_names, Vec::from_iter::<Vec<String>>(names(&keys)), "{keys:?}");
    for ((name, left), (_, span)) in keys.iter().zip(expected) {
        let fits = match (left, span) {
            (None, None) => true,
            (Some(left), Some(span)) => left <= span && span.saturating_sub(*left) < Duration::from_mins(1),
            _ => false,
        };
        assert!(fits, "{name} has {left:?} left, not {span:?}");
    }
}

#[tokio::test]
async fn pending_delivery_stays_and_settled_one_expires() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    let ids = alice.deliver(at, 2).await;
    let pending = [("d:", None), ("d:", None), ("due", None), ("o:", None), ("x:pending", None)];
    expect(&server, &pending).await;
    // The delivery is in flight, then waits for its next attempt.
    assert!(matches!(alice.begin(alice.queue()).await, BeginResult::Taken(_)));
    expect(&server, &pending).await;
    store.skew(WINDOW);
    assert!(alice.attempt(alice.queue(), RetryDecision::Retry(Duration::ZERO)).await.next.is_some());
    expect(&server, &pending).await;
    assert!(alice.attempt(alice.queue(), RetryDecision::Delivered).await.next.is_some());
    expect(
        &server,
        &[
            ("d:", None),
            ("d:", Some(MESSAGE_TTL)),
            ("due", None),
            ("o:", None),
            ("x:delivered", Some(MESSAGE_TTL)),
            ("x:pending", None),
        ],
    )
    .await;
    assert_eq!(alice.attempt(alice.queue(), RetryDecision::DeadLetter("gone".into())).await.next, None);
    expect(
        &server,
        &[
            ("d:", Some(MESSAGE_TTL)),
            ("d:", Some(DEAD_TTL)),
            ("x:dead", Some(DEAD_TTL)),
            ("x:delivered", Some(MESSAGE_TTL)),
        ],
    )
    .await;
    // A redelivered one is pending like any other, without an expiry.
    for id in ids {
        assert_eq!(store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
        assert_eq!(store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    }
    expect(
        &server,
        &[("d:", None), ("d:", None), ("due", None), ("o:", None), ("o:", None), ("x:pending", None)],
    )
    .await;
    let due: u64 = server.ask(&["ZCARD", &alice.key("due")]).await;
    let pending: u64 = server.ask(&["ZCARD", &alice.key("x:pending")]).await;
    assert_eq!((due, pending), (2, 2));
}

#[tokio::test]
async fn expired_delivery_leaves_the_index_at_a_list() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    let ids = alice.deliver(at, 30).await;
    for _ in 0..20 {
        alice.attempt(alice.queue(), RetryDecision::Delivered).await;
    }
    // The first one stays, because it was delivered later than it happened.
    let mut delivered: Vec<_> = ids[..20].to_vec();
    delivered.sort_unstable();
    for id in &delivered[1..] {
        server.ask::<()>(&["DEL", &alice.key(&format!("d:{id}"))]).await;
    }
    let named = async || server.ask::<u64>(&["ZCARD", &alice.key("x:delivered")]).await;
    alice.attempt(alice.queue(), RetryDecision::Delivered).await;
    let before = named().await;
    assert!(before >= 20, "what is behind the first may wait for it: {before}");
    server.ask::<()>(&["DEL", &alice.key(&format!("d:{}", delivered[0]))]).await;
    // Expired deliveries are not listed, and a list removes them from the index.
    let query =
        DeliveryQuery { state: Some(DeliveryState::Delivered), limit: 1000, ..DeliveryQuery::default() };
    let page = store.deliveries(&query).await.unwrap();
    assert_eq!((page.deliveries.len(), page.next, named().await), (1, None, 1));
}

#[tokio::test]
async fn expired_delivery_leaves_the_index_without_a_list() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    let old = alice.deliver(at, 30).await;
    for id in &old {
        alice.attempt(alice.queue(), RetryDecision::DeadLetter("gone".into())).await;
        assert!(store.delivery(*id).await.unwrap().is_some());
    }
    for id in &old {
        server.ask::<()>(&["DEL", &alice.key(&format!("d:{id}"))]).await;
    }
    let mut come = 0;
    loop {
        alice.deliver(at + WINDOW, 1).await;
        alice.attempt(alice.queue(), RetryDecision::DeadLetter("gone".into())).await;
        come += 1;
        let named: u64 = server.ask(&["ZCARD", &alice.key("x:dead")]).await;
        if named == come {
            break;
        }
        assert!(named <= 30 + come && come < 300, "{named} after {come}");
    }
}

#[tokio::test]
async fn repeated_redelivery_is_carried_out_once() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let id = alice.deliver(store.now().await.unwrap(), 1).await[0];
    alice.attempt(alice.queue(), RetryDecision::DeadLetter("gone".into())).await;
    let alone = QueueId::alone(id);
    assert_eq!(store.redeliver_as(id, 7).await.unwrap(), RedeliverResult::Queued);
    assert_eq!(store.redeliver_as(id, 7).await.unwrap(), RedeliverResult::Queued);
    let BeginResult::Taken(taken) = alice.begin(alone).await else { panic!("nothing is due") };
    assert_eq!(store.redeliver_as(id, 7).await.unwrap(), RedeliverResult::Queued, "and under way");
    assert_eq!(store.redeliver_as(id, 8).await.unwrap(), RedeliverResult::InFlight);
    alice.finish(alone, &taken, RetryDecision::Delivered).await;
    assert_eq!(store.redeliver_as(id, 7).await.unwrap(), RedeliverResult::Queued, "and done");
    assert_eq!(store.delivery(id).await.unwrap().unwrap().state, DeliveryState::Delivered);
    assert!(matches!(alice.begin(alone).await, BeginResult::Empty));
    assert_eq!(store.redeliver_as(id, 8).await.unwrap(), RedeliverResult::Queued, "another token");
    assert!(matches!(alice.begin(alone).await, BeginResult::Taken(_)));
}

#[tokio::test]
async fn clock_leap_keeps_order_and_ends() {
    let (server, hour) = (Server::start(), Duration::from_hours(1));
    let store = server.store();
    store.skew(hour);
    let mut alice = Owner::of(&store, alice()).await;
    let ids = alice.deliver(store.now().await.unwrap(), 3).await;
    let BeginResult::Taken(first) = alice.begin(alice.queue()).await else { panic!("nothing is due") };
    // The clock went back: the attempt in flight keeps its whole window, and its end counts.
    store.skew(Duration::ZERO);
    let BeginResult::Later(until) = alice.begin(alice.queue()).await else { panic!("it is in flight") };
    assert_eq!(until, first.now + WINDOW);
    let finished = alice.finish(alice.queue(), &first, RetryDecision::Delivered).await;
    assert!(finished.next.is_some_and(|next| next <= finished.now), "the next one need not wait an hour");
    let BeginResult::Taken(second) = alice.begin(alice.queue()).await else { panic!("nothing is due") };
    assert_eq!(second.delivery.id, ids[1]);
    // The clock went forward: the window is over, another attempt begins, and one end counts.
    store.skew(hour);
    let BeginResult::Taken(again) = alice.begin(alice.queue()).await else { panic!("its time is over") };
    assert_eq!(again.delivery.id, ids[1]);
    let next = alice.finish(alice.queue(), &second, RetryDecision::Delivered).await.next;
    assert_eq!(next, Some(again.now + WINDOW));
    let retried = alice.finish(alice.queue(), &again, RetryDecision::Retry(WINDOW)).await;
    // The clock went back during a wait: the retry is later, before the deliveries behind it.
    store.skew(Duration::ZERO);
    let BeginResult::Later(until) = alice.begin(alice.queue()).await else { panic!("it waits") };
    assert_eq!(Some(until), retried.next);
    store.skew(hour + WINDOW);
    for id in &ids[1..] {
        let BeginResult::Taken(taken) = alice.begin(alice.queue()).await else { panic!("nothing is due") };
        assert_eq!(taken.delivery.id, *id);
        alice.finish(alice.queue(), &taken, RetryDecision::Delivered).await;
    }
}

#[tokio::test]
async fn queue_drops_evicted_deliveries() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    let ids = alice.deliver(at, 4).await;
    let evict = async |id: DeliveryId| {
        server.ask::<()>(&["DEL", &alice.key(&format!("d:{id}"))]).await;
    };
    // The first delivery was in flight, and the one behind it does not wait for that.
    assert!(matches!(alice.begin(alice.queue()).await, BeginResult::Taken(_)));
    evict(ids[0]).await;
    evict(ids[1]).await;
    let BeginResult::Taken(taken) = alice.begin(alice.queue()).await else { panic!("nothing is due") };
    assert_eq!(taken.delivery.id, ids[2]);
    evict(ids[2]).await;
    evict(ids[3]).await;
    let outbox = store.outbox(alice.partition(), alice.fence, 0).await.unwrap();
    assert!(outbox.queues.is_empty() && outbox.next.is_none());
    assert!(matches!(alice.begin(alice.queue()).await, BeginResult::Empty));
    assert_eq!(server.ask::<u64>(&["EXISTS", &alice.key("due")]).await, 0);
    let query = DeliveryQuery { limit: 10, ..DeliveryQuery::default() };
    assert!(store.deliveries(&query).await.unwrap().deliveries.is_empty());
    expect(&server, &[]).await;
}

#[tokio::test]
async fn corrupt_delivery_fails_and_other_queues_go_on() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    // The codec or the script itself finds it.
    let unexpected = StoreRefusal::Unexpected;
    let corrupt = [StoreError::Unavailable(unexpected), StoreError::Halfway(unexpected)];
    for (field, value) in [("n", "{}"), ("b", "{"), ("c", "nobody"), ("s", "odd"), ("s", "")] {
        let id = alice.deliver(at, 1).await[0];
        server.ask::<()>(&["HSET", &alice.key(&format!("d:{id}")), field, value]).await;
        let begun = store.begin(alice.partition(), alice.fence, alice.queue(), 1, WINDOW).await;
        assert!(corrupt.contains(&begun.unwrap_err()), "{field} {value}");
        assert!(corrupt.contains(&store.delivery(id).await.unwrap_err()), "{field} {value}");
        server.ask::<()>(&["DEL", &alice.key(&format!("d:{id}"))]).await;
        store.skew(WINDOW);
    }
    alice.deliver(at, 1).await;
    assert!(matches!(alice.begin(alice.queue()).await, BeginResult::Taken(_)));
}

#[tokio::test]
async fn full_store_still_takes_and_ends_deliveries() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let id = alice.deliver(at, 1).await[0];
    alice.attempt(alice.queue(), RetryDecision::DeadLetter("gone".into())).await;
    assert_eq!(store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    assert_eq!(alice.attempt(QueueId::alone(id), RetryDecision::Delivered).await.next, None);
    assert_eq!(store.delivery(id).await.unwrap().unwrap().state, DeliveryState::Delivered);
}

#[tokio::test]
async fn stored_delivery_is_small() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    let used = async || {
        let mut bytes = 0;
        for key in server.ask::<Vec<String>>(&["KEYS", "*"]).await {
            if ["}:d:", "}:o:", "}:x:", "}:due"].iter().any(|kind| key.contains(kind)) {
                bytes += server.ask::<u64>(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]).await;
            }
        }
        bytes
    };
    alice.deliver(at, 1).await;
    let pending = used().await;
    assert!(pending < 1400, "one that waits, with its queue: {pending}");
    alice.deliver(at, 200).await;
    let more = used().await;
    assert!(more - pending < 200 * 900, "200 that wait behind it: {more}");
    for _ in 0..201 {
        alice.attempt(alice.queue(), RetryDecision::Delivered).await;
    }
    let delivered = used().await;
    assert!(delivered < 201 * 1100, "delivered: {delivered}");
}

#[tokio::test]
async fn attempt_is_two_calls_without_a_wait_for_replicas() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    alice.deliver(at, 1).await;
    let options = crate::config::StoreConfig { wait_replicas: 1, ..server.patient() };
    alice.store = RedisStore::new(&options).unwrap();
    alice.begin(QueueId::of(&alice.conversation, None, "nowhere")).await;
    alice.store.skew(WINDOW);
    alice.attempt(alice.queue(), RetryDecision::Retry(Duration::ZERO)).await;
    let before = alice.store.traffic();
    alice.attempt(alice.queue(), RetryDecision::Delivered).await;
    let after = alice.store.traffic();
    assert_eq!((after.commands - before.commands, after.round_trips - before.round_trips), (2, 2));
}

/// Returns how often scripts ran this command.
async fn calls(server: &Server, command: &str) -> u64 {
    let stats: String = server.ask(&["INFO", "commandstats"]).await;
    let prefix = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn success_at_first_takes_no_script_that_decides() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    // The first write fills the cache of the owner. Redis learns all scripts.
    alice.deliver(at, 1).await;
    alice.attempt(alice.queue(), RetryDecision::Retry(Duration::ZERO)).await;
    alice.attempt(alice.queue(), RetryDecision::Delivered).await;
    for _ in 0..8 {
        let id = alice.deliver(at, 1).await[0];
        alice.attempt(alice.queue(), RetryDecision::Delivered).await;
        assert!(store.delivery(id).await.unwrap().is_some());
    }
    // Scripts that decide read hashes by HMGET.
    let (before, read) = (store.traffic().commands, calls(&server, "hmget").await);
    for _ in 0..20 {
        let ids = alice.deliver(at, 2).await;
        for (id, is_last) in ids.into_iter().zip([false, true]) {
            let finished = alice.attempt(alice.queue(), RetryDecision::Delivered).await;
            assert_eq!(finished.next, (!is_last).then_some(finished.now));
            let delivery = store.delivery(id).await.unwrap().unwrap();
            assert_eq!((delivery.state, delivery.attempts.len()), (DeliveryState::Delivered, 1));
        }
    }
    let commands = store.traffic().commands - before;
    assert_eq!(commands, 20 * (1 + 2 * 3), "a write of two, and begin, end and read of each");
    let read = calls(&server, "hmget").await - read;
    assert!(read <= 40, "about every tenth end sweeps the index: {read}");
}

#[tokio::test]
async fn wrong_guess_of_the_owner_goes_to_a_script() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    alice.deliver(at, 1).await;
    alice.attempt(alice.queue(), RetryDecision::Delivered).await;
    // Another replica moves the first delivery to a queue of its own.
    let ids = alice.deliver(at, 2).await;
    assert_eq!(store.redeliver(ids[0]).await.unwrap(), RedeliverResult::Queued);
    let BeginResult::Taken(taken) = alice.begin(alice.queue()).await else { panic!("nothing is due") };
    assert_eq!(taken.delivery.id, ids[1]);
    // Another attempt begins after the window of this one, so its end changes nothing.
    store.skew(WINDOW);
    let BeginResult::Taken(other) = alice.begin(alice.queue()).await else { panic!("nothing is due") };
    let finished = alice.finish(alice.queue(), &taken, RetryDecision::Delivered).await;
    assert_eq!(finished.next, Some(other.now + WINDOW));
    // A new owner fences off the old one.
    let heir = Owner::of(&store, alice.conversation.clone()).await;
    let begun = store.begin(alice.partition(), alice.fence, QueueId::alone(ids[0]), 1, WINDOW).await;
    assert_eq!(begun.unwrap_err(), StoreError::Fenced);
    assert!(matches!(heir.begin(QueueId::alone(ids[0])).await, BeginResult::Taken(_)));
}

/// Creates that many users. Most own a partition alone.
async fn owners(store: &RedisStore, many: usize) -> Vec<Owner> {
    let mut owners = Vec::new();
    for number in 0..many {
        owners.push(Owner::of(store, sandbox_conversation(&format!("user {number}"))).await);
    }
    // Each claim of the same partition fences off the one before.
    for number in 0..many {
        let partition = owners[number].partition();
        let fence = owners.iter().rev().find(|owner| owner.partition() == partition).unwrap().fence;
        owners[number].fence = fence;
    }
    owners
}

/// Returns all matches in pages of the limit, and the number of pages.
async fn pages(store: &RedisStore, query: &DeliveryQuery) -> (Vec<DeliveryId>, usize) {
    let (mut ids, mut pages, mut query) = (Vec::new(), 0, query.clone());
    loop {
        let DeliveryPage { deliveries, next } = store.deliveries(&query).await.unwrap();
        assert!(deliveries.len() <= query.limit);
        ids.extend(deliveries.iter().map(|delivery| delivery.new.id));
        pages += 1;
        let Some(next) = next else { return (ids, pages) };
        query.before = Some(next);
    }
}

#[tokio::test]
async fn list_is_in_order_and_asks_each_partition_once() {
    let server = Server::start();
    let store = server.store();
    let start = store.now().await.unwrap();
    let mut all = Vec::new();
    let mut owners = owners(&store, 300).await;
    for (number, owner) in owners.iter_mut().enumerate() {
        all.extend(owner.deliver(start + Duration::from_millis(number as u64 % 100), 2).await);
    }
    all.sort_unstable_by(|one, other| other.cmp(one));
    for limit in [7, 100, 599, 600, 601, 1000] {
        let query = DeliveryQuery { limit, ..DeliveryQuery::default() };
        let (ids, pages) = pages(&store, &query).await;
        assert_eq!(ids, all, "{limit}");
        assert_eq!(pages, all.len().div_ceil(limit), "no page is short where there is enough");
    }
    // A partition that fills pages alone is asked again.
    let many = owners[0].deliver(start + Duration::from_secs(1), 400).await;
    let query = DeliveryQuery { limit: 150, ..DeliveryQuery::default() };
    let (ids, pages) = pages(&store, &query).await;
    assert_eq!((ids.len(), pages), (1000, 7));
    assert!(ids[..400].iter().all(|id| many.contains(id)) && ids[400..] == all);

    let before = store.traffic().commands;
    let query = DeliveryQuery { limit: 20, before: all.first().copied(), ..DeliveryQuery::default() };
    assert_eq!(store.deliveries(&query).await.unwrap().deliveries.len(), 20);
    let asked = store.traffic().commands - before;
    assert!(
        (256..=256 + 20).contains(&asked),
        "each partition for names, some for what is on the page: {asked}"
    );
    let before = store.traffic().commands;
    let (bot, user) = (owners[0].conversation.bot().clone(), owners[0].conversation.user().clone());
    let query =
        DeliveryQuery { bots: Some(vec![bot]), user: Some(user), limit: 9, ..DeliveryQuery::default() };
    assert_eq!(store.deliveries(&query).await.unwrap().deliveries.len(), 9);
    assert_eq!(store.traffic().commands - before, 2, "of one conversation, its partition alone");
}

#[tokio::test]
async fn page_with_few_matches_ends_early_and_goes_on() {
    let server = Server::start();
    let store = server.store();
    let start = store.now().await.unwrap();
    let mut alice = Owner::of(&store, alice()).await;
    let neighbour = (0..100_000)
        .map(|number| sandbox_conversation(&format!("user {number}")))
        .find(|neighbour| Partition::of(neighbour) == alice.partition())
        .unwrap();
    let mut other = Owner::of(&store, neighbour).await;
    alice.fence = other.fence;
    let oldest = alice.deliver(start, 1).await;
    for number in 1..12 {
        other.deliver(start + Duration::from_secs(number), 1000).await;
    }
    let newest = alice.deliver(start + Duration::from_mins(1), 1).await;
    let query = DeliveryQuery { user_prefix: "alice".into(), limit: 10, ..DeliveryQuery::default() };
    let first = store.deliveries(&query).await.unwrap();
    assert_eq!(first.deliveries.iter().map(|delivery| delivery.new.id).collect::<Vec<_>>(), newest);
    assert!(first.next.is_some(), "no page looks at all there is");
    let (ids, pages) = pages(&store, &query).await;
    assert_eq!(ids, [newest, oldest].concat());
    assert!(pages <= 3, "{pages}");
}

#[tokio::test]
async fn page_is_bounded_in_bytes() {
    let server = Server::start();
    let store = server.store();
    let mut alice = Owner::of(&store, alice()).await;
    let at = store.now().await.unwrap();
    let mut ids = alice.deliver(at, 5).await;
    // Each has a mebibyte and a half.
    let large = serde_json::to_string(&"x".repeat(3 << 19)).unwrap();
    for id in &ids {
        server.ask::<()>(&["HSET", &alice.key(&format!("d:{id}")), "b", &large]).await;
    }
    ids.sort_unstable_by(|one, other| other.cmp(one));
    let query = DeliveryQuery { limit: 100, ..DeliveryQuery::default() };
    let page = store.deliveries(&query).await.unwrap();
    assert_eq!((page.deliveries.len(), page.next), (2, Some(ids[1])));
    assert_eq!(pages(&store, &query).await, (ids, 3));
}
