//! The platform's wall clock. The sandbox simulates another machine, so it reads a clock of its own.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Returns the present. It is a whole number of milliseconds, as all times on the wire.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Returns the time `span` after `at`, or the last time there is if that comes first.
pub(super) fn after(at: Timestamp, span: Duration) -> Timestamp {
    at.saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// Returns the time that a clock with this lead shows at `at`.
pub(super) fn shifted(at: Timestamp, lead: SignedDuration) -> Timestamp {
    at.saturating_add(lead).unwrap_or(Timestamp::MAX)
}

/// Returns the span from `earlier` to `later`, or zero if `later` is not the later one.
pub(super) fn elapsed(earlier: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(earlier).try_into().unwrap_or_default()
}

/// Writes a time as RFC 3339 in UTC with milliseconds (`2026-11-22T09:30:00.123Z`).
pub(super) fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_after_the_last_saturates() {
        assert_eq!(after(Timestamp::MAX, Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(after(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
    }

    #[test]
    fn elapsed_time_backwards_is_zero() {
        let (earlier, later) = (Timestamp::constant(5, 0), Timestamp::constant(7, 0));
        assert_eq!(elapsed(earlier, later), Duration::from_secs(2));
        assert_eq!(elapsed(later, earlier), Duration::ZERO);
    }

    #[test]
    fn written_time_has_three_digits() {
        assert_eq!(rfc3339(Timestamp::constant(1_763_845_000, 120_000_000)), "2025-11-22T20:56:40.120Z");
    }
}
