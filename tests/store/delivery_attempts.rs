//! Sentences about attempts of deliveries: their begin, their end, and their handoff to another owner.

use std::time::Duration;

use rtm_bridge::domain::{DeliveryState, Partition};
use rtm_bridge::store::{
    ATTEMPTS, ClaimMode, Fence, FinishRequest, FinishResult, RedeliverResult, RetryDecision, StoreError,
};

use super::delivery_worker::{
    DeliveryWorker, HOOK, OTHER_HOOK, RETRY, WINDOW, dead_letter, end, retry, say, stands,
};
use super::store_fixture::{LEASE, ME, OTHER, StoreFixture, conversation};

pub(super) async fn attempt_is_exclusive_during_its_window(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let id = say(&mut owner, HOOK).await;
    let first = worker.take(id, 1).await;
    let until = first.now + WINDOW;
    assert_eq!(worker.later(2).await, until);
    assert_eq!(worker.due().await, Some(until));
    let standing = stands(&fixture, id).await;
    assert_eq!((standing.state, standing.next_attempt_at), (DeliveryState::Pending, Some(until)));
    fixture.pass_almost(WINDOW).await;
    assert_eq!(worker.later(2).await, until);
    // A repeat returns the same delivery, and the window begins anew.
    let again = worker.take(id, 1).await;
    assert!(first.now < again.now);
    assert_eq!((again.since, again.made, again.step), (first.since, 0, 0));
    fixture.pass_the_rest().await;
    assert_eq!(worker.later(2).await, again.now + WINDOW);
    assert_eq!(worker.due().await, Some(again.now + WINDOW));
    fixture.pass(WINDOW).await;
    let other = worker.take(id, 2).await;
    assert_eq!((other.made, other.step), (0, 0), "of what was not told the end of nothing is known");
    assert_eq!(worker.later(1).await, other.now + WINDOW, "another's now");
    assert_eq!(worker.finish(&other, RetryDecision::Delivered).await.next, None);
}

pub(super) async fn new_owner_waits_for_the_attempt_in_flight(fixture: StoreFixture) {
    let alice = conversation("alice");
    let partition = Partition::of(&alice);
    let mut owner = fixture.own(&alice).await;
    let old = DeliveryWorker::of(&owner, HOOK);
    let id = say(&mut owner, HOOK).await;
    old.attempt(id, retry()).await;
    fixture.pass(LEASE).await;
    let flying = old.take(id, 1).await;
    fixture.pass(LEASE).await;
    let claim = fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap();
    let heir = DeliveryWorker { fence: claim.fence().unwrap(), ..DeliveryWorker::of(&owner, HOOK) };
    assert_eq!(heir.due().await, Some(flying.now + WINDOW));
    assert_eq!(heir.later(2).await, flying.now + WINDOW);
    // The old owner's end comes too late.
    let told =
        fixture.store.finish(partition, old.fence, old.queue, &end(&flying, RetryDecision::Delivered)).await;
    assert_eq!(told, Err(StoreError::Fenced));
    fixture.pass(WINDOW.checked_sub(LEASE).unwrap()).await;
    let taken = heir.take(id, 2).await;
    assert_eq!((taken.made, taken.step, taken.since), (1, 1, flying.since));
    heir.finish(&taken, RetryDecision::Again).await;
    // After a clean handoff there is nothing to wait for.
    fixture.store.release(partition, heir.fence).await.unwrap();
    let claim = fixture.store.claim(partition, ME, LEASE, ClaimMode::Free).await.unwrap();
    let next = DeliveryWorker { fence: claim.fence().unwrap(), ..heir };
    assert!(next.due().await.unwrap() <= fixture.store.now().await.unwrap());
    assert_eq!(next.take(id, 3).await.made, 2);
}

