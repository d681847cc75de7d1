//! A conversation in a replica's memory: the link's machine, with its effects executed on the models. It follows the link's
//! driver.

use std::collections::VecDeque;
use std::sync::Arc;

use rtm_bridge::link::{Effect, Input, Machine};
use rtm_bridge::store::StoreError;

use super::network::{CallPurpose, StoreReply};
use super::replica::LoadedConversation;
use super::store::{StoreAnswer, StoreRequest};
use super::world::{CheckResult, FleetWorld, ReplicaAction, WorldEvent, kind};
use crate::simulation::trace::{tell_effect, tell_input};

/// The time for the last writes of a conversation.
const LAST_WRITES: u64 = 1000;

impl FleetWorld {
    /// Passes an input to a user's conversation, and loads it if the replica owns its partition.
    pub(super) fn deliver(&mut self, slot: usize, user: usize, input: Input) -> CheckResult {
        let partition = self.users[user].partition;
        let number = self.numbers + 1;
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        let Some(fence) = replica.membership.fence(partition) else { return Ok(()) };
        if let Some(conversation) = replica.conversations.get_mut(&user) {
            if conversation.machine.is_some() {
                return self.step(slot, user, input);
            }
            conversation.mail.push(input);
            return Ok(());
        }
        if replica.membership.is_draining(partition) {
            return Ok(());
        }
        self.numbers = number;
        replica.conversations.insert(user, LoadedConversation::new(number, fence, partition));
        self.load(slot, user, number);
        Ok(())
    }

    pub(super) fn load(&mut self, slot: usize, user: usize, number: u64) {
        if let Some(conversation) = self.conversation(slot, user, number) {
            let fence = conversation.fence;
            let name = self.users[user].name.clone();
            self.ask(slot, CallPurpose::Load { user, number }, StoreRequest::Open(fence, name));
        }
    }

    pub(super) fn on_loaded(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
        reply: StoreReply,
    ) -> CheckResult {
        let now = self.now;
        let seed = self.rng.u64(..);
        let bot = Arc::clone(&self.bot);
        if self.conversation(slot, user, number).is_none() {
            return Ok(());
        }
        let (open, store_time) = match reply {
            Ok(StoreAnswer::Opened(Ok(opened))) => *opened,
            Ok(StoreAnswer::Opened(Err(error))) if !error.is_passing() => {
                self.suspect(slot, user);
                return Ok(());
            }
            _ => {
                let wait = self.rng.u64(1..1000);
                self.schedule_action(
                    wait,
                    slot,
                    self.slots[slot].life,
                    ReplicaAction::Reload { user, number },
                );
                return Ok(());
            }
        };
        self.slots[slot].observe(store_time, now);
        let time = self.slots[slot].store_time(now);
        let name = self.users[user].name.clone();
        let Some(conversation) = self.conversation(slot, user, number) else { return Ok(()) };
        conversation.machine = Some(Machine::new(bot, None, name, open, time, seed));
        let mail = std::mem::take(&mut conversation.mail);
        self.step(slot, user, Input::Tick)?;
        for input in mail {
            if self.conversation(slot, user, number).is_some() {
                self.step(slot, user, input)?;
            }
        }
        Ok(())
    }

    /// Returns the conversation with this number if it is in memory.
    pub(super) fn conversation(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
    ) -> Option<&mut LoadedConversation> {
        let conversation = self.slots[slot].replica.as_mut()?.conversations.get_mut(&user)?;
        (conversation.number == number).then_some(conversation)
    }

    /// Passes an input to the conversation with this number.
    pub(super) fn input(&mut self, slot: usize, user: usize, number: u64, input: Input) -> CheckResult {
        let lives = self.conversation(slot, user, number).is_some_and(|it| it.machine.is_some());
        if lives { self.step(slot, user, input) } else { Ok(()) }
    }

