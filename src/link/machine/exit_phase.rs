//! The way of a conversation out of memory: it drains, hands off its head and writes the rest.

use super::super::input::{Effect, Input};
use super::Machine;
use crate::domain::Timestamp;
use crate::store::ConversationChange;

/// How far the conversation has come on its way out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitPhase {
    Staying,
    /// It leaves after the open turn.
    Draining,
    /// The same, and the deadline of an unsent head is restarted, so that the drain does not count.
    HandedOff,
    /// It leaves after the last write.
    Stopping,
}

impl Machine {
    pub(super) fn is_draining(&self) -> bool {
        self.exit != ExitPhase::Staying
    }

    /// Begins nothing more. Writes the remaining changes, and restarts the deadline of a waiting head for the next
    /// owner.
    pub(super) fn stop(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.hand_off(now);
        self.cut_streams(now, false, effects);
        self.exit = ExitPhase::Stopping;
        self.buffer.flush_now();
        self.finish(now, effects);
    }

    /// Takes an input after [`Input::Stop`]. Only the results of the last writes count.
    pub(super) fn on_last(&mut self, now: Timestamp, input: &Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Stored { lost } => self.on_stored(now, *lost, effects),
            Input::WriteUnknown => self.on_unknown(now),
            Input::OutOfStep => self.buffer.doubt(),
            Input::SentAtAccept(message) => {
                self.send_at_accept_pending = false;
                // The end of the head before may be on its way. The store has it.
                if message.position == self.next_position {
                    self.buffer.push(ConversationChange::HeadSince { at: now });
                }
            }
            Input::NotSentAtAccept => self.send_at_accept_pending = false,
            _ => {}
        }
        self.finish(now, effects);
    }

    fn finish(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        // A reconciliation would take too long now. The next owner continues from the store.
        if self.buffer.is_in_doubt() || self.buffer.is_settled() && !self.send_at_accept_pending {
            effects.push(Effect::Rest);
        } else if let Some(write) = self.buffer.next_write(now) {
            effects.push(Effect::Write(write));
        }
    }

    /// Restarts the deadline of an unsent head, because this owner caused its wait. The store does not know the head as
    /// sent any more, so the next owner sends it.
    pub(super) fn hand_off(&mut self, now: Timestamp) {
        let unsent = self.turn.as_ref().is_none_or(|turn| turn.is_unsent());
        // The store has the end before it, and has it as the head.
        let marked = self.lane.iter().any(|message| Some(message.id) == self.sent_at_accept);
        if (unsent || marked) && !self.lane.is_empty() && self.exit != ExitPhase::HandedOff {
            self.exit = ExitPhase::HandedOff;
            if unsent {
                self.turn = None;
            }
            self.buffer.push(ConversationChange::HeadSince { at: now });
        }
    }
}
