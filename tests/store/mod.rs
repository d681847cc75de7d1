//! The contract of the store, sentence by sentence, for every side of it.

mod memory;
mod model;
mod shape;

use std::time::Duration;

use rtm_bridge::domain::{EndedBy, Outcome, Partition, Record, Status, Timestamp};
use rtm_bridge::store::{AcceptError, Accepted, Change, StoreError, Write};

use shape::{LEASE, MESSAGE_TTL, Shape, accept, conversation, id, new, with_key};

/// Runs each sentence against each side; another side is another line here.
macro_rules! contract {
    ($($sentence:ident)*) => {
        contract!(@side on_memory Shape::memory, $($sentence)*);
    };
    (@side $side:ident $shape:path, $($sentence:ident)*) => {
        mod $side {
            use super::Shape;
            $(#[tokio::test] async fn $sentence() { super::$sentence($shape()).await; })*
        }
    };
}

contract! {
    an_accepted_message_is_queued_and_can_be_read_again_and_again
    client_message_ids_and_positions_rise
    an_accept_repeated_under_its_id_answers_as_the_first_did
    an_id_belongs_to_one_conversation
    a_key_used_again_replays_the_message_as_it_stands
    a_key_used_for_another_body_is_refused
    keys_of_other_callers_and_conversations_are_other_keys
    a_key_lives_as_long_as_its_message
    a_full_lane_takes_no_more_until_one_ends
    a_partition_has_one_owner
    a_lease_that_ran_out_is_free_and_the_old_owner_is_fenced
    a_released_partition_is_free_at_once
    claiming_again_fences_off_what_was_on_its_way
    a_lease_nobody_took_can_be_renewed_late
    every_operation_of_an_owner_is_fenced
    ready_is_what_has_open_messages
    the_next_message_is_head_since_the_end_before_it
    an_end_behind_the_head_leaves_the_head_alone
    the_first_sign_of_each_kind_counts
    a_message_ends_once
    an_end_of_something_else_changes_nothing
    a_repeated_write_changes_nothing
    a_write_out_of_order_is_refused
    replies_join_their_message_also_after_its_end
    replies_never_join_another_conversation
    the_record_is_what_was_written_last
    journals_are_read_from_a_place_on
    journals_keep_a_thousand_entries
    journals_keep_four_mebibytes
    journals_are_gone_a_day_after_their_last_entry
    what_ended_expires_and_what_is_open_stays
    client_message_ids_rise_beyond_what_was_forgotten
}

async fn an_accepted_message_is_queued_and_can_be_read_again_and_again(shape: Shape) {
    let alice = conversation("alice");
    let accepted = new(shape.store.accept(accept(&alice, 1)).await);
    for _ in 0..2 {
        let message = shape.store.message(&alice, id(1)).await.unwrap().unwrap();
        assert_eq!(message.progress.status(), Status::Queued);
        assert_eq!(message.accepted.new.content.text(), "message 1");
        assert_eq!(message.accepted.accepted_at, accepted.accepted_at);
    }
    assert!(shape.store.message(&alice, id(2)).await.unwrap().is_none());
    assert!(shape.store.message(&conversation("bob"), id(1)).await.unwrap().is_none());
}

async fn client_message_ids_and_positions_rise(shape: Shape) {
    let alice = conversation("alice");
    let owner = shape.own(&alice).await;
    let first = new(shape.store.accept(accept(&alice, 1)).await);
    assert!(first.client_message_id >= first.accepted_at.as_millis());
    let mut last = first;
    for number in 2..6 {
        let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
        let next = new(shape.store.accept(accept(&alice, number)).await);
        assert_eq!(next.position, open.next_position);
        assert_eq!(next.position, last.position + 1);
        assert!(next.client_message_id > last.client_message_id);
        last = next;
    }
}

async fn an_accept_repeated_under_its_id_answers_as_the_first_did(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let mut only = with_key(accept(&alice, 1), "shop", "k", 1);
    only.max_open = 1;
    let first = new(shape.store.accept(only.clone()).await);
    // Neither its own key nor the lane that it fills itself stand in the way, nor that it went on meanwhile.
    for ended in [false, true] {
        if ended {
            owner.settle(id(1)).await;
        }
        shape.pass(Duration::from_millis(5));
        let again = new(shape.store.accept(only.clone()).await);
        assert_eq!(again.client_message_id, first.client_message_id);
        assert_eq!(again.accepted_at, first.accepted_at);
    }
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert!(open.lane.is_empty());
}

async fn an_id_belongs_to_one_conversation(shape: Shape) {
    // These two live in one partition.
    let (one, two) = neighbours();
    shape.post(&one, 1).await;
    let refused = shape.store.accept(accept(&two, 1)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch);
    assert!(shape.store.message(&two, id(1)).await.unwrap().is_none());
}

async fn a_key_used_again_replays_the_message_as_it_stands(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    new(shape.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await);
    for status in [Status::Queued, Status::Answered] {
        if status == Status::Answered {
            owner.settle(id(1)).await;
        }
        let again = with_key(accept(&alice, 2), "shop", "k", 1);
        let Accepted::Replayed(message) = shape.store.accept(again).await.unwrap() else {
            panic!("accepted twice")
        };
        assert_eq!((message.accepted.id, message.progress.status()), (id(1), status));
    }
    assert!(shape.store.message(&alice, id(2)).await.unwrap().is_none());
}

async fn a_key_used_for_another_body_is_refused(shape: Shape) {
    let alice = conversation("alice");
    new(shape.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await);
    let refused = shape.store.accept(with_key(accept(&alice, 2), "shop", "k", 2)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch);
}

async fn keys_of_other_callers_and_conversations_are_other_keys(shape: Shape) {
    let (one, two) = neighbours();
    new(shape.store.accept(with_key(accept(&one, 1), "shop", "k", 1)).await);
    new(shape.store.accept(with_key(accept(&one, 2), "sho", "pk", 2)).await);
    new(shape.store.accept(with_key(accept(&one, 3), "web", "k", 2)).await);
    new(shape.store.accept(with_key(accept(&two, 4), "shop", "k", 2)).await);
}

async fn a_key_lives_as_long_as_its_message(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    new(shape.store.accept(with_key(accept(&alice, 1), "shop", "k", 1)).await);
    shape.pass(MESSAGE_TTL * 10);
    let refused = shape.store.accept(with_key(accept(&alice, 2), "shop", "k", 2)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch, "it is open");
    owner.settle(id(1)).await;
    shape.pass(MESSAGE_TTL);
    new(shape.store.accept(with_key(accept(&alice, 3), "shop", "k", 2)).await);
    // The first one's expiry must not take the key from the second.
    shape.post(&alice, 4).await;
    let refused = shape.store.accept(with_key(accept(&alice, 5), "shop", "k", 1)).await.unwrap_err();
    assert_eq!(refused, AcceptError::IdempotencyMismatch);
}

async fn a_full_lane_takes_no_more_until_one_ends(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let two = |number| {
        let mut accept = accept(&alice, number);
        accept.max_open = 2;
        shape.store.accept(accept)
    };
    new(two(1).await);
    new(two(2).await);
    assert_eq!(two(3).await.unwrap_err(), AcceptError::LaneFull(2));
    owner.settle(id(2)).await;
    new(two(3).await);
    assert_eq!(two(4).await.unwrap_err(), AcceptError::LaneFull(2));
}

async fn a_partition_has_one_owner(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let first = shape.store.claim(partition, 1, LEASE).await.unwrap().unwrap();
    shape.pass(LEASE - Duration::from_millis(1));
    assert_eq!(shape.store.claim(partition, 2, LEASE).await.unwrap(), None);
    shape.store.renew(partition, first, LEASE).await.unwrap();
    shape.pass(LEASE - Duration::from_millis(1));
    assert_eq!(shape.store.claim(partition, 2, LEASE).await.unwrap(), None);
    let other = Partition::all().find(|&other| other != partition).unwrap();
    assert!(shape.store.claim(other, 2, LEASE).await.unwrap().is_some());
}

async fn a_lease_that_ran_out_is_free_and_the_old_owner_is_fenced(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let old = shape.store.claim(partition, 1, LEASE).await.unwrap().unwrap();
    shape.pass(LEASE);
    let now = shape.store.now().await.unwrap();
    let young = shape.store.claim(partition, 2, LEASE).await.unwrap().unwrap();
    assert!(young.epoch > old.epoch && young.epoch >= now.as_millis());
    assert_eq!(shape.store.renew(partition, old, LEASE).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.release(partition, old).await, Err(StoreError::Fenced));
    assert!(shape.store.renew(partition, young, LEASE).await.is_ok());
}

async fn a_released_partition_is_free_at_once(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let old = shape.store.claim(partition, 1, LEASE).await.unwrap().unwrap();
    shape.store.release(partition, old).await.unwrap();
    assert_eq!(shape.store.renew(partition, old, LEASE).await, Err(StoreError::Fenced));
    let young = shape.store.claim(partition, 2, LEASE).await.unwrap().unwrap();
    assert!(young.epoch > old.epoch, "also within one millisecond");
}

async fn claiming_again_fences_off_what_was_on_its_way(shape: Shape) {
    let partition = Partition::of(&conversation("alice"));
    let old = shape.store.claim(partition, 1, LEASE).await.unwrap().unwrap();
    let young = shape.store.claim(partition, 1, LEASE).await.unwrap().unwrap();
    assert!(young.epoch > old.epoch);
    assert_eq!(shape.store.ready(partition, old).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.ready(partition, young).await, Ok(Vec::new()));
}

async fn a_lease_nobody_took_can_be_renewed_late(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    shape.pass(LEASE * 5);
    owner.settle(id(1)).await;
    let partition = Partition::of(&alice);
    shape.store.renew(partition, owner.fence, LEASE).await.unwrap();
    assert_eq!(shape.store.claim(partition, 2, LEASE).await.unwrap(), None);
}

async fn every_operation_of_an_owner_is_fenced(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    shape.pass(LEASE);
    shape.store.claim(Partition::of(&alice), 2, LEASE).await.unwrap().unwrap();
    let end = owner.end(Timestamp::default(), id(1));
    assert_eq!(owner.write(vec![end]).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.open(owner.fence, &alice).await.unwrap_err(), StoreError::Fenced);
    assert_eq!(shape.store.ready(Partition::of(&alice), owner.fence).await, Err(StoreError::Fenced));
    assert_eq!(shape.store.message(&alice, id(1)).await.unwrap().unwrap().progress.status(), Status::Queued);
    assert!(shape.store.journal(&alice, 0, 10).await.unwrap().is_empty());
}

async fn ready_is_what_has_open_messages(shape: Shape) {
    let (one, two) = neighbours();
    let partition = Partition::of(&one);
    let mut owner = shape.own(&one).await;
    assert!(shape.store.ready(partition, owner.fence).await.unwrap().is_empty());
    shape.post(&one, 1).await;
    shape.post(&one, 2).await;
    shape.post(&two, 3).await;
    let mut ready = shape.store.ready(partition, owner.fence).await.unwrap();
    ready.sort();
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(ready, both);
    owner.settle(id(1)).await;
    assert_eq!(shape.store.ready(partition, owner.fence).await.unwrap().len(), 2);
    owner.settle(id(2)).await;
    assert_eq!(shape.store.ready(partition, owner.fence).await.unwrap(), [two]);
}

async fn the_next_message_is_head_since_the_end_before_it(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.pass(Duration::from_millis(7));
    let (open, now) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (None, 0));
    assert_eq!(now, shape.store.now().await.unwrap());
    let head_at = new(shape.store.accept(accept(&alice, 1)).await).accepted_at;
    shape.pass(Duration::from_millis(7));
    shape.post(&alice, 2).await;
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.head_at, Some(head_at));
    assert_eq!(open.lane.iter().map(|open| open.accepted.id).collect::<Vec<_>>(), [id(1), id(2)]);
    let end_at = owner.now().await;
    shape.pass(Duration::from_millis(7));
    let end = owner.end(end_at, id(1));
    owner.write(vec![end]).await.unwrap();
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (Some(end_at), 1));
    owner.settle(id(2)).await;
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (None, 0));
}

