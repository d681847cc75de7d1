//! The agenda against a model of stores, receivers and replicas, over random outcomes and interleavings.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const PARTITIONS: u8 = 3;
const HOSTS: u64 = 5;
const QUEUES: u64 = 12;
const IN_ALL: usize = 4;
const PER_HOST: usize = 2;
const WINDOW: Duration = Duration::from_secs(20);

/// Replicas that share a store, and the receivers. Everything takes a random time.
struct World {
    rng: fastrand::Rng,
    now: Timestamp,
    replicas: [Scheduler; 2],
    outboxes: BTreeMap<Partition, Outbox>,
    happenings: BTreeMap<(Timestamp, u64), Happening>,
    count: u64,
    /// Queues that are being attempted, by whom and where.
    attempts: HashMap<(Partition, QueueId), Attempt>,
    /// What receivers took for the first time, in that order.
    received: HashMap<(Partition, QueueId), Vec<u64>>,
    /// Nothing fails any more.
    healed: bool,
}

#[derive(Debug, PartialEq)]
struct Attempt {
    replica: usize,
    host: u64,
    fence: Fence,
}

#[derive(Default)]
struct Outbox {
    owner: usize,
    epoch: u64,
    queues: BTreeMap<QueueId, Queue>,
    /// The store does not answer until then.
    away: Timestamp,
    /// On its way from one owner to the other.
    moving: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<u64>,
    written: Vec<u64>,
    buried: HashSet<u64>,
    due: Timestamp,
    flight: Option<(u64, Timestamp)>,
}

enum Happening {
    Rings(usize, Fence, Partition, QueueId),
    Begins(usize, AttemptStart),
    BeginAnswered(usize, AttemptStart, Answer),
    Attempted(usize, AttemptStart, u64, bool),
    Finishes(usize, AttemptStart, u64, Outcome),
    FinishAnswered(usize, AttemptStart, Outcome, Option<Timestamp>),
    FinishUnheard(usize, AttemptStart, u64, Outcome),
    Reads(usize, Partition, Fence),
    ReadAnswered(usize, Partition, Fence, Option<Vec<PendingQueue>>),
    Learns(usize, Partition, Fence),
}

#[derive(Clone, Copy)]
enum Answer {
    Taken(u64),
    Later(Timestamp),
    Empty,
    None,
    Fenced,
}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Took,
    Failed,
    Buried,
}

fn host_of_queue(queue: QueueId) -> u64 {
    u64::from_str_radix(&queue.to_string()[16..], 16).unwrap() % HOSTS
}

fn target(queue: QueueId) -> String {
    format!("https://host-{}/", host_of_queue(queue))
}

