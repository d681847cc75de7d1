//! What shows that the platform has the message of a turn: the bot answers it, or history has it.

use super::{Turn, TurnPhase};

impl Turn {
    /// Returns whether bytes of the message were sent, and the end is not decided. The message may wait for its resend.
    pub(crate) fn went_out(&self) -> bool {
        self.is_open() || self.waits_to_be_sent() && self.was_sent()
    }

    /// Returns whether `id` is the number of this message, and its bytes were sent.
    pub(crate) fn is_echoed(&self, id: Option<u64>) -> bool {
        self.went_out() && !self.ends_session() && id == Some(self.message.client_message_id)
    }

    /// Notes that the bot answers the message. It is not sent again.
    pub(crate) fn on_echo(&mut self) {
        if self.waits_to_be_sent() {
            self.phase = TurnPhase::Sent;
        }
    }

    /// Notes that the platform has the message, so that a waiting resend is dropped. History may tell the answer.
    pub(crate) fn on_found(&mut self) {
        if self.waits_to_be_sent() {
            self.phase = TurnPhase::Broken;
        }
    }

    const fn waits_to_be_sent(&self) -> bool {
        matches!(self.phase, TurnPhase::Ready | TurnPhase::Sending)
    }
}
