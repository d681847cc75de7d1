//! The hosts that deliveries go to: whose turn it is.
//!
//! Hosts with something due take turns, one attempt each, however much waits for any of them. A host has no more than
//! its limit in flight, and never more than there is room left for others: so a host that takes long leaves a part of
//! the room free for every other, and the more of them there are, the less each of them has.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use url::Url;

use super::super::circuit_breaker::{BreakerTransition, CircuitBreaker, HostHealth};
use crate::domain::{Partition, Timestamp};
use crate::store::QueueId;

/// Host and port of a target, as its breaker and its limit go by them. Targets without any have one in common: they
/// are refused when they are attempted.
pub(in crate::webhook) fn name_of(target: &str) -> Rc<str> {
    let Ok(url) = Url::parse(target) else { return "".into() };
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default()).into()
}

/// All hosts that something is known for.
#[derive(Debug)]
pub(super) struct HostRotation {
    by_name: HashMap<Rc<str>, HostState>,
    /// Those that take turns. Each was found to have something due.
    ready: VecDeque<Rc<str>>,
    /// When to look at the others.
    timers: BTreeSet<(Timestamp, Rc<str>)>,
    per_host: usize,
    open: usize,
}

#[derive(Debug, Default)]
struct HostState {
    /// Queues that wait, by when they are due.
    due: BTreeSet<(Timestamp, QueueId, Partition)>,
    /// All queues that go here, those in flight and those held back included.
    queues: usize,
    in_flight: usize,
    breaker: CircuitBreaker,
    place: RotationSlot,
}

/// Where a host stands: at most in one place, so that it has one turn.
#[derive(Debug, Default, PartialEq, Eq)]
enum RotationSlot {
    #[default]
    Nowhere,
    Timed(Timestamp),
    Ready,
}

/// A queue whose turn it is.
#[derive(Debug)]
pub(super) struct DueQueue {
    pub(super) host: Rc<str>,
    pub(super) queue: QueueId,
    pub(super) partition: Partition,
    pub(super) due: Timestamp,
    /// The host's breaker is open.
    pub(super) probe: bool,
}

impl HostState {
    /// When something may begin here; none where first something has to end.
    fn wakes(&self, per_host: usize) -> Option<Timestamp> {
        let (due, ..) = self.due.first()?;
        match self.breaker.open_until() {
            Some(until) => (self.in_flight == 0).then(|| until.max(*due)),
            None => (self.in_flight < per_host).then_some(*due),
        }
    }
}

impl HostRotation {
    pub(super) fn new(per_host: usize) -> Self {
        let per_host = per_host.max(1);
        Self { by_name: HashMap::new(), ready: VecDeque::new(), timers: BTreeSet::new(), per_host, open: 0 }
    }

    /// A queue that goes to this target is known from now on. Returns its host's name.
    pub(super) fn enter(&mut self, target: &str) -> Rc<str> {
        let name = name_of(target);
        let known = self.by_name.get_key_value(&name).map(|(name, _)| Rc::clone(name));
        let name = known.unwrap_or(name);
        self.by_name.entry(Rc::clone(&name)).or_default().queues += 1;
        name
    }

