//! The store's time, estimated between two answers of the store.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Timestamp;

/// The store's clock as one thread knows it: the last time the store told, and how long ago that was.
///
/// It never goes back, except where the store's own clock did by more than a second.
#[derive(Debug)]
pub struct StoreClock {
    base: Cell<(Timestamp, Instant)>,
}

impl StoreClock {
    /// How far the estimate may be ahead before the store is believed.
    const TOLERANCE: Duration = Duration::from_secs(1);

    /// A clock that was just told this time.
    pub fn new(now: Timestamp) -> Self {
        Self { base: Cell::new((now, Instant::now())) }
    }

    /// The store's time now.
    pub fn now(&self) -> Timestamp {
        let (told, at) = self.base.get();
        told + at.elapsed()
    }

    /// The store told its time. The answer took its way, so an estimate ahead of it is the better one.
    pub fn observe(&self, told: Timestamp) {
        let estimate = self.now();
        if told > estimate || estimate.since(told) > Self::TOLERANCE {
            self.base.set((told, Instant::now()));
        }
    }

    /// When that time comes, for a timer.
    pub fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + at.since(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_between_two_answers_and_does_not_go_back() {
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
