//! The link's socket: connects, losses, keep-alive, idleness.

use std::time::Duration;

use super::super::backfill::GapCause;
use super::super::input::{AbandonReason, ConnectFailure, Effect, SocketLoss};
use super::super::keepalive::KeepAlive;
use super::super::turn::TurnPhase;
use super::lane::blocked;
use super::{Machine, REFUSAL_TTL};
use crate::domain::{
    AcceptedMessage, LinkState, MessageId, Problem, ProblemKind, SessionRequest, Timestamp, TurnOutcome,
};
use crate::rtm::ConnectMode;

/// A welcome may keep the first message back this long at most.
const MAX_HOLD: Duration = Duration::from_secs(3);
/// The platform must be left alone this long after a close with 1008 (protocol.md 5.5).
const BLOCK: Duration = Duration::from_mins(1);
/// And this long at most, however often it repeats itself.
const MAX_BLOCK: Duration = Duration::from_mins(15);
/// A close without a code may mean that another connection of the same user took over (protocol.md 5.5): two
/// bridges that reconnect at once would fight.
const REPLACED: Duration = Duration::from_secs(2);
/// A socket that lived this long was no failure: the backoff starts anew.
const STABLE: Duration = Duration::from_secs(30);
/// Connects that may fail in a row while nobody waits for the link.
const IDLE_ATTEMPTS: u8 = 3;

/// Where the link stands.
#[derive(Debug)]
pub(super) enum Link {
    /// No socket, and none wanted.
    Cold,
    /// A connect is under way.
    Connecting {
        mode: ConnectMode,
        /// The message whose wish for a new session it carries out.
        wish: Option<MessageId>,
    },
    /// The next connect waits for its time.
    Waiting { until: Timestamp },
    /// A socket is open.
    Open(OpenSocket),
}

#[derive(Debug)]
pub(super) struct OpenSocket {
    since: Timestamp,
    /// Whether a new session on it leaves the conversation with a human agent who has it.
    pub(super) resumes_agent: bool,
    pub(super) alive: KeepAlive,
    /// While a welcome may come: until when the first message is held if nothing more comes.
    hold: Option<Timestamp>,
}

impl Machine {
    /// Where the link stands at this time.
    pub fn link_state(&self, now: Timestamp) -> LinkState {
        if self.is_draining() {
            return LinkState::Draining;
        }
        match &self.link {
            Link::Open(_) => LinkState::Ready,
            Link::Connecting { .. } => LinkState::Connecting,
            _ if self.ledger.record.blocked_until.is_some_and(|until| now < until) => LinkState::Blocked,
            Link::Waiting { .. } => LinkState::BackingOff,
            Link::Cold => LinkState::Cold,
        }
    }

