//! The ownership protocol under faults, in simulated time.
//!
//! One seed determines a run: replicas with clocks of their own, a memory store with a manual clock, a lossy network,
//! platforms, callers and faults. Faults are crashes, pauses, cuts, joins, leaves, and a store that is away or
//! comes back empty. [`audit`] checks the invariants. The rebalance plan is the hub's, and the conversations are the link's
//! machine. A failing seed prints its last events; `FLEET_SEED=<seed> cargo test --test all fleet` runs it alone.

mod audit;
mod callers;
mod conversation;
mod fault_plan;
mod faults;
mod membership;
mod network;
mod replica;
mod replica_actions;
mod socket;
mod store;
mod user;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};

use rtm_bridge::domain::BotName;

use crate::support::{chosen_seeds, number_in, on_all_processors};

use fault_plan::{Fault, FaultPlan};
use world::{FleetRun, FleetWorld};

/// The variable that chooses seeds.
const CHOICE: &str = "FLEET_SEED";
const SEEDS: u64 = 2000;
/// Events of a failing run that are printed. All are printed of a chosen seed.
const TAIL: usize = 120;
const USERS: usize = 8;
/// The lifetime of a lease, in milliseconds.
const LEASE: u64 = 10_000;
/// The store's time at the start of a run.
const START: u64 = 1_763_845_000_000;

/// The totals of many runs.
#[derive(Debug, Default)]
struct RunSummary {
    ends: BTreeMap<&'static str, u32>,
    sends: u32,
    connects: u32,
    gaps: u32,
    emptied: u32,
    moves: usize,
    events: u64,
}

impl RunSummary {
    fn add(&mut self, run: FleetRun) {
        for (outcome, count) in run.ledger.outcomes {
            *self.ends.entry(outcome).or_default() += count;
        }
        self.sends += run.ledger.sends;
        self.connects += run.ledger.connects;
        self.gaps += run.ledger.gaps;
        self.emptied += run.ledger.emptied;
        self.moves += run.moves.len();
        self.events += run.events;
    }

    fn join(mut self, other: Self) -> Self {
        for (outcome, count) in other.ends {
            *self.ends.entry(outcome).or_default() += count;
        }
        self.sends += other.sends;
        self.connects += other.connects;
        self.gaps += other.gaps;
        self.emptied += other.emptied;
        self.moves += other.moves;
        self.events += other.events;
        self
    }
}

#[test]
fn every_message_ends_once_despite_faults() {
    let sum = runs(number_in("FLEET_SEEDS").unwrap_or(SEEDS), |_, _| (), |_, _| ());
    println!("{sum:?}");
    assert!(sum.gaps > 0 || chosen_seeds(CHOICE).is_some(), "no replica was stopped at a critical moment");
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        assert_eq!(run(seed, |_, _| ()).hash, run(seed, |_, _| ()).hash, "seed {seed}");
    }
}

#[test]
fn store_outage_moves_no_partition() {
    let outage = |seed: u64, plan: &mut FaultPlan| {
        plan.only(3, vec![(15_000, Fault::Away { time: 500 + seed * 137 % 28_000, empty: false })]);
    };
    let sum = runs(100, outage, |seed, run| assert_eq!(run.moves, [], "seed {seed}"));
    println!("{sum:?}");
}

#[test]
fn new_replica_gets_its_share_and_no_more_moves() {
    let join = |_, plan: &mut FaultPlan| plan.only(3, vec![(15_000, Fault::Join { slot: 3 })]);
    let sum = runs(100, join, |seed, run| {
        let partitions: BTreeSet<_> = run.moves.iter().map(|(partition, ..)| *partition).collect();
        assert!(run.moves.iter().all(|(_, _, to)| *to == 3), "seed {seed}: {:?}", run.moves);
        assert_eq!(partitions.len(), run.moves.len(), "seed {seed}: {:?}", run.moves);
        assert!(!run.moves.is_empty(), "seed {seed}");
    });
    println!("{sum:?}");
}

