//! Signals of the user, and the acknowledgements of replies. Both are sent at once or not at all.

use super::super::input::Effect;
use super::Machine;
use super::link_phase::LinkPhase;
use crate::domain::{Timestamp, UserSignal};
use crate::rtm::{BotResponse, DeliveryMarks, OutgoingSignal};

/// The part of the user's rate that stays for messages.
const RESERVED: u32 = 4;
/// How far the number of a signal is behind the present. A message that is accepted later has a greater one.
const NUMBER_AGE: std::time::Duration = std::time::Duration::from_secs(1);

impl Machine {
    /// Sends a signal of the user, if the socket is open and the user's rate leaves room for messages.
    pub(super) fn on_user_signal(&mut self, now: Timestamp, signal: UserSignal, effects: &mut Vec<Effect>) {
        if self.is_draining() || !self.take_rate(now) {
            return;
        }
        let mut number = (now - NUMBER_AGE).as_millis();
        while self.lane.iter().any(|message| message.client_message_id == number) {
            number -= 1;
        }
        let agent_message_id = signal.message_id.as_deref().and_then(|id| self.agent_messages.desk_id(id));
        let agent_message_id = agent_message_id.map(Into::into);
        effects.push(Effect::Signal(OutgoingSignal { signal, number, agent_message_id }));
    }

    /// Acknowledges a response, if the bot is configured so and the response has the marks.
    pub(super) fn acknowledge(&mut self, now: Timestamp, response: &BotResponse, effects: &mut Vec<Effect>) {
        if !self.bot.delivery_acks {
            return;
        }
        if let Some(marks) = DeliveryMarks::of_frame(response.event.get())
            && self.take_rate(now)
        {
            effects.push(Effect::Acknowledge(marks));
        }
    }

    /// Counts a frame that is no message in the user's rate. Returns false if it may not be sent.
    fn take_rate(&mut self, now: Timestamp) -> bool {
        let limit = self.bot.user_rate_per_minute;
        let most = limit - limit / RESERVED;
        let sends = &mut self.buffer.record.sends;
        let free =
            matches!(self.link, LinkPhase::Open(_)) && self.lease_valid && sends.next(most, now) <= now;
        if free {
            sends.record(limit, now);
        }
        free
    }
}
