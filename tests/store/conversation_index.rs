//! Sentences about the index of conversations.

use std::time::Duration;

use rtm_bridge::domain::{BotName, ConversationId, Partition, UserId};
use rtm_bridge::store::{
    ConversationOrder, ConversationPage, ConversationPlace, ConversationQuery, ConversationSummary,
};

use super::store_fixture::{ME, StoreFixture, conversation, id, neighbours};

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

fn of(bot: &str, user: &str) -> ConversationId {
    ConversationId::new(BotName::new(bot).unwrap(), UserId::new(user).unwrap())
}

fn newest() -> ConversationQuery {
    ConversationQuery { limit: 1000, ..ConversationQuery::default() }
}

fn by_name() -> ConversationQuery {
    ConversationQuery { order: ConversationOrder::ByName, ..newest() }
}

/// Returns all matches in pages of this size.
async fn list(fixture: &StoreFixture, query: ConversationQuery, limit: usize) -> Vec<ConversationSummary> {
    let (mut listed, mut after) = (Vec::new(), query.after.clone());
    loop {
        let query = ConversationQuery { after, limit, ..query.clone() };
        let ConversationPage { conversations, next } = fixture.store.conversations(&query).await.unwrap();
        assert!(conversations.len() <= limit.clamp(1, 1000), "{}", conversations.len());
        listed.extend(conversations);
        let Some(next) = next else { return listed };
        assert_ne!(query.after.as_ref(), Some(&next), "it goes on");
        after = Some(next);
    }
}

async fn names(fixture: &StoreFixture, query: ConversationQuery) -> Vec<String> {
    let listed = list(fixture, query, 3).await;
    listed.iter().map(|summary| summary.conversation.to_string()).collect()
}

/// Writes the record of a conversation that the bot speaks in.
async fn speak(fixture: &StoreFixture, conversation: &ConversationId) {
    let mut owner = fixture.own(conversation).await;
    owner.take_up().await;
    let reply = owner.reply(owner.now().await, None, "hello");
    owner.write(vec![reply]).await.unwrap();
}

pub(super) async fn conversations_are_listed_newest_first(fixture: StoreFixture) {
    assert!(list(&fixture, newest(), 10).await.is_empty());
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(conversation);
    // Open messages count as activity of now.
    fixture.own(&dave).await;
    fixture.post(&dave, 1).await;
    fixture.post(&dave, 2).await;
    for conversation in [&alice, &bob, &carol] {
        speak(&fixture, conversation).await;
        fixture.pass(MINUTE).await;
    }
    let listed = ["support/dave", "support/carol", "support/bob", "support/alice"];
    assert_eq!(names(&fixture, newest()).await, listed);
    speak(&fixture, &alice).await;
    fixture.pass(MINUTE).await;
    let listed = ["support/dave", "support/alice", "support/carol", "support/bob"];
    assert_eq!(names(&fixture, newest()).await, listed);
    for summary in list(&fixture, newest(), 1000).await {
        let (state, owner) = fixture.store.state(&summary.conversation, ME, 1).await.unwrap();
        assert_eq!((summary.owner, owner), (Some(ME), Some(ME)));
        assert_eq!(summary.open_messages, state.open_messages);
        assert_eq!(Some(summary.last_activity_at), state.last_activity_at);
        assert_eq!(summary.open_messages, if summary.conversation == dave { 2 } else { 0 });
    }
    let owner = fixture.own(&dave).await;
    fixture.store.release(Partition::of(&dave), owner.fence).await.unwrap();
    let query = ConversationQuery { partition: Some(Partition::of(&dave)), ..newest() };
    assert_eq!(list(&fixture, query, 10).await[0].owner, None);
}

/// Names that byte order, locales and the parts of a name order differently.
const NAMES: [&str; 9] = ["A/b", "a-b/x", "a.b/x", "a/", "a/B", "a/a/b", "a/b", "a/\u{e4}", "b/[a]*"];

/// Creates conversations with these names: some with an open message, some at rest.
async fn spread(fixture: &StoreFixture) -> Vec<String> {
    let mut created = Vec::new();
    for (number, name) in (1..).zip(NAMES.iter().rev()) {
        let (bot, user) = name.split_once('/').unwrap();
        let conversation = of(bot, if user.is_empty() { "0" } else { user });
        if number % 3 == 0 {
            fixture.post(&conversation, number).await;
        } else {
            speak(fixture, &conversation).await;
        }
        created.push(conversation.to_string());
    }
    fixture.pass(MINUTE).await;
    created.sort_unstable();
    created
}

pub(super) async fn conversations_are_listed_by_name(fixture: StoreFixture) {
    let expected = spread(&fixture).await;
    assert_eq!(names(&fixture, by_name()).await, expected);
    // A conversation that was at rest and is active again stays where it is.
    let open = of("a", "b");
    fixture.post(&open, 99).await;
    assert_eq!(names(&fixture, by_name()).await, expected);
    let after = ConversationPlace { rested_at: None, conversation: of("a", "aa") };
    let query = ConversationQuery { after: Some(after), ..by_name() };
    assert_eq!(names(&fixture, query).await, ["a/b", "a/\u{e4}", "b/[a]*"], "a place needs no conversation");
}

