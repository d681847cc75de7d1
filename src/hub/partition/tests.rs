//! The deal, and replicas that live by it over the embedded store with a clock of its own.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::{Partition, Timestamp};
use crate::store::{
    ClaimMode, ClaimResult, Clock, Fence, FleetStatus, Heartbeat, Incarnation, ManualClock, MemoryLimits,
    MemoryStore, ReplicaIdentity, StoreError,
};

const LEASE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn peers(count: u64) -> Vec<ReplicaIdentity> {
    (1..=count)
        .map(|n| ReplicaIdentity {
            name: format!("replica-{n}").into(),
            incarnation: Incarnation(n * 0x9e37_79b9),
        })
        .collect()
}

fn moved(before: &Deal, after: &Deal) -> Vec<Partition> {
    Partition::all().filter(|&partition| before.owner(partition) != after.owner(partition)).collect()
}

#[test]
fn the_deal_never_changes() {
    // Fixed for ever: replicas of two versions must deal alike.
    let owners: Vec<_> = {
        let deal = Deal::over(&peers(3));
        Partition::all().take(12).map(|partition| deal.owner(partition).unwrap().0 / 0x9e37_79b9).collect()
    };
    assert_eq!(owners, DEALT);
}

/// Computed by another program.
const DEALT: [u64; 12] = [3, 1, 3, 3, 2, 2, 1, 1, 3, 2, 1, 1];

#[test]
fn nobody_is_dealt_nothing() {
    assert_eq!(Deal::over(&[]).owner(Partition::all().next().unwrap()), None);
}

#[test]
fn of_two_with_one_name_the_same_one_gets_all() {
    let twin = |n| ReplicaIdentity { name: "twin".into(), incarnation: Incarnation(n) };
    let (ab, ba) = (Deal::over(&[twin(1), twin(2)]), Deal::over(&[twin(2), twin(1)]));
    assert_eq!(ab, ba);
    assert!(Partition::all().all(|partition| ab.owner(partition) == Some(Incarnation(2))));
}

proptest! {
    #[test]
    fn who_joins_takes_its_share_and_who_leaves_gives_up_only_its_own(count in 1_u64..12, leaver in 0_u64..12) {
        let live = peers(count);
        let before = Deal::over(&live);
        let mut joined = peers(count + 1);
        joined.rotate_left(1);
        let after = Deal::over(&joined);
        let new = peers(count + 1).pop().unwrap().incarnation;
        let gained = moved(&before, &after);
        prop_assert!(gained.iter().all(|&partition| after.owner(partition) == Some(new)));
        let share = Partition::COUNT / usize::try_from(count + 1).unwrap();
        prop_assert!(gained.len() <= share * 2 + 8, "{} moved where {share} are a share", gained.len());

        let mut left = live;
        let gone = left.remove(usize::try_from(leaver % count).unwrap());
        let after = Deal::over(&left);
        prop_assert!(moved(&before, &after).iter().all(|&p| before.owner(p) == Some(gone.incarnation)));
    }

    #[test]
    fn contact_is_as_long_as_no_answer_is_missing(gaps in prop::collection::vec(0_u64..12_000, 1..30)) {
        let mut contact = Contact::default();
        let (mut now, mut since) = (Duration::ZERO, Duration::ZERO);
        contact.answered(now, LEASE);
        for gap in gaps {
            now += Duration::from_millis(gap);
            if gap > 5_000 {
                since = now;
            }
            contact.answered(now, LEASE);
            prop_assert_eq!(contact.since(), Some(since));
        }
        contact.broke();
        prop_assert_eq!(contact.since(), None);
    }
}

/// A replica that does what is decided, a step each second of its own clock.
struct Replica {
    peer: ReplicaIdentity,
    /// What its clock shows, in milliseconds; it runs a little fast or slow.
    clock: u64,
    rate: u64,
    contact: Contact,
    live: Vec<ReplicaIdentity>,
    deal: Deal,
    leases: Vec<Option<(Fence, Option<u64>)>>,
    troubled: Vec<Option<Duration>>,
    paused: bool,
    cut: bool,
    leaving: bool,
}

