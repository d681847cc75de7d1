//! Two hubs that share a real Redis: the hints between the replicas cross the network here.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::Config;
use rtm_bridge::domain::fixtures::{new_message, sandbox_conversation};
use rtm_bridge::domain::{
    ConversationId, EntryBody, LinkState, LiveSignal, NewMessage, ReadStart, SessionRequest, TurnOutcome,
    TurnRules,
};
use rtm_bridge::hub::{FRAMES_IN, FRAMES_OUT, Hub, HubError, HubThreads, Subscription};
use rtm_bridge::metrics::{LabelSets, Metrics};
use rtm_bridge::store::fixtures::accept_request;
use rtm_bridge::store::{AcceptRequest, RedisStore, Store, outbox_events};
use rtm_sandbox::Sandbox;
use tokio::time::{Instant, timeout};

use crate::support::{RedisOptions, RedisServer, bot, find_text, quiet_platform, run};

/// A timeout that is much shorter than the interval of renewals.
const SOON: Duration = Duration::from_secs(10);

struct RedisReplica {
    threads: HubThreads,
    metrics: Arc<Metrics>,
}

impl RedisReplica {
    async fn start(name: &str, server: &RedisServer, platform: &Sandbox) -> Self {
        let mut config = Config::dev(platform.url().parse().unwrap());
        config.server.threads = 2;
        config.cluster.replica_id = name.into();
        config.store = server.config();
        bot(&mut config).welcome = Duration::ZERO;
        let store = Store::Redis(RedisStore::new(&config.store).unwrap());
        store.prepare().await.unwrap();
        let words = LabelSets { frames_in: FRAMES_IN, frames_out: FRAMES_OUT, routes: &[] };
        let metrics = Arc::new(Metrics::new(words).unwrap());
        let threads = Hub::start(&config, store, &metrics, outbox_events().0).await.unwrap();
        Self { threads, metrics }
    }

    fn hub(&self) -> &Hub {
        self.threads.hub()
    }
}

/// A subscriber with its cursor, as HTTP has it.
struct SubscribedReader {
    hub: Hub,
    conversation: ConversationId,
    subscription: Subscription,
    after: ReadStart,
    places: Vec<u64>,
    ends: usize,
}

impl SubscribedReader {
    async fn begin(hub: &Hub, conversation: &ConversationId, after: ReadStart) -> Self {
        let subscription = hub.subscribe(conversation).await.unwrap();
        let (hub, conversation) = (hub.clone(), conversation.clone());
        let mut reader = Self { hub, conversation, subscription, after, places: Vec::new(), ends: 0 };
        reader.read().await;
        reader
    }

    async fn read(&mut self) {
        loop {
            let page = self.hub.page(&self.conversation, self.after, 2, true).await.unwrap();
            assert!(!page.gap);
            self.after = ReadStart::Cursor(page.next);
            for told in page.entries {
                self.places.push(told.entry.seq);
                if let EntryBody::Ended { .. } = told.entry.body {
                    assert!(told.message.is_some_and(|message| message.progress.has_ended()));
                    self.ends += 1;
                }
            }
            if !page.more {
                return;
            }
        }
    }

    /// Reads after each signal, until this number of messages has ended.
    async fn until_ended(&mut self, messages: usize) {
        let reading = async {
            while self.ends < messages {
                match self.subscription.next().await {
                    Some(LiveSignal::Look) => self.read().await,
                    Some(LiveSignal::Chunk(_) | LiveSignal::Platform(_)) => {}
                    None => panic!("the subscription was closed"),
                }
            }
        };
        timeout(SOON, reading).await.expect("the end is read");
    }
}

fn alice() -> ConversationId {
    sandbox_conversation("alice")
}

async fn say(hub: &Hub, number: u128) {
    let rules = TurnRules::new(Some(1), None, Some(5000)).unwrap();
    let message = NewMessage { rules, ..new_message(alice(), "/echo quack") };
    let accept = AcceptRequest { watched: true, ..accept_request(hub.incarnation(), number, message) };
    let posted = hub.post(accept, Some(SOON)).await.unwrap();
    assert!(matches!(posted.message.progress.outcome, Some(TurnOutcome::Answered(_))), "{posted:?}");
}

