//! The rhythm of a bot as an operator may see it.

use std::time::Duration;

use super::bot_rhythm::{BotRhythm, WaitLimits};
use crate::domain::Fingerprint;

/// The rhythm of a bot.
#[derive(Clone, Debug, PartialEq)]
pub struct RhythmReport {
    /// The turns that were learned from.
    pub turns: u64,
    /// Those of them that a learned wait ended although the bot went on.
    pub early_cuts: u64,
    /// The longest time from sending to a first reply that the bot took lately.
    pub longest_first_reply: Option<Duration>,
    /// The kinds of replies, the most frequent ones first.
    pub kinds: Vec<KindReport>,
}

/// The rhythm of one kind of reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KindReport {
    /// The kind.
    pub kind: Fingerprint,
    /// The observations that count, faded.
    pub observations: f32,
    /// The share of them after which another reply followed, 0 to 1.
    pub followed: f32,
    /// How long a turn waits behind it.
    pub wait: Duration,
    /// Whether the wait was learned. Else it is the default.
    pub learned: bool,
}

impl RhythmReport {
    /// Returns what is known of a bot, and the waits that follow within these limits.
    pub fn of(rhythm: &BotRhythm, limits: &WaitLimits) -> Self {
        let report = |(kind, record): (super::ReplyKind, &super::kind_record::KindRecord)| {
            let wait = rhythm.wait(kind, limits);
            let observations = record.total();
            KindReport {
                kind: kind.exact,
                observations,
                followed: if observations > 0.0 { record.gaps.total() / observations } else { 0.0 },
                wait: wait.wait,
                learned: wait.learned,
            }
        };
        let mut kinds: Vec<_> = rhythm.kinds.iter().map(report).collect();
        kinds.sort_by(|a, b| b.observations.total_cmp(&a.observations));
        Self {
            turns: rhythm.turns,
            early_cuts: rhythm.early_cuts,
            longest_first_reply: rhythm.longest_first_reply(),
            kinds,
        }
    }
}
