//! The retry schedule of api.md 4, as data, and the one decision that follows from it: retry or dead-letter.
//!
//! The module is pure: the time and the random draw are arguments.

use std::time::Duration;

use super::attempt::AttemptOutcome;
use crate::domain::Timestamp;
use crate::store::RetryDecision;

/// The waits between attempts, in seconds. One more attempt follows the last wait.
const STEPS: [u64; 8] = [1, 5, 15, 60, 300, 1800, 7200, 18_000];
/// The jitter, as a share of a wait in both directions. It separates the retries of deliveries that failed together.
const JITTER: f64 = 0.2;
/// The most that a receiver may lengthen a wait, as a factor.
const MAX_STRETCH: u32 = 10;
/// The longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// The time for which a callback is tried again although `webhooks.allowed` does not cover it. Replicas take over a changed
/// configuration one after the other: Kubernetes brings a changed file to each host within about two minutes. So another
/// replica may have accepted the callback by patterns that this one does not have yet.
const PATTERN_LAG: Duration = Duration::from_mins(5);
/// The time for which a delivery is tried.
pub(super) const AGE_MAX: Duration = Duration::from_hours(24);

/// Decides what follows an attempt that ended at `now`. The delivery is tried since `since`, and `step` attempts were
/// made before this one. `draw` is uniform in 0..1 and spreads the waits.
///
/// No attempt is planned after [`AGE_MAX`]: a receiver would take a delivery that old for news.
pub(super) fn decide(
    outcome: &AttemptOutcome,
    step: u32,
    since: Timestamp,
    now: Timestamp,
    draw: f64,
) -> RetryDecision {
    let asked = match outcome {
        AttemptOutcome::Delivered => return RetryDecision::Delivered,
        AttemptOutcome::Gone => {
            return RetryDecision::DeadLetter(
                "the receiver wants no more deliveries: it answered 410".into(),
            );
        }
        AttemptOutcome::NotAllowed if now.since(since) >= PATTERN_LAG => {
            return RetryDecision::DeadLetter(
                "`webhooks.allowed` no longer covers the callback's URL".into(),
            );
        }
        AttemptOutcome::Unreadable => {
            return RetryDecision::DeadLetter(
                "the stored delivery has no body in the receiver's format".into(),
            );
        }
        AttemptOutcome::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
        AttemptOutcome::Unreached | AttemptOutcome::Forbidden | AttemptOutcome::NotAllowed => Duration::ZERO,
    };
    let steps = usize::try_from(step).ok().and_then(|step| STEPS.get(step));
    let Some(nominal) = steps.copied().map(Duration::from_secs) else {
        return RetryDecision::DeadLetter("the last attempt of the schedule failed too".into());
    };
    let wait = jittered(nominal, draw).max(asked.min(nominal * MAX_STRETCH).min(MAX_RETRY_AFTER));
    if (now + wait).since(since) > AGE_MAX {
        return RetryDecision::DeadLetter("it was tried for 24 hours".into());
    }
    RetryDecision::Retry(wait)
}

