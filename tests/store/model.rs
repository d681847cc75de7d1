//! The store against a simple model of it: one conversation, lists, no expiry queues.

use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rtm_bridge::domain::{EntryBody, MessageId, Partition, ReadStart, Timestamp};
use rtm_bridge::store::{
    AcceptError, AcceptResult, ClaimMode, ConversationChange, ConversationWrite, Fence, Incarnation,
    StoreError,
};

use tokio::runtime::Runtime;

use self::deliveries::ModelDeliveries;
use super::store_fixture::{
    LEASE, MESSAGE_TTL, Owner, StoreFixture, accept, alone, conversation, id, with_key,
};

mod deliveries;

const MAX_OPEN: usize = 3;
/// The numbers stay far from the times of leases and messages. On Redis the clock runs on, and a case may take
/// seconds on a busy machine.
const SPAN: Duration = Duration::from_secs(70);

#[derive(Debug, Clone)]
enum ModelStep {
    Accept {
        number: u128,
        key: Option<u8>,
        body: u8,
    },
    Reply {
        number: u128,
    },
    Acked {
        number: u128,
    },
    End {
        number: u128,
    },
    RepeatLastWrite,
    Claim {
        incarnation: Incarnation,
    },
    Release,
    Pass {
        span: Duration,
    },
    /// Generates a step with deliveries.
    Outbox(deliveries::DeliveryStep),
}

fn step() -> impl Strategy<Value = ModelStep> {
    let number = 0..12_u128;
    prop_oneof![
        5 => (number.clone(), prop::option::of(0..3_u8), 0..2_u8)
            .prop_map(|(number, key, body)| ModelStep::Accept { number, key, body }),
        2 => number.clone().prop_map(|number| ModelStep::Reply { number }),
        1 => number.clone().prop_map(|number| ModelStep::Acked { number }),
        4 => number.prop_map(|number| ModelStep::End { number }),
        1 => Just(ModelStep::RepeatLastWrite),
        1 => (1..3_u64).prop_map(|number| ModelStep::Claim { incarnation: Incarnation(number) }),
        1 => Just(ModelStep::Release),
        2 => (0..4_u32).prop_map(|spans| ModelStep::Pass { span: SPAN * spans }),
    ]
}

/// Generates steps, some with deliveries.
fn delivering() -> impl Strategy<Value = ModelStep> {
    prop_oneof![1 => step(), 2 => deliveries::step().prop_map(ModelStep::Outbox)]
}

#[derive(Debug, Clone)]
struct ModelMessage {
    number: u128,
    key: Option<(u8, u8)>,
    client_message_id: u64,
    position: u64,
    acked_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    replies: Vec<u64>,
}

#[derive(Default)]
struct Model {
    told: Vec<ModelMessage>,
    /// Places, and whether each entry is an end.
    journal: Vec<(u64, bool)>,
    head_at: Option<Timestamp>,
    owner: Option<(Fence, Timestamp)>,
    write: u64,
    accepted: u64,
    last_client_message_id: u64,
    deliveries: ModelDeliveries,
}

impl Model {
    fn expire(&mut self, now: Timestamp) {
        self.told.retain(|told| told.ended_at.is_none_or(|at| now < at + MESSAGE_TTL));
    }

    fn lane(&self) -> impl Iterator<Item = &ModelMessage> {
        self.told.iter().filter(|told| told.ended_at.is_none())
    }

    fn find(&mut self, number: u128) -> Option<&mut ModelMessage> {
        self.told.iter_mut().find(|told| told.number == number)
    }
}

#[derive(Debug, PartialEq)]
enum AcceptAnswer {
    New(u64, u64),
    Replayed(MessageId),
    Refused(AcceptError),
}

fn model_accept(model: &mut Model, now: Timestamp, number: u128, key: Option<(u8, u8)>) -> AcceptAnswer {
    if let Some(told) = model.find(number) {
        return AcceptAnswer::New(told.position, told.client_message_id);
    }
    let by_key = key.and_then(|(key, body)| {
        let told = model.told.iter().find(|told| told.key.is_some_and(|(own, _)| own == key))?;
        Some((told.number, told.key == Some((key, body))))
    });
    match by_key {
        Some((number, true)) => return AcceptAnswer::Replayed(id(number)),
        Some((_, false)) => return AcceptAnswer::Refused(AcceptError::IdempotencyMismatch),
        None if model.lane().count() >= MAX_OPEN => {
            return AcceptAnswer::Refused(AcceptError::LaneFull(MAX_OPEN));
        }
        None => {}
    }
    if model.lane().next().is_none() {
        model.head_at = Some(now);
    }
    let client_message_id = now.as_millis().max(model.last_client_message_id + 1);
    let position = model.accepted;
    model.accepted += 1;
    model.last_client_message_id = client_message_id;
    let (acked_at, ended_at, replies) = (None, None, Vec::new());
    model.told.push(ModelMessage { number, key, client_message_id, position, acked_at, ended_at, replies });
    AcceptAnswer::New(position, client_message_id)
}

