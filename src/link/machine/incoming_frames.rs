//! The platform's frames, and the turns that they belong to.

use std::sync::Arc;
use std::time::Duration;

use super::super::input::{Effect, OutOfTurnReply};
use super::super::new_deliveries;
use super::super::open_streams::{JoinedReply, ReplyContext, ReplyStart, StreamUpdate};
use super::super::turn::{Turn, TurnPhase};
use super::Machine;
use super::link_phase::LinkPhase;
use crate::domain::{
    Correlation, DeliveryKind, EndedBy, EntryBody, Fingerprint, GapReason, MessageId, Reply, Timestamp,
};
use crate::rtm::{BotResponse, IncomingFrame};
use crate::store::ConversationChange;

/// The longest pause within a stream that a socket change may hide.
const STREAM_PAUSE: Duration = Duration::from_secs(15);

/// The largest frame that goes to live readers alone. Frames of agents that type have a few hundred bytes.
const MAX_LIVE_BYTES: usize = 16 << 10;

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
            IncomingFrame::Response(response) => {
                self.acknowledge(now, &response, effects);
                self.agent_messages.on_response(&response);
                self.on_response(now, response, effects);
            }
            IncomingFrame::Active { session_id, .. } => {
                self.buffer.record.connected_at = Some(now);
                self.on_session(now, session_id);
                if session_continues {
                    self.on_session_continues(now, effects);
                }
            }
            IncomingFrame::SessionStart { session_id, event } => {
                self.buffer.record.connected_at = Some(now);
                self.buffer.record.session_id = session_id;
                // A new session begins with the bot.
                if !matches!(&self.link, LinkPhase::Open(socket) if socket.resumes_agent) {
                    self.on_agent_gone();
                }
                self.append_event(now, DeliveryKind::SessionStarted, EntryBody::Platform(event));
            }
            IncomingFrame::SessionEnd(event) => {
                self.buffer.record.connected_at = None;
                self.buffer.record.session_id = None;
                self.on_agent_gone();
                self.append_event(now, DeliveryKind::SessionEnded, EntryBody::Platform(event));
                self.on_session_end(now);
            }
            IncomingFrame::WaitingForInput => {
                self.on_bot_sign(now);
                self.on_signal(now, EndedBy::InputWait);
            }
            IncomingFrame::AgentStart(event) => {
                self.on_agent_sign();
                if std::mem::replace(&mut self.buffer.record.agent, true) {
                    self.buffer.append(now, EntryBody::Platform(event));
                } else {
                    self.append_event(now, DeliveryKind::AgentStarted, EntryBody::Platform(event));
                    self.on_signal(now, EndedBy::Agent);
                }
            }
            IncomingFrame::AgentEnd(event) => {
                let had_agent = self.buffer.record.agent;
                self.on_agent_gone();
                if had_agent {
                    self.append_event(now, DeliveryKind::AgentEnded, EntryBody::Platform(event));
                } else {
                    self.buffer.append(now, EntryBody::Platform(event));
                }
            }
            IncomingFrame::UserMessage(event) => {
                self.append_event(now, DeliveryKind::UserMessage, EntryBody::UserMessage(event));
            }
            IncomingFrame::Platform(event) | IncomingFrame::Unknown(event) => {
                self.buffer.append(now, EntryBody::Platform(event));
            }
            IncomingFrame::Typing(event) => {
                self.on_agent_sign();
                if event.get().len() <= MAX_LIVE_BYTES {
                    effects.push(Effect::Platform(Arc::from(event)));
                }
            }
            IncomingFrame::Pong | IncomingFrame::Malformed => {}
        }
    }

    /// Journals an event that belongs to no message, and delivers it to the endpoints that take its kind.
    pub(super) fn append_event(&mut self, now: Timestamp, kind: DeliveryKind, body: EntryBody) {
        let delivered = self.bot.delivers(kind).then(|| body.clone());
        self.buffer.append(now, body);
        if let Some(body) = delivered {
            let (bot, place) = (&self.bot, self.buffer.place());
            let deliveries = new_deliveries::of_event(bot, &self.conversation, kind, &body, place, now);
            self.buffer.deliver(deliveries);
        }
    }

    fn on_session_end(&mut self, now: Timestamp) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open() && turn.ends_session()) {
            turn.on_session_ended(now);
        } else if !self.is_fresh(now) || self.connect_turn().is_none() {
            // A fresh connection may tell the end of the session before, which is not that of a connect.
            self.on_signal(now, EndedBy::SessionEnd);
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
        let is_out = |turn: &Turn| turn.is_open() || turn.went_out() && !turn.ends_session();
        let is_acked = |turn: &Turn| is_out(turn) && reply_to == Some(turn.message.client_message_id);
        if self.turn.as_deref().is_some_and(is_acked) {
            self.on_receipt_shown(now);
        }
    }

    fn on_response(&mut self, now: Timestamp, mut response: Box<BotResponse>, effects: &mut Vec<Effect>) {
        self.on_session(now, response.session_id.take());
        let defers = |id: &str| self.turn.as_ref().is_some_and(|turn| turn.defers(id));
        if response.message_id.as_deref().is_some_and(|id| self.dedup.contains(id) || defers(id)) {
            // History may have told the reply without its number.
            let proves = |turn: &Turn| !turn.is_proved() && turn.is_echoed(response.correlation_id);
            if self.turn.as_deref().is_some_and(proves) {
                self.on_receipt_shown(now);
            }
            effects.push(Effect::OutOfTurn(OutOfTurnReply::Duplicate));
            return;
        }
        self.on_speaker(now, &response);
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_echoed(response.correlation_id)) {
            turn.on_echo();
        }
        let start = self.reply_start(now, response.correlation_id);
        match self.streams.join(response, start, self.is_after_gap(now)) {
            StreamUpdate::Complete { reply, chunk } => {
                effects.extend(chunk.map(|chunk| Effect::Chunk(Arc::new(chunk))));
                let created_on = reply.response.created_on;
                let said_at = created_on.and_then(|at| self.platform_clock.observe(at, now));
                if said_at.is_none() && created_on.is_some() {
                    effects.push(Effect::FarOffTime);
                }
                self.on_joined(now, JoinedReply { said_at, ..*reply }, effects);
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
                if let Some(orphan) = orphan {
                    self.on_joined(now, *orphan, effects);
                }
            }
        }
    }

    /// Returns whether the first pieces of a stream may be missed. It then begins soon after a gap, and answers no message
    /// that was sent over this link.
    fn is_after_gap(&self, now: Timestamp) -> bool {
        let LinkPhase::Open(socket) = &self.link else { return false };
        let written_at = self.asking().and_then(|turn| turn.written_at);
        socket.after_gap && now < socket.since + STREAM_PAUSE && written_at.is_none_or(|at| at < socket.since)
    }

    /// Takes a reply of the socket, or defers it until its message is proved to have arrived.
    fn on_joined(&mut self, now: Timestamp, reply: JoinedReply, effects: &mut Vec<Effect>) {
        let reply = match &mut self.turn {
            Some(turn)
                if reply.start.context == ReplyContext::Unproved
                    && turn.awaits_proof()
                    && !reply.response.is_blank =>
            {
                turn.defer(reply)
            }
            _ => Some(reply),
        };
        if let Some(reply) = reply {
            self.on_known(&reply);
            self.take_reply(now, reply, None, effects);
        }
    }

    /// Joins the deferred replies to the turn, or tells them outside it. Their time is up when history was read, or when
    /// the turn ends. They are the turn's if the receipt of its message is proved.
    pub(super) fn tend_deferred(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let waits = self.turn.as_ref().is_some_and(|turn| {
            turn.phase == TurnPhase::Broken && (!turn.is_proved() || now < turn.ends_by())
        });
        if !waits {
            self.release_deferred(now, effects);
        }
    }

    pub(super) fn release_deferred(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let has_deferred = self.turn.as_ref().is_some_and(|turn| turn.has_deferred());
        if !has_deferred && !self.streams.has_unproved() {
            return;
        }
        let joins = self.turn.as_ref().is_some_and(|turn| turn.is_open() && turn.is_proved());
        let context = if joins { ReplyContext::Turn } else { ReplyContext::Greeting };
        let streams = self.streams.settle_unproved(context);
        let (deferred, signal) = self.turn.as_mut().map(|turn| turn.take_all_deferred()).unwrap_or_default();
        for mut reply in deferred {
            reply.start.context = context;
            self.on_known(&reply);
            self.take_reply(now, reply, None, effects);
        }
        if let Some(turn) = self.turn.as_mut().filter(|_| joins) {
            if streams {
                if turn.progress.first_reply_at.is_none() {
                    let message = turn.message.id;
                    self.buffer.push(ConversationChange::Answering { message, at: now });
                }
                turn.on_reply_begun(now);
            }
            if let Some(by) = signal {
                turn.on_signal(by, now);
            }
        }
    }

    /// Has history read for the whole text of a stream with a hole. Cuts the streams that history does not tell, and those
    /// whose end was lost.
    pub(super) fn tend_streams(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let silent = self.streams.cut_silent(now);
        self.take_cut(now, silent, effects);
        if self.backfill.as_ref().is_some_and(|backfill| self.bot.history && !backfill.is_settled()) {
            return;
        }
        if self.seeks_whole(now) {
            return;
        }
        let ended = self.streams.cut_ended();
        self.take_cut(now, ended, effects);
    }

    /// Returns the start of a reply that begins now. A bot that tells the answered message decides alone. Otherwise
    /// the reply belongs to the open turn, unless the bot may be greeting or an agent speaks. After a loss it belongs
    /// to the turn only if the message is proved to have arrived.
    fn reply_start(&self, now: Timestamp, echoes: Option<u64>) -> ReplyStart {
        let turn = self.turn.as_ref().filter(|turn| turn.is_open() && !turn.ends_session());
        let context = if turn.is_some_and(|turn| turn.is_echoed(echoes)) {
            ReplyContext::Turn
        } else if self.may_greet(now) {
            ReplyContext::Greeting
        } else if let Some(turn) = turn.filter(|_| echoes.is_none() && !self.is_with_agent()) {
            if turn.awaits_proof() { ReplyContext::Unproved } else { ReplyContext::Turn }
        } else {
            ReplyContext::Silence
        };
        ReplyStart { at: now, context }
    }

    /// Turns streams without an end into replies: those of the ending turn, or those outside it whose socket is gone.
    pub(super) fn cut_streams(&mut self, now: Timestamp, in_turn: bool, effects: &mut Vec<Effect>) {
        let cut = self.streams.cut(in_turn);
        self.take_cut(now, cut, effects);
    }

    fn take_cut(&mut self, now: Timestamp, cut: Vec<JoinedReply>, effects: &mut Vec<Effect>) {
        for reply in cut {
            self.on_joined(now, reply, effects);
        }
    }

    /// Notes where the next gap begins, or that history may tell more of a reply that was cut.
    fn on_known(&mut self, reply: &JoinedReply) {
        let id = reply.response.message_id.as_deref();
        if reply.partial {
            self.on_unfinished(id);
        } else if !reply.response.is_blank {
            self.on_newest(id, reply.said_at);
        }
    }

    /// Journals a reply and joins it to its message. `found` is the message for a reply from history. A gap follows a
    /// partial one. A blank response is journaled as an event of the platform, because it answers nothing.
    pub(super) fn take_reply(
        &mut self,
        now: Timestamp,
        reply: JoinedReply,
        found: Option<ReplyOwner>,
        effects: &mut Vec<Effect>,
    ) {
        let JoinedReply { response, start, partial, .. } = reply;
        if let Some(id) = &response.message_id {
            let fingerprint = Fingerprint::of(id);
            self.dedup.insert(fingerprint);
            if !partial && !response.is_blank {
                self.newest_reply = Some(fingerprint);
            }
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
        let echoes = response.correlation_id;
        let live = found.is_none();
        let owner = found.unwrap_or_else(|| self.owner(start, echoes));
        let owner = self.within_limit(owner, response.event.get().len() + response.text.len());
        let more_follows = response.more_follows;
        let reply = Arc::new(Reply {
            seq: self.buffer.next_seq(),
            message_id: response.message_id,
            in_reply_to: owner.message,
            correlation: owner.correlation,
            late: owner.late,
            text: response.text,
            choices: response.choices,
            media: response.media,
            partial,
            agent: response.agent,
            created_on: response.created_on,
            event: response.event,
        });
        self.buffer.append(now, EntryBody::Reply(Arc::clone(&reply)));
        let (last, place) = (self.buffer.record.last_turn.as_ref(), self.buffer.place());
        let deliveries = new_deliveries::of_reply(&self.bot, &self.conversation, &reply, last, place, now);
        self.buffer.deliver(deliveries);
        if partial {
            self.append_event(now, DeliveryKind::Gap, EntryBody::Gap(GapReason::ReplyCut));
        }
        let is_of_turn = owner.message.is_some() && !owner.late;
        if let Some(number) = echoes.filter(|_| !is_of_turn)
            && let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open())
        {
            turn.on_reply_to_another(number);
        }
        match (owner.message, owner.late) {
            (None, _) => effects.push(Effect::OutOfTurn(OutOfTurnReply::Unsolicited)),
            (Some(message), true) => {
                if live {
                    effects.extend(self.rhythm.on_late_reply(message, start.at).map(Effect::learn));
                }
                effects.push(Effect::OutOfTurn(OutOfTurnReply::Late));
            }
            (Some(_), false) => {
                if let Some(turn) = &mut self.turn {
                    turn.on_rhythm(&reply, more_follows, live.then_some(start.at), now);
                    turn.on_reply(reply, more_follows, now);
                }
            }
        }
        self.on_activity(now);
    }

    /// Counts a late reply of so many bytes. One above the limits of its message is unsolicited.
    fn within_limit(&mut self, owner: ReplyOwner, bytes: usize) -> ReplyOwner {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let last = self.buffer.record.last_turn.as_mut().filter(|_| owner.late);
        if last.is_none_or(|last| last.late.take(bytes)) {
            owner
        } else {
            ReplyOwner { message: None, correlation: Correlation::Unsolicited, late: false }
        }
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
                if !matches!(start.context, ReplyContext::Greeting | ReplyContext::Unproved)
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
