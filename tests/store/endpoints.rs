//! Sentences about endpoints: their shared state, their backlog, and the end of what waits for them.

use std::time::Duration;

use rtm_bridge::domain::{
    BotName, DeliveryOrigin, DeliveryState, EndpointId, EndpointReport, EndpointState, NewDelivery, Timestamp,
};
use rtm_bridge::store::{BeginResult, ConversationChange, QueueId, RedeliverResult, RetryDecision};

use super::delivery_worker::{
    DeliveryWorker, HOOK, RETRY, WINDOW, dead_letter, delivery, end, retry, say, stands,
};
use super::store_fixture::{Owner, StoreFixture, conversation};

fn id(owner: &Owner<'_>, name: &str) -> EndpointId {
    EndpointId { bot: owner.conversation.bot().clone(), name: name.into() }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_763_845_000_000 + millis)
}

pub(super) async fn endpoint_state_is_shared_and_merged(fixture: StoreFixture) {
    let store = &fixture.store;
    assert!(store.endpoint_states().await.unwrap().is_empty());
    let [crm, audit] =
        ["crm", "audit.1"].map(|name| EndpointId { bot: BotName::sandbox(), name: name.into() });
    // Reports of replicas come in any order, and a repeat changes nothing.
    let mut reports = Vec::new();
    for (success, failures) in
        [(None, &[5, 9][..]), (Some(7), &[]), (Some(3), &[8, 12]), (None, &[6]), (Some(1), &[])]
    {
        let mut report = EndpointReport::default();
        if let Some(success) = success {
            report.add_success(at(success));
        }
        for failure in failures {
            report.add_failure(at(*failure), format!("\"Zoë\" {failure}\n").into());
        }
        reports.push(report);
    }
    let mut expected = EndpointState::default();
    for report in &reports {
        for _ in 0..2 {
            expected.record(report);
            store.report_endpoint(&crm, report).await.unwrap();
            assert_eq!(store.endpoint_states().await.unwrap().get(&crm), Some(&expected), "{report:?}");
        }
    }
    assert_eq!((expected.failing_since, expected.last_success_at), (Some(at(8)), Some(at(7))));
    let mut report = EndpointReport::default();
    report.add_success(at(20));
    store.report_endpoint(&audit, &report).await.unwrap();
    let states = store.endpoint_states().await.unwrap();
    assert_eq!((states.len(), states[&audit].last_success_at), (2, Some(at(20))));
    assert_eq!(states[&crm], expected);
}

pub(super) async fn endpoint_is_switched_off_and_on(fixture: StoreFixture) {
    let owner = fixture.own(&conversation("alice")).await;
    let (store, crm) = (&fixture.store, id(&owner, "crm"));
    assert!(!store.switch_endpoint_on(&crm).await.unwrap(), "it is on");
    let mut report = EndpointReport::default();
    report.add_failure(at(1), "away".into());
    store.report_endpoint(&crm, &report).await.unwrap();
    let before = owner.now().await;
    assert!(store.switch_endpoint_off(&crm, "it said: \"no\"").await.unwrap());
    let after = owner.now().await;
    fixture.pass(Duration::from_secs(1)).await;
    assert!(!store.switch_endpoint_off(&crm, "another reason").await.unwrap(), "the first one stays");
    let state = store.endpoint_states().await.unwrap()[&crm].clone();
    let off = state.off.unwrap();
    assert!(before <= off.since && off.since <= after);
    assert_eq!((&*off.reason, state.failing_since), ("it said: \"no\"", Some(at(1))));
    assert!(store.switch_endpoint_on(&crm).await.unwrap());
    let state = store.endpoint_states().await.unwrap()[&crm].clone();
    assert_eq!((state.off, state.failing_since, state.last_failure_at), (None, None, Some(at(1))));
}

/// Writes a delivery to this endpoint.
async fn say_to(owner: &mut Owner<'_>, name: &str) -> NewDelivery {
    let at = owner.now().await;
    let reply = owner.reply(at, None, "hello");
    let of_entry = delivery(owner, at, HOOK);
    let origin = DeliveryOrigin::Endpoint(name.into());
    let new = NewDelivery { id: of_entry.id.at_endpoint(name), origin, ..of_entry };
    owner.write(vec![reply, ConversationChange::Deliver(Box::new(new.clone()))]).await.unwrap();
    new
}

fn worker<'a>(owner: &Owner<'a>, name: &str) -> DeliveryWorker<'a> {
    let queue = QueueId::of(&owner.conversation, Some(name), HOOK);
    DeliveryWorker { queue, ..DeliveryWorker::of(owner, HOOK) }
}

