//! The debt of long work, which time makes up for.

use std::time::Duration;

use tokio::time::Instant;

/// Each duration of work needs a time this many times as long, before as much can be done again.
pub(super) const TIME_PER_WORK: u32 = 4;

/// The duration of long work that time has not made up for. In the long run such work takes a quarter of the time.
#[derive(Debug)]
pub(super) struct WorkDebt {
    owed: Duration,
    /// The time up to which `owed` is counted.
    at: Instant,
    /// Work of this duration needs no rest.
    burst: Duration,
}

impl WorkDebt {
    /// Creates an empty debt. Work of the duration `burst` needs no rest.
    pub(super) fn new(burst: Duration) -> Self {
        Self { owed: Duration::ZERO, at: Instant::now(), burst }
    }

    /// Returns the rest that is due before more work.
    pub(super) fn rest(&mut self, now: Instant) -> Duration {
        let made_up = now.saturating_duration_since(self.at) / TIME_PER_WORK;
        (self.owed, self.at) = (self.owed.saturating_sub(made_up), now);
        self.owed.saturating_sub(self.burst) * TIME_PER_WORK
    }

    /// Counts work between these times. It counts as `burst` at most, because a wait is not work.
    pub(super) fn add(&mut self, begun: Instant, ended: Instant) {
        self.owed += ended.saturating_duration_since(begun).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_millis(4);

    #[test]
    fn long_work_takes_a_quarter_of_the_time() {
        let start = Instant::now();
        let (mut debt, mut now, mut work) = (WorkDebt::new(BURST), start, Duration::ZERO);
        while now < start + Duration::from_secs(1) {
            let rest = debt.rest(now);
            assert!(work >= BURST || rest.is_zero(), "the first {BURST:?} need no rest");
            now += rest;
            let piece = Duration::from_micros(50);
            debt.add(now, now + piece);
            now += piece;
            work += piece;
        }
        let share = work.as_secs_f64() / (now - start).as_secs_f64();
        assert!((0.24..0.26).contains(&share), "{share}");
        // A rest of the same length as the debt makes up for all of it.
        assert_eq!(debt.rest(now + BURST * 2 * TIME_PER_WORK), Duration::ZERO);
        assert_eq!(debt.owed, Duration::ZERO);
    }

    #[test]
    fn late_store_causes_no_long_rest() {
        let start = Instant::now();
        let mut debt = WorkDebt::new(BURST);
        let answered = start + Duration::from_secs(2);
        debt.add(start, answered);
        assert_eq!(debt.rest(answered), Duration::ZERO);
    }
}
