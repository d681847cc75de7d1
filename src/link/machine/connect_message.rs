//! Messages that only connect (api.md 1, `event`): the bridge opens a link, sends no frame, and the bot speaks first.
//!
//! Such a message waits in the lane like any other. As the head it asks for a connection: one with a new session, or
//! one on which a running session continues. Its turn begins when that socket opens, before any frame of it, so the
//! greeting belongs to the turn. A running session stays silent, so the turn of a message that continues one ends at
//! once.
//!
//! A crash before the begin of the turn is stored has the next owner connect once more. Afterwards the message counts
//! as received, and the next owner finds the greeting in history.

use std::sync::Arc;

use super::super::input::{Effect, SocketRequest};
use super::super::turn::Turn;
use super::Machine;
use super::link_phase::LinkPhase;
use crate::domain::{AcceptedMessage, EndedBy, MessageId, SessionRequest, Timestamp, TurnOutcome};
use crate::rtm::ConnectMode;
use crate::store::ConversationChange;

impl Machine {
    /// Carries out a head that only connects. Returns false for other heads.
    pub(super) fn tend_connect_message(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let Some(head) = self.lane.front().filter(|head| head.new.is_connect()).map(Arc::clone) else {
            return false;
        };
        if self.turn.is_some() || self.is_draining() {
            return true;
        }
        let is_open = matches!(self.link, LinkPhase::Open(_));
        // The greeting comes at once. A session that runs can wait until the store is known to have the message.
        let may_begin = self.began_session(head.id) || !self.buffer.is_in_doubt();
        if let Some(problem) = self.send_problem(now, self.send_by(&head)) {
            self.fail_head(now, problem, effects);
        } else if is_open && may_begin && self.requested_session(&head, now).is_none() {
            self.begin_connect_turn(now, head, effects);
        }
        true
    }

    fn begin_connect_turn(
        &mut self,
        now: Timestamp,
        message: Arc<AcceptedMessage>,
        effects: &mut Vec<Effect>,
    ) {
        // Another message, or none, opened the connection of a session that runs.
        let is_running = !self.began_session(message.id);
        self.buffer.push(ConversationChange::Sent { message: message.id, at: now });
        let mut turn = Turn::begin_connect(message, &self.bot, self.head.since(), now);
        turn.learn(self.rhythm.of_turn());
        self.turn = Some(Box::new(turn));
        self.on_activity(now);
        if let LinkPhase::Open(socket) = &mut self.link {
            socket.greets_turn = !is_running;
        }
        self.tend_turn(now, effects);
        if is_running {
            self.end_silent(now, effects);
        }
    }

    /// Returns whether the session was begun for this message.
    fn began_session(&self, id: MessageId) -> bool {
        self.buffer.record.session_done == Some(id)
    }

    /// Notes that the platform continues a running session on the new connection. No greeting comes.
    pub(super) fn on_session_continues(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let continues = |turn: &Turn| turn.message.new.session == SessionRequest::Continue;
        if self.connect_turn().is_some_and(continues) {
            self.end_silent(now, effects);
        }
    }

    /// Returns the open turn of a message that only connects, as long as the bot has not spoken.
    pub(super) fn connect_turn(&self) -> Option<&Turn> {
        let turn = self.turn.as_deref().filter(|turn| turn.is_open() && turn.is_connect())?;
        turn.progress.first_reply_at.is_none().then_some(turn)
    }

    fn end_silent(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.connect_turn().is_some() {
            self.end_turn(now, TurnOutcome::Answered(EndedBy::Silence), effects);
        }
    }

    /// Returns the next connect with its context, and the message whose request for a session it carries out.
    ///
    /// The context comes from the message that opens the connection. Otherwise a session keeps the one that it has.
    pub(super) fn next_connect(&self, now: Timestamp) -> (SocketRequest, Option<MessageId>) {
        let (mode, request) = self.mode(now);
        let opener = self.lane.front().map(Arc::clone);
        let own = opener.as_ref().filter(|opener| opener.new.content.has_context()).map(|opener| opener.id);
        let kept = self.buffer.record.context.filter(|_| mode == ConnectMode::Reconnect);
        (SocketRequest { mode, opener, context: own.or(kept) }, request)
    }
}
