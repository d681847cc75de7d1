//! Lifetimes of keys, and data that cannot be read.

use super::*;
use crate::config;
use crate::domain::{Cursor, ReadStart};
use crate::store::{AcceptError, StoreError, StoreRefusal};

/// Returns the partition's keys without their prefix, each with whether it expires, sorted.
async fn keys(server: &Server) -> Vec<(String, bool)> {
    let mut keys = Vec::new();
    for key in server.ask::<Vec<String>>(&["KEYS", "*"]).await {
        let left: i64 = server.ask(&["PTTL", &key]).await;
        let short = key.split_once("}:").map_or(key.clone(), |(_, rest)| rest.to_owned());
        keys.push((short.chars().take(2).collect(), left >= 0));
    }
    keys.sort();
    keys
}

fn named(names: &[(&str, bool)]) -> Vec<(String, bool)> {
    names.iter().map(|(name, expires)| ((*name).to_owned(), *expires)).collect()
}

/// Returns the places of the journal's entries.
async fn places(store: &RedisStore) -> Vec<u64> {
    let page = store.page(&alice(), ReadStart::Oldest, 9, None).await.unwrap();
    page.entries.iter().map(|told| told.entry.seq).collect()
}

/// Returns the conversation's key.
fn conversation() -> String {
    format!("t:{{{}}}:c:{}", Partition::of(&alice()), alice())
}

#[tokio::test]
async fn open_message_stays_and_ended_one_expires() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    store.accept(with_key(accept(1), "shop", "k", 1)).await.unwrap();
    let at = store.now().await.unwrap();
    let open = [("ac", false), ("c:", false), ("j:", false), ("k:", false), ("le", false), ("m:", false)];
    let changes = vec![ConversationChange::Sent { message: id(1), at }, reply(1, at, Some(id(1)), "hello")];
    store.write(fence, &alice(), &numbered(1, changes)).await.unwrap();
    assert_eq!(keys(&server).await, named(&open));

    let mut write = numbered(2, vec![end(2, at, id(1))]);
    write.warm_until = Some(at + LEASE);
    store.write(fence, &alice(), &write).await.unwrap();
    // The conversation stays active for a while, because another message may come.
    let partition = Partition::of(&alice());
    store.rest(partition, fence).await.unwrap();
    assert!(keys(&server).await.contains(&("c:".to_owned(), false)));
    store.skew(Duration::from_secs(31));
    renew(&store, fence).await.unwrap();
    store.rest(partition, fence).await.unwrap();
    let ended = [
        ("ac", true),
        ("c:", true),
        ("j:", true),
        ("k:", true),
        ("le", false),
        ("m:", true),
        ("na", true),
        ("wa", true),
    ];
    assert_eq!(keys(&server).await, named(&ended));

    // A late change neither removes an expiry nor restores expired data.
    let late = || vec![reply(3, at, Some(id(1)), "late"), ConversationChange::Acked { message: id(1), at }];
    store.write(fence, &alice(), &numbered(3, late())).await.unwrap();
    assert_eq!(keys(&server).await, named(&ended));
    assert_eq!(store.message(&alice(), id(1), None).await.unwrap().unwrap().progress.replies.len(), 2);
    server.ask::<()>(&["DEL", &format!("t:{{{partition}}}:m:{}", id(1))]).await;
    store.write(fence, &alice(), &numbered(4, vec![reply(4, at, Some(id(1)), "later")])).await.unwrap();
    store.skew(Duration::from_secs(62));
    renew(&store, fence).await.unwrap();
    store.rest(partition, fence).await.unwrap();
    let gone: Vec<_> = ended.into_iter().filter(|(name, _)| *name != "m:").collect();
    assert_eq!(keys(&server).await, named(&gone));

    // The next message opens it again.
    post(&store, 2).await;
    assert!(keys(&server).await.contains(&("c:".to_owned(), false)));
}

