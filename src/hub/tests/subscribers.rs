//! Subscribers to conversations, on any replica of a fleet in one process.

use std::sync::Arc;

use super::fleet::{HubFleet, name};
use super::*;
use crate::domain::{EntryBody, EntryWithMessage, LinkState, LiveSignal, ReplyChunk};
use crate::store::{Hint, ReplicaIdentity};

/// A timeout that is much shorter than the interval of renewals.
const SOON: Duration = Duration::from_secs(10);

/// A subscriber with its cursor, as HTTP has it.
struct HubSubscriber {
    hub: Hub,
    conversation: ConversationId,
    subscription: Subscription,
    after: ReadStart,
    read: Vec<EntryWithMessage>,
}

impl HubSubscriber {
    async fn begin(hub: &Hub, user: &str, after: ReadStart) -> Self {
        let conversation = sandbox_conversation(user);
        let subscription = hub.subscribe(&conversation).await.unwrap();
        let mut subscriber = Self { hub: hub.clone(), conversation, subscription, after, read: Vec::new() };
        subscriber.read_pages().await;
        subscriber
    }

    async fn read_pages(&mut self) {
        loop {
            let page = self.hub.page(&self.conversation, self.after, 2, true).await.unwrap();
            assert!(!page.gap);
            self.after = ReadStart::Cursor(page.next);
            self.read.extend(page.entries);
            if !page.more {
                return;
            }
        }
    }

    /// Reads after each signal, until this number of messages has ended.
    async fn until_ended(&mut self, messages: usize, patience: Duration) {
        let reading = async {
            while self.read.iter().filter(|item| matches!(item.entry.body, EntryBody::Ended { .. })).count()
                < messages
            {
                match self.subscription.next().await {
                    Some(LiveSignal::Look) => self.read_pages().await,
                    Some(LiveSignal::Chunk(_) | LiveSignal::Platform(_)) => {}
                    None => panic!("the subscription was closed"),
                }
            }
        };
        timeout(patience, reading).await.expect("the end is read");
        let places: Vec<_> = self.read.iter().map(|item| item.entry.seq).collect();
        assert!(places.iter().copied().eq(1..=u64::try_from(places.len()).unwrap()), "{places:?}");
    }
}

#[tokio::test]
async fn subscriber_gets_signals_at_the_owner_and_elsewhere() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(0, true);
    let mut subscribers = Vec::new();
    for at in [0, 1, 1] {
        subscribers.push(HubSubscriber::begin(fleet.replica(at).hub(), &user, ReadStart::Oldest).await);
    }
    for round in 1..=3 {
        assert!(matches!(fleet.say(1, &user, "/echo quack").await, TurnOutcome::Answered(_)));
        for subscriber in &mut subscribers {
            subscriber.until_ended(round, SOON).await;
        }
    }
    let text = fleet.replica(1).metrics.text().unwrap();
    assert!(text.contains("rtm_bridge_hints_received_total{kind=\"appended\"}"), "{text}");
    for at in [0, 1] {
        let metrics = &fleet.replica(at).metrics.subscribers;
        assert!(metrics.wakeups.get() >= 3, "{}", metrics.wakeups.get());
        assert_eq!(metrics.slow.get(), 0);
    }
    let counted = |fleet: &HubFleet| {
        let metrics = &fleet.replica(1).metrics.subscribers;
        (metrics.count.get(), metrics.conversations.get())
    };
    fleet.until("subscribers are counted", |fleet| counted(fleet) == (2, 1)).await;
    drop(subscribers);
    fleet.until("no subscriber is left", |fleet| counted(fleet) == (0, 0)).await;
    fleet.stop().await;
}