pub(super) async fn retry_waits_for_its_time(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let id = say(&mut owner, HOOK).await;
    let taken = worker.take(id, 1).await;
    let FinishResult { next, now } = worker.finish(&taken, retry()).await;
    assert_eq!(next, Some(now + RETRY));
    let standing = stands(&fixture, id).await;
    let FinishRequest { attempt, .. } = end(&taken, retry());
    assert_eq!((standing.state, standing.next_attempt_at), (DeliveryState::Pending, next));
    assert_eq!((&standing.reason, &standing.attempts), (&attempt.error, &vec![attempt.clone()]));
    fixture.pass_almost(RETRY).await;
    assert_eq!((Some(worker.later(1).await), worker.due().await), (next, next));
    fixture.pass_the_rest().await;
    // The second attempt is retried at once and does not count in the schedule.
    for (number, decision, step) in [(1, RetryDecision::Again, 1), (2, retry(), 1)] {
        let taken = worker.take(id, 1).await;
        assert_eq!((taken.made, taken.step, taken.since), (number, step, standing.new.created_at));
        let FinishResult { next, now } = worker.finish(&taken, decision.clone()).await;
        let wait = if decision == RetryDecision::Again { Duration::ZERO } else { RETRY };
        assert_eq!((next, stands(&fixture, id).await.next_attempt_at), (Some(now + wait), next));
    }
    fixture.pass(RETRY).await;
    let taken = worker.take(id, 1).await;
    assert_eq!((taken.made, taken.step), (3, 2));
    worker.finish(&taken, RetryDecision::Delivered).await;
    let stands = stands(&fixture, id).await;
    assert_eq!((stands.state, stands.next_attempt_at, stands.reason), (DeliveryState::Delivered, None, None));
    assert_eq!(stands.attempts.len(), 4);
    assert_eq!(
        stands.attempts.iter().map(|attempt| attempt.status).collect::<Vec<_>>(),
        [Some(503), None, Some(503), Some(204)]
    );
}

pub(super) async fn dead_delivery_has_a_reason(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let id = say(&mut owner, HOOK).await;
    assert_eq!(DeliveryWorker::of(&owner, HOOK).attempt(id, dead_letter()).await.next, None);
    let stands = stands(&fixture, id).await;
    assert_eq!((stands.state, stands.next_attempt_at), (DeliveryState::Dead, None));
    assert_eq!(stands.reason.as_deref(), Some("it was tried for 24 hours"));
    assert_eq!(stands.attempts.len(), 1);
}

pub(super) async fn repeated_end_of_an_attempt_changes_nothing(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let ids = [say(&mut owner, HOOK).await, say(&mut owner, HOOK).await];
    let first = worker.take(ids[0], 1).await;
    let retried = worker.finish(&first, retry()).await;
    for decision in [retry(), RetryDecision::Delivered, dead_letter(), RetryDecision::Again] {
        assert_eq!(worker.finish(&first, decision).await.next, retried.next, "as the queue stands");
    }
    fixture.pass(RETRY).await;
    let second = worker.take(ids[0], 2).await;
    let in_flight = Some(second.now + WINDOW);
    assert_eq!(
        worker.finish(&first, RetryDecision::Delivered).await.next,
        in_flight,
        "it is of an earlier one"
    );
    worker.finish(&second, RetryDecision::Delivered).await;
    let third = worker.take(ids[1], 3).await;
    for old in [&first, &second] {
        assert_eq!(
            worker.finish(old, dead_letter()).await.next,
            Some(third.now + WINDOW),
            "the queue went on"
        );
    }
    assert_eq!(worker.finish(&third, RetryDecision::Delivered).await.next, None);
    assert_eq!(worker.finish(&third, retry()).await.next, None);
    let mut attempts = Vec::new();
    for id in ids {
        let stands = stands(&fixture, id).await;
        assert_eq!((stands.state, stands.reason), (DeliveryState::Delivered, None));
        attempts.push(stands.attempts.len());
    }
    assert_eq!(attempts, [2, 1]);
}

