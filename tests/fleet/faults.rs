//! The faults of replicas and the store, and the recovery from them.

use rtm_bridge::store::Incarnation;

use super::fault_plan::{Fault, SLOTS};
use super::replica::RunningReplica;
use super::world::{CheckResult, FleetWorld, ReplicaAction, WorldEvent};
use super::{LEASE, START};

impl FleetWorld {
    pub(super) fn inject(&mut self, fault: Fault) {
        if self.faults_ended_at.is_some() {
            return;
        }
        self.note(|| format!("{fault:?}"));
        if !std::mem::replace(&mut self.faulted, true) {
            self.settled = self.store.moves.len();
        }
        match fault {
            Fault::Crash { slot, back } => {
                self.kill(slot);
                self.schedule(back, WorldEvent::Start(slot));
            }
            Fault::Pause { slot, time, frozen } => self.pause(slot, time, frozen),
            Fault::PauseInSend { slot, time } => {
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.pause_in_send = Some(time);
                }
            }
            Fault::Cut { slot, time } => {
                self.slots[slot].cut = true;
                self.schedule(time, WorldEvent::Mend(slot));
            }
            Fault::Term { slot, back } => {
                let local = self.slots[slot].local(self.now);
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.leaving.get_or_insert(local);
                    replica.membership.leave();
                    self.schedule(40_000 + back, WorldEvent::Start(slot));
                }
            }
            Fault::Join { slot } => self.start_replica(slot),
            Fault::Away { time, empty } => {
                self.store.away = true;
                self.schedule(time, WorldEvent::Return { empty });
            }
        }
    }

    pub(super) fn start_replica(&mut self, slot: usize) {
        if self.slots[slot].replica.is_some() {
            return;
        }
        let here = &mut self.slots[slot];
        here.life += 1;
        // The order is random, but the values are few, so that other runs share the cached assignments.
        let order = u64::from(here.life).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8 << 8;
        let incarnation = Incarnation(order + slot as u64);
        here.paused = None;
        let life = here.life;
        here.replica = Some(RunningReplica::new(here, incarnation, &self.partitions, self.now));
        self.store.listen(incarnation);
        self.note(|| format!("{slot} starts as {incarnation}"));
        self.schedule_action(0, slot, life, ReplicaAction::Beat);
        self.schedule_action(500, slot, life, ReplicaAction::Sweep);
        self.schedule_action(LEASE / 12, slot, life, ReplicaAction::Keep);
    }

    /// Removes a replica with its state and sockets.
    pub(super) fn kill(&mut self, slot: usize) {
        let here = &mut self.slots[slot];
        let Some(replica) = here.replica.take() else { return };
        here.life += 1;
        here.paused = None;
        self.store.hang_up(replica.incarnation);
        for user in &mut self.users {
            user.sockets.retain(|_, socket| socket.slot != slot);
        }
        self.fail_callers(slot);
    }

    pub(super) fn pause(&mut self, slot: usize, time: u64, frozen: bool) {
        let here = &mut self.slots[slot];
        if here.replica.is_none() || here.paused.is_some() {
            return;
        }
        here.paused = Some(Vec::new());
        let life = here.life;
        let since = self.now;
        self.schedule(time, WorldEvent::Wake { slot, life, since, frozen });
    }

    pub(super) fn wake(&mut self, slot: usize, since: u64, frozen: bool) -> CheckResult {
        let here = &mut self.slots[slot];
        let Some(backlog) = here.paused.take() else { return Ok(()) };
        let life = here.life;
        if frozen {
            here.stood_still += self.now - since;
        }
        let local = here.local(self.now);
        if let Some(replica) = here.replica.as_mut().filter(|_| frozen) {
            replica.stale_clock_since = Some(local);
        }
        self.note(|| format!("{slot} continues"));
        // Held sends come first, then timers and arrived events, in either order.
        self.send_held(slot)?;
        let timers_first = self.rng.bool();
        let (timers, rest): (Vec<_>, Vec<_>) = backlog.into_iter().partition(|event| {
            matches!(
                event,
                WorldEvent::Replica(
                    _,
                    _,
                    ReplicaAction::Tick { .. }
                        | ReplicaAction::Beat
                        | ReplicaAction::Sweep
                        | ReplicaAction::Keep
                )
            )
        });
        let (first, then) = if timers_first { (timers, rest) } else { (rest, timers) };
        for event in first.into_iter().chain(then) {
            if self.slots[slot].life == life {
                self.schedule(0, event);
            }
        }
        Ok(())
    }

    pub(super) fn return_store(&mut self, empty: bool) -> CheckResult {
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

    /// Ends all faults.
    pub(super) fn end_faults(&mut self) -> CheckResult {
        self.return_store(false)?;
        self.note(|| "no more faults from here on".into());
        self.plan.end_faults();
        self.faults_ended_at = Some(self.now);
        for slot in 0..SLOTS {
            self.slots[slot].cut = false;
            if let Some(replica) = &mut self.slots[slot].replica {
                replica.pause_in_send = None;
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
        self.schedule(0, WorldEvent::Check);
        Ok(())
    }
}
