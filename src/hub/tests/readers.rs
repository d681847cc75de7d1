//! Those who read conversations live, on any replica of a fleet in one process.

use std::sync::Arc;

use super::fleet::{Fleet, conversation, name};
use super::*;
use crate::domain::{EntryBody, EntryWithMessage, LinkState, LiveSignal, ReplyChunk};
use crate::store::{Hint, ReplicaIdentity};

/// Much shorter than the time between two renewals.
const SOON: Duration = Duration::from_secs(10);

/// A reader as HTTP has it.
struct Reader {
    hub: Hub,
    conversation: ConversationId,
    observer: Subscription,
    after: ReadStart,
    read: Vec<EntryWithMessage>,
}

impl Reader {
    async fn begin(hub: &Hub, user: &str, after: ReadStart) -> Self {
        let conversation = conversation(user);
        let observer = hub.observe(&conversation).await.unwrap();
        let mut reader = Self { hub: hub.clone(), conversation, observer, after, read: Vec::new() };
        reader.read_pages().await;
        reader
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

    /// Reads, only when it is told to, until so many messages have ended.
    async fn until_ended(&mut self, messages: usize, patience: Duration) {
        let reading = async {
            while self.read.iter().filter(|told| matches!(told.entry.body, EntryBody::Ended { .. })).count()
                < messages
            {
                match self.observer.next().await {
                    Some(LiveSignal::Look) => self.read_pages().await,
                    Some(LiveSignal::Chunk(_)) => {}
                    None => panic!("it was let go of"),
                }
            }
        };
        timeout(patience, reading).await.expect("it is told of the end");
        let places: Vec<_> = self.read.iter().map(|told| told.entry.seq).collect();
        assert!(places.iter().copied().eq(1..=u64::try_from(places.len()).unwrap()), "{places:?}");
    }
}

#[tokio::test]
async fn a_reader_is_told_at_once_at_the_owner_and_elsewhere() {
    let mut fleet = Fleet::start(2, false).await;
    let user = fleet.user(0, true);
    let mut readers = Vec::new();
    for at in [0, 1, 1] {
        readers.push(Reader::begin(fleet.replica(at).hub(), &user, ReadStart::Oldest).await);
    }
    for round in 1..=3 {
        assert!(matches!(fleet.say(1, &user, "/echo quack").await, TurnOutcome::Answered(_)));
        for reader in &mut readers {
            reader.until_ended(round, SOON).await;
        }
    }
    let text = fleet.replica(1).metrics.text().unwrap();
    assert!(text.contains("rtm_bridge_hints_received_total{kind=\"appended\"}"), "{text}");
    for at in [0, 1] {
        let metrics = &fleet.replica(at).metrics.subscribers;
        assert!(metrics.wakeups.get() >= 3, "{}", metrics.wakeups.get());
        assert_eq!(metrics.slow.get(), 0);
    }
    let counted = |fleet: &Fleet| {
        let metrics = &fleet.replica(1).metrics.subscribers;
        (metrics.count.get(), metrics.conversations.get())
    };
    fleet.until("they are counted", |fleet| counted(fleet) == (2, 1)).await;
    drop(readers);
    fleet.until("nobody is left", |fleet| counted(fleet) == (0, 0)).await;
    fleet.stop().await;
}

#[tokio::test]
async fn a_reader_that_moves_between_replicas_mid_turn_reads_each_entry_once() {
    let mut fleet = Fleet::start(2, false).await;
    let user = fleet.user(0, true);
    let mut reader = Reader::begin(fleet.replica(0).hub(), &user, ReadStart::Oldest).await;
    for round in 1..=6 {
        let accept = fleet.accept(0, &user, "/slow 50");
        fleet.replica(0).hub().post(accept, None).await.unwrap();
        let before = std::mem::take(&mut reader.read);
        reader = Reader::begin(fleet.replica(round % 2).hub(), &user, reader.after).await;
        reader.read.splice(..0, before);
        reader.until_ended(round, SOON).await;
    }
    drop(reader);
    fleet.stop().await;
}

#[tokio::test]
async fn a_reader_of_a_fleet_that_hears_no_hint_is_told_all_the_same() {
    let mut fleet = Fleet::start(2, true).await;
    let user = fleet.user(0, true);
    let mut reader = Reader::begin(fleet.replica(1).hub(), &user, ReadStart::Oldest).await;
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    reader.until_ended(1, SOON).await;
    fleet.stop().await;
}

#[tokio::test]
async fn a_reader_is_told_on_through_the_death_of_the_owner() {
    let mut fleet = Fleet::start(2, false).await;
    let user = fleet.user(1, true);
    let mut reader = Reader::begin(fleet.replica(0).hub(), &user, ReadStart::Oldest).await;
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    fleet.replicas[1].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    assert!(matches!(fleet.say(0, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    reader.until_ended(2, SOON).await;
    fleet.until("everything has an owner again", Fleet::is_dealt).await;
    fleet.stop().await;
}

#[tokio::test]
async fn a_new_owner_knows_who_reads_elsewhere() {
    let mut fleet = Fleet::start(3, false).await;
    // Whose conversation goes from one to the other, and neither is where it is read.
    let peer = |index: usize| ReplicaIdentity {
        name: name(index),
        incarnation: fleet.replica(index).hub().incarnation(),
    };
    let left = Deal::over(&[peer(0), peer(2)]);
    let (next, mut users) = (fleet.replica(2).hub().incarnation(), (0..).map(|n| format!("user-{n}")));
    let goes_over = |user: &String| {
        fleet.owner(user) == 1 && left.owner(Partition::of(&conversation(user))) == Some(next)
    };
    let user = users.find(goes_over).unwrap();
    let mut reader = Reader::begin(fleet.replica(0).hub(), &user, ReadStart::Oldest).await;
    fleet.replicas[1].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    fleet.until("everything has an owner again", Fleet::is_dealt).await;
    assert_eq!(fleet.owner(&user), 2);
    let piece = async {
        while !matches!(reader.observer.next().await.expect("it is read on"), LiveSignal::Chunk(_)) {}
    };
    let piece = timeout(SOON, piece);
    let (said, piece) = tokio::join!(fleet.say(0, &user, "/stream one two three"), piece);
    assert!(matches!(said, TurnOutcome::Answered(_)));
    piece.expect("it is told of the pieces");
    drop(reader);
    fleet.stop().await;
}

#[tokio::test]
async fn pieces_of_replies_come_from_other_replicas_and_a_slow_reader_is_let_go_of() {
    let fleet = Fleet::start(2, false).await;
    let user = fleet.user(0, true);
    let at = fleet.replica(1).hub();
    let mut reader = Reader::begin(at, &user, ReadStart::Latest).await;
    let chunk = |index| Arc::new(ReplyChunk { message_id: None, index, text: "piece".into(), last: false });
    fleet.store.hint(at.incarnation(), &Hint::Chunk(conversation(&user), chunk(7))).await.unwrap();
    match timeout(SOON, reader.observer.next()).await.expect("a piece") {
        Some(LiveSignal::Chunk(piece)) => assert_eq!(piece, chunk(7)),
        other => panic!("{other:?}"),
    }
    // It does not read any more: pieces pile up only so far.
    let slow = async {
        for index in 0.. {
            fleet
                .store
                .hint(at.incarnation(), &Hint::Chunk(conversation(&user), chunk(index)))
                .await
                .unwrap();
            if fleet.replica(1).metrics.subscribers.slow.get() == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(GUARD, slow).await.expect("it is let go of");
    let mut waited = 0;
    while let Some(live) = timeout(SOON, reader.observer.next()).await.expect("an end") {
        waited += u32::from(matches!(live, LiveSignal::Chunk(_)));
    }
    assert!(waited <= 64, "{waited}");
    // It may come back with its cursor.
    let again = Reader::begin(at, &user, reader.after).await;
    assert!(again.read.is_empty());
    drop(again);
    fleet.stop().await;
}

#[tokio::test]
async fn readers_are_let_go_when_the_replica_goes_away() {
    let fleet = Fleet::start(1, false).await;
    let hub = fleet.replica(0).hub();
    let mut readers = Vec::new();
    for user in ["alice", "bob"] {
        readers.push(Reader::begin(hub, user, ReadStart::Oldest).await);
    }
    fleet.replica(0).shards.refuse();
    for reader in &mut readers {
        let end = async { while reader.observer.next().await.is_some() {} };
        timeout(SOON, end).await.expect("it is let go");
        // What is in the journal can be read to the end.
        reader.read_pages().await;
    }
    let refused = hub.observe(&conversation("alice")).await;
    assert!(matches!(refused, Err(HubError::Draining)), "{refused:?}");
    assert_eq!(fleet.replica(0).metrics.subscribers.count.get(), 0);
    let hub = hub.clone();
    fleet.stop().await;
    assert!(matches!(hub.state(&conversation("alice")).await, Err(HubError::Draining)));
}

#[tokio::test]
async fn how_a_conversation_stands_is_known_on_every_replica() {
    let mut fleet = Fleet::start(2, false).await;
    let user = fleet.user(0, true);
    for at in [0, 1] {
        let state = fleet.replica(at).hub().state(&conversation(&user)).await.unwrap();
        assert_eq!(state.connection, crate::domain::ConnectionStatus::default(), "nobody wants it");
    }
    assert!(matches!(fleet.say(1, &user, "/echo quack").await, TurnOutcome::Answered(_)));
    for at in [0, 1] {
        let state = fleet.replica(at).hub().state(&conversation(&user)).await.unwrap();
        let connection = state.connection;
        assert_eq!((connection.state, connection.reason), (LinkState::Ready, None));
        assert!(connection.since.is_some() && connection.retry_at.is_none());
    }
    // The owner dies: its leases stand for a while, and nobody answers.
    let asked = fleet.replica(1).hub().clone();
    fleet.replicas[0].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    let connection = asked.state(&conversation(&user)).await.unwrap().connection;
    assert_eq!(connection.state, LinkState::Cold);
    assert!(connection.reason.is_some());
    fleet.until("everything has an owner again", Fleet::is_dealt).await;
    fleet.stop().await;
}

#[tokio::test]
async fn more_questions_than_can_wait_are_refused_and_none_is_left() {
    let mut fleet = Fleet::start(2, false).await;
    let user = fleet.user(0, true);
    let asked = fleet.replica(1).hub().clone();
    fleet.replicas[0].take().unwrap().shards.kill(Instant::now() + GUARD).await;
    let (alice, ask) = (conversation(&user), 400);
    let states = futures_util::future::join_all((0..ask).map(|_| asked.state(&alice))).await;
    let refused = states.iter().filter(|state| matches!(state, Err(HubError::Overloaded(_)))).count();
    assert!((1..=ask - 256).contains(&refused), "{refused}: each of the others was given up by itself");
    assert!(states.iter().flatten().all(|state| state.connection.reason.is_some()));
    fleet.until("everything has an owner again", Fleet::is_dealt).await;
    assert!(asked.state(&alice).await.is_ok());
    fleet.stop().await;
}
