//! What the bot says while nobody listens, and where it has to be in the end.

use rtm_bridge::domain::Timestamp;
use rtm_bridge::link::{LinkState, Machine};
use rtm_bridge::rtm::BotResponse;

use super::super::platform::chance;
use super::{Event, Outcomes, START, World};

/// By now whatever is read once more was read: 15 s and 60 s after the first reads, and what they take.
const REPAIRED: u64 = 120_000;

impl World {
    /// Draws when the bot speaks of itself.
    pub(super) fn plan_unasked(&mut self, within: u64) {
        for _ in 0..4 {
            if chance(&mut self.rng, self.temper.unasked) {
                let at = self.rng.u64(0..within);
                self.schedule(at, Event::Unasked);
            }
        }
    }

    /// It speaks to the socket that is open, or to none.
    pub(super) fn speak_unasked(&mut self) {
        let socket = self.socket.map_or(0, |(socket, _)| socket);
        for (at, said) in self.platform.unasked(&mut self.rng, &self.temper) {
            self.schedule(at, Event::Said(socket, said));
        }
    }

    /// Nobody hears a reply that is said now. Before the first one that is journaled there is no place to read from.
    pub(super) fn note_missed(&mut self, response: &BotResponse) {
        let whole = response.stream.as_ref().is_none_or(|stream| stream.last);
        // A repeat is of the time when it was said first, and a socket may have been there then: what the platform says
        // to another one although ours is open, nothing tells.
        let first = response.created_on == Some(Timestamp::from_millis(self.now));
        if whole
            && first
            && self.socket.is_none_or(|(_, dead)| dead)
            && self.truth.reads_from().is_some()
            && let Some(id) = &response.message_id
        {
            self.missed.insert(id.clone());
        }
    }

    /// What this owner heard and the store does not have goes with it.
    pub(super) fn note_unstored(&mut self) {
        if self.truth.reads_from().is_none() {
            return;
        }
        let unstored = self.delivered.iter().filter(|id| !self.truth.replies.contains(*id));
        self.missed.extend(unstored.cloned());
    }

    /// What was missed is in the journal, or the journal says that something is missing. That is owed for everything
    /// before the message from which a new owner would read on; and where the link has been there for long, for
    /// everything before it came.
    pub(super) fn check_missed(&self) -> Outcomes {
        if self.truth.lossy {
            return Ok(());
        }
        // What was cut in the middle of a stream history does not know.
        let temper = &self.temper;
        let reliable = temper.history_fails == 0 && temper.history_lag == 0 && temper.stream == 0;
        if self.bot.history
            && reliable
            && let Some(gap) = self.truth.gaps.first()
        {
            return Err(format!("{gap:?} is told although history told everything"));
        }
        let Some(reads_from) = self.truth.reads_from() else { return Ok(()) };
        let read_until =
            self.platform.replies().find(|(id, ..)| *id == reads_from).map_or(0, |(_, at, _)| at);
        let now = Timestamp::from_millis(self.now);
        let is_there = |machine: &Machine| machine.link_state(now) == LinkState::Ready;
        let stays = self.machine.as_ref().is_some_and(is_there)
            && self.awaited.history == 0
            && self.now > self.connected_at + REPAIRED;
        let settle = u64::try_from(self.bot.history_settle.as_millis()).unwrap_or_default();
        for (id, at, visible_at) in self.platform.replies() {
            let owed = at < read_until || stays && at < self.connected_at;
            let shown = visible_at - at <= settle;
            let told = self.truth.replies.contains(id);
            let gap = self.truth.gaps.iter().any(|(gap, _)| gap.as_millis() >= at);
            let repairable = self.bot.history && shown && self.missed.contains(id);
            if owed && repairable && !told && !gap {
                return Err(format!(
                    "{id} was said at {} and is neither in the journal nor in a gap; read until {}, there since {}",
                    at - START,
                    read_until.saturating_sub(START),
                    self.connected_at - START
                ));
            }
        }
        Ok(())
    }
}
