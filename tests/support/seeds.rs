//! Seeds of simulated runs: their choice, and their division among processors.

use std::iter::{Copied, Skip, StepBy};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::slice::Iter;
use std::thread::available_parallelism;

/// The seeds of one processor.
pub(crate) type SeedShare<'a> = StepBy<Skip<Copied<Iter<'a, u64>>>>;

/// Runs `work` on a thread for each processor, each with a share of the seeds. Returns the result of each.
///
/// # Panics
///
/// Panics with the panic of `work`.
pub(crate) fn on_all_processors<T: Send>(seeds: &[u64], work: impl Fn(SeedShare<'_>) -> T + Sync) -> Vec<T> {
    let threads = available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let work = &work;
        let spawned: Vec<_> = (0..threads)
            .map(|from| scope.spawn(move || work(seeds.iter().copied().skip(from).step_by(threads))))
            .collect();
        spawned.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Returns the seeds that the variable of the environment lists, with commas between them.
pub(crate) fn chosen_seeds(variable: &str) -> Option<Vec<u64>> {
    let seeds = in_environment(variable)?;
    Some(seeds.split(',').map(|seed| seed.trim().parse().expect("a list of seeds")).collect())
}

/// Returns the number in this variable of the environment.
pub(crate) fn number_in(variable: &str) -> Option<u64> {
    in_environment(variable).map(|number| number.parse().expect("a number of seeds"))
}

#[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the bridge")]
fn in_environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}
