//! One run: replicas, a store, a network, platforms and callers in simulated time, all drawn from one seed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use fastrand::Rng;
use rtm_bridge::config::BotConfig;
use rtm_bridge::domain::{AcceptedMessage, Partition};
use rtm_bridge::link::{ConnectFailure, HistoryFailure, Input};
use rtm_bridge::rtm::{ConnectMode, HistoryPage};
use rtm_bridge::store::{Hint, Incarnation};

use super::audit::Ledger;
use super::caller::Post;
use super::network::{Call, Reply};
use super::replica::Slot;
use super::store::Depot;
use super::temper::{Blow, SLOTS, Temper, UNREST};
use super::user::User;
use super::{LEASE, START};
use crate::simulation::platform::{PlatformEvent, chance};
use crate::simulation::support;

/// When everything goes well again, so soon each partition has its one owner: a lease runs out, a claimer waits as
/// long for contact, the wrong owner drains, and some rounds.
const OWNED_WITHIN: u64 = 2 * LEASE + 15_000;
/// And so soon nothing is open any more: some messages one after the other, each sent twice, each to its deadline.
const EMPTY_WITHIN: u64 = 240_000;
/// More happenings than this are a loop.
const MOST: u64 = 300_000;

pub(super) type Outcome<T = ()> = Result<T, String>;

#[derive(Debug)]
pub(super) enum Event {
    Blow(Blow),
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
    Calm,
    Check,
    Arrive {
        call: Box<Call>,
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
    Look(usize),
    /// Happens to a replica, if that life of it still runs and is not paused.
    To(usize, u32, Deed),
}

/// What happens to a replica.
#[derive(Debug)]
pub(super) enum Deed {
    Beat,
    Sweep,
    Keep,
    Tick {
        user: usize,
        number: u64,
    },
    /// The last writes took too long.
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
    Answered(Box<Call>, Reply),
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

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) temper: Temper,
    pub(super) bot: Arc<BotConfig>,
    /// Milliseconds since the beginning.
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Box<Event>>,
    scheduled: u64,
    happened: u64,
    pub(super) store: Depot,
    pub(super) slots: Vec<Slot>,
    pub(super) users: Vec<User>,
    pub(super) posts: Vec<Post>,
    pub(super) partitions: Vec<Partition>,
    /// Numbers for whatever needs one.
    pub(super) numbers: u64,
    pub(super) ledger: Ledger,
    pub(super) calm_since: Option<u64>,
    owned_since: Option<u64>,
    /// What had moved before the first blow.
    pub(super) settled: usize,
    pub(super) struck: bool,
    hash: u64,
    pub(super) trace: Option<Vec<String>>,
}

/// How a run went.
pub(super) struct Run {
    pub(super) hash: u64,
    pub(super) failure: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) ledger: Ledger,
    /// After the first blow: which partition went from whom to whom.
    pub(super) moves: Vec<(Partition, usize, usize)>,
    pub(super) happened: u64,
}

impl World {
    pub(super) fn new(seed: u64, change: impl FnOnce(&mut Temper), traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut temper = Temper::draw(&mut rng);
        change(&mut temper);
        let mut bot = support::bot();
        bot.history = rng.u8(0..5) != 0;
        bot.welcome = std::time::Duration::from_millis(rng.choice([0, 500]).unwrap_or(500));
        bot.idle_ttl = rng.choice([5, 60, 900]).map(std::time::Duration::from_secs);
        bot.connects_per_minute = temper.connects;
        let users: Vec<User> = (0..super::USERS).map(User::new).collect();
        let mut partitions: Vec<_> = users.iter().map(|user| user.partition).collect();
        // Some more, of which nobody wants anything.
        partitions.extend(Partition::all().step_by(61));
        partitions.sort();
        partitions.dedup();
        let drifts: [i64; SLOTS] =
            std::array::from_fn(|_| rng.choice([0, 0, 200, -200, 20_000, -20_000]).unwrap_or(0));
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            happened: 0,
            store: Depot::new(START, std::time::Duration::from_millis(LEASE), temper.connects),
            slots: drifts.iter().enumerate().map(|(index, &drift)| Slot::new(index, drift)).collect(),
            users,
            posts: Vec::new(),
            partitions,
            numbers: 0,
            ledger: Ledger::default(),
            calm_since: None,
            owned_since: None,
            settled: 0,
            struck: false,
            hash: 0,
            trace: traced.then(Vec::new),
            bot: Arc::new(bot),
            temper,
            rng,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for slot in 0..self.temper.replicas {
            let wait = self.rng.u64(0..3) * self.rng.u64(0..2000);
            self.schedule(if self.temper.together { 0 } else { wait }, Event::Start(slot));
        }
        for (at, blow) in self.temper.blows.clone() {
            self.schedule(at, Event::Blow(blow));
        }
        for _ in 0..self.temper.posts {
            let user = self.rng.usize(0..self.temper.users);
            let post = Post::draw(self.posts.len(), user, &mut self.rng);
            let blow =
                self.temper.blows.get(self.rng.usize(0..self.temper.blows.len().max(1))).map(|(at, _)| *at);
            let at = match blow {
                Some(blow) if self.lucky(self.temper.burst) => {
                    (blow + self.rng.u64(0..6000)).saturating_sub(2000)
                }
                _ => self.rng.u64(0..UNREST),
            };
            self.schedule(at, Event::Post(self.posts.len()));
            self.posts.push(post);
        }
        self.schedule(UNREST, Event::Calm);
    }

