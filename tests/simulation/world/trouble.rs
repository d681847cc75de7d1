//! What goes wrong around the machine: its lease is not sure, its store is away or loses data, it stands still.

use std::sync::Arc;

use rtm_bridge::domain::{EntryBody, Timestamp};
use rtm_bridge::link::{Effect, Input};
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::{ConversationChange, ConversationWrite};
use serde_json::value::RawValue;

use super::super::platform::{Said, chance};
use super::{Applied, Event, Outcomes, World};

/// The most steps of the store that a failover takes back.
const MOST_LOST: usize = 6;

impl World {
    /// Draws what will go wrong within this time.
    pub(super) fn plan_trouble(&mut self, within: u64) {
        for _ in 0..3 {
            if chance(&mut self.rng, self.temper.losses) {
                let (at, steps) = (self.rng.u64(0..within), self.rng.usize(1..=MOST_LOST));
                self.schedule(at, Event::Failover(steps));
            }
            if chance(&mut self.rng, self.temper.unsure) {
                let at = self.rng.u64(0..within);
                self.schedule(at, Event::Lease(false));
            }
            if chance(&mut self.rng, self.temper.outages) {
                let (at, ms) = (self.rng.u64(0..within), self.rng.u64(1..1000) * self.rng.u64(1..60));
                self.schedule(at, Event::Outage(ms));
            }
        }
    }

    pub(super) const fn is_away(&self) -> bool {
        self.now < self.away_until
    }

    /// Keeps what the store is, where it may have to go back to it.
    pub(super) fn remember(&mut self) {
        if self.temper.losses > 0 {
            self.past.push(self.truth.clone());
        }
    }

    /// A write arrives at the store.
    pub(super) fn apply(&mut self, era: u32, write: &Arc<ConversationWrite>, awaited: bool) -> Outcomes {
        let life = self.life;
        if era != self.era || self.is_away() {
            if awaited {
                self.schedule(1, Event::Input(life, Input::Unknown));
            }
            return Ok(());
        }
        self.remember();
        let input = match self.truth.apply(write)? {
            Applied::Done { ended, lost } => {
                for (message, since, at) in ended {
                    self.check_end(message, since, at)?;
                }
                Input::Stored { lost }
            }
            Applied::OutOfStep if awaited && !self.truth.lossy => {
                return Err(format!("write {} is out of step", write.record.write));
            }
            Applied::OutOfStep => {
                // Commands keep their order: what was sent before this one has arrived, or never will.
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
            self.schedule(1, Event::Input(life, input));
        }
        Ok(())
    }

    /// The lease is sure from now on, or not. The machine is told with its next step, and that is at once where
    /// it may act again.
    pub(super) fn lease(&mut self, sure: bool) -> Outcomes {
        self.note(|| format!("the lease is sure: {sure}"));
        self.lease.sure = sure;
        if !sure {
            let wait = self.rng.u64(1..20_000);
            self.hindered += wait;
            self.schedule(wait, Event::Lease(true));
        }
        if sure || self.rng.bool() { self.tell_machine(Input::Tick) } else { Ok(()) }
    }

    pub(super) fn outage(&mut self, ms: u64) {
        self.note(|| format!("the store is away for {ms} ms"));
        self.hindered += ms;
        self.away_until = self.away_until.max(self.now + ms);
        if ms > 10_000 {
            self.schedule(10_000, Event::Lease(false));
        }
        let Some((socket, _)) = self.socket else { return };
        let frames = if self.rng.u8(0..16) == 0 { 1200 } else { self.rng.u64(0..20) };
        for _ in 0..frames {
            let at = self.rng.u64(0..ms.max(1));
            let Ok(event) = RawValue::from_string("{}".to_owned()) else { continue };
            self.schedule(at, Event::Said(socket, Said::Frame(IncomingFrame::Platform(event))));
        }
    }

    /// The store goes back to what it was some steps ago. What was on its way to it does not arrive.
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

    /// The owner stands still for longer than its lease: another one takes over.
    pub(super) fn pause(&mut self) {
        let wrote = self.awaited.write;
        let Some(machine) = self.kill("paused") else { return };
        self.paused = Some((machine, wrote));
        let wait = self.rng.u64(0..40_000);
        self.schedule(wait, Event::Wake);
    }

    /// The old owner goes on: it finds its lease unsure before it does anything else, and says nothing, whatever
    /// it had in hand.
    pub(super) fn wake(&mut self) -> Outcomes {
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

    /// What a write may hold at most, however long the store was away.
    pub(super) fn check_size(write: &ConversationWrite) -> Outcomes {
        let entries = write.changes.iter().filter(
            |change| matches!(change, ConversationChange::Append(entry) if !matches!(entry.body, EntryBody::Ended { .. } | EntryBody::Closed { .. })),
        );
        let entries = entries.count();
        if entries > 1010 { Err(format!("a write of {entries} entries")) } else { Ok(()) }
    }
}
