//! The rhythm of a bot as all conversations of a replica share it, and what this replica has not saved yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bot_rhythm::{BotRhythm, LearnedWait, WaitLimits};
use super::reply_kind::ReplyKind;
use super::rhythm_report::RhythmReport;
use super::turn_observation::TurnObservation;
use crate::config::{BotConfig, QuietRule};

/// The most turns that wait to be saved. The oldest are lost first, and stay known to this replica alone.
const MOST_UNSAVED: usize = 4096;

/// The rhythm of one bot.
#[derive(Debug)]
pub struct SharedRhythm {
    limits: WaitLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rhythm: BotRhythm,
    unsaved: VecDeque<TurnObservation>,
    /// The turns that were dropped from `unsaved`, or saved.
    gone: u64,
}

/// A rhythm to be saved, with the turns of this replica.
#[derive(Debug)]
pub struct MergedRhythm {
    /// The rhythm that all replicas know.
    pub rhythm: BotRhythm,
    /// The number of this replica's turns in it, counted from its start.
    upto: u64,
}

impl SharedRhythm {
    /// Returns a rhythm that knows nothing.
    pub fn new(limits: WaitLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Returns the rhythm of this bot, if its quiet time is learned.
    pub fn of(bot: &BotConfig) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let early_cuts = bot.early_cuts as f32;
        let limits = WaitLimits::new(bot.quiet_min, bot.quiet_max, bot.unlearned_quiet().wait, early_cuts);
        (bot.quiet == QuietRule::Auto).then(|| Self::new(limits))
    }

    /// Returns how long a turn waits behind a reply of this kind.
    pub fn wait(&self, kind: ReplyKind) -> LearnedWait {
        self.lock().rhythm.wait(kind, &self.limits)
    }

    /// Learns from a finished turn.
    pub fn learn(&self, turn: TurnObservation) {
        let state = &mut *self.lock();
        state.rhythm.learn(&turn, &self.limits);
        if state.unsaved.len() == MOST_UNSAVED {
            state.unsaved.pop_front();
            state.gone += 1;
        }
        state.unsaved.push_back(turn);
    }

    /// Returns whether turns wait to be saved.
    pub fn has_unsaved(&self) -> bool {
        !self.lock().unsaved.is_empty()
    }

    /// Returns what the store knows and the unsaved turns of this replica together.
    pub fn merged_with(&self, stored: BotRhythm) -> MergedRhythm {
        let (unsaved, upto) = {
            let state = self.lock();
            (state.unsaved.clone(), state.gone + state.unsaved.len() as u64)
        };
        let mut rhythm = stored;
        for turn in &unsaved {
            rhythm.learn(turn, &self.limits);
        }
        MergedRhythm { rhythm, upto }
    }

    /// Takes over what was saved. Turns that were learned since are learned again.
    pub fn on_saved(&self, saved: MergedRhythm) {
        let state = &mut *self.lock();
        let count = usize::try_from(saved.upto.saturating_sub(state.gone)).unwrap_or(usize::MAX);
        let count = count.min(state.unsaved.len());
        state.unsaved.drain(..count);
        state.gone += count as u64;
        state.rhythm = saved.rhythm;
        for turn in &state.unsaved {
            state.rhythm.learn(turn, &self.limits);
        }
    }

    /// Forgets everything, the unsaved turns too.
    pub fn forget(&self) {
        let state = &mut *self.lock();
        state.gone += state.unsaved.len() as u64;
        state.unsaved.clear();
        state.rhythm = BotRhythm::default();
    }

    /// Returns the longest time from sending to a first reply that the bot took lately. `None` before it is known.
    pub fn longest_first_reply(&self) -> Option<Duration> {
        self.lock().rhythm.longest_first_reply()
    }

    /// Returns what is known.
    pub fn report(&self) -> RhythmReport {
        let rhythm = self.lock().rhythm.clone();
        RhythmReport::of(&rhythm, &self.limits)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
