//! Properties of the waits for any lessons, and the waits after some dozens of turns.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::domain::Fingerprint;

const DEFAULT: Duration = Duration::from_secs(1);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn limits(early_cuts: f32) -> WaitLimits {
    WaitLimits::new(ms(100), ms(5000), DEFAULT, early_cuts)
}

fn kind(number: u64) -> ReplyKind {
    ReplyKind { exact: Fingerprint::from_bits(number), template: Fingerprint::from_bits(number % 3) }
}

/// A turn of these kinds with these gaps between them, which ended `silence` before anything else happened.
fn turn(kinds: &[u64], gap: Duration, silence: Duration) -> TurnObservation {
    let last = kinds.len().saturating_sub(1);
    let next = |at| if at == last { NextReply::NoneFor(silence) } else { NextReply::After(gap) };
    TurnObservation {
        replies: kinds.iter().enumerate().map(|(at, &number)| (kind(number), next(at))).collect(),
        first_reply_after: Some(ms(300)),
        early_cut: false,
    }
}

fn early_cut(number: u64, gap: Duration) -> TurnObservation {
    TurnObservation {
        replies: vec![(kind(number), NextReply::After(gap))],
        first_reply_after: None,
        early_cut: true,
    }
}

fn next_reply() -> impl Strategy<Value = NextReply> {
    let span = (0_u64..120_000).prop_map(ms);
    prop_oneof![span.clone().prop_map(NextReply::After), span.prop_map(NextReply::NoneFor)]
}

fn any_turn() -> impl Strategy<Value = TurnObservation> {
    let replies = vec(((0_u64..12).prop_map(kind), next_reply()), 0..4);
    (replies, proptest::option::of((0_u64..100_000).prop_map(ms)), proptest::bool::weighted(0.1)).prop_map(
        |(replies, first_reply_after, early_cut)| TurnObservation { replies, first_reply_after, early_cut },
    )
}

fn learned(turns: &[TurnObservation], limits: &WaitLimits) -> BotRhythm {
    let mut rhythm = BotRhythm::default();
    for turn in turns {
        rhythm.learn(turn, limits);
    }
    rhythm
}

proptest! {
    #[test]
    fn wait_is_within_its_limits_and_falls_with_the_budget(
        // Some of the turns come again, so that kinds become known.
        turns in vec(any_turn(), 0..20),
        times in 1_usize..30,
        min in 0_u64..2000,
        max in 0_u64..60_000,
        number in 0_u64..14,
    ) {
        let bounded = |early_cuts| WaitLimits::new(ms(min), ms(max), DEFAULT, early_cuts);
        let turns: Vec<_> = std::iter::repeat_n(turns, times).flatten().collect();
        let rhythm = learned(&turns, &bounded(0.001));
        let mut shorter = None;
        for early_cuts in [0.05, 0.01, 0.001, 0.0001] {
            let wait = rhythm.wait(kind(number), &bounded(early_cuts)).wait;
            prop_assert!(wait >= ms(min) && wait <= ms(max.max(min)), "{wait:?}");
            prop_assert!(shorter <= Some(wait), "{early_cuts}: {wait:?} after {shorter:?}");
            shorter = Some(wait);
        }
    }

    #[test]
    fn stored_rhythm_waits_as_long_as_the_one_in_memory(turns in vec(any_turn(), 0..60)) {
        let limits = limits(0.001);
        let rhythm = learned(&turns, &limits);
        let bytes = rhythm.to_bytes();
        let read = BotRhythm::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read.to_bytes(), &bytes);
        prop_assert_eq!(RhythmReport::of(&read, &limits).turns, turns.len() as u64);
    }

    #[test]
    fn other_bytes_are_no_rhythm(bytes in vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
        let rhythm = learned(&[turn(&[1, 2], ms(300), DEFAULT)], &limits(0.001)).to_bytes();
        let cut = cut.index(rhythm.len());
        prop_assert!(BotRhythm::from_bytes(&rhythm[..cut]).is_err());
        let _either = BotRhythm::from_bytes(&bytes);
        let mut damaged = rhythm;
        damaged[cut] ^= bytes.first().copied().unwrap_or(1);
        let _either = BotRhythm::from_bytes(&damaged);
    }
}

#[test]
fn nothing_known_waits_the_default() {
    let wait = BotRhythm::default().wait(kind(1), &limits(0.001));
    assert_eq!(wait, LearnedWait { wait: DEFAULT, learned: false });
}

#[test]
fn bot_of_single_answers_ends_its_turns_early_after_some_dozens() {
    let limits = limits(0.001);
    let mut rhythm = BotRhythm::default();
    let turns = (0..1000).find(|turns| {
        rhythm.learn(&turn(&[turns % 4], ms(0), ms(8000)), &limits);
        (0..4).all(|number| rhythm.wait(kind(number), &limits).wait == ms(100))
    });
    assert!(turns.unwrap() < 60, "{turns:?} turns");
    let unknown = rhythm.wait(kind(99), &limits);
    assert_eq!(unknown, LearnedWait { wait: DEFAULT, learned: false }, "four kinds say little of a fifth");
    let rhythm = learned(&(100..160).map(|new| turn(&[new], ms(0), ms(8000))).collect::<Vec<_>>(), &limits);
    assert_eq!(rhythm.wait(kind(99), &limits).wait, ms(100), "60 new kinds were all the last ones");
}

