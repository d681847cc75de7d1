//! The schedule of pings on an open socket, and the time to give it up.

use std::time::Duration;

use crate::domain::Timestamp;

/// The keep-alive of one socket. The platform's idle limit is not known (protocol.md 5.4); in practice a ping every
/// 30 s suffices. A peer that died without a FIN never answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    interval: Duration,
    heard: Timestamp,
    pinged: Timestamp,
}

impl KeepAlive {
    pub(crate) const fn new(interval: Duration, now: Timestamp) -> Self {
        Self { interval, heard: now, pinged: now }
    }

    pub(crate) const fn heard(&mut self, now: Timestamp) {
        self.heard = now;
    }

    /// Returns whether the peer was silent for two and a half intervals.
    pub(crate) fn is_dead(&self, now: Timestamp) -> bool {
        now >= self.dead_at()
    }

    /// Returns whether a ping is due, and counts it as sent.
    pub(crate) fn ping_due(&mut self, now: Timestamp) -> bool {
        let due = now >= self.pinged + self.interval;
        if due {
            self.pinged = now;
        }
        due
    }

    /// Returns when the next ping or the death is due.
    pub(crate) fn wake_at(&self) -> Timestamp {
        (self.pinged + self.interval).min(self.dead_at())
    }

    fn dead_at(&self) -> Timestamp {
        self.heard + self.interval.mul_f64(2.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_silent_for_two_and_a_half_intervals_is_dead() {
        let start = Timestamp::from_millis(1_000_000);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut alive = KeepAlive::new(Duration::from_secs(10), start);
        assert_eq!(alive.wake_at(), at(10.0));
        assert!(!alive.ping_due(at(9.9)));
        assert!(alive.ping_due(at(10.0)));
        assert!(!alive.ping_due(at(10.1)));
        alive.heard(at(11.0));
        assert!(!alive.is_dead(at(35.9)));
        assert!(alive.is_dead(at(36.0)));
        assert!(alive.ping_due(at(20.0)) && alive.ping_due(at(30.0)));
        assert_eq!(alive.wake_at(), at(36.0));
    }
}