    pub(super) fn on_connected(&mut self, now: Timestamp) {
        let Link::Connecting { mode, wish, .. } = self.link else { return };
        // A socket alone shows no session.
        if mode != ConnectMode::Reconnect || self.session_lives(now) {
            self.ledger.record.connected_at = Some(now);
        }
        let may_welcome = mode != ConnectMode::Reconnect && !self.bot.welcome.is_zero();
        self.link = Link::Open(OpenSocket {
            since: now,
            resumes_agent: mode == ConnectMode::StartNewResumeAgent,
            alive: KeepAlive::new(self.bot.ping_interval, now),
            hold: may_welcome.then(|| now + self.bot.welcome.min(MAX_HOLD)),
        });
        self.refusal = None;
        self.last_failure = None;
        self.ledger.record.blocked_until = None;
        if wish.is_some() {
            self.ledger.record.session_done = wish;
            self.ledger.record.agent &= mode == ConnectMode::StartNewResumeAgent;
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
        let idle = self.lane.is_empty();
        match failure {
            ConnectFailure::Rejected(words) => {
                let detail = format!("the platform refused the bridge: {words}");
                let problem = Problem::new(ProblemKind::PlatformRejected, detail);
                self.refusal = Some((problem, now + REFUSAL_TTL));
                self.link = self.wait(now, REFUSAL_TTL);
                if idle {
                    self.give_up_link();
                }
                if self.turn.as_ref().is_some_and(|turn| turn.is_open() && !turn.is_proved()) {
                    // No link will come back to learn what became of the message.
                    self.resolve_unproved(now, effects);
                }
            }
            ConnectFailure::Unavailable { words, retry_after } => {
                self.last_failure = Some(words);
                self.link = self.wait(now, retry_after.unwrap_or_default());
                if idle && self.backoff.failures() >= IDLE_ATTEMPTS {
                    self.give_up_link();
                }
            }
            ConnectFailure::Withheld => self.link = Link::Cold,
        }
    }

    pub(super) fn on_heard(&mut self, now: Timestamp) {
        if let Link::Open(socket) = &mut self.link {
            socket.alive.heard(now);
        }
    }

    /// A frame came: the first message is held a little longer, or not at all.
    pub(super) fn on_welcome(&mut self, now: Timestamp, session_continues: bool) {
        let welcome = self.bot.welcome;
        if let Link::Open(socket) = &mut self.link
            && socket.hold.is_some_and(|until| now < until)
        {
            socket.hold =
                if session_continues { None } else { Some((now + welcome).min(socket.since + MAX_HOLD)) };
        }
    }

    pub(super) fn on_lost(&mut self, now: Timestamp, loss: SocketLoss, effects: &mut Vec<Effect>) {
        let Link::Open(socket) = &self.link else { return };
        if now.since(socket.since) >= STABLE {
            self.backoff.reset();
        }
        self.cut_streams(now, false, effects);
        let lived = self.ledger.record.connected_at.is_some();
        self.on_gap(if lived { GapCause::Lost } else { GapCause::Away });
        let least = if loss.code == 1005 { REPLACED } else { Duration::ZERO };
        self.link = self.wait(now, least);
        if loss.code == 1000 && self.lane.is_empty() {
            self.give_up_link();
        }
        if loss.code == 1008 {
            let wait = BLOCK.saturating_mul(1 << self.blocks.min(8)).min(MAX_BLOCK);
            self.blocks = self.blocks.saturating_add(1);
            self.ledger.record.blocked_until = Some(now + wait);
            self.ledger.touch(now);
        }
        if self.on_lost_closing(now, loss, effects) {
            return;
        }
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) else { return };
        let failure = match loss.code {
            1007 => Some(Problem::new(
                ProblemKind::PlatformRejected,
                "the platform closed the connection with 1007: it could not read the message",
            )),
            1008 => {
                let until = self.ledger.record.blocked_until.unwrap_or(now);
                Some(blocked(until.since(now)))
            }
            1009 => Some(Problem::new(
                ProblemKind::PayloadTooLarge,
                "the platform closed the connection with 1009: the message is larger than it takes",
            )),
            _ => None,
        };
        if let Some(problem) = failure {
            self.end_turn(now, TurnOutcome::Failed(problem), effects);
            return;
        }
        turn.phase = TurnPhase::Broken;
        if !turn.is_proved() && !self.bot.history {
            self.resolve_unproved(now, effects);
        }
    }

    /// Pings, gives a dead peer up, and one whose words find no room any more. While the lease is not sure the
    /// socket is silent, and its peer is not asked whether it lives.
    pub(super) fn tend_socket(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Link::Open(socket) = &mut self.link else { return };
        socket.hold = socket.hold.filter(|&until| now < until);
        if self.ledger.is_full() {
            effects.push(Effect::Abandon(AbandonReason::Backlog));
            self.on_lost(now, SocketLoss::GONE, effects);
        } else if self.sure && socket.alive.is_dead(now) {
            effects.push(Effect::Abandon(AbandonReason::Silent));
            self.on_lost(now, SocketLoss::GONE, effects);
        } else if self.sure && socket.alive.ping_due(now) {
            effects.push(Effect::Ping);
        }
    }

    /// Opens a link that is wanted, closes one that is not.
    pub(super) fn tend_link(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let wanted = self.is_link_wanted(now);
        if matches!(self.link, Link::Open(_)) {
            let renewed =
                self.turn.is_none() && self.lane.front().is_some_and(|head| self.wish(head).is_some());
            if wanted && (self.is_draining() || !renewed) {
                return;
            }
            self.link = Link::Cold;
            effects.push(Effect::Close(1000));
            self.cut_streams(now, false, effects);
            self.on_gap(GapCause::Away);
        }
        match self.link {
            Link::Waiting { .. } | Link::Cold if !wanted => self.link = Link::Cold,
            Link::Connecting { .. } if !wanted => {
                self.link = Link::Cold;
                effects.push(Effect::Abandon(AbandonReason::Unwanted));
            }
            Link::Waiting { until, .. } if now < self.connect_at(until) => {}
            Link::Cold if now < self.connect_at(now) => {
                let until = self.connect_at(now);
                self.link = Link::Waiting { until };
            }
            // A connect waits for the lease, and for a store that can take what it would bring.
            Link::Waiting { .. } | Link::Cold if !self.may_connect() => {}
            Link::Waiting { .. } | Link::Cold => {
                let (mode, wish) = self.mode(now);
                self.link = Link::Connecting { mode, wish };
                effects.push(Effect::Connect(mode));
            }
            Link::Connecting { .. } | Link::Open(_) => {}
        }
    }

