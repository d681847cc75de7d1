//! The desk: what is told and what happened goes to the agenda, what the agenda says is done.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, warn};

use super::DispatcherCommand;
use super::in_flight::{self, UnreportedAttempt, WorkEvent, WorkFuture};
use super::stats::DispatcherStats;
use crate::config::WebhooksConfig;
use crate::domain::{Backoff, DeliveryAttempt, DeliveryState, Partition, Timestamp};
use crate::store::{
    BeginResult, ClaimedDelivery, DeliveryQuery, Fence, FinishRequest, OutboxEvent, OutboxEventReceiver,
    OutboxPage, RetryDecision, Store, StoreClock, StoreError,
};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::circuit_breaker::HostHealth;
use crate::webhook::retry_schedule;
use crate::webhook::scheduler::{AttemptStart, Scheduler};

/// What an attempt's window in the store is longer than the attempt.
const SPARE: Duration = Duration::from_secs(5);
/// How old the wish to begin may be when the attempt is made: the window began after the wish and must not end before
/// the attempt, by anybody's clock.
const FRESH: Duration = Duration::from_secs(4);
/// How long a desk with nothing to do sleeps.
const IDLE: Duration = Duration::from_mins(1);

/// The desk; `A` makes an attempt.
pub(super) struct DeliveryWorker<A> {
    store: Store,
    clock: StoreClock,
    agenda: Scheduler,
    tally: DispatcherStats,
    send: Rc<A>,
    /// For how long an attempt is noted.
    window: Duration,
    tenures: HashMap<Partition, Tenure>,
    work: FuturesUnordered<WorkFuture>,
    stopping: bool,
}

/// A partition that is ours.
struct Tenure {
    fence: Fence,
    /// Cancelled where what is in flight is to be broken off.
    breaking: CancellationToken,
    /// Told when nothing is in flight; none where the partition is not about to be released.
    done: Option<oneshot::Sender<()>>,
}