    pub(super) fn run(mut self) -> Run {
        let failure = self.live().and_then(|()| self.at_the_end()).err();
        let mut trace = self.trace.unwrap_or_default();
        trace.insert(0, format!("{:?} {:?}", self.temper, self.bot));
        let (hash, ledger, happened) = (self.hash, self.ledger, self.happened);
        let slot = |incarnation: Incarnation| usize::try_from(incarnation.0 & 0xff).unwrap_or_default();
        let moves = self.store.moves.iter().skip(self.settled);
        let moves = moves.map(|&(partition, from, to)| (partition, slot(from), slot(to))).collect();
        Run { hash, failure, trace, ledger, moves, happened }
    }

    fn live(&mut self) -> Outcome {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.store.advance(START + self.now);
            self.happened += 1;
            self.hash = mix(self.hash, self.now ^ kind(&*event));
            if self.happened > MOST {
                return Err("too much happens: a loop".into());
            }
            if let Event::Check = *event {
                if self.is_over()? {
                    return Ok(());
                }
                self.schedule(500, Event::Check);
            } else {
                self.happen(*event)?;
            }
        }
        Err("nothing will ever happen again".into())
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::To(slot, life, deed) => {
                if self.slots[slot].life != life {
                    return Ok(());
                }
                if let Some(backlog) = &mut self.slots[slot].paused {
                    backlog.push(Event::To(slot, life, deed));
                    return Ok(());
                }
                return self.befall(slot, deed);
            }
            Event::Blow(blow) => self.strike(blow),
            Event::Start(slot) => self.start_replica(slot),
            Event::Wake { slot, life, since, frozen } if self.slots[slot].life == life => {
                return self.wake(slot, since, frozen);
            }
            Event::Wake { .. } | Event::Check => {}
            Event::Mend(slot) => {
                self.note(|| format!("{slot} reaches the store again"));
                self.slots[slot].cut = false;
            }
            Event::Return { empty } => self.return_store(empty)?,
            Event::Calm => self.calm_down()?,
            Event::Arrive { call, back, lost } => self.arrive(call, back, lost)?,
            Event::Connecting { slot, life, user, number, attempt, mode } => {
                self.open_socket((slot, life), user, number, attempt, mode);
            }
            Event::ReadHistory { slot, life, user, number, after } => {
                self.read_history((slot, life), user, number, after.as_deref());
            }
            Event::Received { user, socket, slot, message } => self.receive(user, socket, slot, &message)?,
            Event::Said { user, socket, said } => self.say(user, socket, said),
            Event::Post(post) => return self.post(post),
            Event::Look(post) => self.look(post),
        }
        Ok(())
    }

    fn is_over(&mut self) -> Outcome<bool> {
        let Some(since) = self.calm_since else { return Ok(false) };
        let coming = self.queue.values().any(|event| matches!(**event, Event::Start(_)));
        let owned = self.check_owners();
        match (&owned, self.owned_since) {
            (Ok(()), None) => self.owned_since = Some(self.now),
            (Ok(()), Some(_)) => {}
            // Somebody comes or goes still.
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
        self.rng.u64(1..=self.temper.lag)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn lucky(&mut self, percent: u32) -> bool {
        chance(&mut self.rng, percent)
    }

    pub(super) fn schedule(&mut self, wait: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + wait, self.scheduled), Box::new(event));
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

/// Which variant it is, as a number.
pub(super) fn kind<T>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    hasher.finish()
}
