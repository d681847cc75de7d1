//! Runs the worker on a memory store. The test scripts the end of each attempt.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::select;

use super::*;
use crate::domain::fixtures::raw_json;
use crate::domain::{
    ConversationId, Delivery, DeliveryAttempt, DeliveryId, DeliveryState, EntryBody, JournalEntry,
    NewDelivery, Partition,
};
use crate::metrics::LabelSets;
use crate::store::{
    ClaimMode, Clock, ConversationChange, ConversationWrite, Fence, Incarnation, ManualClock, MemoryLimits,
    MemoryStore, OutboxEvent, OutboxEventSender, QueueId, outbox_events,
};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::endpoint_board;
use crate::webhook::tests::claimed;

const TARGET: &str = "https://receiver.example/in";

/// The end of an attempt.
#[derive(Clone, Copy)]
enum AttemptScript {
    Ends(u16),
    Hangs,
    Panics,
}

/// A store with one owned partition, and a worker that runs beside the test.
struct WorkerScene {
    store: Arc<MemoryStore>,
    manual_clock: ManualClock,
    conversation: ConversationId,
    fence: Fence,
    events: OutboxEventSender,
    commands: mpsc::Sender<DispatcherCommand>,
    /// The ends of the next attempts. Further attempts succeed.
    scripts: Rc<RefCell<VecDeque<AttemptScript>>>,
    /// The delivery and number of each attempt.
    attempts: Rc<RefCell<Vec<(DeliveryId, u32)>>>,
    metrics: Arc<Metrics>,
    /// Whether the worker may end.
    may_end: Rc<Cell<bool>>,
}

async fn play(script: AttemptScript, claimed: &ClaimedDelivery) -> AttemptResult {
    let (status, outcome) = match script {
        AttemptScript::Ends(200) => (200, AttemptOutcome::Delivered),
        AttemptScript::Ends(410) => (410, AttemptOutcome::Gone),
        AttemptScript::Ends(status) => {
            (status, AttemptOutcome::Refused { retry_after: None, host_failing: true })
        }
        AttemptScript::Hangs => std::future::pending().await,
        AttemptScript::Panics => panic!("on purpose"),
    };
    let duration = Duration::ZERO;
    let attempt =
        DeliveryAttempt { at: claimed.now, status: Some(status), error: None, duration, response: None };
    AttemptResult { attempt, outcome }
}

/// Runs a test beside a worker that owns the partition of the conversation.
async fn beside(scripts: &[AttemptScript], test: impl AsyncFnOnce(&WorkerScene)) {
    let (clock, manual_clock) =
        Clock::manual(claimed(TARGET, crate::domain::DeliveryKind::MessageAnswered, "{}").now);
    let store = MemoryStore::new(MemoryLimits::new(1 << 20, Duration::from_hours(24)), clock);
    let conversation =
        claimed(TARGET, crate::domain::DeliveryKind::MessageAnswered, "{}").delivery.conversation;
    let labels = LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
    let metrics = Arc::new(Metrics::new(labels).unwrap());
    let config = crate::webhook::target_table::tests::config(|endpoint, _| {
        endpoint.disable_after = None;
    });
    let (events, receiver) = outbox_events();
    let (commands, inbox) = mpsc::channel(1);
    let fence = claim(&store, &conversation, 1);
    let scene = WorkerScene {
        store: Arc::clone(&store),
        manual_clock,
        fence,
        events,
        commands,
        conversation,
        scripts: Rc::new(RefCell::new(scripts.iter().copied().collect())),
        attempts: Rc::default(),
        metrics: Arc::clone(&metrics),
        may_end: Rc::default(),
    };
    let (scripts, attempts) = (Rc::clone(&scene.scripts), Rc::clone(&scene.attempts));
    let send = async move |claimed: &ClaimedDelivery| {
        attempts.borrow_mut().push((claimed.delivery.id, claimed.made + 1));
        let next = scripts.borrow_mut().pop_front().unwrap_or(AttemptScript::Ends(200));
        play(next, claimed).await
    };
    let stats = DispatcherStats::new(&config, metrics).unwrap();
    let now = store.now();
    let board = EndpointBoard::new(&config, &store.endpoint_states());
    let worker = DeliveryWorker::new(&config.webhooks, Store::Memory(store), now, stats, board, send);
    scene.events.tell(OutboxEvent::Assigned(scene.partition(), fence)).await;
    let running = async {
        worker.run(receiver, inbox).await;
        assert!(scene.may_end.get(), "the worker ended without a command");
        std::future::pending::<()>().await;
    };
    select! {
        () = running => {}
        () = test(&scene) => {}
    }
}

