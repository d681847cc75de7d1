//! A limit for log lines that one event causes many times.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time for which a line stands for all that follow.
const PAUSE: Duration = Duration::from_secs(10);

/// A limit for one kind of line: one outage or one pause of the replica concerns many partitions and conversations, and
/// an operator acts once. Metrics count the rest.
#[derive(Debug, Default)]
pub struct LogLimiter {
    /// The end of the pause, in milliseconds since the first use in the process; 0 before the first line.
    until: AtomicU64,
    left_out: AtomicU64,
}

impl LogLimiter {
    /// Creates a limiter that lets the next line pass.
    pub const fn new() -> Self {
        Self { until: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Returns how many lines were left out since the last one if a line may be written now.
    pub fn pass(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        self.pass_at(START.get_or_init(Instant::now).elapsed())
    }

    fn pass_at(&self, now: Duration) -> Option<u64> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let until = self.until.load(Ordering::Relaxed);
        let next = millis(now.saturating_add(PAUSE));
        if millis(now) < until
            || self.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_within_the_pause_are_counted_instead() {
        let limiter = LogLimiter::new();
        let at = Duration::from_secs;
        assert_eq!(limiter.pass_at(at(0)), Some(0));
        for _ in 0..3 {
            assert_eq!(limiter.pass_at(at(9)), None);
        }
        assert_eq!(limiter.pass_at(at(10)), Some(3));
        assert_eq!(limiter.pass_at(at(19)), None);
        assert_eq!(limiter.pass_at(at(60)), Some(1));
    }
}
