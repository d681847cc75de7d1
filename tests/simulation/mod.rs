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

use world::{SimulationRun, World};

const SEEDS: u64 = 10_000;
/// The steps of a failing run that are printed.
const TAIL: usize = 60;

#[test]
fn random_runs_keep_all_promises() {
    let seeds = chosen_seed().map_or(0..number_in("RTM_SIM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in seeds {
        let run = run(seed);
        for outcome in run.outcomes {
            *ends.entry(outcome).or_default() += 1;
        }
    }
    println!("{ends:?}");
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
    let tail = trace.len().saturating_sub(TAIL).max(1);
    let trace = [&trace[..1], &trace[tail..]].concat().join("\n");
    panic!("seed {seed}: {}\n{trace}", failure.unwrap_or_else(|| "does not fail when it is repeated".into()))
}

fn chosen_seed() -> Option<u64> {
    number_in("RTM_SIM_SEED")
}

#[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the bridge")]
fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
