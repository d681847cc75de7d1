//! Sentences about lists of deliveries and the lifetimes of deliveries.

use std::time::Duration;

use rtm_bridge::domain::fixtures::START;
use rtm_bridge::domain::{
    BotName, ConversationId, Delivery, DeliveryId, DeliveryOrigin, DeliveryState, MessageId, NewDelivery,
    Timestamp, UserId,
};
use rtm_bridge::store::{
    ConversationChange, DEAD_TTL, DeliveryPage, DeliveryQuery, MemoryStats, RedeliverResult, RetryDecision,
    Store,
};

use super::delivery_worker::{DeliveryWorker, HOOK, dead_letter, delivery, end, retry, say, stands};
use super::store_fixture::{LEASE, MESSAGE_TTL, Owner, StoreFixture, conversation, neighbours};
use crate::support::nothing_left;

fn of(bot: &str, user: &str) -> ConversationId {
    ConversationId::new(BotName::new(bot).unwrap(), UserId::new(user).unwrap())
}

fn everything() -> DeliveryQuery {
    DeliveryQuery { limit: 1000, ..DeliveryQuery::default() }
}

fn ids(deliveries: &[Delivery]) -> Vec<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.new.id).collect()
}

/// Returns all matches in pages of this size.
async fn list(fixture: &StoreFixture, query: DeliveryQuery, limit: usize) -> Vec<DeliveryId> {
    let (mut listed, mut before) = (Vec::new(), query.before);
    loop {
        let query = DeliveryQuery { before, limit, ..query.clone() };
        let DeliveryPage { deliveries, next } = fixture.store.deliveries(&query).await.unwrap();
        assert!(deliveries.len() <= limit.clamp(1, 1000), "{}", deliveries.len());
        listed.extend(ids(&deliveries));
        let Some(next) = next else { return listed };
        assert!(before.is_none_or(|before| next < before), "it goes on");
        before = Some(next);
    }
}

/// Writes deliveries of these users, one moment apart. Returns them newest first.
async fn spread(fixture: &StoreFixture, users: &[&str], each: usize) -> Vec<DeliveryId> {
    let mut written = Vec::new();
    let mut owners = Vec::new();
    for user in users {
        owners.push(fixture.own(&conversation(user)).await);
    }
    for _ in 0..each {
        for owner in &mut owners {
            written.push(say(owner, HOOK).await);
            fixture.pass(Duration::from_millis(2)).await;
        }
    }
    written.reverse();
    written
}

pub(super) async fn deliveries_are_listed_newest_first(fixture: StoreFixture) {
    assert!(list(&fixture, everything(), 10).await.is_empty());
    let written = spread(&fixture, &["alice", "bob", "carol", "dave"], 3).await;
    assert!(written.is_sorted_by(|newer, older| newer > older));
    let DeliveryPage { deliveries, next } = fixture.store.deliveries(&everything()).await.unwrap();
    assert_eq!((ids(&deliveries), next), (written.clone(), None));
    for listed in deliveries {
        let read = stands(&fixture, listed.new.id).await;
        assert_eq!(format!("{listed:?}"), format!("{read:?}"), "each as it stands");
    }
    // Some have the same time, in one queue.
    let mut owner = fixture.own(&conversation("alice")).await;
    owner.take_up().await;
    owner.record.epoch = 5;
    let at = owner.now().await;
    let (mut changes, mut same) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        changes.push(owner.reply(at, None, "hello"));
        let new = delivery(&owner, at, HOOK);
        same.push(new.id);
        changes.push(ConversationChange::Deliver(Box::new(new)));
    }
    owner.write(changes).await.unwrap();
    same.sort_unstable_by(|one, other| other.cmp(one));
    same.extend(written);
    assert_eq!(list(&fixture, everything(), 1000).await, same);
    assert_eq!(list(&fixture, everything(), 2).await, same);
}