fn claim(store: &MemoryStore, conversation: &ConversationId, incarnation: u64) -> Fence {
    let partition = Partition::of(conversation);
    let lease = Duration::from_hours(1);
    store.claim(partition, Incarnation(incarnation), lease, ClaimMode::Free).fence().unwrap()
}

impl WorkerScene {
    fn partition(&self) -> Partition {
        Partition::of(&self.conversation)
    }

    fn queue(&self) -> QueueId {
        QueueId::of(&self.conversation, Some("main"), TARGET)
    }

    /// Writes a delivery as the owner does, and notifies the worker.
    async fn deliver(&self) -> DeliveryId {
        self.deliver_to(TARGET).await
    }

    /// As `deliver`, to this target.
    async fn deliver_to(&self, target: &str) -> DeliveryId {
        let (open, now) = self.store.open(self.fence, &self.conversation).unwrap();
        let mut record = open.record;
        let follows = record.write;
        record.number_write(now);
        record.seq += 1;
        let id = DeliveryId::of(&self.conversation, record.epoch, record.seq, now);
        let entry = JournalEntry { seq: record.seq, at: now, body: EntryBody::Platform(raw_json("{}")) };
        let new = claimed(target, crate::domain::DeliveryKind::ReplyUnsolicited, "{}").delivery;
        let new = NewDelivery { id, created_at: now, conversation: self.conversation.clone(), ..new };
        let changes = vec![ConversationChange::Append(entry), ConversationChange::Deliver(Box::new(new))];
        let write = ConversationWrite { record, follows, changes, warm_until: None };
        self.store.write(self.fence, &self.conversation, &write).unwrap();
        let (partition, fence) = (self.partition(), self.fence);
        let queue = QueueId::of(&self.conversation, Some("main"), target);
        self.events.tell(OutboxEvent::Due { partition, fence, queue, target: target.into() }).await;
        id
    }

    fn delivery(&self, id: DeliveryId) -> Delivery {
        self.store.delivery(id).unwrap()
    }

