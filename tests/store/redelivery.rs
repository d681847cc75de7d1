//! Sentences about redelivery.

use rtm_bridge::domain::{DeliveryId, DeliveryState, Partition};
use rtm_bridge::store::{BeginResult, FinishResult, Hint, RedeliverResult, RetryDecision};

use super::delivery_worker::{DeliveryWorker, HOOK, OTHER_HOOK, WINDOW, dead_letter, end, say, stands};
use super::store_fixture::{LEASE, ME, MESSAGE_TTL, OTHER, StoreFixture, conversation};

pub(super) async fn settled_delivery_is_redelivered_outside_the_order(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    for decision in [RetryDecision::Delivered, dead_letter()] {
        let target = if decision == RetryDecision::Delivered { HOOK } else { OTHER_HOOK };
        let worker = DeliveryWorker::of(&owner, target);
        let [first, second] = [say(&mut owner, target).await, say(&mut owner, target).await];
        let created_at = stands(&fixture, first).await.new.created_at;
        worker.attempt(first, RetryDecision::Retry(LEASE)).await;
        fixture.pass(LEASE).await;
        worker.attempt(first, decision).await;
        // It is near the end of its lifetime.
        fixture.pass_almost(MESSAGE_TTL).await;
        let before = owner.now().await;
        assert_eq!(fixture.store.redeliver(first).await.unwrap(), RedeliverResult::Queued);
        let after = owner.now().await;
        let standing = stands(&fixture, first).await;
        assert_eq!((standing.state, &standing.reason), (DeliveryState::Pending, &None));
        assert!(standing.next_attempt_at.is_some_and(|next| before <= next && next <= after), "at once");
        assert_eq!(standing.attempts.len(), 2, "what was attempted is not forgotten");
        // It does not wait for other deliveries, nor they for it. Its earlier lifetime is over.
        fixture.pass(MESSAGE_TTL).await;
        let alone = DeliveryWorker::alone(&owner, first);
        let waiting = alone.outbox().await;
        let waiting = waiting.iter().find(|waiting| waiting.queue == alone.queue).expect("it waits");
        assert!((before..=after).contains(&waiting.due) && *waiting.target == *target);
        let taken = alone.take(first, 1).await;
        assert!((before..=after).contains(&taken.since), "its schedule begins anew");
        assert_eq!((taken.made, taken.step, taken.delivery.created_at), (2, 0, created_at));
        worker.attempt(second, RetryDecision::Delivered).await;
        let FinishResult { next, now } = alone.finish(&taken, RetryDecision::Retry(LEASE)).await;
        assert_eq!(next, Some(now + LEASE));
        fixture.pass(LEASE).await;
        let taken = alone.take(first, 2).await;
        assert_eq!((taken.made, taken.step), (3, 1));
        assert_eq!(alone.finish(&taken, RetryDecision::Delivered).await.next, None);
        assert!(matches!(alone.begin(3).await, BeginResult::Empty));
        let standing = stands(&fixture, first).await;
        assert_eq!(
            (standing.state, standing.reason, standing.attempts.len()),
            (DeliveryState::Delivered, None, 4)
        );
        fixture.pass_almost(MESSAGE_TTL).await;
        assert!(fixture.store.delivery(first).await.unwrap().is_some(), "its time counts from its last end");
        fixture.pass_the_rest().await;
        assert!(fixture.store.delivery(first).await.unwrap().is_none());
    }
}

pub(super) async fn pending_delivery_is_redelivered_from_its_queue(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(say(&mut owner, HOOK).await);
    }
    // The first one waits for its next attempt; then comes one from the middle.
    let taken = worker.take(ids[0], 1).await;
    worker.finish(&taken, RetryDecision::Retry(WINDOW)).await;
    for (redelivered, first, made) in [(0, 1, 1), (2, 1, 0)] {
        let before = owner.now().await;
        assert_eq!(fixture.store.redeliver(ids[redelivered]).await.unwrap(), RedeliverResult::Queued);
        assert!(worker.due().await.is_some_and(|due| due <= before.max(taken.now) + LEASE));
        let next = stands(&fixture, ids[first]).await.next_attempt_at;
        assert!(next.is_some_and(|next| next <= before + LEASE), "it is the first now");
        let alone = DeliveryWorker::alone(&owner, ids[redelivered]).take(ids[redelivered], 2).await;
        assert_eq!((alone.made, alone.step), (made, 0));
        assert!(before <= alone.since);
    }
    // The end of an earlier attempt has no effect.
    let next = worker.finish(&taken, RetryDecision::Delivered).await.next;
    assert_eq!(next, worker.due().await);
    worker.attempt(ids[1], RetryDecision::Delivered).await;
    // The last one leaves an empty queue behind.
    assert_eq!(fixture.store.redeliver(ids[3]).await.unwrap(), RedeliverResult::Queued);
    assert_eq!(worker.due().await, None);
    assert!(matches!(worker.begin(3).await, BeginResult::Empty));
    for id in [ids[0], ids[2]] {
        assert_eq!(stands(&fixture, id).await.state, DeliveryState::Pending);
    }
    let last = say(&mut owner, HOOK).await;
    worker.attempt(last, RetryDecision::Delivered).await;
}

