//! A conversation in a replica's memory: the link's machine, and its effects carried out against the models, in
//! the way in which the link's driver does.

use std::collections::VecDeque;
use std::sync::Arc;

use rtm_bridge::link::{Effect, Input, Machine};
use rtm_bridge::store::StoreError;

use super::network::{Reply, To};
use super::replica::Conversation;
use super::store::{Answer, Ask};
use super::world::{Deed, Event, Outcome, World, kind};
use crate::simulation::trace::{tell_effect, tell_input};

/// How long a conversation's last writes may take.
const LAST_WRITES: u64 = 1000;

impl World {
    /// Something for a user's conversation: it is brought into memory where it is not yet there and is ours.
    pub(super) fn deliver(&mut self, slot: usize, user: usize, input: Input) -> Outcome {
        let partition = self.users[user].partition;
        let number = self.numbers + 1;
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        let Some(fence) = replica.keeper.fence(partition) else { return Ok(()) };
        if let Some(conversation) = replica.conversations.get_mut(&user) {
            if conversation.machine.is_some() {
                return self.step(slot, user, input);
            }
            conversation.mail.push(input);
            return Ok(());
        }
        if replica.keeper.is_draining(partition) {
            return Ok(());
        }
        self.numbers = number;
        replica.conversations.insert(user, Conversation::new(number, fence, partition));
        self.load(slot, user, number);
        Ok(())
    }

    pub(super) fn load(&mut self, slot: usize, user: usize, number: u64) {
        if let Some(conversation) = self.conversation(slot, user, number) {
            let fence = conversation.fence;
            let name = self.users[user].name.clone();
            self.ask(slot, To::Load { user, number }, Ask::Open(fence, name));
        }
    }

    pub(super) fn on_loaded(&mut self, slot: usize, user: usize, number: u64, reply: Reply) -> Outcome {
        let now = self.now;
        let seed = self.rng.u64(..);
        let bot = Arc::clone(&self.bot);
        if self.conversation(slot, user, number).is_none() {
            return Ok(());
        }
        let (open, told) = match reply {
            Ok(Answer::Opened(Ok(opened))) => *opened,
            Ok(Answer::Opened(Err(error))) if !error.is_passing() => {
                self.doubt(slot, user);
                return Ok(());
            }
            _ => {
                let life = self.slots[slot].life;
                let wait = self.rng.u64(1..1000);
                self.schedule(wait, Event::To(slot, life, Deed::Reload { user, number }));
                return Ok(());
            }
        };
        self.slots[slot].observe(told, now);
        let time = self.slots[slot].store_time(now);
        let name = self.users[user].name.clone();
        let Some(conversation) = self.conversation(slot, user, number) else { return Ok(()) };
        conversation.machine = Some(Machine::new(bot, name, open, time, seed));
        let mail = std::mem::take(&mut conversation.mail);
        self.step(slot, user, Input::Tick)?;
        for input in mail {
            if self.conversation(slot, user, number).is_some() {
                self.step(slot, user, input)?;
            }
        }
        Ok(())
    }

    /// The conversation with this number, if it is still in memory.
    pub(super) fn conversation(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
    ) -> Option<&mut Conversation> {
        let conversation = self.slots[slot].replica.as_mut()?.conversations.get_mut(&user)?;
        (conversation.number == number).then_some(conversation)
    }

    /// Something for the conversation with this number; for none other.
    pub(super) fn input(&mut self, slot: usize, user: usize, number: u64, input: Input) -> Outcome {
        let lives = self.conversation(slot, user, number).is_some_and(|it| it.machine.is_some());
        if lives { self.step(slot, user, input) } else { Ok(()) }
    }

