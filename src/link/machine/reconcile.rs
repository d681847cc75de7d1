//! The reconciliation of a conversation with a store that lost data.
//!
//! A failover may take back confirmed writes. The store then has an earlier state of the conversation. Three facts
//! show this:
//! * A write does not follow the last one ([`Input::OutOfStep`]).
//! * A message of a write is not in the store.
//! * The lane knows less than was confirmed.
//!
//! The machine is then in doubt. It sends nothing, and begins no connect and no write, until it has read the lane. The
//! reconciliation begins there ([`Machine::reconcile`]). A record that expired during a long quiet link looks the same,
//! although the store lost nothing.
//!
//! The state of the machine wins, because it was true:
//! * The lost changes of the open turn are written again.
//! * A message whose end is lost and not known any more ends again, as lost.
//! * A message that the store lost is dropped.
//!
//! No such message is sent again.
//!
//! [`Input::OutOfStep`]: super::super::input::Input::OutOfStep

use std::sync::Arc;

use super::super::input::{AbandonReason, Effect};
use super::super::new_deliveries;
use super::super::turn::{Turn, TurnPhase};
use super::lane::LaneHead;
use super::link_phase::LinkPhase;
use super::{KnownLane, Machine};
use crate::domain::{
    AcceptedMessage, EntryBody, JournalEntry, LastTurn, MessageId, MessageProgress, Problem, ProblemKind,
    Timestamp, TurnOutcome,
};
use crate::store::{ConversationChange, ConversationSnapshot, OpenMessage};

impl Machine {
    /// Enters the doubt: the store may have lost confirmed writes.
    pub(super) fn doubt(&mut self) {
        self.buffer.doubt();
        self.want_lane();
    }

    /// Returns whether a lane contradicts the confirmed state of its request. An end that was confirmed since may be
    /// the reason; a second read tells.
    pub(super) fn contradicts(&self, open: &ConversationSnapshot, known: KnownLane) -> bool {
        let ending =
            self.turn.as_ref().filter(|turn| turn.phase == TurnPhase::Ending).map(|turn| turn.message.id);
        let has = |id: MessageId| open.lane.iter().any(|message| message.accepted.id == id);
        open.record.write < known.write
            || open.lane.iter().any(|message| {
                message.accepted.position < self.next_position && !self.is_open(message.accepted.id)
            })
            || self.lane.iter().any(|message| {
                message.position < known.position && Some(message.id) != ending && !has(message.id)
            })
    }

