//! The desk on a store in memory, with attempts that end as the test says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use serde_json::value::RawValue;
use tokio::select;

use super::*;
use crate::domain::{
    ConversationId, Delivery, DeliveryAttempt, DeliveryId, DeliveryState, EntryBody, JournalEntry,
    NewDelivery, Partition,
};
use crate::metrics::LabelSets;
use crate::store::{
    ClaimMode, Clock, ConversationChange, ConversationWrite, Fence, Incarnation, ManualClock, MemoryLimits,
    MemoryStore, OutboxEvent, OutboxEventSender, QueueId, news,
};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::tests::taken;

const TARGET: &str = "https://receiver.example/in";

/// How an attempt goes.
#[derive(Clone, Copy)]
enum Act {
    Ends(u16),
    Hangs,
    Panics,
}

/// A store with a partition of ours, and a dispatcher's desk beside the test.
struct Stage {
    store: Arc<MemoryStore>,
    hand: ManualClock,
    conversation: ConversationId,
    fence: Fence,
    teller: OutboxEventSender,
    orders: mpsc::Sender<DispatcherCommand>,
    /// What comes next; when nothing is left, attempts succeed.
    acts: Rc<RefCell<VecDeque<Act>>>,
    /// Ids and numbers of the attempts that were made.
    made: Rc<RefCell<Vec<(DeliveryId, u32)>>>,
    metrics: Arc<Metrics>,
    /// Whether the desk may end.
    stops: Rc<Cell<bool>>,
}

async fn act(act: Act, taken: &ClaimedDelivery) -> AttemptResult {
    let (status, fate) = match act {
        Act::Ends(200) => (200, AttemptOutcome::Delivered),
        Act::Ends(410) => (410, AttemptOutcome::Gone),
        Act::Ends(status) => (status, AttemptOutcome::Refused { retry_after: None, ailing: true }),
        Act::Hangs => std::future::pending().await,
        Act::Panics => panic!("on purpose"),
    };
    let duration = Duration::ZERO;
    let attempt =
        DeliveryAttempt { at: taken.now, status: Some(status), error: None, duration, response: None };
    AttemptResult { attempt, fate }
}

/// Runs a test beside a desk that owns the partition of the conversation.
async fn beside(acts: &[Act], test: impl AsyncFnOnce(&Stage)) {
    let (clock, hand) = Clock::manual(taken(TARGET, crate::domain::DeliveryKind::MessageAnswered, "{}").now);
    let store = MemoryStore::new(MemoryLimits::new(1 << 20, Duration::from_hours(24)), clock);
    let conversation =
        taken(TARGET, crate::domain::DeliveryKind::MessageAnswered, "{}").delivery.conversation;
    let words = LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
    let metrics = Arc::new(Metrics::new(words).unwrap());
    let config = Config::dev("http://127.0.0.1".parse().unwrap());
    let (teller, listening) = news();
    let (orders, inbox) = mpsc::channel(1);
    let fence = claim(&store, &conversation, 1);
    let stage = Stage {
        store: Arc::clone(&store),
        hand,
        fence,
        teller,
        orders,
        conversation,
        acts: Rc::new(RefCell::new(acts.iter().copied().collect())),
        made: Rc::default(),
        metrics: Arc::clone(&metrics),
        stops: Rc::default(),
    };
    let (acts, made) = (Rc::clone(&stage.acts), Rc::clone(&stage.made));
    let send = async move |taken: &ClaimedDelivery| {
        made.borrow_mut().push((taken.delivery.id, taken.made + 1));
        let next = acts.borrow_mut().pop_front().unwrap_or(Act::Ends(200));
        act(next, taken).await
    };
    let tally = DispatcherStats::new(&config, metrics).unwrap();
    let now = store.now();
    let desk = DeliveryWorker::new(&config.webhooks, Store::Memory(store), now, tally, send);
    stage.teller.tell(OutboxEvent::Owned(stage.partition(), fence)).await;
    let running = async {
        desk.run(listening, inbox).await;
        assert!(stage.stops.get(), "the desk ended by itself");
        std::future::pending::<()>().await;
    };
    select! {
        () = running => {}
        () = test(&stage) => {}
    }
}

fn claim(store: &MemoryStore, conversation: &ConversationId, incarnation: u64) -> Fence {
    let partition = Partition::of(conversation);
    let lease = Duration::from_hours(1);
    store.claim(partition, Incarnation(incarnation), lease, ClaimMode::Free).fence().unwrap()
}

impl Stage {
    fn partition(&self) -> Partition {
        Partition::of(&self.conversation)
    }

    fn queue(&self) -> QueueId {
        QueueId::of(&self.conversation, TARGET)
    }

    /// Writes a delivery as the owner does, and tells.
    async fn deliver(&self) -> DeliveryId {
        self.deliver_to(TARGET).await
    }

