//! The lane: heads begin, turns end.

use std::sync::Arc;
use std::time::Duration;

use super::super::input::Effect;
use super::super::new_deliveries;
use super::super::turn::{Turn, TurnPhase, send_time, uncertain};
use super::link_phase::LinkPhase;
use super::{LaneRead, Machine};
use crate::domain::{AcceptedMessage, LastTurn, Problem, ProblemKind, ResendPolicy, Timestamp, TurnOutcome};
use crate::store::{ConversationChange, ConversationSnapshot, OpenMessage};

/// The state of the lane's first message before its turn begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneHead {
    since: Timestamp,
    /// Until when the user's send rate holds it.
    rate_until: Option<Timestamp>,
}

impl LaneHead {
    pub(super) const fn new(since: Timestamp) -> Self {
        Self { since, rate_until: None }
    }

    pub(super) const fn since(&self) -> Timestamp {
        self.since
    }
}

impl Machine {
    pub(super) fn on_accepted(&mut self, message: Arc<AcceptedMessage>) {
        if message.position == self.next_position {
            self.enqueue(message);
        } else if !self.is_open(message.id) {
            // An earlier message is unknown, or this one has ended, or the store lost a message. The lane tells.
            self.want_lane();
        }
    }

    /// Takes a message that the store marked as sent at its accept. The store does so only if the lane is empty. Here the
    /// head before may still be ending.
    pub(super) fn on_sent_at_accept(&mut self, message: Arc<AcceptedMessage>) {
        if message.position == self.next_position {
            self.sent_at_accept = Some(message.id);
        }
        self.on_accepted(message);
    }

    /// Begins the turn of a head that the store has as sent, although no byte of it was sent.
    fn begin_sent_at_accept(&mut self, now: Timestamp) {
        let head = self.lane.front().filter(|head| Some(head.id) == self.sent_at_accept);
        let Some(message) = head.filter(|_| self.turn.is_none()).map(Arc::clone) else { return };
        self.sent_at_accept = None;
        let send_by = self.send_by(&message);
        self.buffer.record.sends.record(self.bot.user_rate_per_minute, now);
        self.buffer.touch(now);
        let mut turn = Turn::begin(message, &self.bot, self.head.since, send_by);
        turn.learn(self.rhythm.of_turn());
        turn.progress.sent_at = Some(turn.message.accepted_at);
        turn.phase = TurnPhase::Ready;
        self.turn = Some(Box::new(turn));
    }

    pub(super) fn on_lane(&mut self, now: Timestamp, open: ConversationSnapshot, effects: &mut Vec<Effect>) {
        let LaneRead::Pending { again, known } = self.lane_read else { return };
        self.lane_read = if again { LaneRead::Wanted } else { LaneRead::Idle };
        if self.buffer.is_in_doubt() {
            if known.settled {
                self.reconcile(now, open, known, effects);
            }
            return;
        }
        if self.contradicts(&open, known) {
            self.doubt();
            return;
        }
        for OpenMessage { accepted, progress } in open.lane {
            if accepted.position >= self.next_position {
                // The answer to its accept was lost. Only this owner may send it.
                if progress.sent_at.is_some() {
                    self.sent_at_accept = Some(accepted.id);
                }
                self.enqueue(accepted);
            }
        }
        self.next_position = self.next_position.max(open.next_position);
    }

    pub(super) fn enqueue(&mut self, message: Arc<AcceptedMessage>) {
        self.next_position = message.position + 1;
        self.last_known = self.last_known.max(message.client_message_id);
        if self.lane.is_empty() {
            self.head = LaneHead::new(message.accepted_at);
        }
        self.lane.push_back(message);
    }

    /// Notes that the write in flight is stored. `lost` says that the store had lost a message of it.
    pub(super) fn on_stored(&mut self, now: Timestamp, lost: bool, effects: &mut Vec<Effect>) {
        let on_commit = self.buffer.on_stored();
        effects.extend(on_commit.lost.into_iter().map(Effect::ReportLoss));
        if lost {
            // The store may have lost other messages too.
            self.doubt();
            if on_commit.sent || on_commit.ended {
                self.lose_head(now, effects);
            }
            return;
        }
        if on_commit.sent
            && let Some(turn) = &mut self.turn
            && turn.phase == TurnPhase::Storing
        {
            turn.phase = TurnPhase::Ready;
        }
        if on_commit.ended
            && let Some(turn) = self.turn.take()
        {
            let ended_at = turn.progress.ended_at.unwrap_or_default();
            self.lane.pop_front();
            self.head = LaneHead::new(ended_at);
            effects.push(Effect::Complete { message: turn.message(), head_at: turn.head_at });
        }
    }

