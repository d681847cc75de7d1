//! What befalls replicas and the store, and how they come back.

use rtm_bridge::store::Incarnation;

use super::replica::Replica;
use super::temper::{Blow, SLOTS};
use super::world::{Deed, Event, Outcome, World};
use super::{LEASE, START};

impl World {
    pub(super) fn strike(&mut self, blow: Blow) {
        if self.calm_since.is_some() {
            return;
        }
        self.note(|| format!("{blow:?}"));
        if !std::mem::replace(&mut self.struck, true) {
            self.settled = self.store.moves.len();
        }
        match blow {
            Blow::Crash { slot, back } => {
                self.kill(slot);
                self.schedule(back, Event::Start(slot));
            }
            Blow::Pause { slot, time, frozen } => self.pause(slot, time, frozen),
            Blow::PauseInSend { slot, time } => {
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.trap = Some(time);
                }
            }
            Blow::Cut { slot, time } => {
                self.slots[slot].cut = true;
                self.schedule(time, Event::Mend(slot));
            }
            Blow::Term { slot, back } => {
                let local = self.slots[slot].local(self.now);
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.leaving.get_or_insert(local);
                    replica.keeper.leave();
                    self.schedule(40_000 + back, Event::Start(slot));
                }
            }
            Blow::Join { slot } => self.start_replica(slot),
            Blow::Away { time, empty } => {
                self.store.away = true;
                self.schedule(time, Event::Return { empty });
            }
        }
    }

    pub(super) fn start_replica(&mut self, slot: usize) {
        if self.slots[slot].replica.is_some() {
            return;
        }
        let here = &mut self.slots[slot];
        here.life += 1;
        // By chance, as far as their order goes, but of a few, so that deals over them are known from other runs.
        let order = u64::from(here.life).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8 << 8;
        let incarnation = Incarnation(order + slot as u64);
        here.paused = None;
        let life = here.life;
        here.replica = Some(Replica::new(here, incarnation, &self.partitions, self.now));
        self.store.listen(incarnation);
        self.note(|| format!("{slot} starts as {incarnation}"));
        self.schedule(0, Event::To(slot, life, Deed::Beat));
        self.schedule(500, Event::To(slot, life, Deed::Sweep));
        self.schedule(LEASE / 12, Event::To(slot, life, Deed::Keep));
    }

    /// The replica's state is gone, and its sockets with it.
    pub(super) fn kill(&mut self, slot: usize) {
        let here = &mut self.slots[slot];
        let Some(replica) = here.replica.take() else { return };
        here.life += 1;
        here.paused = None;
        self.store.hang_up(replica.incarnation);
        for user in &mut self.users {
            user.sockets.retain(|_, socket| socket.slot != slot);
        }
        self.forsake_callers(slot);
    }

    pub(super) fn pause(&mut self, slot: usize, time: u64, frozen: bool) {
        let here = &mut self.slots[slot];
        if here.replica.is_none() || here.paused.is_some() {
            return;
        }
        here.paused = Some(Vec::new());
        let life = here.life;
        let since = self.now;
        self.schedule(time, Event::Wake { slot, life, since, frozen });
    }

    pub(super) fn wake(&mut self, slot: usize, since: u64, frozen: bool) -> Outcome {
        let here = &mut self.slots[slot];
        let Some(backlog) = here.paused.take() else { return Ok(()) };
        let life = here.life;
        if frozen {
            here.stood_still += self.now - since;
        }
        let local = here.local(self.now);
        if let Some(replica) = here.replica.as_mut().filter(|_| frozen) {
            replica.deceived = Some(local);
        }
        self.note(|| format!("{slot} goes on"));
        // What was about to be done is done first; then timers and what has arrived, in either order.
        self.let_go(slot)?;
        let timers_first = self.rng.bool();
        let (timers, rest): (Vec<_>, Vec<_>) = backlog.into_iter().partition(|event| {
            matches!(event, Event::To(_, _, Deed::Tick { .. } | Deed::Beat | Deed::Sweep | Deed::Keep))
        });
        let (first, then) = if timers_first { (timers, rest) } else { (rest, timers) };
        for event in first.into_iter().chain(then) {
            if self.slots[slot].life == life {
                self.schedule(0, event);
            }
        }
        Ok(())
    }

    pub(super) fn return_store(&mut self, empty: bool) -> Outcome {
        if !std::mem::take(&mut self.store.away) {
            return Ok(());
        }
        if empty {
            self.audit_journals()?;
            self.store.empty(START + self.now);
        }
        self.note(|| format!("the store is back{}", if empty { ", empty" } else { "" }));
        Ok(())
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm_down(&mut self) -> Outcome {
        self.return_store(false)?;
        self.note(|| "everything goes well from here on".into());
        self.temper.calm_down();
        self.calm_since = Some(self.now);
        for slot in 0..SLOTS {
            self.slots[slot].cut = false;
            if let Some(replica) = &mut self.slots[slot].replica {
                replica.trap = None;
            }
            if self.slots[slot].paused.is_some() {
                self.wake(slot, self.now, false)?;
            }
        }
        let staying = self
            .slots
            .iter()
            .any(|slot| slot.replica.as_ref().is_some_and(|replica| replica.leaving.is_none()));
        if !staying {
            let free = self.slots.iter().position(|slot| slot.replica.is_none());
            let slot = free.unwrap_or_default();
            self.kill(slot);
            self.start_replica(slot);
        }
        self.schedule(0, Event::Check);
        Ok(())
    }
}