impl Replica {
    fn new(peer: ReplicaIdentity, clock: u64, rate: u64) -> Self {
        let leases = vec![None; Partition::COUNT];
        let troubled = vec![None; Partition::COUNT];
        Self {
            peer,
            clock,
            rate,
            contact: Contact::default(),
            live: Vec::new(),
            deal: Deal::default(),
            leases,
            troubled,
            paused: false,
            cut: false,
            leaving: false,
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock)
    }

    fn owned(&self) -> impl Iterator<Item = Partition> {
        Partition::all()
            .zip(&self.leases)
            .filter(|(_, lease)| lease.is_some())
            .map(|(partition, _)| partition)
    }

    /// One step. `loses` says of each operation whether its answer is lost although it was carried out.
    fn step(&mut self, store: &MemoryStore, loses: &mut impl FnMut() -> bool, moves: &mut usize) {
        self.clock += self.rate;
        if self.paused {
            return;
        }
        let heartbeat =
            Heartbeat { peer: self.peer.clone(), bots: Vec::new(), ttl: LEASE * 2 / 3, echo: self.clock };
        if !self.leaving {
            let answer: Option<FleetStatus> = (!self.cut).then(|| store.heartbeat(&heartbeat));
            match answer.filter(|_| !loses()) {
                Some(mut fleet) => {
                    self.contact.answered(self.now(), LEASE);
                    fleet.live.sort_unstable();
                    if fleet.live != self.live {
                        self.deal = Deal::over(&fleet.live);
                        self.live = fleet.live;
                    }
                }
                None => self.contact.broke(),
            }
        } else if !self.cut {
            store.leave(self.peer.incarnation);
        }
        self.renew(store, loses);
        let standings: Vec<_> = self
            .leases
            .iter()
            .zip(&self.troubled)
            .map(|(lease, troubled)| Standing {
                tenure: match lease {
                    None => Tenure::Out,
                    Some((_, None)) => Tenure::Owned,
                    Some((_, Some(_))) => Tenure::Draining,
                },
                troubled: *troubled,
            })
            .collect();
        let steps = decide(&View {
            me: self.peer.incarnation,
            deal: &self.deal,
            leaving: self.leaving,
            contact: self.contact.since(),
            now: self.now(),
            lease: LEASE,
            standings: &standings,
        });
        for step in steps {
            match step {
                Step::Claim { partition, claiming } => self.claim(store, partition, claiming, loses, moves),
                Step::Drain { partition } => {
                    // Some drain at once, some take their five seconds.
                    let until = self.clock + 1000 * (partition.index() as u64 % 6);
                    self.leases[partition.index()].as_mut().unwrap().1 = Some(until);
                }
            }
        }
    }

    fn renew(&mut self, store: &MemoryStore, loses: &mut impl FnMut() -> bool) {
        for partition in Partition::all() {
            let Some((fence, drained_at)) = self.leases[partition.index()] else { continue };
            if self.cut {
                self.troubled[partition.index()] = Some(self.now());
                continue;
            }
            if drained_at.is_some_and(|at| self.clock >= at) {
                let released = store.release(partition, fence);
                if !loses() || released.is_err() {
                    self.leases[partition.index()] = None;
                }
                continue;
            }
            match store.renew(partition, fence, LEASE) {
                _ if loses() => self.troubled[partition.index()] = Some(self.now()),
                Ok(_) => {}
                Err(StoreError::Fenced) => self.leases[partition.index()] = None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn claim(
        &mut self,
        store: &MemoryStore,
        partition: Partition,
        claiming: ClaimMode,
        loses: &mut impl FnMut() -> bool,
        moves: &mut usize,
    ) {
        if self.cut {
            self.troubled[partition.index()] = Some(self.now());
            return;
        }
        let claim = store.claim(partition, self.peer.incarnation, LEASE, claiming);
        if loses() {
            self.troubled[partition.index()] = Some(self.now());
        } else if let ClaimResult::Yours { fence, .. } = claim {
            *moves += 1;
            self.leases[partition.index()] = Some((fence, None));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Join,
    Leave(usize),
    Kill(usize),
    Pause(usize, bool),
    Cut(usize, bool),
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Join),
        1 => any::<usize>().prop_map(Event::Leave),
        1 => any::<usize>().prop_map(Event::Kill),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, on)| Event::Pause(which, on)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, on)| Event::Cut(which, on)),
        4 => (0_u8..25).prop_map(Event::Wait),
    ]
}

