//! The promises of the embedded store alone: its limit, its threads, its size.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtm_bridge::domain::ConversationId;
use rtm_bridge::store::{
    AcceptError, AcceptResult, BeginResult, ConversationChange, DEAD_TTL, MemoryLimits, MemoryStats,
    MemoryStore, RedeliverResult, RetryDecision, Store,
};

use super::delivery_worker::{DeliveryWorker, HOOK, OTHER_HOOK, dead_letter, delivery, say, stands};
use super::store_fixture::{MESSAGE_TTL, StoreFixture, accept, conversation, id, new, with_key};

fn memory(fixture: &StoreFixture) -> Arc<MemoryStore> {
    let Store::Memory(memory) = &fixture.store else { panic!("the embedded store") };
    memory.clone()
}

#[test]
fn eight_threads_with_one_key_make_one_message() {
    let fixture = StoreFixture::memory();
    let memory = memory(&fixture);
    let alice = conversation("alice");
    for round in 0..50_u128 {
        let barrier = std::sync::Barrier::new(8);
        let made = std::thread::scope(|scope| {
            let post = |number| {
                let accept = with_key(accept(&alice, round * 8 + number), "shop", &round.to_string(), 1);
                let accept = rtm_bridge::store::AcceptRequest { max_open: 1000, ..accept };
                let (memory, barrier) = (&memory, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    match memory.accept(accept).unwrap() {
                        AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => {
                            (true, accepted.id)
                        }
                        AcceptResult::Replayed(message) => (false, message.accepted.id),
                    }
                })
            };
            let threads: Vec<_> = (0..8).map(post).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(made.iter().filter(|(new, _)| *new).count(), 1);
        assert!(made.iter().all(|(_, id)| *id == made[0].1), "all were told of the same message");
    }
    assert_eq!(memory.stats().open, 50);
}

#[tokio::test]
async fn full_memory_evicts_ended_messages_and_keeps_open_ones() {
    let fixture = StoreFixture::limited(MemoryLimits::new(64 * 1024, MESSAGE_TTL));
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    fixture.post(&alice, 0).await;
    for number in 1..200 {
        fixture.post(&alice, number).await;
        owner.settle(id(number)).await;
        assert!(memory(&fixture).stats().bytes <= 64 * 1024);
    }
    assert!(fixture.store.message(&alice, id(0), None).await.unwrap().is_some(), "open");
    assert!(fixture.store.message(&alice, id(1), None).await.unwrap().is_none(), "gone early");
    assert!(fixture.store.message(&alice, id(199), None).await.unwrap().is_some(), "the newest");
}

#[tokio::test]
async fn memory_full_of_open_messages_refuses_accepts_only() {
    let fixture = StoreFixture::limited(MemoryLimits::new(64 * 1024, MESSAGE_TTL));
    let mut users = Vec::new();
    let refused = loop {
        let user = conversation(&format!("user-{}", users.len()));
        match fixture.store.accept(accept(&user, users.len() as u128)).await {
            Ok(_) => users.push(user),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, AcceptError::Full);
    assert!(users.len() > 30);
    let before = memory(&fixture).stats();
    assert_eq!((before.open, before.ended), (users.len(), 0));
    for (number, user) in users.iter().enumerate() {
        fixture.pass(MESSAGE_TTL).await;
        let mut owner = fixture.own(user).await;
        owner.settle(id(number as u128)).await;
    }
    assert_eq!(memory(&fixture).stats().open, 0);
    fixture.post(&conversation("late"), 1000).await;
}

#[tokio::test]
async fn full_partition_evicts_from_other_partitions() {
    let fixture = StoreFixture::limited(MemoryLimits::new(64 * 1024, MESSAGE_TTL));
    for number in 0..500_u128 {
        let user = conversation(&format!("user-{number}"));
        fixture.post(&user, number).await;
        fixture.own(&user).await.settle(id(number)).await;
        fixture.pass(Duration::from_millis(2)).await;
    }
    let stats = memory(&fixture).stats();
    assert!(stats.bytes <= 64 * 1024 && stats.open == 0, "{stats:?}");
}

#[tokio::test]
async fn evicted_conversation_still_counts_on() {
    let fixture = StoreFixture::limited(MemoryLimits::new(32 * 1024, MESSAGE_TTL));
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    // A burst takes ids ahead of the time.
    let mut last = 0;
    for number in 0..10 {
        last = new(fixture.store.accept(accept(&alice, number)).await).client_message_id;
        owner.settle(id(number)).await;
    }
    fixture.pass(Duration::from_millis(5)).await;
    for number in 10..200 {
        let user = conversation(&format!("user-{number}"));
        if fixture.store.accept(accept(&user, number)).await.is_ok() {
            fixture.own(&user).await.settle(id(number)).await;
        }
    }
    fixture.pass(Duration::from_millis(1)).await;
    assert!(new(fixture.store.accept(accept(&alice, 200)).await).client_message_id > last);
}

#[tokio::test]
async fn message_larger_than_the_store_evicts_nothing() {
    let fixture = StoreFixture::limited(MemoryLimits::new(16 * 1024, MESSAGE_TTL));
    let alice = conversation("alice");
    fixture.post(&alice, 1).await;
    fixture.own(&alice).await.settle(id(1)).await;
    let mut large = accept(&alice, 2);
    large.message.content = rtm_bridge::domain::MessageContent::new("x".repeat(20_000)).unwrap();
    assert_eq!(fixture.store.accept(large).await.unwrap_err(), AcceptError::Full);
    assert!(fixture.store.message(&alice, id(1), None).await.unwrap().is_some());
}

#[tokio::test]
async fn idle_conversation_is_small() {
    let fixture = StoreFixture::memory();
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let message = fixture.post(&alice, 1).await;
    let reply = owner.reply(owner.now().await, Some(message), "It left the warehouse.");
    let end = owner.end(owner.now().await, message);
    owner.write(vec![reply, end]).await.unwrap();
    assert!(memory(&fixture).stats().bytes < 2048, "{:?}", memory(&fixture).stats());
}

#[tokio::test]
async fn full_memory_evicts_settled_deliveries_only() {
    let fixture = StoreFixture::limited(MemoryLimits::new(64 * 1024, MESSAGE_TTL));
    let mut owner = fixture.own(&conversation("alice")).await;
    let targets = [HOOK, OTHER_HOOK];
    let [worker, waiting] = targets.map(|target| DeliveryWorker::of(&owner, target));
    let dead = say(&mut owner, HOOK).await;
    worker.attempt(dead, dead_letter()).await;
    let (mut delivered, mut pending) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let id = say(&mut owner, HOOK).await;
        worker.attempt(id, RetryDecision::Delivered).await;
        delivered.push(id);
        if number % 4 == 0 {
            pending.push(say(&mut owner, OTHER_HOOK).await);
        }
        fixture.pass(Duration::from_millis(2)).await;
    }
    assert_eq!(memory(&fixture).stats().settled, 21);
    let mut open = 0;
    let refused = loop {
        let number = open as u128;
        if let Err(refused) =
            fixture.store.accept(accept(&conversation(&format!("user-{number}")), number)).await
        {
            break refused;
        }
        open += 1;
        let mut left = Vec::new();
        for id in &delivered {
            left.push(fixture.store.delivery(*id).await.unwrap().is_some());
        }
        assert!(left.is_sorted(), "the first to be settled goes first: {left:?}");
        // It was settled before all of them and has a longer lifetime.
        assert!(!left.contains(&true) || fixture.store.delivery(dead).await.unwrap().is_some());
    };
    assert_eq!(refused, AcceptError::Full);
    let stats = memory(&fixture).stats();
    assert_eq!((stats.open, stats.pending, stats.settled), (open, pending.len(), 0));
    // Pending deliveries are delivered all the same and make room then.
    for id in pending {
        waiting.attempt(id, RetryDecision::Delivered).await;
    }
    fixture.post(&conversation("late"), 1000).await;
}

#[tokio::test]
async fn receivers_answers_are_counted() {
    let fixture = StoreFixture::memory();
    let mut owner = fixture.own(&conversation("alice")).await;
    let id = say(&mut owner, HOOK).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let before = memory(&fixture).stats().bytes;
    for _ in 0..100 {
        worker.attempt(id, RetryDecision::Again).await;
    }
    let attempts = stands(&fixture, id).await.attempts;
    let texts = |attempt: &rtm_bridge::domain::DeliveryAttempt| {
        attempt.response.as_ref().map_or(0, |text| text.len())
            + attempt.error.as_ref().map_or(0, |text| text.len())
    };
    let weight = memory(&fixture).stats().bytes - before;
    assert!(weight > attempts.iter().map(texts).sum::<usize>() + attempts.len() * 64, "{weight}");
    assert!(weight < attempts.iter().map(texts).sum::<usize>() + attempts.len() * 256, "{weight}");
}

#[derive(Debug, Clone)]
enum Op {
    Accept(usize),
    Reply(usize, usize),
    End(usize),
    Deliver(usize, usize),
    Attempt(usize, RetryDecision),
    Redeliver(usize),
    Pass(u64),
    Sweep(usize),
}

proptest! {
    /// All steps add to the estimate and subtract from it. At the end they must cancel out.
    #[test]
    fn estimate_returns_to_zero(
        limit in 8_192_usize..65_536,
        ops in prop::collection::vec(prop_oneof![
            4 => (0..4_usize).prop_map(Op::Accept),
            4 => (0..4_usize, 0..5_000_usize).prop_map(|(user, size)| Op::Reply(user, size)),
            3 => (0..4_usize).prop_map(Op::End),
            3 => (0..4_usize, 0..3_000_usize).prop_map(|(user, size)| Op::Deliver(user, size)),
            3 => (0..4_usize, prop_oneof![
                Just(RetryDecision::Delivered), Just(RetryDecision::Again), Just(dead_letter()), Just(RetryDecision::Retry(MESSAGE_TTL)),
            ]).prop_map(|(user, decision)| Op::Attempt(user, decision)),
            1 => (0..20_usize).prop_map(Op::Redeliver),
            1 => (0..1_500_000_u64).prop_map(Op::Pass),
            1 => (100_000..90_000_000_u64).prop_map(Op::Pass),
            1 => (0..3_usize).prop_map(Op::Sweep),
        ], 1..120),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let limits = MemoryLimits { journal_entries: 5, ..MemoryLimits::new(limit, MESSAGE_TTL) };
            let fixture = StoreFixture::limited(limits);
            let users: Vec<ConversationId> = (0..4).map(|n| conversation(&format!("user-{n}"))).collect();
            let mut owners = Vec::new();
            for user in &users {
                owners.push(fixture.own(user).await);
            }
            let mut open: Vec<Vec<u128>> = vec![Vec::new(); 4];
            let mut last = 0;
            let mut deliveries = Vec::new();
            for op in ops {
                match op {
                    Op::Accept(user) => {
                        last += 1;
                        let accept = with_key(accept(&users[user], last), "shop", &last.to_string(), 1);
                        match fixture.store.accept(accept).await {
                            Ok(_) => open[user].push(last),
                            Err(refused) => assert!(matches!(refused, AcceptError::Full | AcceptError::LaneFull(_))),
                        }
                    }
                    Op::Reply(user, size) => {
                        // The replies belong to an open message, to an ended one, or have no message.
                        let to = (size % 3 > 0).then(|| id(open[user].first().copied().unwrap_or(last)));
                        let owner = &mut owners[user];
                        let reply = owner.reply(owner.now().await, to, &"x".repeat(size));
                        owner.write(vec![reply]).await.unwrap();
                    }
                    Op::End(user) => {
                        if !open[user].is_empty() {
                            owners[user].settle(id(open[user].remove(0))).await;
                        }
                    }
                    Op::Deliver(user, size) => {
                        let owner = &mut owners[user];
                        let at = owner.now().await;
                        let reply = owner.reply(at, None, "hello");
                        let mut new = delivery(owner, at, HOOK);
                        new.data = serde_json::value::to_raw_value(&"x".repeat(size)).unwrap();
                        deliveries.push((user, new.id));
                        owner.write(vec![reply, ConversationChange::Deliver(Box::new(new))]).await.unwrap();
                    }
                    Op::Attempt(user, decision) => {
                        let worker = DeliveryWorker::of(&owners[user], HOOK);
                        if let BeginResult::Taken(taken) = worker.begin(1).await {
                            worker.finish(&taken, decision).await;
                        }
                    }
                    Op::Redeliver(number) => {
                        if let Some((_, id)) = deliveries.get(number) {
                            fixture.store.redeliver(*id).await.unwrap();
                        }
                    }
                    Op::Pass(millis) => fixture.pass(Duration::from_millis(millis)).await,
                    Op::Sweep(budget) => { memory(&fixture).sweep(budget); }
                }
                // Idle conversations go if room is needed.
                for owner in &mut owners {
                    owner.take_up().await;
                }
                for (user, open) in open.iter().enumerate() {
                    for &number in open {
                        let message = fixture.store.message(&users[user], id(number), None).await.unwrap();
                        assert!(message.is_some_and(|message| !message.progress.has_ended()));
                    }
                }
            }
            for (user, open) in open.into_iter().enumerate() {
                for number in open {
                    owners[user].take_up().await;
                    owners[user].settle(id(number)).await;
                }
            }
            for (user, id) in deliveries {
                if fixture.store.redeliver(id).await.unwrap() == RedeliverResult::Queued {
                    DeliveryWorker::alone(&owners[user], id).attempt(id, dead_letter()).await;
                }
            }
            for _ in 0..2 {
                fixture.pass(DEAD_TTL).await;
                while memory(&fixture).sweep(10) > 0 {}
            }
            assert_eq!(memory(&fixture).stats(), MemoryStats::default());
        });
    }
}
