//! Sentences about the lane and an owner's writes.

use std::time::Duration;

use rtm_bridge::domain::{
    ConversationRecord, EntryBody, Fingerprint, MessageId, MessageStatus, Partition, Timestamp, fixtures,
};
use rtm_bridge::store::{ConversationChange, ConversationWrite, StoreError};

use super::store_fixture::{LEASE, StoreFixture, accept, answered, conversation, id, neighbours, new};

pub(super) async fn ready_conversations_have_open_messages(fixture: StoreFixture) {
    let (one, two) = neighbours();
    let partition = Partition::of(&one);
    let mut owner = fixture.own(&one).await;
    assert!(fixture.store.ready(partition, owner.fence, false).await.unwrap().is_empty());
    fixture.post(&one, 1).await;
    fixture.post(&one, 2).await;
    fixture.post(&two, 3).await;
    let mut ready = fixture.store.ready(partition, owner.fence, false).await.unwrap();
    ready.sort();
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(ready, both);
    owner.settle(id(1)).await;
    assert_eq!(fixture.store.ready(partition, owner.fence, false).await.unwrap().len(), 2);
    owner.settle(id(2)).await;
    assert_eq!(fixture.store.ready(partition, owner.fence, false).await.unwrap(), [two]);
}

pub(super) async fn next_message_is_head_since_the_end_before_it(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    fixture.pass(Duration::from_millis(7)).await;
    let (open, now) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (None, 0));
    assert!(now <= fixture.store.now().await.unwrap());
    let head_at = new(fixture.store.accept(accept(&alice, 1)).await).accepted_at;
    fixture.pass(Duration::from_millis(7)).await;
    fixture.post(&alice, 2).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.head_at, Some(head_at));
    assert_eq!(open.lane.iter().map(|open| open.accepted.id).collect::<Vec<_>>(), [id(1), id(2)]);
    let end_at = owner.now().await;
    fixture.pass(Duration::from_millis(7)).await;
    let end = owner.end(end_at, id(1));
    owner.write(vec![end]).await.unwrap();
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (Some(end_at), 1));
    owner.settle(id(2)).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (None, 0));
}

pub(super) async fn end_behind_the_head_keeps_the_head(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let head_at = new(fixture.store.accept(accept(&alice, 1)).await).accepted_at;
    fixture.post(&alice, 2).await;
    fixture.pass(Duration::from_millis(7)).await;
    owner.settle(id(2)).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (Some(head_at), 1));
}

type Sign = fn(MessageId, Timestamp) -> ConversationChange;

pub(super) async fn first_sign_of_each_kind_counts(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    let at = Timestamp::from_millis;
    let signs: [(Sign, MessageStatus); 3] = [
        (|message, at| ConversationChange::Sent { message, at }, MessageStatus::Sent),
        (|message, at| ConversationChange::Acked { message, at }, MessageStatus::Acked),
        (|message, at| ConversationChange::Answering { message, at }, MessageStatus::Answering),
    ];
    for (sign, status) in signs {
        owner.write(vec![sign(message, at(5)), sign(message, at(6))]).await.unwrap();
        owner.write(vec![sign(message, at(7))]).await.unwrap();
        assert_eq!(
            fixture.store.message(&alice, message, None).await.unwrap().unwrap().progress.status(),
            status
        );
    }
    let reply = owner.reply(at(8), Some(message), "hello");
    owner.write(vec![reply]).await.unwrap();
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    let progress = &open.lane[0].progress;
    let five = Some(at(5));
    assert_eq!((progress.sent_at, progress.acked_at, progress.first_reply_at), (five, five, five));
    owner.settle(message).await;
    let late = vec![
        ConversationChange::Sent { message, at: at(9) },
        ConversationChange::Answering { message, at: at(9) },
    ];
    owner.write(late).await.unwrap();
    let message = fixture.store.message(&alice, message, None).await.unwrap().unwrap();
    assert_eq!((message.progress.status(), message.progress.first_reply_at), (MessageStatus::Answered, five));
}

