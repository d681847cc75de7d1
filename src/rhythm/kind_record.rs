//! The record of one kind of reply.

use std::time::Duration;

use super::gap_sketch::GapSketch;

/// The weight that an observation keeps after another one of its kind: knowledge fades within some hundred of them.
const KEPT: f32 = 1.0 - 1.0 / 256.0;
/// A run of equal observations erases the record if its estimated chance is below `exp(-CONTRADICTION)`, a thousandth:
/// the bot was changed.
const CONTRADICTION: f32 = 6.9;
/// An observation above this chance counts as expected.
const EXPECTED: f32 = 0.75;

/// How often a reply of a kind was the last one of its turn, and after how long another one followed it. The weights are
/// observations, and they fade.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KindRecord {
    pub(super) ended: f32,
    pub(super) gaps: GapSketch,
    /// The run of equal observations at the end: whether they ended, and how far they contradict the record.
    run: (bool, f32),
}

impl KindRecord {
    /// Returns the record of these weights.
    pub(super) fn new(ended: f32, gaps: GapSketch) -> Self {
        Self { ended, gaps, run: Default::default() }
    }

    /// Returns the weight of all observations.
    pub(super) const fn total(&self) -> f32 {
        self.ended + self.gaps.total()
    }

    /// Notes that no reply followed.
    pub(super) fn on_ended(&mut self) {
        self.weigh(true, self.ended);
        self.ended += 1.0;
    }

    /// Notes that a reply followed after this gap.
    pub(super) fn on_followed(&mut self, gap: Duration) {
        self.weigh(false, self.gaps.total());
        self.gaps.add(gap);
    }

    /// Fades the record to at most so many observations.
    pub(super) fn forget_to(&mut self, most: f32) {
        let total = self.total();
        if total > most {
            self.scale(most / total);
        }
    }

    /// Fades the record before an observation that agrees with so much of it.
    fn weigh(&mut self, ends: bool, agreeing: f32) {
        let chance = (agreeing + 0.5) / (self.total() + 1.0);
        let so_far = if self.run.0 == ends { self.run.1 } else { 0.0 };
        let contradiction = so_far + if chance < EXPECTED { -chance.ln() } else { 0.0 };
        if contradiction > CONTRADICTION {
            *self = Self::default();
        } else {
            self.scale(KEPT);
            self.run = (ends, contradiction);
        }
    }

    fn scale(&mut self, factor: f32) {
        self.ended *= factor;
        self.gaps.scale(factor);
    }
}
