//! The frames of a conversation beside its messages. No turn waits for them.

use super::Driver;
use super::events::DriverEvent;
use crate::link::conversation_host::ConversationHost;
use crate::rtm::{DeliveryMarks, OutgoingSignal, signal_frames};

impl<H: ConversationHost> Driver<H> {
    /// Sends a signal of the user. Its `id` comes from the counter of pings, as in the SDKs.
    pub(super) async fn signal(&mut self, signal: &OutgoingSignal) -> Option<DriverEvent> {
        self.ping += 1;
        let text = signal_frames::signal(&self.bot, signal, self.ping);
        self.say_if_allowed("signal", text).await
    }

    pub(super) async fn acknowledge(&mut self, marks: &DeliveryMarks) -> Option<DriverEvent> {
        self.say_if_allowed("delivery_ack", signal_frames::delivery_ack(marks)).await
    }

    async fn say_if_allowed(&mut self, kind: &'static str, text: String) -> Option<DriverEvent> {
        // Earlier effects may have taken time, or the socket with them.
        if self.socket.is_none() || !self.may_act() {
            return None;
        }
        self.metrics.frame_sent(kind);
        self.say(text).await
    }
}