async fn an_end_behind_the_head_leaves_the_head_alone(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let head_at = new(shape.store.accept(accept(&alice, 1)).await).accepted_at;
    shape.post(&alice, 2).await;
    shape.pass(Duration::from_millis(7));
    owner.settle(id(2)).await;
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (Some(head_at), 1));
}

async fn the_first_sign_of_each_kind_counts(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let message = shape.post(&alice, 1).await;
    let at = Timestamp::from_millis;
    type Sign = fn(rtm_bridge::domain::MessageId, Timestamp) -> Change;
    let signs: [(Sign, Status); 3] = [
        (|message, at| Change::Sent { message, at }, Status::Sent),
        (|message, at| Change::Acked { message, at }, Status::Acked),
        (|message, at| Change::Answering { message, at }, Status::Answering),
    ];
    for (sign, status) in signs {
        owner.write(vec![sign(message, at(5)), sign(message, at(6))]).await.unwrap();
        owner.write(vec![sign(message, at(7))]).await.unwrap();
        assert_eq!(shape.store.message(&alice, message).await.unwrap().unwrap().progress.status(), status);
    }
    let reply = owner.reply(at(8), Some(message), "hello");
    owner.write(vec![reply]).await.unwrap();
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    let progress = &open.lane[0].progress;
    let five = Some(at(5));
    assert_eq!((progress.sent_at, progress.acked_at, progress.first_reply_at), (five, five, five));
    owner.settle(message).await;
    let late = vec![Change::Sent { message, at: at(9) }, Change::Answering { message, at: at(9) }];
    owner.write(late).await.unwrap();
    let message = shape.store.message(&alice, message).await.unwrap().unwrap();
    assert_eq!((message.progress.status(), message.progress.first_reply_at), (Status::Answered, five));
}

