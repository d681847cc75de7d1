//! An evaluation of learned quiet times on simulated bots, beside fixed ones (docs/turns.md). `scripts/rhythm` shows its
//! table.
//!
//! It is arithmetic without a clock: the same numbers in each run.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures of an evaluation: numbers of turns and milliseconds"
)]

mod populations;

use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use populations::{Population, SimulatedReply, log_normal};
use rtm_bridge::domain::Fingerprint;
use rtm_bridge::rhythm::{BotRhythm, LearnedWait, NextReply, ReplyKind, TurnObservation, WaitLimits};

const TURNS: usize = 20_000;
/// The turns in which a changed bot may be cut more often.
const RECOVERY: usize = 50;
const BUDGET: f32 = 0.001;
const DEFAULT: f64 = 1000.0;

/// The rule of a quiet time.
#[derive(Clone, Copy)]
enum Policy {
    Auto,
    Fixed(f64),
}

/// The turns of one population under one policy.
#[derive(Default)]
struct Outcome {
    /// The time from the last reply to the end of each turn, in milliseconds.
    waits: Vec<f64>,
    /// The turns that ended although the bot went on: by a learned wait, and by a fixed one.
    learned_cuts: Vec<usize>,
    fixed_cuts: Vec<usize>,
}

fn ms(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1000.0)
}

fn evaluate(population: Population, policy: Policy) -> Outcome {
    let limits = WaitLimits::new(ms(100.0), ms(5000.0), ms(DEFAULT), BUDGET);
    let mut random = Rng::with_seed(42);
    let mut rhythm = BotRhythm::default();
    let mut outcome = Outcome::default();
    for turn in 0..TURNS {
        let replies = population.turn(turn, TURNS, &mut random);
        // The time until the user's next message.
        let pause = log_normal(&mut random, 4000.0, 0.8);
        let mut observation = TurnObservation::default();
        for SimulatedReply { kind, template, gap } in replies {
            let [exact, template] = [kind, template].map(Fingerprint::from_bits);
            let kind = ReplyKind { exact, template };
            let wait = match policy {
                Policy::Auto => rhythm.wait(kind, &limits),
                Policy::Fixed(wait) => LearnedWait { wait: ms(wait), learned: false },
            };
            let end = wait.wait.as_secs_f64() * 1000.0;
            let next = match gap {
                Some(gap) if gap <= end => {
                    observation.replies.push((kind, NextReply::After(ms(gap))));
                    continue;
                }
                Some(gap) => {
                    let cuts = if wait.learned { &mut outcome.learned_cuts } else { &mut outcome.fixed_cuts };
                    cuts.push(turn);
                    // A reply behind the next message is taken for an answer to that.
                    let seen = gap < end + pause;
                    observation.early_cut = seen && wait.learned;
                    if seen { NextReply::After(ms(gap)) } else { NextReply::NoneFor(ms(end + pause)) }
                }
                None => NextReply::NoneFor(ms(end + pause)),
            };
            observation.replies.push((kind, next));
            outcome.waits.push(end);
            break;
        }
        rhythm.learn(&observation, &limits);
    }
    outcome
}

impl Outcome {
    fn quantile(&self, part: f64) -> f64 {
        let mut waits = self.waits.clone();
        waits.sort_by(f64::total_cmp);
        waits[(waits.len() as f64 * part) as usize]
    }

    /// Returns the turn from which on the half of the last 50 turns ended sooner than by the default.
    fn better_from(&self) -> Option<usize> {
        let sooner =
            |window: &[f64]| window.iter().filter(|wait| **wait < DEFAULT).count() * 2 > window.len();
        self.waits.windows(50).position(sooner).map(|at| at + 50)
    }

    fn cuts(&self) -> usize {
        self.learned_cuts.len() + self.fixed_cuts.len()
    }

    fn row(&self, population: &str, policy: &str) -> String {
        let share = |cuts: usize| 100.0 * cuts as f64 / TURNS as f64;
        format!(
            "| {population} | {policy} | {:.0} | {:.0} | {:.3} | {:.3} | {} |",
            self.quantile(0.5),
            self.quantile(0.99),
            share(self.cuts()),
            share(self.learned_cuts.len()),
            self.better_from().map_or_else(|| "–".to_owned(), |turn| turn.to_string()),
        )
    }
}

#[test]
fn learned_quiet_time_is_shorter_and_cuts_no_more_than_a_fixed_second() {
    let mut table = String::from(
        "| bot | quiet | median ms | p99 ms | early cuts % | by learned waits % | sooner from turn |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut missed = String::new();
    for population in Population::ALL {
        let auto = evaluate(population, Policy::Auto);
        writeln!(table, "{}", auto.row(population.name(), "auto")).unwrap();
        let mut second = 0;
        for wait in [300.0, DEFAULT, 2000.0] {
            let fixed = evaluate(population, Policy::Fixed(wait));
            if wait.total_cmp(&DEFAULT).is_eq() {
                second = fixed.cuts();
            }
            writeln!(table, "{}", fixed.row("", &format!("{wait:.0} ms"))).unwrap();
        }
        let budget = (f64::from(BUDGET) * TURNS as f64).round() as usize;
        let changed_at = TURNS / 2 + RECOVERY;
        let recovered = auto.learned_cuts.iter().filter(|turn| **turn >= changed_at).count();
        let checks = [
            ("median", auto.quantile(0.5) <= 150.0),
            ("budget", auto.learned_cuts.len() <= budget || !population.is_stationary()),
            ("recovery", recovered * 2 <= budget),
            // One kind of the alternation goes on for the first time after 59 times of silence.
            ("fixed second", auto.cuts() <= second + usize::from(population == Population::Alternation)),
        ];
        for (what, _) in checks.iter().filter(|(_, held)| !held) {
            writeln!(missed, "{}: {what}", population.name()).unwrap();
        }
    }
    println!("{table}");
    assert!(missed.is_empty(), "{missed}");
}
