//! The link's machine against everything that can happen to it, in simulated time.
//!
//! A run is drawn from one seed: what callers post, what the platform says and when, what the store does with
//! each write, when the owner dies. [`world`] checks after every step what `link::Machine` promises. A failing
//! seed prints its last steps; run it alone with `RTM_SIM_SEED=<seed> cargo test --test all simulation`.

mod agents;
mod bench;
mod broken_link;
mod closing;
mod connection;
mod echoes;
mod failover;
mod gaps;
mod hand_over;
mod kept;
mod lease;
mod outbox;
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
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Run, World};

const SEEDS: u64 = 10_000;
/// Steps of a failing run that are printed.
const TAIL: usize = 60;

#[test]
fn promises_hold_whatever_happens() {
    let seeds = chosen_seed().map_or(0..SEEDS, |seed| seed..seed + 1);
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
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..200 {
        assert_eq!(run(seed).hash, run(seed).hash, "seed {seed}");
    }
}

fn run(seed: u64) -> Run {
    let attempt = catch_unwind(|| World::new(seed, false).run());
    match attempt {
        Ok(Run { failure: None, .. }) => attempt.unwrap(),
        _ => explain(seed),
    }
}

fn explain(seed: u64) -> ! {
    let again = catch_unwind(AssertUnwindSafe(|| World::new(seed, true).run()));
    let Ok(Run { failure, trace, .. }) = again else { panic!("seed {seed} panics, see above") };
    let tail = trace.len().saturating_sub(TAIL).max(1);
    let trace = [&trace[..1], &trace[tail..]].concat().join("\n");
    panic!("seed {seed}: {}\n{trace}", failure.unwrap_or_else(|| "goes well at the second time".into()))
}

#[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the bridge")]
fn chosen_seed() -> Option<u64> {
    std::env::var("RTM_SIM_SEED").ok()?.parse().ok()
}