async fn a_message_ends_once(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let message = shape.post(&alice, 1).await;
    let at = owner.now().await;
    let (first, second) = (owner.end(at, message), owner.end(at + LEASE, message));
    owner.write(vec![first, second]).await.unwrap();
    shape.pass(Duration::from_millis(5));
    owner.settle(message).await;
    let message = shape.store.message(&alice, message).await.unwrap().unwrap();
    assert_eq!(message.progress.ended_at, Some(at));
    assert_eq!(message.progress.outcome, Some(Outcome::Answered(EndedBy::Quiet)));
    assert_eq!(shape.store.journal(&alice, 0, 10).await.unwrap().len(), 1, "told once");
}

async fn an_end_of_something_else_changes_nothing(shape: Shape) {
    let (one, two) = neighbours();
    shape.post(&one, 1).await;
    shape.post(&two, 2).await;
    let mut owner = shape.own(&one).await;
    for stranger in [id(2), id(3)] {
        owner.settle(stranger).await;
    }
    assert!(shape.store.journal(&one, 0, 10).await.unwrap().is_empty());
    for (conversation, number) in [(&one, 1), (&two, 2)] {
        let (open, _) = shape.store.open(owner.fence, conversation).await.unwrap();
        assert_eq!(open.lane[0].accepted.id, id(number));
        assert!(!open.lane[0].progress.has_ended());
    }
}