#[test]
fn subscribers_and_status_queries_find_the_owner_over_redis() {
    run(async {
        let server = RedisServer::start(RedisOptions::default()).await;
        let platform = Sandbox::start(quiet_platform()).await.unwrap();
        let first = RedisReplica::start("first", &server, &platform).await;
        let second = RedisReplica::start("second", &server, &platform).await;

        let mut readers = Vec::new();
        for replica in [&first, &second] {
            let state = replica.hub().state(&alice()).await.unwrap();
            assert_eq!(state.connection.state, LinkState::Cold);
            readers.push(SubscribedReader::begin(replica.hub(), &alice(), ReadStart::Oldest).await);
        }
        for round in 1..=3 {
            say(first.hub(), round).await;
            for reader in &mut readers {
                reader.until_ended(usize::try_from(round).unwrap()).await;
            }
        }
        for replica in [&first, &second] {
            let state = replica.hub().state(&alice()).await.unwrap();
            assert_eq!(state.connection.state, LinkState::Ready, "{state:?}");
            assert_eq!(state.last_seq, *readers[0].places.last().unwrap());
        }
        assert_eq!(readers[0].places, readers[1].places);

        // One replica leaves, and its subscriber continues at the other from its cursor.
        first.threads.refuse();
        let mut gone = readers.remove(0);
        let end = async { while gone.subscription.next().await.is_some() {} };
        timeout(SOON, end).await.expect("the subscription is closed");
        let refused = first.hub().subscribe(&alice()).await;
        assert!(matches!(refused, Err(HubError::Draining)), "{refused:?}");
        let mut moved = SubscribedReader::begin(second.hub(), &alice(), gone.after).await;
        timeout(SOON, first.threads.drain(Instant::now() + SOON)).await.expect("the handoff ends");
        say(second.hub(), 4).await;
        moved.until_ended(1).await;
        readers[0].until_ended(4).await;
        let places = [gone.places, moved.places].concat();
        assert_eq!(places, readers[0].places);
        assert!(places.iter().copied().eq(1..=u64::try_from(places.len()).unwrap()), "{places:?}");
        for replica in [first, second] {
            replica.threads.stop(Instant::now() + SOON).await;
            assert_eq!(replica.metrics.subscribers.count.get(), 0);
            assert_eq!(replica.metrics.subscribers.conversations.get(), 0);
            assert_eq!(replica.metrics.panics.get(), 0);
        }
        platform.stop().await;
    });
}

#[test]
fn erasure_leaves_no_trace_of_the_user_in_redis() {
    run(async {
        let server = RedisServer::start(RedisOptions::default()).await;
        let platform = Sandbox::start(quiet_platform()).await.unwrap();
        let replicas = [
            RedisReplica::start("first", &server, &platform).await,
            RedisReplica::start("second", &server, &platform).await,
        ];
        for (round, replica) in (1..).zip(replicas.iter().cycle().take(4)) {
            say(replica.hub(), round).await;
        }
        let reader = SubscribedReader::begin(replicas[0].hub(), &alice(), ReadStart::Oldest).await;
        assert!(!reader.places.is_empty());
        drop(reader);
        assert!(!find_text(&[&server], "alice").await.is_empty());
        for (number, replica) in (10..).zip(&replicas) {
            let request = NewMessage { session: SessionRequest::Erase, ..new_message(alice(), "erase") };
            let accept = AcceptRequest {
                watched: true,
                ..accept_request(replica.hub().incarnation(), number, request)
            };
            replica.hub().erase(accept, SOON).await.unwrap();
            assert_eq!(find_text(&[&server], "alice").await, [""; 0]);
        }
        // Each replica knows it, and the user may come back.
        for replica in &replicas {
            let state = replica.hub().state(&alice()).await.unwrap();
            assert_eq!((state.last_seq, state.connection.state), (0, LinkState::Cold));
        }
        say(replicas[1].hub(), 20).await;
        for replica in replicas {
            replica.threads.stop(Instant::now() + SOON).await;
            assert_eq!(replica.metrics.panics.get(), 0);
        }
        platform.stop().await;
    });
}
