//! What arrives: frames of the platform, and what they belong to.

use std::sync::Arc;

use super::super::input::{Effect, OutOfTurnReply};
use super::super::outbox;
use super::super::stream::{Begun, Joined, Place};
use super::Machine;
use super::socket::Link;
use crate::domain::{Correlation, EndedBy, EntryBody, Fingerprint, MessageId, Reply, Timestamp};
use crate::rtm::{BotResponse, IncomingFrame};
use crate::store::ConversationChange;

/// What a reply is joined to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
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
            // A pong shows that the socket lives, not that the session does.
            if let Some(at) = &mut self.ledger.record.connected_at {
                *at = now;
            }
        }
        match frame {
            IncomingFrame::Ack { reply_to } => self.on_ack(now, reply_to),
            IncomingFrame::Response(response) => self.on_response(now, response, effects),
            IncomingFrame::Active { session_id, .. } => {
                self.ledger.record.connected_at = Some(now);
                self.on_session(session_id);
            }
            IncomingFrame::SessionStart { session_id, event } => {
                self.ledger.record.connected_at = Some(now);
                self.on_session(session_id);
                // A new session begins with the bot.
                self.ledger.record.agent &= matches!(&self.link, Link::Open(socket) if socket.resumes_agent);
                self.ledger.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::SessionEnd(event) => {
                self.ledger.record.connected_at = None;
                self.ledger.record.session_id = None;
                self.ledger.record.agent = false;
                self.ledger.append(now, EntryBody::Platform(event));
                self.on_session_end(now);
            }
            IncomingFrame::WaitingForInput => self.on_signal(now, EndedBy::InputWait),
            IncomingFrame::AgentStart(event) => {
                self.ledger.append(now, EntryBody::Platform(event));
                if !std::mem::replace(&mut self.ledger.record.agent, true) {
                    self.on_signal(now, EndedBy::Agent);
                }
            }
            IncomingFrame::AgentEnd(event) => {
                self.ledger.record.agent = false;
                self.ledger.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::UserMessage(event) => self.ledger.append(now, EntryBody::UserMessage(event)),
            IncomingFrame::Platform(event) | IncomingFrame::Unknown(event) => {
                self.ledger.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::Pong | IncomingFrame::Typing | IncomingFrame::Malformed => {}
        }
    }

    fn on_session(&mut self, session_id: Option<Box<str>>) {
        if session_id.is_some() {
            self.ledger.record.session_id = session_id;
        }
    }

    fn on_session_end(&mut self, now: Timestamp) {
        match self.turn.as_mut().filter(|turn| turn.is_open() && turn.closes()) {
            Some(turn) => turn.on_closed(now),
            None => self.on_signal(now, EndedBy::SessionEnd),
        }
    }

    fn on_signal(&mut self, now: Timestamp, by: EndedBy) {
        if self.may_greet(now) {
            // A greeting that waits for an answer says nothing of the turn that was open before.
            return;
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open() && !turn.closes()) {
            turn.on_signal(by, now);
        }
    }

    fn on_ack(&mut self, now: Timestamp, reply_to: Option<u64>) {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) else { return };
        if reply_to == Some(turn.message.client_message_id) && turn.progress.acked_at.is_none() {
            turn.progress.acked_at = Some(now);
            let message = turn.message.id;
            self.ledger.push(ConversationChange::Acked { message, at: now });
        }
    }

    fn on_response(&mut self, now: Timestamp, mut response: Box<BotResponse>, effects: &mut Vec<Effect>) {
        self.on_session(response.session_id.take());
        if response.message_id.as_deref().is_some_and(|id| self.seen.contains(id)) {
            effects.push(Effect::Aside(OutOfTurnReply::Duplicate));
            return;
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_echoed(response.correlation_id)) {
            turn.on_echo();
        }
        let begun = self.begun(now, response.correlation_id);
        match self.streams.join(response, begun) {
            Joined::Whole { response, begun, chunk } => {
                effects.extend(chunk.map(|chunk| Effect::Chunk(Arc::new(chunk))));
                self.on_newest(response.message_id.as_deref(), response.created_on);
                self.take_reply(now, *response, begun, None, effects);
            }
            Joined::Growing { in_turn, orphan, chunk } => {
                effects.push(Effect::Chunk(Arc::new(chunk)));
                if in_turn && let Some(turn) = &mut self.turn {
                    if turn.progress.first_reply_at.is_none() {
                        let message = turn.message.id;
                        self.ledger.push(ConversationChange::Answering { message, at: now });
                    }
                    turn.on_reply_begun(now);
                }
                if let Some((orphan, begun)) = orphan {
                    self.on_unfinished(orphan.message_id.as_deref());
                    self.take_reply(now, orphan, begun, None, effects);
                }
            }
        }
    }

    /// What begins now belongs to the open turn, if there is one and neither the bot is greeting nor a person speaks;
    /// where the bot says what it answers, that counts and nothing else.
    fn begun(&self, now: Timestamp, echoes: Option<u64>) -> Begun {
        let turn = self.turn.as_ref().filter(|turn| turn.is_open() && !turn.closes());
        let place = if turn.is_some_and(|turn| turn.is_echoed(echoes)) {
            Place::Turn
        } else if self.may_greet(now) {
            Place::Greeting
        } else if turn.is_some() && echoes.is_none() && !self.is_with_agent() {
            Place::Turn
        } else {
            Place::Silence
        };
        Begun { at: now, place }
    }

    /// Streams whose end will not come are replies as far as they came: those of the turn that ends, or those
    /// that began outside of it on a socket that is gone.
    pub(super) fn cut_streams(&mut self, now: Timestamp, in_turn: bool, effects: &mut Vec<Effect>) {
        for (response, begun) in self.streams.cut(in_turn) {
            self.on_unfinished(response.message_id.as_deref());
            self.take_reply(now, response, begun, None, effects);
        }
    }

    /// Takes a whole reply: joins it to what it belongs to and journals it. `found` says what that is where it comes
    /// from history.
    pub(super) fn take_reply(
        &mut self,
        now: Timestamp,
        response: BotResponse,
        begun: Begun,
        found: Option<Owner>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(id) = &response.message_id {
            let fingerprint = Fingerprint::of(id);
            self.seen.insert(fingerprint);
            let record = &mut self.ledger.record;
            // A new owner reads from the last message that the record names, and has to know what came since.
            let is_last = record.last_platform_message.as_ref().is_none_or(|last| last == id);
            record.recent.push(fingerprint, self.backfill.is_some() || !is_last);
        }
        let owner = found.unwrap_or_else(|| self.owner(begun, response.correlation_id));
        let more_follows = response.more_follows;
        let reply = Arc::new(Reply {
            seq: self.ledger.next_seq(),
            message_id: response.message_id,
            in_reply_to: owner.message,
            correlation: owner.correlation,
            late: owner.late,
            text: response.text,
            agent: response.agent,
            created_on: response.created_on,
            event: response.event,
        });
        self.ledger.append(now, EntryBody::Reply(Arc::clone(&reply)));
        let (last, place) = (self.ledger.record.last_turn.as_ref(), self.ledger.place());
        let delivery = outbox::of_reply(&self.bot, &self.conversation, &reply, last, place, now);
        self.ledger.deliver(delivery);
        match (owner.message, owner.late) {
            (None, _) => effects.push(Effect::Aside(OutOfTurnReply::Unsolicited)),
            (Some(_), true) => effects.push(Effect::Aside(OutOfTurnReply::Late)),
            (Some(_), false) => {
                if let Some(turn) = &mut self.turn {
                    turn.on_reply(reply, more_follows, now);
                }
            }
        }
        self.on_activity(now);
    }

    /// What a reply belongs to that began then (api.md 1, "Reply").
    pub(super) fn owner(&self, begun: Begun, echoes: Option<u64>) -> Owner {
        let correlation = Correlation::Window;
        let last = self.ledger.record.last_turn.as_ref();
        let exact = |message, late| Owner { message: Some(message), correlation: Correlation::Exact, late };
        if let Some(turn) = self.turn.as_ref().filter(|turn| turn.is_echoed(echoes)) {
            return exact(turn.message.id, false);
        }
        if let Some(last) = last.filter(|last| last.is_echoed(echoes)) {
            return exact(last.message, true);
        }
        if begun.in_turn()
            && !self.is_with_agent()
            && let Some(turn) = &self.turn
        {
            return Owner { message: Some(turn.message.id), correlation, late: false };
        }
        // It answers another message: an older one, or one of another client of the same user. Where an earlier version
        // ended the last turn it may be that one.
        let knows_last = last.is_some_and(|last| last.client_message_id.is_some());
        let is_of_another = echoes.is_some() && (knows_last || self.turn.is_some());
        match last {
            Some(last)
                if begun.place != Place::Greeting
                    && !is_of_another
                    && !self.ledger.record.agent
                    && last.ended_at <= begun.at
                    && begun.at < last.ended_at + self.bot.late_window =>
            {
                Owner { message: Some(last.message), correlation, late: true }
            }
            _ => Owner { message: None, correlation: Correlation::Unsolicited, late: false },
        }
    }

    /// Whether a human agent has the conversation, and did when the open turn began.
    pub(super) fn is_with_agent(&self) -> bool {
        self.ledger.record.agent && !self.turn.as_ref().is_some_and(|turn| turn.is_handed_over())
    }
}
