//! The replies without a listener, and the promise that the journal holds or misses them openly.

use rtm_bridge::domain::{GapReason, Timestamp};
use rtm_bridge::link::{LinkState, Machine};
use rtm_bridge::rtm::BotResponse;

use super::super::platform::chance;
use super::{CheckResult, START, SimulationEvent, World};

/// The time after which every retry of a read is over: 15 s and 60 s after the first reads, and their durations.
const REPAIRED: u64 = 120_000;

/// The messages of a page of history.
const PAGE: usize = 10;

impl World {
    /// Draws the times of unsolicited replies.
    pub(super) fn plan_unasked(&mut self, within: u64) {
        for _ in 0..4 {
            if chance(&mut self.rng, self.faults.unasked) {
                let at = self.rng.u64(0..within);
                self.schedule(at, SimulationEvent::Unasked);
            }
        }
    }

    /// Sends an unsolicited reply to the open socket right now.
    pub(super) fn speak_now(&mut self, socket: u32) -> CheckResult {
        let mut plan = self.platform.unasked(&mut self.rng, &self.faults).into_iter();
        let first = plan.next();
        for (at, said) in plan {
            self.schedule(at, SimulationEvent::PlatformEvent(socket, said));
        }
        first.map_or(Ok(()), |(_, said)| self.say(socket, said))
    }

    /// Sends an unsolicited reply to the open socket, if there is one.
    pub(super) fn speak_unasked(&mut self) {
        let socket = self.socket.map_or(0, |(socket, _)| socket);
        for (at, said) in self.platform.unasked(&mut self.rng, &self.faults) {
            self.schedule(at, SimulationEvent::PlatformEvent(socket, said));
        }
    }

    /// Returns whether history has a place to be read from: a reply, or the message of a turn. A connect leaves no message.
    fn has_place(&self) -> bool {
        let last_turn = self.truth.last_turn();
        self.truth.reads_from().is_some() || last_turn.is_some_and(|id| !self.posted_connects.contains(&id))
    }

    /// Notes a reply without a listener.
    pub(super) fn note_missed(&mut self, response: &BotResponse, is_first: bool) {
        let whole = response.stream.as_ref().is_none_or(|stream| stream.last);
        // When a repeat was first said, a socket may have been open. A reply to another socket beside an open one leaves
        // no trace.
        if whole
            && is_first
            && self.socket.is_none_or(|(_, dead)| dead)
            && self.has_place()
            && let Some(id) = &response.message_id
        {
            self.missed.insert(id.clone());
        }
    }

    /// Notes the replies that the dying owner heard and the store does not have.
    pub(super) fn note_unstored(&mut self) {
        if !self.has_place() {
            return;
        }
        // Of a repeat, the first frame may have come before the bridge had a place to read from.
        let is_repeat =
            |id: &str, heard: u64| self.platform.replies().any(|(of, at, _)| of == id && at < heard);
        let heard = self.delivered.iter().filter(|(id, heard)| !is_repeat(id, **heard));
        let unstored = heard.map(|(id, _)| id).filter(|id| !self.truth.replies.contains_key(*id));
        self.missed.extend(unstored.cloned());
    }

    /// Returns whether the newest page of that time may lack the start of a gap that begins with no reply. Or it may
    /// have a reply that nothing places before or behind that start.
    fn may_be_short(&self, at: Timestamp, reason: GapReason) -> bool {
        let is_untold = |(id, said_at, _): (&str, u64, u64)| {
            said_at < at.as_millis() && self.truth.told_at.get(id).is_none_or(|told_at| *told_at > at)
        };
        reason == GapReason::HistoryTooShort
            && (self.platform.remembered_before(at.as_millis()) > PAGE
                || self.platform.replies().any(is_untold))
    }

    /// Checks that each missed reply is in the journal, or covered by a gap. This holds for all replies before the
    /// record's message. If the link is open for long, it holds for all replies before its connect.
    pub(super) fn check_missed(&self) -> CheckResult {
        if self.truth.lossy {
            return Ok(());
        }
        // History does not know a stream that was cut.
        let faults = &self.faults;
        let reliable = faults.history_fails == 0 && faults.history_lag == 0 && faults.stream == 0;
        if self.bot.history
            && reliable
            && let Some(gap) = self.truth.gaps.iter().find(|(at, reason)| !self.may_be_short(*at, *reason))
        {
            return Err(format!("{gap:?} is journaled although history told everything"));
        }
        let reads_from = self.truth.reads_from();
        let read_until =
            self.platform.replies().find(|(id, ..)| Some(*id) == reads_from).map_or(0, |(_, at, _)| at);
        let now = Timestamp::from_millis(self.now);
        let is_there = |machine: &Machine| machine.link_state(now) == LinkState::Ready;
        let stays = self.machine.as_ref().is_some_and(is_there)
            && self.awaited.history == 0
            && self.now > self.connected_at + REPAIRED;
        let settle = u64::try_from(self.bot.history_settle.as_millis()).unwrap_or_default();
        for (id, at, visible_at) in self.platform.replies() {
            let owed = at < read_until || stays && at < self.connected_at;
            let shown = visible_at - at <= settle;
            let is_journaled = self.truth.replies.contains_key(id);
            let gap = self.truth.gaps.iter().any(|(gap, _)| gap.as_millis() >= at);
            let repairable = self.bot.history && shown && self.missed.contains(id);
            if owed && repairable && !is_journaled && !gap {
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