fn fence_of(owner: usize, epoch: u64) -> Fence {
    Fence { incarnation: Incarnation(owner as u64), epoch }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let replicas = [0, 1].map(|_| Scheduler::new(IN_ALL, PER_HOST, rng.fork()));
        let mut world = Self {
            rng,
            now: NOW,
            replicas,
            outboxes: BTreeMap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            attempts: HashMap::new(),
            received: HashMap::new(),
            healed: false,
        };
        for number in 0..PARTITIONS {
            let partition = Partition::from_byte(number);
            world.outboxes.insert(partition, Outbox { epoch: 1, ..Outbox::default() });
            world.replicas[0].own(partition, fence_of(0, 1), NOW);
        }
        world
    }

    fn soon(&mut self) -> Duration {
        let most = *self.rng.choice(&[2, 20, 500]).unwrap();
        Duration::from_millis(self.rng.u64(0..most))
    }

    fn later(&mut self, span: Duration, happening: Happening) {
        self.count += 1;
        self.happenings.insert((self.now + span, self.count), happening);
    }

    fn soon_after(&mut self, happening: Happening) {
        let span = self.soon();
        self.later(span, happening);
    }

    /// Something of the outside.
    fn deed(&mut self) {
        let partition = Partition::from_byte(self.rng.u8(0..PARTITIONS));
        match self.rng.u8(0..100) {
            0..70 => self.write(partition),
            70..78 if !self.healed => {
                let until = self.now + Duration::from_millis(self.rng.u64(0..5000));
                self.outboxes.get_mut(&partition).unwrap().away = until;
            }
            78..85 => self.take_over(partition),
            85..92 => self.release(partition),
            92..96 => {
                let replica = self.rng.usize(0..2);
                self.replicas[replica].look_everywhere(self.now);
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
        // A few rings are lost; the outbox is read from time to time.
        if self.rng.u8(0..10) > 0 {
            self.soon_after(Happening::Rings(owner, fence, partition, queue));
        }
    }

    /// Another claims the partition, without a word to its owner.
    fn take_over(&mut self, partition: Partition) {
        let outbox = self.outboxes.get_mut(&partition).unwrap();
        let (old, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        outbox.owner = self.rng.usize(0..2);
        outbox.epoch += 1;
        outbox.moving = false;
        let (new, claimed) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        // The same replica that claims again hears of that at once.
        if old != new {
            self.soon_after(Happening::Learns(old, partition, fence));
        }
        self.replicas[new].own(partition, claimed, self.now);
    }

    fn release(&mut self, partition: Partition) {
        let outbox = self.outboxes.get_mut(&partition).unwrap();
        outbox.moving = true;
        let (owner, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
        self.replicas[owner].release(partition, fence);
    }

    /// What was released and is quiet goes to the other.
    fn hand_over(&mut self) {
        let quiet: Vec<_> = self
            .outboxes
            .iter()
            .filter(|(partition, outbox)| {
                outbox.moving
                    && self.replicas[outbox.owner].is_quiet(**partition, fence_of(outbox.owner, outbox.epoch))
            })
            .map(|(partition, _)| *partition)
            .collect();
        for partition in quiet {
            let outbox = self.outboxes.get_mut(&partition).unwrap();
            let fence = fence_of(outbox.owner, outbox.epoch);
            assert!(!self.attempts.iter().any(|((of, _), at)| *of == partition && at.fence == fence));
            self.replicas[outbox.owner].lose(partition, fence_of(outbox.owner, outbox.epoch));
            outbox.owner = 1 - outbox.owner;
            outbox.epoch += 1;
            outbox.moving = false;
            let (owner, fence) = (outbox.owner, fence_of(outbox.owner, outbox.epoch));
            self.replicas[owner].own(partition, fence, self.now);
        }
    }

    /// Has both replicas do what is to be done now, and looks whether they do it all.
    fn work(&mut self) {
        self.hand_over();
        for number in 0..2 {
            while let Some((partition, fence)) = self.replicas[number].next_reading(self.now) {
                self.soon_after(Happening::Reads(number, partition, fence));
            }
            while let Some(begin) = self.replicas[number].next(self.now) {
                let part = &self.replicas[number].parts[&begin.partition];
                assert!(!part.releasing && part.fence == begin.fence, "begun where nothing may begin");
                self.soon_after(Happening::Begins(number, begin));
            }
            let agenda = &self.replicas[number];
            agenda.check();
            agenda.hosts.check_nobody_is_kept_waiting(self.now, agenda.in_all - agenda.in_flight);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Rings(replica, fence, partition, queue) => {
                self.replicas[replica].ring(partition, fence, queue, &target(queue), self.now);
            }
            Happening::Begins(replica, begin) => {
                let answer = self.begin(begin);
                self.soon_after(Happening::BeginAnswered(replica, begin, answer));
            }
            Happening::BeginAnswered(replica, begin, answer) => self.begun(replica, begin, answer),
            Happening::Attempted(replica, begin, id, last) => self.attempted(replica, begin, id, last),
            Happening::Finishes(replica, begin, id, outcome) => {
                let answer = self.finish(begin, id, outcome);
                match answer {
                    Err(true) => {
                        self.replicas[replica].lose(begin.partition, begin.fence);
                        self.replicas[replica].ended(begin.token, None, None, self.now);
                    }
                    Err(false) => self.soon_after(Happening::FinishUnheard(replica, begin, id, outcome)),
                    Ok(next) => self.soon_after(Happening::FinishAnswered(replica, begin, outcome, next)),
                }
            }
            Happening::FinishAnswered(replica, begin, outcome, next) => {
                let health = if outcome == Outcome::Took { HostHealth::Well } else { HostHealth::Ailing };
                self.replicas[replica].ended(begin.token, next, Some(health), self.now);
            }
            Happening::FinishUnheard(replica, begin, id, outcome) => {
                self.replicas[replica].delayed(begin.token, self.now);
                self.later(seconds(1), Happening::Finishes(replica, begin, id, outcome));
            }
            Happening::Reads(replica, partition, fence) => {
                let outbox = &self.outboxes[&partition];
                let answers = self.now >= outbox.away;
                let read =
                    outbox.queues.iter().filter(|(_, queue)| !queue.waiting.is_empty()).map(|(id, queue)| {
                        PendingQueue {
                            queue: *id,
                            target: target(*id).into(),
                            due: queue.flight.map_or(queue.due, |(_, until)| until),
                            // Some are overdue, and go also where nobody comes to.
                            since: Timestamp::from_millis(
                                NOW.as_millis() - if host_of_queue(*id) < 3 { 90_000_000 } else { 0 },
                            ),
                        }
                    });
                let read = answers.then(|| read.collect());
                if answers && fence_of(outbox.owner, outbox.epoch) != fence {
                    self.soon_after(Happening::Learns(replica, partition, fence));
                    self.replicas[replica].lose(partition, fence);
                    self.replicas[replica].not_read(partition, fence, self.now);
                } else {
                    self.soon_after(Happening::ReadAnswered(replica, partition, fence, read));
                }
            }
            Happening::ReadAnswered(replica, partition, fence, read) => {
                let agenda = &mut self.replicas[replica];
                match read {
                    None => agenda.not_read(partition, fence, self.now),
                    Some(read) => {
                        let half = read.len() / 2;
                        if agenda.read(partition, fence, &read[..half], true, self.now) {
                            agenda.read(partition, fence, &read[half..], false, self.now);
                        }
                    }
                }
            }
            Happening::Learns(replica, partition, fence) => self.replicas[replica].lose(partition, fence),
        }
    }

    fn begin(&mut self, begin: AttemptStart) -> Answer {
        let outbox = self.outboxes.get_mut(&begin.partition).unwrap();
        // Unknown: it may have been carried out.
        let lost = self.now < outbox.away;
        if lost && self.rng.bool() {
            return Answer::None;
        }
        if fence_of(outbox.owner, outbox.epoch) != begin.fence {
            return Answer::Fenced;
        }
        let Some(queue) = outbox.queues.get_mut(&begin.queue) else { return Answer::Empty };
        let answer = match (queue.waiting.front(), queue.flight) {
            (None, _) => Answer::Empty,
            (Some(_), Some((token, until))) if token != begin.token && until > self.now => {
                Answer::Later(until)
            }
            (Some(_), None) if queue.due > self.now => Answer::Later(queue.due),
            (Some(id), _) => {
                queue.flight = Some((begin.token, self.now + WINDOW));
                Answer::Taken(*id)
            }
        };
        if lost { Answer::None } else { answer }
    }

    fn begun(&mut self, replica: usize, begin: AttemptStart, answer: Answer) {
        let agenda = &mut self.replicas[replica];
        match answer {
            Answer::Taken(id) => {
                let at = Attempt { replica, host: host_of_queue(begin.queue), fence: begin.fence };
                assert_eq!(self.attempts.insert((begin.partition, begin.queue), at), None, "two in flight");
                for who in 0..2 {
                    let of = |host| {
                        self.attempts.values().filter(|at| at.replica == who && at.host == host).count()
                    };
                    assert!((0..HOSTS).all(|host| of(host) <= PER_HOST));
                    assert!((0..HOSTS).map(of).sum::<usize>() <= IN_ALL);
                }
                let took = Duration::from_millis(self.rng.u64(0..15_000));
                let last = self.rng.u8(0..30) == 0;
                self.later(took, Happening::Attempted(replica, begin, id, last));
            }
            Answer::Later(due) => agenda.later(begin.token, due, self.now),
            Answer::Empty => drop(agenda.ended(begin.token, None, None, self.now)),
            Answer::None => agenda.unanswered(begin.token, self.now),
            Answer::Fenced => {
                agenda.lose(begin.partition, begin.fence);
                agenda.ended(begin.token, None, None, self.now);
            }
        }
    }

    fn attempted(&mut self, replica: usize, begin: AttemptStart, id: u64, last: bool) {
        let Attempt { host, .. } = self.attempts.remove(&(begin.partition, begin.queue)).unwrap();
        // One host is dead, one fails now and then.
        let fails = !self.healed && (host == 0 || host == 1 && self.rng.bool());
        let outcome = match (fails, last) {
            (true, true) => Outcome::Buried,
            (true, false) => Outcome::Failed,
            (false, _) => Outcome::Took,
        };
        if outcome == Outcome::Took {
            let received = self.received.entry((begin.partition, begin.queue)).or_default();
            if !received.contains(&id) {
                received.push(id);
            }
        }
        self.soon_after(Happening::Finishes(replica, begin, id, outcome));
    }

    /// When the queue's first is due; an error where the store does not answer, or says that it is another's.
    fn finish(&mut self, begin: AttemptStart, id: u64, outcome: Outcome) -> Result<Option<Timestamp>, bool> {
        let outbox = self.outboxes.get_mut(&begin.partition).unwrap();
        let lost = self.now < outbox.away;
        if lost && self.rng.bool() {
            return Err(false);
        }
        if fence_of(outbox.owner, outbox.epoch) != begin.fence {
            return Err(true);
        }
        let queue = outbox.queues.get_mut(&begin.queue).unwrap();
        if queue.waiting.front() == Some(&id) && queue.flight.is_some_and(|(token, _)| token == begin.token) {
            queue.flight = None;
            queue.due = self.now;
            match outcome {
                Outcome::Took => drop(queue.waiting.pop_front()),
                Outcome::Failed => queue.due = self.now + Duration::from_millis(self.rng.u64(0..9000)),
                Outcome::Buried => queue.buried.extend(queue.waiting.pop_front()),
            }
        }
        if lost {
            return Err(false);
        }
        let due = queue.flight.map_or(queue.due, |(_, until)| until);
        Ok(queue.waiting.front().map(|_| due))
    }

    /// Goes on to the next thing that happens; false where nothing does within that time.
    fn step(&mut self, within: Duration) -> bool {
        let end = self.now + within;
        let wakes = self.replicas.iter().filter_map(Scheduler::wake_at).min().map(|at| at.max(self.now));
        let happens = self.happenings.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = wakes.into_iter().chain(happens).min().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = next;
        if happens == Some(next)
            && let Some((_, happening)) = self.happenings.pop_first()
        {
            self.happen(happening);
        }
        self.work();
        true
    }

    fn run(&mut self, deeds: usize) {
        self.work();
        for _ in 0..deeds {
            self.deed();
            self.work();
            for _ in 0..self.rng.usize(0..8) {
                self.step(seconds(3));
            }
        }
        // From here on everything is well, and everything comes to its end.
        self.healed = true;
        let end = self.now + Duration::from_hours(2);
        while self.now < end {
            self.step(seconds(60));
            if self
                .outboxes
                .values()
                .all(|outbox| outbox.queues.values().all(|queue| queue.waiting.is_empty()))
                && self.replicas.iter().all(|agenda| agenda.queues() == 0 && agenda.in_flight() == 0)
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
                all.extend(&queue.buried);
                assert_eq!(all, queue.written.iter().copied().collect(), "neither delivered nor buried");
            }
        }
        for agenda in &self.replicas {
            assert_eq!((agenda.queues(), agenda.open_breakers()), (0, 0));
            agenda.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_delivered_in_order_or_buried(seed in any::<u64>(), deeds in 1_usize..250) {
        World::new(seed).run(deeds);
    }
}
