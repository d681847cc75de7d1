//! The ownership protocol against everything that can happen to it, in simulated time.
//!
//! A run is drawn from one seed: replicas with clocks of their own, the store (the embedded one, by a clock moved
//! by hand) behind a network that delays and loses, platforms, callers, and blows: crashes, pauses, cuts, joins,
//! leaves, a store that is away or comes back empty. [`audit`] says what must hold whatever happens. The decisions
//! are the hub's, the conversations the link's machine. A failing seed prints its last happenings; run it alone
//! with `FLEET_SEED=<seed> cargo test --test all fleet`.

mod audit;
mod blows;
mod caller;
mod conversation;
mod keeper;
mod network;
mod replica;
mod socket;
mod store;
mod temper;
mod tend;
mod user;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::thread::available_parallelism;

use rtm_bridge::domain::BotName;

use temper::{Blow, Temper};
use world::{Run, World};

const SEEDS: u64 = 2000;
/// Happenings of a failing run that are printed.
const TAIL: usize = 120;
const USERS: usize = 8;
/// How long a lease lives, in milliseconds.
const LEASE: u64 = 10_000;
/// The store's time as a run begins.
const START: u64 = 1_763_845_000_000;

/// What many runs came to.
#[derive(Debug, Default)]
struct Sum {
    ends: BTreeMap<&'static str, u32>,
    sends: u32,
    connects: u32,
    gaps: u32,
    emptied: u32,
    moves: usize,
    happened: u64,
}

impl Sum {
    fn add(&mut self, run: Run) {
        for (outcome, count) in run.ledger.outcomes {
            *self.ends.entry(outcome).or_default() += count;
        }
        self.sends += run.ledger.sends;
        self.connects += run.ledger.connects;
        self.gaps += run.ledger.gaps;
        self.emptied += run.ledger.emptied;
        self.moves += run.moves.len();
        self.happened += run.happened;
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
        self.happened += other.happened;
        self
    }
}

#[test]
fn every_message_ends_once_whatever_befalls_the_fleet() {
    let sum = runs(SEEDS, |_, _| (), |_, _| ());
    println!("{sum:?}");
    assert!(sum.gaps > 0 || chosen_seed().is_some(), "no replica was ever stopped at the wrong moment");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        assert_eq!(run(seed, |_, _| ()).hash, run(seed, |_, _| ()).hash, "seed {seed}");
    }
}

#[test]
fn an_outage_of_the_store_moves_nothing() {
    let outage = |seed: u64, temper: &mut Temper| {
        temper.only(3, vec![(15_000, Blow::Away { time: 500 + seed * 137 % 28_000, empty: false })]);
    };
    let sum = runs(100, outage, |seed, run| assert_eq!(run.moves, [], "seed {seed}"));
    println!("{sum:?}");
}

#[test]
fn who_joins_gets_its_share_and_nothing_else_moves() {
    let join = |_, temper: &mut Temper| temper.only(3, vec![(15_000, Blow::Join { slot: 3 })]);
    let sum = runs(100, join, |seed, run| {
        let partitions: BTreeSet<_> = run.moves.iter().map(|(partition, ..)| *partition).collect();
        assert!(run.moves.iter().all(|(_, _, to)| *to == 3), "seed {seed}: {:?}", run.moves);
        assert_eq!(partitions.len(), run.moves.len(), "seed {seed}: {:?}", run.moves);
        assert!(!run.moves.is_empty(), "seed {seed}");
    });
    println!("{sum:?}");
}

#[test]
fn who_goes_leaves_its_share_and_nothing_else_moves() {
    for blow in [Blow::Term { slot: 1, back: 600_000 }, Blow::Crash { slot: 1, back: 600_000 }] {
        let leave = move |_, temper: &mut Temper| temper.only(3, vec![(15_000, blow)]);
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
fn a_store_that_comes_back_empty_is_taken_up_again() {
    let emptied = |seed: u64, temper: &mut Temper| {
        let time = 100 + seed * 137 % 9000;
        temper.blows.extend((1..4).map(|i| (i * 11_000, Blow::Away { time, empty: true })));
        temper.burst = 90;
    };
    let sum = runs(300, emptied, |_, _| ());
    println!("{sum:?}");
    assert!(sum.ends.contains_key("lost") || chosen_seed().is_some(), "nothing was lost");
}

#[test]
fn where_every_hint_is_lost_everything_is_answered_all_the_same() {
    for deaf in [true, false] {
        let quiet = move |_, temper: &mut Temper| {
            temper.only(3, Vec::new());
            (temper.deaf, temper.hint_lost) = (deaf, if deaf { 100 } else { 0 });
        };
        let sum = runs(100, quiet, |_, _| ());
        let failed = sum.ends.get("platform-unavailable").copied().unwrap_or_default();
        // Short deadlines may not wait for the look that takes the place of a hint.
        assert!(failed * 20 < sum.ends.values().sum(), "{sum:?}");
        println!("{sum:?}");
    }
}

/// Runs many seeds, on all the processors there are; `check` looks at each.
fn runs(
    seeds: u64,
    change: impl Fn(u64, &mut Temper) + Copy + Send + UnwindSafe + RefUnwindSafe,
    check: impl Fn(u64, &Run) + Copy + Send,
) -> Sum {
    let seeds = chosen_seed().map_or(0..seeds, |seed| seed..seed + 1);
    let threads = available_parallelism().map_or(1, NonZero::get);
    let some = move |from: usize| {
        let mut sum = Sum::default();
        for seed in seeds.skip(from).step_by(threads) {
            let run = run(seed, change);
            check(seed, &run);
            sum.add(run);
        }
        sum
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|from| {
                scope.spawn({
                    let some = some.clone();
                    move || some(from)
                })
            })
            .collect();
        let sums =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        sums.fold(Sum::default(), Sum::join)
    })
}

fn run(seed: u64, change: impl Fn(u64, &mut Temper) + Copy + UnwindSafe + RefUnwindSafe) -> Run {
    let attempt = catch_unwind(|| World::new(seed, |temper| change(seed, temper), false).run());
    match attempt {
        Ok(Run { failure: None, .. }) => attempt.unwrap(),
        _ => explain(seed, change),
    }
}

fn explain(seed: u64, change: impl Fn(u64, &mut Temper)) -> ! {
    let again =
        catch_unwind(AssertUnwindSafe(|| World::new(seed, |temper| change(seed, temper), true).run()));
    let Ok(Run { failure, trace, .. }) = again else { panic!("seed {seed} panics, see above") };
    let tail = trace.len().saturating_sub(TAIL).max(1);
    let trace = [&trace[..1], &trace[tail..]].concat().join("\n");
    panic!("seed {seed}: {}\n{trace}", failure.unwrap_or_else(|| "goes well at the second time".into()))
}

fn bot_name() -> BotName {
    BotName::new("support").unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the bridge")]
fn chosen_seed() -> Option<u64> {
    std::env::var("FLEET_SEED").ok()?.parse().ok()
}
