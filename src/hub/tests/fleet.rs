//! A fleet in one process: several hubs over one memory store and one simulated platform.

use super::*;
use crate::domain::{LinkState, SessionRequest};
use crate::store::{self, ClaimMode, ConversationQuery, MemoryStore, Ownership, ReplicaIdentity};

/// The lifetime of a lease, short enough for tests to wait for.
const LEASE: Duration = Duration::from_secs(2);

pub(super) struct HubReplica {
    pub(super) shards: HubThreads,
    pub(super) metrics: Arc<Metrics>,
}

impl HubReplica {
    pub(super) fn hub(&self) -> &Hub {
        self.shards.hub()
    }

    fn partitions(&self) -> i64 {
        self.hub().leases.held().count().try_into().unwrap()
    }
}

pub(super) struct HubFleet {
    pub(super) store: Store,
    sandbox: Sandbox,
    config: Config,
    pub(super) replicas: Vec<Option<HubReplica>>,
    posted: u128,
}

impl HubFleet {
    /// Starts a fleet. A `deaf` fleet drops all hints.
    pub(super) async fn start(count: usize, deaf: bool) -> Self {
        Self::start_limited(count, deaf, 0).await
    }

    /// Starts a fleet whose bot has a connect limit.
    async fn start_limited(count: usize, deaf: bool, connects_per_minute: u32) -> Self {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let mut config = Config::dev(Url::parse(&sandbox.url()).unwrap());
        config.server.threads = 3;
        config.cluster.lease_ttl = LEASE;
        quick(&mut config, |bot| bot.connects_per_minute = connects_per_minute);
        let mut fleet = Self { store: store(), sandbox, config, replicas: Vec::new(), posted: 0 };
        for _ in 0..count {
            fleet.join(deaf).await;
        }
        fleet.until("every partition has an owner", HubFleet::is_balanced).await;
        fleet
    }

    async fn join(&mut self, deaf: bool) {
        let mut config = self.config.clone();
        config.cluster.replica_id = name(self.replicas.len()).into();
        let metrics = metrics();
        let shards =
            Hub::start(&config, self.store.clone(), &metrics, store::outbox_events().0).await.unwrap();
        shards.hub().leases.faults.deaf.store(deaf, Ordering::Release);
        self.replicas.push(Some(HubReplica { shards, metrics }));
    }

    fn live(&self) -> impl Iterator<Item = &HubReplica> {
        self.replicas.iter().flatten()
    }

    pub(super) fn replica(&self, index: usize) -> &HubReplica {
        self.replicas[index].as_ref().unwrap()
    }