    /// What a message that is not sent waits for, for its caller.
    pub(super) const fn waiting_for(&self) -> &'static str {
        match &self.link {
            _ if !self.sure => "the bridge could not reach its store to make sure that it may send",
            Link::Open(_) => "the connection was open, but a greeting of the bot was still awaited",
            Link::Connecting { .. } => {
                "connecting took too long, or its turn within connects_per_minute did not come"
            }
            Link::Waiting { .. } => "the connection was lost and the next one waited for its time",
            Link::Cold => "no connection was ready",
        }
    }

    /// Whether a message may go out over the link now.
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        let open = matches!(&self.link, Link::Open(socket) if socket.hold.is_none_or(|until| now >= until));
        open && self.sure && !self.ledger.is_in_doubt()
    }

    const fn may_connect(&self) -> bool {
        self.sure && !self.ledger.is_full()
    }

    /// Whether the bot may be greeting: the connection is fresh, and the first message is held for it.
    pub(super) fn may_greet(&self, now: Timestamp) -> bool {
        matches!(&self.link, Link::Open(socket) if socket.hold.is_some_and(|until| now < until))
    }

    /// The session this message wants, where that is not yet carried out.
    pub(super) fn wish(&self, message: &AcceptedMessage) -> Option<ConnectMode> {
        if self.ledger.record.session_done == Some(message.id) {
            return None;
        }
        match message.new.session {
            SessionRequest::Continue | SessionRequest::Close => None,
            SessionRequest::New => Some(ConnectMode::StartNew),
            SessionRequest::NewKeepAgent => Some(ConnectMode::StartNewResumeAgent),
        }
    }

    /// When the link wants a look although nothing happens.
    pub(super) fn link_wake_at(&self) -> Option<Timestamp> {
        match &self.link {
            Link::Connecting { .. } if self.lane.is_empty() && !self.send_at_accept_pending => {
                self.keep_until
            }
            Link::Cold | Link::Connecting { .. } => None,
            // Whatever lets it connect again is told.
            Link::Waiting { .. } if !self.may_connect() => None,
            Link::Waiting { until, .. } => Some(self.connect_at(*until)),
            Link::Open(socket) => {
                let idle =
                    if self.lane.is_empty() && !self.send_at_accept_pending { self.keep_until } else { None };
                let hold = if self.lane.is_empty() { None } else { socket.hold };
                let alive = self.sure.then(|| socket.alive.wake_at());
                [alive, idle, hold, self.warm_wake_at()].into_iter().flatten().min()
            }
        }
    }

    fn is_link_wanted(&self, now: Timestamp) -> bool {
        if self.is_closed() {
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

    /// How the next connect has to be made, and whose wish for a new session it carries out.
    fn mode(&self, now: Timestamp) -> (ConnectMode, Option<MessageId>) {
        if self.turn.is_none()
            && let Some(head) = self.lane.front()
            && let Some(mode) = self.wish(head)
        {
            return (mode, Some(head.id));
        }
        let unasked = self.lane.is_empty() && !self.send_at_accept_pending && self.keeps_link();
        let mode =
            if unasked || self.session_lives(now) { ConnectMode::Reconnect } else { ConnectMode::Default };
        (mode, None)
    }

    /// Whether the platform should still have our session.
    pub(super) fn session_lives(&self, now: Timestamp) -> bool {
        self.ledger.record.connected_at.is_some_and(|at| now < at + self.bot.session_timeout)
    }

    /// When a connect that could begin at this time may: not while the platform has to be left alone.
    pub(super) fn connect_at(&self, at: Timestamp) -> Timestamp {
        let refused_until = self.refusal.as_ref().map(|(_, until)| *until);
        [self.ledger.record.blocked_until, refused_until].into_iter().flatten().fold(at, Timestamp::max)
    }

    fn wait(&mut self, now: Timestamp, least: Duration) -> Link {
        let draw = self.random.f64();
        Link::Waiting { until: now + least + self.backoff.next(draw) }
    }
}
