//! Decides which host has the next turn.
//!
//! A caller can invent any number of names below a wildcard of `webhooks.allowed`. So the hosts that one wildcard covers
//! are one group, and any other host is a group of its own.
//!
//! Groups with a due delivery take turns, and the hosts of a group take turns within it. One turn is one attempt, however
//! many deliveries wait. A group has at most as many attempts in flight as there is room left for others. So slow hosts
//! leave a share of the room to every other group. The share falls with the number of groups. A host also has at most
//! `max_per_host` attempts in flight.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use url::Url;

use super::super::circuit_breaker::{BreakerTransition, CircuitBreaker, HostHealth};
use crate::domain::{Partition, Timestamp, UrlPattern};
use crate::store::QueueId;

/// Returns the host and port of a target, the key of its circuit breaker and its limit. Targets without a host share
/// one key; their attempts are refused.
pub(in crate::webhook) fn host_of(target: &str) -> Rc<str> {
    let Ok(url) = Url::parse(target) else { return "".into() };
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default()).into()
}

/// All hosts with a queue or an attempt in flight.
#[derive(Debug)]
pub(super) struct HostRotation {
    by_name: HashMap<Rc<str>, HostState>,
    groups: HashMap<Rc<str>, HostGroup>,
    /// The patterns that make groups.
    wildcards: Vec<UrlPattern>,
    /// The groups that take turns. Each has a host that was ready when the group was added.
    ready: VecDeque<Rc<str>>,
    /// The times at which other hosts become ready.
    timers: BTreeSet<(Timestamp, Rc<str>)>,
    max_per_host: usize,
    open_circuits: usize,
}

/// Hosts that share a part of the room.
#[derive(Debug, Default)]
struct HostGroup {
    /// The hosts that take turns. Each had a due queue when it was added.
    ready: VecDeque<Rc<str>>,
    /// The number of its hosts in the table.
    hosts: usize,
    in_flight: usize,
    /// Whether the group is among those that take turns.
    takes_turns: bool,
}

#[derive(Debug)]
struct HostState {
    group: Rc<str>,
    /// The waiting queues, ordered by due time.
    waiting: BTreeSet<(Timestamp, QueueId, Partition)>,
    /// The number of all queues to this host, in every state.
    queues: usize,
    in_flight: usize,
    breaker: CircuitBreaker,
    slot: RotationSlot,
}

/// The place of a host in the rotation. It is at one place at most, so it has one turn.
#[derive(Debug, Default, PartialEq, Eq)]
enum RotationSlot {
    #[default]
    Absent,
    Timed(Timestamp),
    Ready,
}

/// A queue whose attempt may begin.
#[derive(Debug)]
pub(super) struct DueQueue {
    pub(super) host: Rc<str>,
    pub(super) queue: QueueId,
    pub(super) partition: Partition,
    pub(super) due: Timestamp,
    /// Whether the circuit of the host is open.
    pub(super) probe: bool,
}

impl HostState {
    /// Creates the state of a host with one queue.
    fn new(group: Rc<str>) -> Self {
        Self {
            group,
            waiting: BTreeSet::new(),
            queues: 1,
            in_flight: 0,
            breaker: CircuitBreaker::default(),
            slot: RotationSlot::default(),
        }
    }

    /// Returns when the next attempt may begin; `None` if an attempt has to end first.
    fn next_start(&self, max_per_host: usize) -> Option<Timestamp> {
        let (due, ..) = self.waiting.first()?;
        match self.breaker.open_until() {
            Some(until) => (self.in_flight == 0).then(|| until.max(*due)),
            None => (self.in_flight < max_per_host).then_some(*due),
        }
    }
}