pub(super) async fn deliveries_of_an_endpoint_are_listed(fixture: StoreFixture) {
    let mut written = [Vec::new(), Vec::new(), Vec::new()];
    for user in ["alice", "bob"] {
        let mut owner = fixture.own(&conversation(user)).await;
        for _ in 0..3 {
            let at = owner.now().await;
            let mut changes = vec![owner.reply(at, None, "hello")];
            let of_entry = delivery(&owner, at, HOOK);
            for (ids, name) in written.iter_mut().zip(["crm", "crm.eu", "cr"]) {
                let id = of_entry.id.at_endpoint(name);
                ids.insert(0, id);
                let origin = DeliveryOrigin::Endpoint(name.into());
                changes.push(ConversationChange::Deliver(Box::new(NewDelivery {
                    id,
                    origin,
                    ..of_entry.clone()
                })));
            }
            owner.write(changes).await.unwrap();
            fixture.pass(Duration::from_millis(2)).await;
        }
    }
    for (ids, name) in written.into_iter().zip(["crm", "crm.eu", "cr"]) {
        let query = DeliveryQuery { endpoint: Some(name.into()), ..everything() };
        assert_eq!(list(&fixture, query.clone(), 1000).await, ids, "{name}");
        assert_eq!(list(&fixture, query, 2).await, ids, "{name}");
    }
    let query = DeliveryQuery { endpoint: Some("c".into()), ..everything() };
    assert!(list(&fixture, query, 10).await.is_empty());
}

pub(super) async fn page_of_deliveries_is_bounded_in_bytes(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let at = owner.now().await;
        let reply = owner.reply(at, None, "hello");
        let data = serde_json::value::to_raw_value(&"x".repeat(1_500_000)).unwrap();
        let new = NewDelivery { data, ..delivery(&owner, at, HOOK) };
        ids.push(new.id);
        owner.write(vec![reply, ConversationChange::Deliver(Box::new(new))]).await.unwrap();
    }
    ids.sort_unstable_by(|one, other| other.cmp(one));
    let mut query = DeliveryQuery { limit: 10, ..DeliveryQuery::default() };
    for (expected, more) in [(&ids[..2], true), (&ids[2..4], true), (&ids[4..], false)] {
        let page = fixture.store.deliveries(&query).await.unwrap();
        assert_eq!(page.deliveries.iter().map(|told| told.new.id).collect::<Vec<_>>(), expected);
        assert_eq!(page.next.is_some(), more);
        query.before = page.next;
    }
}

pub(super) async fn receivers_answers_count_in_a_page(fixture: StoreFixture) {
    let mut ids = Vec::new();
    for user in ["alice", "bob", "carol"] {
        let mut owner = fixture.own(&conversation(user)).await;
        let worker = DeliveryWorker::of(&owner, HOOK);
        let id = say(&mut owner, HOOK).await;
        let taken = worker.take(id, 1).await;
        let mut ended = end(&taken, retry());
        ended.attempt.response = Some("x".repeat(1_500_000).into());
        fixture.store.finish(worker.partition, worker.fence, worker.queue, &ended).await.unwrap();
        ids.push(id);
    }
    ids.sort_unstable_by(|one, other| other.cmp(one));
    let mut query = DeliveryQuery { limit: 10, ..DeliveryQuery::default() };
    for expected in [&ids[..2], &ids[2..]] {
        let page = fixture.store.deliveries(&query).await.unwrap();
        assert_eq!(page.deliveries.iter().map(|told| told.new.id).collect::<Vec<_>>(), expected);
        query.before = page.next;
    }
    assert_eq!(query.before, None);
}

pub(super) async fn deliveries_are_listed_page_by_page(fixture: StoreFixture) {
    let written = spread(&fixture, &["alice", "bob", "carol"], 3).await;
    for limit in [1, 2, 4, 8, 9, 10, 1000, usize::MAX] {
        assert_eq!(list(&fixture, everything(), limit).await, written, "{limit} each");
    }
    assert_eq!(list(&fixture, everything(), 0).await, written, "one at least");
    for (place, before) in written.iter().enumerate() {
        let query = DeliveryQuery { before: Some(*before), ..everything() };
        assert_eq!(list(&fixture, query, 2).await, written[place + 1..], "only what is older");
    }
}

