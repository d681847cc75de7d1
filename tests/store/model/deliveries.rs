//! The deliveries of the model: a list, and for each the queue it stands in.

use std::time::Duration;

use proptest::prelude::*;
use rtm_bridge::domain::{DeliveryId, DeliveryState, Partition, Timestamp};
use rtm_bridge::store::{
    ATTEMPTS, BeginResult, ClaimedDelivery, ConversationChange, DEAD_TTL, DeliveryQuery, Fence, QueueId,
    RedeliverResult, RetryDecision, StoreError,
};

use crate::store::delivery_worker::{self, DeliveryWorker, HOOK, OTHER_HOOK, delivery};
use crate::store::store_fixture::{MESSAGE_TTL, Owner, StoreFixture};

/// No sum of spans comes near it.
const RETRY: Duration = Duration::from_secs(105);
/// No sum of spans comes near this either.
const WINDOW: Duration = Duration::from_secs(175);
const TARGETS: [&str; 2] = [HOOK, OTHER_HOOK];

/// A step with deliveries. Numbers count from the first one. A number that is too high does nothing.
#[derive(Debug, Clone)]
pub(super) enum DeliveryStep {
    Write {
        target: usize,
    },
    Begin {
        queue: ModelQueue,
        token: u64,
    },
    /// An attempt that was begun at some time.
    Finish {
        begun: usize,
        decision: RetryDecision,
    },
    Redeliver {
        number: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ModelQueue {
    Of(usize),
    Alone(usize),
}

pub(super) fn step() -> impl Strategy<Value = DeliveryStep> {
    let queue = prop_oneof![3 => (0..2_usize).prop_map(ModelQueue::Of), 1 => (0..6_usize).prop_map(ModelQueue::Alone)];
    let decision = prop_oneof![
        3 => Just(RetryDecision::Delivered),
        2 => Just(RetryDecision::Retry(RETRY)),
        1 => Just(RetryDecision::Again),
        1 => Just(RetryDecision::DeadLetter("enough".into())),
    ];
    prop_oneof![
        3 => (0..2_usize).prop_map(|target| DeliveryStep::Write { target }),
        5 => (queue, 0..3_u64).prop_map(|(queue, token)| DeliveryStep::Begin { queue, token }),
        4 => (0..4_usize, decision).prop_map(|(begun, decision)| DeliveryStep::Finish { begun, decision }),
        2 => (0..6_usize).prop_map(|number| DeliveryStep::Redeliver { number }),
    ]
}

#[derive(Debug)]
struct ModelDelivery {
    id: DeliveryId,
    number: usize,
    state: DeliveryState,
    /// The place in its queue while it is pending.
    queue: ModelQueue,
    place: usize,
    due: Timestamp,
    token: Option<u64>,
    since: Timestamp,
    made: u32,
    step: u32,
    expires_at: Option<Timestamp>,
}

#[derive(Default)]
pub(super) struct ModelDeliveries {
    ids: Vec<DeliveryId>,
    told: Vec<ModelDelivery>,
    /// The begun attempts, newest first.
    begun: Vec<(ModelQueue, ClaimedDelivery)>,
    places: usize,
}

impl ModelDeliveries {
    fn expire(&mut self, now: Timestamp) {
        self.told.retain(|told| told.expires_at.is_none_or(|at| now < at));
    }

    fn first(&mut self, queue: ModelQueue) -> Option<&mut ModelDelivery> {
        let pending = |told: &&mut ModelDelivery| told.state == DeliveryState::Pending && told.queue == queue;
        self.told.iter_mut().filter(pending).min_by_key(|told| told.place)
    }

    fn name(&self, owner: &Owner<'_>, queue: ModelQueue) -> Option<QueueId> {
        match queue {
            ModelQueue::Of(target) => Some(QueueId::of(&owner.conversation, Some("main"), TARGETS[target])),
            ModelQueue::Alone(number) => self.ids.get(number).map(|id| QueueId::alone(*id)),
        }
    }

    /// Returns the changes that write a delivery.
    pub(super) fn write(
        &mut self,
        owner: &mut Owner<'_>,
        at: Timestamp,
        target: usize,
    ) -> Vec<ConversationChange> {
        let reply = owner.reply(at, None, "hello");
        let new = delivery(owner, at, TARGETS[target]);
        self.ids.push(new.id);
        vec![reply, ConversationChange::Deliver(Box::new(new))]
    }

    /// Notes that the last write was refused.
    pub(super) fn refused(&mut self) {
        self.ids.pop();
    }

    /// Notes that the last write was carried out.
    pub(super) fn written(&mut self, target: usize, at: Timestamp, now: Timestamp) {
        let number = self.ids.len() - 1;
        self.places += 1;
        self.told.push(ModelDelivery {
            id: self.ids[number],
            number,
            state: DeliveryState::Pending,
            queue: ModelQueue::Of(target),
            place: self.places,
            due: now,
            token: None,
            since: at,
            made: 0,
            step: 0,
            expires_at: None,
        });
    }

    /// Takes a step that is no write. `ours` says whether the owner's fence is valid.
    pub(super) async fn take(
        &mut self,
        fixture: &StoreFixture,
        owner: &Owner<'_>,
        step: &DeliveryStep,
        ours: bool,
    ) {
        match step {
            DeliveryStep::Write { .. } => unreachable!("a write"),
            DeliveryStep::Begin { queue, token } => self.begin(owner, *queue, *token, ours).await,
            DeliveryStep::Finish { begun, decision } => self.finish(owner, *begun, decision, ours).await,
            DeliveryStep::Redeliver { number } => self.redeliver(fixture, owner, *number).await,
        }
    }

    async fn begin(&mut self, owner: &Owner<'_>, queue: ModelQueue, token: u64, ours: bool) {
        let Some(name) = self.name(owner, queue) else { return };
        let partition = Partition::of(&owner.conversation);
        let before = owner.now().await;
        let begun = owner.store.begin(partition, owner.fence, name, token, WINDOW).await;
        if !ours {
            assert_eq!(begun.unwrap_err(), StoreError::Fenced);
            return;
        }
        match (begun.unwrap(), self.first(queue)) {
            (BeginResult::Empty, None) => {}
            (BeginResult::Later(until), Some(told)) => {
                assert_eq!(until, told.due);
                assert!(before < until && told.token != Some(token));
            }
            (BeginResult::Taken(begun), Some(told)) => {
                assert!(told.due <= begun.now || told.token == Some(token), "{told:?}");
                assert!(before <= begun.now);
                assert_eq!((begun.delivery.id, begun.made, begun.step), (told.id, told.made, told.step));
                assert!(same(begun.since, told.since), "{:?} and {told:?}", begun.since);
                (told.due, told.token) = (begun.now + WINDOW, Some(token));
                self.begun.insert(0, (queue, *begun));
            }
            (begun, told) => panic!("{begun:?} and {told:?}"),
        }
    }

    async fn finish(&mut self, owner: &Owner<'_>, begun: usize, decision: &RetryDecision, ours: bool) {
        let Some((queue, taken)) = self.begun.get(begun).cloned() else { return };
        let (Some(name), partition) = (self.name(owner, queue), Partition::of(&owner.conversation)) else {
            return;
        };
        let finish = delivery_worker::end(&taken, decision.clone());
        let finished = owner.store.finish(partition, owner.fence, name, &finish).await;
        if !ours {
            assert_eq!(finished, Err(StoreError::Fenced));
            return;
        }
        let finished = finished.unwrap();
        let now = finished.now;
        if let Some(told) = self.first(queue)
            && (told.id, told.token) == (taken.delivery.id, Some(taken.token))
        {
            told.made += 1;
            (told.due, told.token) = (now, None);
            match decision {
                RetryDecision::Again => {}
                RetryDecision::Retry(wait) => {
                    told.due = now + *wait;
                    told.step += 1;
                }
                RetryDecision::Delivered => {
                    (told.state, told.expires_at) = (DeliveryState::Delivered, Some(now + MESSAGE_TTL));
                }
                RetryDecision::DeadLetter(_) => {
                    (told.state, told.expires_at) = (DeliveryState::Dead, Some(now + DEAD_TTL));
                }
            }
        }
        let due = self.first(queue).map(|told| told.due);
        assert_eq!(due.is_some(), finished.next.is_some());
        if let (Some(due), Some(next)) = (due, finished.next) {
            assert_eq!(due.max(now), next.max(now), "due at once, or at its time");
        }
    }

    async fn redeliver(&mut self, fixture: &StoreFixture, owner: &Owner<'_>, number: usize) {
        let Some(id) = self.ids.get(number).copied() else { return };
        let now = owner.now().await;
        self.expire(now);
        let expected = match self.told.iter().find(|told| told.id == id) {
            None => RedeliverResult::Unknown,
            Some(told) if told.token.is_some() && now < told.due => RedeliverResult::InFlight,
            Some(_) => RedeliverResult::Queued,
        };
        assert_eq!(fixture.store.redeliver(id).await.unwrap(), expected);
        if expected != RedeliverResult::Queued {
            return;
        }
        self.places += 1;
        let place = self.places;
        for told in self.told.iter_mut().filter(|told| told.id == id) {
            (told.queue, told.place, told.state) = (ModelQueue::Alone(number), place, DeliveryState::Pending);
            (told.due, told.since, told.step) = (now, now, 0);
            (told.token, told.expires_at) = (None, None);
        }
    }

    /// Checks that everything readable equals the model.
    pub(super) async fn compare(&mut self, owner: &Owner<'_>, fence: Option<Fence>) {
        let now = owner.now().await;
        self.expire(now);
        for number in 0..self.ids.len() {
            let stored = owner.store.delivery(self.ids[number]).await.unwrap();
            let Some(place) = self.told.iter().position(|told| told.number == number) else {
                assert!(stored.is_none(), "{stored:?}");
                continue;
            };
            let stored = stored.expect("it is kept");
            let (state, queue, id) = (self.told[place].state, self.told[place].queue, self.told[place].id);
            let made = self.told[place].made as usize;
            assert_eq!((stored.state, stored.attempts.len()), (state, made.min(ATTEMPTS)));
            let first =
                state == DeliveryState::Pending && self.first(queue).is_some_and(|first| first.id == id);
            assert_eq!(stored.next_attempt_at.is_some(), first, "{stored:?}");
            if let Some(next) = stored.next_attempt_at {
                assert!(due(next, self.told[place].due, now), "{next:?} and {:?}", self.told[place]);
            }
        }
        let mut expected: Vec<_> = self.told.iter().map(|told| told.id).collect();
        expected.sort_unstable_by(|one, other| other.cmp(one));
        let query = DeliveryQuery {
            bots: Some(vec![owner.conversation.bot().clone()]),
            user: Some(owner.conversation.user().clone()),
            limit: 1000,
            ..DeliveryQuery::default()
        };
        let listed = owner.store.deliveries(&query).await.unwrap().deliveries;
        assert_eq!(listed.iter().map(|listed| listed.new.id).collect::<Vec<_>>(), expected);
        if let Some(fence) = fence {
            self.compare_outbox(&DeliveryWorker { fence, ..DeliveryWorker::of(owner, HOOK) }, owner, now)
                .await;
        }
    }

    async fn compare_outbox(&mut self, worker: &DeliveryWorker<'_>, owner: &Owner<'_>, now: Timestamp) {
        let waiting = worker.outbox().await;
        let queues = (0..2).map(ModelQueue::Of).chain((0..self.ids.len()).map(ModelQueue::Alone));
        let mut known = 0;
        for queue in queues {
            let name = self.name(owner, queue).unwrap();
            let waits = waiting.iter().find(|waiting| waiting.queue == name);
            assert_eq!(waits.is_some(), self.first(queue).is_some(), "{queue:?}");
            if let (Some(waits), Some(first)) = (waits, self.first(queue)) {
                known += 1;
                assert!(due(waits.due, first.due, now), "{waits:?} and {first:?}");
            }
        }
        assert_eq!(waiting.len(), known);
    }
}

/// Returns whether a time fits the model's, which the store does not report. Redis' clock runs on.
fn same(stored: Timestamp, told: Timestamp) -> bool {
    told <= stored && stored < told + Duration::from_secs(20)
}

/// Returns whether both are over, or equal.
fn due(stored: Timestamp, told: Timestamp, now: Timestamp) -> bool {
    stored == told || told <= now && stored < now + Duration::from_secs(20)
}
