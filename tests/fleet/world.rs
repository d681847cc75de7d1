//! One run of the fleet in simulated time: replicas, a store, a network, platforms and callers from one seed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use fastrand::Rng;
use rtm_bridge::config::BotConfig;
use rtm_bridge::domain::{AcceptedMessage, Partition};
use rtm_bridge::link::{ConnectFailure, HistoryFailure, Input};
use rtm_bridge::rtm::{ConnectMode, HistoryPage};
use rtm_bridge::store::{Hint, Incarnation};

use super::audit::AuditLedger;
use super::callers::CallerPost;
use super::fault_plan::{FAULT_TIME, Fault, FaultPlan, SLOTS};
use super::network::{StoreCall, StoreReply};
use super::replica::ReplicaSlot;
use super::store::SimulatedStore;
use super::user::SimulatedUser;
use super::{LEASE, START};
use crate::simulation::platform::{PlatformEvent, chance};
use crate::simulation::support;

/// The time from the end of all faults until each partition has its owner. It covers the expiry of a lease, a lease of
/// contact, a drain, and some rounds.
const OWNED_WITHIN: u64 = 2 * LEASE + 15_000;
/// The time from the end of all faults until no message is open. It covers several messages in a row, each sent twice
/// and each to its deadline.
const EMPTY_WITHIN: u64 = 240_000;
/// A run with more events is a loop.
const MAX_EVENTS: u64 = 300_000;

pub(super) type CheckResult<T = ()> = Result<T, String>;

#[derive(Debug)]
pub(super) enum WorldEvent {
    Fault(Fault),
    Start(usize),
    Wake {
        slot: usize,
        life: u32,
        since: u64,
        frozen: bool,
    },
    Mend(usize),
    Return {
        empty: bool,
    },
    EndFaults,
    Check,
    Arrive {
        call: Box<StoreCall>,
        back: u64,
        lost: bool,
    },
    Connecting {
        slot: usize,
        life: u32,
        user: usize,
        number: u64,
        attempt: u64,
        mode: ConnectMode,
    },
    ReadHistory {
        slot: usize,
        life: u32,
        user: usize,
        number: u64,
        after: Option<Box<str>>,
    },
    Received {
        user: usize,
        socket: u64,
        slot: usize,
        message: Arc<AcceptedMessage>,
    },
    Said {
        user: usize,
        socket: u64,
        said: PlatformEvent,
    },
    Post(usize),
    Poll(usize),
    /// An action of one life of a replica. A pause delays it; a new life drops it.
    Replica(usize, u32, ReplicaAction),
}

/// An action of a replica.
#[derive(Debug)]
pub(super) enum ReplicaAction {
    Beat,
    Sweep,
    Keep,
    Tick {
        user: usize,
        number: u64,
    },
    /// The time for the last writes is over.
    Cut {
        user: usize,
        number: u64,
    },
    Reload {
        user: usize,
        number: u64,
    },
    AskPermit {
        user: usize,
        number: u64,
        attempt: u64,
        mode: ConnectMode,
    },
    Answered(Box<StoreCall>, StoreReply),
    Hinted(Hint),
    Connected {
        user: usize,
        number: u64,
        attempt: u64,
        socket: Result<u64, ConnectFailure>,
    },
    Heard {
        user: usize,
        number: u64,
        socket: u64,
        input: Input,
    },
    History {
        user: usize,
        number: u64,
        page: Result<HistoryPage, HistoryFailure>,
    },
}

pub(super) struct FleetWorld {
    pub(super) rng: Rng,
    pub(super) plan: FaultPlan,
    pub(super) bot: Arc<BotConfig>,
    /// Milliseconds since the start.
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Box<WorldEvent>>,
    scheduled: u64,
    events: u64,
    pub(super) store: SimulatedStore,
    pub(super) slots: Vec<ReplicaSlot>,
    pub(super) users: Vec<SimulatedUser>,
    pub(super) posts: Vec<CallerPost>,
    pub(super) partitions: Vec<Partition>,
    /// The last number given out.
    pub(super) numbers: u64,
    pub(super) ledger: AuditLedger,
    pub(super) faults_ended_at: Option<u64>,
    owned_since: Option<u64>,
    /// The number of moves before the first fault.
    pub(super) settled: usize,
    pub(super) faulted: bool,
    hash: u64,
    pub(super) trace: Option<Vec<String>>,
}

