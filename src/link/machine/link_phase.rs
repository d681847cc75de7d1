//! The phase of the link, from cold over connecting to an open socket: connects, losses, keep-alive, idleness.

use std::time::Duration;

use super::super::backfill_schedule::GapCause;
use super::super::input::{AbandonReason, ConnectFailure, Effect, SocketLoss, SocketRequest};
use super::super::keepalive::KeepAlive;
use super::super::turn::TurnPhase;
use super::close_code::CloseReason;
use super::lane::blocked;
use super::{Machine, REFUSAL_TTL};
use crate::domain::{
    AcceptedMessage, LinkState, MessageId, Problem, ProblemKind, SessionRequest, Timestamp, TurnOutcome,
};
use crate::rtm::ConnectMode;

/// The longest time that a welcome holds the first message.
const MAX_HOLD: Duration = Duration::from_secs(3);
/// The wait after a close with 1008 (protocol.md 5.5).
const BLOCK: Duration = Duration::from_mins(1);
/// The longest wait after repeated closes with 1008.
const MAX_BLOCK: Duration = Duration::from_mins(15);
/// The least wait after a close without a code. Another connection of the user may have taken over (protocol.md 5.5),
/// and two bridges that reconnect at once would fight.
const TAKEOVER_DELAY: Duration = Duration::from_secs(2);
/// The lifetime of a socket after which its loss is not a failure: the backoff restarts.
const STABLE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) enum LinkPhase {
    /// There is no socket, and no use for one.
    Cold,
    Connecting {
        mode: ConnectMode,
        /// The message whose request for a session it carries out.
        request: Option<MessageId>,
        /// The message whose context it carries.
        context: Option<MessageId>,
    },
    /// The next connect waits for this time.
    Waiting {
        until: Timestamp,
    },
    Open(OpenSocket),
}

#[derive(Debug)]
pub(super) struct OpenSocket {
    pub(super) since: Timestamp,
    /// Whether the bot may have spoken before the socket was open.
    pub(super) after_gap: bool,
    /// Whether a new session on it keeps the human agent of the conversation.
    pub(super) resumes_agent: bool,
    /// Whether a message asked for the greeting, which therefore belongs to its turn.
    pub(super) greets_turn: bool,
    pub(super) alive: KeepAlive,
    /// The end of the wait for a welcome. The first message is held until then.
    hold: Option<Timestamp>,
}

impl Machine {
    /// Returns the state of the link at this time.
    pub fn link_state(&self, now: Timestamp) -> LinkState {
        if self.is_draining() {
            return LinkState::Draining;
        }
        match &self.link {
            LinkPhase::Open(_) => LinkState::Ready,
            LinkPhase::Connecting { .. } => LinkState::Connecting,
            _ if self.buffer.record.blocked_until.is_some_and(|until| now < until) => LinkState::Blocked,
            LinkPhase::Waiting { .. } => LinkState::BackingOff,
            LinkPhase::Cold => LinkState::Cold,
        }
    }

    pub(super) fn on_connected(&mut self, now: Timestamp) {
        let LinkPhase::Connecting { mode, request, context } = self.link else { return };
        let is_known = self.buffer.record.connected_at.is_some();
        if !self.session_lives(now) {
            // Its end was missed, and with it that of the agent.
            self.buffer.record.session_id = None;
            if mode != ConnectMode::StartNewResumeAgent {
                self.on_agent_gone();
            }
        }
        // An open socket does not prove a session.
        if mode != ConnectMode::Reconnect || self.session_lives(now) {
            self.buffer.record.connected_at = Some(now);
        }
        let may_welcome = mode != ConnectMode::Reconnect && !self.bot.welcome.is_zero();
        let greets_turn = self.connect_turn().is_some();
        self.link = LinkPhase::Open(OpenSocket {
            since: now,
            after_gap: is_known || self.backfill.is_some(),
            resumes_agent: mode == ConnectMode::StartNewResumeAgent,
            greets_turn,
            alive: KeepAlive::new(self.bot.ping_interval, now),
            hold: may_welcome.then(|| now + self.bot.welcome.min(MAX_HOLD)),
        });
        self.refusal = None;
        self.last_failure = None;
        self.buffer.record.blocked_until = None;
        self.buffer.record.context = context;
        if request.is_some() {
            self.buffer.record.session_done = request;
            if mode == ConnectMode::StartNew {
                self.on_agent_gone();
            }
        }
        if let Some(backfill) = &mut self.backfill {
            backfill.on_connected(now);
        }
        if self.keep_until.is_none() {
            self.on_activity(now);
        }
    }

