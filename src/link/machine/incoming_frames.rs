//! The platform's frames, and the turns that they belong to.

use std::sync::Arc;

use super::super::input::{Effect, OutOfTurnReply};
use super::super::new_deliveries;
use super::super::open_streams::{ReplyContext, ReplyStart, StreamUpdate};
use super::Machine;
use super::link_phase::LinkPhase;
use crate::domain::{Correlation, EndedBy, EntryBody, Fingerprint, MessageId, Reply, Timestamp};
use crate::rtm::{BotResponse, IncomingFrame};
use crate::store::ConversationChange;

#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyOwner {
    pub(super) message: Option<MessageId>,
    pub(super) correlation: Correlation,
    pub(super) late: bool,
}

impl Machine {
    pub(super) fn on_frame(&mut self, now: Timestamp, frame: IncomingFrame, effects: &mut Vec<Effect>) {
        self.on_heard(now);
        let session_continues = matches!(&frame, IncomingFrame::Active { session_continues: true, .. });
        if !matches!(frame, IncomingFrame::Pong | IncomingFrame::Malformed) {
            self.on_welcome(now, session_continues);
            // A pong proves the socket, not the session.
            if let Some(at) = &mut self.buffer.record.connected_at {
                *at = now;
            }
        }
        match frame {
            IncomingFrame::Ack { reply_to } => self.on_ack(now, reply_to),
            IncomingFrame::Response(response) => self.on_response(now, response, effects),
            IncomingFrame::Active { session_id, .. } => {
                self.buffer.record.connected_at = Some(now);
                self.on_session(now, session_id);
            }
            IncomingFrame::SessionStart { session_id, event } => {
                self.buffer.record.connected_at = Some(now);
                self.buffer.record.session_id = session_id;
                // A new session begins with the bot.
                if !matches!(&self.link, LinkPhase::Open(socket) if socket.resumes_agent) {
                    self.on_agent_gone();
                }
                self.buffer.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::SessionEnd(event) => {
                self.buffer.record.connected_at = None;
                self.buffer.record.session_id = None;
                self.on_agent_gone();
                self.buffer.append(now, EntryBody::Platform(event));
                self.on_session_end(now);
            }
            IncomingFrame::WaitingForInput => {
                self.on_bot_sign(now);
                self.on_signal(now, EndedBy::InputWait);
            }
            IncomingFrame::AgentStart(event) => {
                self.on_agent_sign();
                self.buffer.append(now, EntryBody::Platform(event));
                if !std::mem::replace(&mut self.buffer.record.agent, true) {
                    self.on_signal(now, EndedBy::Agent);
                }
            }
            IncomingFrame::AgentEnd(event) => {
                self.on_agent_gone();
                self.buffer.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::UserMessage(event) => self.buffer.append(now, EntryBody::UserMessage(event)),
            IncomingFrame::Platform(event) | IncomingFrame::Unknown(event) => {
                self.buffer.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::Typing => self.on_agent_sign(),
            IncomingFrame::Pong | IncomingFrame::Malformed => {}
        }
    }

    fn on_session_end(&mut self, now: Timestamp) {
        match self.turn.as_mut().filter(|turn| turn.is_open() && turn.ends_session()) {
            Some(turn) => turn.on_session_ended(now),
            None => self.on_signal(now, EndedBy::SessionEnd),
        }
    }

    fn on_signal(&mut self, now: Timestamp, by: EndedBy) {
        if self.may_greet(now) {
            // A greeting that waits for an answer does not end the turn that was open before.
            return;
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open() && !turn.ends_session()) {
            turn.on_signal(by, now);
        }
    }

    fn on_ack(&mut self, now: Timestamp, reply_to: Option<u64>) {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) else { return };
        if reply_to == Some(turn.message.client_message_id) && turn.progress.acked_at.is_none() {
            turn.progress.acked_at = Some(now);
            let message = turn.message.id;
            self.buffer.push(ConversationChange::Acked { message, at: now });
        }
    }

    fn on_response(&mut self, now: Timestamp, mut response: Box<BotResponse>, effects: &mut Vec<Effect>) {
        self.on_session(now, response.session_id.take());
        if response.message_id.as_deref().is_some_and(|id| self.dedup.contains(id)) {
            effects.push(Effect::OutOfTurn(OutOfTurnReply::Duplicate));
            return;
        }
        self.on_speaker(now, &response);
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_echoed(response.correlation_id)) {
            turn.on_echo();
        }
        let start = self.reply_start(now, response.correlation_id);
        match self.streams.join(response, start) {
            StreamUpdate::Complete { response, start, chunk } => {
                effects.extend(chunk.map(|chunk| Effect::Chunk(Arc::new(chunk))));
                let said_at = response.created_on.and_then(|at| self.platform_clock.observe(at, now));
                if said_at.is_none() && response.created_on.is_some() {
                    effects.push(Effect::FarOffTime);
                }
                if !response.is_blank {
                    self.on_newest(response.message_id.as_deref(), said_at);
                }
                self.take_reply(now, *response, start, None, effects);
            }
            StreamUpdate::Partial { begins, orphan, chunk } => {
                effects.push(Effect::Chunk(Arc::new(chunk)));
                if begins && let Some(turn) = &mut self.turn {
                    if turn.progress.first_reply_at.is_none() {
                        let message = turn.message.id;
                        self.buffer.push(ConversationChange::Answering { message, at: now });
                    }
                    turn.on_reply_begun(now);
                }
                if let Some((orphan, start)) = orphan {
                    self.on_unfinished(orphan.message_id.as_deref());
                    self.take_reply(now, orphan, start, None, effects);
                }
            }
        }
    }

    /// Returns the start of a reply that begins now. A bot that tells the answered message decides alone. Otherwise
    /// the reply belongs to the open turn, unless the bot may be greeting or an agent speaks.
    fn reply_start(&self, now: Timestamp, echoes: Option<u64>) -> ReplyStart {
        let turn = self.turn.as_ref().filter(|turn| turn.is_open() && !turn.ends_session());
        let context = if turn.is_some_and(|turn| turn.is_echoed(echoes)) {
            ReplyContext::Turn
        } else if self.may_greet(now) {
            ReplyContext::Greeting
        } else if turn.is_some() && echoes.is_none() && !self.is_with_agent() {
            ReplyContext::Turn
        } else {
            ReplyContext::Silence
        };
        ReplyStart { at: now, context }
    }

    /// Turns streams without an end into replies: those of the ending turn, or those outside it whose socket is gone.
    pub(super) fn cut_streams(&mut self, now: Timestamp, in_turn: bool, effects: &mut Vec<Effect>) {
        for (response, start) in self.streams.cut(in_turn) {
            self.on_unfinished(response.message_id.as_deref());
            self.take_reply(now, response, start, None, effects);
        }
    }

    /// Journals a whole reply and joins it to its message. `found` is the message for a reply from history. A blank
    /// response is journaled as an event of the platform, because it answers nothing.
    pub(super) fn take_reply(
        &mut self,
        now: Timestamp,
        response: BotResponse,
        start: ReplyStart,
        found: Option<ReplyOwner>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(id) = &response.message_id {
            let fingerprint = Fingerprint::of(id);
            self.dedup.insert(fingerprint);
            let record = &mut self.buffer.record;
            // A new owner reads behind the last message of the record and needs the newer ids.
            let is_last = record.last_platform_message.as_ref().is_none_or(|last| last == id);
            record.recent.push(fingerprint, self.backfill.is_some() || !is_last);
        }
        if response.is_blank {
            self.buffer.append(now, EntryBody::Platform(response.event));
            if response.more_follows
                && start.in_turn()
                && let Some(turn) = &mut self.turn
            {
                turn.on_announced(now);
            }
            return;
        }
        let owner = found.unwrap_or_else(|| self.owner(start, response.correlation_id));
        let more_follows = response.more_follows;
        let reply = Arc::new(Reply {
            seq: self.buffer.next_seq(),
            message_id: response.message_id,
            in_reply_to: owner.message,
            correlation: owner.correlation,
            late: owner.late,
            text: response.text,
            agent: response.agent,
            created_on: response.created_on,
            event: response.event,
        });
        self.buffer.append(now, EntryBody::Reply(Arc::clone(&reply)));
        let (last, place) = (self.buffer.record.last_turn.as_ref(), self.buffer.place());
        let delivery = new_deliveries::of_reply(&self.bot, &self.conversation, &reply, last, place, now);
        self.buffer.deliver(delivery);
        match (owner.message, owner.late) {
            (None, _) => effects.push(Effect::OutOfTurn(OutOfTurnReply::Unsolicited)),
            (Some(_), true) => effects.push(Effect::OutOfTurn(OutOfTurnReply::Late)),
            (Some(_), false) => {
                if let Some(turn) = &mut self.turn {
                    turn.on_reply(reply, more_follows, now);
                }
            }
        }
        self.on_activity(now);
    }

    /// Returns the message of a reply that began there (api.md 1, "Reply").
    pub(super) fn owner(&self, start: ReplyStart, echoes: Option<u64>) -> ReplyOwner {
        let correlation = Correlation::Window;
        let last = self.buffer.record.last_turn.as_ref();
        let exact =
            |message, late| ReplyOwner { message: Some(message), correlation: Correlation::Exact, late };
        if let Some(turn) = self.turn.as_ref().filter(|turn| turn.is_echoed(echoes)) {
            return exact(turn.message.id, false);
        }
        if let Some(last) = last.filter(|last| last.is_echoed(echoes)) {
            return exact(last.message, true);
        }
        if start.in_turn()
            && !self.is_with_agent()
            && let Some(turn) = &self.turn
        {
            return ReplyOwner { message: Some(turn.message.id), correlation, late: false };
        }
        // It answers an older message, or one of another client of the user. A record of an earlier version does not
        // tell the number of its last turn, so the reply may answer that turn.
        let knows_last = last.is_some_and(|last| last.client_message_id.is_some());
        let is_of_another = echoes.is_some() && (knows_last || self.turn.is_some());
        match last {
            Some(last)
                if start.context != ReplyContext::Greeting
                    && !is_of_another
                    && !self.buffer.record.agent
                    && last.ended_at <= start.at
                    && start.at < last.ended_at + self.bot.late_window =>
            {
                ReplyOwner { message: Some(last.message), correlation, late: true }
            }
            _ => ReplyOwner { message: None, correlation: Correlation::Unsolicited, late: false },
        }
    }
}
