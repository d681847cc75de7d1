//! The platform's clock, compared with the store's.
//!
//! A frame may carry any time, and the platform's clock may be wrong. So the pages of history and the ids in them tell
//! the order of messages. Times decide only if those do not, and only plausible times count.

use std::time::Duration;

use crate::domain::Timestamp;

/// The lead of the platform's clock, as the newest frames show it.
#[derive(Debug, Default)]
pub(crate) struct PlatformClock {
    /// The lead of each frame in milliseconds; negative for a slow clock.
    leads: [i64; Self::KEPT],
    /// The number of frames so far.
    count: usize,
}

impl PlatformClock {
    /// The most that a time may differ from the usual lead.
    pub(crate) const SKEW: Duration = Duration::from_mins(1);
    const KEPT: usize = 5;
    /// The least number of frames that agree on the lead. So a few odd frames change nothing.
    const TRUSTED: usize = 3;
    /// An older time cannot be that of a frame that just arrived.
    const AGE_MAX: Duration = Duration::from_hours(24);

    /// Notes the time of a frame that just arrived. Returns it unless it is far off.
    pub(crate) fn observe(&mut self, at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let plausible = self.plausible(Some(at), now).filter(|at| *at + Self::AGE_MAX >= self.of(now));
        if at.since(now).max(now.since(at)) < Self::AGE_MAX {
            if let Some(lead) = self.leads.get_mut(self.count % Self::KEPT) {
                *lead = at.as_millis().wrapping_sub(now.as_millis()).cast_signed();
            }
            self.count += 1;
        }
        plausible
    }

    /// Returns a time of the platform unless it lies in the future.
    pub(crate) fn plausible(&self, at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        at.filter(|at| *at <= self.of(now) + Self::SKEW)
    }

    /// Returns the time that the platform's clock shows at this time of ours.
    pub(crate) fn of(&self, ours: Timestamp) -> Timestamp {
        Timestamp::from_millis(ours.as_millis().saturating_add_signed(self.lead()))
    }

    /// Returns the earliest time that the platform's clock may have shown at this time of ours.
    pub(crate) fn earliest(&self, ours: Timestamp) -> Timestamp {
        const UNKNOWN: Duration = Duration::from_hours(1);
        self.of(ours) - if self.knows_lead() { Self::SKEW } else { UNKNOWN }
    }

    /// Returns our time at which the platform's clock shows this one.
    pub(crate) fn ours(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.as_millis().saturating_add_signed(self.lead().saturating_neg()))
    }

    /// Returns the latest time of ours at which the platform's clock may have shown this one, if the lead is known.
    pub(crate) fn latest(&self, at: Timestamp) -> Option<Timestamp> {
        self.knows_lead().then(|| self.ours(at) + self.tolerance())
    }

    /// Returns how exactly the two clocks are compared.
    pub(crate) fn tolerance(&self) -> Duration {
        Duration::from_secs(if self.knows_lead() { 1 } else { 5 })
    }

    fn knows_lead(&self) -> bool {
        self.usual_lead().is_some()
    }

    fn lead(&self) -> i64 {
        self.usual_lead().unwrap_or_default()
    }

    /// Returns the lead that enough frames agree on.
    fn usual_lead(&self) -> Option<i64> {
        let mut leads = self.leads;
        let known = leads.get_mut(..self.count.min(Self::KEPT))?;
        known.sort_unstable();
        // A delay makes a lead seem smaller. Half of the frames are not delayed.
        let lead = *known.get(known.len().checked_sub(1)? / 2)?;
        let agrees = |other: &&i64| u128::from(other.abs_diff(lead)) <= Self::SKEW.as_millis();
        (known.iter().filter(agrees).count() >= Self::TRUSTED).then_some(lead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_845_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn lead_is_learned_from_three_frames() {
        let mut clock = PlatformClock::default();
        for _ in 0..3 {
            assert_eq!(clock.observe(NOW + HOUR, NOW), None);
        }
        assert_eq!(clock.observe(NOW + HOUR, NOW), Some(NOW + HOUR));
        assert_eq!((clock.of(NOW), clock.ours(NOW + HOUR)), (NOW + HOUR, NOW));
        let mut slow = PlatformClock::default();
        for _ in 0..3 {
            assert_eq!(slow.observe(NOW - HOUR, NOW), Some(NOW - HOUR), "a frame may be late");
        }
        assert_eq!((slow.of(NOW), slow.ours(NOW - HOUR)), (NOW - HOUR, NOW));
    }

    #[test]
    fn lead_needs_three_frames_that_agree() {
        let odd = NOW + Duration::from_mins(10);
        for frames in [&[NOW, odd, odd][..], &[odd, NOW, odd - HOUR]] {
            let mut clock = PlatformClock::default();
            for at in frames {
                clock.observe(*at, NOW);
            }
            assert_eq!((clock.of(NOW), clock.latest(NOW)), (NOW, None), "{frames:?}");
            assert!(clock.earliest(NOW) <= NOW - HOUR);
        }
    }

    #[test]
    fn far_off_time_moves_no_clock() {
        let years = Duration::from_hours(24 * 3650);
        for odd in [NOW + Duration::from_mins(2), NOW + years, NOW - years, Timestamp::from_millis(u64::MAX)]
        {
            let mut clock = PlatformClock::default();
            for _ in 0..2 {
                assert_eq!(clock.observe(NOW, NOW), Some(NOW));
            }
            assert_eq!(clock.observe(odd, NOW), None, "{odd}");
            assert_eq!(clock.of(NOW), NOW);
            assert_eq!(clock.plausible(Some(odd), NOW), Some(odd).filter(|odd| *odd < NOW));
        }
    }
}