struct World {
    store: Arc<MemoryStore>,
    hand: ManualClock,
    replicas: Vec<Replica>,
    born: u64,
    random: fastrand::Rng,
    loss: f64,
    moves: usize,
}

impl World {
    fn new(seed: u64, loss: f64) -> Self {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_763_845_000_000));
        let store = MemoryStore::new(MemoryLimits::new(1 << 20, SECOND), clock);
        let random = fastrand::Rng::with_seed(seed);
        Self { store, hand, replicas: Vec::new(), born: 0, random, loss, moves: 0 }
    }

    fn join(&mut self) {
        if self.replicas.len() < 6 {
            self.born += 1;
            let peer = peers(self.born).pop().unwrap();
            // Clocks begin anywhere and run up to two per cent fast or slow.
            let (clock, rate) = (self.random.u64(0..1_000_000), self.random.u64(980..=1020));
            self.replicas.push(Replica::new(peer, clock, rate));
        }
    }

    fn happen(&mut self, event: Event) {
        let count = self.replicas.len().max(1);
        match event {
            Event::Join => self.join(),
            Event::Wait(seconds) => (0..seconds).for_each(|_| self.second()),
            Event::Kill(which) if !self.replicas.is_empty() => _ = self.replicas.remove(which % count),
            Event::Leave(which) => self.with(which, |replica| replica.leaving = true),
            Event::Pause(which, on) => self.with(which, |replica| replica.paused = on),
            Event::Cut(which, on) => self.with(which, |replica| replica.cut = on),
            Event::Kill(_) => {}
        }
    }

    fn with(&mut self, which: usize, change: impl FnOnce(&mut Replica)) {
        let count = self.replicas.len().max(1);
        if let Some(replica) = self.replicas.get_mut(which % count) {
            change(replica);
        }
    }

    fn second(&mut self) {
        self.hand.advance(SECOND);
        let (random, loss) = (&mut self.random, self.loss);
        random.shuffle(&mut self.replicas);
        for replica in &mut self.replicas {
            replica.step(&self.store, &mut || random.f64() < loss, &mut self.moves);
        }
        // Whoever has gone and given everything back has ended.
        self.replicas.retain(|replica| !(replica.leaving && replica.owned().next().is_none()));
    }

    /// Lets everything heal.
    fn settle(&mut self) {
        self.loss = 0.0;
        for replica in &mut self.replicas {
            (replica.paused, replica.cut) = (false, false);
        }
        if self.replicas.iter().all(|replica| replica.leaving) {
            self.join();
        }
        // Heartbeats of the dead run out, then a whole lease of contact, then drains.
        (0..40).for_each(|_| self.second());
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let deal = Deal::over(&self.replicas.iter().map(|replica| replica.peer.clone()).collect::<Vec<_>>());
        for partition in Partition::all() {
            let owners: Vec<_> = self
                .replicas
                .iter()
                .filter(|replica| replica.leases[partition.index()].is_some())
                .map(|replica| replica.peer.incarnation)
                .collect();
            prop_assert_eq!(&owners, &[deal.owner(partition).unwrap()], "{}", partition);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_every_partition_ends_with_one_live_owner(
        seed in any::<u64>(),
        loss in prop_oneof![Just(0.0), Just(0.05), Just(0.4)],
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut world = World::new(seed, loss);
        for event in events {
            world.happen(event);
        }
        world.settle();
        world.check()?;
        // And then it rests.
        let moves = world.moves;
        (0..20).for_each(|_| world.second());
        prop_assert_eq!(world.moves, moves, "partitions move although nothing happens");
        // One that joins moves its share, one that leaves what it had.
        let (before, had) = (world.moves, world.replicas.len());
        world.join();
        world.settle();
        world.check()?;
        let share = Partition::COUNT / world.replicas.len();
        prop_assert!(world.moves - before <= share * 2 + 8 || had == world.replicas.len());
    }

    #[test]
    fn an_outage_of_the_store_moves_nothing(seed in any::<u64>(), seconds in 1_u8..60) {
        let mut world = World::new(seed, 0.0);
        (0..3).for_each(|_| world.join());
        world.settle();
        let moves = world.moves;
        world.replicas.iter_mut().for_each(|replica| replica.cut = true);
        (0..seconds).for_each(|_| world.second());
        world.settle();
        world.check()?;
        prop_assert_eq!(world.moves, moves);
    }
}
