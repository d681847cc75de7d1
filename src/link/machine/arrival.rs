//! What arrives: frames of the platform and pages of its history, and what they belong to.

use std::sync::Arc;

use super::super::input::{Aside, Effect, HistoryFailure};
use super::super::stream::{Begun, Joined, Place};
use super::Machine;
use crate::domain::{Correlation, EndedBy, EntryBody, Fingerprint, MessageId, Reply, Timestamp};
use crate::rtm::{HistoryPage, HistoryRecord, Incoming, Response};
use crate::store::Change;

/// What a reply is joined to.
struct Owner {
    message: Option<MessageId>,
    correlation: Correlation,
    late: bool,
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
            Joined::Whole(response, begun) => self.take_reply(now, *response, begun, None, effects),
            Joined::Growing { in_turn, orphan } => {
                if in_turn && let Some(turn) = &mut self.turn {
                    if turn.progress.first_reply_at.is_none() {
                        let message = turn.message.id;
                        self.ledger.push(Change::Answering { message, at: now });
                    }
                    turn.on_reply_begun(now);
                }
                if let Some((orphan, begun)) = orphan {
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
            self.take_reply(now, response, begun, None, effects);
        }
    }

    /// Takes a whole reply: joins it to what it belongs to and journals it. `found` is set where it comes from
    /// history.
    fn take_reply(
        &mut self,
        now: Timestamp,
        response: Response,
        begun: Begun,
        found: Option<Correlation>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(id) = &response.message_id {
            let fingerprint = Fingerprint::of(id);
            self.seen.insert(fingerprint);
            self.ledger.record.recent.push(fingerprint);
            self.ledger.record.last_platform_message = Some(id.clone());
        }
        let owner = self.owner(begun, found);
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
    fn owner(&self, begun: Begun, found: Option<Correlation>) -> Owner {
        let correlation = found.unwrap_or(Correlation::Window);
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

    pub(super) fn on_history(
        &mut self,
        now: Timestamp,
        page: Result<HistoryPage, HistoryFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let settle = self.bot.history_settle;
        self.reading_history = false;
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open()) else { return };
        let Some(repair) = turn.repair.as_mut() else { return };
        let asked = repair.on_answer();
        match page {
            Ok(page) => self.take_history(now, page, asked, effects),
            Err(failure) if asked => repair.on_failure(failure == HistoryFailure::ForGood, now, settle),
            Err(_) => {}
        }
    }

    /// Takes what a page tells of the open turn: our own message, which proves receipt, and the bot's messages
    /// that follow it. What stands before our message belongs to earlier turns. A page that was not `asked` for since
    /// the last loss proves by what it holds, and nothing by what it lacks.
    fn take_history(
        &mut self,
        now: Timestamp,
        mut page: HistoryPage,
        asked: bool,
        effects: &mut Vec<Effect>,
    ) {
        let settle = self.bot.history_settle;
        let Some(turn) = &mut self.turn else { return };
        let Some(repair) = &mut turn.repair else { return };
        let client_message_id = turn.message.client_message_id;
        page.records.sort_by_key(|record| record.created_on);
        let own = page
            .records
            .iter()
            .position(|record| record.from_user && record.user_msg_id == Some(client_message_id));
        // Where our message does not show, and a page may begin anywhere (what the platform answers to an id that it
        // does not know yet is not documented), only its own times tell what came after the turn's first reply.
        let first_reply = turn.progress.replies.iter().filter_map(|reply| reply.created_on).min();
        let is_later = |record: &HistoryRecord| {
            first_reply.is_some_and(|first| record.created_on.is_some_and(|at| at >= first))
        };
        let from = match own {
            Some(at) => at + 1,
            None if repair.is_own_found() => 0,
            None => page.records.iter().position(is_later).unwrap_or(page.records.len()),
        };
        if asked {
            if own.is_some() {
                repair.on_own_found();
            }
            let next = page.records.iter().rev().find_map(|record| record.id.clone()).filter(|_| page.more);
            repair.on_page(next, now, settle);
        }
        if own.is_some() && turn.progress.acked_at.is_none() {
            turn.progress.acked_at = Some(now);
            let message = turn.message.id;
            self.ledger.push(Change::Acked { message, at: now });
        }
        for record in page.records.into_iter().skip(from).filter(|record| !record.from_user) {
            if record.id.as_deref().is_some_and(|id| self.seen.contains(id)) {
                continue;
            }
            if let Some(id) = &record.id {
                self.streams.forget(id);
            }
            let begun = Begun { at: now, place: Place::Turn };
            self.take_reply(now, found(record), begun, Some(Correlation::History), effects);
        }
    }
}

/// A record of history as the response it once was.
fn found(record: HistoryRecord) -> Response {
    Response {
        message_id: record.id,
        text: record.text,
        agent: record.agent,
        created_on: record.created_on,
        stream: None,
        more_follows: false,
        session_id: record.session_id,
        event: record.event,
    }
}