#[test]
fn kind_that_goes_on_is_given_the_time_and_the_last_one_is_not() {
    let limits = limits(0.001);
    let rhythm = learned(&vec![turn(&[1, 2], ms(1800), ms(8000)); 80], &limits);
    assert!(rhythm.wait(kind(1), &limits).wait >= ms(3000));
    assert_eq!(rhythm.wait(kind(2), &limits), LearnedWait { wait: ms(100), learned: true });
}

#[test]
fn early_cut_lengthens_the_wait_of_its_kind_at_once() {
    let limits = limits(0.001);
    let mut rhythm = learned(&vec![turn(&[1], ms(0), ms(8000)); 200], &limits);
    assert_eq!(rhythm.wait(kind(1), &limits).wait, ms(100));
    rhythm.learn(&early_cut(1, ms(600)), &limits);
    assert!(rhythm.wait(kind(1), &limits).wait > ms(600));
    assert_eq!(RhythmReport::of(&rhythm, &limits).early_cuts, 1);
}

#[test]
fn two_early_cuts_in_short_order_make_the_whole_bot_unknown() {
    let limits = limits(0.001);
    let all: Vec<_> = (0..600).map(|number| turn(&[number % 6], ms(0), ms(8000))).collect();
    let mut rhythm = learned(&all, &limits);
    rhythm.learn(&early_cut(1, ms(600)), &limits);
    assert_eq!(rhythm.wait(kind(5), &limits).wait, ms(100), "one is an exception");
    rhythm.learn(&early_cut(2, ms(600)), &limits);
    assert!(rhythm.wait(kind(5), &limits).wait > ms(600));
}

#[test]
fn silence_shorter_than_the_default_shows_nothing() {
    let limits = limits(0.001);
    let rhythm = learned(&vec![turn(&[1], ms(0), ms(999)); 500], &limits);
    assert_eq!(rhythm.wait(kind(1), &limits), LearnedWait { wait: DEFAULT, learned: false });
    assert_eq!(RhythmReport::of(&rhythm, &limits).kinds, []);
}

#[test]
fn kinds_are_bounded_and_the_frequent_ones_stay() {
    let limits = limits(0.001);
    let mut rhythm = BotRhythm::default();
    for number in 0..20_000 {
        rhythm.learn(&turn(&[1000 + number], ms(0), ms(8000)), &limits);
        rhythm.learn(&turn(&[number % 50], ms(0), ms(8000)), &limits);
    }
    let report = RhythmReport::of(&rhythm, &limits);
    assert_eq!(report.kinds.len(), 1000);
    assert!(report.kinds[..50].iter().all(|kind| kind.kind.bits() < 50 && kind.observations > 100.0));
    assert!(rhythm.to_bytes().len() < 40 * 1024, "{} bytes", rhythm.to_bytes().len());
}

#[test]
fn two_replicas_learn_together() {
    let limits = limits(0.001);
    let replicas = [SharedRhythm::new(limits), SharedRhythm::new(limits)];
    let mut stored = BotRhythm::default();
    for round in 0..10 {
        for (replica, number) in replicas.iter().zip([1, 2]) {
            for _ in 0..10 {
                replica.learn(turn(&[number], ms(0), ms(8000)));
            }
            assert!(replica.has_unsaved());
            let merged = replica.merged_with(stored);
            // This one crosses the write.
            replica.learn(turn(&[number], ms(0), ms(8000)));
            stored = merged.rhythm.clone();
            replica.on_saved(merged);
        }
        // Those of the other one in this round come with the next merge.
        assert_eq!(replicas[0].report().turns, 22 * round + if round == 0 { 11 } else { 10 }, "{round}");
    }
    let merged = replicas[0].merged_with(stored);
    replicas[0].on_saved(merged);
    assert!(!replicas[0].has_unsaved());
    assert_eq!(replicas[0].wait(kind(2)).wait, ms(100), "the other one saw it");
    replicas[0].forget();
    assert_eq!(replicas[0].report(), RhythmReport::of(&BotRhythm::default(), &limits));
}

#[test]
fn longest_first_reply_is_known_after_some_turns() {
    let limits = limits(0.001);
    let rhythm = learned(&vec![turn(&[1], ms(0), ms(8000)); 5], &limits);
    assert_eq!(rhythm.longest_first_reply(), None);
    let rhythm = learned(&vec![turn(&[1], ms(0), ms(8000)); 50], &limits);
    let longest = rhythm.longest_first_reply().unwrap();
    assert!((ms(300)..ms(400)).contains(&longest), "{longest:?}");
}
