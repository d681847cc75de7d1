//! How long to wait before the next connect: exponential, with full jitter.

use std::time::Duration;

/// The schedule of connects that follow each other. Full jitter (a uniform draw between nothing and the step)
/// spreads the replicas' and users' connects after an outage better than any smaller jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    attempt: u8,
    cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::capped(Self::CAP)
    }
}

impl Backoff {
    /// The first step.
    const BASE: Duration = Duration::from_millis(250);
    /// The longest step, unless another is chosen.
    const CAP: Duration = Duration::from_secs(30);

    /// The schedule for a store that is away. It is ours and near, callers wait for its answer, and a lease is
    /// short: once it is back nobody is to wait long before asking again.
    pub const fn of_store() -> Self {
        Self::capped(Duration::from_secs(2))
    }

    const fn capped(cap: Duration) -> Self {
        Self { attempt: 0, cap }
    }

    /// How many connects followed each other without a sign of success.
    pub const fn attempt(self) -> u8 {
        self.attempt
    }

    /// The wait before the next connect, which is counted. `draw` is uniform in 0..1; `least` is what the
    /// platform asked for or what the cause demands.
    pub fn next(&mut self, draw: f64, least: Duration) -> Duration {
        let step = Self::BASE.saturating_mul(1 << self.attempt.min(16)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        least + step.mul_f64(draw.clamp(0.0, 1.0))
    }

    /// The link has proved itself: the next loss starts from the first step again.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let steps: Vec<u128> = (0..10).map(|_| backoff.next(1.0, Duration::ZERO).as_millis()).collect();
        assert_eq!(steps, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0, Duration::ZERO), Backoff::BASE);
    }

    #[test]
    fn jitter_is_full_and_the_least_is_kept() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(0.0, Duration::ZERO), Duration::ZERO);
        assert_eq!(backoff.next(0.5, Duration::from_secs(2)), Duration::from_millis(2250));
        let mut old = Backoff { attempt: u8::MAX, ..Backoff::default() };
        assert_eq!(old.next(1.0, Duration::ZERO), Backoff::CAP);
    }
}
