//! The machine of a link against random faults, in simulated time.
//!
//! One seed draws a whole run: the messages of callers, the frames of the platform, the answers of the store, the
//! deaths of owners. [`world`] checks the promises of `link::Machine` after every step. A failing seed prints its
//! last steps; run it alone with `RTM_SIM_SEED=<seed> cargo test --test all simulation`.

mod backfill;
mod bench;
mod broken_link;
mod connect_message;
mod connection;
mod echoes;
mod end_session;
mod erasure;
mod failover;
mod first_gap;
mod handoff;
mod human_agent;
mod keep_open;
mod learned_quiet;
mod lease;
mod odd_times;
mod outbox;
mod own_record;
pub(crate) mod platform;
mod properties;
mod receivers;
mod rules;
mod send_at_accept;
mod sockets;
mod store;
mod streams;
pub(crate) mod support;
pub(crate) mod trace;
mod user_signals;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::{chosen_seeds, number_in, on_all_processors};

use world::{SimulationRun, World};

/// The variable that chooses seeds.
const CHOICE: &str = "RTM_SIM_SEED";
const SEEDS: u64 = 10_000;
/// The steps of a failing run that are printed. All are printed of a chosen seed.
const TAIL: usize = 60;

#[test]
fn random_runs_keep_all_promises() {
    let count = number_in("RTM_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = chosen_seeds(CHOICE).unwrap_or_else(|| (0..count).collect());
    let shares = on_all_processors(&seeds, |share| {
        let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
        let mut failures = Vec::new();
        for seed in share {
            let run = World::new(seed, false).run();
            failures.extend(run.failure.map(|failure| (seed, failure)));
            for outcome in run.outcomes {
                *ends.entry(outcome).or_default() += 1;
            }
        }
        (ends, failures)
    });
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    let mut failures = Vec::new();
    for (share, failed) in shares {
        failures.extend(failed);
        for (outcome, count) in share {
            *ends.entry(outcome).or_default() += count;
        }
    }
    failures.sort_unstable();
    for (seed, failure) in &failures {
        println!("seed {seed}: {failure}");
    }
    println!("{ends:?}");
    if let Some((seed, _)) = failures.first() {
        explain(*seed);
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in 0..200 {
        assert_eq!(run(seed).hash, run(seed).hash, "seed {seed}");
    }
}

fn run(seed: u64) -> SimulationRun {
    let attempt = catch_unwind(|| World::new(seed, false).run());
    match attempt {
        Ok(SimulationRun { failure: None, .. }) => attempt.unwrap(),
        _ => explain(seed),
    }
}

fn explain(seed: u64) -> ! {
    let again = catch_unwind(AssertUnwindSafe(|| World::new(seed, true).run()));
    let Ok(SimulationRun { failure, trace, .. }) = again else { panic!("seed {seed} panics, see above") };
    let steps = if chosen_seeds(CHOICE).is_some() { usize::MAX } else { TAIL };
    let tail = trace.len().saturating_sub(steps).max(1);
    let trace = [&trace[..1], &trace[tail..]].concat().join("\n");
    panic!("seed {seed}: {}\n{trace}", failure.unwrap_or_else(|| "does not fail when it is repeated".into()))
}