#[tokio::test]
async fn warm_conversations_are_returned_until_their_time() {
    let server = Server::start();
    let store = server.store();
    let (fence, partition) = (own(&store).await, Partition::of(&alice()));
    let mut write = numbered(1, Vec::new());
    write.warm_until = Some(store.now().await.unwrap() + LEASE);
    store.write(fence, &alice(), &write).await.unwrap();
    assert_eq!(store.ready(partition, fence, true).await.unwrap(), [alice()]);
    assert!(store.ready(partition, fence, false).await.unwrap().is_empty());
    // A further write prolongs it: a link may be kept as long as there are owners.
    let warm = format!("t:{{{partition}}}:warm");
    server.ask::<()>(&["PEXPIRE", &warm, "60000"]).await;
    let mut write = numbered(2, Vec::new());
    write.warm_until = Some(store.now().await.unwrap() + LEASE);
    store.write(fence, &alice(), &write).await.unwrap();
    assert!(server.ask::<u64>(&["PTTL", &warm]).await > 60_000);
    post(&store, 1).await;
    assert_eq!(store.ready(partition, fence, true).await.unwrap(), [alice()], "once");
    store.write(fence, &alice(), &numbered(3, vec![end(1, Timestamp::default(), id(1))])).await.unwrap();
    store.skew(LEASE);
    assert!(store.ready(partition, fence, true).await.unwrap().is_empty());
    assert_eq!(server.ask::<u64>(&["EXISTS", &format!("t:{{{partition}}}:warm")]).await, 0);
}

#[tokio::test]
async fn lost_message_is_reported_to_each_repeat() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let at = Timestamp::from_millis(1);
    for changes in [vec![ConversationChange::Sent { message: id(1), at }], vec![end(1, at, id(1))]] {
        for (number, changes, lost) in [(1, changes, true), (2, Vec::new(), false)] {
            let write = numbered(number, changes);
            for _ in 0..2 {
                assert_eq!(store.write(fence, &alice(), &write).await.unwrap().lost, lost);
            }
        }
        server.ask::<()>(&["DEL", &conversation()]).await;
    }
    assert!(places(&store).await.is_empty());
}

#[tokio::test]
async fn lane_drops_evicted_messages() {
    let server = Server::start();
    let store = server.store();
    let (fence, partition) = (own(&store).await, Partition::of(&alice()));
    for number in 1..4 {
        post(&store, number).await;
    }
    server.ask::<()>(&["DEL", &format!("t:{{{partition}}}:m:{}", id(2))]).await;
    for _ in 0..2 {
        let (open, _) = store.open(fence, &alice()).await.unwrap();
        assert_eq!(open.lane.iter().map(|open| open.accepted.id).collect::<Vec<_>>(), [id(1), id(3)]);
    }
    let mut third = accept(4);
    third.max_open = 3;
    store.accept(third).await.unwrap();
    for number in [1, 3, 4] {
        server.ask::<()>(&["DEL", &format!("t:{{{partition}}}:m:{}", id(number))]).await;
    }
    let (open, _) = store.open(fence, &alice()).await.unwrap();
    assert_eq!((open.lane.len(), open.head_at), (0, None));
    assert!(store.ready(partition, fence, false).await.unwrap().is_empty());
    assert!(keys(&server).await.contains(&("c:".to_owned(), true)));
}

#[tokio::test]
async fn journal_older_than_its_conversation_begins_anew() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let at = Timestamp::from_millis(1);
    let write = numbered(1, (1..4).map(|seq| reply(seq, at, None, "old")).collect());
    store.write(fence, &alice(), &write).await.unwrap();
    server.ask::<()>(&["DEL", &conversation()]).await;
    assert!(places(&store).await.is_empty(), "it is nobody's any more");
    let write = numbered(1, (1..3).map(|seq| reply(seq, at, None, "new")).collect());
    store.write(fence, &alice(), &write).await.unwrap();
    assert_eq!(places(&store).await, [1, 2]);
}