    /// Returns whether every replica has exactly its assigned partitions.
    pub(super) fn is_balanced(&self) -> bool {
        let live = self.replicas.iter().enumerate().filter_map(|(index, replica)| {
            let incarnation = replica.as_ref()?.hub().incarnation();
            Some(ReplicaIdentity { name: name(index), incarnation })
        });
        let assignment = Assignment::over(&live.collect::<Vec<_>>());
        Partition::all().all(|partition| {
            self.live().all(|replica| {
                let mine = assignment.owner(partition) == Some(replica.hub().incarnation());
                let leases = &replica.hub().leases;
                if mine { leases.works(partition) } else { leases.ownership(partition) == Ownership::None }
            })
        })
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let held = async {
            while !holds(self) {
                sleep(POLL).await;
            }
        };
        timeout(GUARD, held).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub(super) fn accept(&mut self, at: usize, user: &str, text: &str) -> AcceptRequest {
        self.posted += 1;
        accept(self.replica(at).hub(), self.posted, user, text)
    }

    pub(super) async fn say(&mut self, at: usize, user: &str, text: &str) -> TurnOutcome {
        let accept = self.accept(at, user, text);
        let posted = self.replica(at).hub().post(accept, Some(GUARD)).await.unwrap();
        posted.message.progress.outcome.expect("an end within the wait")
    }

    /// Returns the replica that owns a user's partition.
    pub(super) fn owner(&self, user: &str) -> usize {
        let partition = Partition::of(&sandbox_conversation(user));
        self.replicas
            .iter()
            .position(|replica| replica.as_ref().is_some_and(|replica| replica.hub().leases.works(partition)))
            .unwrap()
    }

    /// Returns a user whose partition the replica owns, or does not own.
    pub(super) fn user(&self, at: usize, owned: bool) -> String {
        let users = (0..).map(|n| format!("user-{n}"));
        users.into_iter().find(|user| (self.owner(user) == at) == owned).unwrap()
    }

    fn memory(&self) -> &MemoryStore {
        let Store::Memory(memory) = &self.store else { panic!("a memory store") };
        memory
    }

    pub(super) async fn stop(mut self) {
        for replica in std::mem::take(&mut self.replicas).into_iter().flatten() {
            replica.shards.stop(Instant::now() + GUARD).await;
            assert_eq!(replica.metrics.panics.get(), 0);
        }
        assert_eq!(self.memory().stats().open, 0, "messages are left open");
        for partition in Partition::all() {
            let claim = self.memory().claim(partition, Incarnation(7), LEASE, ClaimMode::Free);
            assert!(claim.fence().is_some(), "{partition} was not released: {claim:?}");
        }
        self.sandbox.stop().await;
    }
}

pub(super) fn name(index: usize) -> Box<str> {
    format!("replica-{index}").into()
}

#[tokio::test]
async fn any_replica_answers_for_any_user() {
    let mut fleet = HubFleet::start(3, false).await;
    for user in 0..6 {
        for at in 0..3 {
            let outcome = fleet.say(at, &format!("user-{user}"), "/echo quack").await;
            assert!(matches!(outcome, TurnOutcome::Answered(_)), "{outcome:?}");
        }
    }
    let conversations: i64 = fleet.live().map(|replica| replica.metrics.conversations.get()).sum();
    assert_eq!(conversations, 6, "each user lives on one replica");
    fleet.stop().await;
}

#[tokio::test]
async fn waiter_at_another_replica_gets_the_end_without_polling() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(0, false);
    for _ in 0..3 {
        assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    }
    // The long poll of a GET as well.
    let accept = fleet.accept(1, &user, "/echo quack");
    let (id, conversation) = (accept.id, accept.message.conversation.clone());
    fleet.replica(1).hub().post(accept, None).await.unwrap();
    let message = fleet.replica(0).hub().message(&conversation, id, Some(GUARD)).await.unwrap().unwrap();
    assert!(message.progress.has_ended());
    for replica in fleet.live() {
        assert_eq!(replica.metrics.fleet.wait_resyncs.get(), 0);
    }
    let text = fleet.replica(0).metrics.text().unwrap();
    assert!(text.contains("rtm_bridge_hints_received_total{kind=\"ended\"}"), "{text}");
    fleet.stop().await;
}

#[tokio::test]
async fn fleet_without_hints_still_answers() {
    let mut fleet = HubFleet::start(2, true).await;
    let user = fleet.user(0, false);
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    assert!(fleet.replica(0).metrics.fleet.wait_resyncs.get() > 0, "the waiters were resynced");
    let accept = fleet.accept(1, &user, "/echo quack");
    let (id, conversation) = (accept.id, accept.message.conversation.clone());
    fleet.replica(1).hub().post(accept, None).await.unwrap();
    let message = fleet.replica(0).hub().message(&conversation, id, Some(GUARD)).await.unwrap().unwrap();
    assert!(message.progress.has_ended());
    fleet.stop().await;
}