    fn step(&mut self, slot: usize, user: usize, input: Input) -> CheckResult {
        let mut inputs = VecDeque::from([input]);
        let mut effects = VecDeque::new();
        let mut rested = false;
        loop {
            if let Some(effect) = effects.pop_front() {
                self.hash_in(kind(&effect));
                if let Effect::Rest = effect {
                    rested = true;
                    continue;
                }
                inputs.extend(self.perform(slot, user, effect)?);
                if self.in_memory_of(slot, user).is_none() {
                    return Ok(());
                }
                continue;
            }
            let Some(input) = inputs.pop_front() else { break };
            rested = false;
            let now = self.slots[slot].store_time(self.now);
            let shown = self.trace.is_some().then(|| tell_input(&input));
            let lease_valid = self.may_act(slot, user);
            let Some(conversation) = self.in_memory_of(slot, user) else { return Ok(()) };
            let changed = std::mem::replace(&mut conversation.lease_valid, lease_valid) != lease_valid;
            let Some(machine) = &mut conversation.machine else { return Ok(()) };
            let mut new = Vec::new();
            if changed {
                machine.step(now, Input::Lease(lease_valid), &mut new);
            }
            machine.step(now, input, &mut new);
            if let Some(shown) = shown {
                let actions: Vec<_> = new.iter().map(tell_effect).collect();
                let state = machine.link_state(now);
                self.note(|| format!("{slot}, user {user}: {shown} -> {actions:?} {state:?}"));
            }
            effects.extend(new);
        }
        if rested {
            self.forget(slot, user);
        } else {
            self.arm(slot, user);
        }
        Ok(())
    }

    fn in_memory_of(&mut self, slot: usize, user: usize) -> Option<&mut LoadedConversation> {
        self.slots[slot].replica.as_mut()?.conversations.get_mut(&user)
    }

