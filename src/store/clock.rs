//! The clock of the embedded store: the only place that reads the wall clock.
//!
//! Redis has a clock of its own, so nothing outside the store asks this one; see [`super::Store::now`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::domain::Timestamp;

/// Tells the time in milliseconds, and never an earlier one than before. Cheap to clone; clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// `offset` plus the time since `started`. The offset only grows: a wall clock that steps forward (or slept
    /// with the machine) takes this one along, one that is set back does not, and time goes on meanwhile.
    Wall {
        started: Instant,
        offset: AtomicU64,
    },
    Manual(AtomicU64),
}

impl Clock {
    /// The time of the machine.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that the rest is given the time by")]
    pub fn wall() -> Self {
        Self(Arc::new(Source::Wall { started: Instant::now(), offset: AtomicU64::new(0) }))
    }

    /// A clock that stands still until it is advanced: for tests and simulations.
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let clock = Self(Arc::new(Source::Manual(AtomicU64::new(start.as_millis()))));
        (clock.clone(), ManualClock(clock))
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that the rest is given the time by")]
    pub fn now(&self) -> Timestamp {
        let millis = match &*self.0 {
            Source::Wall { started, offset } => {
                let elapsed = millis(started.elapsed());
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let seen = millis(wall).saturating_sub(elapsed);
                elapsed + offset.fetch_max(seen, Ordering::AcqRel).max(seen)
            }
            Source::Manual(now) => now.load(Ordering::Acquire),
        };
        Timestamp::from_millis(millis)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The hand that moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Clock);

impl ManualClock {
    /// Moves the time forward, in whole milliseconds.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual(now) = &*self.0.0 {
            now.fetch_add(millis(span), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_take_us_back() {
        let clock = Clock::wall();
        let first = clock.now();
        assert!(first > Timestamp::from_millis(1_700_000_000_000));
        let Source::Wall { offset, .. } = &*clock.0 else { panic!("a wall clock") };
        // As if the machine had been an hour ahead when it was asked before.
        offset.fetch_add(3_600_000, Ordering::AcqRel);
        assert!(clock.now().since(first) >= Duration::from_hours(1));
    }

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(5));
        assert_eq!(clock.now(), Timestamp::from_millis(5));
        hand.advance(Duration::from_secs(1));
        assert_eq!(clock.clone().now(), Timestamp::from_millis(1005));
    }
}
