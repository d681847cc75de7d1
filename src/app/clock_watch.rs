//! Warns an operator of a clock that is off, and names it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::metrics::ClockMetrics;

/// The difference in seconds from which on two clocks do not agree. Platforms tell whole seconds.
const LIMIT: f64 = 2.0;
/// The interval between two warnings of the same cause.
const REPEAT: Duration = Duration::from_mins(10);

/// The watch over the clocks of the store, the platform and this replica.
#[derive(Default)]
pub(super) struct ClockWatch {
    warned: Option<(&'static str, Instant)>,
}

impl ClockWatch {
    /// Warns if a clock is off and this cause was not reported lately.
    pub(super) fn look(&mut self, clocks: &ClockMetrics) {
        let (store, platform) = (clocks.store.seconds(), clocks.platform.seconds());
        let Some(wrong) = wrong_clock(store, platform) else { return };
        if self.warned.is_some_and(|(before, at)| before == wrong && at.elapsed() < REPEAT) {
            return;
        }
        self.warned = Some((wrong, Instant::now()));
        warn!(wrong, store_ahead_seconds = store, platform_ahead_seconds = platform, "clocks differ");
    }
}

/// Returns which clock is wrong, by the seconds that the others are ahead of this replica's. The majority is right.
fn wrong_clock(store: Option<f64>, platform: Option<f64>) -> Option<&'static str> {
    let off = |difference: f64| difference.abs() >= LIMIT;
    match (store, platform) {
        (Some(store), Some(platform)) => match (off(store), off(platform)) {
            (false, false) => None,
            (true, false) => Some("Redis"),
            (false, true) => Some("the platform, or both this replica and Redis"),
            (true, true) if off(store - platform) => {
                Some("at least two of this replica, Redis and the platform")
            }
            (true, true) => Some("this replica"),
        },
        (Some(store), None) => off(store).then_some("this replica or Redis"),
        (None, Some(platform)) => off(platform).then_some("this replica or the platform"),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_against_the_two_others_is_wrong() {
        for (store, platform, wrong) in [
            (None, None, None),
            (Some(0.5), Some(-1.5), None),
            (Some(1.9), None, None),
            (Some(5.0), None, Some("this replica or Redis")),
            (Some(5.0), Some(0.0), Some("Redis")),
            (Some(-65.0), Some(1.0), Some("Redis")),
            (Some(0.0), Some(-360.0), Some("the platform, or both this replica and Redis")),
            (Some(30.0), Some(29.0), Some("this replica")),
            (Some(-30.0), Some(-31.0), Some("this replica")),
            (Some(-30.0), Some(30.0), Some("at least two of this replica, Redis and the platform")),
            (None, Some(40.0), Some("this replica or the platform")),
        ] {
            assert_eq!(wrong_clock(store, platform), wrong, "{store:?} {platform:?}");
        }
    }
}
