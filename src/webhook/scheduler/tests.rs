mod model;

use std::collections::BTreeMap;

use super::*;
use crate::store::Incarnation;

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

/// An agenda that owns a partition whose outbox was read.
fn agenda(in_all: usize, per_host: usize) -> Scheduler {
    let mut agenda = Scheduler::new(in_all, per_host, fastrand::Rng::with_seed(5));
    agenda.own(PARTITION, fence(1), NOW);
    assert_eq!(agenda.next_reading(NOW), Some((PARTITION, fence(1))));
    assert!(!agenda.read(PARTITION, fence(1), &[], false, NOW));
    agenda
}

impl Scheduler {
    fn ring_at(&mut self, host: &str, number: u64) {
        self.ring(PARTITION, fence(1), queue(number), &format!("https://{host}/in"), NOW);
    }

    /// Begins all that may begin: how many at each host.
    fn begin_all(&mut self, now: Timestamp) -> (BTreeMap<String, usize>, Vec<AttemptStart>) {
        let mut counts = BTreeMap::new();
        let mut begun = Vec::new();
        while let Some(begin) = self.next(now) {
            *counts.entry(self.flights[&begin.token].host.to_string()).or_default() += 1;
            begun.push(begin);
        }
        (counts, begun)
    }

    /// Whether what it keeps of hosts agrees with what it keeps of queues.
    pub(super) fn check(&self) {
        let mut queues = 0;
        let mut waiting: Vec<_> = self.hosts.all_due();
        for (partition, part) in &self.parts {
            queues += part.queues.len();
            let flying =
                part.queues.values().filter(|queue| matches!(queue.state, QueueState::InFlight { .. }));
            assert_eq!(flying.count(), part.flights);
            for (id, queue) in &part.queues {
                if let QueueState::Waiting(due) = queue.state {
                    let entry = (queue.host.to_string(), due, *id, *partition);
                    let at = waiting
                        .iter()
                        .position(|known| *known == entry)
                        .expect("a queue that waits for nobody");
                    waiting.swap_remove(at);
                }
                if let QueueState::Held(_) = queue.state {
                    assert!(part.is_silent() && !part.releasing, "held for nothing");
                }
            }
        }
        assert_eq!(waiting, [], "hosts wait for queues that are forgotten");
        assert_eq!(queues, self.queues);
        assert_eq!(self.flights.values().filter(|flight| flight.counts).count(), self.in_flight);
        assert!(self.in_flight <= self.in_all);
        self.hosts.check(self.in_flight, self.queues);
    }
}

#[test]
fn hosts_take_turns_and_leave_room_for_others() {
    let mut agenda = agenda(8, 5);
    for number in 0..20 {
        agenda.ring_at("greedy", number);
    }
    let (counts, begun) = agenda.begin_all(NOW);
    assert_eq!(counts, [("greedy:443".to_owned(), 4)].into());
    // Others come and find room, however long that one takes.
    for number in 0..20 {
        agenda.ring_at("second", 100 + number);
        agenda.ring_at("third", 200 + number);
    }
    let (counts, _) = agenda.begin_all(NOW);
    assert_eq!(counts, [("second:443".to_owned(), 2), ("third:443".to_owned(), 1)].into());
    // The last place is for one that has nothing in flight yet.
    agenda.ring_at("fourth", 300);
    assert_eq!(agenda.begin_all(NOW).0, [("fourth:443".to_owned(), 1)].into());
    agenda.ring_at("fifth", 400);
    assert_eq!(agenda.begin_all(NOW).0, BTreeMap::new());
    agenda.ended(begun[0].token, None, None, NOW);
    assert_eq!(agenda.begin_all(NOW).0, [("fifth:443".to_owned(), 1)].into());
    agenda.check();
}