pub(super) async fn backlog_counts_pending_deliveries_by_endpoint(fixture: StoreFixture) {
    let (mut of_alice, mut of_bob) =
        (fixture.own(&conversation("alice")).await, fixture.own(&conversation("bob")).await);
    assert!(fixture.store.endpoint_backlogs().await.unwrap().is_empty());
    let first = say_to(&mut of_alice, "crm").await;
    for _ in 0..2 {
        say_to(&mut of_alice, "crm").await;
        say_to(&mut of_bob, "crm").await;
        say_to(&mut of_bob, "audit").await;
    }
    let (crm, audit) = (id(&of_alice, "crm"), id(&of_alice, "audit"));
    let backlog = async || {
        let backlogs = fixture.store.endpoint_backlogs().await.unwrap();
        [&crm, &audit].map(|id| backlogs.get(id).copied().unwrap_or_default())
    };
    assert_eq!(backlog().await, [5, 2]);
    worker(&of_alice, "crm").attempt(first.id, dead_letter()).await;
    assert_eq!(backlog().await, [4, 2]);
    assert_eq!(fixture.store.redeliver(first.id).await.unwrap(), RedeliverResult::Queued);
    assert_eq!(backlog().await, [5, 2], "a redelivered one waits too");
    DeliveryWorker::alone(&of_alice, first.id).attempt(first.id, RetryDecision::Delivered).await;
    assert_eq!(backlog().await, [4, 2]);
}

pub(super) async fn early_begin_takes_a_retry_but_no_attempt_in_flight(fixture: StoreFixture) {
    let mut owner = fixture.own(&conversation("alice")).await;
    let id = say(&mut owner, HOOK).await;
    let worker = DeliveryWorker::of(&owner, HOOK);
    let early = async |token: u64| {
        let DeliveryWorker { store, partition, fence, queue } = &worker;
        store.begin_early(*partition, *fence, *queue, token, WINDOW).await.unwrap()
    };
    let taken = worker.take(id, 1).await;
    assert!(matches!(early(2).await, BeginResult::Later(_)), "an attempt is in flight");
    worker.finish(&taken, retry()).await;
    worker.later(3).await;
    let BeginResult::Taken(taken) = early(4).await else { panic!("it waits for a retry") };
    assert_eq!((taken.delivery.id, taken.made, taken.step), (id, 1, 1));
    assert!(matches!(early(5).await, BeginResult::Later(_)));
    worker.finish(&taken, dead_letter()).await;
    assert_eq!(stands(&fixture, id).await.state, DeliveryState::Dead);
    assert!(matches!(early(6).await, BeginResult::Empty));
    fixture.pass(RETRY).await;
    assert!(matches!(early(7).await, BeginResult::Empty));
}

pub(super) async fn dead_letter_is_written_with_its_reports(fixture: StoreFixture) {
    let mut owner = fixture.own(&conversation("alice")).await;
    let dead = say_to(&mut owner, "crm").await;
    let of_crm = worker(&owner, "crm");
    let taken = of_crm.take(dead.id, 1).await;
    let report = |name: &str| NewDelivery {
        id: dead.id.of_report(name, taken.now),
        origin: DeliveryOrigin::Endpoint(name.into()),
        created_at: taken.now,
        ..dead.clone()
    };
    let mut finish = end(&taken, dead_letter());
    finish.reports = vec![report("ops"), report("audit")];
    for _ in 0..2 {
        fixture.store.finish(of_crm.partition, of_crm.fence, of_crm.queue, &finish).await.unwrap();
    }
    assert_eq!(stands(&fixture, dead.id).await.state, DeliveryState::Dead);
    for name in ["ops", "audit"] {
        let expected = report(name);
        let standing = stands(&fixture, expected.id).await;
        assert_eq!(format!("{:?}", standing.new), format!("{expected:?}"));
        assert_eq!(standing.state, DeliveryState::Pending);
        worker(&owner, name).attempt(expected.id, RetryDecision::Delivered).await;
        assert!(matches!(worker(&owner, name).begin(9).await, BeginResult::Empty), "it is written once");
    }
}

pub(super) async fn queue_of_an_endpoint_is_read_with_its_name(fixture: StoreFixture) {
    let mut owner = fixture.own(&conversation("alice")).await;
    say_to(&mut owner, "crm").await;
    let at = owner.now().await;
    let reply = owner.reply(at, None, "hello");
    let origin = DeliveryOrigin::Callback { signer: Some("crm".into()) };
    let callback = NewDelivery { origin, ..delivery(&owner, at, HOOK) };
    owner.write(vec![reply, ConversationChange::Deliver(Box::new(callback))]).await.unwrap();
    let queues = worker(&owner, "crm").outbox().await;
    for (queue, expected) in [
        (QueueId::of(&owner.conversation, Some("crm"), HOOK), Some(id(&owner, "crm"))),
        (QueueId::of(&owner.conversation, None, HOOK), None),
    ] {
        let found = queues.iter().find(|waiting| waiting.queue == queue).unwrap();
        assert_eq!(found.endpoint, expected);
    }
}
