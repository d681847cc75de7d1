//! The clock of the embedded store.
//!
//! Redis has its own clock. Other layers therefore ask the store for the time ([`super::Store::now`]), never this
//! clock. Only signatures for others have the wall clock's time ([`crate::wall_clock`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::domain::Timestamp;

/// The time in milliseconds. It never goes back. Clones are cheap and show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<ClockSource>);

#[derive(Debug)]
enum ClockSource {
    /// The time is `offset` plus the span since `started`, and the offset only grows. A wall clock that steps
    /// forward, or a machine that slept, moves this clock forward. A wall clock that is set back does not move it.
    Wall {
        started: Instant,
        offset: AtomicU64,
    },
    Manual(AtomicU64),
}

impl Clock {
    /// Returns a clock with the time of the machine.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that the rest is given the time by")]
    pub fn wall() -> Self {
        Self(Arc::new(ClockSource::Wall { started: Instant::now(), offset: AtomicU64::new(0) }))
    }

    /// Returns a clock for tests and simulations. It stands still until it is advanced.
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let clock = Self(Arc::new(ClockSource::Manual(AtomicU64::new(start.as_millis()))));
        (clock.clone(), ManualClock(clock))
    }

    /// Returns the time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that the rest is given the time by")]
    pub fn now(&self) -> Timestamp {
        let millis = match &*self.0 {
            ClockSource::Wall { started, offset } => {
                let elapsed = millis(started.elapsed());
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let seen = millis(wall).saturating_sub(elapsed);
                elapsed + offset.fetch_max(seen, Ordering::AcqRel).max(seen)
            }
            ClockSource::Manual(now) => now.load(Ordering::Acquire),
        };
        Timestamp::from_millis(millis)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The control of a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Clock);

impl ManualClock {
    /// Moves the time forward, in whole milliseconds.
    pub fn advance(&self, span: Duration) {
        if let ClockSource::Manual(now) = &*self.0.0 {
            now.fetch_add(millis(span), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clock_set_back_does_not_move_the_clock() {
        let clock = Clock::wall();
        let first = clock.now();
        assert!(first > Timestamp::from_millis(1_700_000_000_000));
        let ClockSource::Wall { offset, .. } = &*clock.0 else { panic!("a wall clock") };
        // The machine was an hour ahead at the first reading.
        offset.fetch_add(3_600_000, Ordering::AcqRel);
        assert!(clock.now().since(first) >= Duration::from_hours(1));
    }

    #[test]
    fn manual_clock_moves_only_by_advance() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(5));
        assert_eq!(clock.now(), Timestamp::from_millis(5));
        hand.advance(Duration::from_secs(1));
        assert_eq!(clock.clone().now(), Timestamp::from_millis(1005));
    }
}
