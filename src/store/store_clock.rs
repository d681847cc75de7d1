//! An estimate of the store's time between two of its answers.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Timestamp;

/// The store's clock as one thread knows it: the last time in an answer, and the span since.
///
/// It never goes back, unless the store's own clock went back by more than a second.
#[derive(Debug)]
pub struct StoreClock {
    base: Cell<(Timestamp, Instant)>,
}

impl StoreClock {
    /// The largest lead of the estimate before the store's answer replaces it.
    const TOLERANCE: Duration = Duration::from_secs(1);

    /// Creates a clock that shows this time now.
    pub fn new(now: Timestamp) -> Self {
        Self { base: Cell::new((now, Instant::now())) }
    }

    /// Returns the estimate of the store's time.
    pub fn now(&self) -> Timestamp {
        let (told, at) = self.base.get();
        told + at.elapsed()
    }

    /// Takes in the time of an answer. The answer was on its way, so an estimate ahead of it is better.
    pub fn observe(&self, told: Timestamp) {
        let estimate = self.now();
        if told > estimate || estimate.since(told) > Self::TOLERANCE {
            self.base.set((told, Instant::now()));
        }
    }

    /// Returns the instant of that time, for a timer.
    pub fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + at.since(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn estimate_runs_on_and_does_not_go_back() {
        let at = Timestamp::from_millis;
        let clock = StoreClock::new(at(10_000));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.now(), at(10_500));
        clock.observe(at(10_200));
        assert_eq!(clock.now(), at(10_500), "a late answer changes nothing");
        clock.observe(at(11_000));
        assert_eq!(clock.now(), at(11_000));
        clock.observe(at(5_000));
        assert_eq!(clock.now(), at(5_000), "the store's clock was set back");
        assert_eq!(clock.instant(at(5_250)), Instant::now() + Duration::from_millis(250));
    }
}
