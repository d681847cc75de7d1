//! The worker passes events to the scheduler and runs the operations that the scheduler asks for.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
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
use crate::domain::{Backoff, DeliveryAttempt, Partition, Timestamp};
use crate::store::{
    BeginResult, ClaimedDelivery, Fence, FinishRequest, OutboxEvent, OutboxEventReceiver, OutboxPage,
    Ownership, PendingQueue, QueueId, RetryDecision, Store, StoreClock, StoreError,
};
use crate::webhook::attempt::{AttemptOutcome, AttemptResult};
use crate::webhook::circuit_breaker::HostHealth;
use crate::webhook::endpoint_board::{self, EndpointBoard};
use crate::webhook::probe::test_event;
use crate::webhook::retry_schedule;
use crate::webhook::scheduler::{AttemptStart, Scheduler};

/// The time by which the window of an attempt in the store exceeds `webhooks.timeout`.
const WINDOW_MARGIN: Duration = Duration::from_secs(5);
/// The longest wait for the answer to `begin`. An attempt that starts later could outlive its window by another clock.
const MAX_BEGIN_DELAY: Duration = Duration::from_secs(4);
/// The limit of events of each kind that are handled in one round.
const TOGETHER: usize = 64;
/// The sleep of a worker without planned work.
const IDLE: Duration = Duration::from_mins(1);

/// The worker of the dispatcher's thread. `A` makes an attempt.
pub(super) struct DeliveryWorker<A> {
    pub(super) store: Store,
    pub(super) clock: StoreClock,
    pub(super) scheduler: Scheduler,
    pub(super) stats: DispatcherStats,
    send: Rc<A>,
    /// The time that the store reserves for an attempt.
    window: Duration,
    partitions: HashMap<Partition, OwnedPartition>,
    pub(super) board: EndpointBoard,
    /// The time of the next exchange with the store about endpoints; `None` during one.
    pub(super) exchange_at: Option<Timestamp>,
    work: FuturesUnordered<WorkFuture>,
    stopping: bool,
}

/// A partition of this replica.
struct OwnedPartition {
    /// With the sender to notify at the end of a drain.
    ownership: Ownership<oneshot::Sender<()>>,
    /// Cancels the attempts in flight.
    cancellation: CancellationToken,
}

