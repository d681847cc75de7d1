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

use super::attempt::AttemptOutcome;
use crate::domain::{Backoff, Timestamp};

/// Failures in a row that open it.
const FAILURES: u32 = 20;
/// The first pause.
const FIRST: Duration = Duration::from_secs(5);
/// The longest one.
const LONGEST: Duration = Duration::from_mins(1);

/// What an attempt shows of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostHealth {
    /// It lives: it took the delivery, or refused it as its own business.
    Well,
    /// It did not answer, or says itself that it is in trouble.
    Ailing,
}

impl HostHealth {
    /// None where the attempt shows nothing of the host.
    pub(super) const fn of(fate: &AttemptOutcome) -> Option<Self> {
        match fate {
            AttemptOutcome::Unreached | AttemptOutcome::Refused { ailing: true, .. } => Some(Self::Ailing),
            AttemptOutcome::Delivered
            | AttemptOutcome::Gone
            | AttemptOutcome::Refused { ailing: false, .. } => Some(Self::Well),
            AttemptOutcome::Forbidden => None,
        }
    }
}

/// The breaker went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerTransition {
    /// The host is left alone.
    Opened,
    /// It is attempted as always.
    Closed,
}

/// The breaker of one host.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    /// In a row, while it is closed.
    failures: u32,
    /// When the first of those in a row was seen.
    failing_since: Option<Timestamp>,
    open: Option<OpenCircuit>,
}

#[derive(Clone, Copy, Debug)]
struct OpenCircuit {
    until: Timestamp,
    pauses: Backoff,
}

impl OpenCircuit {
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

impl CircuitBreaker {
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
    pub(super) fn tell(
        &mut self,
        health: HostHealth,
        probe: bool,
        now: Timestamp,
    ) -> Option<BreakerTransition> {
        match (health, &mut self.open) {
            (HostHealth::Well, open) => {
                (self.failures, self.failing_since) = (0, None);
                open.take().map(|_| BreakerTransition::Closed)
            }
            (HostHealth::Ailing, Some(open)) => {
                if probe {
                    open.extend(now);
                }
                None
            }
            (HostHealth::Ailing, None) => {
                self.failures += 1;
                self.failing_since.get_or_insert(now);
                (self.failures >= FAILURES).then(|| {
                    self.open = Some(OpenCircuit::new(now));
                    BreakerTransition::Opened
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_845_000_123);

    fn failed(times: u32) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..times {
            breaker.tell(HostHealth::Ailing, false, NOW);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut breaker = failed(FAILURES - 1);
        assert_eq!(breaker.tell(HostHealth::Well, false, NOW), None);
        for _ in 1..FAILURES {
            assert_eq!(breaker.tell(HostHealth::Ailing, false, NOW), None);
            assert_eq!(breaker.open_until(), None);
        }
        assert_eq!(breaker.tell(HostHealth::Ailing, false, NOW), Some(BreakerTransition::Opened));
        assert_eq!(breaker.open_until(), Some(NOW + FIRST));
    }

    #[test]
    fn each_probe_that_fails_doubles_the_pause() {
        let mut breaker = failed(FAILURES);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            // What was in flight as it opened changes nothing.
            breaker.tell(HostHealth::Ailing, false, NOW + LONGEST);
            let now = breaker.open_until().unwrap();
            assert_eq!(breaker.tell(HostHealth::Ailing, true, now), None);
            pauses.push(breaker.open_until().unwrap().since(now).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn tells_since_when_the_host_fails_while_it_is_open() {
        let mut breaker = failed(FAILURES - 1);
        assert_eq!(breaker.failing_since(), None);
        breaker.tell(HostHealth::Ailing, false, NOW + LONGEST);
        assert_eq!(breaker.failing_since(), Some(NOW));
        breaker.tell(HostHealth::Ailing, true, NOW + 2 * LONGEST);
        assert_eq!(breaker.failing_since(), Some(NOW));
        breaker.tell(HostHealth::Well, true, NOW + 3 * LONGEST);
        assert_eq!(breaker.failing_since(), None);
    }

    #[test]
    fn any_success_closes_it_and_counting_begins_anew() {
        for probe in [true, false] {
            let mut breaker = failed(FAILURES);
            assert_eq!(breaker.tell(HostHealth::Well, probe, NOW), Some(BreakerTransition::Closed));
            assert_eq!(breaker.open_until(), None);
            assert_eq!(breaker.tell(HostHealth::Ailing, false, NOW), None);
        }
    }

    #[test]
    fn what_the_receiver_decides_is_a_sign_of_life() {
        let refused = |ailing| AttemptOutcome::Refused { retry_after: None, ailing };
        assert_eq!(HostHealth::of(&AttemptOutcome::Delivered), Some(HostHealth::Well));
        assert_eq!(HostHealth::of(&AttemptOutcome::Gone), Some(HostHealth::Well));
        assert_eq!(HostHealth::of(&refused(false)), Some(HostHealth::Well));
        assert_eq!(HostHealth::of(&refused(true)), Some(HostHealth::Ailing));
        assert_eq!(HostHealth::of(&AttemptOutcome::Unreached), Some(HostHealth::Ailing));
        assert_eq!(HostHealth::of(&AttemptOutcome::Forbidden), None);
    }
}
