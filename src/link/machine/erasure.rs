//! The erasure of a conversation (api.md 2, `POST …/erase`).
//!
//! The request is a message of the lane, so it survives a failover. It goes before all others: the machine drops them, and
//! all changes that wait for the store. It ends the session as a DELETE does, but with a shorter deadline, because the
//! data has to go also if the platform is away. Then the store deletes all, the request included.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::input::{AbandonReason, Effect, Input};
use super::super::open_streams::OpenStreams;
use super::super::turn::{Turn, TurnPhase, send_time};
use super::lane::LaneHead;
use super::link_phase::LinkPhase;
use super::{LaneRead, Machine};
use crate::domain::{SessionRequest, Timestamp};
use crate::rtm::IncomingFrame;

/// How far the erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErasurePhase {
    /// The platform's session is being ended.
    EndingSession,
    /// The store is deleting. The machine is at its end.
    Deleting,
}

impl Machine {
    /// Begins an erasure that the lane asks for. A write in flight ends first, so that the store cannot carry it out
    /// afterwards.
    pub(super) fn begin_erasure(&mut self, now: Timestamp) {
        if self.erasure.is_some() || self.buffer.is_in_flight() {
            return;
        }
        let request = self.lane.iter().find(|message| message.new.session == SessionRequest::Erase);
        let Some(message) = request.map(Arc::clone) else { return };
        self.erasure = Some(ErasurePhase::EndingSession);
        self.lane = VecDeque::from([Arc::clone(&message)]);
        self.head = LaneHead::new(now);
        let send_by = now + send_time(&message, &self.bot);
        let mut turn = Turn::begin(message, &self.bot, now, send_by);
        // The store need not know it as sent, because a second end of the session does no harm.
        turn.progress.sent_at = Some(now);
        turn.phase = TurnPhase::Ready;
        self.turn = Some(Box::new(turn));
        self.streams = OpenStreams::default();
        self.backfill = None;
        self.keep_until = None;
        self.lane_read = LaneRead::Idle;
        self.buffer.discard();
    }

    /// Takes an input during an erasure. Only the link matters.
    pub(super) fn on_input_of_erasure(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Lease(valid) => {
                self.on_lease(now, valid);
                return;
            }
            // The next owner finds the request in the lane.
            Input::Stop => {
                effects.push(Effect::Rest);
                return;
            }
            _ if self.erasure == Some(ErasurePhase::Deleting) => return,
            Input::Writing => self.on_writing(now),
            Input::Withheld => self.on_withheld(),
            Input::Connected => self.on_connected(now),
            Input::ConnectFailed(failure) => self.on_connect_failed(now, failure, effects),
            Input::Lost(loss) => self.on_lost(now, loss, effects),
            Input::PeerAlive => self.on_heard(now),
            Input::Frame(frame) => {
                self.on_heard(now);
                if matches!(frame, IncomingFrame::SessionEnd(_))
                    && let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open())
                {
                    turn.on_session_ended(now);
                }
            }
            _ => {}
        }
        self.tend_erasure(now, effects);
    }

    pub(super) fn tend_erasure(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.refusal = self.refusal.take().filter(|(_, until)| now < *until);
        self.tend_socket(now, effects);
        self.tend_turn(now, effects);
        if self.is_ending_session() {
            self.tend_session_end(now, effects);
        }
        if self.is_ending_session() {
            self.tend_link(now, effects);
        }
        self.tend_warmth(now);
        self.buffer.discard();
    }

    /// Has the store delete the conversation, because its session has ended or the time for that is over.
    pub(super) fn delete(&mut self, effects: &mut Vec<Effect>) {
        match self.link {
            LinkPhase::Open(_) => effects.push(Effect::Close(1000)),
            LinkPhase::Connecting { .. } => effects.push(Effect::Abandon(AbandonReason::Unwanted)),
            LinkPhase::Cold | LinkPhase::Waiting { .. } => {}
        }
        self.link = LinkPhase::Cold;
        self.turn = None;
        self.erasure = Some(ErasurePhase::Deleting);
        effects.push(Effect::Erase);
    }

    pub(super) fn is_ending_session(&self) -> bool {
        self.erasure == Some(ErasurePhase::EndingSession)
    }

    /// Returns when the machine needs a tick during an erasure.
    pub(super) fn erasure_wake_at(&self) -> Option<Timestamp> {
        let turn = self.turn.as_ref().and_then(|turn| turn.wake_at(false));
        let refusal = self.refusal.as_ref().map(|(_, until)| *until);
        let link = if self.is_ending_session() { self.link_wake_at() } else { None };
        [turn, refusal, link].into_iter().flatten().min()
    }
}