/// The result of a run.
pub(super) struct FleetRun {
    pub(super) hash: u64,
    pub(super) failure: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) ledger: AuditLedger,
    /// The moves after the first fault: partition, old slot, new slot.
    pub(super) moves: Vec<(Partition, usize, usize)>,
    pub(super) events: u64,
}

impl FleetWorld {
    pub(super) fn new(seed: u64, change: impl FnOnce(&mut FaultPlan), traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut plan = FaultPlan::draw(&mut rng);
        change(&mut plan);
        let mut bot = support::bot();
        bot.history = rng.u8(0..5) != 0;
        bot.welcome = std::time::Duration::from_millis(rng.choice([0, 500]).unwrap_or(500));
        bot.idle_ttl = rng.choice([5, 60, 900]).map(std::time::Duration::from_secs);
        bot.connects_per_minute = plan.connects;
        let users: Vec<SimulatedUser> = (0..super::USERS).map(SimulatedUser::new).collect();
        let mut partitions: Vec<_> = users.iter().map(|user| user.partition).collect();
        // Some partitions have no user.
        partitions.extend(Partition::all().step_by(61));
        partitions.sort();
        partitions.dedup();
        let drifts: [i64; SLOTS] =
            std::array::from_fn(|_| rng.choice([0, 0, 200, -200, 20_000, -20_000]).unwrap_or(0));
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            events: 0,
            store: SimulatedStore::new(START, std::time::Duration::from_millis(LEASE), plan.connects),
            slots: drifts.iter().enumerate().map(|(index, &drift)| ReplicaSlot::new(index, drift)).collect(),
            users,
            posts: Vec::new(),
            partitions,
            numbers: 0,
            ledger: AuditLedger::default(),
            faults_ended_at: None,
            owned_since: None,
            settled: 0,
            faulted: false,
            hash: 0,
            trace: traced.then(Vec::new),
            bot: Arc::new(bot),
            plan,
            rng,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for slot in 0..self.plan.replicas {
            let wait = self.rng.u64(0..3) * self.rng.u64(0..2000);
            self.schedule(if self.plan.together { 0 } else { wait }, WorldEvent::Start(slot));
        }
        for (at, fault) in self.plan.faults.clone() {
            self.schedule(at, WorldEvent::Fault(fault));
        }
        for _ in 0..self.plan.posts {
            let user = self.rng.usize(0..self.plan.users);
            let post = CallerPost::draw(self.posts.len(), user, &mut self.rng);
            let fault =
                self.plan.faults.get(self.rng.usize(0..self.plan.faults.len().max(1))).map(|(at, _)| *at);
            let at = match fault {
                Some(fault) if self.chance(self.plan.burst) => {
                    (fault + self.rng.u64(0..6000)).saturating_sub(2000)
                }
                _ => self.rng.u64(0..FAULT_TIME),
            };
            self.schedule(at, WorldEvent::Post(self.posts.len()));
            self.posts.push(post);
        }
        self.schedule(FAULT_TIME, WorldEvent::EndFaults);
    }

    pub(super) fn run(mut self) -> FleetRun {
        let failure = self.live().and_then(|()| self.at_the_end()).err();
        let mut trace = self.trace.unwrap_or_default();
        trace.insert(0, format!("{:?} {:?}", self.plan, self.bot));
        let (hash, ledger, events) = (self.hash, self.ledger, self.events);
        let slot = |incarnation: Incarnation| usize::try_from(incarnation.0 & 0xff).unwrap_or_default();
        let moves = self.store.moves.iter().skip(self.settled);
        let moves = moves.map(|&(partition, from, to)| (partition, slot(from), slot(to))).collect();
        FleetRun { hash, failure, trace, ledger, moves, events }
    }