#[tokio::test]
async fn users_move_within_the_connect_limit() {
    let mut fleet = HubFleet::start_limited(1, false, 8).await;
    let fresh = |index| ReplicaIdentity { name: name(index), incarnation: Incarnation(index as u64) };
    let assignment = Assignment::over(&[fresh(0), fresh(1)]);
    let is_assigned =
        |user: &str| assignment.owner(Partition::of(&sandbox_conversation(user))) == Some(Incarnation(1));
    let users: Vec<_> = (0..).map(|n| format!("user-{n}")).filter(|user| is_assigned(user)).take(3).collect();
    for user in &users {
        assert!(matches!(fleet.say(0, user, "/echo quack").await, TurnOutcome::Answered(_)));
    }
    // Three of the four places for a rebalance are taken in this minute. One user may move.
    fleet.join(false).await;
    let with_users: Vec<_> = users.iter().map(|user| Partition::of(&sandbox_conversation(user))).collect();
    let moved = |fleet: &HubFleet| {
        let leases = &fleet.replica(1).hub().leases;
        with_users.iter().filter(|partition| leases.works(**partition)).count()
    };
    fleet
        .until("partitions without sockets move", |fleet| {
            let leases = &fleet.replica(1).hub().leases;
            Partition::all().filter(|partition| !with_users.contains(partition)).all(|partition| {
                (assignment.owner(partition) == Some(Incarnation(1))) == leases.works(partition)
            })
        })
        .await;
    fleet.until("one user moves", |fleet| moved(fleet) == 1).await;
    assert!(!fleet.replica(1).hub().is_settled(), "its share is not complete");
    for user in &users {
        let outcome = fleet.say(0, user, "/echo quack").await;
        assert!(matches!(outcome, TurnOutcome::Answered(_)), "{user}: {outcome:?}");
    }
    assert_eq!(moved(&fleet), 1, "two wait for the next minute");

    // A replica that goes waits no longer than it may.
    let gone = fleet.replicas[0].take().unwrap();
    timeout(GUARD, gone.shards.drain(Instant::now() + Duration::from_secs(2))).await.unwrap();
    fleet.until("all users move", |fleet| moved(fleet) == 3 && fleet.replica(1).hub().is_settled()).await;
    gone.shards.stop(Instant::now() + GUARD).await;
    fleet.stop().await;
}

#[tokio::test]
async fn failover_follows_the_expiry_of_the_leases() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(1, true);
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    let had = fleet.replica(1).partitions();
    let dead = fleet.replicas[1].take().unwrap();
    dead.shards.kill(Instant::now() + GUARD).await;
    // The next owner answers after the failover.
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    fleet.until("every partition has an owner again", HubFleet::is_balanced).await;
    assert_eq!(i64::try_from(fleet.replica(0).metrics.fleet.claimed_expired.get()).unwrap(), had);
    fleet.stop().await;
}

