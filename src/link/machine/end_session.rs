//! Messages that end the platform's session (api.md 2, `DELETE`).
//!
//! Such a message waits in the lane like any other. As the head it is sent over the open link. If the platform should
//! still have the session, a link is opened for it. Sending it twice does no harm, so a broken link needs no history.
//! Afterwards the conversation is like one that never connected.

use std::sync::Arc;

use super::super::backfill_schedule::GapCause;
use super::super::input::{Effect, SocketLoss};
use super::super::turn::{Turn, TurnPhase};
use super::Machine;
use super::close_code::CloseReason;
use super::link_phase::LinkPhase;
use crate::domain::{EndedBy, MessageId, Timestamp, TurnOutcome};
use crate::store::ConversationChange;

impl Machine {
    /// Carries out a head that ends the session. Returns false for other heads.
    pub(super) fn tend_session_end(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let head = self.lane.front().filter(|head| head.new.session.is_end());
        let Some(head) = head.map(Arc::clone) else { return false };
        let phase = self.turn.as_ref().map(|turn| turn.phase);
        if matches!(phase, Some(TurnPhase::Sent | TurnPhase::Broken | TurnPhase::Ending))
            || phase.is_none() && self.is_draining()
        {
            return true;
        }
        let send_by = self.turn.as_ref().map_or_else(|| self.send_by(&head), |turn| turn.limit());
        if phase != Some(TurnPhase::Storing) && self.has_no_session(now) {
            let turn = Turn::begin(head, &self.bot, self.head.since(), send_by);
            self.turn.get_or_insert_with(|| Box::new(turn));
            self.end_turn(now, TurnOutcome::Answered(EndedBy::SessionEnd), effects);
        } else if let Some(problem) = self.send_problem(now, send_by) {
            self.fail_head(now, problem, effects);
        } else if phase.is_none() && self.is_ready(now) {
            let mut turn = Turn::begin(head, &self.bot, self.head.since(), send_by);
            turn.progress.sent_at = Some(now);
            self.buffer.push(ConversationChange::Sent { message: turn.message.id, at: now });
            self.turn = Some(Box::new(turn));
        } else if phase == Some(TurnPhase::Ready) && self.is_ready(now) {
            self.send(effects);
        }
        true
    }

    /// Returns whether no link can reach a session that should still live.
    fn has_no_session(&self, now: Timestamp) -> bool {
        !matches!(self.link, LinkPhase::Open(_) | LinkPhase::Connecting { .. }) && !self.session_lives(now)
    }

    /// Handles the loss of a link over which the session is ended. Returns whether that decides the turn.
    pub(super) fn on_lost_during_session_end(
        &mut self,
        now: Timestamp,
        loss: SocketLoss,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open() && turn.ends_session()) else {
            return false;
        };
        let close = CloseReason::of(loss);
        if turn.is_proved() || close == CloseReason::Regular {
            self.end_turn(now, TurnOutcome::Answered(EndedBy::SessionEnd), effects);
        } else if close.is_refusal() {
            return false;
        } else {
            turn.resend();
        }
        true
    }

    pub(super) fn end_session(
        &mut self,
        now: Timestamp,
        message: MessageId,
        outcome: TurnOutcome,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(outcome, TurnOutcome::Failed(_)) {
            self.buffer.end_session(now, message, outcome);
            return;
        }
        if matches!(self.link, LinkPhase::Open(_)) {
            self.link = LinkPhase::Cold;
            effects.push(Effect::Close(1000));
        } else if matches!(self.link, LinkPhase::Waiting { .. }) {
            self.link = LinkPhase::Cold;
        }
        self.cut_streams(now, false, effects);
        // Later replies of the bot are read when a message is sent again.
        self.on_gap(GapCause::Away);
        self.keep_until = None;
        let record = &mut self.buffer.record;
        record.connected_at = None;
        record.session_id = None;
        record.last_turn = None;
        // The gap put a doubt on the agent, and nothing else would end that doubt.
        self.on_agent_gone();
        self.buffer.end_session(now, message, outcome);
        // No new owner has to open a link for later replies.
        self.buffer.warm(now);
    }

    /// Returns whether the session has ended and its end is being stored.
    pub(super) fn is_session_ended(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| {
            turn.ends_session()
                && turn.phase == TurnPhase::Ending
                && matches!(turn.progress.outcome, Some(TurnOutcome::Answered(_)))
        })
    }
}
