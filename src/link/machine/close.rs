//! A message that ends the platform's session (api.md 2, `DELETE`).
//!
//! It waits in the lane as any other does, and when it is the head the session ends: over the link that is open, or
//! over one that is opened for it where the platform should still have the session. Saying it twice does no harm, so a
//! broken link is no question of history. Afterwards the conversation is as one that never connected.

use std::sync::Arc;

use super::super::backfill::GapCause;
use super::super::input::{Effect, SocketLoss};
use super::super::turn::{Turn, TurnPhase};
use super::Machine;
use super::socket::Link;
use crate::domain::{EndedBy, MessageId, SessionRequest, Timestamp, TurnOutcome};
use crate::store::ConversationChange;

impl Machine {
    /// Carries the head out where it ends the session; false where it does not.
    pub(super) fn tend_close(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let head = self.lane.front().filter(|head| head.new.session == SessionRequest::Close);
        let Some(head) = head.map(Arc::clone) else { return false };
        let phase = self.turn.as_ref().map(|turn| turn.phase);
        if matches!(phase, Some(TurnPhase::Out | TurnPhase::Broken | TurnPhase::Ending))
            || phase.is_none() && self.is_draining()
        {
            return true;
        }
        let send_by = self.turn.as_ref().map_or_else(|| self.send_by(&head), |turn| turn.limit());
        if phase != Some(TurnPhase::Storing) && self.is_nothing_to_close(now) {
            let turn = Turn::begin(head, &self.bot, self.head.since(), send_by);
            self.turn.get_or_insert_with(|| Box::new(turn));
            self.end_turn(now, TurnOutcome::Answered(EndedBy::SessionEnd), effects);
        } else if let Some(problem) = self.hopeless(now, send_by) {
            self.fail_head(now, problem, effects);
        } else if phase.is_none() && self.is_ready(now) {
            let mut turn = Turn::begin(head, &self.bot, self.head.since(), send_by);
            turn.progress.sent_at = Some(now);
            self.ledger.push(ConversationChange::Sent { message: turn.message.id, at: now });
            self.turn = Some(Box::new(turn));
        } else if phase == Some(TurnPhase::Ready)
            && self.is_ready(now)
            && let Some(turn) = &mut self.turn
        {
            turn.phase = TurnPhase::Out;
            turn.on_closing(now);
            effects.push(Effect::Send(head));
        }
        true
    }

    /// Whether there is no link, nor will be one, over which a session could be reached that should still live.
    fn is_nothing_to_close(&self, now: Timestamp) -> bool {
        !matches!(self.link, Link::Open(_) | Link::Connecting { .. }) && !self.session_lives(now)
    }

    /// The link is gone while the platform was told to end the session. True where that settles it.
    pub(super) fn on_lost_closing(
        &mut self,
        now: Timestamp,
        loss: SocketLoss,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open() && turn.closes()) else {
            return false;
        };
        if turn.is_proved() || loss.code == 1000 {
            self.end_turn(now, TurnOutcome::Answered(EndedBy::SessionEnd), effects);
        } else if matches!(loss.code, 1007..=1009) {
            return false;
        } else {
            turn.resend();
        }
        true
    }

    /// Decides the end of a message that ends the session.
    pub(super) fn end_close(
        &mut self,
        now: Timestamp,
        message: MessageId,
        outcome: TurnOutcome,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(outcome, TurnOutcome::Failed(_)) {
            self.ledger.end_close(now, message, outcome);
            return;
        }
        if matches!(self.link, Link::Open(_)) {
            self.link = Link::Cold;
            effects.push(Effect::Close(1000));
        } else if matches!(self.link, Link::Waiting { .. }) {
            self.link = Link::Cold;
        }
        self.cut_streams(now, false, effects);
        // What the bot still says is read when somebody speaks to it again.
        self.on_gap(GapCause::Away);
        self.keep_until = None;
        let record = &mut self.ledger.record;
        record.connected_at = None;
        record.session_id = None;
        record.last_turn = None;
        record.agent = false;
        self.ledger.end_close(now, message, outcome);
        // Nobody has to open a link for what the bot still has to say.
        self.ledger.warm(now);
    }

    /// Whether the session is ended, and the store is being told so.
    pub(super) fn is_closed(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| {
            turn.closes()
                && turn.phase == TurnPhase::Ending
                && matches!(turn.progress.outcome, Some(TurnOutcome::Answered(_)))
        })
    }
}