pub(super) async fn deliveries_of_a_message_are_listed(fixture: StoreFixture) {
    let mut owner = fixture.own(&conversation("alice")).await;
    let [one, other] = [1, 2].map(|number| MessageId::new(START, number));
    let mut written = Vec::new();
    // Far more of another message are newer and older.
    for message in (0..40).map(|number| if number % 20 == 7 { Some(one) } else { Some(other) }).chain([None])
    {
        let at = owner.now().await;
        let reply = owner.reply(at, None, "hello");
        let new = NewDelivery { message, ..delivery(&owner, at, HOOK) };
        written.push((new.id, message));
        owner.write(vec![reply, ConversationChange::Deliver(Box::new(new))]).await.unwrap();
        fixture.pass(Duration::from_millis(2)).await;
    }
    written.reverse();
    for message in [one, other, MessageId::new(START, 3)] {
        let expected = written.iter().filter(|(_, of)| *of == Some(message)).map(|(id, _)| *id);
        let expected: Vec<_> = expected.collect();
        for limit in [1000, 1] {
            let query = DeliveryQuery { message: Some(message), ..everything() };
            assert_eq!(list(&fixture, query, limit).await, expected, "{message} by {limit}");
        }
    }
    let dead = DeliveryQuery { message: Some(one), state: Some(DeliveryState::Dead), ..everything() };
    assert!(list(&fixture, dead, 10).await.is_empty(), "it is one filter of several");
}

pub(super) async fn deliveries_are_listed_by_filter(fixture: StoreFixture) {
    // These names begin alike and look like patterns of stores.
    let conversations = [
        of("support", "crm/alice"),
        of("support", "crm/bob"),
        of("support", "web/alice"),
        of("support", "*"),
        of("sales", "crm/alice"),
        of("sales", "[c]rm? Zoë"),
    ];
    // Each user has two: the first is delivered, dead or pending, the second is pending.
    let mut written: Vec<(DeliveryId, &ConversationId, DeliveryState, Timestamp)> = Vec::new();
    let fates = [
        (DeliveryState::Delivered, Some(RetryDecision::Delivered)),
        (DeliveryState::Dead, Some(dead_letter())),
        (DeliveryState::Pending, None),
    ];
    for (conversation, (state, decision)) in conversations.iter().zip(fates.into_iter().cycle()) {
        let mut owner = fixture.own(conversation).await;
        for (state, decision) in [(state, decision), (DeliveryState::Pending, None)] {
            let id = say(&mut owner, HOOK).await;
            if let Some(decision) = decision {
                DeliveryWorker::of(&owner, HOOK).attempt(id, decision).await;
            }
            written.push((id, conversation, state, stands(&fixture, id).await.new.created_at));
            fixture.pass(Duration::from_millis(2)).await;
        }
    }
    written.reverse();
    let names =
        |names: &[&str]| Some(names.iter().map(|name| BotName::new(name).unwrap()).collect::<Vec<_>>());
    // Each filter meets each of the others sooner or later.
    let mut states = [None, None].into_iter().chain(DeliveryState::ALL.map(Some)).cycle();
    let mut sinces = [None, Some(written[5].3)].into_iter().cycle();
    let mut limits = [1000, 2, 1].into_iter().cycle();
    for bots in [None, names(&["sales"]), names(&["sales", "support"]), names(&["nobody"]), names(&[])] {
        for (user, prefix) in [
            (None, ""),
            (None, "crm/"),
            (None, "crm/alice"),
            (None, "[c]"),
            (None, "*"),
            (None, "c"),
            (Some("crm/alice"), ""),
            (Some("crm/alice"), "crm/"),
            (Some("crm/alice"), "web/"),
            (Some("*"), ""),
            (Some("crm"), "c"),
        ] {
            let query = DeliveryQuery {
                state: states.next().unwrap(),
                bots: bots.clone(),
                user: user.map(|user| UserId::new(user).unwrap()),
                user_prefix: prefix.into(),
                since: sinces.next().unwrap(),
                ..everything()
            };
            let expected = written.iter().filter(|(_, conversation, state, created_at)| {
                query.state.is_none_or(|wanted| wanted == *state)
                    && query.since.is_none_or(|since| since <= *created_at)
                    && bots.as_ref().is_none_or(|bots| bots.contains(conversation.bot()))
                    && user.is_none_or(|user| user == conversation.user().as_str())
                    && conversation.user().as_str().starts_with(prefix)
            });
            let expected: Vec<_> = expected.map(|(id, ..)| *id).collect();
            let listed = list(&fixture, query.clone(), limits.next().unwrap()).await;
            assert_eq!(listed, expected, "{query:?}");
        }
    }
}

