//! What a replica does besides its conversations: heartbeats, leases, the search for what no hint told of.

use rtm_bridge::domain::Partition;
use rtm_bridge::link::Input;
use rtm_bridge::store::{Heartbeat, Hint};

use super::keeper::Want;
use super::network::{Call, Reply, To};
use super::store::{Answer, Ask};
use super::world::{Deed, Event, Outcome, World};
use super::{LEASE, bot_name};

const SECOND: u64 = 1000;
/// A replica counts as live this long after a heartbeat.
const LIVE: std::time::Duration = std::time::Duration::from_millis(LEASE * 2 / 3);
/// A replica that goes away goes at last after this time.
const DRAIN: u64 = 30_000;

impl World {
    pub(super) fn befall(&mut self, slot: usize, deed: Deed) -> Outcome {
        let life = self.slots[slot].life;
        match deed {
            Deed::Beat => {
                self.beat(slot);
                self.schedule(SECOND, Event::To(slot, life, Deed::Beat));
                return self.tend(slot);
            }
            Deed::Sweep => {
                self.sweep(slot, false);
                self.schedule(SECOND, Event::To(slot, life, Deed::Sweep));
            }
            Deed::Keep => {
                self.renew(slot, false);
                self.schedule(LEASE / 12, Event::To(slot, life, Deed::Keep));
            }
            Deed::Tick { user, number } => return self.on_tick(slot, user, number),
            Deed::Cut { user, number } => {
                if self.conversation(slot, user, number).is_some() {
                    self.forget(slot, user);
                }
            }
            Deed::Reload { user, number } => self.load(slot, user, number),
            Deed::AskPermit { user, number, attempt, mode } => {
                if self.conversation(slot, user, number).is_some_and(|it| it.connecting == Some(attempt)) {
                    self.ask(slot, To::Permit { user, number, attempt, mode }, Ask::Permit(attempt));
                }
            }
            Deed::Answered(call, reply) => return self.answered(slot, *call, reply),
            Deed::Hinted(hint) => return self.hinted(slot, hint),
            Deed::Connected { user, number, attempt, socket } => {
                return self.on_connected(slot, user, (number, attempt), socket);
            }
            Deed::Heard { user, number, socket, input } => {
                return self.on_heard(slot, user, (number, socket), input);
            }
            Deed::History { user, number, page } => {
                return self.input(slot, user, number, Input::History(page));
            }
        }
        Ok(())
    }

    fn answered(&mut self, slot: usize, call: Call, reply: Reply) -> Outcome {
        let sent = call.sent;
        match call.to {
            To::Keeper => self.on_keeper(slot, sent, &call.ask, reply),
            To::Load { user, number } => self.on_loaded(slot, user, number, reply),
            To::Lane { user, number } => self.on_lane(slot, user, number, reply),
            To::Write { user, number } => self.on_written(slot, user, number, reply),
            To::Permit { user, number, attempt, mode } => {
                self.on_permit(slot, (user, number, attempt, mode), &reply)
            }
            To::Post(index) => self.on_accepted(slot, index, reply, call.ask),
            To::Look(index) => self.on_look(index, reply),
            To::Waiters(id) => self.on_waiters(slot, id, reply),
        }
    }