pub(super) async fn message_ends_once(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    let at = owner.now().await;
    let (first, second) = (owner.end(at, message), owner.end(at + LEASE, message));
    owner.write(vec![first, second]).await.unwrap();
    fixture.pass(Duration::from_millis(5)).await;
    owner.settle(message).await;
    let message = fixture.store.message(&alice, message, None).await.unwrap().unwrap();
    assert_eq!(message.progress.ended_at, Some(at));
    assert_eq!(message.progress.outcome, Some(answered()));
    assert_eq!(fixture.entries(&alice).await.len(), 1, "told once");
}

pub(super) async fn end_of_an_unknown_message_changes_nothing(fixture: StoreFixture) {
    let (one, two) = neighbours();
    fixture.post(&one, 1).await;
    fixture.post(&two, 2).await;
    let mut owner = fixture.own(&one).await;
    for stranger in [id(2), id(3)] {
        owner.settle(stranger).await;
    }
    assert!(fixture.entries(&one).await.is_empty());
    for (conversation, number) in [(&one, 1), (&two, 2)] {
        let (open, _) = fixture.store.open(owner.fence, conversation).await.unwrap();
        assert_eq!(open.lane[0].accepted.id, id(number));
        assert!(!open.lane[0].progress.has_ended());
    }
}

pub(super) async fn repeated_write_changes_nothing(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    let reply = owner.reply(owner.now().await, Some(message), "hello");
    owner.record.write = 1;
    let write = owner.last(vec![reply]);
    for _ in 0..3 {
        fixture.store.write(owner.fence, &alice, &write).await.unwrap();
    }
    assert_eq!(fixture.entries(&alice).await.len(), 1);
    assert_eq!(
        fixture.store.message(&alice, message, None).await.unwrap().unwrap().progress.replies.len(),
        1
    );
}

pub(super) async fn write_out_of_order_is_refused(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    for _ in 0..3 {
        owner.write(Vec::new()).await.unwrap();
    }
    // This also holds if its number could be the next one. A write that follows may have any number.
    for (number, follows) in [(1, 0), (2, 1), (4, 0), (4, 2), (5, 4), (0, 0), (u64::MAX, 2), (4, u64::MAX)] {
        let record = ConversationRecord { write: number, ..owner.record.clone() };
        let write = ConversationWrite { record, follows, changes: Vec::new(), warm_until: None };
        let told = fixture.store.write(owner.fence, &alice, &write).await;
        assert_eq!(told, Err(StoreError::OutOfStep), "{number} after {follows}");
    }
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.record, owner.record);
    owner.record.write = 41;
    let jump = ConversationWrite { follows: 3, ..owner.last(Vec::new()) };
    fixture.store.write(owner.fence, &alice, &jump).await.unwrap();
    assert!(owner.write(Vec::new()).await.is_ok());
}

pub(super) async fn replies_join_their_message_also_after_its_end(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    owner.settle(message).await;
    let late = owner.reply(owner.now().await, Some(message), "late");
    let unsolicited = owner.reply(owner.now().await, None, "unsolicited");
    owner.write(vec![late, unsolicited]).await.unwrap();
    let progress = fixture.store.message(&alice, message, None).await.unwrap().unwrap().progress;
    assert_eq!(progress.replies.iter().map(|reply| &*reply.text).collect::<Vec<_>>(), ["late"]);
    assert_eq!(progress.first_reply_at, None, "it was answered with nothing");
}

pub(super) async fn replies_never_join_another_conversation(fixture: StoreFixture) {
    let (one, two) = neighbours();
    fixture.post(&two, 2).await;
    let mut owner = fixture.own(&one).await;
    let reply = owner.reply(owner.now().await, Some(id(2)), "hello");
    owner.write(vec![reply]).await.unwrap();
    assert!(fixture.store.message(&two, id(2), None).await.unwrap().unwrap().progress.replies.is_empty());
}

pub(super) async fn open_has_the_ids_of_the_journals_replies(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut told = Vec::new();
    for n in 0..40_u32 {
        let at = owner.now().await;
        let mut reply = fixtures::reply(owner.record.seq + 1, None, "hello");
        // Some ids are odd, and one is missing.
        reply.message_id = match n {
            7 => None,
            8 => Some("ms-ü \u{fffd}".into()),
            _ => Some(format!("ms-{n}").into()),
        };
        told.extend(reply.message_id.as_deref().map(Fingerprint::of));
        let change = owner.entry(at, EntryBody::Reply(reply.into()));
        owner.write(vec![change]).await.unwrap();
        if n == 10 {
            let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
            assert!(open.journaled.is_empty(), "the record has all of them");
        }
    }
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.journaled, told);
}

