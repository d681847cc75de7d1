//! The rhythm of bots: how long a turn waits behind a reply of each kind (docs/turns.md).
//!
//! The platform does not tell that a bot is done (protocol.md 7.7). Bots are programs: after the same reply they nearly
//! always do the same. Finished turns show what each kind of reply was followed by. From that follows the shortest wait
//! behind which another reply is as rare as the budget of early cuts demands.
//!
//! All of it is pure. Time comes in as spans, and no call leaves this module.

mod bot_rhythm;
mod codec;
mod gap_sketch;
mod kind_record;
mod kind_table;
mod reply_kind;
mod rhythm_report;
mod shared_rhythm;
mod trust_levels;
mod turn_observation;

#[cfg(test)]
mod tests;

pub use bot_rhythm::{BotRhythm, LearnedWait, WaitLimits};
pub use codec::InvalidRhythm;
pub use reply_kind::{ReplyKind, ReplyShape, UserWords};
pub use rhythm_report::{KindReport, RhythmReport};
pub use shared_rhythm::{MergedRhythm, SharedRhythm};
pub use turn_observation::{NextReply, TurnObservation};