    /// Lets the worker run until the condition holds.
    async fn until(&self, is_so: impl Fn() -> bool) {
        for _ in 0..100_000 {
            if is_so() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the condition never holds");
    }

    /// Advances the clocks of store and runtime.
    async fn pass(&self, span: Duration) {
        self.manual_clock.advance(span);
        tokio::time::advance(span).await;
    }

    async fn release(&self, by: Duration) -> oneshot::Receiver<()> {
        let (done, notified) = oneshot::channel();
        let (partition, fence, by) = (self.partition(), self.fence, Instant::now() + by);
        self.events.tell(OutboxEvent::Revoking { partition, fence, by, done }).await;
        notified
    }
}

#[tokio::test(start_paused = true)]
async fn failed_delivery_is_retried_before_the_next_one() {
    beside(&[AttemptScript::Ends(500), AttemptScript::Ends(200), AttemptScript::Ends(410)], async |scene| {
        let (first, second) = (scene.deliver().await, scene.deliver().await);
        scene.until(|| scene.delivery(first).attempts.len() == 1).await;
        assert_eq!(scene.delivery(first).state, DeliveryState::Pending);
        scene.pass(Duration::from_secs(2)).await;
        scene.until(|| scene.delivery(second).state == DeliveryState::Dead).await;
        assert_eq!(scene.delivery(first).state, DeliveryState::Delivered);
        assert_eq!(*scene.attempts.borrow(), [(first, 1), (first, 2), (second, 1)]);
        assert!(scene.delivery(second).reason.unwrap().contains("410"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn retry_to_an_endpoint_that_is_off_is_dead_lettered_at_once() {
    beside(&[AttemptScript::Ends(500)], async |scene| {
        let (first, second) = (scene.deliver().await, scene.deliver().await);
        scene.until(|| scene.delivery(first).attempts.len() == 1).await;
        let id = scene.delivery(first).new.endpoint_id().unwrap();
        assert!(scene.store.switch_endpoint_off(&id, "an operator switched it off"));
        scene.events.tell(OutboxEvent::EndpointsChanged).await;
        // No time passes: the first delivery does not wait for its retry.
        scene.until(|| scene.delivery(second).state == DeliveryState::Dead).await;
        for id in [first, second] {
            let standing = scene.delivery(id);
            assert_eq!(
                (standing.state, standing.reason.as_deref()),
                (DeliveryState::Dead, Some(endpoint_board::OFF))
            );
            let last = standing.attempts.last().unwrap();
            assert_eq!(last.error.as_deref(), Some("not made: the endpoint is switched off"));
        }
        assert_eq!(*scene.attempts.borrow(), [(first, 1)]);
        assert!(scene.store.switch_endpoint_on(&id));
        scene.events.tell(OutboxEvent::EndpointsChanged).await;
        scene.pass(Duration::from_secs(3)).await;
        for id in [first, second] {
            scene.store.redeliver(id);
        }
        scene.events.tell(OutboxEvent::Redelivered(scene.partition())).await;
        scene.until(|| scene.delivery(first).state == DeliveryState::Delivered).await;
        scene.until(|| scene.delivery(second).state == DeliveryState::Delivered).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn receiver_that_answers_410_gets_no_further_attempt() {
    beside(&[AttemptScript::Ends(410)], async |scene| {
        let first = scene.deliver().await;
        scene.until(|| scene.delivery(first).state == DeliveryState::Dead).await;
        let id = scene.delivery(first).new.endpoint_id().unwrap();
        scene.until(|| scene.store.endpoint_states().get(&id).is_some_and(|state| state.off.is_some())).await;
        let second = scene.deliver().await;
        scene.until(|| scene.delivery(second).state == DeliveryState::Dead).await;
        assert_eq!(*scene.attempts.borrow(), [(first, 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn attempt_that_panics_fails_and_others_continue() {
    beside(&[AttemptScript::Panics], async |scene| {
        let (first, second) = (scene.deliver().await, scene.deliver().await);
        scene.until(|| scene.delivery(first).attempts.len() == 1).await;
        assert!(scene.delivery(first).attempts[0].error.as_ref().unwrap().contains("bug"));
        assert_eq!(scene.metrics.panics.get(), 1);
        scene.pass(Duration::from_secs(2)).await;
        scene.until(|| scene.delivery(second).state == DeliveryState::Delivered).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_an_attempt_and_cancels_it_in_time() {
    beside(&[AttemptScript::Hangs], async |scene| {
        let (first, second) = (scene.deliver().await, scene.deliver().await);
        scene.until(|| scene.attempts.borrow().len() == 1).await;
        let began = Instant::now();
        let done = scene.release(Duration::from_secs(3)).await;
        done.await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(3) && began.elapsed() < Duration::from_secs(4));
        // The next owner can retry at once, and the attempt does not count in the schedule.
        let delivery = scene.delivery(first);
        assert!(delivery.next_attempt_at.unwrap() <= scene.store.now());
        assert!(delivery.attempts[0].error.as_ref().unwrap().contains("cancelled"));
        assert_eq!((scene.attempts.borrow().len(), scene.delivery(second).attempts.len()), (1, 0));
        assert_eq!(scene.metrics.deliveries.queues.get(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn drain_without_an_attempt_in_flight_ends_at_once() {
    beside(&[], async |scene| {
        let first = scene.deliver().await;
        scene.until(|| scene.delivery(first).state == DeliveryState::Delivered).await;
        let began = Instant::now();
        scene.release(Duration::from_secs(3)).await.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
        // A repeated or outdated event gets an answer too.
        assert!(scene.release(Duration::from_secs(3)).await.await.is_err());
        let second = scene.deliver().await;
        let (done, notified) = oneshot::channel();
        scene.commands.send(DispatcherCommand::NotifyIdle(done)).await.unwrap();
        notified.await.unwrap();
        assert_eq!((scene.delivery(second).attempts.len(), scene.attempts.borrow().len()), (0, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn attempt_in_a_lost_partition_is_cancelled_unwritten() {
    beside(&[AttemptScript::Hangs], async |scene| {
        let first = scene.deliver().await;
        scene.until(|| scene.attempts.borrow().len() == 1).await;
        scene.store.release(scene.partition(), scene.fence).unwrap();
        let fence = claim(&scene.store, &scene.conversation, 2);
        scene.events.tell(OutboxEvent::Lost(scene.partition(), scene.fence)).await;
        scene.until(|| scene.metrics.deliveries.in_flight.get() == 0).await;
        assert_eq!(scene.delivery(first).attempts, []);
        // The window of the attempt also holds for the new owner.
        let outbox = scene.store.outbox(scene.partition(), fence, 0).unwrap();
        assert!(outbox.queues[0].due > scene.store.now() + Duration::from_secs(15));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn partition_lost_by_the_store_is_dropped() {
    beside(&[], async |scene| {
        scene.store.release(scene.partition(), scene.fence).unwrap();
        let fence = claim(&scene.store, &scene.conversation, 2);
        let stale = WorkerScene { fence, ..scene.copy() };
        let first = stale.deliver().await;
        // The event carries the earlier fence.
        let (partition, fence, queue) = (scene.partition(), scene.fence, scene.queue());
        scene.events.tell(OutboxEvent::Due { partition, fence, queue, target: TARGET.into() }).await;
        let (done, notified) = oneshot::channel();
        scene.commands.send(DispatcherCommand::NotifyIdle(done)).await.unwrap();
        notified.await.unwrap();
        assert_eq!((scene.delivery(first).attempts.len(), scene.attempts.borrow().len()), (0, 0));
        assert_eq!(scene.metrics.deliveries.queues.get(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn delivery_tried_for_a_day_is_dead_lettered_at_once() {
    beside(&[AttemptScript::Ends(500)], async |scene| {
        let first = scene.deliver().await;
        scene.until(|| scene.delivery(first).attempts.len() == 1).await;
        let second = scene.deliver().await;
        // This is the state after an outage of the replicas.
        scene.pass(Duration::from_hours(25)).await;
        scene.until(|| scene.delivery(second).state == DeliveryState::Delivered).await;
        assert_eq!(scene.delivery(first).state, DeliveryState::Dead);
        assert_eq!(*scene.attempts.borrow(), [(first, 1), (second, 1)], "one attempt is always made");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn untried_delivery_to_a_dead_host_is_dead_lettered() {
    beside(&[AttemptScript::Ends(500); 100], async |scene| {
        let target = |number: usize| format!("{TARGET}/{number}");
        let mut ids = Vec::new();
        for number in 0..20 {
            ids.push(scene.deliver_to(&target(number)).await);
        }
        scene.until(|| scene.metrics.deliveries.circuit_breakers_open.get() == 1).await;
        // These get no attempt, because the host gets one probe a minute at most.
        for number in 20..60 {
            ids.push(scene.deliver_to(&target(number)).await);
        }
        let probes = scene.attempts.borrow().len();
        scene.pass(Duration::from_hours(25)).await;
        scene.until(|| ids.iter().all(|id| scene.delivery(*id).state == DeliveryState::Dead)).await;
        assert!(scene.attempts.borrow().len() <= probes + 2, "{:?}", scene.attempts.borrow().len() - probes);
        let last = scene.delivery(ids[59]);
        assert!(last.attempts[0].error.as_ref().unwrap().contains("has expired"), "{last:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn redelivery_is_found_with_and_without_an_event() {
    beside(&[], async |scene| {
        let first = scene.deliver().await;
        scene.until(|| scene.delivery(first).state == DeliveryState::Delivered).await;
        scene.store.redeliver(first);
        scene.events.tell(OutboxEvent::Redelivered(scene.partition())).await;
        scene.until(|| scene.attempts.borrow().len() == 2).await;
        scene.store.redeliver(first);
        scene.pass(Duration::from_mins(1)).await;
        scene.until(|| scene.attempts.borrow().len() == 3).await;
        scene.until(|| scene.delivery(first).state == DeliveryState::Delivered).await;
        scene.store.redeliver(first);
        scene.events.tell(OutboxEvent::Missed).await;
        scene.until(|| scene.attempts.borrow().len() == 4).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn stop_cancels_the_attempt_and_reports_it() {
    beside(&[AttemptScript::Hangs], async |scene| {
        let (first, second) = (scene.deliver().await, scene.deliver().await);
        scene.until(|| scene.attempts.borrow().len() == 1).await;
        scene.may_end.set(true);
        scene.commands.send(DispatcherCommand::Stop(Instant::now() + Duration::from_secs(1))).await.unwrap();
        scene.commands.closed().await;
        assert!(scene.delivery(first).attempts[0].error.as_ref().unwrap().contains("cancelled"));
        assert_eq!((scene.delivery(second).attempts.len(), scene.attempts.borrow().len()), (0, 1));
    })
    .await;
}

impl WorkerScene {
    /// Returns another handle to the same scene.
    fn copy(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            manual_clock: self.manual_clock.clone(),
            conversation: self.conversation.clone(),
            fence: self.fence,
            events: self.events.clone(),
            commands: self.commands.clone(),
            scripts: Rc::clone(&self.scripts),
            attempts: Rc::clone(&self.attempts),
            metrics: Arc::clone(&self.metrics),
            may_end: Rc::clone(&self.may_end),
        }
    }
}
