//! The ownership protocol against everything that can happen to it, in simulated time.
//!
//! A run is drawn from one seed: replicas with clocks of their own, the store (the embedded one, by a clock moved
//! by hand) behind a network that delays and loses, platforms, callers, and blows: crashes, pauses, cuts, joins,
//! leaves, a store that is away or comes back empty. [`audit`] says what must hold whatever happens. The decisions
//! are the hub's, the conversations the link's machine. A failing seed prints its last happenings; run it alone
//! with `FLEET_SEED=<seed> cargo test --test all fleet`.

mod audit;
mod caller;
mod conversation;
mod keeper;
mod network;
mod replica;
mod store;
mod temper;
mod tend;
mod user;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rtm_bridge::domain::BotName;

use temper::Temper;
use world::{Run, World};

const SEEDS: u64 = 2000;
/// Happenings of a failing run that are printed.
const TAIL: usize = 120;
const USERS: usize = 8;
/// How long a lease lives, in milliseconds.
const LEASE: u64 = 10_000;
/// The store's time as a run begins.
const START: u64 = 1_763_845_000_000;

#[test]
fn every_message_ends_once_whatever_befalls_the_fleet() {
    let seeds = chosen_seed().map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut sends, mut connects, mut gaps, mut moves, mut happened) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let run = run(seed, |_| ());
        for (outcome, count) in run.ledger.outcomes {
            *ends.entry(outcome).or_default() += count;
        }
        sends += run.ledger.sends;
        connects += run.ledger.connects;
        gaps += run.ledger.gaps;
        moves += run.moves;
        happened += run.happened;
    }
    println!("{ends:?}; {sends} sends, {connects} connects, {gaps} in gaps; {moves} moves; {happened} events");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        assert_eq!(run(seed, |_| ()).hash, run(seed, |_| ()).hash, "seed {seed}");
    }
}

fn run(seed: u64, change: fn(&mut Temper)) -> Run {
    let attempt = catch_unwind(|| World::new(seed, change, false).run());
    match attempt {
        Ok(Run { failure: None, .. }) => attempt.unwrap(),
        _ => explain(seed, change),
    }
}

fn explain(seed: u64, change: fn(&mut Temper)) -> ! {
    let again = catch_unwind(AssertUnwindSafe(|| World::new(seed, change, true).run()));
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