    /// Puts a message back that was not sent, because the lease was not valid. It waits until the lease is valid or
    /// its deadline passes.
    pub(super) fn on_withheld(&mut self) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase == TurnPhase::Sending) {
            turn.phase = TurnPhase::Ready;
        }
    }

    /// Notes that the bytes of the message may reach the platform from here on.
    pub(super) fn on_writing(&mut self, now: Timestamp) {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase == TurnPhase::Sending) else { return };
        turn.phase = TurnPhase::Sent;
        turn.written_at = Some(now);
        if turn.ends_session() {
            turn.on_session_end_sent(now);
            return;
        }
        if turn.was_sent() {
            self.buffer.record.sends.record(self.bot.user_rate_per_minute, now);
            self.buffer.touch(now);
        } else {
            turn.follows = self.newest_reply;
            turn.previous_sent_at = self.last_sent_at.replace(now);
            if let Some(backfill) = &mut self.backfill {
                backfill.on_sent(turn.message.client_message_id);
            }
        }
        self.on_activity(now);
    }

    /// Learns from the turn before, once a reply to it cannot come any more or could not be told apart.
    pub(super) fn tend_rhythm(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let is_followed = self.turn.as_ref().is_some_and(|turn| turn.phase != TurnPhase::Ending);
        if is_followed || !matches!(self.link, LinkPhase::Open(_)) {
            effects.extend(self.rhythm.settle(now).map(Effect::learn));
        }
    }

    pub(super) fn tend_turn(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let (streaming, agent) = (self.streams.in_turn(), self.agent_ends_turn(now));
        let Some(turn) = &mut self.turn else { return };
        if let Some(outcome) = turn.verdict(now, streaming, agent) {
            self.end_turn(now, outcome, effects);
        }
    }

    /// Decides the end of the turn. It is reported when it is stored.
    pub(super) fn end_turn(&mut self, now: Timestamp, outcome: TurnOutcome, effects: &mut Vec<Effect>) {
        if self.is_ending_session() {
            self.delete(effects);
            return;
        }
        if self.turn.as_ref().is_some_and(|turn| turn.is_open()) {
            self.release_deferred(now, effects);
            self.cut_streams(now, true, effects);
        }
        let Some(turn) = &mut self.turn else { return };
        if matches!(outcome, TurnOutcome::Answered(_)) {
            self.backoff.reset();
            self.blocks = 0;
        }
        let went_out = turn.is_open() || turn.was_sent();
        turn.phase = TurnPhase::Ending;
        turn.progress.ended_at = Some(now);
        turn.progress.outcome = Some(outcome.clone());
        let message = turn.message.id;
        if let (Some(rhythm), TurnOutcome::Answered(by)) = (turn.take_rhythm(), &outcome) {
            self.rhythm.on_turn_ended(message, *rhythm, *by);
        }
        if turn.ends_session() {
            self.end_session(now, message, outcome, effects);
            return;
        }
        let warm_for = went_out.then(|| self.warm_for(now));
        self.buffer.end(now, message, outcome, warm_for);
        let Some(Turn { message, progress, .. }) = self.turn.as_deref() else { return };
        self.buffer.deliver(new_deliveries::of_end(&self.bot, message, progress, self.buffer.place(), now));
        if went_out {
            self.buffer.record.last_turn = Some(LastTurn::of(message, now));
            self.on_activity(now);
        }
    }

    pub(super) fn fail_head(&mut self, now: Timestamp, problem: Problem, effects: &mut Vec<Effect>) {
        if self.turn.is_none()
            && let Some(message) = self.lane.front()
        {
            self.turn = Some(Box::new(Turn::begin(Arc::clone(message), &self.bot, self.head.since, now)));
        }
        self.end_turn(now, TurnOutcome::Failed(problem), effects);
    }

    /// Begins the head's turn, sends a ready message, and fails one that cannot be sent in time.
    pub(super) fn tend_head(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.tend_session_end(now, effects) || self.tend_connect_message(now, effects) {
            return;
        }
        self.begin_sent_at_accept(now);
        if let Some(turn) = &self.turn {
            if !matches!(turn.phase, TurnPhase::Storing | TurnPhase::Ready | TurnPhase::Sending) {
                return;
            }
            let (ready, was_sent) = (turn.phase == TurnPhase::Ready, turn.was_sent());
            // The first sending counted at its decision, a resend counts when it goes out.
            let rate_free_at = if was_sent { self.rate_free_at(now) } else { now };
            self.head.rate_until = (rate_free_at > now).then_some(rate_free_at);
            if let Some(problem) = self.send_problem(now, turn.limit()) {
                let problem = if was_sent {
                    uncertain("the link broke after sending and could not be restored to send again")
                } else {
                    problem
                };
                self.end_turn(now, TurnOutcome::Failed(problem), effects);
            } else if ready && rate_free_at <= now && self.is_ready(now) {
                self.send(effects);
            }
            return;
        }
        let Some(message) = self.lane.front().map(Arc::clone) else { return };
        if self.is_draining() {
            return;
        }
        let rate_free_at = self.rate_free_at(now);
        self.head.rate_until = (rate_free_at > now).then_some(rate_free_at);
        let send_by = self.send_by(&message);
        if let Some(problem) = self.send_problem(now, send_by) {
            self.fail_head(now, problem, effects);
        } else if rate_free_at <= now && self.requested_session(&message, now).is_none() && self.is_ready(now)
        {
            self.buffer.record.sends.record(self.bot.user_rate_per_minute, now);
            let mut turn = Turn::begin(message, &self.bot, self.head.since, send_by);
            turn.learn(self.rhythm.of_turn());
            turn.progress.sent_at = Some(now);
            self.buffer.push(ConversationChange::Sent { message: turn.message.id, at: now });
            self.turn = Some(Box::new(turn));
        }
    }

    /// Returns why the head cannot be sent before its deadline, if that is certain.
    pub(super) fn send_problem(&self, now: Timestamp, send_by: Timestamp) -> Option<Problem> {
        if let Some((problem, until)) = &self.refusal
            && now < *until
        {
            return Some(problem.clone());
        }
        if let Some(until) = self.buffer.record.blocked_until
            && now < until
            && send_by < until
        {
            return Some(blocked(until.since(now)));
        }
        (now >= send_by).then(|| self.unreachable())
    }

    /// Hands the turn's message to the socket.
    pub(super) fn send(&mut self, effects: &mut Vec<Effect>) {
        if let Some(turn) = &mut self.turn {
            turn.phase = TurnPhase::Sending;
            effects.push(Effect::Send(Arc::clone(&turn.message)));
        }
    }

    /// Resends a message whose receipt stays unproved, or fails it as uncertain.
    pub(super) fn resolve_unproved(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(turn) = &mut self.turn else { return };
        if turn.message.new.resend == ResendPolicy::Auto && self.refusal.is_none() {
            turn.resend();
        } else {
            let problem = uncertain("the link broke after sending and nothing proves receipt");
            self.end_turn(now, TurnOutcome::Failed(problem), effects);
        }
    }

    pub(super) fn head_wake_at(&self) -> Option<Timestamp> {
        let rate = self.head.rate_until.filter(|_| matches!(self.link, LinkPhase::Open(_)));
        if let Some(turn) = &self.turn {
            return rate.filter(|_| turn.phase == TurnPhase::Ready);
        }
        if self.is_draining() {
            return None;
        }
        let at = self.send_by(self.lane.front()?);
        Some(rate.map_or(at, |until| at.min(until)))
    }

    pub(super) fn rate_free_at(&self, at: Timestamp) -> Timestamp {
        self.buffer.record.sends.next(self.bot.user_rate_per_minute, at)
    }

    /// Returns the deadline for sending the head. It counts from the start of the head and the release by the user's
    /// send rate, and it is the same for every owner.
    pub(super) fn send_by(&self, message: &AcceptedMessage) -> Timestamp {
        // The send rate does not count the end of a session, nor a connect.
        let is_free = message.new.session.is_end() || message.new.is_connect();
        let from = if is_free { self.head.since } else { self.rate_free_at(self.head.since) };
        from + send_time(message, &self.bot)
    }

    fn unreachable(&self) -> Problem {
        let why = self.last_failure.as_deref().unwrap_or(self.waiting_for());
        let detail = format!("the message could not be sent before its deadline: {why}");
        Problem::new(ProblemKind::PlatformUnavailable, detail)
    }
}

/// Returns the problem of a message that the platform blocks for now.
pub(super) fn blocked(wait: Duration) -> Problem {
    let detail = "the platform closed the connection with 1008: its rate limit is reached, the bot is suspended or \
                  the user is blocked";
    Problem::new(ProblemKind::BotBlocked, detail).retry_after(wait)
}