    fn perform(&mut self, slot: usize, user: usize, effect: Effect) -> CheckResult<Option<Input>> {
        let life = self.slots[slot].life;
        let name = self.users[user].name.clone();
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(None) };
        let Some(conversation) = replica.conversations.get_mut(&user) else { return Ok(None) };
        let (number, fence) = (conversation.number, conversation.fence);
        match effect {
            Effect::Write(write) => {
                self.ask(slot, CallPurpose::Write { user, number }, StoreRequest::Write(fence, name, write));
            }
            Effect::ReadLane => {
                self.ask(slot, CallPurpose::Lane { user, number }, StoreRequest::Open(fence, name));
            }
            Effect::Connect(request) => {
                let attempt = self.number();
                if let Some(conversation) = self.conversation(slot, user, number) {
                    conversation.connecting = Some(attempt);
                }
                return self.connect(slot, user, number, attempt, request.mode);
            }
            Effect::Send(message) => {
                let machine = conversation.machine.as_ref();
                if machine.is_none_or(|machine| !machine.is_sending(message.id)) {
                    return Ok(None);
                }
                return self.send(slot, user, number, message);
            }
            Effect::Ping => {
                if let Some(socket) = conversation.socket {
                    let wait = self.rng.u64(5..400);
                    if self.users[user].sockets.contains_key(&socket) {
                        let action = ReplicaAction::Heard { user, number, socket, input: Input::PeerAlive };
                        self.schedule_action(wait, slot, life, action);
                    }
                }
            }
            Effect::Close(_) | Effect::Abandon(_) => {
                conversation.connecting = None;
                if let Some(socket) = conversation.socket.take() {
                    self.users[user].sockets.remove(&socket);
                }
            }
            Effect::ReadHistory(after) => {
                let wait = self.rng.u64(1..200);
                self.schedule(wait, WorldEvent::ReadHistory { slot, life, user, number, after });
            }
            Effect::Complete { message, .. } => {
                self.audit_tell(&message)?;
                self.complete(slot, &message)?;
            }
            Effect::ReportLoss(id) => {
                self.audit_forget(id)?;
                self.complete_as_lost(slot, id)?;
            }
            Effect::Reconciled
            | Effect::OutOfTurn(_)
            | Effect::Learn(_)
            | Effect::FarOffTime
            | Effect::Chunk(_)
            | Effect::Platform(_)
            | Effect::Signal(..)
            | Effect::Acknowledge(_)
            | Effect::Rest => {}
            Effect::Erase => return Err("no user asks for an erasure".into()),
        }
        Ok(None)
    }

    /// Handles the answer to a write.
    pub(super) fn on_written(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
        reply: StoreReply,
    ) -> CheckResult {
        match reply {
            Ok(StoreAnswer::Written(Ok(written))) => {
                self.slots[slot].observe(written.now, self.now);
                self.input(slot, user, number, Input::Stored { lost: written.lost })
            }
            Ok(StoreAnswer::Written(Err(StoreError::OutOfStep))) => {
                self.input(slot, user, number, Input::OutOfStep)
            }
            Ok(StoreAnswer::Written(Err(error))) if !error.is_passing() => {
                if self.conversation(slot, user, number).is_some() {
                    self.suspect(slot, user);
                }
                Ok(())
            }
            _ => self.input(slot, user, number, Input::WriteUnknown),
        }
    }

    pub(super) fn on_lane(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
        reply: StoreReply,
    ) -> CheckResult {
        let Some(conversation) = self.conversation(slot, user, number) else { return Ok(()) };
        let fence = conversation.fence;
        match reply {
            Ok(StoreAnswer::Opened(Ok(opened))) => {
                let (open, store_time) = *opened;
                self.slots[slot].observe(store_time, self.now);
                self.input(slot, user, number, Input::Lane(Box::new(open)))
            }
            Ok(StoreAnswer::Opened(Err(error))) if !error.is_passing() => {
                self.suspect(slot, user);
                Ok(())
            }
            _ => {
                let name = self.users[user].name.clone();
                self.ask(slot, CallPurpose::Lane { user, number }, StoreRequest::Open(fence, name));
                Ok(())
            }
        }
    }

    pub(super) fn on_tick(&mut self, slot: usize, user: usize, number: u64) -> CheckResult {
        if let Some(conversation) = self.conversation(slot, user, number) {
            conversation.armed = None;
        }
        self.input(slot, user, number, Input::Tick)
    }

    /// Tells the machine about a change of the lease.
    pub(super) fn check_lease(&mut self, slot: usize, user: usize) -> CheckResult {
        let lease_valid = self.may_act(slot, user);
        let conversation = self.in_memory_of(slot, user);
        let differs = conversation.is_some_and(|it| it.machine.is_some() && it.lease_valid != lease_valid);
        if differs { self.step(slot, user, Input::Tick) } else { Ok(()) }
    }

    /// Stops a conversation, with some time for its last writes.
    pub(super) fn stop(&mut self, slot: usize, user: usize) -> CheckResult {
        let life = self.slots[slot].life;
        let Some(conversation) = self.in_memory_of(slot, user) else { return Ok(()) };
        let number = conversation.number;
        if conversation.machine.is_none() {
            self.forget(slot, user);
            return Ok(());
        }
        self.schedule_action(LAST_WRITES, slot, life, ReplicaAction::Cut { user, number });
        self.step(slot, user, Input::Stop)
    }

    /// Sets the timer unless an earlier one is set.
    fn arm(&mut self, slot: usize, user: usize) {
        let now = self.slots[slot].store_time(self.now);
        let life = self.slots[slot].life;
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let Some(conversation) = replica.conversations.get_mut(&user) else { return };
        let Some(at) = conversation.machine.as_ref().and_then(Machine::wake_at) else { return };
        if conversation.armed.is_none_or(|armed| at < armed) {
            conversation.armed = Some(at);
            let number = conversation.number;
            let wait = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX).clamp(1, 86_400_000);
            self.schedule_action(wait, slot, life, ReplicaAction::Tick { user, number });
        }
    }

    fn hang_up(&mut self, slot: usize, user: usize) {
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let Some(conversation) = replica.conversations.get_mut(&user) else { return };
        if let Some(socket) = conversation.socket.take() {
            self.users[user].sockets.remove(&socket);
        }
    }

    /// Removes the conversation from memory and closes its socket.
    pub(super) fn forget(&mut self, slot: usize, user: usize) {
        self.hang_up(slot, user);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.conversations.remove(&user);
        }
    }
}