    fn live(&mut self) -> CheckResult {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.store.advance(START + self.now);
            self.events += 1;
            self.hash = mix(self.hash, self.now ^ kind(&*event));
            if self.events > MAX_EVENTS {
                return Err("too many events: a loop".into());
            }
            if let WorldEvent::Check = *event {
                if self.is_over()? {
                    return Ok(());
                }
                self.schedule(500, WorldEvent::Check);
            } else {
                self.happen(*event)?;
            }
        }
        Err("no event is left".into())
    }

    fn happen(&mut self, event: WorldEvent) -> CheckResult {
        match event {
            WorldEvent::Replica(slot, life, action) => {
                if self.slots[slot].life != life {
                    return Ok(());
                }
                if let Some(backlog) = &mut self.slots[slot].paused {
                    backlog.push(WorldEvent::Replica(slot, life, action));
                    return Ok(());
                }
                return self.act(slot, action);
            }
            WorldEvent::Fault(fault) => self.inject(fault),
            WorldEvent::Start(slot) => self.start_replica(slot),
            WorldEvent::Wake { slot, life, since, frozen } if self.slots[slot].life == life => {
                return self.wake(slot, since, frozen);
            }
            WorldEvent::Wake { .. } | WorldEvent::Check => {}
            WorldEvent::Mend(slot) => {
                self.note(|| format!("{slot} reaches the store again"));
                self.slots[slot].cut = false;
            }
            WorldEvent::Return { empty } => self.return_store(empty)?,
            WorldEvent::EndFaults => self.end_faults()?,
            WorldEvent::Arrive { call, back, lost } => self.arrive(call, back, lost)?,
            WorldEvent::Connecting { slot, life, user, number, attempt, mode } => {
                self.open_socket((slot, life), user, number, attempt, mode);
            }
            WorldEvent::ReadHistory { slot, life, user, number, after } => {
                self.read_history((slot, life), user, number, after.as_deref());
            }
            WorldEvent::Received { user, socket, slot, message } => {
                self.receive(user, socket, slot, &message)?;
            }
            WorldEvent::Said { user, socket, said } => self.say(user, socket, said),
            WorldEvent::Post(post) => return self.post(post),
            WorldEvent::Poll(post) => self.poll(post),
        }
        Ok(())
    }

    fn is_over(&mut self) -> CheckResult<bool> {
        let Some(since) = self.faults_ended_at else { return Ok(false) };
        let coming = self.queue.values().any(|event| matches!(**event, WorldEvent::Start(_)));
        let owned = self.check_owners();
        match (&owned, self.owned_since) {
            (Ok(()), None) => self.owned_since = Some(self.now),
            (Ok(()), Some(_)) => {}
            // A replica is still starting or leaving.
            (Err(_), _) if coming || self.someone_leaves() => self.owned_since = None,
            (Err(error), _) if self.now > since + OWNED_WITHIN => {
                let late = self
                    .slots
                    .iter()
                    .any(|slot| slot.replica.as_ref().is_some_and(|it| it.since + OWNED_WITHIN > self.now));
                if !late {
                    return Err(error.clone());
                }
            }
            (Err(_), _) => self.owned_since = None,
        }
        let open = self.store.open();
        let waiting = self.posts.iter().filter(|post| !post.is_over()).count();
        if self.now > since + EMPTY_WITHIN && (!open.is_empty() || waiting > 0) {
            return Err(format!("open after all this time: {open:?}, and {waiting} callers wait"));
        }
        if self.now > since + 2 * EMPTY_WITHIN {
            return Err("the fleet does not come to rest".into());
        }
        Ok(owned.is_ok() && open.is_empty() && waiting == 0)
    }

    fn someone_leaves(&self) -> bool {
        self.slots.iter().any(|slot| slot.replica.as_ref().is_some_and(|replica| replica.leaving.is_some()))
    }

    pub(super) fn lag(&mut self) -> u64 {
        self.rng.u64(1..=self.plan.lag)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        chance(&mut self.rng, percent)
    }

    pub(super) fn schedule(&mut self, wait: u64, event: WorldEvent) {
        self.scheduled += 1;
        self.queue.insert((self.now + wait, self.scheduled), Box::new(event));
    }

    pub(super) fn schedule_action(&mut self, wait: u64, slot: usize, life: u32, action: ReplicaAction) {
        self.schedule(wait, WorldEvent::Replica(slot, life, action));
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8} {}", self.now, what()));
        }
    }

    pub(super) fn hash_in(&mut self, value: u64) {
        self.hash = mix(self.hash, value);
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Returns the variant of a value as a number.
pub(super) fn kind<T>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    hasher.finish()
}
