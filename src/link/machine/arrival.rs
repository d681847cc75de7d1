//! What arrives: frames of the platform, and what they belong to.

use std::sync::Arc;

use super::super::input::{Aside, Effect};
use super::super::stream::{Begun, Joined, Place};
use super::Machine;
use crate::domain::{Correlation, EndedBy, EntryBody, Fingerprint, MessageId, Reply, Timestamp};
use crate::rtm::{Incoming, Response};
use crate::store::Change;

/// What a reply is joined to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) message: Option<MessageId>,
    pub(super) correlation: Correlation,
    pub(super) late: bool,
}

impl Machine {
    pub(super) fn on_frame(&mut self, now: Timestamp, frame: Incoming, effects: &mut Vec<Effect>) {
        self.on_heard(now);
        let session_continues = matches!(&frame, Incoming::Active { session_continues: true, .. });
        if !matches!(frame, Incoming::Pong | Incoming::Malformed) {
            self.on_welcome(now, session_continues);
            // A pong shows that the socket lives, not that the session does.
            if let Some(at) = &mut self.ledger.record.connected_at {
                *at = now;
            }
        }
        match frame {
            Incoming::Ack { reply_to } => self.on_ack(now, reply_to),
            Incoming::Response(response) => self.on_response(now, response, effects),
            Incoming::Active { session_id, .. } | Incoming::SessionStart { session_id } => {
                self.ledger.record.connected_at = Some(now);
                self.on_session(session_id);
            }
            Incoming::SessionEnd => {
                self.ledger.record.connected_at = None;
                self.ledger.record.session_id = None;
                self.ledger.touch(now);
                self.on_signal(now, EndedBy::SessionEnd);
            }
            Incoming::WaitingForInput => self.on_signal(now, EndedBy::InputWait),
            Incoming::AgentStart => {
                self.ledger.record.agent = true;
                self.ledger.touch(now);
                self.on_signal(now, EndedBy::Agent);
            }
            Incoming::AgentEnd => {
                self.ledger.record.agent = false;
                self.ledger.touch(now);
            }
            Incoming::UserMessage(event) => self.ledger.append(now, EntryBody::UserMessage(event)),
            Incoming::Platform(event) => self.ledger.append(now, EntryBody::Platform(event)),
            Incoming::Pong | Incoming::Unknown(_) | Incoming::Malformed => {}
        }
    }

    fn on_session(&mut self, session_id: Option<Box<str>>) {
        if session_id.is_some() {
            self.ledger.record.session_id = session_id;
        }
    }

    fn on_signal(&mut self, now: Timestamp, by: EndedBy) {
        if self.may_greet(now) {
            // A greeting that waits for an answer says nothing of the turn that was open before.
            return;
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) {
            turn.on_signal(by, now);
        }
    }

    fn on_ack(&mut self, now: Timestamp, reply_to: Option<u64>) {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) else { return };
        if reply_to == Some(turn.message.client_message_id) && turn.progress.acked_at.is_none() {
            turn.progress.acked_at = Some(now);
            let message = turn.message.id;
            self.ledger.push(Change::Acked { message, at: now });
        }
    }

    fn on_response(&mut self, now: Timestamp, mut response: Box<Response>, effects: &mut Vec<Effect>) {
        self.on_session(response.session_id.take());
        if response.message_id.as_deref().is_some_and(|id| self.seen.contains(id)) {
            effects.push(Effect::Aside(Aside::Duplicate));
            return;
        }
        let begun = self.begun(now);
        match self.streams.join(response, begun) {
            Joined::Whole(response, begun) => {
                self.on_newest(response.message_id.as_deref(), response.created_on);
                self.take_reply(now, *response, begun, None, effects);
            }
            Joined::Growing { in_turn, orphan } => {
                if in_turn && let Some(turn) = &mut self.turn {
                    if turn.progress.first_reply_at.is_none() {
                        let message = turn.message.id;
                        self.ledger.push(Change::Answering { message, at: now });
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

    /// What begins now belongs to the open turn, if there is one and the bot is not greeting.
    fn begun(&self, now: Timestamp) -> Begun {
        let place = if self.may_greet(now) {
            Place::Greeting
        } else if self.turn.as_ref().is_some_and(|turn| turn.is_open()) {
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
        response: Response,
        begun: Begun,
        found: Option<Owner>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(id) = &response.message_id {
            let fingerprint = Fingerprint::of(id);
            self.seen.insert(fingerprint);
            self.ledger.record.recent.push(fingerprint, self.gap.is_some());
        }
        let owner = found.unwrap_or_else(|| self.owner(begun));
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
        match (owner.message, owner.late) {
            (None, _) => effects.push(Effect::Aside(Aside::Unsolicited)),
            (Some(_), true) => effects.push(Effect::Aside(Aside::Late)),
            (Some(_), false) => {
                if let Some(turn) = &mut self.turn {
                    turn.on_reply(reply, more_follows, now);
                }
            }
        }
        self.on_activity(now);
    }

    /// What a reply belongs to that began then (api.md 1, "Reply").
    pub(super) fn owner(&self, begun: Begun) -> Owner {
        let correlation = Correlation::Window;
        if begun.in_turn()
            && let Some(turn) = &self.turn
        {
            return Owner { message: Some(turn.message.id), correlation, late: false };
        }
        match self.ledger.record.last_turn {
            Some(last)
                if begun.place != Place::Greeting
                    && last.ended_at <= begun.at
                    && begun.at < last.ended_at + self.bot.late_window =>
            {
                Owner { message: Some(last.message), correlation, late: true }
            }
            _ => Owner { message: None, correlation: Correlation::Unsolicited, late: false },
        }
    }
}
