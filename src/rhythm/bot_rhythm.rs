//! The rhythm of one bot, and the wait that follows from it.
//!
//! The chance that another reply comes after a wait is estimated for the kind of the last reply. An estimate of few
//! observations leans on two coarser ones. One is of the unknown kinds with the same template, one of all unknown kinds of
//! the bot (docs/adr/0041).

use std::time::Duration;

use super::gap_sketch::{GapSketch, GapTail, WaitGrid, millis};
use super::kind_record::KindRecord;
use super::kind_table::KindTable;
use super::reply_kind::ReplyKind;
use super::trust_levels::{LEVELS, TrustLevels};
use super::turn_observation::{NextReply, TurnObservation};

/// The most kinds of replies that are remembered.
pub(super) const MOST_KINDS: usize = 1000;
/// The most templates that are remembered.
pub(super) const MOST_TEMPLATES: usize = 64;
/// The observations from which on a kind is known.
const KNOWN: f32 = 3.0;
/// The weight of the coarser estimate in that of a kind, in observations. It is small, because bots are programs: after
/// the same reply they nearly always do the same.
const LEAN_OF_KIND: f32 = 0.1;
/// The same in the estimate of a template and of the whole bot.
const LEAN_OF_TEMPLATE: f32 = 0.5;
const LEAN_OF_BOT: f32 = 1.0;
/// The chances of an unknown bot.
const UNKNOWN: Chances = Chances { beyond: 0.5, ended: 0.5 };
/// The observations that stay of a kind after an early cut, and of all kinds after a change of the bot.
const AFTER_CUT: f32 = 7.0;
const AFTER_CHANGE: f32 = 4.0;
/// Two early cuts within so many turns are a change of the bot.
const CHANGE_WINDOW: u64 = 50;

/// The limits of a wait. All are configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WaitLimits {
    min: Duration,
    max: Duration,
    /// The wait where too little is known.
    default: Duration,
    /// The share of turns that may be ended early, 0 to 1.
    early_cuts: f32,
    grid: WaitGrid,
}

/// How long a turn waits behind a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedWait {
    /// The time without another reply that ends the turn.
    pub wait: Duration,
    /// Whether it was learned. Else it is the default.
    pub learned: bool,
}

/// The rhythm of one bot, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BotRhythm {
    pub(super) kinds: KindTable<MOST_KINDS>,
    /// The record of the unknown kinds of each template.
    pub(super) templates: KindTable<MOST_TEMPLATES>,
    /// The record of all unknown kinds.
    pub(super) unknown: KindRecord,
    pub(super) trust: TrustLevels,
    /// The times from sending to the first reply.
    pub(super) first_replies: GapSketch,
    /// All turns that were learned from, and the early cuts among them.
    pub(super) turns: u64,
    pub(super) early_cuts: u64,
    /// The turn of the last early cut.
    pub(super) last_cut: Option<u64>,
}

impl BotRhythm {
    /// Returns how long a turn waits behind a reply of this kind.
    pub fn wait(&self, kind: ReplyKind, limits: &WaitLimits) -> LearnedWait {
        let estimate = Estimate::new(self, kind);
        let level = self.trust.boldest(limits.early_cuts);
        let [most_careful, ..] = LEVELS;
        let budget = level.unwrap_or(most_careful) * limits.early_cuts;
        let found = limits.shortest(|wait| estimate.risk(wait) <= budget);
        let default = LearnedWait { wait: limits.default, learned: false };
        match found {
            // No level is proved: no turn ends before the default wait.
            Some(wait) if level.is_none() && wait < limits.default => default,
            Some(wait) if wait <= limits.default => LearnedWait { wait, learned: true },
            // It went on before, so it is given the time.
            found if estimate.is_followed() => {
                LearnedWait { wait: found.unwrap_or(limits.max), learned: true }
            }
            _ => default,
        }
    }

    /// Learns from a finished turn.
    pub fn learn(&mut self, turn: &TurnObservation, limits: &WaitLimits) {
        self.turns += 1;
        self.judge_levels(turn, limits);
        if let Some(after) = turn.first_reply_after {
            self.first_replies.scale(FIRST_REPLIES_KEPT);
            self.first_replies.add(after);
        }
        let last = turn.replies.len().saturating_sub(1);
        for (at, &(kind, next)) in turn.replies.iter().enumerate() {
            self.learn_reply(kind, next, turn.early_cut && at == last, limits);
        }
        if turn.early_cut {
            self.on_early_cut();
        }
    }

    fn learn_reply(&mut self, kind: ReplyKind, next: NextReply, early_cut: bool, limits: &WaitLimits) {
        // Silence shorter than the default wait does not show that the turn was over.
        if matches!(next, NextReply::NoneFor(silence) if silence < limits.default) {
            return;
        }
        let record = self.kinds.entry(kind);
        let is_known = record.total() >= KNOWN;
        if early_cut {
            record.forget_to(AFTER_CUT);
        }
        note(record, next);
        if !is_known {
            let template = self.templates.entry(ReplyKind { exact: kind.template, template: kind.template });
            for coarser in [template, &mut self.unknown] {
                if early_cut {
                    coarser.forget_to(AFTER_CUT);
                }
                note(coarser, next);
            }
        }
    }

