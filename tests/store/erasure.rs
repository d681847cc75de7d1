//! Sentences about the erasure of a conversation.

use std::time::Duration;

use rtm_bridge::domain::{ConversationId, Cursor, DeliveryId, MessageId, Partition, ReadStart};
use rtm_bridge::store::{
    AcceptRequest, AcceptResult, ClaimMode, ConversationChange, ConversationQuery, DeliveryQuery, Hint,
    RetryDecision, Store, StoreError,
};

use super::delivery_worker::{DeliveryWorker, HOOK, dead_letter, say};
use super::store_fixture::{LEASE, ME, OTHER, StoreFixture, THIRD, accept, id, neighbours, new, with_key};
use crate::support::find_text;

/// The stored parts of a conversation.
struct Stored {
    ended: MessageId,
    open: Vec<MessageId>,
    deliveries: Vec<DeliveryId>,
}

fn keyed(conversation: &ConversationId, number: u128) -> AcceptRequest {
    with_key(accept(conversation, number), "crm", &format!("key-{number}"), 7)
}

/// Stores everything that a conversation may have: ended and open messages, keys, a journal, deliveries of each state, and
/// an observer.
async fn fill(fixture: &StoreFixture, conversation: &ConversationId, from: u128) -> Stored {
    let store = &fixture.store;
    let ended = new(store.accept(keyed(conversation, from)).await).id;
    let mut owner = fixture.own(conversation).await;
    owner.take_up().await;
    let at = owner.now().await;
    let (reply, end) = (owner.reply(at, Some(ended), "hello"), owner.end(at, ended));
    let sent = ConversationChange::Sent { message: ended, at };
    owner.write(vec![sent, reply, end]).await.unwrap();
    let late = owner.reply(at, Some(ended), "later");
    owner.write(vec![late]).await.unwrap();
    let mut deliveries = Vec::new();
    for decision in [Some(RetryDecision::Delivered), Some(dead_letter()), None, None] {
        deliveries.push(say(&mut owner, HOOK).await);
        if let Some(decision) = decision {
            DeliveryWorker::of(&owner, HOOK).attempt(*deliveries.last().unwrap(), decision).await;
        }
    }
    // One of them is in a queue of its own, and one is in flight.
    store.redeliver(deliveries[1]).await.unwrap();
    DeliveryWorker::of(&owner, HOOK).take(deliveries[2], 1).await;
    let open = vec![
        new(store.accept(keyed(conversation, from + 1)).await).id,
        new(store.accept(AcceptRequest { watched: true, ..accept(conversation, from + 2) }).await).id,
    ];
    store.page(conversation, ReadStart::Oldest, 10, Some(OTHER)).await.unwrap();
    owner.record.write += 1;
    let mut warm = owner.last(Vec::new());
    warm.warm_until = Some(at + Duration::from_mins(5));
    store.write(owner.fence, conversation, &warm).await.unwrap();
    Stored { ended, open, deliveries }
}

/// Asserts that the store has nothing of a conversation, or all of it.
async fn assert_stored(fixture: &StoreFixture, conversation: &ConversationId, stored: &Stored, all: bool) {
    let store = &fixture.store;
    for id in stored.open.iter().chain([&stored.ended]) {
        assert_eq!(store.message(conversation, *id, None).await.unwrap().is_some(), all, "{id}");
    }
    for id in &stored.deliveries {
        assert_eq!(store.delivery(*id).await.unwrap().is_some(), all, "{id}");
    }
    let page = store.page(conversation, ReadStart::Oldest, 100, None).await.unwrap();
    assert_eq!((page.entries.is_empty(), page.next == Cursor::default()), (!all, !all));
    let (state, _) = store.state(conversation, ME, 1).await.unwrap();
    assert_eq!((state.last_activity_at.is_some(), state.open_messages > 0), (all, all));
    let query = ConversationQuery { limit: 100, ..ConversationQuery::default() };
    let listed = store.conversations(&query).await.unwrap().conversations;
    assert_eq!(listed.iter().any(|listed| listed.conversation == *conversation), all);
    let query =
        DeliveryQuery { limit: 100, user: Some(conversation.user().clone()), ..DeliveryQuery::default() };
    let listed = store.deliveries(&query).await.unwrap().deliveries;
    assert_eq!(listed.len(), if all { stored.deliveries.len() } else { 0 });
}

/// Returns the places of a text in Redis. Other tests share the servers, so only this store's keys count.
async fn found(fixture: &StoreFixture, text: &str) -> Vec<String> {
    let Some((servers, prefix)) = fixture.redis() else { return Vec::new() };
    let mut places = find_text(&servers.masters().await, text).await;
    places.retain(|place| place.starts_with(prefix));
    places
}

