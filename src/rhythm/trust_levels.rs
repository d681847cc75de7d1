//! How far the estimates of a bot may be trusted, by what they would have cost so far.
//!
//! An estimate rests on an assumption about bots: that most kinds of replies always go on, or never do. Whether it fits a
//! bot is measured. For each level, all turns are judged as if it had decided: would it have ended them early? The boldest
//! level whose share of early cuts is proved to be within the budget decides. Turns that waited longer than a bolder level
//! would have prove it without a risk.

/// The risk that a level takes, in budgets.
pub(super) const LEVELS: [f32; 4] = [0.25, 1.0, 4.0, 16.0];
/// The share of early cuts that a level is assumed to have before it was tried, in budgets.
const ASSUMED: [f32; 4] = [0.2, 0.9, 1.5, 3.0];
/// The turns after which a turn is half forgotten.
const KEPT: f32 = 1.0 - 1.0 / 4000.0;

/// The trials of all levels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TrustLevels {
    /// Turns that a level would have ended before the default wait, faded.
    pub(super) turns: [f32; LEVELS.len()],
    /// Those of them that went on, faded.
    pub(super) cuts: [f32; LEVELS.len()],
}

impl TrustLevels {
    /// Notes a turn that these levels would have ended, and whether the bot went on.
    pub(super) fn on_turn(&mut self, ended_by: [bool; LEVELS.len()], cut: bool) {
        for ((turns, cuts), ended) in self.turns.iter_mut().zip(&mut self.cuts).zip(ended_by) {
            if ended {
                *turns = *turns * KEPT + 1.0;
                *cuts = *cuts * KEPT + if cut { 1.0 } else { 0.0 };
            }
        }
    }

    /// Returns the risk that the boldest level takes which keeps this budget, in budgets. `None` if all took more.
    pub(super) fn boldest(&self, budget: f32) -> Option<f32> {
        let trials = self.turns.iter().zip(&self.cuts).zip(ASSUMED).zip(LEVELS).rev();
        // The assumption counts as much as the turns in which the budget is one early cut.
        let keeps = |turns, cuts, assumed| (cuts + assumed) / (turns + 1.0 / budget) <= budget;
        trials
            .into_iter()
            .find_map(|(((turns, cuts), assumed), level)| keeps(turns, cuts, assumed).then_some(level))
    }
}