    pub(super) fn on_connect_failed(
        &mut self,
        now: Timestamp,
        failure: ConnectFailure,
        effects: &mut Vec<Effect>,
    ) {
        match failure {
            ConnectFailure::Rejected(words) => {
                let detail = format!("the platform refused the bridge: {words}");
                let problem = Problem::new(ProblemKind::PlatformRejected, detail);
                self.refusal = Some((problem, now + REFUSAL_TTL));
                self.link = self.wait(now, REFUSAL_TTL);
                if self.turn.as_ref().is_some_and(|turn| turn.is_open() && !turn.is_proved()) {
                    // No later link can prove the receipt.
                    self.resolve_unproved(now, effects);
                }
            }
            ConnectFailure::Unavailable { words, retry_after } => {
                self.last_failure = Some(words);
                self.link = self.wait(now, retry_after.unwrap_or_default());
            }
            // The link stays wanted. It is made as soon as the lease is valid.
            ConnectFailure::Withheld => self.link = LinkPhase::Waiting { until: now },
        }
    }

    pub(super) fn on_heard(&mut self, now: Timestamp) {
        if let LinkPhase::Open(socket) = &mut self.link {
            socket.alive.heard(now);
        }
    }

    /// Extends the hold of the first message after a frame, or ends it if the session continues.
    pub(super) fn on_welcome(&mut self, now: Timestamp, session_continues: bool) {
        let welcome = self.bot.welcome;
        if let LinkPhase::Open(socket) = &mut self.link
            && socket.hold.is_some_and(|until| now < until)
        {
            socket.hold =
                if session_continues { None } else { Some((now + welcome).min(socket.since + MAX_HOLD)) };
        }
    }