fn jittered(nominal: Duration, draw: f64) -> Duration {
    let draw = if draw.is_finite() { draw.clamp(0.0, 1.0) } else { 0.5 };
    nominal.mul_f64(1.0 - JITTER + 2.0 * JITTER * draw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SINCE: Timestamp = Timestamp::from_millis(1_763_845_000_123);

    fn refused(retry_after: Option<u64>) -> AttemptOutcome {
        AttemptOutcome::Refused { retry_after: retry_after.map(Duration::from_secs), host_failing: true }
    }

    /// Returns the wait after a failure at this step, with a draw in the middle.
    fn wait(outcome: &AttemptOutcome, step: u32) -> Option<u64> {
        match decide(outcome, step, SINCE, SINCE, 0.5) {
            RetryDecision::Retry(wait) => Some(wait.as_secs()),
            _ => None,
        }
    }

    #[test]
    fn waits_of_the_schedule_match_the_contract() {
        let waits: Vec<_> = (0..9).map(|step| wait(&AttemptOutcome::Unreached, step)).collect();
        let contract = [1, 5, 15, 60, 300, 1800, 7200, 18_000].map(Some);
        assert_eq!(waits, [&contract[..], &[None]].concat());
        assert_eq!(wait(&AttemptOutcome::Forbidden, 1), Some(5));
        assert_eq!(wait(&refused(None), 2), Some(15));
    }

    #[test]
    fn retry_after_within_bounds_lengthens_a_wait() {
        for (asked, step, waited) in [
            (0, 0, 1),
            (7, 0, 7),
            (11, 0, 10),
            (u64::MAX, 1, 50),
            (40, 3, 60),
            (600, 3, 600),
            (3600, 4, 3000),
            (7200, 5, 3600),
            (7200, 6, 7200),
            (18_001, 7, 18_000),
        ] {
            assert_eq!(wait(&refused(Some(asked)), step), Some(waited), "{asked} s at step {step}");
        }
    }

    #[test]
    fn delivery_ends_after_2xx_or_410() {
        assert_eq!(
            decide(&AttemptOutcome::Delivered, 99, SINCE, SINCE + AGE_MAX * 2, 0.5),
            RetryDecision::Delivered
        );
        let gone = decide(&AttemptOutcome::Gone, 0, SINCE, SINCE, 0.5);
        assert!(matches!(gone, RetryDecision::DeadLetter(_)), "{gone:?}");
    }

    #[test]
    fn callback_without_a_pattern_is_retried_for_minutes() {
        let after = |age: Duration, step| decide(&AttemptOutcome::NotAllowed, step, SINCE, SINCE + age, 0.5);
        assert_eq!(after(Duration::ZERO, 0), RetryDecision::Retry(Duration::from_secs(1)));
        let young = Duration::from_secs(299);
        assert_eq!(after(young, 4), RetryDecision::Retry(Duration::from_mins(5)));
        // A callback that waited behind others for that long was accepted by older patterns.
        for step in [0, 5] {
            let old = after(PATTERN_LAG, step);
            assert!(
                matches!(&old, RetryDecision::DeadLetter(why) if why.contains("webhooks.allowed")),
                "{old:?}"
            );
        }
    }

    #[test]
    fn delivery_after_a_day_is_dead_lettered() {
        // The delivery waited behind others for a day and had its first attempt then.
        let late = decide(&AttemptOutcome::Unreached, 0, SINCE, SINCE + AGE_MAX, 0.5);
        assert!(matches!(late, RetryDecision::DeadLetter(_)), "{late:?}");
        let just =
            decide(&AttemptOutcome::Unreached, 0, SINCE, SINCE + AGE_MAX - Duration::from_secs(1), 0.5);
        assert!(matches!(just, RetryDecision::Retry(_)), "{just:?}");
    }

    fn outcomes() -> impl Strategy<Value = AttemptOutcome> {
        prop_oneof![
            Just(AttemptOutcome::Unreached),
            Just(AttemptOutcome::Forbidden),
            (prop::option::of(any::<u64>().prop_map(Duration::from_secs)), any::<bool>()).prop_map(
                |(retry_after, host_failing)| AttemptOutcome::Refused { retry_after, host_failing }
            ),
        ]
    }

    proptest! {
        #[test]
        fn wait_after_a_failure_is_its_step_or_the_retry_after(
            outcome in outcomes(),
            step in 0_u32..12,
            age in 0_u64..200_000,
            draw in prop_oneof![0.0..1.0, Just(f64::NAN), Just(-1.0), Just(f64::INFINITY)],
        ) {
            let now = SINCE + Duration::from_secs(age);
            match decide(&outcome, step, SINCE, now, draw) {
                RetryDecision::Retry(wait) => {
                    let nominal = Duration::from_secs(STEPS[step as usize]);
                    let asked = match outcome {
                        AttemptOutcome::Refused { retry_after: Some(asked), .. } => asked.min(nominal * 10).min(MAX_RETRY_AFTER),
                        _ => Duration::ZERO,
                    };
                    prop_assert!(wait >= nominal.mul_f64(0.799));
                    prop_assert!(wait >= asked);
                    prop_assert!(wait <= nominal.mul_f64(1.201).max(asked));
                    prop_assert!((now + wait).since(SINCE) <= AGE_MAX);
                }
                RetryDecision::DeadLetter(why) => {
                    prop_assert!(!why.is_empty());
                    prop_assert!(step >= 8 || age + 21_600 + 3600 > 86_400);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn delivery_that_always_fails_has_nine_attempts_at_most(
            outcomes in prop::collection::vec(outcomes(), 9),
            draws in prop::collection::vec(0.0..1.0, 9),
            waited in 0_u64..100_000,
        ) {
            let mut now = SINCE + Duration::from_secs(waited);
            let mut attempts = 0;
            for (step, (outcome, draw)) in (0_u32..).zip(outcomes.iter().zip(draws)) {
                attempts += 1;
                match decide(outcome, step, SINCE, now, draw) {
                    RetryDecision::Retry(wait) => now = now + wait,
                    RetryDecision::DeadLetter(_) => break,
                    other => prop_assert!(false, "{other:?}"),
                }
                prop_assert!(step < 8);
            }
            prop_assert!(attempts == 9 || now.since(SINCE) > Duration::from_hours(24 - 6));
        }
    }
}