    /// Notes an early cut. Two of them in short order say that the bot was changed: all kinds have to show again what
    /// they do.
    fn on_early_cut(&mut self) {
        self.early_cuts += 1;
        let is_change = self.last_cut.is_some_and(|last| self.turns - last <= CHANGE_WINDOW);
        self.last_cut = Some(self.turns);
        if is_change {
            for record in self.kinds.records_mut().chain(self.templates.records_mut()) {
                record.forget_to(AFTER_CHANGE);
            }
            self.unknown.forget_to(AFTER_CHANGE);
        }
    }

    /// Judges each level by this turn: would it have ended it before the default wait, and did the bot go on?
    fn judge_levels(&mut self, turn: &TurnObservation, limits: &WaitLimits) {
        let default = millis(limits.default);
        let mut open = [true; LEVELS.len()];
        for &(kind, next) in &turn.replies {
            let (cut, silence) = match next {
                NextReply::After(gap) => (true, millis(gap).min(default)),
                NextReply::NoneFor(silence) if silence < limits.default => break,
                NextReply::NoneFor(_) => (false, default),
            };
            let Some(last_wait) = limits.grid.below(silence) else { continue };
            let risk = Estimate::new(self, kind).risk(last_wait);
            let mut ended = LEVELS.map(|level| risk <= level * limits.early_cuts);
            for (ended, open) in ended.iter_mut().zip(&mut open) {
                *ended &= *open;
                *open &= !*ended;
            }
            self.trust.on_turn(ended, cut);
        }
    }

    /// Returns the longest time from sending to a first reply that this bot took lately. `None` before it is known.
    pub fn longest_first_reply(&self) -> Option<Duration> {
        self.first_replies.longest().filter(|_| self.first_replies.total() >= KNOWN_FIRST_REPLIES)
    }
}

/// The weight that a first reply keeps after another one, and the number of them that makes the longest one known.
const FIRST_REPLIES_KEPT: f32 = 1.0 - 1.0 / 512.0;
const KNOWN_FIRST_REPLIES: f32 = 20.0;

impl WaitLimits {
    /// Returns the limits of waits between `min` and `max`. `early_cuts` is a share, 0 to 1.
    pub fn new(min: Duration, max: Duration, default: Duration, early_cuts: f32) -> Self {
        let max = max.max(min);
        Self { min, max, default: default.clamp(min, max), early_cuts, grid: WaitGrid::new(min, max) }
    }

    /// Returns the shortest wait that is long enough. All that are longer are, too.
    fn shortest(&self, is_enough: impl Fn(f32) -> bool) -> Option<Duration> {
        let (mut below, mut found) = (0, self.grid.len - 1);
        // The usual cases first.
        if is_enough(self.grid.wait(below)) {
            found = below;
        } else if !is_enough(self.grid.wait(found)) {
            return None;
        }
        while below + 1 < found {
            let middle = usize::midpoint(below, found);
            if is_enough(self.grid.wait(middle)) { found = middle } else { below = middle }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a wait has few digits")]
        let wait = Duration::from_millis(self.grid.wait(found).round() as u64);
        Some(wait.clamp(self.min, self.max))
    }
}

fn note(record: &mut KindRecord, next: NextReply) {
    match next {
        NextReply::After(gap) => record.on_followed(gap),
        NextReply::NoneFor(_) => record.on_ended(),
    }
}

/// The chance of another reply, for one kind.
struct Estimate<'a> {
    kind: Part<'a>,
    template: Part<'a>,
    bot: Part<'a>,
}

/// A record and the tail of its gaps.
#[derive(Default)]
struct Part<'a> {
    total: f32,
    ended: f32,
    tail: Option<GapTail<'a>>,
}

/// The next event behind a reply, as chances that add up to 1 with the rest: a reply that comes within the wait.
#[derive(Clone, Copy)]
struct Chances {
    /// Another reply comes after the wait.
    beyond: f32,
    /// No reply comes.
    ended: f32,
}

impl<'a> Part<'a> {
    fn of(record: Option<&'a KindRecord>) -> Self {
        record.map_or_else(Self::default, |record| Self {
            total: record.total(),
            ended: record.ended,
            tail: record.gaps.tail(),
        })
    }

    /// Returns the chances at this wait. They lean on those of a coarser record, with this weight.
    fn chances(&self, wait: f32, coarser: Chances, lean: f32) -> Chances {
        let beyond = self.tail.map_or(0.0, |tail| tail.expected_beyond(wait));
        let total = self.total + lean;
        Chances {
            beyond: (beyond + lean * coarser.beyond) / total,
            ended: (self.ended + lean * coarser.ended) / total,
        }
    }
}

impl<'a> Estimate<'a> {
    fn new(rhythm: &'a BotRhythm, kind: ReplyKind) -> Self {
        Self {
            kind: Part::of(rhythm.kinds.get(kind.exact)),
            template: Part::of(rhythm.templates.get(kind.template)),
            bot: Part::of(Some(&rhythm.unknown)),
        }
    }

    /// Returns the chance that another reply comes, after so many milliseconds without one. It falls with the wait.
    fn risk(&self, wait: f32) -> f32 {
        let bot = self.bot.chances(wait, UNKNOWN, LEAN_OF_BOT);
        let template = self.template.chances(wait, bot, LEAN_OF_TEMPLATE);
        let Chances { beyond, ended } = self.kind.chances(wait, template, LEAN_OF_KIND);
        beyond / (beyond + ended)
    }

    const fn is_followed(&self) -> bool {
        self.kind.tail.is_some()
    }
}
