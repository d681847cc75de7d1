//! Runs schedulers against a model of store, receivers and replicas, with random outcomes and interleavings.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::domain::UrlPattern;

const PARTITIONS: u8 = 3;
const HOSTS: u64 = 5;
const QUEUES: u64 = 12;
const MAX_IN_FLIGHT: usize = 4;
const MAX_PER_HOST: usize = 2;
const WINDOW: Duration = Duration::from_secs(20);

/// Two replicas that share a store, and the receivers. Every operation takes a random time.
struct SchedulerModel {
    rng: fastrand::Rng,
    now: Timestamp,
    replicas: [Scheduler; 2],
    outboxes: BTreeMap<Partition, ModelOutbox>,
    events: BTreeMap<(Timestamp, u64), ModelEvent>,
    count: u64,
    /// The attempts in flight.
    attempts: HashMap<(Partition, QueueId), ModelAttempt>,
    /// The ids of deliveries in the order in which receivers first took them.
    received: HashMap<(Partition, QueueId), Vec<u64>>,
    /// Whether store and receivers no longer fail.
    healed: bool,
}

#[derive(Debug, PartialEq)]
struct ModelAttempt {
    replica: usize,
    host: u64,
    fence: Fence,
}

#[derive(Default)]
struct ModelOutbox {
    owner: usize,
    epoch: u64,
    queues: BTreeMap<QueueId, ModelQueue>,
    /// The store answers from this time on.
    silent_until: Timestamp,
    /// Whether its owner hands it off.
    draining: bool,
}

#[derive(Default)]
struct ModelQueue {
    waiting: VecDeque<u64>,
    written: Vec<u64>,
    dead_letters: HashSet<u64>,
    due: Timestamp,
    attempt: Option<(u64, Timestamp)>,
}

enum ModelEvent {
    Notifies(usize, Fence, Partition, QueueId),
    Begins(usize, AttemptStart),
    BeginAnswered(usize, AttemptStart, BeginAnswer),
    Attempted(usize, AttemptStart, u64, bool),
    Finishes(usize, AttemptStart, u64, FinishOutcome),
    FinishAnswered(usize, AttemptStart, FinishOutcome, Option<Timestamp>),
    FinishUnanswered(usize, AttemptStart, u64, FinishOutcome),
    Reads(usize, Partition, Fence),
    ReadAnswered(usize, Partition, Fence, Option<Vec<PendingQueue>>),
    LosesPartition(usize, Partition, Fence),
}

#[derive(Clone, Copy)]
enum BeginAnswer {
    Claimed(u64),
    Later(Timestamp),
    Empty,
    None,
    Fenced,
}

#[derive(Clone, Copy, PartialEq)]
enum FinishOutcome {
    Delivered,
    Failed,
    DeadLettered,
}

fn host_of_queue(queue: QueueId) -> u64 {
    u64::from_str_radix(&queue.to_string()[16..], 16).unwrap() % HOSTS
}

/// Returns the target of a queue. Some hosts share a wildcard.
fn target(queue: QueueId) -> String {
    match host_of_queue(queue) {
        host @ 0..2 => format!("https://host-{host}.shared.example/"),
        host => format!("https://host-{host}/"),
    }
}

fn wildcards() -> Vec<UrlPattern> {
    vec!["https://*.shared.example/".parse().unwrap()]
}

fn fence_of(owner: usize, epoch: u64) -> Fence {
    Fence { incarnation: Incarnation(owner as u64), epoch }
}

