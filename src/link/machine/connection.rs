//! How the link looks from outside: for whoever asks how the conversation stands.

use std::time::Duration;

use super::Machine;
use super::lane::blocked;
use super::socket::Link;
use crate::domain::{ConnectionStatus, LinkState, Timestamp};

impl Machine {
    /// How the connection stands at this time. It is worth asking again where [`Machine::link_state`] has changed, or a
    /// connect failed.
    pub fn connection(&self, now: Timestamp) -> ConnectionStatus {
        let state = self.link_state(now);
        let (stood, since) = self.stands;
        let next = if let Link::Waiting { until } = self.link { until } else { now };
        let waits = matches!(state, LinkState::BackingOff | LinkState::Blocked);
        ConnectionStatus {
            state,
            since: since.filter(|_| stood == state),
            reason: self.reason(state),
            retry_at: waits.then(|| self.connect_at(next)),
        }
    }

    /// Notes since when the link stands as it does. How a conversation stood before it came into memory nobody knows.
    pub(super) fn note_connection(&mut self, now: Timestamp) {
        let state = self.link_state(now);
        if self.stands.0 != state {
            self.stands = (state, Some(now));
        }
    }

    /// Why the link is not ready, as far as something stands in its way.
    fn reason(&self, state: LinkState) -> Option<Box<str>> {
        let refusal = self.refusal.as_ref().map(|(problem, _)| &*problem.detail);
        let failure = refusal.or(self.last_failure.as_deref());
        match state {
            LinkState::Ready => None,
            // Where nothing failed yet there is no reason; where nobody wants it any more, what failed last.
            LinkState::Cold | LinkState::Connecting => failure.map(Into::into),
            LinkState::BackingOff => {
                Some(failure.unwrap_or("the connection was lost, and the next one waits for its time").into())
            }
            LinkState::Blocked => Some((*blocked(Duration::ZERO).detail).into()),
            LinkState::Draining => {
                Some("the replica that has it closes it, or hands it over to another".into())
            }
        }
    }
}
