//! Pages of conversations on Redis are those of the embedded store, for any set of conversations.

use proptest::prelude::*;

use super::*;
use crate::store::{
    Clock, ConversationOrder, ConversationPage, ConversationQuery, ConversationSummary, MemoryLimits,
    MemoryStore, Store,
};

/// The partition that most conversations belong to.
const CROWDED: u8 = 14;

/// A conversation of a test.
#[derive(Debug, Clone)]
struct TestConversation {
    conversation: ConversationId,
    open: u8,
    /// Whether it comes to rest, if it has no open message, before the next one is created.
    rests: bool,
}

/// Returns conversations with common prefixes, most of them in one partition.
fn candidates() -> Vec<ConversationId> {
    let bots = ["a", "a-b", "b"];
    let of = |number: usize| {
        let user = format!("{}{number}", ["user-", "Ä", "a", "B/"][number / 3 % 4]);
        fixtures::conversation(bots[number % 3], &user)
    };
    let crowded = |of: &ConversationId| Partition::of(of) == Partition::from_byte(CROWDED);
    let mut all: Vec<_> = (0..20_000).map(of).filter(crowded).take(30).collect();
    all.extend((20_000..20_010).map(of));
    all
}

fn conversations() -> impl Strategy<Value = Vec<TestConversation>> {
    let all = prop::sample::subsequence(candidates(), 0..=40).prop_shuffle();
    (all, prop::collection::vec((0..3_u8, any::<bool>()), 40)).prop_map(|(all, states)| {
        let with_state = |(conversation, (open, rests))| TestConversation { conversation, open, rests };
        all.into_iter().zip(states).map(with_state).collect()
    })
}

async fn create(store: &Store, redis: Option<&RedisStore>, all: &[TestConversation]) {
    for (number, TestConversation { conversation, open, rests }) in (1..).zip(all) {
        let partition = Partition::of(conversation);
        let fence = store.claim(partition, ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap();
        for message in 0..*open {
            let new = new_message(conversation.clone(), "hello");
            store.accept(accept_request(ME, number * 10 + u128::from(message), new)).await.unwrap();
        }
        // The first write decides by itself and rests. The second is prepared and leaves the conversation active.
        for write in 1..=2 {
            store.write(fence, conversation, &numbered(write, Vec::new())).await.unwrap();
        }
        if let Some(redis) = redis.filter(|_| *rests) {
            redis.rest_all().await.unwrap();
        }
    }
}

/// Returns all matches in pages.
async fn list(store: &Store, query: &ConversationQuery) -> Vec<(ConversationId, u64)> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let query = ConversationQuery { after, ..query.clone() };
        let ConversationPage { conversations, next } = store.conversations(&query).await.unwrap();
        assert!(conversations.len() <= query.limit);
        let plain = |summary: ConversationSummary| (summary.conversation, summary.open_messages);
        listed.extend(conversations.into_iter().map(plain));
        let Some(next) = next else { return listed };
        assert_ne!(query.after.as_ref(), Some(&next), "it goes on");
        after = Some(next);
    }
}

async fn agree(redis: RedisStore, all: &[TestConversation], limit: usize, bot: Option<&str>, crowded: bool) {
    let memory = Store::Memory(MemoryStore::new(MemoryLimits::new(64 << 20, MESSAGE_TTL), Clock::wall()));
    let on_redis = Store::Redis(redis.clone());
    create(&memory, None, all).await;
    create(&on_redis, Some(&redis), all).await;
    let query = ConversationQuery {
        bots: bot.map(|bot| vec![crate::domain::BotName::new(bot).unwrap()]),
        partition: crowded.then(|| Partition::from_byte(CROWDED)),
        limit,
        order: ConversationOrder::ByName,
        ..ConversationQuery::default()
    };
    let expected = list(&memory, &query).await;
    assert_eq!(list(&on_redis, &query).await, expected, "by name");
    let newest = ConversationQuery { order: ConversationOrder::NewestFirst, ..query };
    let listed = list(&on_redis, &newest).await;
    assert_eq!(listed, list(&on_redis, &ConversationQuery { limit: 1000, ..newest }).await, "as in one page");
    let sorted = |mut listed: Vec<(ConversationId, u64)>| {
        listed.sort_unstable();
        listed
    };
    assert_eq!(sorted(listed), sorted(expected), "each once");
}

#[test]
fn index_pages_agree_with_the_embedded_store() {
    let server = Server::start();
    let query = (1..12_usize, prop::option::of(prop::sample::select(vec!["a", "a-b", "c"])), any::<bool>());
    proptest!(ProptestConfig::with_cases(40), |(all in conversations(), (limit, bot, crowded) in query)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            server.ask::<()>(&["FLUSHALL"]).await;
            agree(server.store(), &all, limit, bot, crowded).await;
        });
    });
}
