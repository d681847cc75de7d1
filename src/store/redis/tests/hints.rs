//! The hints that scripts publish, and their receivers.

use deadpool_redis::redis::aio::PubSub;
use futures_util::StreamExt as _;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::domain::{
    ConnectionStatus, LinkState, MessageContent, ReadStart, ReplyChunk, SignalKind, UserSignal,
};
use crate::store::redis::hint_codec;
use crate::store::{Hint, NOTED, OBSERVED};

/// Listens to all channels.
async fn listen(server: &Server) -> PubSub {
    let mut all = server.client().get_async_pubsub().await.unwrap();
    all.psubscribe("*").await.unwrap();
    all
}

/// Returns the next hint and its channel.
async fn next(all: &mut PubSub) -> (String, Hint) {
    let next = tokio::time::timeout(Duration::from_secs(10), all.on_message().next()).await;
    let message = next.expect("a hint").unwrap();
    (message.get_channel_name().to_owned(), hint_codec::decode(message.get_payload_bytes()).unwrap().0)
}

fn channel(of: Incarnation) -> String {
    format!("t:replica:{of}")
}

#[tokio::test]
async fn owner_gets_hints_at_accepts_of_other_replicas() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    // The partition has no owner, then the accepting replica owns it, then another.
    post(&store, 1).await;
    own(&store).await;
    post(&store, 2).await;
    let accepted = AcceptRequest { by: OTHER, ..accept(3) };
    store.accept(accepted.clone()).await.unwrap();
    let (to, told) = next(&mut all).await;
    let Hint::Accepted(message) = told else { panic!("{told:?}") };
    assert_eq!((to, message.id, message.position), (channel(ME), id(3), 2));
    assert_eq!((&message.new.conversation, message.new.content.text()), (&alice(), "message 3"));

    let mut large = AcceptRequest { by: OTHER, ..accept(4) };
    large.message.content = MessageContent::new("x".repeat(65_536)).unwrap();
    store.accept(large).await.unwrap();
    let (to, told) = next(&mut all).await;
    assert!(matches!(told, Hint::Woken(who) if to == channel(ME) && who == alice()));
}

#[tokio::test]
async fn accept_in_a_free_partition_gives_no_hint() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    let fence = own(&store).await;
    store.release(Partition::of(&alice()), fence).await.unwrap();
    let (to, told) = next(&mut all).await;
    assert!(matches!(told, Hint::Fleet) && to == "t:fleet");
    store.accept(AcceptRequest { by: OTHER, ..accept(1) }).await.unwrap();
    own(&store).await;
    store.accept(AcceptRequest { by: OTHER, ..accept(2) }).await.unwrap();
    let (_, told) = next(&mut all).await;
    assert!(matches!(told, Hint::Accepted(message) if message.id == id(2)), "the first one told nobody");
}

#[tokio::test]
async fn end_is_hinted_once_to_each_watcher_but_the_owner() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    store.accept(AcceptRequest { watched: true, ..accept(1) }).await.unwrap();
    let fence = own(&store).await;
    for _ in 0..2 {
        store.message(&alice(), id(1), Some(OTHER)).await.unwrap().unwrap();
        store.message(&alice(), id(1), Some(Incarnation(7))).await.unwrap().unwrap();
        store.message(&alice(), id(1), None).await.unwrap().unwrap();
    }
    let at = Timestamp::from_millis(5);
    let changes = vec![
        ConversationChange::Sent { message: id(1), at },
        reply(1, at, Some(id(1)), "Zoë\n\u{1F600}"),
        end(2, at, id(1)),
    ];
    let write = numbered(1, changes);
    for _ in 0..2 {
        store.write(fence, &alice(), &write).await.unwrap();
    }
    for watcher in [OTHER, Incarnation(7)] {
        let (to, told) = next(&mut all).await;
        let Hint::Ended(message) = told else { panic!("{told:?}") };
        let stored = store.message(&alice(), id(1), None).await.unwrap().unwrap();
        assert_eq!((to, format!("{message:?}")), (channel(watcher), format!("{stored:?}")));
        assert_eq!(&*message.progress.replies[0].text, "Zoë\n\u{1F600}");
    }
    // No other hint came in between.
    store.leave(ME).await.unwrap();
    assert!(matches!(next(&mut all).await, (_, Hint::Fleet)));
}

#[tokio::test]
async fn large_end_is_hinted_by_name() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    let fence = own(&store).await;
    store.accept(with_key(AcceptRequest { by: ME, ..accept(1) }, "shop", "k", 1)).await.unwrap();
    // A caller that repeats its request on another replica waits there too.
    let again = AcceptRequest { by: OTHER, watched: true, ..with_key(accept(2), "shop", "k", 1) };
    assert!(matches!(store.accept(again).await.unwrap(), AcceptResult::Replayed(_)));
    let at = Timestamp::from_millis(5);
    let changes = vec![reply(1, at, Some(id(1)), &"x".repeat(40_000)), end(2, at, id(1))];
    store.write(fence, &alice(), &numbered(1, changes)).await.unwrap();
    let (to, told) = next(&mut all).await;
    let Hint::EndedLarge { conversation, id: ended } = told else { panic!("{told:?}") };
    assert_eq!((to, conversation, ended), (channel(OTHER), alice(), id(1)));
}