impl HostRotation {
    /// Creates an empty rotation. The wildcards of `allowed` make groups.
    pub(super) fn new(max_per_host: usize, allowed: &[UrlPattern]) -> Self {
        Self {
            by_name: HashMap::new(),
            groups: HashMap::new(),
            wildcards: allowed.iter().filter(|pattern| pattern.is_wildcard()).cloned().collect(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            max_per_host: max_per_host.max(1),
            open_circuits: 0,
        }
    }

    /// Counts a new queue to this target. Returns the name of its host.
    pub(super) fn add_queue(&mut self, target: &str) -> Rc<str> {
        let name = host_of(target);
        let known = self.by_name.get_key_value(&name).map(|(name, _)| Rc::clone(name));
        let name = known.unwrap_or(name);
        if let Some(host) = self.by_name.get_mut(&name) {
            host.queues += 1;
        } else {
            let group = self.group_of(target, &name);
            self.groups.entry(Rc::clone(&group)).or_default().hosts += 1;
            self.by_name.insert(Rc::clone(&name), HostState::new(group));
        }
        name
    }

    /// Returns the name of a target's group. The text of a pattern and the name of a host differ.
    fn group_of(&self, target: &str, host: &Rc<str>) -> Rc<str> {
        let url = Url::parse(target).ok();
        let wildcard = url.and_then(|url| self.wildcards.iter().find(|pattern| pattern.covers_origin(&url)));
        wildcard.map_or_else(|| Rc::clone(host), |pattern| pattern.to_string().into())
    }

    /// Forgets a queue that does not wait.
    pub(super) fn remove_queue(&mut self, name: &Rc<str>) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.queues -= 1;
        }
        self.drop_unused(name);
    }

    /// Lets a queue wait for its due time and its turn.
    pub(super) fn schedule(&mut self, name: &Rc<str>, due: Timestamp, queue: QueueId, partition: Partition) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.waiting.insert((due, queue, partition));
        }
        self.reposition(name);
    }

    /// Ends the wait of a queue.
    pub(super) fn unschedule(
        &mut self,
        name: &Rc<str>,
        due: Timestamp,
        queue: QueueId,
        partition: Partition,
    ) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.waiting.remove(&(due, queue, partition));
        }
        self.reposition(name);
    }

    /// Returns the queue with the next turn, and counts its attempt as in flight. `room` is the number of attempts that
    /// may still begin.
    pub(super) fn next_due(&mut self, now: Timestamp, room: usize) -> Option<DueQueue> {
        self.collect_ready(now);
        for _ in 0..self.ready.len() {
            let name = self.ready.pop_front()?;
            let Some(group) = self.groups.get_mut(&name) else { continue };
            if group.in_flight >= room {
                self.ready.push_back(name);
                continue;
            }
            group.takes_turns = false;
            let due = self.next_of_group(&name, now);
            if let Some(group) = self.groups.get_mut(&name)
                && !group.ready.is_empty()
            {
                group.takes_turns = true;
                self.ready.push_back(name);
            }
            if due.is_some() {
                return due;
            }
        }
        None
    }

    /// Lets the hosts take turns whose time has come.
    fn collect_ready(&mut self, now: Timestamp) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, name)) = self.timers.pop_first()
        {
            let Some(host) = self.by_name.get_mut(&name) else { continue };
            host.slot = RotationSlot::Ready;
            let Some(group) = self.groups.get_mut(&host.group) else { continue };
            group.ready.push_back(name);
            if !std::mem::replace(&mut group.takes_turns, true) {
                self.ready.push_back(Rc::clone(&host.group));
            }
        }
    }

    /// Returns the queue with the next turn within a group, and counts its attempt as in flight.
    fn next_of_group(&mut self, group: &Rc<str>, now: Timestamp) -> Option<DueQueue> {
        while let Some(name) = self.groups.get_mut(group)?.ready.pop_front() {
            let Some(host) = self.by_name.get_mut(&name) else { continue };
            host.slot = RotationSlot::Absent;
            let may = host.next_start(self.max_per_host).is_some_and(|at| at <= now);
            let first = if may { host.waiting.pop_first() } else { None };
            let probe = host.breaker.open_until().is_some();
            if first.is_some() {
                self.count_start(&name);
            }
            self.reposition(&name);
            if let Some((due, queue, partition)) = first {
                return Some(DueQueue { host: name, queue, partition, due, probe });
            }
            self.drop_unused(&name);
        }
        None
    }

    /// Counts an attempt as in flight.
    fn count_start(&mut self, name: &Rc<str>) {
        let Some(host) = self.by_name.get_mut(name) else { return };
        host.in_flight += 1;
        if let Some(group) = self.groups.get_mut(&host.group) {
            group.in_flight += 1;
        }
    }

    /// Returns whether an attempt could begin now, given enough room.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        let due = |host: &HostState| host.waiting.first().is_some_and(|(due, ..)| *due <= now);
        self.by_name
            .values()
            .any(|host| host.breaker.open_until().is_none_or(|until| until <= now) && due(host))
    }

    /// Counts an attempt as ended.
    pub(super) fn release_slot(&mut self, name: &Rc<str>) {
        if let Some(host) = self.by_name.get_mut(name) {
            host.in_flight -= 1;
            if let Some(group) = self.groups.get_mut(&host.group) {
                group.in_flight -= 1;
            }
        }
        self.reposition(name);
        self.drop_unused(name);
    }

    /// Returns since when a host with an open circuit has failed.
    pub(super) fn failing_since(&self, name: &Rc<str>) -> Option<Timestamp> {
        self.by_name.get(name)?.breaker.failing_since()
    }

    /// Counts an attempt outside of the rotation as in flight. Returns `false` if the host is at its limit.
    pub(super) fn take_slot(&mut self, name: &Rc<str>) -> bool {
        let has_room = self.by_name.get(name).is_some_and(|host| host.in_flight < self.max_per_host);
        if has_room {
            self.count_start(name);
            self.reposition(name);
        }
        has_room
    }

    /// Passes the result of an attempt to the host's circuit breaker.
    pub(super) fn record_health(
        &mut self,
        name: &Rc<str>,
        health: HostHealth,
        probe: bool,
        now: Timestamp,
    ) -> Option<BreakerTransition> {
        let transition = self.by_name.get_mut(name)?.breaker.record(health, probe, now);
        match transition {
            Some(BreakerTransition::Opened) => self.open_circuits += 1,
            Some(BreakerTransition::Closed) => self.open_circuits -= 1,
            None => {}
        }
        self.reposition(name);
        transition
    }

    /// Returns when the next host becomes ready.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns the number of open circuits.
    pub(super) const fn open_circuits(&self) -> usize {
        self.open_circuits
    }

    /// Sets the timer of a host to its next possible start. A host that is ready stays so.
    fn reposition(&mut self, name: &Rc<str>) {
        let Some(host) = self.by_name.get_mut(name) else { return };
        let timed = match host.slot {
            RotationSlot::Ready => return,
            RotationSlot::Timed(at) => Some(at),
            RotationSlot::Absent => None,
        };
        let start = host.next_start(self.max_per_host);
        if timed == start {
            return;
        }
        host.slot = start.map_or(RotationSlot::Absent, RotationSlot::Timed);
        if let Some(at) = timed {
            self.timers.remove(&(at, Rc::clone(name)));
        }
        if let Some(at) = start {
            self.timers.insert((at, Rc::clone(name)));
        }
    }

    /// Drops a host without queues and attempts. Callers name hosts, so the table would grow without a bound.
    fn drop_unused(&mut self, name: &Rc<str>) {
        let unused =
            |host: &HostState| host.queues == 0 && host.in_flight == 0 && host.slot == RotationSlot::Absent;
        if self.by_name.get(name).is_some_and(unused)
            && let Some(host) = self.by_name.remove(name)
        {
            self.open_circuits -= usize::from(host.breaker.open_until().is_some());
            if let Some(group) = self.groups.get_mut(&host.group) {
                group.hosts -= 1;
                // Without hosts the group has no attempt in flight. It leaves the turns by itself.
                if group.hosts == 0 {
                    self.groups.remove(&host.group);
                }
            }
        }
    }
}

