//! The turn of a message that only connects: it sends no frame, and the bot speaks by itself.
//!
//! The open socket proves the receipt. A bot that says nothing until the deadline has answered with silence, if the
//! bridge listened all the time or history told the rest.

use std::sync::Arc;
use std::time::Duration;

use super::{Turn, TurnPhase};
use crate::config::BotConfig;
use crate::domain::{AcceptedMessage, EndedBy, Problem, ProblemKind, Timestamp, TurnOutcome};

/// The time of a bot to speak first if the caller sets none. A new owner has it too, to find the greeting in history.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

impl Turn {
    /// Begins the turn of a message that only connects. Its socket is open, and the bot may speak.
    pub(crate) fn begin_connect(
        message: Arc<AcceptedMessage>,
        bot: &BotConfig,
        head_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        let mut turn = Self::begin(message, bot, head_at, now);
        turn.progress.sent_at = Some(now);
        turn.written_at = Some(now);
        turn.phase = TurnPhase::Sent;
        turn
    }

    /// Returns when the platform showed that it has the message, without a reply.
    pub(crate) fn received_at(&self) -> Option<Timestamp> {
        self.progress.acked_at.or(self.progress.sent_at.filter(|_| self.is_connect()))
    }

    /// Returns whether the message only connects, so that the bot speaks by itself.
    pub(crate) fn is_connect(&self) -> bool {
        self.message.new.is_connect()
    }

    /// Notes that history did not tell all that the bot said without a link.
    pub(crate) const fn on_unheard(&mut self) {
        self.unheard = self.lost;
    }

    /// Returns until when a new owner looks for what the bot said while no owner listened.
    pub(super) fn resumed_until(&self) -> Option<Timestamp> {
        self.resumed_at.filter(|_| self.is_connect()).map(|resumed| resumed + CONNECT_DEADLINE)
    }

    /// Returns the outcome of a deadline without a reply.
    pub(super) fn silence_outcome(&self) -> TurnOutcome {
        if !self.unheard && self.phase != TurnPhase::Broken {
            return TurnOutcome::Answered(EndedBy::Silence);
        }
        let detail = "the link was lost after connecting, and history did not tell whether the bot spoke";
        TurnOutcome::Failed(Problem::new(ProblemKind::NoReply, detail))
    }
}