#[test]
fn leaving_replica_gives_up_only_its_share() {
    for fault in [Fault::Term { slot: 1, back: 600_000 }, Fault::Crash { slot: 1, back: 600_000 }] {
        let leave = move |_, plan: &mut FaultPlan| plan.only(3, vec![(15_000, fault)]);
        let sum = runs(100, leave, |seed, run| {
            let partitions: BTreeSet<_> = run.moves.iter().map(|(partition, ..)| *partition).collect();
            assert!(run.moves.iter().all(|(_, from, _)| *from == 1), "seed {seed}: {:?}", run.moves);
            assert_eq!(partitions.len(), run.moves.len(), "seed {seed}: {:?}", run.moves);
            assert!(!run.moves.is_empty(), "seed {seed}");
        });
        println!("{sum:?}");
    }
}

#[test]
fn fleet_continues_with_an_emptied_store() {
    let emptied = |seed: u64, plan: &mut FaultPlan| {
        let time = 100 + seed * 137 % 9000;
        plan.faults.extend((1..4).map(|i| (i * 11_000, Fault::Away { time, empty: true })));
        plan.burst = 90;
    };
    let sum = runs(300, emptied, |_, _| ());
    println!("{sum:?}");
    assert!(sum.ends.contains_key("lost") || chosen_seeds(CHOICE).is_some(), "no message was lost");
}

#[test]
fn fleet_without_hints_still_answers() {
    for deaf in [true, false] {
        let quiet = move |_, plan: &mut FaultPlan| {
            plan.only(3, Vec::new());
            (plan.deaf, plan.hint_lost) = (deaf, if deaf { 100 } else { 0 });
        };
        let sum = runs(100, quiet, |_, _| ());
        let failed = sum.ends.get("platform-unavailable").copied().unwrap_or_default();
        // Some deadlines are shorter than the sweep that replaces a hint.
        assert!(failed * 20 < sum.ends.values().sum(), "{sum:?}");
        println!("{sum:?}");
    }
}

/// Runs many seeds on all processors; `check` checks each run.
fn runs(
    seeds: u64,
    change: impl Fn(u64, &mut FaultPlan) + Copy + Sync + UnwindSafe + RefUnwindSafe,
    check: impl Fn(u64, &FleetRun) + Copy + Sync,
) -> RunSummary {
    let seeds = chosen_seeds(CHOICE).unwrap_or_else(|| (0..seeds).collect());
    let shares = on_all_processors(&seeds, |share| {
        let mut sum = RunSummary::default();
        let mut failures = Vec::new();
        for seed in share {
            let run = FleetWorld::new(seed, |plan| change(seed, plan), false).run();
            if let Some(failure) = run.failure {
                failures.push((seed, failure));
                continue;
            }
            check(seed, &run);
            sum.add(run);
        }
        (sum, failures)
    });
    let mut sum = RunSummary::default();
    let mut failures = Vec::new();
    for (share, failed) in shares {
        sum = sum.join(share);
        failures.extend(failed);
    }
    failures.sort_unstable();
    for (seed, failure) in &failures {
        println!("seed {seed}: {failure}");
    }
    if let Some((seed, _)) = failures.first() {
        explain(*seed, change);
    }
    sum
}

fn run(seed: u64, change: impl Fn(u64, &mut FaultPlan) + Copy + UnwindSafe + RefUnwindSafe) -> FleetRun {
    let attempt = catch_unwind(|| FleetWorld::new(seed, |plan| change(seed, plan), false).run());
    match attempt {
        Ok(FleetRun { failure: None, .. }) => attempt.unwrap(),
        _ => explain(seed, change),
    }
}

fn explain(seed: u64, change: impl Fn(u64, &mut FaultPlan)) -> ! {
    let again =
        catch_unwind(AssertUnwindSafe(|| FleetWorld::new(seed, |plan| change(seed, plan), true).run()));
    let Ok(FleetRun { failure, trace, .. }) = again else { panic!("seed {seed} panics, see above") };
    let events = if chosen_seeds(CHOICE).is_some() { usize::MAX } else { TAIL };
    let tail = trace.len().saturating_sub(events).max(1);
    let trace = [&trace[..1], &trace[tail..]].concat().join("\n");
    panic!("seed {seed}: {}\n{trace}", failure.unwrap_or_else(|| "the second run succeeds".into()))
}

fn bot_name() -> BotName {
    BotName::new("support").unwrap()
}