#[tokio::test]
async fn new_replica_gets_its_share_and_no_more_moves() {
    let mut fleet = HubFleet::start(2, false).await;
    assert!(matches!(fleet.say(0, "alice", "/echo quack").await, TurnOutcome::Answered(_)));
    let released =
        |fleet: &HubFleet| -> u64 { fleet.live().map(|replica| replica.metrics.fleet.released.get()).sum() };
    let before = released(&fleet);
    fleet.join(false).await;
    fleet.until("the new replica has its share", HubFleet::is_balanced).await;
    let share = fleet.replica(2).partitions();
    assert!((40..140).contains(&share), "{share}");
    assert_eq!(released(&fleet) - before, u64::try_from(share).unwrap());
    for at in 0..3 {
        assert!(matches!(fleet.say(at, "alice", "/echo quack").await, TurnOutcome::Answered(_)));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn handoff_under_load_loses_no_message() {
    let mut fleet = HubFleet::start(2, false).await;
    let going = fleet.replicas[0].take().unwrap();
    let hubs = [going.hub().clone(), fleet.replica(1).hub().clone()];
    let mut number = 0;
    let posts: Vec<_> = (0..60)
        .map(|user| {
            number += 1;
            let hub = hubs[user % 2].clone();
            let accept = accept(&hub, number, &format!("user-{}", user / 2), "/echo quack");
            async move { hub.post(accept, Some(GUARD)).await }
        })
        .collect();
    let stopping = async {
        going.shards.refuse();
        timeout(GUARD, going.shards.drain(Instant::now() + GUARD)).await.expect("the handoff ends");
        assert_eq!(going.partitions(), 0);
        going.shards.stop(Instant::now() + GUARD).await;
    };
    // The posts come first, so all are accepted before the refusal.
    let (posted, ()) = tokio::join!(futures_util::future::join_all(posts), stopping);
    let mut accepted = 0;
    for posted in posted {
        match posted {
            Ok(posted) => {
                accepted += 1;
                let outcome = posted.message.progress.outcome;
                assert!(matches!(outcome, Some(TurnOutcome::Answered(_))), "{outcome:?}");
            }
            Err(HubError::Draining) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(accepted >= 30, "{accepted}");
    fleet.until("the other replica has all partitions", HubFleet::is_balanced).await;
    assert_eq!(
        fleet.replica(1).metrics.fleet.claimed_expired.get(),
        0,
        "all partitions were released, and no lease expired"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn frozen_owner_may_not_act_and_gives_up_when_it_wakes() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(1, true);
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    let sleeper = &fleet.replica(1).hub().leases;
    let partition = Partition::of(&sandbox_conversation(&user));
    sleeper.faults.frozen.store(true, Ordering::Release);
    fleet.until("its lease is not valid any more", |_| !sleeper.works(partition)).await;
    fleet
        .until("the other replica has the partition", |fleet| fleet.replica(0).hub().leases.works(partition))
        .await;
    let sleeper = Arc::clone(&fleet.replica(1).hub().leases);
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    // The frozen replica still accepts messages, and the owner answers.
    assert!(matches!(fleet.say(1, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    sleeper.faults.frozen.store(false, Ordering::Release);
    fleet.until("it has its partitions again", HubFleet::is_balanced).await;
    assert!(fleet.replica(1).metrics.fleet.leases_lost.get() > 0);
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    fleet.stop().await;
}

#[tokio::test]
async fn messages_of_an_unknown_bot_wait_for_a_replica_with_it() {
    let mut fleet = HubFleet::start(1, false).await;
    let mut accept = fleet.accept(0, "alice", "/echo quack");
    let bot = BotName::new("new").unwrap();
    accept.message.conversation =
        ConversationId::new(bot.clone(), accept.message.conversation.user().clone());
    let (id, conversation) = (accept.id, accept.message.conversation.clone());
    fleet.replica(0).hub().post(accept, None).await.unwrap();
    fleet
        .until("it is counted", |fleet| {
            fleet.replica(0).metrics.fleet.conversations_with_unknown_bot.get() == 1
        })
        .await;
    // A replica with the new configuration starts, and the old one leaves.
    let known = BotConfig::clone(&fleet.config.bots[0]);
    fleet.config.bots.push(Arc::new(BotConfig { name: bot, ..known }));
    fleet.join(false).await;
    let old = fleet.replicas[0].take().unwrap();
    old.shards.refuse();
    timeout(GUARD, old.shards.drain(Instant::now() + GUARD)).await.unwrap();
    old.shards.stop(Instant::now() + GUARD).await;
    assert_eq!(old.metrics.fleet.conversations_with_unknown_bot.get(), 0);
    let message = fleet.replica(1).hub().message(&conversation, id, Some(GUARD)).await.unwrap().unwrap();
    assert!(matches!(message.progress.outcome, Some(TurnOutcome::Answered(_))), "{message:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn turn_continues_after_a_failover() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(1, true);
    let mut accept = fleet.accept(0, &user, "/slow 1000");
    accept.message.rules = TurnRules::new(Some(1), None, Some(20_000)).unwrap();
    let hub = fleet.replica(0).hub().clone();
    let waiting = hub.post(accept, Some(GUARD));
    let dying = async {
        // The accept records the message as sent, so only the platform knows when it arrives.
        fleet.sandbox.script().seen(user.as_str(), 1).await;
        fleet.replicas[1].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    };
    let (posted, ()) = tokio::join!(waiting, dying);
    let outcome = posted.unwrap().message.progress.outcome;
    assert!(matches!(outcome, Some(TurnOutcome::Answered(_))), "the wait outlives the failover: {outcome:?}");
    fleet.until("every partition has an owner again", HubFleet::is_balanced).await;
    fleet.stop().await;
}

#[tokio::test]
async fn partition_with_a_long_turn_moves_and_the_turn_continues() {
    let mut fleet = HubFleet::start(1, false).await;
    let users: Vec<_> = (0..8).map(|user| format!("user-{user}")).collect();
    let mut ids = Vec::new();
    for user in &users {
        let mut accept = fleet.accept(0, user, "/slow 8000");
        accept.message.rules = TurnRules::new(Some(1), None, Some(19_000)).unwrap();
        ids.push((accept.id, accept.message.conversation.clone()));
        fleet.replica(0).hub().post(accept, None).await.unwrap();
    }
    fleet.join(false).await;
    fleet.until("the new replica has its share", HubFleet::is_balanced).await;
    assert!(users.iter().any(|user| fleet.owner(user) == 1), "none of them moved");
    for (id, conversation) in ids {
        let message = fleet.replica(0).hub().message(&conversation, id, Some(GUARD)).await.unwrap().unwrap();
        assert!(matches!(message.progress.outcome, Some(TurnOutcome::Answered(_))), "{message:?}");
    }
    fleet.stop().await;
}

#[tokio::test]
async fn owners_report_the_conversations_of_a_list() {
    let mut fleet = HubFleet::start(3, false).await;
    for user in 0..12 {
        fleet.say(0, &format!("user-{user}"), "/echo quack").await;
    }
    let query = ConversationQuery { limit: 100, ..ConversationQuery::default() };
    for at in 0..3 {
        let (listed, next) = fleet.replica(at).hub().conversations(&query).await.unwrap();
        assert_eq!((listed.len(), next), (12, None));
        for ListedConversation { summary, connection, owner } in listed {
            let of = fleet.owner(summary.conversation.user().as_str());
            assert_eq!(
                (connection.state, owner),
                (LinkState::Ready, Some(name(of))),
                "{}",
                summary.conversation
            );
        }
    }
    fleet.stop().await;
}

#[tokio::test]
async fn silent_owner_leaves_its_part_of_a_list_cold() {
    let mut fleet = HubFleet::start(2, true).await;
    let (ours, others) = (fleet.user(0, true), fleet.user(0, false));
    for user in [&ours, &others] {
        fleet.say(0, user, "/echo quack").await;
    }
    let query = ConversationQuery { limit: 100, ..ConversationQuery::default() };
    let (listed, _) = fleet.replica(0).hub().conversations(&query).await.unwrap();
    for ListedConversation { summary, connection, owner } in &listed {
        let is_ours = summary.conversation.user().as_str() == ours;
        let expected = if is_ours { LinkState::Ready } else { LinkState::Cold };
        assert_eq!((connection.state, connection.reason.is_none()), (expected, is_ours));
        assert!(owner.is_some(), "the owner is live");
    }
    assert_eq!(listed.len(), 2);
    fleet.stop().await;
}

#[tokio::test]
async fn any_replica_erases_a_conversation_with_its_waiters() {
    let mut fleet = HubFleet::start(3, false).await;
    let user = fleet.user(0, true);
    let conversation = sandbox_conversation(&user);
    fleet.say(1, &user, "/echo quack").await;
    // The bot never answers this one.
    let open = fleet.accept(2, &user, "/silent");
    let id = open.id;
    let (waiting, asked) = (fleet.replica(2).hub().clone(), fleet.replica(1).hub().clone());
    let mut request = fleet.accept(1, &user, "erase");
    request.message.session = SessionRequest::Erase;
    let erased = async {
        while waiting.store.message(&conversation, id, None).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        asked.erase(request, GUARD).await
    };
    let (waited, erased) = tokio::join!(waiting.post(open, Some(GUARD)), erased);
    erased.unwrap();
    assert!(matches!(waited, Err(HubError::Erased)), "{waited:?}");
    assert!(asked.is_unknown(&conversation).await.unwrap());
    for replica in fleet.live() {
        assert_eq!(replica.metrics.fleet.messages_lost.get(), 0);
    }
    assert!(matches!(fleet.say(2, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    fleet.stop().await;
}

#[tokio::test]
async fn erasure_is_done_without_hints_too() {
    let mut fleet = HubFleet::start(2, true).await;
    let user = fleet.user(0, false);
    fleet.say(0, &user, "/echo quack").await;
    let mut request = fleet.accept(0, &user, "erase");
    request.message.session = SessionRequest::Erase;
    let hub = fleet.replica(0).hub().clone();
    hub.erase(request, GUARD).await.unwrap();
    assert!(hub.is_unknown(&sandbox_conversation(&user)).await.unwrap());
    fleet.stop().await;
}