#[cfg(test)]
impl HostRotation {
    /// Returns every waiting queue with its host.
    pub(super) fn all_waiting(&self) -> Vec<(String, Timestamp, QueueId, Partition)> {
        let of = |(name, host): (&Rc<str>, &HostState)| {
            let name = name.to_string();
            host.waiting
                .iter()
                .map(move |(due, queue, partition)| (name.clone(), *due, *queue, *partition))
                .collect()
        };
        self.by_name.iter().flat_map::<Vec<_>, _>(of).collect()
    }

    /// Checks the rotation against itself and against the counts of the scheduler.
    pub(super) fn check(&self, in_flight: usize, queues: usize) {
        assert_eq!(self.by_name.values().map(|host| host.in_flight).sum::<usize>(), in_flight);
        assert_eq!(self.by_name.values().map(|host| host.queues).sum::<usize>(), queues);
        assert_eq!(
            self.by_name.values().filter(|host| host.breaker.open_until().is_some()).count(),
            self.open_circuits
        );
        for (name, group) in &self.groups {
            let hosts: Vec<_> = self.by_name.values().filter(|host| host.group == *name).collect();
            assert_eq!(hosts.len(), group.hosts);
            assert_eq!(hosts.iter().map(|host| host.in_flight).sum::<usize>(), group.in_flight);
            let turns = self.ready.iter().filter(|ready| *ready == name).count();
            assert_eq!(turns, usize::from(group.takes_turns), "{name} has one place in the turns");
            assert_eq!(
                group.takes_turns,
                !group.ready.is_empty(),
                "{name} takes turns with ready hosts only"
            );
        }
        for (name, host) in &self.by_name {
            assert!(host.in_flight <= self.max_per_host);
            let timed = self.timers.iter().filter(|(_, timed)| timed == name).map(|(at, _)| *at);
            let ready = self.groups[&host.group].ready.iter().filter(|ready| *ready == name).count();
            match host.slot {
                RotationSlot::Absent => assert_eq!((timed.count(), ready), (0, 0)),
                RotationSlot::Timed(at) => assert_eq!((timed.collect::<Vec<_>>(), ready), (vec![at], 0)),
                RotationSlot::Ready => assert_eq!((timed.count(), ready), (0, 1)),
            }
            assert!(
                host.slot != RotationSlot::Absent || host.next_start(self.max_per_host).is_none(),
                "{name} never gets a turn"
            );
            assert!(
                host.queues > 0 || host.in_flight > 0 || host.slot == RotationSlot::Ready,
                "{name} is unused and kept"
            );
        }
        let ready = self.groups.values().flat_map(|group| &group.ready);
        assert!(
            self.timers.iter().map(|(_, name)| name).chain(ready).all(|name| self.by_name.contains_key(name))
        );
        assert!(self.ready.iter().all(|name| self.groups.contains_key(name)), "a group without hosts");
    }

    /// Checks that every group with a due queue and no attempt in flight has its turn at once, if there is room.
    pub(super) fn check_no_group_starves(&self, now: Timestamp, room: usize) {
        for (name, host) in &self.by_name {
            let starves = room > 0
                && self.groups[&host.group].in_flight == 0
                && host.next_start(self.max_per_host).is_some_and(|at| at <= now);
            assert!(!starves, "{name} starves");
        }
    }
}
