//! What a store that lost data makes of the conversation.
//!
//! A failover may take back what the store had confirmed: what it has then is an earlier state of what we wrote.
//! It shows where a write does not follow the last one ([`Input::OutOfStep`]), where a message that a write names
//! is not there, or where the lane tells of less than was known. The machine then is in doubt: it sends nothing
//! and begins no write until it has read the lane, and takes up from there ([`Machine::rebase`]). A record that
//! expired, because the link was open and nothing happened for so long, looks the same and loses nothing.
//!
//! What we know wins, for it was true: what the store lost of the open turn is written again. What is not known
//! any more is not made up: a message whose end the store lost ends again, as lost; a message that the store lost
//! is dropped. None of them is sent again.
//!
//! [`Input::OutOfStep`]: super::super::input::Input::OutOfStep

use std::sync::Arc;

use super::super::input::{AbandonReason, Effect};
use super::super::outbox;
use super::super::turn::{Turn, TurnPhase};
use super::lane::Head;
use super::socket::Link;
use super::{Known, Machine};
use crate::domain::{
    AcceptedMessage, EntryBody, JournalEntry, LastTurn, MessageId, MessageProgress, Problem, ProblemKind,
    Timestamp, TurnOutcome,
};
use crate::store::{ConversationChange, ConversationSnapshot, OpenMessage};

impl Machine {
    /// The store may have lost what it confirmed.
    pub(super) fn doubt(&mut self) {
        self.ledger.doubt();
        self.want_lane();
    }

    /// Whether a lane cannot be that of a store that kept what was known as it was asked. It may also just have
    /// been read before an end that is confirmed by now; a second look tells.
    pub(super) fn contradicts(&self, open: &ConversationSnapshot, known: Known) -> bool {
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

    /// Goes on from where the store stands. No write is in flight, and none was since the lane was asked for.
    pub(super) fn rebase(
        &mut self,
        now: Timestamp,
        open: ConversationSnapshot,
        known: Known,
        effects: &mut Vec<Effect>,
    ) {
        if open.record.write > self.ledger.record.write {
            self.begin_anew(now, open, effects);
            return;
        }
        // Where there is no record at all it has expired; whatever else went is said of each message.
        if (1..self.ledger.confirmed()).contains(&open.record.write) {
            self.ledger.record.renew_epoch(now);
            effects.push(Effect::Rebased);
        }
        let stored = |id: MessageId| open.lane.iter().find(|message| message.accepted.id == id);
        // What was told of since the lane was asked for, the answer need not know.
        let is_lost =
            |message: &AcceptedMessage| message.position < known.position && stored(message.id).is_none();
        if self.turn.as_ref().is_some_and(|turn| is_lost(&turn.message)) {
            self.lose_head(now, effects);
        }
        let missing = match &mut self.turn {
            Some(turn) => stored(turn.message.id)
                .map(|stored| missing(turn, &stored.progress, self.ledger.waiting(), now)),
            None => None,
        };
        self.ledger.follow(&open.record, missing.unwrap_or_default());
        let sent = open.lane.first().filter(|head| head.progress.sent_at.is_some());
        let sent = sent.map(|head| head.accepted.id);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lane).into_iter().partition(|message| !is_lost(message));
        effects.extend(dropped.iter().map(|message| Effect::Forget(message.id)));
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
            self.head = Head::new(open.head_at.unwrap_or(now));
            let known = kept.iter().any(|message| Some(message.id) == sent);
            if let Some(head) = self.lane.front().filter(|head| Some(head.id) == sent && !known) {
                self.begin_sent_at_accept(now, Arc::clone(head));
            }
        }
    }

    /// The store lost the message of the turn: it is neither sent nor told.
    pub(super) fn lose_head(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turn.take() else { return };
        let message = turn.message.id;
        self.ledger.forget(message);
        if (turn.is_open() || turn.was_sent()) && !turn.closes() {
            // What the bot still says to it is no reply to the turn before.
            self.ledger.record.last_turn = Some(LastTurn::of(&turn.message, now));
        }
        self.cut_streams(now, true, effects);
        self.lane.pop_front();
        self.head = Head::new(now);
        effects.push(Effect::Forget(message));
    }

    /// The store lost how a message ended, and so did we.
    pub(super) fn end_lost(&mut self, now: Timestamp, open: OpenMessage) {
        let OpenMessage { accepted, mut progress } = open;
        let waits =
            |change: &ConversationChange| change.ended().is_some_and(|(message, _)| message == accepted.id);
        if self.ledger.waiting().iter().any(waits) {
            return;
        }
        let detail = "the store lost how this turn ended; the bot has probably answered it";
        let outcome = TurnOutcome::Failed(Problem::new(ProblemKind::MessageLost, detail));
        self.ledger.end_lost(now, &accepted, outcome.clone());
        (progress.ended_at, progress.outcome) = (Some(now), Some(outcome));
        let delivery = outbox::of_end(&self.bot, &accepted, &progress, self.ledger.place(), now);
        self.ledger.deliver(delivery);
    }

    /// The store is ahead of us, which no loss explains: it is believed, and nothing of ours is kept.
    fn begin_anew(&mut self, now: Timestamp, open: ConversationSnapshot, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Open(_) | Link::Connecting { .. }) {
            effects.push(Effect::Abandon(AbandonReason::Anew));
        }
        let seed = self.random.u64(..);
        let anew = Self::new(Arc::clone(&self.bot), self.conversation.clone(), open, now, seed);
        *self = Self {
            sure: self.sure,
            leaving: self.leaving,
            send_at_accept_pending: self.send_at_accept_pending,
            ..anew
        };
    }
}

/// What the store had of the turn and lost, as changes to be made again. What waits for its write is not among
/// them.
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
        // Then all that came after it waits too.
        return missing;
    }
    if let Some(at) = known.sent_at
        && stored.sent_at.is_none()
    {
        missing.push(ConversationChange::Sent { message, at });
        if turn.phase == TurnPhase::Ready {
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
