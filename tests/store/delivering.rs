//! Sentences on deliveries: how they are written, and in which order they are attempted.

use std::time::Duration;

use rtm_bridge::domain::{DeliveryKind, DeliveryOrigin, DeliveryState, NewDelivery, TraceId};
use rtm_bridge::store::{
    BeginResult, ConversationChange, ConversationWrite, FinishResult, QueueId, RetryDecision, StoreError,
};

use super::postman::{HOOK, OTHER_HOOK, Postman, RETRY, bury, delivery, retry, say, stands};
use super::shape::{Shape, conversation, id, neighbours};

pub(super) async fn a_delivery_is_written_with_what_it_tells_of(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let message = shape.post(&alice, 1).await;
    let at = owner.now().await;
    let signer = Some("crm: \"ä\"".into());
    let (mut changes, mut written) = (Vec::new(), Vec::new());
    for (kind, origin) in DeliveryKind::ALL.into_iter().zip([
        DeliveryOrigin::Bot,
        DeliveryOrigin::Callback { signer: None },
        DeliveryOrigin::Callback { signer },
        DeliveryOrigin::Callback { signer: Some("".into()) },
    ]) {
        changes.push(match kind {
            DeliveryKind::MessageAnswered => owner.end(at, message),
            _ => owner.reply(at, Some(message), "hello"),
        });
        let data = serde_json::json!({ "text": "Zoë \u{1F600} \"\n\u{1}", "nothing": null, "no": 1.50 });
        let new = NewDelivery {
            kind,
            origin,
            message: Some(message).filter(|_| kind != DeliveryKind::ReplyUnsolicited),
            trace: TraceId(fastrand::u128(1..)),
            data: serde_json::value::to_raw_value(&data).unwrap(),
            ..delivery(&owner, at, &format!("https://legacy.example/ä?{}#", kind.as_str()))
        };
        written.push(new.clone());
        changes.push(ConversationChange::Deliver(Box::new(new)));
    }
    let before = owner.now().await;
    owner.write(changes).await.unwrap();
    let after = owner.now().await;
    assert_eq!(shape.entries(&alice).await.len(), 4);
    for new in written {
        let stands = stands(&shape, new.id).await;
        assert_eq!(format!("{:?}", stands.new), format!("{new:?}"), "all of it is there");
        assert_eq!((stands.state, stands.reason), (DeliveryState::Pending, None));
        assert!(stands.attempts.is_empty());
        assert!(
            stands.next_attempt_at.is_some_and(|next| before <= next && next <= after),
            "it is due at once"
        );
        let postman = Postman::of(&owner, &new.target);
        let due = postman.due().await;
        assert!(due.is_some_and(|due| before <= due && due <= after));
        let taken = postman.take(new.id, 1).await;
        assert_eq!(format!("{:?}", taken.delivery), format!("{new:?}"));
        assert_eq!((taken.since, taken.made, taken.step), (new.created_at, 0, 0));
        assert!(after <= taken.now && taken.now <= owner.now().await);
    }
}

pub(super) async fn the_delivery_of_an_end_that_is_left_out_is_left_out(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let message = shape.post(&alice, 1).await;
    let at = owner.now().await;
    let (mut changes, mut ids) = (Vec::new(), Vec::new());
    // An end, the same end again, a reply, the end of something that never was, and a reply.
    for ended in [Some(message), Some(message), None, Some(id(9)), None] {
        changes.push(match ended {
            Some(message) => owner.end(at, message),
            None => owner.reply(at, None, "hello"),
        });
        let new = delivery(&owner, at, HOOK);
        ids.push(new.id);
        changes.push(ConversationChange::Deliver(Box::new(new)));
    }
    assert!(owner.write(changes).await.unwrap().lost);
    let mut kept = Vec::new();
    for &id in &ids {
        kept.push(shape.store.delivery(id).await.unwrap().is_some());
    }
    assert_eq!(kept, [true, false, true, false, true]);
    let postman = Postman::of(&owner, HOOK);
    for id in [ids[0], ids[2], ids[4]] {
        postman.attempt(id, RetryDecision::Delivered).await;
    }
    assert!(matches!(postman.begin(1).await, BeginResult::Empty));
}

pub(super) async fn what_is_written_again_is_delivered_once(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let at = owner.now().await;
    let reply = owner.reply(at, None, "hello");
    let new = delivery(&owner, at, HOOK);
    let id = new.id;
    let changes = vec![reply, ConversationChange::Deliver(Box::new(new))];
    owner.write(changes.clone()).await.unwrap();
    let again = owner.last(changes.clone());
    shape.store.write(owner.fence, &alice, &again).await.unwrap();
    let postman = Postman::of(&owner, HOOK);
    assert_eq!(postman.attempt(id, RetryDecision::Delivered).await.next, None);
    shape.store.write(owner.fence, &alice, &again).await.unwrap();
    assert!(matches!(postman.begin(1).await, BeginResult::Empty));
    // A write that is refused delivers nothing, and one that tells of the same entry finds it delivered.
    let mut refused = ConversationWrite { follows: 7, ..owner.last(changes.clone()) };
    refused.record.write = 8;
    assert_eq!(shape.store.write(owner.fence, &alice, &refused).await, Err(StoreError::OutOfStep));
    owner.write(changes).await.unwrap();
    assert!(matches!(postman.begin(1).await, BeginResult::Empty));
    assert_eq!(stands(&shape, id).await.state, DeliveryState::Delivered);
}