    fn on_keeper(&mut self, slot: usize, sent: u64, ask: &Ask, reply: Reply) -> Outcome {
        let now = self.now;
        let local = self.slots[slot].local(now);
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        match (ask, reply) {
            (Ask::Heartbeat(_), reply) => {
                let fleet = reply.map(|answer| match answer {
                    Answer::Fleet(fleet) => fleet,
                    other => panic!("a heartbeat is answered {other:?}"),
                });
                let told = fleet.as_ref().ok().map(|fleet| fleet.now);
                replica.keeper.on_fleet(local, fleet);
                if let Some(told) = told {
                    self.slots[slot].observe(told, now);
                }
                return self.tend(slot);
            }
            (Ask::Claim(..), Ok(Answer::Claims(claims))) => {
                let mut won = Vec::new();
                replica.keeper.on_claims(sent, &claims);
                for (partition, claim) in claims {
                    if let Some(fence) = claim.fence() {
                        won.push((partition, fence));
                    }
                }
                for &(partition, fence) in &won {
                    // Whatever an earlier fence of ours began is not ours any more.
                    self.drop_conversations(slot, partition, Some(fence));
                }
                if !won.is_empty() {
                    self.note(|| format!("{slot} owns {won:?}"));
                    self.ask(slot, To::Keeper, Ask::Ready(won, true));
                }
            }
            (Ask::Renew(_), Ok(Answer::Renewed(answers))) => {
                if replica.deceived.is_some_and(|since| sent >= since) {
                    replica.deceived = None;
                }
                let mut lost = Vec::new();
                for (partition, fence, answer) in answers {
                    if replica.keeper.on_renewed(sent, partition, fence, answer.map(drop)) {
                        lost.push(partition);
                    }
                }
                for partition in lost {
                    self.note(|| format!("{slot} lost {partition}"));
                    self.drop_conversations(slot, partition, None);
                }
                self.look_at_leases(slot)?;
                return self.tend(slot);
            }
            (Ask::Release(partition, fence), reply) => {
                replica.keeper.on_released(*partition, *fence, reply.is_ok());
                return self.tend(slot);
            }
            (Ask::Ready(..), Ok(Answer::Ready(ready))) => {
                for (partition, fence, names) in ready {
                    match names {
                        Ok(names) => {
                            for name in names {
                                let user = self.users.iter().position(|user| user.name == name);
                                self.deliver(slot, user.unwrap_or_default(), Input::Woken)?;
                            }
                        }
                        Err(_) if self.slots[slot].fence(partition) == Some(fence) => self.renew(slot, true),
                        Err(_) => {}
                    }
                }
            }
            (Ask::Claim(..) | Ask::Renew(_), Err(_)) => replica.keeper.on_trouble(ask, local),
            _ => {}
        }
        Ok(())
    }