impl SchedulerModel {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let replicas = [0, 1].map(|_| Scheduler::new(MAX_IN_FLIGHT, MAX_PER_HOST, &wildcards(), rng.fork()));
        let mut model = Self {
            rng,
            now: NOW,
            replicas,
            outboxes: BTreeMap::new(),
            events: BTreeMap::new(),
            count: 0,
            attempts: HashMap::new(),
            received: HashMap::new(),
            healed: false,
        };
        for number in 0..PARTITIONS {
            let partition = Partition::from_byte(number);
            model.outboxes.insert(partition, ModelOutbox { epoch: 1, ..ModelOutbox::default() });
            model.replicas[0].assign(partition, fence_of(0, 1), NOW);
        }
        model
    }

    fn soon(&mut self) -> Duration {
        let most = *self.rng.choice(&[2, 20, 500]).unwrap();
        Duration::from_millis(self.rng.u64(0..most))
    }

    fn later(&mut self, span: Duration, event: ModelEvent) {
        self.count += 1;
        self.events.insert((self.now + span, self.count), event);
    }

    fn soon_after(&mut self, event: ModelEvent) {
        let span = self.soon();
        self.later(span, event);
    }

    /// Performs a random action of the environment.
    fn act(&mut self) {
        let partition = Partition::from_byte(self.rng.u8(0..PARTITIONS));
        match self.rng.u8(0..100) {
            0..70 => self.write(partition),
            70..78 if !self.healed => {
                let until = self.now + Duration::from_millis(self.rng.u64(0..5000));
                self.outboxes.get_mut(&partition).unwrap().silent_until = until;
            }
            78..85 => self.claim(partition),
            85..92 => self.drain(partition),
            92..96 => {
                let replica = self.rng.usize(0..2);
                self.replicas[replica].request_all_reads(self.now);
            }
            _ => {}
        }
    }

    fn write(&mut self, partition: Partition) {
        self.count += 1;
        let id = self.count;
        let queue = queue(self.rng.u64(0..QUEUES));
        let outbox = self.outboxes.get_mut(&partition).unwrap();
        let entry = outbox.queues.entry(queue).or_default();
        if entry.waiting.is_empty() {
            entry.due = self.now;
        }
        entry.waiting.push_back(id);
        entry.written.push(id);
        let (owner, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        // Some notifications are lost. The periodic reads find these deliveries.
        if self.rng.u8(0..10) > 0 {
            self.soon_after(ModelEvent::Notifies(owner, fence, partition, queue));
        }
    }

    /// Lets a replica claim the partition without notice to its owner.
    fn claim(&mut self, partition: Partition) {
        let outbox = self.outboxes.get_mut(&partition).unwrap();
        let (old, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        outbox.owner = self.rng.usize(0..2);
        outbox.epoch += 1;
        outbox.draining = false;
        let (new, claimed) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        // A replica that claims its own partition again knows at once.
        if old != new {
            self.soon_after(ModelEvent::LosesPartition(old, partition, fence));
        }
        self.replicas[new].assign(partition, claimed, self.now);
    }

    fn drain(&mut self, partition: Partition) {
        let outbox = self.outboxes.get_mut(&partition).unwrap();
        outbox.draining = true;
        let (owner, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        self.replicas[owner].drain(partition, fence);
    }

    /// Hands drained partitions off to the other replica.
    fn hand_off(&mut self) {
        let drained: Vec<_> = self
            .outboxes
            .iter()
            .filter(|(partition, outbox)| {
                outbox.draining
                    && self.replicas[outbox.owner]
                        .is_drained(**partition, fence_of(outbox.owner, outbox.epoch))
            })
            .map(|(partition, _)| *partition)
            .collect();
        for partition in drained {
            let outbox = self.outboxes.get_mut(&partition).unwrap();
            let fence = fence_of(outbox.owner, outbox.epoch);
            assert!(!self.attempts.iter().any(|((of, _), at)| *of == partition && at.fence == fence));
            self.replicas[outbox.owner].unassign(partition, fence_of(outbox.owner, outbox.epoch));
            outbox.owner = 1 - outbox.owner;
            outbox.epoch += 1;
            outbox.draining = false;
            let (owner, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
            self.replicas[owner].assign(partition, fence, self.now);
        }
    }

    /// Starts everything that both schedulers ask for, and checks their invariants.
    fn work(&mut self) {
        self.hand_off();
        for number in 0..2 {
            while let Some((partition, fence)) = self.replicas[number].next_read(self.now) {
                self.soon_after(ModelEvent::Reads(number, partition, fence));
            }
            while let Some(begin) = self.replicas[number].next_attempt(self.now) {
                let known = &self.replicas[number].partitions[&begin.partition];
                assert_eq!(
                    known.ownership.active(),
                    Some(begin.fence),
                    "begun under a wrong fence or during a drain"
                );
                self.soon_after(ModelEvent::Begins(number, begin));
            }
            let scheduler = &self.replicas[number];
            scheduler.check();
            scheduler.hosts.check_no_group_starves(self.now, scheduler.max_in_flight - scheduler.in_flight);
        }
    }

    fn handle(&mut self, event: ModelEvent) {
        match event {
            ModelEvent::Notifies(replica, fence, partition, queue) => {
                self.replicas[replica].notify_due(partition, fence, queue, &target(queue), self.now);
            }
            ModelEvent::Begins(replica, begin) => {
                let answer = self.begin(begin);
                self.soon_after(ModelEvent::BeginAnswered(replica, begin, answer));
            }
            ModelEvent::BeginAnswered(replica, begin, answer) => self.begin_answered(replica, begin, answer),
            ModelEvent::Attempted(replica, begin, id, last) => self.attempted(replica, begin, id, last),
            ModelEvent::Finishes(replica, begin, id, outcome) => {
                let answer = self.finish(begin, id, outcome);
                match answer {
                    Err(true) => {
                        self.replicas[replica].unassign(begin.partition, begin.fence);
                        self.replicas[replica].attempt_ended(begin.token, None, None, self.now);
                    }
                    Err(false) => self.soon_after(ModelEvent::FinishUnanswered(replica, begin, id, outcome)),
                    Ok(next) => self.soon_after(ModelEvent::FinishAnswered(replica, begin, outcome, next)),
                }
            }
            ModelEvent::FinishAnswered(replica, begin, outcome, next) => {
                let health = if outcome == FinishOutcome::Delivered {
                    HostHealth::Healthy
                } else {
                    HostHealth::Failing
                };
                self.replicas[replica].attempt_ended(begin.token, next, Some(health), self.now);
            }
            ModelEvent::FinishUnanswered(replica, begin, id, outcome) => {
                self.replicas[replica].finish_unanswered(begin.token, self.now);
                self.later(seconds(1), ModelEvent::Finishes(replica, begin, id, outcome));
            }
            ModelEvent::Reads(replica, partition, fence) => {
                let outbox = &self.outboxes[&partition];
                let answers = self.now >= outbox.silent_until;
                let read =
                    outbox.queues.iter().filter(|(_, queue)| !queue.waiting.is_empty()).map(|(id, queue)| {
                        PendingQueue {
                            queue: *id,
                            target: target(*id).into(),
                            endpoint: None,
                            due: queue.attempt.map_or(queue.due, |(_, until)| until),
                            // Some deliveries have expired, also behind an open circuit.
                            since: Timestamp::from_millis(
                                NOW.as_millis() - if host_of_queue(*id) < 3 { 90_000_000 } else { 0 },
                            ),
                        }
                    });
                let read = answers.then(|| read.collect());
                if answers && fence_of(outbox.owner, outbox.epoch) != fence {
                    self.soon_after(ModelEvent::LosesPartition(replica, partition, fence));
                    self.replicas[replica].unassign(partition, fence);
                    self.replicas[replica].read_failed(partition, fence, self.now);
                } else {
                    self.soon_after(ModelEvent::ReadAnswered(replica, partition, fence, read));
                }
            }
            ModelEvent::ReadAnswered(replica, partition, fence, read) => {
                let scheduler = &mut self.replicas[replica];
                match read {
                    None => scheduler.read_failed(partition, fence, self.now),
                    Some(read) => {
                        let half = read.len() / 2;
                        if scheduler.page_read(partition, fence, &read[..half], true, self.now) {
                            scheduler.page_read(partition, fence, &read[half..], false, self.now);
                        }
                    }
                }
            }
            ModelEvent::LosesPartition(replica, partition, fence) => {
                self.replicas[replica].unassign(partition, fence);
            }
        }
    }

    fn begin(&mut self, begin: AttemptStart) -> BeginAnswer {
        let outbox = self.outboxes.get_mut(&begin.partition).unwrap();
        // An operation without an answer may have been carried out.
        let lost = self.now < outbox.silent_until;
        if lost && self.rng.bool() {
            return BeginAnswer::None;
        }
        if fence_of(outbox.owner, outbox.epoch) != begin.fence {
            return BeginAnswer::Fenced;
        }
        let Some(queue) = outbox.queues.get_mut(&begin.queue) else { return BeginAnswer::Empty };
        let answer = match (queue.waiting.front(), queue.attempt) {
            (None, _) => BeginAnswer::Empty,
            (Some(_), Some((token, until))) if token != begin.token && until > self.now => {
                BeginAnswer::Later(until)
            }
            (Some(_), None) if queue.due > self.now => BeginAnswer::Later(queue.due),
            (Some(id), _) => {
                queue.attempt = Some((begin.token, self.now + WINDOW));
                BeginAnswer::Claimed(*id)
            }
        };
        if lost { BeginAnswer::None } else { answer }
    }

    fn begin_answered(&mut self, replica: usize, begin: AttemptStart, answer: BeginAnswer) {
        let scheduler = &mut self.replicas[replica];
        match answer {
            BeginAnswer::Claimed(id) => {
                let at = ModelAttempt { replica, host: host_of_queue(begin.queue), fence: begin.fence };
                assert_eq!(self.attempts.insert((begin.partition, begin.queue), at), None, "two in flight");
                for replica in 0..2 {
                    let of = |host| {
                        self.attempts.values().filter(|at| at.replica == replica && at.host == host).count()
                    };
                    assert!((0..HOSTS).all(|host| of(host) <= MAX_PER_HOST));
                    assert!((0..HOSTS).map(of).sum::<usize>() <= MAX_IN_FLIGHT);
                }
                let took = Duration::from_millis(self.rng.u64(0..15_000));
                let last = self.rng.u8(0..30) == 0;
                self.later(took, ModelEvent::Attempted(replica, begin, id, last));
            }
            BeginAnswer::Later(due) => scheduler.attempt_deferred(begin.token, due, self.now),
            BeginAnswer::Empty => drop(scheduler.attempt_ended(begin.token, None, None, self.now)),
            BeginAnswer::None => scheduler.begin_unanswered(begin.token, self.now),
            BeginAnswer::Fenced => {
                scheduler.unassign(begin.partition, begin.fence);
                scheduler.attempt_ended(begin.token, None, None, self.now);
            }
        }
    }

    fn attempted(&mut self, replica: usize, begin: AttemptStart, id: u64, last: bool) {
        let ModelAttempt { host, .. } = self.attempts.remove(&(begin.partition, begin.queue)).unwrap();
        // One host always fails, and one fails sometimes.
        let fails = !self.healed && (host == 0 || host == 1 && self.rng.bool());
        let outcome = match (fails, last) {
            (true, true) => FinishOutcome::DeadLettered,
            (true, false) => FinishOutcome::Failed,
            (false, _) => FinishOutcome::Delivered,
        };
        if outcome == FinishOutcome::Delivered {
            let received = self.received.entry((begin.partition, begin.queue)).or_default();
            if !received.contains(&id) {
                received.push(id);
            }
        }
        self.soon_after(ModelEvent::Finishes(replica, begin, id, outcome));
    }

    /// Returns when the first delivery of the queue is due. The error is `true` for a foreign fence and `false` for a
    /// missing answer.
    fn finish(
        &mut self,
        begin: AttemptStart,
        id: u64,
        outcome: FinishOutcome,
    ) -> Result<Option<Timestamp>, bool> {
        let outbox = self.outboxes.get_mut(&begin.partition).unwrap();
        let lost = self.now < outbox.silent_until;
        if lost && self.rng.bool() {
            return Err(false);
        }
        if fence_of(outbox.owner, outbox.epoch) != begin.fence {
            return Err(true);
        }
        let queue = outbox.queues.get_mut(&begin.queue).unwrap();
        if queue.waiting.front() == Some(&id) && queue.attempt.is_some_and(|(token, _)| token == begin.token)
        {
            queue.attempt = None;
            queue.due = self.now;
            match outcome {
                FinishOutcome::Delivered => drop(queue.waiting.pop_front()),
                FinishOutcome::Failed => queue.due = self.now + Duration::from_millis(self.rng.u64(0..9000)),
                FinishOutcome::DeadLettered => queue.dead_letters.extend(queue.waiting.pop_front()),
            }
        }
        if lost {
            return Err(false);
        }
        let due = queue.attempt.map_or(queue.due, |(_, until)| until);
        Ok(queue.waiting.front().map(|_| due))
    }

    /// Advances to the next event. Returns `false` if there is none within that time.
    fn step(&mut self, within: Duration) -> bool {
        let end = self.now + within;
        let next_wake = self.replicas.iter().filter_map(Scheduler::wake_at).min().map(|at| at.max(self.now));
        let next_event = self.events.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = next_wake.into_iter().chain(next_event).min().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = next;
        if next_event == Some(next)
            && let Some((_, event)) = self.events.pop_first()
        {
            self.handle(event);
        }
        self.work();
        true
    }

    fn run(&mut self, actions: usize) {
        self.work();
        for _ in 0..actions {
            self.act();
            self.work();
            for _ in 0..self.rng.usize(0..8) {
                self.step(seconds(3));
            }
        }
        // Without further failures every delivery must end.
        self.healed = true;
        let end = self.now + Duration::from_hours(2);
        while self.now < end {
            self.step(seconds(60));
            if self
                .outboxes
                .values()
                .all(|outbox| outbox.queues.values().all(|queue| queue.waiting.is_empty()))
                && self.replicas.iter().all(|scheduler| scheduler.queues() == 0 && scheduler.in_flight() == 0)
            {
                break;
            }
        }
        for (partition, outbox) in &self.outboxes {
            for (id, queue) in &outbox.queues {
                assert_eq!(queue.waiting, [0; 0], "left in {partition} {id}");
                let received = self.received.get(&(*partition, *id)).map(Vec::as_slice).unwrap_or_default();
                assert!(received.is_sorted(), "out of order in {id}: {received:?}");
                let mut all: BTreeSet<_> = received.iter().copied().collect();
                all.extend(&queue.dead_letters);
                assert_eq!(
                    all,
                    queue.written.iter().copied().collect(),
                    "neither delivered nor dead-lettered"
                );
            }
        }
        for scheduler in &self.replicas {
            assert_eq!((scheduler.queues(), scheduler.open_circuits()), (0, 0));
            scheduler.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn delivery_in_any_world_is_delivered_in_order_or_dead(seed in any::<u64>(), actions in 1_usize..250) {
        SchedulerModel::new(seed).run(actions);
    }
}