pub(super) async fn a_queue_is_of_one_conversation_and_target(shape: Shape) {
    let (alice, bob) = neighbours();
    let (mut of_alice, mut of_bob) = (shape.own(&alice).await, shape.own(&bob).await);
    of_alice.fence = of_bob.fence;
    let postmen = [
        (Postman::of(&of_alice, HOOK), HOOK),
        (Postman::of(&of_alice, OTHER_HOOK), OTHER_HOOK),
        (Postman::of(&of_bob, HOOK), HOOK),
    ];
    assert_eq!(postmen[0].0.outbox().await, [], "nothing was written");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let some = [
            say(&mut of_alice, HOOK).await,
            say(&mut of_alice, OTHER_HOOK).await,
            say(&mut of_bob, HOOK).await,
        ];
        ids.push(some);
    }
    let waiting = postmen[0].0.outbox().await;
    let mut expected: Vec<_> = postmen.iter().map(|(postman, target)| (postman.queue, *target)).collect();
    expected.sort_unstable();
    assert_eq!(waiting.iter().map(|waiting| (waiting.queue, &*waiting.target)).collect::<Vec<_>>(), expected);
    // None of them waits for another.
    for ids in ids {
        let mut taken = Vec::new();
        for ((postman, _), id) in postmen.iter().zip(ids) {
            taken.push(postman.take(id, 1).await);
        }
        for ((postman, _), taken) in postmen.iter().zip(taken) {
            postman.finish(&taken, RetryDecision::Delivered).await;
        }
    }
    assert_eq!(postmen[0].0.outbox().await, []);
    let nobody =
        Postman { queue: QueueId::of(&conversation("nobody"), HOOK), ..Postman::of(&of_alice, HOOK) };
    assert!(matches!(nobody.begin(1).await, BeginResult::Empty));
}

pub(super) async fn an_outbox_is_told_to_its_end(shape: Shape) {
    const QUEUES: usize = 1200;
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let at = owner.now().await;
    let target = |number: usize| format!("{HOOK}/{number}");
    let changes = (0..QUEUES).flat_map(|number| {
        let reply = owner.reply(at, None, "hello");
        [reply, ConversationChange::Deliver(Box::new(delivery(&owner, at, &target(number))))]
    });
    let changes: Vec<_> = changes.collect();
    owner.write(changes).await.unwrap();
    let waiting = Postman::of(&owner, HOOK).outbox().await;
    let mut expected: Vec<_> = (0..QUEUES).map(|number| QueueId::of(&alice, &target(number))).collect();
    expected.sort_unstable();
    assert_eq!(waiting.iter().map(|waiting| waiting.queue).collect::<Vec<_>>(), expected);
    let now = owner.now().await;
    assert!(waiting.iter().all(|waiting| at <= waiting.due && waiting.due <= now), "each is due");
    assert!(waiting.iter().all(|waiting| waiting.since == at), "and tried since it happened");
}

pub(super) async fn only_the_first_of_a_queue_is_attempted(shape: Shape) {
    let alice = conversation("alice");
    let mut owner = shape.own(&alice).await;
    let postman = Postman::of(&owner, HOOK);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(say(&mut owner, HOOK).await);
        shape.pass(Duration::from_millis(3)).await;
    }
    for (number, verdict) in
        [RetryDecision::Delivered, bury(), RetryDecision::Delivered].into_iter().enumerate()
    {
        let id = ids[number];
        for waits in &ids[number + 1..] {
            let stands = stands(&shape, *waits).await;
            assert_eq!(
                (stands.state, stands.next_attempt_at),
                (DeliveryState::Pending, None),
                "one is before it"
            );
        }
        // However often it is tried, it stays the first.
        for _ in 0..2 {
            let FinishResult { next, now } = postman.attempt(id, retry()).await;
            assert_eq!(next, Some(now + RETRY));
            shape.pass(RETRY).await;
        }
        let FinishResult { next, now } = postman.attempt(id, verdict).await;
        assert!(next.is_some_and(|next| next <= now), "the next one is due at once");
        assert!(stands(&shape, ids[number + 1]).await.next_attempt_at.is_some_and(|next| next <= now));
    }
    assert_eq!(postman.attempt(ids[3], RetryDecision::Delivered).await.next, None);
    let mut states = Vec::new();
    for id in ids {
        states.push(stands(&shape, id).await.state);
    }
    let [delivered, dead] = [DeliveryState::Delivered, DeliveryState::Dead];
    assert_eq!(states, [delivered, dead, delivered, delivered]);
    let (before, last) = (owner.now().await, say(&mut owner, HOOK).await);
    assert!(postman.due().await.is_some_and(|due| before <= due), "a queue that was empty begins anew");
    postman.take(last, 1).await;
}
