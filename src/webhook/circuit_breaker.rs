//! A circuit breaker for each receiver's host: it stops regular attempts to a host that fails repeatedly.
//!
//! ```text
//!            20 failures in a row            the pause is over: one attempt at a time
//!   closed ───────────────────────► open ◄────────────────────────────────────┐
//!     ▲                              │ └──── it fails: the pause doubles ──────┘
//!     └──────── any success ─────────┘
//! ```
//!
//! The module is pure: the time is an argument. The breaker decides about hosts only. The retry schedule decides about
//! the delivery.

use std::time::Duration;

use super::attempt::AttemptOutcome;
use crate::domain::{Backoff, Timestamp};

/// The failures in a row that open the circuit.
const FAILURES: u32 = 20;
/// The first pause between probes.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between probes.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The state of a host as one attempt shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostHealth {
    /// The host took the delivery, or refused it for its own reasons.
    Healthy,
    /// The host did not answer, or answered that it is in trouble.
    Failing,
}

impl HostHealth {
    /// Returns the health by an attempt; `None` if no request was sent.
    pub(super) const fn of(outcome: &AttemptOutcome) -> Option<Self> {
        match outcome {
            AttemptOutcome::Unreached | AttemptOutcome::Refused { host_failing: true, .. } => {
                Some(Self::Failing)
            }
            AttemptOutcome::Delivered
            | AttemptOutcome::Gone
            | AttemptOutcome::Refused { host_failing: false, .. } => Some(Self::Healthy),
            AttemptOutcome::Forbidden | AttemptOutcome::NotAllowed | AttemptOutcome::Unreadable => None,
        }
    }
}

/// A change of the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerTransition {
    /// The host gets probes only.
    Opened,
    /// The host gets regular attempts again.
    Closed,
}

/// The circuit breaker of one host.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    /// The failures in a row of a closed circuit.
    failures: u32,
    /// The time of the first of those failures.
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
        let mut open = Self { until: now, pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) };
        open.extend(now);
        open
    }

    /// Pauses until the next probe. The pauses have no jitter, because a replica sends one probe to a host at a time.
    fn extend(&mut self, now: Timestamp) {
        self.until = now + self.pauses.next(1.0);
    }
}

impl CircuitBreaker {
    /// Returns the time of the next probe; `None` if the circuit is closed.
    pub(super) fn open_until(&self) -> Option<Timestamp> {
        self.open.map(|open| open.until)
    }

    /// Returns the time of the first failure since the last success that this process saw; `None` if the circuit is
    /// closed.
    pub(super) fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since.filter(|_| self.open.is_some())
    }

    /// Counts the result of an attempt. `probe` tells whether the attempt began with an open circuit. A failure of an
    /// earlier attempt does not extend the pause.
    pub(super) fn record(
        &mut self,
        health: HostHealth,
        probe: bool,
        now: Timestamp,
    ) -> Option<BreakerTransition> {
        match (health, &mut self.open) {
            (HostHealth::Healthy, open) => {
                (self.failures, self.failing_since) = (0, None);
                open.take().map(|_| BreakerTransition::Closed)
            }
            (HostHealth::Failing, Some(open)) => {
                if probe {
                    open.extend(now);
                }
                None
            }
            (HostHealth::Failing, None) => {
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
            breaker.record(HostHealth::Failing, false, NOW);
        }
        breaker
    }

    #[test]
    fn circuit_after_20_failures_in_a_row_opens() {
        let mut breaker = failed(FAILURES - 1);
        assert_eq!(breaker.record(HostHealth::Healthy, false, NOW), None);
        for _ in 1..FAILURES {
            assert_eq!(breaker.record(HostHealth::Failing, false, NOW), None);
            assert_eq!(breaker.open_until(), None);
        }
        assert_eq!(breaker.record(HostHealth::Failing, false, NOW), Some(BreakerTransition::Opened));
        assert_eq!(breaker.open_until(), Some(NOW + FIRST_PAUSE));
    }

    #[test]
    fn pause_after_a_failed_probe_doubles() {
        let mut breaker = failed(FAILURES);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            // An attempt from before the circuit opened does not extend the pause.
            breaker.record(HostHealth::Failing, false, NOW + LONGEST_PAUSE);
            let now = breaker.open_until().unwrap();
            assert_eq!(breaker.record(HostHealth::Failing, true, now), None);
            pauses.push(breaker.open_until().unwrap().since(now).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn failing_since_of_an_open_circuit_is_the_first_failure() {
        let mut breaker = failed(FAILURES - 1);
        assert_eq!(breaker.failing_since(), None);
        breaker.record(HostHealth::Failing, false, NOW + LONGEST_PAUSE);
        assert_eq!(breaker.failing_since(), Some(NOW));
        breaker.record(HostHealth::Failing, true, NOW + 2 * LONGEST_PAUSE);
        assert_eq!(breaker.failing_since(), Some(NOW));
        breaker.record(HostHealth::Healthy, true, NOW + 3 * LONGEST_PAUSE);
        assert_eq!(breaker.failing_since(), None);
    }

    #[test]
    fn circuit_after_any_success_closes_and_counts_anew() {
        for probe in [true, false] {
            let mut breaker = failed(FAILURES);
            assert_eq!(breaker.record(HostHealth::Healthy, probe, NOW), Some(BreakerTransition::Closed));
            assert_eq!(breaker.open_until(), None);
            assert_eq!(breaker.record(HostHealth::Failing, false, NOW), None);
        }
    }

    #[test]
    fn host_that_refuses_a_delivery_is_healthy() {
        let refused = |host_failing| AttemptOutcome::Refused { retry_after: None, host_failing };
        assert_eq!(HostHealth::of(&AttemptOutcome::Delivered), Some(HostHealth::Healthy));
        assert_eq!(HostHealth::of(&AttemptOutcome::Gone), Some(HostHealth::Healthy));
        assert_eq!(HostHealth::of(&refused(false)), Some(HostHealth::Healthy));
        assert_eq!(HostHealth::of(&refused(true)), Some(HostHealth::Failing));
        assert_eq!(HostHealth::of(&AttemptOutcome::Unreached), Some(HostHealth::Failing));
        assert_eq!(HostHealth::of(&AttemptOutcome::Forbidden), None);
    }
}