    /// The same, to this target.
    async fn deliver_to(&self, target: &str) -> DeliveryId {
        let (open, now) = self.store.open(self.fence, &self.conversation).unwrap();
        let mut record = open.record;
        let follows = record.write;
        record.number_write(now);
        record.seq += 1;
        let id = DeliveryId::of(&self.conversation, record.epoch, record.seq, now);
        let raw = || RawValue::from_string("{}".to_owned()).unwrap();
        let entry = JournalEntry { seq: record.seq, at: now, body: EntryBody::Platform(raw()) };
        let new = taken(target, crate::domain::DeliveryKind::ReplyUnsolicited, "{}").delivery;
        let new = NewDelivery { id, created_at: now, conversation: self.conversation.clone(), ..new };
        let changes = vec![ConversationChange::Append(entry), ConversationChange::Deliver(Box::new(new))];
        let write = ConversationWrite { record, follows, changes, warm_until: None };
        self.store.write(self.fence, &self.conversation, &write).unwrap();
        let (partition, fence) = (self.partition(), self.fence);
        let queue = QueueId::of(&self.conversation, target);
        self.teller.tell(OutboxEvent::Due { partition, fence, queue, target: target.into() }).await;
        id
    }

    fn stands(&self, id: DeliveryId) -> Delivery {
        self.store.delivery(id).unwrap()
    }