async fn a_repeated_write_changes_nothing(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let message = shape.post(&alice, 1).await;
    let reply = owner.reply(owner.now().await, Some(message), "hello");
    owner.record.write = 1;
    let write = Write { record: owner.record.clone(), changes: vec![reply] };
    for _ in 0..3 {
        shape.store.write(owner.fence, &alice, &write).await.unwrap();
    }
    assert_eq!(shape.store.journal(&alice, 0, 10).await.unwrap().len(), 1);
    assert_eq!(shape.store.message(&alice, message).await.unwrap().unwrap().progress.replies.len(), 1);
}

async fn a_write_out_of_order_is_refused(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    for _ in 0..3 {
        owner.write(Vec::new()).await.unwrap();
    }
    for number in [0, 2, 5, u64::MAX] {
        let record = Record { write: number, ..owner.record.clone() };
        let write = Write { record, changes: Vec::new() };
        assert_eq!(shape.store.write(owner.fence, &alice, &write).await, Err(StoreError::Fenced), "{number}");
    }
    assert!(owner.write(Vec::new()).await.is_ok());
}

async fn replies_join_their_message_also_after_its_end(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let message = shape.post(&alice, 1).await;
    owner.settle(message).await;
    let late = owner.reply(owner.now().await, Some(message), "late");
    let unsolicited = owner.reply(owner.now().await, None, "unsolicited");
    owner.write(vec![late, unsolicited]).await.unwrap();
    let progress = shape.store.message(&alice, message).await.unwrap().unwrap().progress;
    assert_eq!(progress.replies.iter().map(|reply| &*reply.text).collect::<Vec<_>>(), ["late"]);
    assert_eq!(progress.first_reply_at, None, "it was answered with nothing");
}