#[tokio::test]
async fn write_is_hinted_once_to_each_observer_but_the_owner() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    for observer in [OTHER, ME, Incarnation(7), OTHER] {
        store.page(&alice(), ReadStart::Latest, 1, Some(observer)).await.unwrap();
    }
    let fence = own(&store).await;
    let at = Timestamp::from_millis(5);
    let write = numbered(1, vec![reply(1, at, None, "hello"), reply(2, at, None, "hello")]);
    for _ in 0..2 {
        store.write(fence, &alice(), &write).await.unwrap();
    }
    store.write(fence, &alice(), &numbered(2, vec![ConversationChange::HeadSince { at }])).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..2 {
        let (to, hint) = next(&mut all).await;
        assert!(matches!(hint, Hint::Appended(of) if of == alice()));
        told.push(to);
    }
    assert_eq!(told, [channel(OTHER), channel(Incarnation(7))]);
    store.leave(ME).await.unwrap();
    assert!(matches!(next(&mut all).await, (_, Hint::Fleet)), "nothing was between those and this");
}

#[tokio::test]
async fn observer_note_is_renewed_when_due_and_expires() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    own(&store).await;
    let key = format!("t:{{{}}}:c:{}", Partition::of(&alice()), alice());
    let notes = async || server.ask::<String>(&["HGET", &key, "x"]).await;
    let mut before = String::new();
    for (skew, renewed) in [(0, true), (10, false), (30, true), (40, false), (50, true)] {
        store.skew(Duration::from_secs(skew));
        store.observe(&[alice()], OTHER).await.unwrap();
        let now = notes().await;
        assert_eq!(now != before, renewed, "after {skew} s");
        if renewed {
            let (to, hint) = next(&mut all).await;
            assert!(matches!(hint, Hint::Observed(of, OTHER) if of == alice() && to == channel(ME)));
        }
        before = now;
    }
    let left: u64 = server.ask(&["PTTL", &key]).await;
    assert!(Duration::from_millis(left) <= NOTED && Duration::from_millis(left) > OBSERVED, "{left}");
    // The next note removes the expired ones.
    store.skew(Duration::from_hours(1));
    store.observe(&[alice()], Incarnation(7)).await.unwrap();
    let notes = notes().await;
    assert!(notes.starts_with(&format!("{}:", Incarnation(7))) && !notes.contains(' '), "{notes}");
}

#[tokio::test]
async fn write_without_observers_publishes_nothing() {
    let server = Server::start();
    let store = server.store();
    let fence = own(&store).await;
    let at = Timestamp::from_millis(5);
    let mut number = 0;
    let mut calls = async || {
        server.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
        number += 1;
        let write = numbered(number, vec![reply(number, at, None, "hello")]);
        store.write(fence, &alice(), &write).await.unwrap();
        let stats: String = server.ask(&["INFO", "commandstats"]).await;
        let publishes = stats.lines().any(|line| line.starts_with("cmdstat_publish:"));
        let calls = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
        let ours = stats.lines().filter(|line| !line.starts_with("cmdstat_config"));
        (ours.filter_map(calls).sum::<u64>(), publishes)
    };
    // The first write is a script's, and the second one activates the conversation.
    calls().await;
    calls().await;
    let (plain, _) = calls().await;
    store.observe(&[alice()], ME).await.unwrap();
    assert_eq!(calls().await, (plain, false), "the owner's own note");
    store.observe(&[alice()], OTHER).await.unwrap();
    assert!(calls().await.1, "the owner learns of the note");
    calls().await;
    assert_eq!(calls().await, (plain + 1, true));
}

fn text(length: usize) -> impl Strategy<Value = Box<str>> {
    prop::collection::vec(any::<char>(), 0..length)
        .prop_map(|chars| chars.into_iter().collect::<String>().into())
}

