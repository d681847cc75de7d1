//! The status of the link, for callers who ask about the conversation.

use std::time::Duration;

use super::Machine;
use super::lane::blocked;
use super::link_phase::LinkPhase;
use crate::domain::{ConnectionStatus, LinkState, Timestamp};

impl Machine {
    /// Returns the status of the connection. It changes with [`Machine::link_state`] and with a failed connect.
    pub fn connection(&self, now: Timestamp) -> ConnectionStatus {
        let state = self.link_state(now);
        let (stood, since) = self.status;
        let next = if let LinkPhase::Waiting { until } = self.link { until } else { now };
        let waits = matches!(state, LinkState::BackingOff | LinkState::Blocked);
        ConnectionStatus {
            state,
            since: since.filter(|_| stood == state),
            reason: self.reason(state),
            // A connect that the store holds back has no time of its own.
            retry_at: (waits && (state == LinkState::Blocked || self.may_connect()))
                .then(|| self.connect_at(next)),
        }
    }

    /// Notes since when the link is in its state. The time before the conversation was loaded is unknown.
    pub(super) fn note_connection(&mut self, now: Timestamp) {
        let state = self.link_state(now);
        if self.status.0 != state {
            self.status = (state, Some(now));
        }
    }

    fn reason(&self, state: LinkState) -> Option<Box<str>> {
        let refusal = self.refusal.as_ref().map(|(problem, _)| &*problem.detail);
        let failure = refusal.or(self.last_failure.as_deref());
        match state {
            LinkState::Ready => None,
            // Without a failed connect there is no reason.
            LinkState::Cold | LinkState::Connecting => failure.map(Into::into),
            LinkState::BackingOff if !self.may_connect() => Some(self.waiting_for().into()),
            LinkState::BackingOff => Some(
                failure.unwrap_or("the connection was lost, and the reconnect waits for its backoff").into(),
            ),
            LinkState::Blocked => Some((*blocked(Duration::ZERO).detail).into()),
            LinkState::Draining => Some("its replica closes it, or hands it off to another replica".into()),
        }
    }
}