pub(super) async fn twice_redelivered_delivery_is_attempted_once(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let id = say(&mut owner, HOOK).await;
    DeliveryWorker::of(&owner, HOOK).attempt(id, dead_letter()).await;
    let alone = DeliveryWorker::alone(&owner, id);
    for _ in 0..2 {
        assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    }
    alone.attempt(id, RetryDecision::Retry(WINDOW)).await;
    // A redelivery during a wait does not wait.
    let since = owner.now().await;
    assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    let taken = alone.take(id, 1).await;
    assert_eq!((taken.made, taken.step), (2, 0));
    assert!(since <= taken.since);
    assert_eq!(alone.finish(&taken, RetryDecision::Delivered).await.next, None);
    assert_eq!(alone.outbox().await, []);
}

pub(super) async fn delivery_in_flight_is_not_redelivered(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut ear = fixture.listen(ME).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let id = say(&mut owner, HOOK).await;
    for alone in [false, true] {
        let worker = if alone {
            DeliveryWorker::alone(&owner, id)
        } else {
            DeliveryWorker { ..DeliveryWorker::of(&owner, HOOK) }
        };
        let taken = worker.take(id, 1).await;
        let before = stands(&fixture, id).await;
        assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::InFlight);
        assert_eq!(format!("{:?}", stands(&fixture, id).await), format!("{before:?}"));
        assert_eq!(worker.outbox().await.len(), 1);
        assert_eq!(worker.finish(&taken, dead_letter()).await.next, None, "its end counts");
        if !alone {
            assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
        }
    }
    assert_eq!(stands(&fixture, id).await.attempts.len(), 2);
    assert_eq!(worker.outbox().await, []);
    let told = ear.all(&fixture.store, ME, 0).await;
    let told = told.iter().filter(|hint| matches!(hint, Hint::Redelivered(_))).count();
    assert!(told <= 1, "only what was redelivered is told");
}

pub(super) async fn unknown_delivery_is_not_redelivered(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let never = DeliveryId::of(&alice, 7, 9, owner.now().await);
    assert_eq!(fixture.store.redeliver(never).await.unwrap(), RedeliverResult::Unknown);
    assert!(fixture.store.delivery(never).await.unwrap().is_none());
    let id = say(&mut owner, HOOK).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let taken = worker.take(id, 1).await;
    worker.finish(&taken, RetryDecision::Delivered).await;
    fixture.pass(MESSAGE_TTL).await;
    assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Unknown, "expired");
    // Nor does the record of an attempt restore a part of it.
    for queue in [worker.queue, DeliveryWorker::alone(&owner, id).queue] {
        let told = end(&taken, dead_letter());
        let finished = fixture.store.finish(worker.partition, owner.fence, queue, &told).await.unwrap();
        assert_eq!(finished.next, None);
    }
    assert!(fixture.store.delivery(id).await.unwrap().is_none());
}

pub(super) async fn unfinished_attempt_can_be_redelivered(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let [id, next] = [say(&mut owner, HOOK).await, say(&mut owner, HOOK).await];
    let lost = worker.take(id, 1).await;
    fixture.pass_almost(WINDOW).await;
    assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::InFlight);
    fixture.pass_the_rest().await;
    assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    // The end of that late attempt has no effect any more.
    let taken = worker.take(next, 2).await;
    assert_eq!(worker.finish(&lost, RetryDecision::Delivered).await.next, Some(taken.now + WINDOW));
    let alone = DeliveryWorker::alone(&owner, id);
    let again = alone.take(id, 3).await;
    assert_eq!((again.made, again.step), (0, 0));
    assert_eq!(alone.finish(&again, RetryDecision::Delivered).await.next, None);
    assert_eq!(stands(&fixture, id).await.attempts, [end(&again, RetryDecision::Delivered).attempt]);
}

pub(super) async fn owner_gets_a_hint_at_a_redelivery(fixture: StoreFixture) {
    let alice = conversation("alice");
    let partition = Partition::of(&alice);
    let mut owner = fixture.own(&alice).await;
    let mut ears = [fixture.listen(ME).await, fixture.listen(OTHER).await];
    let id = say(&mut owner, HOOK).await;
    let told = |hint: &Hint| match hint {
        Hint::Redelivered(partition) => Some(*partition),
        _ => None,
    };
    assert_eq!(fixture.second().redeliver(id).await.unwrap(), RedeliverResult::Queued);
    assert_eq!(ears[0].until("it is told", told).await, partition);
    assert!(
        ears[1].all(&fixture.store, OTHER, 0).await.iter().all(|hint| told(hint).is_none()),
        "not to others"
    );
    // Without an owner, the next owner reads it.
    fixture.store.release(partition, owner.fence).await.unwrap();
    assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    owner.fence = fixture.own(&alice).await.fence;
    let alone = DeliveryWorker::alone(&owner, id);
    assert_eq!(alone.outbox().await.len(), 1);
    alone.take(id, 1).await;
}