    fn hinted(&mut self, slot: usize, hint: Hint) -> Outcome {
        match hint {
            Hint::Accepted(message) => {
                let user = self.users.iter().position(|user| user.name == message.new.conversation);
                self.deliver(slot, user.unwrap_or_default(), Input::Accepted(message))
            }
            Hint::Woken(name) => {
                let user = self.users.iter().position(|user| user.name == name);
                self.deliver(slot, user.unwrap_or_default(), Input::Woken)
            }
            Hint::Ended(message) => {
                self.audit_tell(&message)?;
                self.told(slot, &message)
            }
            // Nobody reads journals here.
            Hint::Appended(_)
            | Hint::Chunk(..)
            | Hint::Observed(..)
            | Hint::Asked { .. }
            | Hint::Redelivered(_)
            | Hint::Answered(..) => Ok(()),
            Hint::EndedLarge { .. } => Err("a message too large for a hint".into()),
            Hint::Fleet => {
                self.beat(slot);
                Ok(())
            }
            Hint::Echo(echo) => {
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.echoed = replica.echoed.max(echo);
                }
                Ok(())
            }
            Hint::Subscribed => {
                self.sweep(slot, true);
                Ok(())
            }
        }
    }

    fn beat(&mut self, slot: usize) {
        let here = &mut self.slots[slot];
        let Some(incarnation) = here.incarnation() else { return };
        let peer = here.peer(incarnation);
        let Some(replica) = &mut here.replica else { return };
        if replica.leaving.is_some() {
            return;
        }
        replica.echo += 1;
        let heartbeat = Heartbeat { peer, bots: vec![bot_name()], ttl: LIVE, echo: replica.echo };
        self.ask(slot, To::Keeper, Ask::Heartbeat(heartbeat));
    }

    fn renew(&mut self, slot: usize, doubt: bool) {
        let local = self.slots[slot].local(self.now);
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let due = replica.keeper.due(local, doubt);
        if !due.is_empty() {
            self.ask(slot, To::Keeper, Ask::Renew(due));
        }
    }

    /// Conversations whose lease became sure, or is not any more, are told.
    fn look_at_leases(&mut self, slot: usize) -> Outcome {
        let users: Vec<usize> = match &self.slots[slot].replica {
            Some(replica) => replica.conversations.keys().copied().collect(),
            None => return Ok(()),
        };
        for user in users {
            self.look_at_lease(slot, user)?;
        }
        Ok(())
    }

    /// Reads what hints may not have told of: lanes, and whoever waits where hints do not arrive.
    fn sweep(&mut self, slot: usize, all: bool) {
        let Some(replica) = &self.slots[slot].replica else { return };
        let held = replica.keeper.held();
        let missed = all || replica.echoed + 1 < replica.echo;
        let waited: Vec<_> = replica
            .waiters
            .iter()
            .filter(|(_, posts)| missed && !posts.is_empty())
            .map(|(id, _)| *id)
            .collect();
        let incarnation = replica.incarnation;
        if !held.is_empty() {
            self.ask(slot, To::Keeper, Ask::Ready(held, false));
        }
        for id in waited {
            let Some((message, _)) = self.store.accepted.get(&id) else { continue };
            let name = message.new.conversation.clone();
            self.ask(slot, To::Waiters(id), Ask::Look(name, id, Some(incarnation)));
        }
    }

    /// The store refused what a conversation asked: its partition is not ours, or it is and was claimed anew.
    pub(super) fn doubt(&mut self, slot: usize, user: usize) {
        self.forget(slot, user);
        self.renew(slot, true);
    }

    /// Does what the keeper decides.
    fn tend(&mut self, slot: usize) -> Outcome {
        let local = self.slots[slot].local(self.now);
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        let conversations = &replica.conversations;
        let wants = replica.keeper.wants(local, |partition| {
            conversations.values().all(|conversation| conversation.partition != partition)
        });
        let incarnation = replica.incarnation;
        let leaving = replica.leaving;
        let mut claims = Vec::new();
        for want in wants {
            match want {
                Want::Claim(partition, claiming) => claims.push((partition, claiming)),
                Want::Drain(partition) => {
                    self.note(|| format!("{slot} drains {partition}"));
                    for user in self.in_memory(slot, partition) {
                        self.deliver(slot, user, Input::Drain)?;
                    }
                }
                Want::Stop(partition) => {
                    for user in self.in_memory(slot, partition) {
                        self.stop(slot, user)?;
                    }
                }
                Want::Release(partition, fence) => {
                    self.note(|| format!("{slot} releases {partition}"));
                    self.ask(slot, To::Keeper, Ask::Release(partition, fence));
                }
            }
        }
        if !claims.is_empty() {
            self.ask(slot, To::Keeper, Ask::Claim(claims, incarnation));
        }
        if let Some(since) = leaving {
            let held = self.slots[slot].replica.as_ref().map(|replica| replica.keeper.held().len());
            if held == Some(0) || local > since + DRAIN {
                self.note(|| format!("{slot} goes"));
                self.ask(slot, To::Keeper, Ask::Leave(incarnation));
                self.kill(slot);
            }
        }
        Ok(())
    }

    fn in_memory(&self, slot: usize, partition: Partition) -> Vec<usize> {
        let Some(replica) = &self.slots[slot].replica else { return Vec::new() };
        let of_it = replica.conversations.iter().filter(|(_, it)| it.partition == partition);
        of_it.map(|(&user, _)| user).collect()
    }

    /// Conversations of a partition leave memory, but those of this fence.
    fn drop_conversations(
        &mut self,
        slot: usize,
        partition: Partition,
        but: Option<rtm_bridge::store::Fence>,
    ) {
        for user in self.in_memory(slot, partition) {
            let fence =
                self.slots[slot].replica.as_ref().and_then(|it| Some(it.conversations.get(&user)?.fence));
            if fence != but || but.is_none() {
                self.forget(slot, user);
            }
        }
    }
}
