//! Live readers of hubs that share a real Redis: what the replicas tell each other goes over the wire here.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::Config;
use rtm_bridge::domain::{
    BotName, ConversationId, EntryBody, LinkState, LiveSignal, MessageContent, MessageId, NewMessage,
    ReadStart, ResendPolicy, SessionRequest, Timestamp, TraceId, TurnOutcome, TurnRules, UserId,
};
use rtm_bridge::hub::{FRAMES_IN, FRAMES_OUT, Hub, HubError, Shards, Subscription};
use rtm_bridge::metrics::{LabelSets, Metrics};
use rtm_bridge::store::{AcceptRequest, RedisStore, Store, news};
use rtm_sandbox::Sandbox;
use tokio::time::{Instant, timeout};

use crate::support::{RedisOptions, RedisServer, bot, quiet_platform, run};

/// Much shorter than the time between two renewals.
const SOON: Duration = Duration::from_secs(10);

struct Replica {
    shards: Shards,
    metrics: Arc<Metrics>,
}

impl Replica {
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
        let shards = Hub::start(&config, store, &metrics, news().0).await.unwrap();
        Self { shards, metrics }
    }

    fn hub(&self) -> &Hub {
        self.shards.hub()
    }
}

/// A reader as HTTP has it.
struct Reader {
    hub: Hub,
    conversation: ConversationId,
    observer: Subscription,
    after: ReadStart,
    places: Vec<u64>,
    ends: usize,
}

impl Reader {
    async fn begin(hub: &Hub, conversation: &ConversationId, after: ReadStart) -> Self {
        let observer = hub.observe(conversation).await.unwrap();
        let (hub, conversation) = (hub.clone(), conversation.clone());
        let mut reader = Self { hub, conversation, observer, after, places: Vec::new(), ends: 0 };
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

    /// Reads, only when it is told to, until so many messages have ended.
    async fn until_ended(&mut self, messages: usize) {
        let reading = async {
            while self.ends < messages {
                match self.observer.next().await {
                    Some(LiveSignal::Look) => self.read().await,
                    Some(LiveSignal::Chunk(_)) => {}
                    None => panic!("it was let go of"),
                }
            }
        };
        timeout(SOON, reading).await.expect("it is told");
    }
}

fn alice() -> ConversationId {
    ConversationId { bot: BotName::sandbox(), user: UserId::new("alice").unwrap() }
}

async fn say(hub: &Hub, number: u128) {
    let message = NewMessage {
        conversation: alice(),
        content: MessageContent::new("/echo quack").unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::new(Some(1), None, Some(5000)).unwrap(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: TraceId::default(),
    };
    let id = MessageId::new(Timestamp::from_millis(1_763_845_000_000), number);
    let by = hub.incarnation();
    let accept = AcceptRequest {
        id,
        message,
        idempotency: None,
        max_open: 8,
        by,
        watched: true,
        send_at_accept: None,
    };
    let posted = hub.post(accept, Some(SOON)).await.unwrap();
    assert!(matches!(posted.message.progress.outcome, Some(TurnOutcome::Answered(_))), "{posted:?}");
}

#[test]
fn readers_and_questions_find_the_owner_over_redis() {
    run(async {
        let server = RedisServer::start(RedisOptions::default()).await;
        let platform = Sandbox::start(quiet_platform()).await.unwrap();
        let first = Replica::start("first", &server, &platform).await;
        let second = Replica::start("second", &server, &platform).await;

        let mut readers = Vec::new();
        for replica in [&first, &second] {
            let state = replica.hub().state(&alice()).await.unwrap();
            assert_eq!(state.connection.state, LinkState::Cold);
            readers.push(Reader::begin(replica.hub(), &alice(), ReadStart::Oldest).await);
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

        // One goes away; its reader goes on at the other, from where it was.
        first.shards.refuse();
        let mut gone = readers.remove(0);
        let end = async { while gone.observer.next().await.is_some() {} };
        timeout(SOON, end).await.expect("it is let go");
        let refused = first.hub().observe(&alice()).await;
        assert!(matches!(refused, Err(HubError::Draining)), "{refused:?}");
        let mut moved = Reader::begin(second.hub(), &alice(), gone.after).await;
        timeout(SOON, first.shards.calm(Instant::now() + SOON)).await.expect("everything is handed over");
        say(second.hub(), 4).await;
        moved.until_ended(1).await;
        readers[0].until_ended(4).await;
        let places = [gone.places, moved.places].concat();
        assert_eq!(places, readers[0].places);
        assert!(places.iter().copied().eq(1..=u64::try_from(places.len()).unwrap()), "{places:?}");
        for replica in [first, second] {
            replica.shards.stop(Instant::now() + SOON).await;
            assert_eq!(replica.metrics.subscribers.count.get(), 0);
            assert_eq!(replica.metrics.subscribers.conversations.get(), 0);
            assert_eq!(replica.metrics.panics.get(), 0);
        }
        platform.stop().await;
    });
}