    pub(super) fn on_lost(&mut self, now: Timestamp, loss: SocketLoss, effects: &mut Vec<Effect>) {
        let LinkPhase::Open(socket) = &self.link else { return };
        if now.since(socket.since) >= STABLE {
            self.backoff.reset();
        }
        self.streams.on_lost();
        let lived = self.buffer.record.connected_at.is_some();
        self.on_gap(if lived { GapCause::Lost } else { GapCause::Away });
        let close = CloseReason::of(loss);
        let least = if close == CloseReason::WithoutCode { TAKEOVER_DELAY } else { Duration::ZERO };
        self.link = self.wait(now, least);
        if close == CloseReason::Regular && self.lane.is_empty() {
            self.release_link();
        }
        if close == CloseReason::Blocked {
            let wait = BLOCK.saturating_mul(1 << self.blocks.min(8)).min(MAX_BLOCK);
            self.blocks = self.blocks.saturating_add(1);
            self.buffer.record.blocked_until = Some(now + wait);
            self.buffer.touch(now);
        }
        if self.on_lost_during_session_end(now, loss, effects) {
            return;
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase == TurnPhase::Sending) {
            // No byte of it was written.
            turn.phase = TurnPhase::Ready;
        }
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) else { return };
        let failure = match close {
            CloseReason::Unreadable => Some(Problem::new(
                ProblemKind::PlatformRejected,
                "the platform closed the connection with 1007: it could not read the message",
            )),
            CloseReason::Blocked => {
                let until = self.buffer.record.blocked_until.unwrap_or(now);
                Some(blocked(until.since(now)))
            }
            CloseReason::TooLarge => Some(Problem::new(
                ProblemKind::PayloadTooLarge,
                "the platform closed the connection with 1009: the message is larger than it takes",
            )),
            CloseReason::Regular | CloseReason::WithoutCode | CloseReason::Broken => None,
        };
        if let Some(problem) = failure {
            self.end_turn(now, TurnOutcome::Failed(problem), effects);
            return;
        }
        turn.on_lost();
        if !turn.is_proved() && !self.bot.history {
            self.resolve_unproved(now, effects);
        }
    }

    /// Sends pings, and abandons a dead peer or a socket whose frames find no room. Without a valid lease the socket
    /// stays silent, and the silence of its peer does not count.
    pub(super) fn tend_socket(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let LinkPhase::Open(socket) = &mut self.link else { return };
        socket.hold = socket.hold.filter(|&until| now < until);
        if self.buffer.is_full() {
            effects.push(Effect::Abandon(AbandonReason::Backlog));
            self.on_lost(now, SocketLoss::GONE, effects);
        } else if self.lease_valid && socket.alive.is_dead(now) {
            effects.push(Effect::Abandon(AbandonReason::Silent));
            self.on_lost(now, SocketLoss::GONE, effects);
        } else if self.lease_valid && socket.alive.ping_due(now) {
            effects.push(Effect::Ping);
        }
    }

    pub(super) fn tend_link(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let wanted = self.is_link_wanted(now);
        if matches!(self.link, LinkPhase::Open(_)) {
            let renewed = self.turn.is_none()
                && !self.buffer.is_in_doubt()
                && self.lane.front().is_some_and(|head| self.requested_session(head, now).is_some());
            if wanted && (self.is_draining() || !renewed) {
                return;
            }
            self.link = LinkPhase::Cold;
            effects.push(Effect::Close(1000));
            self.cut_streams(now, false, effects);
            self.on_gap(GapCause::Away);
        }
        match self.link {
            LinkPhase::Waiting { .. } | LinkPhase::Cold if !wanted => {
                self.link = LinkPhase::Cold;
                self.cut_streams(now, false, effects);
            }
            LinkPhase::Connecting { .. } if !wanted => {
                self.link = LinkPhase::Cold;
                effects.push(Effect::Abandon(AbandonReason::Unwanted));
                self.cut_streams(now, false, effects);
            }
            LinkPhase::Waiting { until, .. } if now < self.connect_at(until) => {}
            LinkPhase::Cold if now < self.connect_at(now) => {
                let until = self.connect_at(now);
                self.link = LinkPhase::Waiting { until };
            }
            // A connect waits for a valid lease, for the end of a doubt, and for room in the write buffer. The conversation
            // stays in memory.
            LinkPhase::Waiting { .. } if !self.may_connect() => {}
            LinkPhase::Cold if !self.may_connect() => self.link = LinkPhase::Waiting { until: now },
            LinkPhase::Waiting { .. } | LinkPhase::Cold => {
                let (connect, request) = self.next_connect(now);
                let SocketRequest { mode, context, .. } = connect;
                self.link = LinkPhase::Connecting { mode, request, context };
                effects.push(Effect::Connect(connect));
            }
            LinkPhase::Connecting { .. } | LinkPhase::Open(_) => {}
        }
    }

    /// Returns the reason for which an unsent message waits, for its caller.
    pub(super) fn waiting_for(&self) -> &'static str {
        match &self.link {
            _ if !self.lease_valid => "the bridge could not reach its store to make sure that it may send",
            _ if self.buffer.is_in_doubt() => "the store lost data, and the bridge had not read the rest",
            _ if self.buffer.is_full() => "the bridge could not reach its store, and too much waits for it",
            LinkPhase::Open(_) => "the connection was open, but the bot might still have sent a greeting",
            LinkPhase::Connecting { .. } => {
                "connecting took too long, or its turn within connects_per_minute did not come"
            }
            LinkPhase::Waiting { .. } => "the connection was lost, and the reconnect waited for its backoff",
            LinkPhase::Cold => "no connection was ready",
        }
    }

    /// Returns whether a message may be sent over the link now.
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        let open =
            matches!(&self.link, LinkPhase::Open(socket) if socket.hold.is_none_or(|until| now >= until));
        open && self.lease_valid && !self.buffer.is_in_doubt()
    }

    /// Returns whether a connect may begin. In doubt the store may have lost the message that asks for it.
    pub(super) fn may_connect(&self) -> bool {
        self.lease_valid && !self.buffer.is_full() && !self.buffer.is_in_doubt()
    }

    /// Returns whether the connection is so fresh that the first message is held.
    pub(super) fn is_held(&self, now: Timestamp) -> bool {
        matches!(&self.link, LinkPhase::Open(socket) if socket.hold.is_some_and(|until| now < until))
    }

    /// Returns whether the connection may still tell of the session before.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        matches!(&self.link, LinkPhase::Open(socket) if now < socket.since + MAX_HOLD)
    }

    /// Returns whether the bot may be greeting, and no message asked for it.
    pub(super) fn may_greet(&self, now: Timestamp) -> bool {
        self.is_held(now) && !matches!(&self.link, LinkPhase::Open(socket) if socket.greets_turn)
    }

    /// Returns the session that this message requests, unless it is started already.
    pub(super) fn requested_session(&self, message: &AcceptedMessage, now: Timestamp) -> Option<ConnectMode> {
        if self.buffer.record.session_done == Some(message.id) {
            return None;
        }
        match message.new.session {
            SessionRequest::Continue if message.new.is_connect() && !self.session_lives(now) => {
                Some(ConnectMode::Default)
            }
            SessionRequest::Continue | SessionRequest::Close | SessionRequest::Erase => None,
            SessionRequest::New => Some(ConnectMode::StartNew),
            SessionRequest::NewKeepAgent => Some(ConnectMode::StartNewResumeAgent),
        }
    }

    pub(super) fn link_wake_at(&self) -> Option<Timestamp> {
        match &self.link {
            LinkPhase::Connecting { .. } if self.lane.is_empty() && !self.send_at_accept_pending => {
                self.keep_until
            }
            LinkPhase::Cold | LinkPhase::Connecting { .. } => None,
            // An input tells the machine when it may connect again.
            LinkPhase::Waiting { .. } if !self.may_connect() => None,
            LinkPhase::Waiting { until, .. } => Some(self.connect_at(*until)),
            LinkPhase::Open(socket) => {
                let idle =
                    if self.lane.is_empty() && !self.send_at_accept_pending { self.keep_until } else { None };
                let hold = if self.lane.is_empty() { None } else { socket.hold };
                let alive = self.lease_valid.then(|| socket.alive.wake_at());
                [alive, idle, hold, self.warm_wake_at()].into_iter().flatten().min()
            }
        }
    }

    fn is_link_wanted(&self, now: Timestamp) -> bool {
        if self.is_session_ended() {
            return false;
        }
        if self.is_draining() {
            return self.send_at_accept_pending
                || self.turn.as_ref().is_some_and(|turn| turn.phase != TurnPhase::Ending);
        }
        self.send_at_accept_pending
            || !self.lane.is_empty()
            || self.keep_until.is_some_and(|until| now < until)
    }

    /// Returns the mode of the next connect, and the message whose session request it carries out.
    pub(super) fn mode(&self, now: Timestamp) -> (ConnectMode, Option<MessageId>) {
        if self.turn.is_none()
            && let Some(head) = self.lane.front()
            && let Some(mode) = self.requested_session(head, now)
        {
            return (mode, Some(head.id));
        }
        let unasked = self.lane.is_empty() && !self.send_at_accept_pending && self.keeps_link();
        let mode =
            if unasked || self.session_lives(now) { ConnectMode::Reconnect } else { ConnectMode::Default };
        (mode, None)
    }

    /// Returns whether the platform should still have our session.
    pub(super) fn session_lives(&self, now: Timestamp) -> bool {
        self.buffer.record.connected_at.is_some_and(|at| now < at + self.bot.session_timeout)
    }

    /// Returns the start of a connect that is due at `at`. It waits while the platform blocks or refuses the bridge.
    pub(super) fn connect_at(&self, at: Timestamp) -> Timestamp {
        let refused_until = self.refusal.as_ref().map(|(_, until)| *until);
        [self.buffer.record.blocked_until, refused_until].into_iter().flatten().fold(at, Timestamp::max)
    }

    fn wait(&mut self, now: Timestamp, least: Duration) -> LinkPhase {
        let draw = self.random.f64();
        LinkPhase::Waiting { until: now + least + self.backoff.next(draw) }
    }
}
