//! Whether a human agent has the conversation.
//!
//! The platform tells the begin and the end. An end that falls into a gap is lost. So the agent is in doubt after a gap.
//! Three signs end the doubt: a response, which has a speaker, a new session, and the time of the session.

use std::time::Duration;

use super::super::turn::TurnPhase;
use super::Machine;
use super::link_phase::LinkPhase;
use crate::domain::Timestamp;
use crate::rtm::BotResponse;

/// The wait of a turn for the bot while the agent is in doubt.
const DOUBT: Duration = Duration::from_secs(3);

/// The age of the signs that a human agent has the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentEvidence {
    Current,
    /// From before a gap: the agent is in doubt.
    Stale,
}

impl Machine {
    /// Notes that the end of the agent may be missed from now on.
    pub(super) const fn doubt_agent(&mut self) {
        if self.buffer.record.agent {
            self.agent_evidence = AgentEvidence::Stale;
        }
    }

    /// Notes a sign of the agent.
    pub(super) const fn on_agent_sign(&mut self) {
        self.agent_evidence = AgentEvidence::Current;
    }

    /// Notes that the bot has the conversation.
    pub(super) const fn on_agent_gone(&mut self) {
        self.buffer.record.agent = false;
        self.agent_evidence = AgentEvidence::Current;
    }

    /// Notes a response. It is a sign of its speaker.
    pub(super) fn on_speaker(&mut self, now: Timestamp, response: &BotResponse) {
        if response.agent {
            self.on_agent_sign();
        } else if !response.is_blank {
            self.on_bot_sign(now);
        }
    }

    /// Notes a sign of the bot. Without a doubt it is none: desks of other vendors may leave the agent's lines unmarked.
    /// The greeting of a session that keeps the agent is none either.
    pub(super) fn on_bot_sign(&mut self, now: Timestamp) {
        let greets =
            matches!(&self.link, LinkPhase::Open(socket) if socket.resumes_agent) && self.is_held(now);
        if self.is_agent_in_doubt() && !greets {
            self.on_agent_gone();
            self.buffer.touch(now);
        }
    }

    /// Notes the session of a frame. Another session begins with the bot.
    pub(super) fn on_session(&mut self, now: Timestamp, session_id: Option<Box<str>>) {
        let Some(id) = session_id else { return };
        let resumes = matches!(&self.link, LinkPhase::Open(socket) if socket.resumes_agent);
        let is_other = self.buffer.record.session_id.as_ref().is_some_and(|known| *known != id);
        if is_other && !resumes && self.buffer.record.agent {
            self.on_agent_gone();
            self.buffer.touch(now);
        }
        self.buffer.record.session_id = Some(id);
    }

    /// Returns whether a human agent has the conversation since before the open turn, as far as is known.
    pub(super) fn has_agent(&self) -> bool {
        self.buffer.record.agent && !self.turn.as_ref().is_some_and(|turn| turn.is_handed_over())
    }

    /// Returns the same without a doubt.
    pub(super) fn is_with_agent(&self) -> bool {
        self.has_agent() && !self.is_agent_in_doubt()
    }

    fn is_agent_in_doubt(&self) -> bool {
        self.agent_evidence == AgentEvidence::Stale
    }

    /// Returns whether the agent ends the open turn, if it is proved.
    pub(super) fn agent_ends_turn(&self, now: Timestamp) -> bool {
        self.buffer.record.agent && self.doubt_ends_at().is_none_or(|at| now >= at)
    }

    /// Returns until when the turn waits for the bot in doubt.
    pub(super) fn doubt_ends_at(&self) -> Option<Timestamp> {
        let turn =
            self.turn.as_ref().filter(|turn| turn.phase == TurnPhase::Sent && turn.ends_with_agent())?;
        Some(turn.received_at().filter(|_| self.is_agent_in_doubt())? + DOUBT)
    }
}