#[tokio::test]
async fn subscriber_that_changes_replica_reads_each_entry_once() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(0, true);
    let mut subscriber = HubSubscriber::begin(fleet.replica(0).hub(), &user, ReadStart::Oldest).await;
    for round in 1..=6 {
        let accept = fleet.accept(0, &user, "/slow 50");
        fleet.replica(0).hub().post(accept, None).await.unwrap();
        let before = std::mem::take(&mut subscriber.read);
        subscriber = HubSubscriber::begin(fleet.replica(round % 2).hub(), &user, subscriber.after).await;
        subscriber.read.splice(..0, before);
        subscriber.until_ended(round, SOON).await;
    }
    drop(subscriber);
    fleet.stop().await;
}

#[tokio::test]
async fn subscriber_of_a_fleet_without_hints_gets_signals() {
    let mut fleet = HubFleet::start(2, true).await;
    let user = fleet.user(0, true);
    let mut subscriber = HubSubscriber::begin(fleet.replica(1).hub(), &user, ReadStart::Oldest).await;
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    subscriber.until_ended(1, SOON).await;
    fleet.stop().await;
}

#[tokio::test]
async fn subscriber_gets_signals_after_a_failover() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(1, true);
    let mut subscriber = HubSubscriber::begin(fleet.replica(0).hub(), &user, ReadStart::Oldest).await;
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    fleet.replicas[1].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    subscriber.until_ended(2, SOON).await;
    fleet.until("every partition has an owner again", HubFleet::is_balanced).await;
    fleet.stop().await;
}

#[tokio::test]
async fn new_owner_knows_remote_subscribers() {
    let mut fleet = HubFleet::start(3, false).await;
    // The conversation moves from one replica to another, and its subscriber is at a third.
    let peer = |index: usize| ReplicaIdentity {
        name: name(index),
        incarnation: fleet.replica(index).hub().incarnation(),
    };
    let left = Assignment::over(&[peer(0), peer(2)]);
    let (next, mut users) = (fleet.replica(2).hub().incarnation(), (0..).map(|n| format!("user-{n}")));
    let goes_over = |user: &String| {
        fleet.owner(user) == 1 && left.owner(Partition::of(&sandbox_conversation(user))) == Some(next)
    };
    let user = users.find(goes_over).unwrap();
    let mut subscriber = HubSubscriber::begin(fleet.replica(0).hub(), &user, ReadStart::Oldest).await;
    fleet.replicas[1].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    fleet.until("every partition has an owner again", HubFleet::is_balanced).await;
    assert_eq!(fleet.owner(&user), 2);
    let piece = async {
        while !matches!(
            subscriber.subscription.next().await.expect("the subscription is open"),
            LiveSignal::Chunk(_)
        ) {}
    };
    let piece = timeout(SOON, piece);
    let (said, piece) = tokio::join!(fleet.say(0, &user, "/stream one two three"), piece);
    assert!(matches!(said, TurnOutcome::Answered(_)));
    piece.expect("chunks arrive");
    drop(subscriber);
    fleet.stop().await;
}

