//! Sentences on journals and on what expires.

use std::time::Duration;

use rtm_bridge::domain::{Partition, Record, Status};
use rtm_bridge::store::StoreError;

use super::shape::{MESSAGE_TTL, Shape, accept, conversation, id, neighbours, new};

pub(super) async fn journals_are_read_from_a_place_on(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    assert!(shape.store.journal(&alice, 0, 10).await.unwrap().is_empty());
    let at = owner.now().await;
    let replies = (0..5).map(|_| owner.reply(at, None, "hello")).collect();
    owner.write(replies).await.unwrap();
    for (after, limit, places) in
        [(0, 10, 1..6), (0, 2, 1..3), (3, 10, 4..6), (5, 10, 6..6), (9, 10, 6..6), (0, 0, 1..1)]
    {
        let entries = shape.store.journal(&alice, after, limit).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), places.collect::<Vec<u64>>());
    }
}

pub(super) async fn journals_keep_a_thousand_entries(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let at = owner.now().await;
    let replies = (0..1007).map(|_| owner.reply(at, None, "hello")).collect();
    owner.write(replies).await.unwrap();
    let entries = shape.store.journal(&alice, 0, 2000).await.unwrap();
    assert_eq!((entries.len(), entries[0].seq), (1000, 8));
}

pub(super) async fn journals_keep_four_mebibytes(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let at = owner.now().await;
    // A text and the frame with it: a little over a mebibyte each.
    let text = "x".repeat(1 << 19);
    for _ in 0..5 {
        let reply = owner.reply(at, None, &text);
        owner.write(vec![reply]).await.unwrap();
    }
    let entries = shape.store.journal(&alice, 0, 10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4, 5]);
}

pub(super) async fn journals_are_gone_a_day_after_their_last_entry(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let day = Duration::from_hours(24);
    for _ in 0..2 {
        let reply = owner.reply(owner.now().await, None, "hello");
        owner.write(vec![reply]).await.unwrap();
        shape.pass_almost(day).await;
    }
    assert_eq!(shape.store.journal(&alice, 0, 10).await.unwrap().len(), 2);
    shape.pass_the_rest().await;
    // Up to an hour more, where its time is not set anew with each entry.
    shape.pass(Duration::from_hours(1)).await;
    assert!(shape.store.journal(&alice, 0, 10).await.unwrap().is_empty());
    let reply = owner.reply(owner.now().await, None, "hello");
    owner.take_up().await;
    owner.write(vec![reply]).await.unwrap();
    assert_eq!(shape.store.journal(&alice, 0, 10).await.unwrap().len(), 1, "the old ones do not come back");
}

pub(super) async fn what_ended_expires_and_what_is_open_stays(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    shape.post(&alice, 2).await;
    shape.pass(MESSAGE_TTL * 3).await;
    owner.settle(id(1)).await;
    shape.pass_almost(MESSAGE_TTL).await;
    assert!(shape.store.message(&alice, id(1), None).await.unwrap().is_some());
    shape.pass_the_rest().await;
    assert!(shape.store.message(&alice, id(1), None).await.unwrap().is_none());
    shape.pass(Duration::from_hours(24 * 30)).await;
    assert!(shape.store.message(&alice, id(2), None).await.unwrap().is_some());
    assert_eq!(shape.store.ready(Partition::of(&alice), owner.fence, false).await.unwrap(), [alice]);
}

pub(super) async fn client_message_ids_rise_beyond_what_was_forgotten(shape: Shape) {
    let (alice, bob) = neighbours();
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    let before = new(shape.store.accept(accept(&alice, 2)).await).client_message_id;
    owner.settle(id(1)).await;
    owner.settle(id(2)).await;
    shape.pass(Duration::from_hours(48)).await;
    // What is old goes where something new comes.
    for number in 5..10 {
        shape.post(&bob, number).await;
    }
    let after = new(shape.store.accept(accept(&alice, 4)).await);
    assert!(after.client_message_id > before);
    // The owner that still remembers more finds out.
    assert_eq!(owner.write(Vec::new()).await, Err(StoreError::OutOfStep));
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.record, open.lane.len(), open.next_position), (Record::default(), 1, 1));
    owner.take_up().await;
    owner.settle(id(4)).await;
    assert_eq!(
        shape.store.message(&alice, id(4), None).await.unwrap().unwrap().progress.status(),
        Status::Answered
    );
}