    /// Continues from the state of the store. No write was in flight since the lane was requested.
    pub(super) fn reconcile(
        &mut self,
        now: Timestamp,
        open: ConversationSnapshot,
        known: KnownLane,
        effects: &mut Vec<Effect>,
    ) {
        if open.record.write > self.buffer.record.write {
            self.restart_from_store(now, open, effects);
            return;
        }
        // A missing record has expired. Other losses are reported for each message.
        if (1..self.buffer.confirmed()).contains(&open.record.write) {
            self.buffer.record.renew_epoch(now);
            effects.push(Effect::Reconciled);
        }
        let stored = |id: MessageId| open.lane.iter().find(|message| message.accepted.id == id);
        // The answer may miss messages that were accepted since the request.
        let is_lost =
            |message: &AcceptedMessage| message.position < known.position && stored(message.id).is_none();
        if self.turn.as_ref().is_some_and(|turn| is_lost(&turn.message)) {
            self.lose_head(now, effects);
        }
        let missing = match &mut self.turn {
            Some(turn) => stored(turn.message.id)
                .map(|stored| missing(turn, &stored.progress, self.buffer.waiting(), now)),
            None => None,
        };
        self.buffer.follow(&open.record, missing.unwrap_or_default());
        let sent = open.lane.first().filter(|head| head.progress.sent_at.is_some());
        let sent = sent.map(|head| head.accepted.id);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lane).into_iter().partition(|message| !is_lost(message));
        effects.extend(dropped.iter().map(|message| Effect::ReportLoss(message.id)));
        let newer: Vec<_> =
            kept.iter().filter(|message| stored(message.id).is_none()).map(Arc::clone).collect();
        for OpenMessage { accepted, progress } in open.lane {
            let is_known = kept.iter().any(|message| message.id == accepted.id);
            if is_known
                || accepted.position >= self.next_position
                || accepted.client_message_id > self.last_known
            {
                self.last_known = self.last_known.max(accepted.client_message_id);
                self.lane.push_back(accepted);
            } else {
                self.end_lost(now, OpenMessage { accepted, progress });
            }
        }
        self.next_position = open.next_position;
        for message in newer {
            self.next_position = self.next_position.max(message.position + 1);
            self.lane.push_back(message);
        }
        if self.turn.is_none() {
            self.head = LaneHead::new(open.head_at.unwrap_or(now));
            let known = kept.iter().any(|message| Some(message.id) == sent);
            if sent.is_some() && !known {
                self.sent_at_accept = sent;
            }
        }
    }

    /// Drops the head, because the store lost its message. It is neither sent nor completed.
    pub(super) fn lose_head(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.release_deferred(now, effects);
        let Some(turn) = self.turn.take() else { return };
        let message = turn.message.id;
        self.buffer.forget(message);
        if (turn.is_open() || turn.was_sent()) && !turn.ends_session() {
            // A later reply to it must not count as a late reply of the previous turn.
            self.buffer.record.last_turn = Some(LastTurn::of(&turn.message, now));
        }
        self.cut_streams(now, true, effects);
        self.lane.pop_front();
        self.head = LaneHead::new(now);
        effects.push(Effect::ReportLoss(message));
    }

    /// Ends a message as lost, because neither the store nor this owner knows its end.
    pub(super) fn end_lost(&mut self, now: Timestamp, open: OpenMessage) {
        let OpenMessage { accepted, mut progress } = open;
        let waits =
            |change: &ConversationChange| change.ended().is_some_and(|(message, _)| message == accepted.id);
        if self.buffer.waiting().iter().any(waits) {
            return;
        }
        let detail = "the store lost how this turn ended; the bot has probably answered it";
        let outcome = TurnOutcome::Failed(Problem::new(ProblemKind::MessageLost, detail));
        self.buffer.end_lost(now, &accepted, outcome.clone());
        (progress.ended_at, progress.outcome) = (Some(now), Some(outcome));
        let deliveries = new_deliveries::of_end(&self.bot, &accepted, &progress, self.buffer.place(), now);
        self.buffer.deliver(deliveries);
    }

    /// Drops the state of the machine and restarts from the store. The store is ahead, which no data loss explains.
    fn restart_from_store(&mut self, now: Timestamp, open: ConversationSnapshot, effects: &mut Vec<Effect>) {
        if matches!(self.link, LinkPhase::Open(_) | LinkPhase::Connecting { .. }) {
            effects.push(Effect::Abandon(AbandonReason::StoreAhead));
        }
        let seed = self.random.u64(..);
        let restarted =
            Self::new(Arc::clone(&self.bot), self.rhythm.bot(), self.conversation.clone(), open, now, seed);
        *self = Self {
            lease_valid: self.lease_valid,
            exit: self.exit,
            send_at_accept_pending: self.send_at_accept_pending,
            ..restarted
        };
    }
}

/// Returns the changes of the turn that the store had and lost, without those that wait for a write.
fn missing(
    turn: &mut Turn,
    stored: &MessageProgress,
    waiting: &[ConversationChange],
    now: Timestamp,
) -> Vec<ConversationChange> {
    let (message, known) = (turn.message.id, &turn.progress);
    let mut missing = Vec::new();
    let waits = |what: fn(&ConversationChange) -> bool| waiting.iter().any(what);
    if waits(|change| matches!(change, ConversationChange::Sent { .. })) {
        // Every later change of the turn waits too.
        return missing;
    }
    if let Some(at) = known.sent_at
        && stored.sent_at.is_none()
    {
        missing.push(ConversationChange::Sent { message, at });
        if matches!(turn.phase, TurnPhase::Ready | TurnPhase::Sending) {
            turn.phase = TurnPhase::Storing;
        }
    }
    if let Some(at) = known.acked_at
        && stored.acked_at.is_none()
        && !waits(|change| matches!(change, ConversationChange::Acked { .. }))
    {
        missing.push(ConversationChange::Acked { message, at });
    }
    if let Some(at) = known.first_reply_at
        && stored.first_reply_at.is_none()
        && !waits(|change| matches!(change, ConversationChange::Answering { .. }))
    {
        missing.push(ConversationChange::Answering { message, at });
    }
    let waiting_from = waiting.iter().find_map(|change| match change {
        ConversationChange::Append(entry) => Some(entry.seq),
        _ => None,
    });
    let stored_until = stored.replies.iter().map(|reply| reply.seq).max();
    let lost = known.replies.iter().filter(|reply| {
        stored_until.is_none_or(|until| reply.seq > until) && waiting_from.is_none_or(|from| reply.seq < from)
    });
    missing.extend(lost.map(|reply| {
        ConversationChange::Append(JournalEntry {
            seq: reply.seq,
            at: now,
            body: EntryBody::Reply(Arc::clone(reply)),
        })
    }));
    missing
}
