//! The assignment, and replicas that follow it over the memory store with a manual clock.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::{Partition, Timestamp};
use crate::store::{
    ClaimMode, ClaimResult, Clock, DrainReason, Fence, FleetStatus, Heartbeat, Incarnation, ManualClock,
    MemoryLimits, MemoryStore, Ownership, ReplicaIdentity, StoreError,
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

fn moved(before: &Assignment, after: &Assignment) -> Vec<Partition> {
    Partition::all().filter(|&partition| before.owner(partition) != after.owner(partition)).collect()
}

#[test]
fn assignment_never_changes() {
    // The assignment is fixed, because replicas of two versions must compute the same.
    let owners: Vec<_> = {
        let assignment = Assignment::over(&peers(3));
        Partition::all()
            .take(12)
            .map(|partition| assignment.owner(partition).unwrap().0 / 0x9e37_79b9)
            .collect()
    };
    assert_eq!(owners, OWNERS);
}

/// The owners that another program computed.
const OWNERS: [u64; 12] = [3, 1, 3, 3, 2, 2, 1, 1, 3, 2, 1, 1];

#[test]
fn assignment_without_replicas_has_no_owner() {
    assert_eq!(Assignment::over(&[]).owner(Partition::all().next().unwrap()), None);
}

#[test]
fn equal_names_prefer_the_higher_incarnation() {
    let twin = |n| ReplicaIdentity { name: "twin".into(), incarnation: Incarnation(n) };
    let (ab, ba) = (Assignment::over(&[twin(1), twin(2)]), Assignment::over(&[twin(2), twin(1)]));
    assert_eq!(ab, ba);
    assert!(Partition::all().all(|partition| ab.owner(partition) == Some(Incarnation(2))));
}

proptest! {
    #[test]
    fn join_and_leave_move_only_their_own_share(count in 1_u64..12, leaver in 0_u64..12) {
        let live = peers(count);
        let before = Assignment::over(&live);
        let mut joined = peers(count + 1);
        joined.rotate_left(1);
        let after = Assignment::over(&joined);
        let new = peers(count + 1).pop().unwrap().incarnation;
        let gained = moved(&before, &after);
        prop_assert!(gained.iter().all(|&partition| after.owner(partition) == Some(new)));
        let share = Partition::COUNT / usize::try_from(count + 1).unwrap();
        prop_assert!(gained.len() <= share * 2 + 8, "{} moved where {share} are a share", gained.len());

        let mut left = live;
        let gone = left.remove(usize::try_from(leaver % count).unwrap());
        let after = Assignment::over(&left);
        prop_assert!(moved(&before, &after).iter().all(|&p| before.owner(p) == Some(gone.incarnation)));
    }

    #[test]
    fn contact_lasts_until_an_answer_is_missing(gaps in prop::collection::vec(0_u64..12_000, 1..30)) {
        let mut contact = StoreContact::default();
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

/// A replica that executes the plan, one step each second of its own clock.
struct SimulatedReplica {
    peer: ReplicaIdentity,
    /// Its clock in milliseconds, which runs a little fast or slow.
    clock: u64,
    rate: u64,
    contact: StoreContact,
    live: Vec<ReplicaIdentity>,
    assignment: Assignment,
    leases: Vec<Option<(Fence, Option<u64>)>>,
    failed_at: Vec<Option<Duration>>,
    paused: bool,
    cut: bool,
    leaving: bool,
}

impl SimulatedReplica {
    fn new(peer: ReplicaIdentity, clock: u64, rate: u64) -> Self {
        let leases = vec![None; Partition::COUNT];
        let failed_at = vec![None; Partition::COUNT];
        Self {
            peer,
            clock,
            rate,
            contact: StoreContact::default(),
            live: Vec::new(),
            assignment: Assignment::default(),
            leases,
            failed_at,
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

    /// Takes one step. `loses` says for each operation whether its answer is lost.
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
                        self.assignment = Assignment::over(&fleet.live);
                        self.live = fleet.live;
                    }
                }
                None => self.contact.broke(),
            }
        } else if !self.cut {
            store.leave(self.peer.incarnation);
        }
        self.renew(store, loses);
        let partitions: Vec<_> = self
            .leases
            .iter()
            .zip(&self.failed_at)
            .map(|(lease, failed_at)| PartitionStatus {
                ownership: match *lease {
                    None => Ownership::None,
                    Some((fence, None)) => Ownership::Active(fence),
                    Some((fence, Some(_))) => Ownership::Draining(fence, DrainReason::Rebalance),
                },
                failed_at: *failed_at,
            })
            .collect();
        let actions = plan_rebalance(&ClusterView {
            me: self.peer.incarnation,
            assignment: &self.assignment,
            leaving: self.leaving,
            contact: self.contact.since(),
            now: self.now(),
            lease: LEASE,
            partitions: &partitions,
        });
        for action in actions {
            match action {
                RebalanceAction::Claim { partition, claiming } => {
                    self.claim(store, partition, claiming, loses, moves);
                }
                RebalanceAction::Drain { partition } => {
                    // The drain takes up to five seconds.
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
                self.failed_at[partition.index()] = Some(self.now());
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
                _ if loses() => self.failed_at[partition.index()] = Some(self.now()),
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
            self.failed_at[partition.index()] = Some(self.now());
            return;
        }
        let claim = store.claim(partition, self.peer.incarnation, LEASE, claiming);
        if loses() {
            self.failed_at[partition.index()] = Some(self.now());
        } else if let ClaimResult::Yours { fence, .. } = claim {
            *moves += 1;
            self.leases[partition.index()] = Some((fence, None));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum RebalanceEvent {
    Join,
    Leave(usize),
    Kill(usize),
    Pause(usize, bool),
    Cut(usize, bool),
    Wait(u8),
}

fn event() -> impl Strategy<Value = RebalanceEvent> {
    prop_oneof![
        2 => Just(RebalanceEvent::Join),
        1 => any::<usize>().prop_map(RebalanceEvent::Leave),
        1 => any::<usize>().prop_map(RebalanceEvent::Kill),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, on)| RebalanceEvent::Pause(which, on)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, on)| RebalanceEvent::Cut(which, on)),
        4 => (0_u8..25).prop_map(RebalanceEvent::Wait),
    ]
}

struct RebalanceWorld {
    store: Arc<MemoryStore>,
    hand: ManualClock,
    replicas: Vec<SimulatedReplica>,
    born: u64,
    random: fastrand::Rng,
    loss: f64,
    moves: usize,
}

impl RebalanceWorld {
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
            // A clock starts at any value and is up to two per cent fast or slow.
            let (clock, rate) = (self.random.u64(0..1_000_000), self.random.u64(980..=1020));
            self.replicas.push(SimulatedReplica::new(peer, clock, rate));
        }
    }

    fn happen(&mut self, event: RebalanceEvent) {
        let count = self.replicas.len().max(1);
        match event {
            RebalanceEvent::Join => self.join(),
            RebalanceEvent::Wait(seconds) => (0..seconds).for_each(|_| self.second()),
            RebalanceEvent::Kill(which) if !self.replicas.is_empty() => {
                _ = self.replicas.remove(which % count);
            }
            RebalanceEvent::Leave(which) => self.with(which, |replica| replica.leaving = true),
            RebalanceEvent::Pause(which, on) => self.with(which, |replica| replica.paused = on),
            RebalanceEvent::Cut(which, on) => self.with(which, |replica| replica.cut = on),
            RebalanceEvent::Kill(_) => {}
        }
    }

    fn with(&mut self, which: usize, change: impl FnOnce(&mut SimulatedReplica)) {
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
        // A leaving replica without partitions has ended.
        self.replicas.retain(|replica| !(replica.leaving && replica.owned().next().is_none()));
    }

    /// Ends all faults, and waits until the fleet is stable.
    fn stabilise(&mut self) {
        self.loss = 0.0;
        for replica in &mut self.replicas {
            (replica.paused, replica.cut) = (false, false);
        }
        if self.replicas.iter().all(|replica| replica.leaving) {
            self.join();
        }
        // The time covers dead heartbeats, a lease of contact, and drains.
        (0..40).for_each(|_| self.second());
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let assignment =
            Assignment::over(&self.replicas.iter().map(|replica| replica.peer.clone()).collect::<Vec<_>>());
        for partition in Partition::all() {
            let owners: Vec<_> = self
                .replicas
                .iter()
                .filter(|replica| replica.leases[partition.index()].is_some())
                .map(|replica| replica.peer.incarnation)
                .collect();
            prop_assert_eq!(&owners, &[assignment.owner(partition).unwrap()], "{}", partition);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_partition_ends_with_one_live_owner(
        seed in any::<u64>(),
        loss in prop_oneof![Just(0.0), Just(0.05), Just(0.4)],
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut world = RebalanceWorld::new(seed, loss);
        for event in events {
            world.happen(event);
        }
        world.stabilise();
        world.check()?;
        // A stable fleet moves no partition.
        let moves = world.moves;
        (0..20).for_each(|_| world.second());
        prop_assert_eq!(world.moves, moves, "partitions move without an event");
        // A new replica moves only its share.
        let (before, had) = (world.moves, world.replicas.len());
        world.join();
        world.stabilise();
        world.check()?;
        let share = Partition::COUNT / world.replicas.len();
        prop_assert!(world.moves - before <= share * 2 + 8 || had == world.replicas.len());
    }

    #[test]
    fn store_outage_moves_no_partition(seed in any::<u64>(), seconds in 1_u8..60) {
        let mut world = RebalanceWorld::new(seed, 0.0);
        (0..3).for_each(|_| world.join());
        world.stabilise();
        let moves = world.moves;
        world.replicas.iter_mut().for_each(|replica| replica.cut = true);
        (0..seconds).for_each(|_| world.second());
        world.stabilise();
        world.check()?;
        prop_assert_eq!(world.moves, moves);
    }
}
