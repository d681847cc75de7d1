//! The CPU time that learning the rhythm of a bot adds to a turn.
//!
//! It calls the library and no process: the kind of the reply, the wait behind it, and what the finished turn showed.

use std::fmt;
use std::time::{Duration, Instant};

use rtm_bridge::rhythm::{
    NextReply, ReplyKind, ReplyShape, SharedRhythm, TurnObservation, UserWords, WaitLimits,
};

/// The kinds of replies of the measured bot.
const KINDS: usize = 200;
/// The turns of one round. The fastest of the rounds counts, because others disturb a round and never speed it up.
const TURNS: usize = 20_000;
const ROUNDS: usize = 9;

/// The results.
pub(crate) struct RhythmFigures {
    /// Nanoseconds of a turn with one reply, by the length of its text in bytes.
    rows: Vec<(usize, f64)>,
}

/// Measures the cost of a turn.
pub(crate) fn measure() -> RhythmFigures {
    RhythmFigures { rows: [40, 160, 640].into_iter().map(|bytes| (bytes, nanos_per_turn(bytes))).collect() }
}

fn nanos_per_turn(bytes: usize) -> f64 {
    let limits =
        WaitLimits::new(Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(1), 0.001);
    let rhythm = SharedRhythm::new(limits);
    let texts: Vec<_> = (0..KINDS).map(|kind| text(kind, bytes)).collect();
    let round = || {
        let began = Instant::now();
        for turn in 0..TURNS {
            let text = &texts[turn % KINDS];
            let user = UserWords::of(["Where is my order?"]);
            let event = r#"{"type":"bot_response","message":[{"type":"text"}]}"#;
            let kind = ReplyKind::of(&ReplyShape { text, choices: &[], media: &[], event }, &user);
            std::hint::black_box(rhythm.wait(kind));
            rhythm.learn(TurnObservation {
                replies: vec![(kind, NextReply::NoneFor(Duration::from_secs(4)))],
                first_reply_after: Some(Duration::from_millis(300)),
                early_cut: false,
            });
        }
        began.elapsed().as_nanos() as f64 / TURNS as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// Returns a text of about this many bytes, in words of seven letters.
fn text(kind: usize, bytes: usize) -> String {
    let word = |at: usize| -> String {
        let mut left = kind * 31 + at;
        (0..7)
            .map(|_| {
                let letter = char::from(b'a' + u8::try_from(left % 26).unwrap_or_default());
                left = left / 2 + 11;
                letter
            })
            .collect()
    };
    (0..bytes / 8).map(word).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for RhythmFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Learned quiet times, a turn of one reply, {KINDS} kinds.\n")?;
        writeln!(f, "| bytes of text | ns per turn |\n| --- | --- |")?;
        for (bytes, nanos) in &self.rows {
            writeln!(f, "| {bytes} | {nanos:.0} |")?;
        }
        writeln!(f)
    }
}