pub(super) async fn conversations_are_listed_page_by_page(fixture: StoreFixture) {
    spread(&fixture).await;
    let (one, two) = neighbours();
    speak(&fixture, &one).await;
    speak(&fixture, &two).await;
    fixture.pass(MINUTE).await;
    for query in [newest(), by_name()] {
        let all = list(&fixture, query.clone(), 1000).await;
        assert_eq!(all.len(), NAMES.len() + 2);
        for limit in [0, 1, 2, 10, 11, 12, usize::MAX] {
            assert_eq!(list(&fixture, query.clone(), limit).await, all, "{limit} each");
        }
        let mut of_partitions = Vec::new();
        for partition in Partition::all() {
            let query = ConversationQuery { partition: Some(partition), ..query.clone() };
            of_partitions.extend(list(&fixture, query, 1).await);
        }
        let sorted = |mut all: Vec<ConversationSummary>| {
            all.sort_by(|one, other| one.conversation.cmp(&other.conversation));
            all
        };
        assert_eq!(sorted(of_partitions), sorted(all));
    }
}

pub(super) async fn conversations_are_listed_by_filter(fixture: StoreFixture) {
    let expected = spread(&fixture).await;
    let since = fixture.store.now().await.unwrap();
    speak(&fixture, &of("a", "late")).await;
    fixture.pass(MINUTE).await;
    let bots =
        |names: &[&str]| Some(names.iter().map(|name| BotName::new(name).unwrap()).collect::<Vec<_>>());
    for query in [newest(), by_name()] {
        for chosen in [&["a"][..], &["a-b", "b"], &["nobody"], &[]] {
            for prefix in ["", "a", "[a]", "b"] {
                let query =
                    ConversationQuery { bots: bots(chosen), user_prefix: prefix.into(), ..query.clone() };
                let mut listed = names(&fixture, query).await;
                listed.sort_unstable();
                let fits = |name: &&String| {
                    let (bot, user) = name.split_once('/').unwrap();
                    chosen.contains(&bot) && user.starts_with(prefix)
                };
                let late = "a/late".to_owned();
                let mut fitting: Vec<_> = expected.iter().chain([&late]).filter(fits).cloned().collect();
                fitting.sort_unstable();
                assert_eq!(listed, fitting, "{chosen:?} {prefix}");
            }
        }
        let query = ConversationQuery { since: Some(since), ..query };
        let listed = list(&fixture, query, 2).await;
        let late = |summary: &&ConversationSummary| summary.conversation == of("a", "late");
        assert_eq!(listed.iter().filter(late).count(), 1);
        assert!(listed.iter().all(|summary| late(&summary) || summary.open_messages == 1));
        assert_eq!(listed.len(), 4, "the open ones are active now");
    }
}

pub(super) async fn idle_conversation_leaves_the_index_after_a_day(fixture: StoreFixture) {
    let (alice, bob) = (conversation("alice"), conversation("bob"));
    let mut owner = fixture.own(&alice).await;
    fixture.own(&bob).await;
    fixture.post(&bob, 1).await;
    for _ in 0..2 {
        // An open link without messages is written twice a day.
        owner.write(Vec::new()).await.unwrap();
        fixture.pass_almost(DAY).await;
        for query in [newest(), by_name()] {
            let mut listed = names(&fixture, query).await;
            listed.sort_unstable();
            assert_eq!(listed, ["support/alice", "support/bob"]);
        }
    }
    fixture.pass_the_rest().await;
    for query in [newest(), by_name()] {
        assert_eq!(names(&fixture, query).await, ["support/bob"], "an open message stays");
    }
    let mut owner = fixture.own(&bob).await;
    owner.settle(id(1)).await;
    fixture.pass(DAY * 2).await;
    assert!(list(&fixture, newest(), 10).await.is_empty());
    assert!(list(&fixture, by_name(), 10).await.is_empty());
}

pub(super) async fn place_of_a_changed_conversation_stays_valid(fixture: StoreFixture) {
    let all = ["alice", "bob", "carol", "dave"].map(conversation);
    for conversation in &all {
        speak(&fixture, conversation).await;
        fixture.pass(MINUTE).await;
    }
    for query in [newest(), by_name()] {
        let before = names(&fixture, query.clone()).await;
        let query = ConversationQuery { limit: 2, ..query };
        let page = fixture.store.conversations(&query).await.unwrap();
        let last = page.conversations.last().unwrap().conversation.clone();
        fixture.post(&last, u128::from(fastrand::u64(..))).await;
        let query = ConversationQuery { after: page.next, ..query };
        assert_eq!(names(&fixture, query).await, before[2..], "the rest is as before");
    }
}
