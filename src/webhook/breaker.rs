//! A breaker: leaves a receiver's host alone after it failed again and again.
//!
//! ```text
//!            20 failures in a row            the pause is over: one attempt at a time
//!   closed ───────────────────────► open ◄────────────────────────────────────┐
//!     ▲                              │ └──── it fails: the pause doubles ──────┘
//!     └──────── any success ─────────┘
//! ```
//!
//! Pure: the time is an argument. It decides about hosts only; what a delivery's attempt means for the delivery is the
//! schedule's.

use std::time::Duration;

use super::attempt::Fate;
use crate::domain::{Backoff, Timestamp};

/// Failures in a row that open it.
const FAILURES: u32 = 20;
/// The first pause.
const FIRST: Duration = Duration::from_secs(5);
/// The longest one.
const LONGEST: Duration = Duration::from_mins(1);

/// What an attempt shows of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It lives: it took the delivery, or refused it as its own business.
    Well,
    /// It did not answer, or says itself that it is in trouble.
    Ailing,
}

impl Health {
    /// None where the attempt shows nothing of the host.
    pub(super) const fn of(fate: &Fate) -> Option<Self> {
        match fate {
            Fate::Unreached | Fate::Refused { ailing: true, .. } => Some(Self::Ailing),
            Fate::Delivered | Fate::Gone | Fate::Refused { ailing: false, .. } => Some(Self::Well),
            Fate::Forbidden => None,
        }
    }
}

/// The breaker went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switched {
    /// The host is left alone.
    Opened,
    /// It is attempted as always.
    Closed,
}

/// The breaker of one host.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row, while it is closed.
    failures: u32,
    /// When the first of those in a row was seen.
    failing_since: Option<Timestamp>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Timestamp,
    pauses: Backoff,
}

impl Open {
    fn new(now: Timestamp) -> Self {
        let mut open = Self { until: now, pauses: Backoff::new(FIRST, LONGEST) };
        open.extend(now);
        open
    }

    /// Without jitter: the pauses of one host have nothing to be spread from.
    fn extend(&mut self, now: Timestamp) {
        self.until = now + self.pauses.next(1.0);
    }
}

impl Breaker {
    /// Until when the host is left alone, then it is probed; none where the breaker is closed.
    pub(super) fn open_until(&self) -> Option<Timestamp> {
        self.open.map(|open| open.until)
    }

    /// Since when the host has failed, with no success in between, as far as this process saw it; none where the breaker
    /// is closed.
    pub(super) fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since.filter(|_| self.open.is_some())
    }

    /// An attempt showed this. `probe` says that it began while the breaker was open: what began before is no news of
    /// a host that is known to fail.
    pub(super) fn tell(&mut self, health: Health, probe: bool, now: Timestamp) -> Option<Switched> {
        match (health, &mut self.open) {
            (Health::Well, open) => {
                (self.failures, self.failing_since) = (0, None);
                open.take().map(|_| Switched::Closed)
            }
            (Health::Ailing, Some(open)) => {
                if probe {
                    open.extend(now);
                }
                None
            }
            (Health::Ailing, None) => {
                self.failures += 1;
                self.failing_since.get_or_insert(now);
                (self.failures >= FAILURES).then(|| {
                    self.open = Some(Open::new(now));
                    Switched::Opened
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_845_000_123);

    fn failed(times: u32) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..times {
            breaker.tell(Health::Ailing, false, NOW);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut breaker = failed(FAILURES - 1);
        assert_eq!(breaker.tell(Health::Well, false, NOW), None);
        for _ in 1..FAILURES {
            assert_eq!(breaker.tell(Health::Ailing, false, NOW), None);
            assert_eq!(breaker.open_until(), None);
        }
        assert_eq!(breaker.tell(Health::Ailing, false, NOW), Some(Switched::Opened));
        assert_eq!(breaker.open_until(), Some(NOW + FIRST));
    }

    #[test]
    fn each_probe_that_fails_doubles_the_pause() {
        let mut breaker = failed(FAILURES);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            // What was in flight as it opened changes nothing.
            breaker.tell(Health::Ailing, false, NOW + LONGEST);
            let now = breaker.open_until().unwrap();
            assert_eq!(breaker.tell(Health::Ailing, true, now), None);
            pauses.push(breaker.open_until().unwrap().since(now).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn tells_since_when_the_host_fails_while_it_is_open() {
        let mut breaker = failed(FAILURES - 1);
        assert_eq!(breaker.failing_since(), None);
        breaker.tell(Health::Ailing, false, NOW + LONGEST);
        assert_eq!(breaker.failing_since(), Some(NOW));
        breaker.tell(Health::Ailing, true, NOW + 2 * LONGEST);
        assert_eq!(breaker.failing_since(), Some(NOW));
        breaker.tell(Health::Well, true, NOW + 3 * LONGEST);
        assert_eq!(breaker.failing_since(), None);
    }

    #[test]
    fn any_success_closes_it_and_counting_begins_anew() {
        for probe in [true, false] {
            let mut breaker = failed(FAILURES);
            assert_eq!(breaker.tell(Health::Well, probe, NOW), Some(Switched::Closed));
            assert_eq!(breaker.open_until(), None);
            assert_eq!(breaker.tell(Health::Ailing, false, NOW), None);
        }
    }

    #[test]
    fn what_the_receiver_decides_is_a_sign_of_life() {
        let refused = |ailing| Fate::Refused { retry_after: None, ailing };
        assert_eq!(Health::of(&Fate::Delivered), Some(Health::Well));
        assert_eq!(Health::of(&Fate::Gone), Some(Health::Well));
        assert_eq!(Health::of(&refused(false)), Some(Health::Well));
        assert_eq!(Health::of(&refused(true)), Some(Health::Ailing));
        assert_eq!(Health::of(&Fate::Unreached), Some(Health::Ailing));
        assert_eq!(Health::of(&Fate::Forbidden), None);
    }
}