proptest! {
    #[test]
    fn chunk_hint_after_encoding_is_equal(
        user in "[^\\p{Cc}.][^\\p{Cc}]{0,19}",
        message_id in prop::option::of(text(20)),
        index: u32,
        text in text(200),
        last: bool,
    ) {
        let conversation = fixtures::conversation("support", &user);
        let chunk = ReplyChunk { message_id, index, text, last };
        let payload = hint_codec::encode(&Hint::Chunk(conversation.clone(), Arc::new(chunk.clone()))).unwrap();
        let Some((Hint::Chunk(of, read), None)) = hint_codec::decode(&payload) else { panic!("a piece") };
        prop_assert_eq!((of, &*read), (conversation, &chunk));
        // A truncated payload is no hint.
        for end in 0..payload.len() {
            prop_assert!(hint_codec::decode(&payload[..end]).is_none());
        }
    }

    #[test]
    fn frame_hint_after_encoding_is_equal(user in "[^\\p{Cc}.][^\\p{Cc}]{0,19}", text in text(200)) {
        let conversation = fixtures::conversation("support", &user);
        let frame: Arc<RawValue> = Arc::from(serde_json::value::to_raw_value(&text).unwrap());
        let payload = hint_codec::encode(&Hint::Platform(conversation.clone(), Arc::clone(&frame))).unwrap();
        let Some((Hint::Platform(of, read), None)) = hint_codec::decode(&payload) else { panic!("a frame") };
        prop_assert_eq!((of, read.get()), (conversation, frame.get()));
    }

    #[test]
    fn signal_hint_after_encoding_is_equal(
        user in "[^\\p{Cc}.][^\\p{Cc}]{0,19}",
        kind in prop::sample::select(vec![SignalKind::Typing, SignalKind::Read, SignalKind::CloseAgentChat]),
        message_id in prop::option::of(text(20)),
    ) {
        let hint = Hint::Signal(fixtures::conversation("support", &user), UserSignal { kind, message_id });
        let payload = hint_codec::encode(&hint).unwrap();
        let read = hint_codec::decode(&payload).map(|(hint, _)| format!("{hint:?}"));
        prop_assert_eq!(read, Some(format!("{hint:?}")));
    }

    #[test]
    fn erasure_hint_after_encoding_is_equal(user in "[^\\p{Cc}.][^\\p{Cc}]{0,19}") {
        let hint = Hint::UserErased(fixtures::conversation("support", &user));
        let read = hint_codec::decode(&hint_codec::encode(&hint).unwrap()).map(|(hint, _)| format!("{hint:?}"));
        prop_assert_eq!(read, Some(format!("{hint:?}")));
    }

    #[test]
    fn list_hints_after_encoding_are_equal(
        users in prop::collection::vec("[^\\p{Cc}.][^\\p{Cc}]{0,19}", 0..5), number: u64, by: u64,
    ) {
        let conversations: Vec<_> = users.iter().map(|user| fixtures::conversation("support", user)).collect();
        let asked = Hint::AskedList { conversations: conversations.clone(), by: Incarnation(by), number };
        let payload = hint_codec::encode(&asked).unwrap();
        let read = hint_codec::decode(&payload).map(|(hint, _)| format!("{hint:?}"));
        prop_assert_eq!(read, Some(format!("{asked:?}")));
        let connection = ConnectionStatus { reason: Some("3:4".into()), ..ConnectionStatus::default() };
        let told = conversations.into_iter().map(|conversation| (conversation, connection.clone())).collect();
        let answer = Hint::AnsweredList(number, told);
        let payload = hint_codec::encode(&answer).unwrap();
        let read = hint_codec::decode(&payload).map(|(hint, _)| format!("{hint:?}"));
        prop_assert_eq!(read, Some(format!("{answer:?}")));
    }

    #[test]
    fn connection_hint_after_encoding_is_equal(
        number: u64,
        state in prop::sample::select(LinkState::ALL.to_vec()),
        since in prop::option::of(any::<u64>()),
        reason in prop::option::of(text(50)),
        retry_at in prop::option::of(any::<u64>()),
    ) {
        let [since, retry_at] = [since, retry_at].map(|at| at.map(Timestamp::from_millis));
        let connection = ConnectionStatus { state, since, reason, retry_at };
        let payload = hint_codec::encode(&Hint::Answered(number, Box::new(connection.clone()))).unwrap();
        let Some((Hint::Answered(to, read), None)) = hint_codec::decode(&payload) else { panic!("an answer") };
        prop_assert_eq!((to, *read), (number, connection));
        for end in 0..payload.len() {
            prop_assert!(hint_codec::decode(&payload[..end]).is_none());
        }
    }
}

#[test]
fn unreadable_hint_is_ignored() {
    let odd: [&[u8]; 20] = [
        b"",
        b"Z",
        b"A",
        b"W5:ab",
        b"W-1:",
        b"B1:x",
        b"E3:a/b1:x",
        b"W99999999999999999999:",
        b"J",
        b"J2:ab",
        b"O3:a/b",
        b"O3:a/b1:z",
        b"Q3:a/b1:1",
        b"Q3:a/b1:11:x",
        b"C3:a/b2:{}",
        b"S1:12:{}",
        b"S1:111:{\"s\":\"hot\"}",
        b"R",
        b"R1:x",
        b"R3:256",
    ];
    for payload in odd {
        assert!(hint_codec::decode(payload).is_none(), "{payload:?}");
    }
}