#[test]
fn no_host_has_more_than_its_limit() {
    let mut agenda = agenda(100, 3);
    for number in 0..10 {
        agenda.ring_at("one", number);
        agenda.ring_at("one:8443", 100 + number);
    }
    let (counts, begun) = agenda.begin_all(NOW);
    assert_eq!(counts, [("one:443".to_owned(), 3), ("one:8443".to_owned(), 3)].into());
    for begin in begun {
        agenda.ended(begin.token, None, None, NOW);
        agenda.check();
    }
    assert_eq!(agenda.begin_all(NOW).1.len(), 6);
}

#[test]
fn a_queue_has_one_attempt_in_flight_and_what_came_meanwhile_is_next() {
    let mut agenda = agenda(9, 9);
    agenda.ring_at("one", 1);
    let first = agenda.next(NOW).unwrap();
    agenda.ring_at("one", 1);
    assert_eq!(agenda.next(NOW), None);
    // By the answer the queue is empty: it was given before the delivery was written.
    agenda.ended(first.token, None, Some(HostHealth::Well), NOW);
    let second = agenda.next(NOW).unwrap();
    assert_ne!(second.token, first.token);
    agenda.ended(second.token, None, Some(HostHealth::Well), NOW);
    assert_eq!((agenda.next(NOW), agenda.queues()), (None, 0));
    // One that waits for its next attempt is not due because another is written behind it.
    agenda.ring_at("one", 1);
    let third = agenda.next(NOW).unwrap();
    agenda.ended(third.token, Some(NOW + seconds(5)), Some(HostHealth::Ailing), NOW);
    agenda.ring_at("one", 1);
    assert_eq!((agenda.next(NOW), agenda.wake_at()), (None, Some(NOW + seconds(5))));
    assert!(agenda.next(NOW + seconds(5)).is_some());
}

#[test]
fn a_clock_that_is_behind_ours_is_not_asked_without_end() {
    let mut agenda = agenda(9, 9);
    agenda.ring_at("one", 1);
    let begin = agenda.next(NOW).unwrap();
    agenda.later(begin.token, NOW - seconds(3), NOW);
    assert_eq!((agenda.next(NOW), agenda.wake_at()), (None, Some(NOW + SOON)));
}

#[test]
fn a_host_that_fails_again_and_again_is_probed_by_one_at_a_time() {
    let mut agenda = agenda(100, 30);
    for number in 0..30 {
        agenda.ring_at("dead", number);
    }
    let mut switched = Vec::new();
    for begin in agenda.begin_all(NOW).1 {
        switched.extend(agenda.ended(begin.token, Some(NOW), Some(HostHealth::Ailing), NOW));
    }
    assert_eq!(switched, [("dead:443".into(), BreakerTransition::Opened)]);
    assert_eq!((agenda.open_breakers(), agenda.next(NOW)), (1, None));
    assert!(agenda.is_calm(NOW), "what a breaker keeps back holds nobody up");
    agenda.ring_at("alive", 99);
    assert!(agenda.next(NOW).is_some());

    let probe_at = NOW + seconds(5);
    assert_eq!(agenda.wake_at(), Some(probe_at));
    let (_, probes) = agenda.begin_all(probe_at);
    assert_eq!(probes.len(), 1);
    // The store had nothing due in that queue: the next one is the probe.
    agenda.later(probes[0].token, probe_at + seconds(60), probe_at);
    let (_, probes) = agenda.begin_all(probe_at);
    assert_eq!(probes.len(), 1);
    agenda.ended(probes[0].token, Some(probe_at), Some(HostHealth::Ailing), probe_at);
    assert_eq!(agenda.begin_all(probe_at + seconds(9)).1, []);
    let (_, probes) = agenda.begin_all(probe_at + seconds(10));
    let switched = agenda.ended(probes[0].token, None, Some(HostHealth::Well), probe_at + seconds(10));
    assert_eq!(switched, Some(("dead:443".into(), BreakerTransition::Closed)));
    // All but what is delivered, and what is due later by the store.
    assert_eq!(agenda.begin_all(probe_at + seconds(10)).1.len(), 28);
    agenda.check();
}

