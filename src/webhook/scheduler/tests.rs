mod model;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::outbox_reads::READ_INTERVAL;
use super::*;
use crate::store::{Incarnation, PendingQueue};

const NOW: Timestamp = Timestamp::from_millis(1_763_845_000_000);

fn fence(epoch: u64) -> Fence {
    Fence { incarnation: Incarnation(7), epoch }
}

fn queue(number: u64) -> QueueId {
    QueueId::parse(&format!("{number:032x}")).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const PARTITION: Partition = Partition::from_byte(3);

/// Returns a scheduler with one partition whose outbox was read.
fn scheduler(max_in_flight: usize, max_per_host: usize) -> Scheduler {
    let wildcard = "https://*.shared.example/".parse().unwrap();
    let rng = fastrand::Rng::with_seed(5);
    let mut scheduler = Scheduler::new(max_in_flight, max_per_host, &[wildcard], rng);
    scheduler.assign(PARTITION, fence(1), NOW);
    assert_eq!(scheduler.next_read(NOW), Some((PARTITION, fence(1))));
    assert!(!scheduler.page_read(PARTITION, fence(1), &[], false, NOW));
    scheduler
}

impl Scheduler {
    fn notify(&mut self, host: &str, number: u64) {
        self.notify_due(PARTITION, fence(1), queue(number), &format!("https://{host}/in"), NOW);
    }

    /// Begins every possible attempt. Returns their number for each host, and the attempts.
    fn start_all(&mut self, now: Timestamp) -> (BTreeMap<String, usize>, Vec<AttemptStart>) {
        let mut counts = BTreeMap::new();
        let mut started = Vec::new();
        while let Some(start) = self.next_attempt(now) {
            *counts.entry(self.attempts[&start.token].host.to_string()).or_default() += 1;
            started.push(start);
        }
        (counts, started)
    }

    /// Checks that hosts and queues agree.
    pub(super) fn check(&self) {
        let mut queues = 0;
        let mut waiting: Vec<_> = self.hosts.all_waiting();
        for (partition, known) in &self.partitions {
            queues += known.queues.len();
            let in_flight =
                known.queues.values().filter(|queue| matches!(queue.state, QueueState::InFlight { .. }));
            assert_eq!(in_flight.count(), known.in_flight);
            for (id, queue) in &known.queues {
                if let QueueState::Waiting(due) = queue.state {
                    let entry = (queue.host.to_string(), due, *id, *partition);
                    let at = waiting
                        .iter()
                        .position(|known| *known == entry)
                        .expect("a waiting queue without a host");
                    waiting.swap_remove(at);
                }
                if let QueueState::Held(_) = queue.state {
                    assert!(
                        known.store_silent && known.ownership.active().is_some(),
                        "held without a reason"
                    );
                }
            }
        }
        assert_eq!(waiting, [], "hosts with queues that were removed");
        assert_eq!(queues, self.queues);
        assert_eq!(self.attempts.values().filter(|attempt| attempt.counted).count(), self.in_flight);
        assert!(self.in_flight <= self.max_in_flight);
        self.hosts.check(self.in_flight, self.queues);
    }
}

#[test]
fn busy_host_leaves_room_for_other_hosts() {
    let mut scheduler = scheduler(8, 5);
    for number in 0..20 {
        scheduler.notify("greedy", number);
    }
    let (counts, started) = scheduler.start_all(NOW);
    assert_eq!(counts, [("greedy:443".to_owned(), 4)].into());
    // Other hosts find room while the first one is busy.
    for number in 0..20 {
        scheduler.notify("second", 100 + number);
        scheduler.notify("third", 200 + number);
    }
    let (counts, _) = scheduler.start_all(NOW);
    assert_eq!(counts, [("second:443".to_owned(), 2), ("third:443".to_owned(), 1)].into());
    // The last place is for a host without an attempt in flight.
    scheduler.notify("fourth", 300);
    assert_eq!(scheduler.start_all(NOW).0, [("fourth:443".to_owned(), 1)].into());
    scheduler.notify("fifth", 400);
    assert_eq!(scheduler.start_all(NOW).0, BTreeMap::new());
    scheduler.attempt_ended(started[0].token, None, None, NOW);
    assert_eq!(scheduler.start_all(NOW).0, [("fifth:443".to_owned(), 1)].into());
    scheduler.check();
}

#[test]
fn hosts_of_a_wildcard_share_the_room_of_one() {
    let mut scheduler = scheduler(8, 5);
    for number in 0..90 {
        scheduler.notify(&format!("slow-{number}.shared.example"), number);
    }
    let (counts, started) = scheduler.start_all(NOW);
    assert_eq!((counts.len(), started.len()), (4, 4), "half of the room");
    scheduler.notify("good", 1000);
    assert_eq!(scheduler.start_all(NOW).0, [("good:443".to_owned(), 1)].into());
    // Another port, scheme or parent is no part of the wildcard.
    scheduler.notify("slow.shared.example:8443", 1001);
    assert_eq!(scheduler.start_all(NOW).1.len(), 1);
    // Within the wildcard every host has its turn.
    let mut served: BTreeSet<_> = counts.into_keys().collect();
    let mut in_flight: VecDeque<_> = started.into();
    while let Some(ended) = in_flight.pop_front() {
        scheduler.attempt_ended(ended.token, None, None, NOW);
        scheduler.check();
        let (counts, started) = scheduler.start_all(NOW);
        served.extend(counts.into_keys());
        in_flight.extend(started);
    }
    assert_eq!(served.len(), 90);
}

#[test]
fn host_at_its_limit_begins_no_attempt() {
    let mut scheduler = scheduler(100, 3);
    for number in 0..10 {
        scheduler.notify("one", number);
        scheduler.notify("one:8443", 100 + number);
    }
    let (counts, started) = scheduler.start_all(NOW);
    assert_eq!(counts, [("one:443".to_owned(), 3), ("one:8443".to_owned(), 3)].into());
    for start in started {
        scheduler.attempt_ended(start.token, None, None, NOW);
        scheduler.check();
    }
    assert_eq!(scheduler.start_all(NOW).1.len(), 6);
}

#[test]
fn queue_with_an_attempt_in_flight_begins_no_other() {
    let mut scheduler = scheduler(9, 9);
    scheduler.notify("one", 1);
    let first = scheduler.next_attempt(NOW).unwrap();
    scheduler.notify("one", 1);
    assert_eq!(scheduler.next_attempt(NOW), None);
    // The store answered before the delivery was written, so by the answer the queue is empty.
    scheduler.attempt_ended(first.token, None, Some(HostHealth::Healthy), NOW);
    let second = scheduler.next_attempt(NOW).unwrap();
    assert_ne!(second.token, first.token);
    scheduler.attempt_ended(second.token, None, Some(HostHealth::Healthy), NOW);
    assert_eq!((scheduler.next_attempt(NOW), scheduler.queues()), (None, 0));
    // A new delivery does not make the queue due before the retry of the first one.
    scheduler.notify("one", 1);
    let third = scheduler.next_attempt(NOW).unwrap();
    scheduler.attempt_ended(third.token, Some(NOW + seconds(5)), Some(HostHealth::Failing), NOW);
    scheduler.notify("one", 1);
    assert_eq!((scheduler.next_attempt(NOW), scheduler.wake_at()), (None, Some(NOW + seconds(5))));
    assert!(scheduler.next_attempt(NOW + seconds(5)).is_some());
}

#[test]
fn store_with_a_late_clock_is_asked_after_a_delay() {
    let mut scheduler = scheduler(9, 9);
    scheduler.notify("one", 1);
    let start = scheduler.next_attempt(NOW).unwrap();
    scheduler.attempt_deferred(start.token, NOW - seconds(3), NOW);
    assert_eq!((scheduler.next_attempt(NOW), scheduler.wake_at()), (None, Some(NOW + CLOCK_SKEW_DELAY)));
}

#[test]
fn host_with_an_open_circuit_gets_one_probe_at_a_time() {
    let mut scheduler = scheduler(100, 30);
    for number in 0..30 {
        scheduler.notify("dead", number);
    }
    let mut transitions = Vec::new();
    for start in scheduler.start_all(NOW).1 {
        transitions.extend(scheduler.attempt_ended(start.token, Some(NOW), Some(HostHealth::Failing), NOW));
    }
    assert_eq!(transitions, [("dead:443".into(), BreakerTransition::Opened)]);
    assert_eq!((scheduler.open_circuits(), scheduler.next_attempt(NOW)), (1, None));
    assert!(scheduler.is_idle(NOW), "a delivery behind an open circuit is not due");
    scheduler.notify("alive", 99);
    assert!(scheduler.next_attempt(NOW).is_some());

    let probe_at = NOW + seconds(5);
    assert_eq!(scheduler.wake_at(), Some(probe_at));
    let (_, probes) = scheduler.start_all(probe_at);
    assert_eq!(probes.len(), 1);
    // The queue was not due by the store, so the next queue is the probe.
    scheduler.attempt_deferred(probes[0].token, probe_at + seconds(60), probe_at);
    let (_, probes) = scheduler.start_all(probe_at);
    assert_eq!(probes.len(), 1);
    scheduler.attempt_ended(probes[0].token, Some(probe_at), Some(HostHealth::Failing), probe_at);
    assert_eq!(scheduler.start_all(probe_at + seconds(9)).1, []);
    let (_, probes) = scheduler.start_all(probe_at + seconds(10));
    let transitions =
        scheduler.attempt_ended(probes[0].token, None, Some(HostHealth::Healthy), probe_at + seconds(10));
    assert_eq!(transitions, Some(("dead:443".into(), BreakerTransition::Closed)));
    // One queue is empty and one is due later by the store.
    assert_eq!(scheduler.start_all(probe_at + seconds(10)).1.len(), 28);
    scheduler.check();
}

#[test]
fn host_without_queues_is_dropped() {
    let mut scheduler = scheduler(100, 30);
    for number in 0..20 {
        scheduler.notify("dead", number);
    }
    for start in scheduler.start_all(NOW).1 {
        scheduler.attempt_ended(start.token, Some(NOW), Some(HostHealth::Failing), NOW);
    }
    assert_eq!(scheduler.open_circuits(), 1);
    scheduler.unassign(PARTITION, fence(1));
    assert_eq!((scheduler.open_circuits(), scheduler.queues()), (0, 0));
    scheduler.check();
}

#[test]
fn draining_partition_begins_no_attempt() {
    let mut scheduler = scheduler(100, 30);
    scheduler.notify("one", 1);
    scheduler.notify("one", 2);
    let first = scheduler.next_attempt(NOW).unwrap();
    scheduler.drain(PARTITION, fence(1));
    scheduler.notify("one", 3);
    scheduler.request_read(PARTITION, NOW);
    assert_eq!((scheduler.next_attempt(NOW), scheduler.next_read(NOW + seconds(99))), (None, None));
    assert!(!scheduler.is_drained(PARTITION, fence(1)));
    scheduler.attempt_ended(first.token, Some(NOW), None, NOW);
    assert!(scheduler.is_drained(PARTITION, fence(1)));
    assert_eq!((scheduler.next_attempt(NOW), scheduler.queues()), (None, 0));
    scheduler.check();
}

#[test]
fn reassigned_partition_ignores_its_earlier_fence() {
    let mut scheduler = scheduler(100, 30);
    scheduler.notify("one", 1);
    let old = scheduler.next_attempt(NOW).unwrap();
    scheduler.assign(PARTITION, fence(2), NOW);
    let pending = PendingQueue {
        queue: queue(1),
        target: "https://one/in".into(),
        endpoint: None,
        due: NOW + seconds(20),
        since: NOW,
    };
    assert_eq!(scheduler.next_read(NOW), Some((PARTITION, fence(2))));
    scheduler.page_read(PARTITION, fence(2), &[pending], false, NOW);
    // An attempt under the earlier fence does not change the new one.
    scheduler.attempt_ended(old.token, None, None, NOW);
    scheduler.notify_due(PARTITION, fence(1), queue(2), "https://one/in", NOW);
    scheduler.drain(PARTITION, fence(1));
    scheduler.unassign(PARTITION, fence(1));
    assert_eq!((scheduler.next_attempt(NOW), scheduler.queues()), (None, 1));
    assert_eq!(scheduler.next_attempt(NOW + seconds(20)).unwrap().fence, fence(2));
    scheduler.check();
}

#[test]
fn silent_store_holds_attempts_and_repeats_the_token() {
    let mut scheduler = scheduler(100, 30);
    scheduler.notify("one", 1);
    let first = scheduler.next_attempt(NOW).unwrap();
    scheduler.begin_unanswered(first.token, NOW);
    scheduler.notify("one", 2);
    assert_eq!(scheduler.next_attempt(NOW), None);
    scheduler.check();
    // The reads of its outbox back off.
    let mut now = NOW;
    for _ in 0..5 {
        assert!(scheduler.wake_at().unwrap() <= now + seconds(2));
        now = scheduler.wake_at().unwrap();
        assert_eq!(scheduler.next_read(now), Some((PARTITION, fence(1))));
        scheduler.read_failed(PARTITION, fence(1), now);
        assert_eq!(scheduler.next_attempt(now), None);
    }
    now = scheduler.wake_at().unwrap();
    scheduler.next_read(now).unwrap();
    // The store had begun the attempt.
    let pending = PendingQueue {
        queue: queue(1),
        target: "https://one/in".into(),
        endpoint: None,
        due: now + seconds(20),
        since: NOW,
    };
    scheduler.page_read(PARTITION, fence(1), &[pending], false, now);
    let (_, started) = scheduler.start_all(now);
    assert_eq!(started.len(), 2);
    assert!(started.contains(&first));
    scheduler.check();
}

#[test]
fn store_that_refuses_only_writes_is_asked_with_backoff() {
    let mut scheduler = scheduler(100, 30);
    scheduler.notify("one", 1);
    let pending = |due| PendingQueue {
        queue: queue(1),
        target: "https://one/in".into(),
        endpoint: None,
        due,
        since: NOW,
    };
    let (mut now, mut looks) = (NOW, 0);
    while now < NOW + seconds(60) {
        if scheduler.next_read(now).is_some() {
            looks += 1;
            scheduler.page_read(PARTITION, fence(1), &[pending(NOW)], false, now);
        }
        while let Some(start) = scheduler.next_attempt(now) {
            scheduler.begin_unanswered(start.token, now);
        }
        scheduler.check();
        now = scheduler.wake_at().unwrap().max(now + Duration::from_millis(1));
    }
    assert!((30..90).contains(&looks), "{looks} looks in a minute; the longest delay is 2 s");

    // A write that succeeds ends the backoff.
    while scheduler.next_read(now).is_none() {
        now = scheduler.wake_at().unwrap();
    }
    scheduler.page_read(PARTITION, fence(1), &[pending(NOW)], false, now);
    let start = scheduler.next_attempt(now).unwrap();
    scheduler.attempt_ended(start.token, Some(now), None, now);
    let start = scheduler.next_attempt(now).unwrap();
    scheduler.begin_unanswered(start.token, now);
    assert!(scheduler.wake_at().unwrap() <= now + Duration::from_millis(250));
}

#[test]
fn unconfirmed_finish_frees_its_place() {
    let mut scheduler = scheduler(1, 1);
    let other = Partition::from_byte(4);
    scheduler.assign(other, fence(1), NOW);
    scheduler.notify("one", 1);
    scheduler.notify("one", 2);
    let first = scheduler.next_attempt(NOW).unwrap();
    scheduler.notify_due(other, fence(1), queue(9), "https://one/in", NOW);
    assert_eq!(scheduler.next_attempt(NOW), None);
    scheduler.finish_unanswered(first.token, NOW);
    let second = scheduler.next_attempt(NOW).unwrap();
    assert_eq!(second.partition, other);
    assert!(!scheduler.is_drained(PARTITION, fence(1)));
    scheduler.attempt_ended(first.token, None, Some(HostHealth::Healthy), NOW);
    scheduler.attempt_ended(second.token, None, Some(HostHealth::Healthy), NOW);
    assert!(scheduler.is_drained(PARTITION, fence(1)));
    scheduler.check();
}

#[test]
fn outbox_is_read_periodically_and_on_request() {
    let mut scheduler = scheduler(9, 9);
    let again = scheduler.wake_at().unwrap();
    assert!(again >= NOW + READ_INTERVAL / 2 && again <= NOW + READ_INTERVAL * 2);
    scheduler.request_all_reads(NOW);
    assert!(scheduler.next_read(NOW).is_some());
    // A read under way may lack the delivery of the new request.
    scheduler.request_read(PARTITION, NOW);
    assert_eq!(scheduler.next_read(NOW), None);
    let pending = PendingQueue {
        queue: queue(1),
        target: "https://one/in".into(),
        endpoint: None,
        due: NOW,
        since: NOW,
    };
    assert!(scheduler.page_read(PARTITION, fence(1), &[pending], true, NOW), "there is more");
    assert!(!scheduler.page_read(PARTITION, fence(1), &[], false, NOW));
    assert!(scheduler.next_read(NOW).is_some());
    // A redelivery left the queue, so the next delivery is due earlier than expected.
    let start = scheduler.next_attempt(NOW).unwrap();
    scheduler.attempt_ended(start.token, Some(NOW + seconds(3600)), None, NOW);
    let pending = |due| PendingQueue {
        queue: queue(1),
        target: "https://one/in".into(),
        endpoint: None,
        due,
        since: NOW,
    };
    scheduler.page_read(PARTITION, fence(1), &[pending(NOW)], true, NOW);
    // An older page does not postpone the queue.
    scheduler.page_read(PARTITION, fence(1), &[pending(NOW + seconds(20))], false, NOW);
    assert!(scheduler.next_attempt(NOW).is_some());
    scheduler.check();
}

#[test]
fn targets_with_the_same_host_and_port_share_one_host() {
    let name = |target| host_of(target).to_string();
    assert_eq!(name("https://Example.com/a?b"), "example.com:443");
    assert_eq!(name("https://example.com:443/c"), "example.com:443");
    assert_eq!(name("http://example.com/"), "example.com:80");
    assert_eq!(name("http://[::1]:8080/"), "[::1]:8080");
    assert_eq!(name("what is this?"), "");
}

#[test]
fn untried_delivery_expires_only_behind_a_failed_host() {
    let mut scheduler = scheduler(99, 99);
    for number in 0..20 {
        scheduler.notify("one", number);
    }
    for start in scheduler.start_all(NOW).1 {
        scheduler.attempt_ended(
            start.token,
            Some(NOW + Duration::from_hours(48)),
            Some(HostHealth::Failing),
            NOW,
        );
    }
    // After an outage of the replicas, no attempt was made for more than a day.
    let day = Duration::from_hours(24);
    let old = |now: Timestamp| PendingQueue {
        queue: queue(50),
        target: "https://one/in".into(),
        endpoint: None,
        due: now,
        since: Timestamp::from_millis(NOW.as_millis() - 90_000_000),
    };
    let mut started = |now: Timestamp, expired| {
        scheduler.request_read(PARTITION, now);
        assert!(scheduler.next_read(now).is_some());
        scheduler.page_read(PARTITION, fence(1), &[old(now)], false, now);
        let started = scheduler.start_all(now).1;
        assert!(started.iter().all(|start| start.expired == expired), "{now}: {started:?}");
        for start in &started {
            scheduler.attempt_ended(start.token, Some(now + seconds(60)), Some(HostHealth::Failing), now);
        }
        started.len()
    };
    assert_eq!(started(NOW, false), 0, "the circuit is open");
    assert_eq!(started(NOW + seconds(5), false), 1, "the host is probed");
    assert_eq!(started(NOW + day, true), 1);
}
