//! The delay before a retry: exponential, with full jitter.
//!
//! Connects to the platform and to Redis use it, and so do calls to a store that does not answer. Full jitter is a
//! uniform draw between zero and the current step. After an outage it spreads the retries of many conversations and
//! replicas better than a smaller jitter does.

use std::time::Duration;

/// The state of one series of retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u8,
}

impl Backoff {
    /// Starts a series. The step is `first` after the first failure, doubles with each further one, and is `cap` at
    /// most.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failures: 0 }
    }

    /// Starts a series for a store that does not answer: 250 ms to 2 s. The cap is low because callers wait and
    /// leases are short, so the store must be asked again soon after it is back.
    pub const fn for_store() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(2))
    }

    /// Returns the number of failures in a row, 255 at most.
    pub const fn failures(self) -> u8 {
        self.failures
    }

    /// Counts a failure and returns the delay before the retry. `draw` is uniform in 0..1.
    pub fn next(&mut self, draw: f64) -> Duration {
        let step = self.first.saturating_mul(1 << self.failures.min(16)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(draw.clamp(0.0, 1.0))
    }

    /// Ends the series: the next failure counts as the first one again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn backoff_after_failures_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(FIRST, CAP);
        let steps: Vec<u128> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(steps, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0), FIRST);
    }

    #[test]
    fn backoff_after_many_failures_keeps_the_cap() {
        let mut backoff = Backoff { failures: u8::MAX, ..Backoff::new(FIRST, CAP) };
        assert_eq!(backoff.next(1.0), CAP);
        assert_eq!(backoff.failures(), u8::MAX);
    }

    proptest! {
        #[test]
        fn delay_is_between_zero_and_the_step(failures: u8, draw: f64) {
            let series = Backoff { failures, ..Backoff::new(FIRST, CAP) };
            let step = { series }.next(1.0);
            let delay = { series }.next(draw);
            prop_assert!(delay <= step, "{delay:?} of {step:?}");
        }

        #[test]
        fn delay_grows_with_the_draw(failures: u8, low in 0.0..1.0_f64, high in 0.0..1.0_f64) {
            let series = Backoff { failures, ..Backoff::new(FIRST, CAP) };
            prop_assume!(low <= high);
            let (low, high) = ({ series }.next(low), { series }.next(high));
            prop_assert!(low <= high, "{low:?} above {high:?}");
        }
    }
}