#[test]
fn of_a_host_that_nothing_goes_to_nothing_is_kept() {
    let mut agenda = agenda(100, 30);
    for number in 0..20 {
        agenda.ring_at("dead", number);
    }
    for begin in agenda.begin_all(NOW).1 {
        agenda.ended(begin.token, Some(NOW), Some(HostHealth::Ailing), NOW);
    }
    assert_eq!(agenda.open_breakers(), 1);
    agenda.lose(PARTITION, fence(1));
    assert_eq!((agenda.open_breakers(), agenda.queues()), (0, 0));
    agenda.check();
}

#[test]
fn nothing_begins_in_a_partition_on_its_way_out() {
    let mut agenda = agenda(100, 30);
    agenda.ring_at("one", 1);
    agenda.ring_at("one", 2);
    let first = agenda.next(NOW).unwrap();
    agenda.release(PARTITION, fence(1));
    agenda.ring_at("one", 3);
    agenda.look(PARTITION, NOW);
    assert_eq!((agenda.next(NOW), agenda.next_reading(NOW + seconds(99))), (None, None));
    assert!(!agenda.is_quiet(PARTITION, fence(1)));
    agenda.ended(first.token, Some(NOW), None, NOW);
    assert!(agenda.is_quiet(PARTITION, fence(1)));
    assert_eq!((agenda.next(NOW), agenda.queues()), (None, 0));
    agenda.check();
}

#[test]
fn what_is_lost_and_owned_again_begins_anew() {
    let mut agenda = agenda(100, 30);
    agenda.ring_at("one", 1);
    let old = agenda.next(NOW).unwrap();
    agenda.own(PARTITION, fence(2), NOW);
    let read =
        PendingQueue { queue: queue(1), target: "https://one/in".into(), due: NOW + seconds(20), since: NOW };
    assert_eq!(agenda.next_reading(NOW), Some((PARTITION, fence(2))));
    agenda.read(PARTITION, fence(2), &[read], false, NOW);
    // What ends of the earlier tenure says nothing of this one.
    agenda.ended(old.token, None, None, NOW);
    agenda.ring(PARTITION, fence(1), queue(2), "https://one/in", NOW);
    agenda.release(PARTITION, fence(1));
    agenda.lose(PARTITION, fence(1));
    assert_eq!((agenda.next(NOW), agenda.queues()), (None, 1));
    assert_eq!(agenda.next(NOW + seconds(20)).unwrap().fence, fence(2));
    agenda.check();
}

#[test]
fn while_the_store_is_silent_nothing_begins_and_the_same_attempt_is_repeated() {
    let mut agenda = agenda(100, 30);
    agenda.ring_at("one", 1);
    let first = agenda.next(NOW).unwrap();
    agenda.unanswered(first.token, NOW);
    agenda.ring_at("one", 2);
    assert_eq!(agenda.next(NOW), None);
    agenda.check();
    // Its outbox is asked for, less and less often.
    let mut now = NOW;
    for _ in 0..5 {
        assert!(agenda.wake_at().unwrap() <= now + seconds(2));
        now = agenda.wake_at().unwrap();
        assert_eq!(agenda.next_reading(now), Some((PARTITION, fence(1))));
        agenda.not_read(PARTITION, fence(1), now);
        assert_eq!(agenda.next(now), None);
    }
    now = agenda.wake_at().unwrap();
    agenda.next_reading(now).unwrap();
    // The attempt was noted, as it turns out.
    let read =
        PendingQueue { queue: queue(1), target: "https://one/in".into(), due: now + seconds(20), since: NOW };
    agenda.read(PARTITION, fence(1), &[read], false, now);
    let (_, begun) = agenda.begin_all(now);
    assert_eq!(begun.len(), 2);
    assert!(begun.contains(&first));
    agenda.check();
}