#[tokio::test]
async fn page_is_one_call_except_for_another_journal() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let at = Timestamp::from_millis(1);
    let mut write = numbered(1, (1..4).map(|seq| reply(seq, at, None, "hello")).collect());
    (write.record.epoch, write.record.seq) = (7, 3);
    store.write(fence, &alice(), &write).await.unwrap();
    let place = |epoch, seq| ReadStart::Cursor(Cursor { epoch, seq, at: None });
    store.page(&alice(), ReadStart::Oldest, 9, Some(ME)).await.unwrap();
    for (after, calls, read) in [
        (ReadStart::Oldest, 1, 3),
        (ReadStart::Latest, 1, 0),
        (place(7, 1), 1, 2),
        (place(7, 3), 1, 0),
        (place(0, 0), 1, 3),
        (place(6, 0), 1, 3),
        (place(6, 1), 2, 3),
        (place(7, 4), 2, 3),
    ] {
        let before = store.traffic().commands;
        let page = store.page(&alice(), after, 9, Some(ME)).await.unwrap();
        assert_eq!((store.traffic().commands - before, page.entries.len()), (calls, read), "{after:?}");
    }
}

#[tokio::test]
async fn long_journal_is_several_pages_of_one_call() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let at = Timestamp::from_millis(1);
    let text = "m".repeat(15_000);
    let mut write = numbered(1, (1..=20).map(|seq| reply(seq, at, None, &text)).collect());
    (write.record.epoch, write.record.seq) = (7, 20);
    store.write(fence, &alice(), &write).await.unwrap();
    // The script is known to the server from here on.
    store.page(&alice(), ReadStart::Latest, 1, None).await.unwrap();
    // An entry has its text and its event, so two go into one page.
    let (mut after, mut read) = (ReadStart::Oldest, Vec::new());
    loop {
        let before = store.traffic().commands;
        let page = store.page(&alice(), after, 1000, None).await.unwrap();
        assert_eq!(store.traffic().commands - before, 1);
        read.extend(page.entries.iter().map(|entry| entry.entry.seq));
        assert!((2..=4).contains(&page.entries.len()) && !page.gap);
        assert_eq!(page.more, read.len() < 20);
        if !page.more {
            break;
        }
        after = ReadStart::Cursor(page.next);
    }
    assert_eq!(read, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn corrupt_data_fails_and_the_rest_goes_on() {
    let server = Server::start();
    let store = server.store();
    let (fence, partition) = (own(&store).await, Partition::of(&alice()));
    let message = post(&store, 1).await;
    server
        .ask::<()>(&[
            "SET",
            &format!("t:{{{partition}}}:m:{message}"),
            "20:support/alice / Zo\u{eb}7:garbage0:",
        ])
        .await;
    let corrupt = StoreError::Unavailable(StoreRefusal::Unexpected);
    assert_eq!(store.message(&alice(), message, None).await.unwrap_err(), corrupt);
    assert_eq!(store.open(fence, &alice()).await.unwrap_err(), corrupt);
    server.ask::<()>(&["ZADD", &format!("t:{{{partition}}}:activity"), "+inf", "nonsense"]).await;
    server.ask::<()>(&["HSET", &format!("t:{{{partition}}}:c:nonsense"), "s", "0 1 1  1 x:::::"]).await;
    assert_eq!(store.ready(partition, fence, false).await.unwrap_err(), corrupt);
    assert!(renew(&store, fence).await.is_ok());
}

#[tokio::test]
async fn full_store_refuses_accepts_only() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let first = with_key(accept(1), "shop", "k", 1);
    store.accept(first.clone()).await.unwrap();
    store.0.health.set_full(true);
    assert_eq!(store.accept(accept(2)).await.unwrap_err(), AcceptError::Full);
    assert!(matches!(store.accept(first).await, Ok(AcceptResult::New(_))));
    let again = with_key(accept(3), "shop", "k", 1);
    assert!(matches!(store.accept(again).await, Ok(AcceptResult::Replayed(_))));
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    store.0.health.set_full(false);
    assert!(store.accept(accept(2)).await.is_err());
    let at = Timestamp::from_millis(1);
    let changes = vec![reply(1, at, Some(id(1)), "hello"), end(2, at, id(1))];
    assert!(!store.write(fence, &alice(), &numbered(1, changes)).await.unwrap().lost);
    assert!(store.message(&alice(), id(1), Some(ME)).await.unwrap().unwrap().progress.has_ended());
}