pub(super) async fn erasure_leaves_nothing_of_the_conversation(fixture: StoreFixture) {
    let (alice, neighbour) = neighbours();
    let kept = fill(&fixture, &neighbour, 100).await;
    let before = if let Store::Memory(memory) = &fixture.store { Some(memory.stats()) } else { None };
    let stored = fill(&fixture, &alice, 1).await;
    assert_stored(&fixture, &alice, &stored, true).await;

    let fence = fixture.own(&alice).await.fence;
    let lane = fixture.store.erase(fence, &alice).await.unwrap();
    assert_eq!(lane.len(), stored.open.len());
    assert!(stored.open.iter().all(|id| lane.contains(id)), "{lane:?}");
    assert_stored(&fixture, &alice, &stored, false).await;
    assert_stored(&fixture, &neighbour, &kept, true).await;
    if let Store::Memory(memory) = &fixture.store {
        assert_eq!(Some(memory.stats()), before);
    }
    // No name comes back when conversations come to rest, or when a new owner looks.
    fixture.rest().await;
    let ready = fixture.store.ready(Partition::of(&alice), fence, true).await.unwrap();
    assert_eq!(ready, [neighbour]);
    if fixture.redis().is_some() {
        assert_eq!(found(&fixture, alice.user().as_str()).await, [""; 0]);
        assert!(!found(&fixture, &kept.ended.to_string()).await.is_empty(), "it is looked for");
        for id in stored.open.iter().chain([&stored.ended]) {
            assert_eq!(found(&fixture, &id.to_string()).await, [""; 0], "of a key or a message");
        }
    }
}

pub(super) async fn erasure_finds_the_names_of_expired_deliveries(fixture: StoreFixture) {
    let (alice, _) = neighbours();
    let mut owner = fixture.own(&alice).await;
    let delivered = say(&mut owner, HOOK).await;
    DeliveryWorker::of(&owner, HOOK).attempt(delivered, RetryDecision::Delivered).await;
    let key = format!("{{{}}}:d:{delivered}", Partition::of(&alice));
    fixture.tamper("DEL", &key, &[]).await;
    fixture.store.erase(owner.fence, &alice).await.unwrap();
    assert_eq!(found(&fixture, alice.user().as_str()).await, [""; 0]);
}

pub(super) async fn erasure_can_be_repeated(fixture: StoreFixture) {
    let (alice, _) = neighbours();
    let fence = fixture.own(&alice).await.fence;
    assert_eq!(fixture.store.erase(fence, &alice).await, Ok(vec![]), "nothing was there");
    let stored = fill(&fixture, &alice, 1).await;
    let fence = fixture.own(&alice).await.fence;
    fixture.store.erase(fence, &alice).await.unwrap();
    assert_eq!(fixture.store.erase(fence, &alice).await, Ok(vec![]));
    assert_stored(&fixture, &alice, &stored, false).await;
}

pub(super) async fn erasure_is_fenced(fixture: StoreFixture) {
    let (alice, _) = neighbours();
    let stored = fill(&fixture, &alice, 1).await;
    let old = fixture.own(&alice).await.fence;
    fixture.own(&alice).await;
    assert_eq!(fixture.store.erase(old, &alice).await, Err(StoreError::Fenced));
    assert_stored(&fixture, &alice, &stored, true).await;
}

pub(super) async fn watchers_get_a_hint_at_an_erasure(fixture: StoreFixture) {
    let (alice, _) = neighbours();
    let mut ear = fixture.listen(OTHER).await;
    let fence = fixture.own(&alice).await.fence;
    for (number, by) in [(1, ME), (2, OTHER), (3, THIRD)] {
        let accept = AcceptRequest { by, watched: true, ..accept(&alice, number) };
        fixture.store.accept(accept).await.unwrap();
    }
    assert_eq!(fixture.store.erase(fence, &alice).await.map(|lane| lane.len()), Ok(3));
    let erased = ear.until("the watcher is told", |hint| match hint {
        Hint::Erased(conversation, message) => Some((conversation.clone(), *message)),
        _ => None,
    });
    assert_eq!(erased.await, (alice, id(2)));
}

pub(super) async fn conversation_begins_anew_after_its_erasure(fixture: StoreFixture) {
    let (alice, _) = neighbours();
    let stored = fill(&fixture, &alice, 1).await;
    let old = fixture.store.page(&alice, ReadStart::Oldest, 100, None).await.unwrap().next;
    let fence = fixture.store.claim(Partition::of(&alice), ME, LEASE, ClaimMode::Expired).await.unwrap();
    fixture.store.erase(fence.fence().unwrap(), &alice).await.unwrap();
    // The idempotency key is free, also for another body.
    let again = with_key(accept(&alice, 50), "crm", "key-1", 9);
    let AcceptResult::New(accepted) = fixture.store.accept(again).await.unwrap() else { panic!("replayed") };
    assert_eq!((accepted.position, accepted.id), (0, id(50)));
    let mut owner = fixture.own(&alice).await;
    owner.record.epoch = owner.now().await.as_millis();
    let reply = owner.reply(owner.now().await, None, "hello");
    owner.write(vec![reply]).await.unwrap();
    let page = fixture.store.page(&alice, ReadStart::Cursor(old), 100, None).await.unwrap();
    assert_eq!((page.gap, page.entries.len()), (true, 1));
    assert!(fixture.store.message(&alice, stored.ended, None).await.unwrap().is_none());
}