    fn step(&mut self, slot: usize, user: usize, input: Input) -> Outcome {
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
            let told = self.trace.is_some().then(|| tell_input(&input));
            let sure = self.may_act(slot, user);
            let Some(conversation) = self.in_memory_of(slot, user) else { return Ok(()) };
            let changed = std::mem::replace(&mut conversation.sure, sure) != sure;
            let Some(machine) = &mut conversation.machine else { return Ok(()) };
            let mut new = Vec::new();
            if changed {
                machine.step(now, Input::Lease(sure), &mut new);
            }
            machine.step(now, input, &mut new);
            if let Some(told) = told {
                let wants: Vec<_> = new.iter().map(tell_effect).collect();
                let state = machine.link_state(now);
                self.note(|| format!("{slot}, user {user}: {told} -> {wants:?} {state:?}"));
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

    fn in_memory_of(&mut self, slot: usize, user: usize) -> Option<&mut Conversation> {
        self.slots[slot].replica.as_mut()?.conversations.get_mut(&user)
    }

    fn perform(&mut self, slot: usize, user: usize, effect: Effect) -> Outcome<Option<Input>> {
        let life = self.slots[slot].life;
        let name = self.users[user].name.clone();
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(None) };
        let Some(conversation) = replica.conversations.get_mut(&user) else { return Ok(None) };
        let (number, fence) = (conversation.number, conversation.fence);
        match effect {
            Effect::Write(write) => {
                self.ask(slot, To::Write { user, number }, Ask::Write(fence, name, write));
            }
            Effect::ReadLane => self.ask(slot, To::Lane { user, number }, Ask::Open(fence, name)),
            Effect::Connect(mode) => {
                let attempt = self.number();
                if let Some(conversation) = self.conversation(slot, user, number) {
                    conversation.connecting = Some(attempt);
                }
                return self.connect(slot, user, number, attempt, mode);
            }
            Effect::Send(message) => return self.send(slot, user, number, message),
            Effect::Ping => {
                if let Some(socket) = conversation.socket {
                    let wait = self.rng.u64(5..400);
                    if self.users[user].sockets.contains_key(&socket) {
                        let deed = Deed::Heard { user, number, socket, input: Input::PeerAlive };
                        self.schedule(wait, Event::To(slot, life, deed));
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
                self.schedule(wait, Event::ReadHistory { slot, life, user, number, after });
            }
            Effect::Complete { message, .. } => {
                self.audit_tell(&message)?;
                self.told(slot, &message)?;
            }
            Effect::ReportLoss(id) => {
                self.audit_forget(id)?;
                self.lost(slot, id)?;
            }
            Effect::Reconciled | Effect::OutOfTurn(_) | Effect::Chunk(_) | Effect::Rest => {}
        }
        Ok(None)
    }

    /// The answer to a write.
    pub(super) fn on_written(&mut self, slot: usize, user: usize, number: u64, reply: Reply) -> Outcome {
        match reply {
            Ok(Answer::Written(Ok(written))) => {
                self.slots[slot].observe(written.now, self.now);
                self.input(slot, user, number, Input::Stored { lost: written.lost })
            }
            Ok(Answer::Written(Err(StoreError::OutOfStep))) => {
                self.input(slot, user, number, Input::OutOfStep)
            }
            Ok(Answer::Written(Err(error))) if !error.is_passing() => {
                if self.conversation(slot, user, number).is_some() {
                    self.doubt(slot, user);
                }
                Ok(())
            }
            _ => self.input(slot, user, number, Input::WriteUnknown),
        }
    }

    pub(super) fn on_lane(&mut self, slot: usize, user: usize, number: u64, reply: Reply) -> Outcome {
        let Some(conversation) = self.conversation(slot, user, number) else { return Ok(()) };
        let fence = conversation.fence;
        match reply {
            Ok(Answer::Opened(Ok(opened))) => {
                let (open, told) = *opened;
                self.slots[slot].observe(told, self.now);
                self.input(slot, user, number, Input::Lane(Box::new(open)))
            }
            Ok(Answer::Opened(Err(error))) if !error.is_passing() => {
                self.doubt(slot, user);
                Ok(())
            }
            _ => {
                let name = self.users[user].name.clone();
                self.ask(slot, To::Lane { user, number }, Ask::Open(fence, name));
                Ok(())
            }
        }
    }

    pub(super) fn on_tick(&mut self, slot: usize, user: usize, number: u64) -> Outcome {
        if let Some(conversation) = self.conversation(slot, user, number) {
            conversation.armed = None;
        }
        self.input(slot, user, number, Input::Tick)
    }

    /// The machine is told where its lease became sure, or is not any more.
    pub(super) fn look_at_lease(&mut self, slot: usize, user: usize) -> Outcome {
        let sure = self.may_act(slot, user);
        let conversation = self.in_memory_of(slot, user);
        let differs = conversation.is_some_and(|it| it.machine.is_some() && it.sure != sure);
        if differs { self.step(slot, user, Input::Tick) } else { Ok(()) }
    }

    /// A conversation is to end: its last writes are awaited for a moment.
    pub(super) fn stop(&mut self, slot: usize, user: usize) -> Outcome {
        let life = self.slots[slot].life;
        let Some(conversation) = self.in_memory_of(slot, user) else { return Ok(()) };
        let number = conversation.number;
        if conversation.machine.is_none() {
            self.forget(slot, user);
            return Ok(());
        }
        self.schedule(LAST_WRITES, Event::To(slot, life, Deed::Cut { user, number }));
        self.step(slot, user, Input::Stop)
    }

    /// Sets the timer, unless it will go off early enough.
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
            self.schedule(wait, Event::To(slot, life, Deed::Tick { user, number }));
        }
    }

    fn hang_up(&mut self, slot: usize, user: usize) {
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let Some(conversation) = replica.conversations.get_mut(&user) else { return };
        if let Some(socket) = conversation.socket.take() {
            self.users[user].sockets.remove(&socket);
        }
    }

    /// The conversation leaves memory; its socket is closed.
    pub(super) fn forget(&mut self, slot: usize, user: usize) {
        self.hang_up(slot, user);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.conversations.remove(&user);
        }
    }
}