pub(super) async fn record_is_the_last_written(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.record, ConversationRecord::default());
    owner.record.agent = true;
    owner.record.session_id = Some("s-1".into());
    owner.record.sends.record(50, owner.now().await);
    owner.write(Vec::new()).await.unwrap();
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.record, owner.record);
}

pub(super) async fn first_write_follows_zero(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    // This also holds after an earlier accepted message.
    fixture.post(&alice, 1).await;
    owner.record.write = 41;
    assert_eq!(owner.write(Vec::new()).await, Err(StoreError::OutOfStep), "there is none that it follows");
    let first = ConversationWrite { follows: 0, ..owner.last(Vec::new()) };
    fixture.store.write(owner.fence, &alice, &first).await.unwrap();
    owner.settle(id(1)).await;
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.record.write, open.lane.len()), (43, 0));
}

pub(super) async fn write_reports_a_lost_message_also_to_a_repeat(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    fixture.post(&alice, 1).await;
    let at = owner.now().await;
    let sent = |number| ConversationChange::Sent { message: id(number), at };
    let end = owner.end(at, id(3));
    for (changes, lost) in [
        (vec![sent(1)], false),
        (vec![sent(2)], true),
        (Vec::new(), false),
        (vec![end, sent(1)], true),
        (
            vec![
                ConversationChange::Acked { message: id(4), at },
                ConversationChange::Answering { message: id(4), at },
            ],
            false,
        ),
    ] {
        let told = owner.write(changes.clone()).await.unwrap();
        assert_eq!(told.lost, lost, "{changes:?}");
        let again = owner.last(changes);
        assert_eq!(fixture.store.write(owner.fence, &alice, &again).await.unwrap().lost, lost, "repeated");
    }
    assert!(fixture.entries(&alice).await.is_empty(), "what is lost did not end");
    assert_eq!(
        fixture.store.message(&alice, id(1), None).await.unwrap().unwrap().progress.status(),
        MessageStatus::Sent
    );
}

pub(super) async fn head_deadline_can_begin_anew(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    owner.write(vec![ConversationChange::HeadSince { at: Timestamp::from_millis(5) }]).await.unwrap();
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.head_at, None, "nothing is open");
    fixture.post(&alice, 1).await;
    fixture.post(&alice, 2).await;
    fixture.pass(LEASE).await;
    let at = owner.now().await;
    owner.write(vec![ConversationChange::HeadSince { at }]).await.unwrap();
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!((open.head_at, open.lane.len()), (Some(at), 2));
    owner.write(vec![ConversationChange::Sent { message: id(1), at }]).await.unwrap();
    owner.write(vec![ConversationChange::HeadSince { at }]).await.unwrap();
    let (open, _) = fixture.store.open(owner.fence, &alice).await.unwrap();
    assert_eq!(open.lane[0].progress.sent_at, None, "it was marked and not sent");
}

pub(super) async fn warm_conversations_are_returned_to_a_new_owner(fixture: StoreFixture) {
    let (one, two) = neighbours();
    let partition = Partition::of(&one);
    let mut owner = fixture.own(&one).await;
    fixture.post(&two, 2).await;
    let warm_until = Some(owner.now().await + LEASE);
    for keep in [warm_until, None] {
        owner.record.write += 1;
        let write = ConversationWrite { warm_until: keep, ..owner.last(Vec::new()) };
        fixture.store.write(owner.fence, &one, &write).await.unwrap();
    }
    let fence = owner.fence;
    let ready = async |warm| {
        let mut ready = fixture.store.ready(partition, fence, warm).await.unwrap();
        ready.sort();
        ready
    };
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(ready(false).await, std::slice::from_ref(&two));
    assert_eq!(ready(true).await, both);
    fixture.post(&one, 1).await;
    assert_eq!(ready(true).await, both, "each once");
    owner.settle(id(1)).await;
    fixture.pass_almost(LEASE).await;
    assert_eq!(ready(true).await, both);
    fixture.pass_the_rest().await;
    assert_eq!(ready(true).await, [two]);
}
