//! When to try again and when to bury: the schedule of api.md 4, as data, and the one decision made by it.
//!
//! Pure: the time and the draw are arguments.

use std::time::Duration;

use super::attempt::AttemptOutcome;
use crate::domain::Timestamp;
use crate::store::RetryDecision;

/// The waits between attempts, in seconds. After the last of them one more attempt is made.
const STEPS: [u64; 8] = [1, 5, 15, 60, 300, 1800, 7200, 18_000];
/// By how much of a step its wait is drawn shorter or longer, so that deliveries that failed together do not come back
/// together.
const SPREAD: f64 = 0.2;
/// How many times its step a receiver may lengthen a wait.
const STRETCH: u32 = 10;
/// The longest wait that a receiver may ask for.
const ASKED_MAX: Duration = Duration::from_hours(1);
/// How long a delivery is tried for.
pub(super) const AGE_MAX: Duration = Duration::from_hours(24);

/// What follows from an attempt: `step` attempts were made before it since `since`, it ended at `now`, and `draw` is a
/// number from 0 up to 1 that spreads the waits.
///
/// The next attempt is made within [`AGE_MAX`] or not at all: what is that old is of no use to a receiver that believes
/// it to be news.
pub(super) fn verdict(
    fate: &AttemptOutcome,
    step: u32,
    since: Timestamp,
    now: Timestamp,
    draw: f64,
) -> RetryDecision {
    let asked = match fate {
        AttemptOutcome::Delivered => return RetryDecision::Delivered,
        AttemptOutcome::Gone => {
            return RetryDecision::Bury("the receiver wants no more of it: it answered 410".into());
        }
        AttemptOutcome::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
        AttemptOutcome::Unreached | AttemptOutcome::Forbidden => Duration::ZERO,
    };
    let steps = usize::try_from(step).ok().and_then(|step| STEPS.get(step));
    let Some(nominal) = steps.copied().map(Duration::from_secs) else {
        return RetryDecision::Bury("the last attempt of the schedule failed too".into());
    };
    let wait = spread(nominal, draw).max(asked.min(nominal * STRETCH).min(ASKED_MAX));
    if (now + wait).since(since) > AGE_MAX {
        return RetryDecision::Bury("it was tried for 24 hours".into());
    }
    RetryDecision::Retry(wait)
}

fn spread(nominal: Duration, draw: f64) -> Duration {
    let draw = if draw.is_finite() { draw.clamp(0.0, 1.0) } else { 0.5 };
    nominal.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * draw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SINCE: Timestamp = Timestamp::from_millis(1_763_845_000_123);

    fn refused(retry_after: Option<u64>) -> AttemptOutcome {
        AttemptOutcome::Refused { retry_after: retry_after.map(Duration::from_secs), ailing: true }
    }

    /// The wait after a failure at this step, with a draw in the middle.
    fn wait(fate: &AttemptOutcome, step: u32) -> Option<u64> {
        match verdict(fate, step, SINCE, SINCE, 0.5) {
            RetryDecision::Retry(wait) => Some(wait.as_secs()),
            _ => None,
        }
    }

    #[test]
    fn the_waits_are_those_of_the_contract() {
        let waits: Vec<_> = (0..9).map(|step| wait(&AttemptOutcome::Unreached, step)).collect();
        let contract = [1, 5, 15, 60, 300, 1800, 7200, 18_000].map(Some);
        assert_eq!(waits, [&contract[..], &[None]].concat());
        assert_eq!(wait(&AttemptOutcome::Forbidden, 1), Some(5));
        assert_eq!(wait(&refused(None), 2), Some(15));
    }

    #[test]
    fn a_receiver_may_lengthen_a_wait_within_bounds_and_never_shortens_it() {
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
    fn what_was_delivered_or_is_not_wanted_is_over() {
        assert_eq!(
            verdict(&AttemptOutcome::Delivered, 99, SINCE, SINCE + AGE_MAX * 2, 0.5),
            RetryDecision::Delivered
        );
        assert!(matches!(verdict(&AttemptOutcome::Gone, 0, SINCE, SINCE, 0.5), RetryDecision::Bury(_)));
    }

    #[test]
    fn nothing_is_tried_after_a_day() {
        // It waited behind others for a day, was attempted once, and is not again.
        let late = verdict(&AttemptOutcome::Unreached, 0, SINCE, SINCE + AGE_MAX, 0.5);
        assert!(matches!(late, RetryDecision::Bury(_)), "{late:?}");
        let just =
            verdict(&AttemptOutcome::Unreached, 0, SINCE, SINCE + AGE_MAX - Duration::from_secs(1), 0.5);
        assert!(matches!(just, RetryDecision::Retry(_)), "{just:?}");
    }

    fn fates() -> impl Strategy<Value = AttemptOutcome> {
        prop_oneof![
            Just(AttemptOutcome::Unreached),
            Just(AttemptOutcome::Forbidden),
            (prop::option::of(any::<u64>().prop_map(Duration::from_secs)), any::<bool>())
                .prop_map(|(retry_after, ailing)| AttemptOutcome::Refused { retry_after, ailing }),
        ]
    }

    proptest! {
        #[test]
        fn any_failure_waits_about_its_step_or_as_long_as_it_was_asked_to(
            fate in fates(),
            step in 0_u32..12,
            age in 0_u64..200_000,
            draw in prop_oneof![0.0..1.0, Just(f64::NAN), Just(-1.0), Just(f64::INFINITY)],
        ) {
            let now = SINCE + Duration::from_secs(age);
            match verdict(&fate, step, SINCE, now, draw) {
                RetryDecision::Retry(wait) => {
                    let nominal = Duration::from_secs(STEPS[step as usize]);
                    let asked = match fate {
                        AttemptOutcome::Refused { retry_after: Some(asked), .. } => asked.min(nominal * 10).min(ASKED_MAX),
                        _ => Duration::ZERO,
                    };
                    prop_assert!(wait >= nominal.mul_f64(0.799));
                    prop_assert!(wait >= asked);
                    prop_assert!(wait <= nominal.mul_f64(1.201).max(asked));
                    prop_assert!((now + wait).since(SINCE) <= AGE_MAX);
                }
                RetryDecision::Bury(why) => {
                    prop_assert!(!why.is_empty());
                    prop_assert!(step >= 8 || age + 21_600 + 3600 > 86_400);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn a_delivery_that_always_fails_is_buried_after_nine_attempts_at_most(
            fates in prop::collection::vec(fates(), 9),
            draws in prop::collection::vec(0.0..1.0, 9),
            waited in 0_u64..100_000,
        ) {
            let mut now = SINCE + Duration::from_secs(waited);
            let mut attempts = 0;
            for (step, (fate, draw)) in (0_u32..).zip(fates.iter().zip(draws)) {
                attempts += 1;
                match verdict(fate, step, SINCE, now, draw) {
                    RetryDecision::Retry(wait) => now = now + wait,
                    RetryDecision::Bury(_) => break,
                    other => prop_assert!(false, "{other:?}"),
                }
                prop_assert!(step < 8);
            }
            prop_assert!(attempts == 9 || now.since(SINCE) > Duration::from_hours(24 - 6));
        }
    }
}
