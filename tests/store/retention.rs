//! Sentences about journals and expiry.

use std::time::Duration;

use rtm_bridge::domain::{ConversationRecord, MessageStatus, Partition};
use rtm_bridge::store::StoreError;

use super::store_fixture::{MESSAGE_TTL, StoreFixture, accept, conversation, id, neighbours, new};

pub(super) async fn journals_keep_a_thousand_entries(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let at = owner.now().await;
    let replies = (0..1007).map(|_| owner.reply(at, None, "hello")).collect();
    owner.write(replies).await.unwrap();
    let entries = fixture.entries(&alice).await;
    assert_eq!((entries.len(), entries[0].seq), (1000, 8));
}

pub(super) async fn journals_keep_four_mebibytes(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let at = owner.now().await;
    // Text and frame have a little over a mebibyte each.
    let text = "x".repeat(1 << 19);
    for _ in 0..5 {
        let reply = owner.reply(at, None, &text);
        owner.write(vec![reply]).await.unwrap();
    }
    let entries = fixture.entries(&alice).await;
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4, 5]);
}

pub(super) async fn journals_expire_a_day_after_their_last_entry(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let day = Duration::from_hours(24);
    for _ in 0..2 {
        let reply = owner.reply(owner.now().await, None, "hello");
        owner.write(vec![reply]).await.unwrap();
        fixture.pass_almost(day).await;
    }
    assert_eq!(fixture.entries(&alice).await.len(), 2);
    fixture.pass_the_rest().await;
    assert!(fixture.entries(&alice).await.is_empty());
    let reply = owner.reply(owner.now().await, None, "hello");
    owner.take_up().await;
    owner.write(vec![reply]).await.unwrap();
    assert_eq!(fixture.entries(&alice).await.len(), 1, "the old ones do not come back");
}

pub(super) async fn ended_message_expires_and_open_one_stays(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    fixture.post(&alice, 1).await;
    fixture.post(&alice, 2).await;
    fixture.pass(MESSAGE_TTL * 3).await;
    owner.settle(id(1)).await;
    fixture.pass_almost(MESSAGE_TTL).await;
    assert!(fixture.store.message(&alice, id(1), None).await.unwrap().is_some());
    fixture.pass_the_rest().await;
    assert!(fixture.store.message(&alice, id(1), None).await.unwrap().is_none());
    fixture.pass(Duration::from_hours(24 * 30)).await;
    assert!(fixture.store.message(&alice, id(2), None).await.unwrap().is_some());
    assert_eq!(fixture.store.ready(Partition::of(&alice), owner.fence, false).await.unwrap(), [alice]);
}

pub(super) async fn client_message_ids_rise_after_expiry(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    let mut owner = fixture.own(&alice).await;
    fixture.post(&alice, 1).await;
    let before = new(fixture.store.accept(accept(&alice, 2)).await).client_message_id;
    owner.settle(id(1)).await;
    owner.settle(id(2)).await;
    fixture.pass(Duration::from_hours(48)).await;
    // A new entry removes the old ones.
    for number in 5..10 {
        fixture.post(&bob, number).await;
    }
    let after = new(fixture.store.accept(accept(&alice, 4)).await);
    assert!(after.client_message_id > before);
    // The owner that still has the old state finds out.
    assert_eq!(owner.write(Vec::new()).await, Err(StoreError::OutOfStep));
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.record, open.lane.len(), open.next_position), (ConversationRecord::default(), 1, 1));
    owner.take_up().await;
    owner.settle(id(4)).await;
    assert_eq!(
        fixture.store.message(&alice, id(4), None).await.unwrap().unwrap().progress.status(),
        MessageStatus::Answered
    );
}