fn model_write(model: &mut Model, now: Timestamp, step: &ModelStep, seq: u64) {
    match step {
        ModelStep::Reply { number } => {
            if let Some(told) = model.find(*number) {
                told.replies.push(seq);
            }
            model.journal.push((seq, false));
        }
        ModelStep::Acked { number } => {
            if let Some(told) = model.find(*number).filter(|told| told.ended_at.is_none()) {
                told.acked_at.get_or_insert(now);
            }
        }
        ModelStep::End { number } => {
            let head = model.lane().next().map(|told| told.number);
            if let Some(told) = model.find(*number).filter(|told| told.ended_at.is_none()) {
                told.ended_at = Some(now);
                model.journal.push((seq, true));
                if model.lane().next().is_none() {
                    model.head_at = None;
                } else if head == Some(*number) {
                    model.head_at = Some(now);
                }
            }
        }
        _ => unreachable!("not a write"),
    }
}

async fn agree(fixture: &StoreFixture, steps: Vec<ModelStep>) {
    let alice = conversation("alice");
    let partition = Partition::of(&alice);
    let mut model = Model::default();
    let mut owner = fixture.own(&alice).await;
    model.owner = Some((owner.fence, owner.now().await + LEASE));
    let mut last_write: Option<ConversationWrite> = None;
    for step in steps {
        let now = owner.now().await;
        model.expire(now);
        match step {
            ModelStep::Accept { number, key, body } => {
                let mut wish = accept(&alice, number);
                wish.max_open = MAX_OPEN;
                if let Some(key) = key {
                    wish = with_key(wish, "shop", &key.to_string(), body);
                }
                // Its time is the store's.
                let mut at = now;
                let answer = match fixture.store.accept(wish).await {
                    Ok(AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted)) => {
                        at = at.max(accepted.accepted_at);
                        AcceptAnswer::New(accepted.position, accepted.client_message_id)
                    }
                    Ok(AcceptResult::Replayed(message)) => AcceptAnswer::Replayed(message.accepted.id),
                    Err(refused) => AcceptAnswer::Refused(refused),
                };
                assert_eq!(answer, model_accept(&mut model, at, number, key.map(|key| (key, body))));
            }
            ModelStep::Reply { number } | ModelStep::Acked { number } | ModelStep::End { number } => {
                let before = owner.record.clone();
                let change = match step {
                    ModelStep::Reply { .. } => owner.reply(now, Some(id(number)), "hello"),
                    ModelStep::Acked { .. } => ConversationChange::Acked { message: id(number), at: now },
                    _ => owner.end(now, id(number)),
                };
                let changes = vec![change];
                let done = owner.write(changes.clone()).await;
                if model.owner.is_some_and(|(fence, _)| fence == owner.fence) {
                    assert!(now <= done.unwrap().now);
                    model.write += 1;
                    last_write = Some(owner.last(changes));
                    model_write(&mut model, now, &step, owner.record.seq);
                } else {
                    assert_eq!(done, Err(StoreError::Fenced));
                    owner.record = before;
                }
            }
            ModelStep::RepeatLastWrite => {
                if let Some(write) = &last_write
                    && model.owner.is_some_and(|(fence, _)| fence == owner.fence)
                {
                    let done = fixture.store.write(owner.fence, &alice, write).await;
                    assert!(now <= done.unwrap().now);
                }
            }
            ModelStep::Claim { incarnation } => {
                let claimed = fixture
                    .store
                    .claim(partition, incarnation, LEASE, ClaimMode::Expired)
                    .await
                    .unwrap()
                    .fence();
                let free =
                    model.owner.is_none_or(|(fence, until)| fence.incarnation == incarnation || until <= now);
                assert_eq!(claimed.is_some(), free);
                if let Some(fence) = claimed {
                    assert!(fence.epoch > owner.fence.epoch && fence.epoch >= now.as_millis());
                    model.owner = Some((fence, now + LEASE));
                    // Half of the claims are by another owner, and ours continues without knowing.
                    if incarnation == super::store_fixture::ME {
                        owner.fence = fence;
                    }
                }
            }
            ModelStep::Release => {
                let released = fixture.store.release(partition, owner.fence).await;
                let ours = model.owner.is_some_and(|(fence, _)| fence == owner.fence);
                assert_eq!(released.is_ok(), ours);
                if ours {
                    model.owner = None;
                }
            }
            ModelStep::Pass { span } => fixture.pass(span).await,
            ModelStep::Outbox(deliveries::DeliveryStep::Write { target }) => {
                last_write = tell(&mut model, &mut owner, target, now).await.or(last_write);
            }
            ModelStep::Outbox(step) => {
                let ours = model.owner.is_some_and(|(fence, _)| fence == owner.fence);
                model.deliveries.take(fixture, &owner, &step, ours).await;
            }
        }
        model.expire(owner.now().await);
        compare(fixture, &model).await;
        let fence = model.owner.map(|(fence, _)| fence);
        model.deliveries.compare(&owner, fence).await;
    }
}

