//! What the scripts publish, and for whom.

use deadpool_redis::redis::aio::PubSub;
use futures_util::StreamExt as _;

use super::*;
use crate::store::Hint;
use crate::store::redis::hint;

/// Listens to all channels.
async fn listen(server: &Server) -> PubSub {
    let mut all = server.client().get_async_pubsub().await.unwrap();
    all.psubscribe("*").await.unwrap();
    all
}

/// The next hint, and the channel it came over.
async fn next(all: &mut PubSub) -> (String, Hint) {
    let next = tokio::time::timeout(Duration::from_secs(10), all.on_message().next()).await;
    let message = next.expect("a hint").unwrap();
    (message.get_channel_name().to_owned(), hint::decode(message.get_payload_bytes()).unwrap())
}

fn channel(of: Incarnation) -> String {
    format!("t:replica:{of}")
}

#[tokio::test]
async fn the_owner_is_told_what_others_accept_for_it() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    // Nobody owns it, then the accepting replica does, then another.
    post(&store, 1).await;
    own(&store).await;
    post(&store, 2).await;
    let accepted = Accept { by: OTHER, ..accept(3) };
    store.accept(accepted.clone()).await.unwrap();
    let (to, told) = next(&mut all).await;
    let Hint::Accepted(message) = told else { panic!("{told:?}") };
    assert_eq!((to, message.id, message.position), (channel(ME), id(3), 2));
    assert_eq!((&message.new.conversation, message.new.content.text()), (&alice(), "message 3"));

    let mut large = Accept { by: OTHER, ..accept(4) };
    large.message.content = Content::new("x".repeat(65_536)).unwrap();
    store.accept(large).await.unwrap();
    let (to, told) = next(&mut all).await;
    assert!(matches!(told, Hint::Woken(who) if to == channel(ME) && who == alice()));
}

#[tokio::test]
async fn a_free_partition_has_nobody_to_tell() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    let fence = own(&store).await;
    store.release(Partition::of(&alice()), fence).await.unwrap();
    let (to, told) = next(&mut all).await;
    assert!(matches!(told, Hint::Fleet) && to == "t:fleet");
    store.accept(Accept { by: OTHER, ..accept(1) }).await.unwrap();
    own(&store).await;
    store.accept(Accept { by: OTHER, ..accept(2) }).await.unwrap();
    let (_, told) = next(&mut all).await;
    assert!(matches!(told, Hint::Accepted(message) if message.id == id(2)), "the first one told nobody");
}

#[tokio::test]
async fn each_replica_that_waits_is_told_the_end_once_but_not_the_owner() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    store.accept(Accept { watched: true, ..accept(1) }).await.unwrap();
    let fence = own(&store).await;
    for _ in 0..2 {
        store.message(&alice(), id(1), Some(OTHER)).await.unwrap().unwrap();
        store.message(&alice(), id(1), Some(Incarnation(7))).await.unwrap().unwrap();
        store.message(&alice(), id(1), None).await.unwrap().unwrap();
    }
    let at = Timestamp::from_millis(5);
    let changes = vec![
        Change::Sent { message: id(1), at },
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
    // Nothing was between those and this.
    store.leave(ME).await.unwrap();
    assert!(matches!(next(&mut all).await, (_, Hint::Fleet)));
}

#[tokio::test]
async fn an_end_too_large_to_carry_is_named() {
    let server = Server::start();
    let (store, mut all) = (server.store(), listen(&server).await);
    let fence = own(&store).await;
    store.accept(with_key(Accept { by: ME, ..accept(1) }, "k", 1)).await.unwrap();
    // A caller that repeats itself elsewhere waits there too.
    let again = Accept { by: OTHER, watched: true, ..with_key(accept(2), "k", 1) };
    assert!(matches!(store.accept(again).await.unwrap(), Accepted::Replayed(_)));
    let at = Timestamp::from_millis(5);
    let changes = vec![reply(1, at, Some(id(1)), &"x".repeat(40_000)), end(2, at, id(1))];
    store.write(fence, &alice(), &numbered(1, changes)).await.unwrap();
    let (to, told) = next(&mut all).await;
    let Hint::EndedLarge { conversation, id: ended } = told else { panic!("{told:?}") };
    assert_eq!((to, conversation, ended), (channel(OTHER), alice(), id(1)));
}

#[test]
fn what_is_no_hint_is_passed_over() {
    let odd: [&[u8]; 8] =
        [b"", b"Z", b"A", b"W5:ab", b"W-1:", b"B1:x", b"E3:a/b1:x", b"W99999999999999999999:"];
    for payload in odd {
        assert!(hint::decode(payload).is_none(), "{payload:?}");
    }
}