#[tokio::test]
async fn accept_sent_and_end_wait_for_replicas_of_the_store() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    post(&store, 1).await;
    let command_timeout = Duration::from_secs(2);
    let options = config::StoreConfig { wait_replicas: 1, command_timeout, ..server.patient() };
    let confirmed = RedisStore::new(&options).unwrap();
    let at = Timestamp::from_millis(1);
    let write =
        async |number, change| confirmed.write(fence, &alice(), &numbered(number, vec![change])).await;
    let unconfirmed = StoreError::Unavailable(StoreRefusal::TooFewReplicas);
    assert_eq!(write(1, ConversationChange::Sent { message: id(1), at }).await.unwrap_err(), unconfirmed);
    assert!(!write(2, ConversationChange::Acked { message: id(1), at }).await.unwrap().lost);
    assert!(!write(3, reply(1, at, Some(id(1)), "hello")).await.unwrap().lost);
    assert_eq!(write(4, end(2, at, id(1))).await.unwrap_err(), unconfirmed);
}

#[tokio::test]
async fn stored_conversation_is_small() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    store.accept(AcceptRequest { watched: true, ..with_key(accept(1), "shop", "k", 1) }).await.unwrap();
    let at = store.now().await.unwrap();
    let mut write = numbered(
        1,
        vec![
            ConversationChange::Sent { message: id(1), at },
            ConversationChange::Acked { message: id(1), at },
        ],
    );
    store.write(fence, &alice(), &write).await.unwrap();
    write = numbered(2, vec![reply(1, at, Some(id(1)), "It left the warehouse."), end(2, at, id(1))]);
    write.record.recent.push(crate::domain::Fingerprint::of("ms-1"), false);
    write.record.sends.record(50, at);
    store.write(fence, &alice(), &write).await.unwrap();
    let mut sizes = std::collections::BTreeMap::new();
    for key in server.ask::<Vec<String>>(&["KEYS", "*"]).await {
        let bytes: u64 = server.ask(&["MEMORY", "USAGE", &key]).await;
        let (_, name) = key.split_once("}:").unwrap();
        sizes.insert(name.chars().take(1).collect::<String>(), bytes);
    }
    assert!(sizes["m"] + sizes["k"] < 1500, "an ended message: {sizes:?}");
    assert!(sizes["c"] < 800, "an idle conversation without its journal: {sizes:?}");
}

/// Returns whether the conversation's key expires, and its score in the activity set.
async fn activity(server: &Server) -> (bool, String) {
    let left: i64 = server.ask(&["PTTL", &conversation()]).await;
    let key = format!("t:{{{}}}:activity", Partition::of(&alice()));
    (left >= 0, server.ask(&["ZSCORE", &key, &alice().to_string()]).await)
}

/// Writes under the owner's cache, so that the conversation is active and the cache knows it.
async fn active_owner(store: &RedisStore) -> Fence {
    let fence = own(store).await;
    store.open(fence, &alice()).await.unwrap();
    for number in 1..3 {
        let write = numbered(number, vec![reply(number, Timestamp::from_millis(1), None, "hello")]);
        store.write(fence, &alice(), &write).await.unwrap();
    }
    fence
}

#[tokio::test]
async fn accept_beside_a_rest_stays_visible_and_never_expires() {
    let server = Server::start();
    let store = server.store();
    let fence = active_owner(&store).await;
    assert_eq!(activity(&server).await, (false, "inf".to_owned()));
    // Both are prepared before either is answered, and the rest reaches Redis first.
    let accept = AcceptRequest { owner: Some(fence), send_at_accept: true, ..accept(1) };
    let (rested, accepted) = tokio::join!(store.rest_all(), store.accept(accept));
    rested.unwrap();
    assert!(matches!(accepted, Ok(AcceptResult::SentAtAccept(_))));
    assert_eq!(activity(&server).await, (false, "inf".to_owned()));
    let next = own(&store).await;
    assert_eq!(store.ready(Partition::of(&alice()), next, true).await.unwrap(), [alice()]);
}

#[tokio::test]
async fn conversation_changed_elsewhere_comes_to_rest_too() {
    let server = Server::start();
    let store = server.store();
    active_owner(&store).await;
    store.observe(&[alice()], OTHER).await.unwrap();
    store.0.cache.forget(&alice());
    assert!(!activity(&server).await.0);
    store.rest_all().await.unwrap();
    assert!(activity(&server).await.0);
}