#[tokio::test]
async fn chunks_cross_replicas_and_a_slow_subscriber_is_dropped() {
    let fleet = HubFleet::start(2, false).await;
    let user = fleet.user(0, true);
    let at = fleet.replica(1).hub();
    let mut subscriber = HubSubscriber::begin(at, &user, ReadStart::Latest).await;
    let chunk = |index| Arc::new(ReplyChunk { message_id: None, index, text: "piece".into(), last: false });
    fleet.store.hint(at.incarnation(), &Hint::Chunk(sandbox_conversation(&user), chunk(7))).await.unwrap();
    match timeout(SOON, subscriber.subscription.next()).await.expect("a piece") {
        Some(LiveSignal::Chunk(piece)) => assert_eq!(piece, chunk(7)),
        other => panic!("{other:?}"),
    }
    let frame: Arc<serde_json::value::RawValue> =
        Arc::from(crate::domain::fixtures::raw_json(r#"{"type":"events"}"#));
    let hint = Hint::Platform(sandbox_conversation(&user), Arc::clone(&frame));
    fleet.store.hint(at.incarnation(), &hint).await.unwrap();
    match timeout(SOON, subscriber.subscription.next()).await.expect("a frame") {
        Some(LiveSignal::Platform(told)) => assert_eq!(told.get(), frame.get()),
        other => panic!("{other:?}"),
    }
    // The subscriber stops reading: its queue has a limit.
    let slow = async {
        for index in 0.. {
            fleet
                .store
                .hint(at.incarnation(), &Hint::Chunk(sandbox_conversation(&user), chunk(index)))
                .await
                .unwrap();
            if fleet.replica(1).metrics.subscribers.slow.get() == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(GUARD, slow).await.expect("the subscription is closed");
    let mut waited = 0;
    while let Some(live) = timeout(SOON, subscriber.subscription.next()).await.expect("an end") {
        waited += u32::from(matches!(live, LiveSignal::Chunk(_)));
    }
    assert!(waited <= 64, "{waited}");
    // The subscriber may come back with its cursor.
    let again = HubSubscriber::begin(at, &user, subscriber.after).await;
    assert!(again.read.is_empty());
    drop(again);
    fleet.stop().await;
}

#[tokio::test]
async fn shutdown_closes_subscriptions() {
    let fleet = HubFleet::start(1, false).await;
    let hub = fleet.replica(0).hub();
    let mut subscribers = Vec::new();
    for user in ["alice", "bob"] {
        subscribers.push(HubSubscriber::begin(hub, user, ReadStart::Oldest).await);
    }
    fleet.replica(0).shards.refuse();
    for subscriber in &mut subscribers {
        let end = async { while subscriber.subscription.next().await.is_some() {} };
        timeout(SOON, end).await.expect("the subscription is closed");
        // The journal can still be read to its end.
        subscriber.read_pages().await;
    }
    let refused = hub.subscribe(&sandbox_conversation("alice")).await;
    assert!(matches!(refused, Err(HubError::Draining)), "{refused:?}");
    assert_eq!(fleet.replica(0).metrics.subscribers.count.get(), 0);
    let hub = hub.clone();
    fleet.stop().await;
    assert!(matches!(hub.state(&sandbox_conversation("alice")).await, Err(HubError::Draining)));
}

#[tokio::test]
async fn every_replica_knows_the_status_of_a_conversation() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(0, true);
    for at in [0, 1] {
        let state = fleet.replica(at).hub().state(&sandbox_conversation(&user)).await.unwrap();
        assert_eq!(state.connection, crate::domain::ConnectionStatus::default(), "no connection is wanted");
    }
    assert!(matches!(fleet.say(1, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    for at in [0, 1] {
        let state = fleet.replica(at).hub().state(&sandbox_conversation(&user)).await.unwrap();
        let connection = state.connection;
        assert_eq!((connection.state, connection.reason), (LinkState::Ready, None));
        assert!(connection.since.is_some() && connection.retry_at.is_none());
    }
    // The owner dies. Its leases stand for a while, and no replica answers.
    let asked = fleet.replica(1).hub().clone();
    fleet.replicas[0].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    let connection = asked.state(&sandbox_conversation(&user)).await.unwrap().connection;
    assert_eq!(connection.state, LinkState::Cold);
    assert!(connection.reason.is_some());
    fleet.until("every partition has an owner again", HubFleet::is_balanced).await;
    fleet.stop().await;
}

#[tokio::test]
async fn excess_status_queries_are_refused_and_none_leaks() {
    let mut fleet = HubFleet::start(2, false).await;
    let user = fleet.user(0, true);
    let asked = fleet.replica(1).hub().clone();
    fleet.replicas[0].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    let (alice, ask) = (sandbox_conversation(&user), 400);
    let states = futures_util::future::join_all((0..ask).map(|_| asked.state(&alice))).await;
    let refused = states.iter().filter(|state| matches!(state, Err(HubError::Overloaded(_)))).count();
    assert!((1..=ask - 256).contains(&refused), "{refused}: each of the other queries timed out");
    assert!(states.iter().flatten().all(|state| state.connection.reason.is_some()));
    fleet.until("every partition has an owner again", HubFleet::is_balanced).await;
    assert!(asked.state(&alice).await.is_ok());
    fleet.stop().await;
}