async fn replies_never_join_another_conversation(shape: Shape) {
    let (one, two) = neighbours();
    shape.post(&two, 2).await;
    let mut owner = shape.own(&one).await;
    let reply = owner.reply(owner.now().await, Some(id(2)), "hello");
    owner.write(vec![reply]).await.unwrap();
    assert!(shape.store.message(&two, id(2)).await.unwrap().unwrap().progress.replies.is_empty());
}

async fn the_record_is_what_was_written_last(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.record, Record::default());
    owner.record.agent = true;
    owner.record.session_id = Some("s-1".into());
    owner.record.sends.record(50, owner.now().await);
    owner.write(Vec::new()).await.unwrap();
    let (open, _) = shape.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.record, owner.record);
}

async fn journals_are_read_from_a_place_on(shape: Shape) {
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

async fn journals_keep_a_thousand_entries(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let at = owner.now().await;
    let replies = (0..1007).map(|_| owner.reply(at, None, "hello")).collect();
    owner.write(replies).await.unwrap();
    let entries = shape.store.journal(&alice, 0, 2000).await.unwrap();
    assert_eq!((entries.len(), entries[0].seq), (1000, 8));
}

async fn journals_keep_four_mebibytes(shape: Shape) {
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

async fn journals_are_gone_a_day_after_their_last_entry(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let day = Duration::from_hours(24);
    for _ in 0..2 {
        let reply = owner.reply(owner.now().await, None, "hello");
        owner.write(vec![reply]).await.unwrap();
        shape.pass(day - Duration::from_millis(1));
    }
    assert_eq!(shape.store.journal(&alice, 0, 10).await.unwrap().len(), 2);
    shape.pass(Duration::from_millis(1));
    assert!(shape.store.journal(&alice, 0, 10).await.unwrap().is_empty());
    let reply = owner.reply(owner.now().await, None, "hello");
    owner.write(vec![reply]).await.unwrap();
    assert_eq!(shape.store.journal(&alice, 0, 10).await.unwrap().len(), 1, "the old ones do not come back");
}

async fn what_ended_expires_and_what_is_open_stays(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    shape.post(&alice, 2).await;
    shape.pass(MESSAGE_TTL * 3);
    owner.settle(id(1)).await;
    shape.pass(MESSAGE_TTL - Duration::from_millis(1));
    assert!(shape.store.message(&alice, id(1)).await.unwrap().is_some());
    shape.pass(Duration::from_millis(1));
    assert!(shape.store.message(&alice, id(1)).await.unwrap().is_none());
    shape.pass(Duration::from_hours(24 * 30));
    assert!(shape.store.message(&alice, id(2)).await.unwrap().is_some());
    assert_eq!(shape.store.ready(Partition::of(&alice), owner.fence).await.unwrap(), [alice]);
}

async fn client_message_ids_rise_beyond_what_was_forgotten(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    shape.post(&alice, 1).await;
    let before = new(shape.store.accept(accept(&alice, 2)).await).client_message_id;
    owner.settle(id(1)).await;
    owner.settle(id(2)).await;
    shape.pass(Duration::from_hours(48));
    // Something must come for what is old to go.
    shape.post(&conversation("bob"), 3).await;
    let after = new(shape.store.accept(accept(&alice, 4)).await);
    assert!(after.client_message_id > before);
    // The owner that still remembers goes on where it was.
    owner.settle(id(4)).await;
    assert_eq!(
        shape.store.message(&alice, id(4)).await.unwrap().unwrap().progress.status(),
        Status::Answered
    );
}

/// Two conversations of one partition.
fn neighbours() -> (rtm_bridge::domain::ConversationId, rtm_bridge::domain::ConversationId) {
    let one = conversation("alice");
    let two = (0..)
        .map(|number| conversation(&format!("user-{number}")))
        .find(|two| Partition::of(two) == Partition::of(&one))
        .unwrap();
    (one, two)
}