    /// A queue is known no more; it does not wait.
    pub(super) fn leave(&mut self, name: &Rc<str>) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.queues -= 1;
        }
        self.forget_unused(name);
    }

    /// A queue waits.
    pub(super) fn wait(&mut self, name: &Rc<str>, due: Timestamp, queue: QueueId, partition: Partition) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.due.insert((due, queue, partition));
        }
        self.place(name);
    }

    /// A queue that waited does not any more.
    pub(super) fn recall(&mut self, name: &Rc<str>, due: Timestamp, queue: QueueId, partition: Partition) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.due.remove(&(due, queue, partition));
        }
        self.place(name);
    }

    /// Whose turn it is, where there is room for so many more attempts. What is returned counts as in flight.
    pub(super) fn pick(&mut self, now: Timestamp, room: usize) -> Option<DueQueue> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, name)) = self.timers.pop_first()
        {
            if let Some(host) = self.by_name.get_mut(&name) {
                host.place = RotationSlot::Ready;
                self.ready.push_back(name);
            }
        }
        for _ in 0..self.ready.len() {
            let name = self.ready.pop_front()?;
            let Some(host) = self.by_name.get_mut(&name) else { continue };
            host.place = RotationSlot::Nowhere;
            let may = host.wakes(self.per_host).is_some_and(|at| at <= now);
            if may && host.in_flight >= room {
                host.place = RotationSlot::Ready;
                self.ready.push_back(name);
                continue;
            }
            let first = if may { host.due.pop_first() } else { None };
            let probe = host.breaker.open_until().is_some();
            host.in_flight += usize::from(first.is_some());
            self.place(&name);
            if let Some((due, queue, partition)) = first {
                return Some(DueQueue { host: name, queue, partition, due, probe });
            }
            self.forget_unused(&name);
        }
        None
    }

    /// Whether something could begin now, if there is room.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        let due = |host: &HostState| host.due.first().is_some_and(|(due, ..)| *due <= now);
        self.by_name
            .values()
            .any(|host| host.breaker.open_until().is_none_or(|until| until <= now) && due(host))
    }

    /// What was picked is not in flight any more.
    pub(super) fn free(&mut self, name: &Rc<str>) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.in_flight -= 1;
        }
        self.place(name);
        self.forget_unused(name);
    }

    /// Since when the host has failed that is left alone, or only probed.
    pub(super) fn failing_since(&self, name: &Rc<str>) -> Option<Timestamp> {
        self.by_name.get(name)?.breaker.failing_since()
    }

    /// Something that does not go to the host takes a place there; false where none is free.
    pub(super) fn admit(&mut self, name: &Rc<str>) -> bool {
        let Some(host) = self.by_name.get_mut(name).filter(|host| host.in_flight < self.per_host) else {
            return false;
        };
        host.in_flight += 1;
        self.place(name);
        true
    }

    /// An attempt showed this of the host.
    pub(super) fn tell(
        &mut self,
        name: &Rc<str>,
        health: HostHealth,
        probe: bool,
        now: Timestamp,
    ) -> Option<BreakerTransition> {
        let switched = self.by_name.get_mut(name)?.breaker.tell(health, probe, now);
        match switched {
            Some(BreakerTransition::Opened) => self.open += 1,
            Some(BreakerTransition::Closed) => self.open -= 1,
            None => {}
        }
        self.place(name);
        switched
    }

    /// When the next host wants to be looked at.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Breakers that are open.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Has the host looked at when something may begin there, unless it has a turn anyway.
    fn place(&mut self, name: &Rc<str>) {
        let Some(host) = self.by_name.get_mut(name) else { return };
        let timed = match host.place {
            RotationSlot::Ready => return,
            RotationSlot::Timed(at) => Some(at),
            RotationSlot::Nowhere => None,
        };
        let wakes = host.wakes(self.per_host);
        if timed == wakes {
            return;
        }
        host.place = wakes.map_or(RotationSlot::Nowhere, RotationSlot::Timed);
        if let Some(at) = timed {
            self.timers.remove(&(at, Rc::clone(name)));
        }
        if let Some(at) = wakes {
            self.timers.insert((at, Rc::clone(name)));
        }
    }

    /// Callers name hosts, without end: of one that nothing goes to any more nothing is kept.
    fn forget_unused(&mut self, name: &Rc<str>) {
        let unused =
            |host: &HostState| host.queues == 0 && host.in_flight == 0 && host.place == RotationSlot::Nowhere;
        if self.by_name.get(name).is_some_and(unused)
            && let Some(host) = self.by_name.remove(name)
        {
            self.open -= usize::from(host.breaker.open_until().is_some());
        }
    }
}

#[cfg(test)]
impl HostRotation {
    /// Every queue that waits, with its host.
    pub(super) fn all_due(&self) -> Vec<(String, Timestamp, QueueId, Partition)> {
        let of = |(name, host): (&Rc<str>, &HostState)| {
            let name = name.to_string();
            host.due
                .iter()
                .map(move |(due, queue, partition)| (name.clone(), *due, *queue, *partition))
                .collect()
        };
        self.by_name.iter().flat_map::<Vec<_>, _>(of).collect()
    }

    /// Whether it agrees with itself, and with what is in flight and known.
    pub(super) fn check(&self, in_flight: usize, queues: usize) {
        assert_eq!(self.by_name.values().map(|host| host.in_flight).sum::<usize>(), in_flight);
        assert_eq!(self.by_name.values().map(|host| host.queues).sum::<usize>(), queues);
        assert_eq!(
            self.by_name.values().filter(|host| host.breaker.open_until().is_some()).count(),
            self.open
        );
        for (name, host) in &self.by_name {
            assert!(host.in_flight <= self.per_host);
            let timed = self.timers.iter().filter(|(_, timed)| timed == name).map(|(at, _)| *at);
            let ready = self.ready.iter().filter(|ready| *ready == name).count();
            match host.place {
                RotationSlot::Nowhere => assert_eq!((timed.count(), ready), (0, 0)),
                RotationSlot::Timed(at) => assert_eq!((timed.collect::<Vec<_>>(), ready), (vec![at], 0)),
                RotationSlot::Ready => assert_eq!((timed.count(), ready), (0, 1)),
            }
            assert!(
                host.place != RotationSlot::Nowhere || host.wakes(self.per_host).is_none(),
                "{name} sleeps for ever"
            );
            assert!(
                host.queues > 0 || host.in_flight > 0 || host.place == RotationSlot::Ready,
                "{name} is kept for nothing"
            );
        }
        assert!(
            self.timers
                .iter()
                .chain(
                    self.ready
                        .iter()
                        .map(|name| (Timestamp::default(), name.clone()))
                        .collect::<Vec<_>>()
                        .iter()
                )
                .all(|(_, name)| self.by_name.contains_key(name))
        );
    }

    /// While there is room, whoever has nothing in flight and something due has its turn at once.
    pub(super) fn check_nobody_is_kept_waiting(&self, now: Timestamp, room: usize) {
        for (name, host) in &self.by_name {
            let waits =
                room > 0 && host.in_flight == 0 && host.wakes(self.per_host).is_some_and(|at| at <= now);
            assert!(!waits, "{name} is kept waiting");
        }
    }
}