#[tokio::test]
async fn failed_rest_is_repeated() {
    let server = Server::start();
    let store = server.store();
    active_owner(&store).await;
    server.ask::<()>(&["ACL", "SETUSER", "default", "-zadd"]).await;
    store.rest_all().await.unwrap_err();
    server.ask::<()>(&["ACL", "SETUSER", "default", "+zadd"]).await;
    store.rest_all().await.unwrap();
    assert!(activity(&server).await.0);
}

#[tokio::test]
async fn journal_of_a_forgotten_conversation_is_not_read_again() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let message = post(&store, 1).await;
    let at = Timestamp::from_millis(1);
    store.write(fence, &alice(), &numbered(1, vec![reply(1, at, Some(message), "old")])).await.unwrap();
    store.write(fence, &alice(), &numbered(2, vec![end(2, at, message)])).await.unwrap();
    // Messages that live longer than a conversation keep the list of its journal.
    server.ask::<()>(&["DEL", &conversation()]).await;
    let next = post(&store, 2).await;
    let sent = vec![ConversationChange::Sent { message: next, at }];
    store.write(fence, &alice(), &numbered(1, sent)).await.unwrap();
    assert!(places(&store).await.is_empty());
    // An owner that kept the conversation in memory counts on.
    store.write(fence, &alice(), &numbered(2, vec![reply(3, at, Some(next), "new")])).await.unwrap();
    assert_eq!(places(&store).await, [3]);
    let replies = |message: &crate::domain::Message| {
        message.progress.replies.iter().map(|reply| reply.text.to_string()).collect::<Vec<_>>()
    };
    for (id, text) in [(message, "old"), (next, "new")] {
        assert_eq!(replies(&store.message(&alice(), id, None).await.unwrap().unwrap()), [text]);
    }
}

#[tokio::test]
async fn delivery_that_survived_is_not_queued_twice() {
    let server = Server::start();
    let store = server.store();
    let fence = active_owner(&store).await;
    let at = Timestamp::from_millis(1);
    let new = fixtures::new_delivery(&alice(), 3, at, "https://receiver.example/hook");
    let delivery = format!("t:{{{}}}:d:{}", Partition::of(&alice()), new.id);
    server.ask::<()>(&["HSET", &delivery, "s", "delivered"]).await;
    let changes = vec![reply(3, at, None, "hello"), ConversationChange::Deliver(Box::new(new))];
    store.write(fence, &alice(), &numbered(3, changes)).await.unwrap();
    let queues: Vec<String> = server.ask(&["KEYS", "*:o:*"]).await;
    assert_eq!(queues, Vec::<String>::new());
}

#[tokio::test]
async fn evicted_journal_begins_anew_and_keeps_its_newest_entries() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let at = Timestamp::from_millis(1);
    let mut write = numbered(1, (1..=1000).map(|seq| reply(seq, at, None, "old")).collect());
    store.write(fence, &alice(), &write).await.unwrap();
    server.ask::<()>(&["DEL", &format!("t:{{{}}}:j:{}", Partition::of(&alice()), alice())]).await;
    for number in 2..=200 {
        write = numbered(number, vec![reply(999 + number, at, None, "new")]);
        store.write(fence, &alice(), &write).await.unwrap();
    }
    let page = store.page(&alice(), ReadStart::Oldest, 1000, None).await.unwrap();
    assert_eq!((page.entries.len(), page.entries[0].entry.seq), (199, 1001));
}

#[tokio::test]
async fn open_message_leaves_the_cache_with_its_conversation() {
    let server = Server::start();
    let store = server.store();
    let fence = active_owner(&store).await;
    let accept = AcceptRequest { owner: Some(fence), ..accept(1) };
    let AcceptResult::New(message) = store.accept(accept).await.unwrap() else { panic!("it is new") };
    assert_eq!(Arc::strong_count(&message), 2);
    store.leave_memory(&alice());
    assert_eq!(Arc::strong_count(&message), 1);
}