/// Writes a reply and its delivery. Returns the write if it was carried out.
async fn tell(
    model: &mut Model,
    owner: &mut Owner<'_>,
    target: usize,
    now: Timestamp,
) -> Option<ConversationWrite> {
    let before = owner.record.clone();
    let changes = model.deliveries.write(owner, now, target);
    let done = owner.write(changes.clone()).await;
    if model.owner.is_some_and(|(fence, _)| fence == owner.fence) {
        model.write += 1;
        model.journal.push((owner.record.seq, false));
        model.deliveries.written(target, now, done.unwrap().now);
        return Some(owner.last(changes));
    }
    assert_eq!(done, Err(StoreError::Fenced));
    model.deliveries.refused();
    owner.record = before;
    None
}

async fn compare(fixture: &StoreFixture, model: &Model) {
    let alice = conversation("alice");
    let all = (0..12).map(|number| fixture.store.message(&alice, id(number), None));
    for (number, stored) in (0..12).zip(join_all(all).await) {
        let stored = stored.unwrap();
        let told = model.told.iter().find(|told| told.number == number);
        assert_eq!(stored.is_some(), told.is_some(), "message {number}");
        if let (Some(stored), Some(told)) = (stored, told) {
            assert_eq!(stored.accepted.client_message_id, told.client_message_id);
            assert_eq!(stored.progress.acked_at, told.acked_at);
            assert_eq!(stored.progress.ended_at, told.ended_at);
            assert_eq!(stored.progress.has_ended(), told.ended_at.is_some());
            let replies: Vec<u64> = stored.progress.replies.iter().map(|reply| reply.seq).collect();
            assert_eq!(replies, told.replies);
        }
    }
    compare_pages(fixture, model).await;
    if let Some((fence, _)) = model.owner {
        let (open, _) = fixture.store.open(fence, &alice).await.unwrap();
        let lane: Vec<MessageId> = open.lane.iter().map(|open| open.accepted.id).collect();
        assert_eq!(lane, model.lane().map(|told| id(told.number)).collect::<Vec<_>>());
        assert_eq!((open.head_at, open.next_position), (model.head_at, model.accepted));
        assert_eq!(open.record.write, model.write);
        let ready = fixture.store.ready(Partition::of(&alice), fence, false).await.unwrap();
        assert_eq!(ready.is_empty(), lane.is_empty());
    }
}

/// Checks that a reader of the pages gets the whole journal, and each end with its message.
async fn compare_pages(fixture: &StoreFixture, model: &Model) {
    let (mut after, mut read) = (ReadStart::Oldest, Vec::new());
    for limit in [1, 2, 3, 1000].into_iter().cycle() {
        let page = fixture.store.page(&conversation("alice"), after, limit, None).await.unwrap();
        let last = read.last().map_or(0, |(seq, _)| *seq);
        // Places of skipped changes stay empty.
        let first = page.entries.first().map(|told| told.entry.seq);
        assert_eq!(page.gap, !read.is_empty() && first.is_some_and(|first| first > last + 1));
        for told in page.entries {
            let ended = match told.entry.body {
                EntryBody::Ended { message, .. } | EntryBody::Closed { message, .. } => Some(message),
                _ => None,
            };
            let kept = model.told.iter().any(|told| Some(id(told.number)) == ended);
            assert_eq!(told.message.map(|message| message.accepted.id), ended.filter(|_| kept));
            read.push((told.entry.seq, ended.is_some()));
        }
        after = ReadStart::Cursor(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(read, model.journal);
}

/// Runs that many cases to find steps on which store and model disagree.
fn agree_in(
    cases: u32,
    runtime: &Runtime,
    step: impl Strategy<Value = ModelStep>,
    fixture: impl Fn() -> StoreFixture,
) {
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    let agreed = TestRunner::new(config).run(&prop::collection::vec(step, 1..80), |steps| {
        runtime.block_on(agree(&fixture(), steps));
        Ok(())
    });
    if let Err(disagreement) = agreed {
        panic!("{disagreement}");
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn memory_agrees_with_the_model() {
    agree_in(256, &runtime(), step(), StoreFixture::memory);
    agree_in(256, &runtime(), delivering(), StoreFixture::memory);
}

#[test]
fn redis_agrees_with_the_model() {
    let runtime = runtime();
    let servers = runtime.block_on(alone());
    agree_in(24, &runtime, step(), || StoreFixture::on(&servers));
    agree_in(24, &runtime, delivering(), || StoreFixture::on(&servers));
}