#[test]
fn who_cannot_tell_the_store_how_it_ended_gives_its_place_to_others() {
    let mut agenda = agenda(1, 1);
    let other = Partition::from_byte(4);
    agenda.own(other, fence(1), NOW);
    agenda.ring_at("one", 1);
    agenda.ring_at("one", 2);
    let first = agenda.next(NOW).unwrap();
    agenda.ring(other, fence(1), queue(9), "https://one/in", NOW);
    assert_eq!(agenda.next(NOW), None);
    agenda.delayed(first.token, NOW);
    let second = agenda.next(NOW).unwrap();
    assert_eq!(second.partition, other);
    assert!(!agenda.is_quiet(PARTITION, fence(1)));
    agenda.ended(first.token, None, Some(HostHealth::Well), NOW);
    agenda.ended(second.token, None, Some(HostHealth::Well), NOW);
    assert!(agenda.is_quiet(PARTITION, fence(1)));
    agenda.check();
}

#[test]
fn outboxes_are_read_again_from_time_to_time_and_when_asked() {
    let mut agenda = agenda(9, 9);
    let again = agenda.wake_at().unwrap();
    assert!(again >= NOW + READ_AGAIN / 2 && again <= NOW + READ_AGAIN * 2);
    agenda.look_everywhere(NOW);
    assert!(agenda.next_reading(NOW).is_some());
    // Asked for while it is read: what was asked for may not be in it.
    agenda.look(PARTITION, NOW);
    assert_eq!(agenda.next_reading(NOW), None);
    let read = PendingQueue { queue: queue(1), target: "https://one/in".into(), due: NOW, since: NOW };
    assert!(agenda.read(PARTITION, fence(1), &[read], true, NOW), "there is more");
    assert!(!agenda.read(PARTITION, fence(1), &[], false, NOW));
    assert!(agenda.next_reading(NOW).is_some());
    // One that was redelivered out of its queue: the next in it is due sooner than was thought.
    let begin = agenda.next(NOW).unwrap();
    agenda.ended(begin.token, Some(NOW + seconds(3600)), None, NOW);
    let read = |due| PendingQueue { queue: queue(1), target: "https://one/in".into(), due, since: NOW };
    agenda.read(PARTITION, fence(1), &[read(NOW)], true, NOW);
    // And one that was read before that puts nothing off.
    agenda.read(PARTITION, fence(1), &[read(NOW + seconds(20))], false, NOW);
    assert!(agenda.next(NOW).is_some());
    agenda.check();
}

#[test]
fn targets_that_go_to_one_port_are_one_host() {
    let name = |target| host_rotation::name_of(target).to_string();
    assert_eq!(name("https://Example.com/a?b"), "example.com:443");
    assert_eq!(name("https://example.com:443/c"), "example.com:443");
    assert_eq!(name("http://example.com/"), "example.com:80");
    assert_eq!(name("http://[::1]:8080/"), "[::1]:8080");
    assert_eq!(name("what is this?"), "");
}

#[test]
fn only_a_host_that_failed_for_a_day_has_what_nobody_tried_buried() {
    let mut agenda = agenda(99, 99);
    for number in 0..20 {
        agenda.ring_at("one", number);
    }
    for begin in agenda.begin_all(NOW).1 {
        agenda.ended(begin.token, Some(NOW + Duration::from_hours(48)), Some(HostHealth::Ailing), NOW);
    }
    // As it is found after an outage of the replicas: nobody came to it for more than a day.
    let day = Duration::from_hours(24);
    let old = |now: Timestamp| PendingQueue {
        queue: queue(50),
        target: "https://one/in".into(),
        due: now,
        since: Timestamp::from_millis(NOW.as_millis() - 90_000_000),
    };
    let mut began = |now: Timestamp, overdue| {
        agenda.look(PARTITION, now);
        assert!(agenda.next_reading(now).is_some());
        agenda.read(PARTITION, fence(1), &[old(now)], false, now);
        let begun = agenda.begin_all(now).1;
        assert!(begun.iter().all(|begin| begin.overdue == overdue), "{now}: {begun:?}");
        for begin in &begun {
            agenda.ended(begin.token, Some(now + seconds(60)), Some(HostHealth::Ailing), now);
        }
        begun.len()
    };
    assert_eq!(began(NOW, false), 0, "the host is left alone");
    assert_eq!(began(NOW + seconds(5), false), 1, "it is probed");
    assert_eq!(began(NOW + day, true), 1);
}