/// Creates a delivered, a dead and a pending delivery, each with its worker.
async fn of_each_state<'a>(owner: &mut Owner<'a>) -> [(DeliveryId, DeliveryWorker<'a>); 3] {
    let [delivered, dead, pending] = ["1", "2", "3"]
        .map(|number| (format!("{HOOK}/{number}"), DeliveryWorker::of(owner, &format!("{HOOK}/{number}"))));
    let one = say(owner, &delivered.0).await;
    delivered.1.attempt(one, RetryDecision::Delivered).await;
    let two = say(owner, &dead.0).await;
    dead.1.attempt(two, dead_letter()).await;
    let three = say(owner, &pending.0).await;
    pending.1.attempt(three, RetryDecision::Retry(LEASE)).await;
    [(one, delivered.1), (two, dead.1), (three, pending.1)]
}

pub(super) async fn settled_delivery_expires_and_pending_one_stays(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = fixture.own(&alice).await;
    let [(delivered, _), (dead, _), (pending, worker)] = of_each_state(&mut owner).await;
    let all = async |expected: &[DeliveryId]| {
        for id in [delivered, dead, pending] {
            assert_eq!(fixture.store.delivery(id).await.unwrap().is_some(), expected.contains(&id));
        }
        let mut expected = expected.to_vec();
        expected.sort_unstable_by(|one, other| other.cmp(one));
        let listed = list(&fixture, everything(), 2).await.into_iter();
        let of_these = listed.filter(|id| [delivered, dead, pending].contains(id));
        assert_eq!(of_these.collect::<Vec<_>>(), expected);
    };
    fixture.pass_almost(MESSAGE_TTL).await;
    all(&[delivered, dead, pending]).await;
    fixture.pass_the_rest().await;
    all(&[dead, pending]).await;
    fixture.pass_almost(DEAD_TTL.checked_sub(MESSAGE_TTL).unwrap()).await;
    all(&[dead, pending]).await;
    fixture.pass_the_rest().await;
    all(&[pending]).await;
    fixture.pass(Duration::from_hours(30 * 24)).await;
    all(&[pending]).await;
    // The conversation is long forgotten; its order continues.
    owner.take_up().await;
    let later = say(&mut owner, "https://legacy.example/hook/3").await;
    let taken = worker.take(pending, 1).await;
    assert_eq!((taken.made, taken.step, &*taken.delivery.target), (1, 1, "https://legacy.example/hook/3"));
    worker.finish(&taken, RetryDecision::Delivered).await;
    worker.attempt(later, RetryDecision::Delivered).await;
    // The lifetime counts from the end, not from the beginning.
    fixture.pass_almost(MESSAGE_TTL).await;
    all(&[pending]).await;
    fixture.pass_the_rest().await;
    all(&[]).await;
}

pub(super) async fn deliveries_leave_nothing_behind(fixture: StoreFixture) {
    let (alice, bob) = neighbours();
    for conversation in [&alice, &bob] {
        let mut owner = fixture.own(conversation).await;
        let [(delivered, _), (dead, _), (pending, worker)] = of_each_state(&mut owner).await;
        fixture.pass(LEASE).await;
        worker.attempt(pending, dead_letter()).await;
        for id in [delivered, dead, pending] {
            for decision in [RetryDecision::Again, RetryDecision::Delivered] {
                assert_eq!(fixture.store.redeliver(id).await.unwrap(), RedeliverResult::Queued);
                DeliveryWorker::alone(&owner, id).attempt(id, decision).await;
            }
        }
        assert_eq!(fixture.store.redeliver(dead).await.unwrap(), RedeliverResult::Queued);
        DeliveryWorker::alone(&owner, dead).attempt(dead, dead_letter()).await;
    }
    let life = DEAD_TTL + Duration::from_hours(24);
    match (&fixture.store, fixture.redis()) {
        (Store::Memory(memory), _) => {
            let stats = memory.stats();
            assert_eq!((stats.pending, stats.settled), (0, 6));
            for _ in 0..2 {
                fixture.pass(life).await;
                while memory.sweep(1) > 0 {}
            }
            assert_eq!(memory.stats(), MemoryStats::default());
        }
        (_, Some((servers, prefix))) => {
            fixture.rest().await;
            nothing_left(&servers.masters().await, prefix, life).await;
        }
        _ => panic!("neither memory nor Redis"),
    }
}