    /// Lets the desk work until it is so.
    async fn until(&self, is_so: impl Fn() -> bool) {
        for _ in 0..100_000 {
            if is_so() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("in vain");
    }

    /// Lets this time pass at the store and here.
    async fn pass(&self, span: Duration) {
        self.hand.advance(span);
        tokio::time::advance(span).await;
    }

    async fn release(&self, by: Duration) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        let (partition, fence, by) = (self.partition(), self.fence, Instant::now() + by);
        self.teller.tell(OutboxEvent::Releasing { partition, fence, by, done }).await;
        told
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_the_next_one_follows_at_once() {
    beside(&[Act::Ends(500), Act::Ends(200), Act::Ends(410)], async |stage| {
        let (first, second) = (stage.deliver().await, stage.deliver().await);
        stage.until(|| stage.stands(first).attempts.len() == 1).await;
        assert_eq!(stage.stands(first).state, DeliveryState::Pending);
        stage.pass(Duration::from_secs(2)).await;
        stage.until(|| stage.stands(second).state == DeliveryState::Dead).await;
        assert_eq!(stage.stands(first).state, DeliveryState::Delivered);
        assert_eq!(*stage.made.borrow(), [(first, 1), (first, 2), (second, 1)]);
        assert!(stage.stands(second).reason.unwrap().contains("410"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_has_failed_and_no_other_suffers() {
    beside(&[Act::Panics], async |stage| {
        let (first, second) = (stage.deliver().await, stage.deliver().await);
        stage.until(|| stage.stands(first).attempts.len() == 1).await;
        assert!(stage.stands(first).attempts[0].error.as_ref().unwrap().contains("bug"));
        assert_eq!(stage.metrics.panics.get(), 1);
        stage.pass(Duration::from_secs(2)).await;
        stage.until(|| stage.stands(second).state == DeliveryState::Delivered).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_release_waits_for_what_is_in_flight_and_breaks_it_off_in_time() {
    beside(&[Act::Hangs], async |stage| {
        let (first, second) = (stage.deliver().await, stage.deliver().await);
        stage.until(|| stage.made.borrow().len() == 1).await;
        let began = Instant::now();
        let done = stage.release(Duration::from_secs(3)).await;
        done.await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(3) && began.elapsed() < Duration::from_secs(4));
        // It can be made again at once, by whoever owns it next, and does not count in the schedule.
        let stands = stage.stands(first);
        assert!(stands.next_attempt_at.unwrap() <= stage.store.now());
        assert!(stands.attempts[0].error.as_ref().unwrap().contains("broken off"));
        assert_eq!((stage.made.borrow().len(), stage.stands(second).attempts.len()), (1, 0));
        assert_eq!(stage.metrics.deliveries.queues.get(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_anything_in_flight_is_let_go_of_at_once() {
    beside(&[], async |stage| {
        let first = stage.deliver().await;
        stage.until(|| stage.stands(first).state == DeliveryState::Delivered).await;
        let began = Instant::now();
        stage.release(Duration::from_secs(3)).await.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
        // What is told of an earlier tenure or twice is answered too.
        assert!(stage.release(Duration::from_secs(3)).await.await.is_err());
        let second = stage.deliver().await;
        let (done, told) = oneshot::channel();
        stage.orders.send(DispatcherCommand::Calm(done)).await.unwrap();
        told.await.unwrap();
        assert_eq!((stage.stands(second).attempts.len(), stage.made.borrow().len()), (0, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_partition_breaks_off_and_writes_nothing() {
    beside(&[Act::Hangs], async |stage| {
        let first = stage.deliver().await;
        stage.until(|| stage.made.borrow().len() == 1).await;
        stage.store.release(stage.partition(), stage.fence).unwrap();
        let fence = claim(&stage.store, &stage.conversation, 2);
        stage.teller.tell(OutboxEvent::Lost(stage.partition(), stage.fence)).await;
        stage.until(|| stage.metrics.deliveries.in_flight.get() == 0).await;
        assert_eq!(stage.stands(first).attempts, []);
        // The window of the attempt still runs, for whoever owns it now.
        let outbox = stage.store.outbox(stage.partition(), fence, 0).unwrap();
        assert!(outbox.queues[0].due > stage.store.now() + Duration::from_secs(15));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_learns_of_the_loss_from_the_store_stops_too() {
    beside(&[], async |stage| {
        stage.store.release(stage.partition(), stage.fence).unwrap();
        let fence = claim(&stage.store, &stage.conversation, 2);
        let stale = Stage { fence, ..stage.copy() };
        let first = stale.deliver().await;
        // Told under the fence that was ours.
        let (partition, fence, queue) = (stage.partition(), stage.fence, stage.queue());
        stage.teller.tell(OutboxEvent::Due { partition, fence, queue, target: TARGET.into() }).await;
        let (done, told) = oneshot::channel();
        stage.orders.send(DispatcherCommand::Calm(done)).await.unwrap();
        told.await.unwrap();
        assert_eq!((stage.stands(first).attempts.len(), stage.made.borrow().len()), (0, 0));
        assert_eq!(stage.metrics.deliveries.queues.get(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_for_a_day_is_buried_without_another_attempt() {
    beside(&[Act::Ends(500)], async |stage| {
        let first = stage.deliver().await;
        stage.until(|| stage.stands(first).attempts.len() == 1).await;
        let second = stage.deliver().await;
        // As after an outage of the replicas.
        stage.pass(Duration::from_hours(25)).await;
        stage.until(|| stage.stands(second).state == DeliveryState::Delivered).await;
        assert_eq!(stage.stands(first).state, DeliveryState::Dead);
        assert_eq!(*stage.made.borrow(), [(first, 1), (second, 1)], "one attempt is always made");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_host_was_not_told_for_a_day_is_buried_in_time() {
    beside(&[Act::Ends(500); 100], async |stage| {
        let target = |number: usize| format!("{TARGET}/{number}");
        let mut ids = Vec::new();
        for number in 0..20 {
            ids.push(stage.deliver_to(&target(number)).await);
        }
        stage.until(|| stage.metrics.deliveries.circuit_breakers_open.get() == 1).await;
        // Nobody comes to these: the host is probed once a minute, if at all.
        for number in 20..60 {
            ids.push(stage.deliver_to(&target(number)).await);
        }
        let probes = stage.made.borrow().len();
        stage.pass(Duration::from_hours(25)).await;
        stage.until(|| ids.iter().all(|id| stage.stands(*id).state == DeliveryState::Dead)).await;
        assert!(stage.made.borrow().len() <= probes + 2, "{:?}", stage.made.borrow().len() - probes);
        let last = stage.stands(ids[59]);
        assert!(last.attempts[0].error.as_ref().unwrap().contains("time is over"), "{last:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn redelivered_ones_and_those_that_nobody_told_of_are_found() {
    beside(&[], async |stage| {
        let first = stage.deliver().await;
        stage.until(|| stage.stands(first).state == DeliveryState::Delivered).await;
        stage.store.redeliver(first);
        stage.teller.tell(OutboxEvent::Redelivered(stage.partition())).await;
        stage.until(|| stage.made.borrow().len() == 2).await;
        stage.store.redeliver(first);
        stage.pass(Duration::from_mins(1)).await;
        stage.until(|| stage.made.borrow().len() == 3).await;
        stage.until(|| stage.stands(first).state == DeliveryState::Delivered).await;
        stage.store.redeliver(first);
        stage.teller.tell(OutboxEvent::Missed).await;
        stage.until(|| stage.made.borrow().len() == 4).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_breaks_off_and_says_so_in_the_store() {
    beside(&[Act::Hangs], async |stage| {
        let (first, second) = (stage.deliver().await, stage.deliver().await);
        stage.until(|| stage.made.borrow().len() == 1).await;
        stage.stops.set(true);
        stage.orders.send(DispatcherCommand::Stop(Instant::now() + Duration::from_secs(1))).await.unwrap();
        stage.orders.closed().await;
        assert!(stage.stands(first).attempts[0].error.as_ref().unwrap().contains("broken off"));
        assert_eq!((stage.stands(second).attempts.len(), stage.made.borrow().len()), (0, 1));
    })
    .await;
}

impl Stage {
    /// Another handle to the same.
    fn copy(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            hand: self.hand.clone(),
            conversation: self.conversation.clone(),
            fence: self.fence,
            teller: self.teller.clone(),
            orders: self.orders.clone(),
            acts: Rc::clone(&self.acts),
            made: Rc::clone(&self.made),
            metrics: Arc::clone(&self.metrics),
            stops: Rc::clone(&self.stops),
        }
    }
}