impl<A: AsyncFn(&ClaimedDelivery) -> AttemptResult + 'static> DeliveryWorker<A> {
    pub(super) fn new(
        config: &WebhooksConfig,
        store: Store,
        now: Timestamp,
        tally: DispatcherStats,
        send: A,
    ) -> Self {
        // Tokens of two replicas must not be the same: not even where both came up at the same time from one image.
        let mut seed = [0; 8];
        let rng = match aws_lc_rs::rand::fill(&mut seed) {
            Ok(()) => fastrand::Rng::with_seed(u64::from_ne_bytes(seed)),
            Err(_) => fastrand::Rng::new(),
        };
        Self {
            store,
            clock: StoreClock::new(now),
            agenda: Scheduler::new(config.max_in_flight, config.max_per_host, rng),
            tally,
            send: Rc::new(send),
            window: config.timeout + SPARE,
            tenures: HashMap::new(),
            work: FuturesUnordered::new(),
            stopping: false,
        }
    }

    /// Works until it is told to stop, or nobody can tell it any more.
    pub(super) async fn run(
        mut self,
        mut listening: OutboxEventReceiver,
        mut orders: mpsc::Receiver<DispatcherCommand>,
    ) {
        let mut told = true;
        let mut calm = None;
        let mut until = None;
        loop {
            self.start_due();
            self.tally.measure(&self.agenda);
            if listening.is_empty() && self.agenda.is_calm(self.clock.now()) {
                // Nobody waits for it any more, or it is told.
                calm.take().map(|done: oneshot::Sender<()>| done.send(()));
            }
            if self.stopping && self.agenda.in_flight() == 0 {
                break;
            }
            let wake = self.agenda.wake_at().filter(|_| !self.stopping);
            let wake = wake.map_or_else(|| Instant::now() + IDLE, |at| self.clock.instant(at));
            select! {
                news = listening.next(), if told => match news {
                    Some(news) => self.hear(news),
                    None => told = false,
                },
                Some(event) = self.work.next(), if !self.work.is_empty() => self.take(event),
                order = orders.recv(), if !self.stopping => match order {
                    Some(DispatcherCommand::Calm(done)) => calm = Some(done),
                    Some(DispatcherCommand::Stop(by)) => {
                        until = Some(by);
                        self.break_off();
                    }
                    None => return,
                },
                () = sleep_until(until.unwrap_or(wake)) => {
                    if until.is_some() {
                        warn!("the store was not told how all attempts ended; they are made again");
                        break;
                    }
                }
            }
        }
        self.tally.measure(&self.agenda);
        if let Store::Memory(_) = &self.store {
            self.mourn().await;
        }
    }

    /// Does what the agenda says.
    fn start_due(&mut self) {
        if self.stopping {
            return;
        }
        let now = self.clock.now();
        while let Some((partition, fence)) = self.agenda.next_reading(now) {
            self.work.push(in_flight::read(&self.store, partition, fence, 0));
        }
        while let Some(begin) = self.agenda.next(now) {
            self.work.push(in_flight::begin(&self.store, begin, self.window));
        }
    }

    fn hear(&mut self, news: OutboxEvent) {
        let now = self.clock.now();
        match news {
            OutboxEvent::Owned(partition, fence) => {
                let tenure = Tenure { fence, breaking: CancellationToken::new(), done: None };
                if let Some(earlier) = self.tenures.insert(partition, tenure) {
                    earlier.breaking.cancel();
                }
                self.agenda.own(partition, fence, now);
            }
            OutboxEvent::Due { partition, fence, queue, target } => {
                self.agenda.ring(partition, fence, queue, &target, now);
            }
            OutboxEvent::Redelivered(partition) => self.agenda.look(partition, now),
            OutboxEvent::Missed => self.agenda.look_everywhere(now),
            OutboxEvent::Releasing { partition, fence, by, done } => {
                // Where it is not ours, nothing is in flight: the sender is dropped, which tells so too.
                let Some(tenure) = self.tenures.get_mut(&partition).filter(|tenure| tenure.fence == fence)
                else {
                    return;
                };
                tenure.done = Some(done);
                self.agenda.release(partition, fence);
                self.work.push(in_flight::overdue(partition, fence, by));
                self.settle(partition, fence);
            }
            OutboxEvent::Lost(partition, fence) => self.lose(partition, fence),
        }
    }

    fn take(&mut self, event: WorkEvent) {
        match event {
            WorkEvent::Read { partition, fence, answer } => self.read(partition, fence, answer),
            WorkEvent::Begun { begin, asked, answer } => {
                self.begun(begin, asked, answer);
                self.settle(begin.partition, begin.fence);
            }
            WorkEvent::Attempted { begin, taken, span, made, took } => {
                self.tally.attempted(&span, made.as_ref(), took);
                let flight = self.judge(begin, taken, span, made, took);
                self.work.push(in_flight::finish(&self.store, Box::new(flight), None));
            }
            WorkEvent::Finished { mut flight, answer } => {
                let AttemptStart { partition, fence, token, .. } = flight.begin;
                let now = self.clock.now();
                match answer {
                    Ok(finished) => {
                        self.clock.observe(finished.now);
                        self.tally.finished(&flight);
                        let health = flight.fate.as_ref().and_then(HostHealth::of);
                        if let Some((host, switched)) = self.agenda.ended(token, finished.next, health, now) {
                            DispatcherStats::switched(&host, switched);
                        }
                        if flight.begin.overdue {
                            // The one behind it may be as old; a busy queue would grow faster than it is buried.
                            self.agenda.look(partition, now);
                        }
                    }
                    Err(error) if error.is_passing() => {
                        debug!(parent: &flight.span, %error, "the store was not told how an attempt ended; telling it again");
                        self.agenda.delayed(token, now);
                        let delay = flight.backoff.next(fastrand::f64());
                        self.work.push(in_flight::finish(&self.store, flight, Some(delay)));
                        return;
                    }
                    Err(_) => {
                        self.lose(partition, fence);
                        self.agenda.ended(token, None, None, now);
                    }
                }
                self.settle(partition, fence);
            }
            WorkEvent::Overdue(partition, fence) => {
                if let Some(tenure) = self.tenures.get(&partition).filter(|tenure| tenure.fence == fence) {
                    tenure.breaking.cancel();
                }
            }
        }
    }

    fn read(&mut self, partition: Partition, fence: Fence, answer: Result<OutboxPage, StoreError>) {
        match answer {
            Ok(OutboxPage { queues, next, now }) => {
                self.clock.observe(now);
                let more = next.filter(|_| !self.stopping);
                if self.agenda.read(partition, fence, &queues, more.is_some(), self.clock.now())
                    && let Some(from) = more
                {
                    self.work.push(in_flight::read(&self.store, partition, fence, from));
                }
            }
            Err(error) => {
                if !error.is_passing() {
                    self.lose(partition, fence);
                }
                self.agenda.not_read(partition, fence, self.clock.now());
            }
        }
    }

    fn begun(&mut self, begin: AttemptStart, asked: Instant, answer: Result<BeginResult, StoreError>) {
        let now = self.clock.now();
        match answer {
            Ok(BeginResult::Taken(taken)) => self.taken(begin, asked, taken),
            Ok(BeginResult::Later(due)) => self.agenda.later(begin.token, due, now),
            Ok(BeginResult::Empty) => {
                self.agenda.ended(begin.token, None, None, now);
            }
            Err(error) if error.is_passing() => self.agenda.unanswered(begin.token, now),
            Err(_) => {
                self.lose(begin.partition, begin.fence);
                self.agenda.ended(begin.token, None, None, now);
            }
        }
    }

    fn taken(&mut self, begin: AttemptStart, asked: Instant, taken: Box<ClaimedDelivery>) {
        self.clock.observe(taken.now);
        let span = self.tally.began(&taken);
        let tenure = self.tenures.get(&begin.partition).filter(|tenure| tenure.fence == begin.fence);
        let breaking = tenure.map(|tenure| tenure.breaking.clone()).filter(|_| asked.elapsed() < FRESH);
        // One attempt is always made, unless the host failed for all that time; and none to tell of yesterday as if it
        // were news.
        let tried = taken.step > 0 || begin.overdue;
        let stale = tried && taken.now.since(taken.since) >= retry_schedule::AGE_MAX;
        // Begun to be buried, and another one is first by now: its host is left alone.
        let spared = begin.overdue && !stale;
        let Some(breaking) = breaking.filter(|_| !stale && !spared) else {
            let verdict = match (stale, taken.step) {
                (false, _) => RetryDecision::Again,
                (true, 0) => RetryDecision::Bury("its receiver's host failed for 24 hours".into()),
                (true, _) => RetryDecision::Bury("it was tried for 24 hours".into()),
            };
            if !stale {
                self.tally.attempted(&span, None, Duration::ZERO);
            }
            let error = match (stale, spared) {
                (true, _) => "not made: its time is over",
                (_, true) => "not made: its host is left alone",
                _ => "not made: the store was too slow",
            };
            let attempt = not_made(&taken, error, Duration::ZERO);
            let flight = over(begin, taken, span, attempt, verdict, None);
            self.work.push(in_flight::finish(&self.store, Box::new(flight), None));
            return;
        };
        let panics = self.tally.panics();
        self.work.push(in_flight::attempt(&self.send, begin, taken, span, breaking, panics));
    }

    /// What follows from an attempt.
    fn judge(
        &self,
        begin: AttemptStart,
        taken: Box<ClaimedDelivery>,
        span: Span,
        made: Option<AttemptResult>,
        took: Duration,
    ) -> UnreportedAttempt {
        let Some(AttemptResult { attempt, fate }) = made else {
            let attempt = not_made(&taken, "broken off: this replica let go of the conversation", took);
            return over(begin, taken, span, attempt, RetryDecision::Again, None);
        };
        let now = self.clock.now();
        let verdict = retry_schedule::verdict(&fate, taken.step, taken.since, now, fastrand::f64());
        over(begin, taken, span, attempt, verdict, Some(fate))
    }

    /// The partition is no longer ours.
    fn lose(&mut self, partition: Partition, fence: Fence) {
        self.agenda.lose(partition, fence);
        if self.tenures.get(&partition).is_some_and(|tenure| tenure.fence == fence)
            && let Some(tenure) = self.tenures.remove(&partition)
        {
            tenure.breaking.cancel();
        }
    }

    /// Lets go of a partition that is about to be released, as soon as nothing is in flight there.
    fn settle(&mut self, partition: Partition, fence: Fence) {
        if !self.agenda.is_quiet(partition, fence) {
            return;
        }
        let Some(tenure) = self.tenures.get_mut(&partition).filter(|tenure| tenure.fence == fence) else {
            return;
        };
        if let Some(done) = tenure.done.take() {
            self.lose(partition, fence);
            done.send(()).ok();
        }
    }

    /// Nothing begins any more, and what is in flight is broken off.
    fn break_off(&mut self) {
        self.stopping = true;
        for tenure in self.tenures.values() {
            tenure.breaking.cancel();
        }
    }

    /// Says what is lost with a store that nobody has after us.
    async fn mourn(&self) {
        let mut query =
            DeliveryQuery { state: Some(DeliveryState::Pending), limit: 1000, ..DeliveryQuery::default() };
        let mut lost = 0;
        while let Ok(page) = self.store.deliveries(&query).await {
            lost += page.deliveries.len();
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        if lost > 0 {
            warn!(lost, "deliveries were not made yet; they are lost with the memory store");
        }
    }
}

/// What the delivery's list says of an attempt that was not made, or not to its end.
fn not_made(taken: &ClaimedDelivery, why: &str, duration: Duration) -> DeliveryAttempt {
    DeliveryAttempt { at: taken.now, status: None, error: Some(why.into()), duration, response: None }
}

fn over(
    begin: AttemptStart,
    taken: Box<ClaimedDelivery>,
    span: Span,
    attempt: DeliveryAttempt,
    verdict: RetryDecision,
    fate: Option<AttemptOutcome>,
) -> UnreportedAttempt {
    let finish = FinishRequest { id: taken.delivery.id, token: taken.token, attempt, verdict };
    UnreportedAttempt { begin, taken, finish, fate, span, backoff: Backoff::for_store() }
}