pub(super) async fn attempt_ends_by_its_own_token_only(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let id = say(&mut owner, HOOK).await;
    // Both would be the first ended attempt, one in its queue and one in its own queue.
    for (alone, tokens) in [(false, [1, 2]), (true, [3, 4])] {
        let worker = if alone { DeliveryWorker::alone(&owner, id) } else { DeliveryWorker::of(&owner, HOOK) };
        let first = worker.take(id, tokens[0]).await;
        fixture.pass(WINDOW).await;
        if alone {
            assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
        }
        let second = worker.take(id, tokens[1]).await;
        assert_eq!(first.made, second.made);
        let in_flight = Some(second.now + WINDOW);
        for decision in [RetryDecision::Delivered, retry(), dead_letter(), RetryDecision::Again] {
            assert_eq!(worker.finish(&first, decision).await.next, in_flight, "that one goes on");
        }
        let attempts = stands(&fixture, id).await.attempts.len();
        assert_eq!(worker.finish(&second, dead_letter()).await.next, None);
        assert_eq!(stands(&fixture, id).await.attempts.len(), attempts + 1);
        assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
    }
}

pub(super) async fn end_without_a_begin_changes_nothing(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let [worker, other] = [HOOK, OTHER_HOOK].map(|target| DeliveryWorker::of(&owner, target));
    let ids = [say(&mut owner, HOOK).await, say(&mut owner, HOOK).await];
    let taken = worker.take(ids[0], 1).await;
    assert_eq!(other.finish(&taken, RetryDecision::Delivered).await.next, None, "no delivery of that queue");
    let mut future = taken.clone();
    future.token += 1;
    let mut second = taken.clone();
    second.delivery.id = ids[1];
    let in_flight = Some(taken.now + WINDOW);
    for stranger in [future, second] {
        assert_eq!(worker.finish(&stranger, dead_letter()).await.next, in_flight);
    }
    let FinishResult { next, .. } = worker.finish(&taken, retry()).await;
    let mut unbegun = taken;
    unbegun.token += 1;
    assert_eq!(worker.finish(&unbegun, RetryDecision::Delivered).await.next, next);
    for (id, attempts) in ids.into_iter().zip([1, 0]) {
        let stands = stands(&fixture, id).await;
        assert_eq!((stands.state, stands.attempts.len()), (DeliveryState::Pending, attempts));
    }
}

pub(super) async fn newest_attempts_are_stored(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let id = say(&mut owner, HOOK).await;
    let mut made = Vec::new();
    for token in 0..ATTEMPTS as u64 + 3 {
        let taken = worker.take(id, token).await;
        made.push(end(&taken, RetryDecision::Again).attempt);
        worker.finish(&taken, RetryDecision::Again).await;
    }
    assert_eq!(stands(&fixture, id).await.attempts, made[3..]);
    assert_eq!(worker.take(id, 100).await.made as usize, ATTEMPTS + 3, "they are counted on");
}

pub(super) async fn every_step_of_an_attempt_is_fenced(fixture: StoreFixture) {
    let alice = conversation("alice");
    let partition = Partition::of(&alice);
    let mut owner = fixture.own(&alice).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let id = say(&mut owner, HOOK).await;
    let taken = worker.take(id, 1).await;
    let finish = end(&taken, RetryDecision::Delivered);
    let all_say = async |error: StoreError| {
        let DeliveryWorker { store, fence, queue, .. } = worker;
        assert_eq!(store.outbox(partition, fence, 0).await.unwrap_err(), error);
        assert_eq!(store.begin(partition, fence, queue, 1, WINDOW).await.unwrap_err(), error);
        assert_eq!(store.finish(partition, fence, queue, &finish).await, Err(error));
    };
    let lease = format!("{{{partition}}}:lease");
    let older = Fence { epoch: owner.fence.epoch - 1, ..owner.fence };
    if fixture.tamper("HSET", &lease, &["e", &older.epoch.to_string(), "f", &older.to_string()]).await {
        all_say(StoreError::Lost).await;
    }
    // The owner's own next claim also fences off earlier operations.
    let fence = fixture.own(&alice).await.fence;
    all_say(StoreError::Fenced).await;
    fixture.store.release(partition, fence).await.unwrap();
    all_say(StoreError::Fenced).await;
    fixture.store.claim(partition, OTHER, LEASE, ClaimMode::Free).await.unwrap().fence().unwrap();
    all_say(StoreError::Fenced).await;
    let stands = stands(&fixture, id).await;
    assert_eq!((stands.state, stands.next_attempt_at), (DeliveryState::Pending, Some(taken.now + WINDOW)));
}