impl<A: AsyncFn(&ClaimedDelivery) -> AttemptResult + 'static> DeliveryWorker<A> {
    pub(super) fn new(
        config: &WebhooksConfig,
        store: Store,
        now: Timestamp,
        stats: DispatcherStats,
        board: EndpointBoard,
        send: A,
    ) -> Self {
        // Two replicas must not draw the same tokens, even if they start together from one image.
        let mut bytes = [0; 8];
        let rng = match aws_lc_rs::rand::fill(&mut bytes) {
            Ok(()) => fastrand::Rng::with_seed(u64::from_ne_bytes(bytes)),
            Err(_) => fastrand::Rng::new(),
        };
        Self {
            store,
            clock: StoreClock::new(now),
            scheduler: Scheduler::new(config.max_in_flight, config.max_per_host, &config.allowed, rng),
            stats,
            send: Rc::new(send),
            window: config.timeout + WINDOW_MARGIN,
            partitions: HashMap::new(),
            board,
            exchange_at: Some(now),
            work: FuturesUnordered::new(),
            stopping: false,
        }
    }

    /// Works until it gets the command to stop or the channel of commands closes.
    pub(super) async fn run(
        mut self,
        mut events: OutboxEventReceiver,
        mut commands: mpsc::Receiver<DispatcherCommand>,
    ) {
        let mut events_open = true;
        let mut on_idle = None;
        let mut stop_by = None;
        loop {
            self.start_due();
            self.stats.measure(&self.scheduler);
            if events.is_empty() && self.scheduler.is_idle(self.clock.now()) {
                on_idle.take().map(|done: oneshot::Sender<()>| done.send(()));
            }
            if self.stopping && self.scheduler.in_flight() == 0 {
                break;
            }
            let wake = self.scheduler.wake_at().into_iter().chain(self.exchange_at).min();
            let wake = wake.filter(|_| !self.stopping);
            let wake = wake.map_or_else(|| Instant::now() + IDLE, |at| self.clock.instant(at));
            select! {
                event = events.next(), if events_open => match event {
                    Some(event) => self.handle_outbox(event),
                    None => events_open = false,
                },
                Some(event) = self.work.next(), if !self.work.is_empty() => self.handle_work(event),
                command = commands.recv(), if !self.stopping => match command {
                    Some(DispatcherCommand::NotifyIdle(done)) => on_idle = Some(done),
                    Some(DispatcherCommand::Stop(by)) => {
                        stop_by = Some(by);
                        self.cancel_all();
                    }
                    None => return,
                },
                () = sleep_until(stop_by.unwrap_or(wake)) => {
                    if stop_by.is_some() {
                        warn!("the store did not confirm the end of all attempts; they are retried");
                        break;
                    }
                }
            }
            self.handle_ready(&mut events);
        }
        self.stats.measure(&self.scheduler);
        if let Store::Memory(_) = &self.store {
            self.warn_of_lost_deliveries().await;
        }
    }

    /// Handles further events that are ready. Under load this saves most rounds of the loop.
    fn handle_ready(&mut self, events: &mut OutboxEventReceiver) {
        for _ in 0..TOGETHER {
            let Some(event) = events.try_next() else { break };
            self.handle_outbox(event);
        }
        for _ in 0..TOGETHER {
            let Some(Some(event)) = self.work.next().now_or_never() else { break };
            self.handle_work(event);
        }
    }

    /// Starts the reads and attempts that are due.
    fn start_due(&mut self) {
        if self.stopping {
            return;
        }
        let now = self.clock.now();
        while let Some((partition, fence)) = self.scheduler.next_read(now) {
            self.work.push(in_flight::read(&self.store, partition, fence, 0));
        }
        if self.exchange_at.is_some_and(|at| at <= now) {
            self.exchange_at = None;
            self.work.push(in_flight::exchange_endpoints(&self.store, self.board.take_changes()));
        }
        while let Some(start) = self.scheduler.next_attempt(now) {
            self.work.push(in_flight::begin(&self.store, start, self.window));
        }
    }

    fn handle_outbox(&mut self, event: OutboxEvent) {
        let now = self.clock.now();
        match event {
            OutboxEvent::Assigned(partition, fence) => {
                let ownership = Ownership::Active(fence);
                let owned = OwnedPartition { ownership, cancellation: CancellationToken::new() };
                if let Some(earlier) = self.partitions.insert(partition, owned) {
                    earlier.cancellation.cancel();
                }
                self.scheduler.assign(partition, fence, now);
            }
            OutboxEvent::Due { partition, fence, queue, target } => {
                self.scheduler.notify_due(partition, fence, queue, &target, now);
            }
            OutboxEvent::Redelivered(partition) => self.scheduler.request_read(partition, now),
            OutboxEvent::Missed => self.scheduler.request_all_reads(now),
            OutboxEvent::EndpointsChanged => self.exchange_soon(now),
            OutboxEvent::TestRequested { endpoint, answer } => {
                if let Some(claimed) = self.board.find(&endpoint).and_then(|(bot, of)| test_event(bot, of)) {
                    self.work.push(in_flight::test(&self.send, claimed, answer));
                }
            }
            OutboxEvent::Revoking { partition, fence, by, done } => {
                // Without the partition no attempt is in flight. Dropping `done` notifies the shard too.
                let Some(owned) = self.owned(partition, fence) else { return };
                owned.ownership = Ownership::Draining(fence, done);
                self.scheduler.drain(partition, fence);
                self.work.push(in_flight::drain_timeout(partition, fence, by));
                self.finish_drain(partition, fence);
            }
            OutboxEvent::Lost(partition, fence) => {
                self.unassign(partition, fence);
            }
        }
    }

    fn handle_work(&mut self, event: WorkEvent) {
        match event {
            WorkEvent::Read { partition, fence, result } => self.page_read(partition, fence, result),
            WorkEvent::Begun { start, asked, result } => {
                self.begin_answered(start, asked, result);
                self.finish_drain(start.partition, start.fence);
            }
            WorkEvent::Attempted { start, claimed, span, result, took } => {
                self.stats.attempt_ended(&span, result.as_ref(), took);
                let ended = self.decide(start, claimed, span, result, took);
                self.work.push(in_flight::finish(&self.store, Box::new(ended), None));
            }
            WorkEvent::Finished { mut ended, result } => {
                let AttemptStart { partition, fence, token, expired, .. } = ended.start;
                let now = self.clock.now();
                match result {
                    Ok(finished) => {
                        self.clock.observe(finished.now);
                        self.stats.finished(&ended);
                        for report in &ended.finish.reports {
                            let queue = QueueId::of_delivery(report);
                            self.scheduler.notify_due(partition, fence, queue, &report.target, now);
                        }
                        let health = ended.outcome.as_ref().and_then(HostHealth::of);
                        let transition = self.scheduler.attempt_ended(token, finished.next, health, now);
                        if let Some((host, transition)) = transition {
                            DispatcherStats::log_transition(&host, transition);
                        }
                        if expired {
                            // The next delivery may have expired too. A busy queue would grow faster than the periodic
                            // reads dead-letter it.
                            self.scheduler.request_read(partition, now);
                        }
                    }
                    Err(error) if error.is_passing() => {
                        debug!(parent: &ended.span, %error, "the store did not confirm the end of an attempt; retrying");
                        self.scheduler.finish_unanswered(token, now);
                        let delay = ended.backoff.next(fastrand::f64());
                        self.work.push(in_flight::finish(&self.store, ended, Some(delay)));
                        return;
                    }
                    Err(_) => {
                        self.unassign(partition, fence);
                        self.scheduler.attempt_ended(token, None, None, now);
                    }
                }
                self.finish_drain(partition, fence);
            }
            WorkEvent::Endpoints { changes, result } => self.endpoints_read(changes, result),
            WorkEvent::Tested { answer, attempt } => _ = answer.send(attempt),
            WorkEvent::DrainTimeout(partition, fence) => {
                if let Some(owned) = self.owned(partition, fence) {
                    owned.cancellation.cancel();
                }
            }
        }
    }

    fn page_read(&mut self, partition: Partition, fence: Fence, result: Result<OutboxPage, StoreError>) {
        match result {
            Ok(OutboxPage { queues, next, now }) => {
                self.clock.observe(now);
                let more = next.filter(|_| !self.stopping);
                if self.scheduler.page_read(partition, fence, &queues, more.is_some(), self.clock.now())
                    && let Some(from) = more
                {
                    self.work.push(in_flight::read(&self.store, partition, fence, from));
                }
                for PendingQueue { queue, endpoint, .. } in &queues {
                    if endpoint.as_ref().is_some_and(|id| self.board.is_off(id)) {
                        self.scheduler.note_off(partition, fence, *queue);
                    }
                }
            }
            Err(error) => {
                if !error.is_passing() {
                    self.unassign(partition, fence);
                }
                self.scheduler.read_failed(partition, fence, self.clock.now());
            }
        }
    }

    fn begin_answered(
        &mut self,
        start: AttemptStart,
        asked: Instant,
        result: Result<BeginResult, StoreError>,
    ) {
        let now = self.clock.now();
        match result {
            Ok(BeginResult::Taken(claimed)) => self.start_attempt(start, asked, claimed),
            Ok(BeginResult::Later(due)) => self.scheduler.attempt_deferred(start.token, due, now),
            Ok(BeginResult::Empty) => {
                self.scheduler.attempt_ended(start.token, None, None, now);
            }
            Err(error) if error.is_passing() => self.scheduler.begin_unanswered(start.token, now),
            Err(_) => {
                self.unassign(start.partition, start.fence);
                self.scheduler.attempt_ended(start.token, None, None, now);
            }
        }
    }

    /// Makes the attempt for a claimed delivery, or finishes it at once without a request.
    fn start_attempt(&mut self, start: AttemptStart, asked: Instant, claimed: Box<ClaimedDelivery>) {
        self.clock.observe(claimed.now);
        let span = self.stats.attempt_began(&claimed);
        let owned = self.owned(start.partition, start.fence);
        let cancellation =
            owned.map(|owned| owned.cancellation.clone()).filter(|_| asked.elapsed() < MAX_BEGIN_DELAY);
        // Every delivery gets one attempt before it expires, unless its host failed for that long.
        let tried = claimed.step > 0 || start.expired;
        let expired = tried && claimed.now.since(claimed.since) >= retry_schedule::AGE_MAX;
        // Meanwhile another delivery became the first of the queue. Its host has an open circuit.
        let spared = start.expired && !expired;
        let is_off = claimed.delivery.endpoint_id().is_some_and(|id| self.board.is_off(&id));
        let Some(cancellation) = cancellation.filter(|_| !expired && !spared && !is_off) else {
            let decision = match (is_off, expired, claimed.step) {
                (true, ..) => RetryDecision::DeadLetter(endpoint_board::OFF.into()),
                (_, false, _) => RetryDecision::Again,
                (_, true, 0) => RetryDecision::DeadLetter("its receiver's host failed for 24 hours".into()),
                (_, true, _) => RetryDecision::DeadLetter("it was tried for 24 hours".into()),
            };
            if decision == RetryDecision::Again {
                self.stats.attempt_ended(&span, None, Duration::ZERO);
            }
            let error = match (is_off, expired, spared) {
                (true, ..) => "not made: the endpoint is switched off",
                (_, true, _) => "not made: the delivery has expired",
                (.., true) => "not made: the circuit of its host is open",
                _ => "not made: the store was too slow",
            };
            let attempt = cancelled_attempt(&claimed, error, Duration::ZERO);
            let ended = self.unreported(start, claimed, span, attempt, decision, None);
            self.work.push(in_flight::finish(&self.store, Box::new(ended), None));
            return;
        };
        let panics = self.stats.panics();
        self.work.push(in_flight::attempt(&self.send, start, claimed, span, cancellation, panics));
    }

    /// Decides what follows an attempt. `result` is `None` if the attempt was cancelled.
    fn decide(
        &mut self,
        start: AttemptStart,
        claimed: Box<ClaimedDelivery>,
        span: Span,
        result: Option<AttemptResult>,
        took: Duration,
    ) -> UnreportedAttempt {
        let Some(AttemptResult { attempt, outcome }) = result else {
            let attempt =
                cancelled_attempt(&claimed, "cancelled: this replica released the conversation", took);
            return self.unreported(start, claimed, span, attempt, RetryDecision::Again, None);
        };
        let now = self.clock.now();
        if self.board.record(&claimed.delivery, &attempt, &outcome) {
            self.exchange_soon(now);
        }
        let decision = retry_schedule::decide(&outcome, claimed.step, claimed.since, now, fastrand::f64());
        self.unreported(start, claimed, span, attempt, decision, Some(outcome))
    }

    fn unreported(
        &self,
        start: AttemptStart,
        claimed: Box<ClaimedDelivery>,
        span: Span,
        attempt: DeliveryAttempt,
        decision: RetryDecision,
        outcome: Option<AttemptOutcome>,
    ) -> UnreportedAttempt {
        let reports = match &decision {
            RetryDecision::DeadLetter(reason) => {
                self.board.dead_letter_reports(&claimed.delivery, reason, self.clock.now())
            }
            _ => Vec::new(),
        };
        let finish = FinishRequest { claimed, attempt, decision, reports };
        UnreportedAttempt { start, finish, outcome, span, backoff: Backoff::for_store() }
    }

    /// Returns the partition if this replica owns it under this fence.
    fn owned(&mut self, partition: Partition, fence: Fence) -> Option<&mut OwnedPartition> {
        self.partitions.get_mut(&partition).filter(|owned| owned.ownership.fence() == Some(fence))
    }

    /// Removes a partition that this replica no longer owns, and cancels its attempts. Returns the ownership until then.
    fn unassign(&mut self, partition: Partition, fence: Fence) -> Ownership<oneshot::Sender<()>> {
        self.scheduler.unassign(partition, fence);
        let Some(owned) = self.owned(partition, fence) else { return Ownership::None };
        owned.cancellation.cancel();
        let ownership = std::mem::take(&mut owned.ownership);
        self.partitions.remove(&partition);
        ownership
    }

    /// Gives up a draining partition as soon as no attempt is in flight there.
    fn finish_drain(&mut self, partition: Partition, fence: Fence) {
        let active = self.owned(partition, fence).is_none_or(|owned| owned.ownership.active().is_some());
        if !active
            && self.scheduler.is_drained(partition, fence)
            && let Ownership::Draining(_, done) = self.unassign(partition, fence)
        {
            done.send(()).ok();
        }
    }

    /// Cancels all attempts and begins no further one.
    fn cancel_all(&mut self) {
        self.stopping = true;
        for owned in self.partitions.values() {
            owned.cancellation.cancel();
        }
    }
}

/// Returns the list's entry for an attempt that was cancelled or not made.
fn cancelled_attempt(claimed: &ClaimedDelivery, why: &str, duration: Duration) -> DeliveryAttempt {
    DeliveryAttempt { at: claimed.now, status: None, error: Some(why.into()), duration, response: None }
}
