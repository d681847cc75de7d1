//! The faults around the machine: suspect leases, outages and failovers of the store, pauses.

use std::sync::Arc;

use rtm_bridge::domain::{EntryBody, Timestamp};
use rtm_bridge::link::{Effect, Input};
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::{ConversationChange, ConversationWrite};
use serde_json::value::RawValue;

use super::super::platform::{PlatformEvent, chance};
use super::{CheckResult, SimulationEvent, World, WriteOutcome};

/// The most steps that a failover takes back.
const MOST_LOST: usize = 6;

impl World {
    /// Draws the faults within this time.
    pub(super) fn plan_faults(&mut self, within: u64) {
        for _ in 0..3 {
            if chance(&mut self.rng, self.faults.losses) {
                let (at, steps) = (self.rng.u64(0..within), self.rng.usize(1..=MOST_LOST));
                self.schedule(at, SimulationEvent::Failover(steps));
            }
            if chance(&mut self.rng, self.faults.suspect) {
                let at = self.rng.u64(0..within);
                self.schedule(at, SimulationEvent::Lease(false));
            }
            if chance(&mut self.rng, self.faults.outages) {
                let (at, ms) = (self.rng.u64(0..within), self.rng.u64(1..1000) * self.rng.u64(1..60));
                self.schedule(at, SimulationEvent::Outage(ms));
            }
        }
    }

    pub(super) const fn is_away(&self) -> bool {
        self.now < self.away_until
    }

    /// Keeps the state of the store for a later failover.
    pub(super) fn remember(&mut self) {
        if self.faults.losses > 0 {
            self.past.push(self.truth.clone());
        }
    }

    /// Performs a write at the store.
    pub(super) fn apply(&mut self, era: u32, write: &Arc<ConversationWrite>, awaited: bool) -> CheckResult {
        let life = self.life;
        if era != self.era || self.is_away() {
            if awaited {
                self.schedule(1, SimulationEvent::Input(life, Input::WriteUnknown));
            }
            return Ok(());
        }
        self.remember();
        let input = match self.truth.apply(write)? {
            WriteOutcome::Done { ended, lost } => {
                for (message, since, at) in ended {
                    self.check_end(message, since, at)?;
                }
                Input::Stored { lost }
            }
            WriteOutcome::OutOfStep if awaited && !self.truth.lossy => {
                return Err(format!("write {} is out of step", write.record.write));
            }
            WriteOutcome::OutOfStep => {
                // Commands keep their order: an earlier one has arrived, or never will.
                self.era += u32::from(awaited);
                Input::OutOfStep
            }
        };
        if awaited {
            if matches!(input, Input::Stored { lost: false }) {
                self.may_go.extend(write.changes.iter().filter_map(|change| match change {
                    ConversationChange::Sent { message, .. } => Some(*message),
                    _ => None,
                }));
            }
            self.schedule(1, SimulationEvent::Input(life, input));
        }
        Ok(())
    }

    /// Changes the validity of the lease. The machine learns it with its next step, at once if it may act again.
    pub(super) fn lease(&mut self, valid: bool) -> CheckResult {
        self.note(|| format!("the lease is valid: {valid}"));
        self.lease.valid = valid;
        if !valid {
            let wait = self.rng.u64(1..20_000);
            self.hindered += wait;
            self.schedule(wait, SimulationEvent::Lease(true));
        }
        if valid || self.rng.bool() { self.tell_machine(Input::Tick) } else { Ok(()) }
    }

    pub(super) fn outage(&mut self, ms: u64) {
        self.note(|| format!("the store is unavailable for {ms} ms"));
        self.hindered += ms;
        self.away_until = self.away_until.max(self.now + ms);
        if ms > 10_000 {
            self.schedule(10_000, SimulationEvent::Lease(false));
        }
        let Some((socket, _)) = self.socket else { return };
        let frames = if self.rng.u8(0..16) == 0 { 1200 } else { self.rng.u64(0..20) };
        for _ in 0..frames {
            let at = self.rng.u64(0..ms.max(1));
            let Ok(event) = RawValue::from_string("{}".to_owned()) else { continue };
            self.schedule(
                at,
                SimulationEvent::PlatformEvent(socket, PlatformEvent::Frame(IncomingFrame::Platform(event))),
            );
        }
    }

    /// Takes the store back by some steps, and drops the writes on their way.
    pub(super) fn failover(&mut self, steps: usize) {
        let place = self.past.len().saturating_sub(steps);
        let mut lost = self.past.split_off(place).into_iter();
        let Some(past) = lost.next() else { return };
        self.note(|| format!("the store goes back {steps} steps"));
        self.truth.go_back(past);
        self.era += 1;
        let away = self.rng.u64(0..2) * self.rng.u64(0..4000);
        self.hindered += away;
        self.away_until = self.away_until.max(self.now + away);
    }

    /// Pauses the owner for longer than its lease, so that another one takes over.
    pub(super) fn pause(&mut self) {
        let wrote = self.awaited.write;
        let Some(machine) = self.kill("paused") else { return };
        self.paused = Some((machine, wrote));
        let wait = self.rng.u64(0..40_000);
        self.schedule(wait, SimulationEvent::Wake);
    }

    /// Wakes the paused owner. It finds its lease suspect first, and must not act any more.
    pub(super) fn wake(&mut self) -> CheckResult {
        let Some((mut machine, wrote)) = self.paused.take() else { return Ok(()) };
        self.note(|| "the paused owner wakes".into());
        let now = Timestamp::from_millis(self.now);
        let mut effects = Vec::new();
        machine.step(now, Input::Lease(false), &mut effects);
        if wrote {
            machine.step(now, Input::Stored { lost: false }, &mut effects);
        }
        machine.step(now, Input::Connected, &mut effects);
        machine.step(now, Input::Frame(IncomingFrame::WaitingForInput), &mut effects);
        machine.step(now, Input::Tick, &mut effects);
        if let Some(wake) = machine.wake_at() {
            machine.step(wake, Input::Tick, &mut effects);
        }
        let acts = |effect: &&Effect| matches!(effect, Effect::Send(_) | Effect::Connect(_) | Effect::Ping);
        match effects.iter().find(acts) {
            Some(effect) => Err(format!("a paused owner wakes and does {effect:?}")),
            None => Ok(()),
        }
    }

    /// Checks the size of a write after any outage.
    pub(super) fn check_size(write: &ConversationWrite) -> CheckResult {
        let entries = write.changes.iter().filter(
            |change| matches!(change, ConversationChange::Append(entry) if !matches!(entry.body, EntryBody::Ended { .. } | EntryBody::Closed { .. })),
        );
        let entries = entries.count();
        if entries > 1010 { Err(format!("a write of {entries} entries")) } else { Ok(()) }
    }
}
