//! A limit for the number of events within a minute.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The period of every rate limit of the bridge.
const SPAN: Duration = Duration::from_mins(1);

/// An exact sliding window: at most `limit` events in **any** 60 seconds.
///
/// A token bucket lets up to twice its size through within a minute, and the platform answers that with close code
/// 1008 (protocol.md 8). So the window keeps the time of each event. The limit bounds its memory, which shrinks as
/// the events age.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RateWindow(VecDeque<u64>);

impl RateWindow {
    /// Returns the earliest time of the next event: `now`, or later if the last 60 seconds are full. A `limit` of 0 means
    /// no limit.
    pub fn next(&self, limit: u32, now: Timestamp) -> Timestamp {
        let limit = limit as usize;
        if limit == 0 || self.0.len() < limit {
            return now;
        }
        let oldest_that_counts = self.0.get(self.0.len() - limit).copied().unwrap_or_default();
        now.max(Timestamp::from_millis(oldest_that_counts) + SPAN)
    }

    /// Counts an event at `at` and removes the events that are older than 60 seconds. With `limit` 0 the window stays
    /// empty.
    pub fn record(&mut self, limit: u32, at: Timestamp) {
        if limit == 0 {
            self.0 = VecDeque::new();
            return;
        }
        self.0.push_back(at.as_millis());
        while self.0.len() > limit as usize || self.0.front().is_some_and(|&first| expired(first, at)) {
            self.0.pop_front();
        }
        if self.0.capacity() > 8 && self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
    }

    /// Returns the times of the counted events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().copied().map(Timestamp::from_millis)
    }
}

impl FromIterator<Timestamp> for RateWindow {
    fn from_iter<I: IntoIterator<Item = Timestamp>>(events: I) -> Self {
        Self(events.into_iter().map(Timestamp::as_millis).collect())
    }
}

fn expired(event: u64, now: Timestamp) -> bool {
    Timestamp::from_millis(event) + SPAN <= now
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn window_with_limit_zero_stays_empty() {
        let mut window = RateWindow::default();
        for at in 0..1000 {
            let at = Timestamp::from_millis(at);
            assert_eq!(window.next(0, at), at);
            window.record(0, at);
        }
        assert_eq!(window, RateWindow::default());
    }

    proptest! {
        #[test]
        fn window_in_any_minute_stays_within_the_limit(
            limit in 1u32..20,
            gaps in prop::collection::vec(0u64..20_000, 1..200),
        ) {
            let mut window = RateWindow::default();
            let mut now = Timestamp::from_millis(1);
            let mut events: Vec<u64> = Vec::new();
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                let at = window.next(limit, now);
                prop_assert!(at >= now);
                window.record(limit, at);
                events.push(at.as_millis());
                now = at;
            }
            for (i, &first) in events.iter().enumerate() {
                let within = events[i..].iter().take_while(|&&at| at < first + 60_000).count();
                prop_assert!(within <= limit as usize);
            }
        }
    }
}
