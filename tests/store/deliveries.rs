//! Sentences about deliveries: their writes, and the order of their attempts.

use std::time::Duration;

use rtm_bridge::domain::{DeliveryKind, DeliveryOrigin, DeliveryState, NewDelivery, TraceId};
use rtm_bridge::store::{
    BeginResult, ConversationChange, ConversationWrite, FinishResult, QueueId, RetryDecision, StoreError,
};

use super::delivery_worker::{
    DeliveryWorker, HOOK, OTHER_HOOK, RETRY, dead_letter, delivery, retry, say, stands,
};
use super::store_fixture::{StoreFixture, conversation, id, neighbours};

pub(super) async fn delivery_is_written_with_its_entry(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    let at = owner.now().await;
    let signer = Some("crm: \"ä\"".into());
    let (mut changes, mut written) = (Vec::new(), Vec::new());
    for (kind, origin) in DeliveryKind::ALL.into_iter().zip([
        DeliveryOrigin::Endpoint("crm.eu_1-a".into()),
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
    assert_eq!(fixture.entries(&alice).await.len(), 4);
    for new in written {
        let stands = stands(&fixture, new.id).await;
        assert_eq!(format!("{:?}", stands.new), format!("{new:?}"), "all of it is there");
        assert_eq!((stands.state, stands.reason), (DeliveryState::Pending, None));
        assert!(stands.attempts.is_empty());
        assert!(
            stands.next_attempt_at.is_some_and(|next| before <= next && next <= after),
            "it is due at once"
        );
        let worker =
            DeliveryWorker { queue: QueueId::of_delivery(&new), ..DeliveryWorker::of(&owner, &new.target) };
        let due = worker.due().await;
        assert!(due.is_some_and(|due| before <= due && due <= after));
        let taken = worker.take(new.id, 1).await;
        assert_eq!(format!("{:?}", taken.delivery), format!("{new:?}"));
        assert_eq!((taken.since, taken.made, taken.step), (new.created_at, 0, 0));
        assert!(after <= taken.now && taken.now <= owner.now().await);
    }
}

pub(super) async fn delivery_of_a_skipped_end_is_skipped(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    let at = owner.now().await;
    let (mut changes, mut ids) = (Vec::new(), Vec::new());
    // The changes are an end, its repeat, a reply, the end of an unknown message, and a reply.
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
        kept.push(fixture.store.delivery(id).await.unwrap().is_some());
    }
    assert_eq!(kept, [true, false, true, false, true]);
    let worker = DeliveryWorker::of(&owner, HOOK);
    for id in [ids[0], ids[2], ids[4]] {
        worker.attempt(id, RetryDecision::Delivered).await;
    }
    assert!(matches!(worker.begin(1).await, BeginResult::Empty));
}

pub(super) async fn rewritten_delivery_is_delivered_once(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let at = owner.now().await;
    let reply = owner.reply(at, None, "hello");
    let new = delivery(&owner, at, HOOK);
    let id = new.id;
    let changes = vec![reply, ConversationChange::Deliver(Box::new(new))];
    owner.write(changes.clone()).await.unwrap();
    let again = owner.last(changes.clone());
    fixture.store.write(owner.fence, &alice, &again).await.unwrap();
    let worker = DeliveryWorker::of(&owner, HOOK);
    assert_eq!(worker.attempt(id, RetryDecision::Delivered).await.next, None);
    fixture.store.write(owner.fence, &alice, &again).await.unwrap();
    assert!(matches!(worker.begin(1).await, BeginResult::Empty));
    // A refused write delivers nothing. A write of the same entry finds its delivery.
    let mut refused = ConversationWrite { follows: 7, ..owner.last(changes.clone()) };
    refused.record.write = 8;
    assert_eq!(fixture.store.write(owner.fence, &alice, &refused).await, Err(StoreError::OutOfStep));
    owner.write(changes).await.unwrap();
    assert!(matches!(worker.begin(1).await, BeginResult::Empty));
    assert_eq!(stands(&fixture, id).await.state, DeliveryState::Delivered);
}

pub(super) async fn queue_belongs_to_one_conversation_and_target(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    let (mut of_alice, mut of_bob) = (fixture.own(&alice).await, fixture.own(&bob).await);
    of_alice.fence = of_bob.fence;
    let postmen = [
        (DeliveryWorker::of(&of_alice, HOOK), HOOK),
        (DeliveryWorker::of(&of_alice, OTHER_HOOK), OTHER_HOOK),
        (DeliveryWorker::of(&of_bob, HOOK), HOOK),
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
    let mut expected: Vec<_> = postmen.iter().map(|(worker, target)| (worker.queue, *target)).collect();
    expected.sort_unstable();
    assert_eq!(waiting.iter().map(|waiting| (waiting.queue, &*waiting.target)).collect::<Vec<_>>(), expected);
    // No queue waits for another.
    for ids in ids {
        let mut taken = Vec::new();
        for ((worker, _), id) in postmen.iter().zip(ids) {
            taken.push(worker.take(id, 1).await);
        }
        for ((worker, _), taken) in postmen.iter().zip(taken) {
            worker.finish(&taken, RetryDecision::Delivered).await;
        }
    }
    assert_eq!(postmen[0].0.outbox().await, []);
    let nobody = DeliveryWorker {
        queue: QueueId::of(&conversation("nobody"), Some("main"), HOOK),
        ..DeliveryWorker::of(&of_alice, HOOK)
    };
    assert!(matches!(nobody.begin(1).await, BeginResult::Empty));
}

pub(super) async fn endpoints_with_one_url_have_queues_of_their_own(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let at = owner.now().await;
        let reply = owner.reply(at, None, "hello");
        let of_entry = delivery(&owner, at, HOOK);
        let to = |name: &str| NewDelivery {
            id: of_entry.id.at_endpoint(name),
            origin: DeliveryOrigin::Endpoint(name.into()),
            ..of_entry.clone()
        };
        let news = [
            to("crm"),
            to("audit"),
            NewDelivery { origin: DeliveryOrigin::Callback { signer: None }, ..of_entry.clone() },
        ];
        ids.push(news.each_ref().map(|new| new.id));
        let deliveries = news.map(|new| ConversationChange::Deliver(Box::new(new)));
        owner.write([reply].into_iter().chain(deliveries).collect()).await.unwrap();
    }
    let workers = [Some("crm"), Some("audit"), None].map(|endpoint| DeliveryWorker {
        queue: QueueId::of(&alice, endpoint, HOOK),
        ..DeliveryWorker::of(&owner, HOOK)
    });
    // One that fails holds up its own queue only.
    workers[0].attempt(ids[0][0], retry()).await;
    workers[0].later(1).await;
    for (place, worker) in workers.iter().enumerate().skip(1) {
        for ids in &ids {
            worker.attempt(ids[place], RetryDecision::Delivered).await;
        }
        assert!(matches!(worker.begin(1).await, BeginResult::Empty));
    }
    fixture.pass(RETRY).await;
    for ids in &ids {
        workers[0].attempt(ids[0], RetryDecision::Delivered).await;
    }
}

pub(super) async fn outbox_is_read_to_its_end(fixture: StoreFixture) {
    const QUEUES: usize = 1200;
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let at = owner.now().await;
    let target = |number: usize| format!("{HOOK}/{number}");
    let changes = (0..QUEUES).flat_map(|number| {
        let reply = owner.reply(at, None, "hello");
        [reply, ConversationChange::Deliver(Box::new(delivery(&owner, at, &target(number))))]
    });
    let changes: Vec<_> = changes.collect();
    owner.write(changes).await.unwrap();
    let waiting = DeliveryWorker::of(&owner, HOOK).outbox().await;
    let mut expected: Vec<_> =
        (0..QUEUES).map(|number| QueueId::of(&alice, Some("main"), &target(number))).collect();
    expected.sort_unstable();
    assert_eq!(waiting.iter().map(|waiting| waiting.queue).collect::<Vec<_>>(), expected);
    let now = owner.now().await;
    assert!(waiting.iter().all(|waiting| at <= waiting.due && waiting.due <= now), "each is due");
    assert!(waiting.iter().all(|waiting| waiting.since == at), "and tried since it happened");
}

pub(super) async fn only_the_first_of_a_queue_is_attempted(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(say(&mut owner, HOOK).await);
        fixture.pass(Duration::from_millis(3)).await;
    }
    for (number, decision) in
        [RetryDecision::Delivered, dead_letter(), RetryDecision::Delivered].into_iter().enumerate()
    {
        let id = ids[number];
        for waits in &ids[number + 1..] {
            let stands = stands(&fixture, *waits).await;
            assert_eq!(
                (stands.state, stands.next_attempt_at),
                (DeliveryState::Pending, None),
                "one is before it"
            );
        }
        // It stays the first, however often it is attempted.
        for _ in 0..2 {
            let FinishResult { next, now } = worker.attempt(id, retry()).await;
            assert_eq!(next, Some(now + RETRY));
            fixture.pass(RETRY).await;
        }
        let FinishResult { next, now } = worker.attempt(id, decision).await;
        assert!(next.is_some_and(|next| next <= now), "the next one is due at once");
        assert!(stands(&fixture, ids[number + 1]).await.next_attempt_at.is_some_and(|next| next <= now));
    }
    assert_eq!(worker.attempt(ids[3], RetryDecision::Delivered).await.next, None);
    let mut states = Vec::new();
    for id in ids {
        states.push(stands(&fixture, id).await.state);
    }
    let [delivered, dead] = [DeliveryState::Delivered, DeliveryState::Dead];
    assert_eq!(states, [delivered, dead, delivered, delivered]);
    let (before, last) = (owner.now().await, say(&mut owner, HOOK).await);
    assert!(worker.due().await.is_some_and(|due| before <= due), "a queue that was empty begins anew");
    worker.take(last, 1).await;
}
