//! The actions of a replica: heartbeats, leases, and sweeps for open messages without a hint.

use rtm_bridge::domain::Partition;
use rtm_bridge::link::Input;
use rtm_bridge::store::{Heartbeat, Hint};

use super::membership::MembershipAction;
use super::network::{CallPurpose, StoreCall, StoreReply};
use super::store::{StoreAnswer, StoreRequest};
use super::world::{CheckResult, FleetWorld, ReplicaAction};
use super::{LEASE, bot_name};

const SECOND: u64 = 1000;
/// The lifetime of a heartbeat.
const LIVE: std::time::Duration = std::time::Duration::from_millis(LEASE * 2 / 3);
/// The timeout of a shutdown.
const DRAIN: u64 = 30_000;

impl FleetWorld {
    pub(super) fn act(&mut self, slot: usize, action: ReplicaAction) -> CheckResult {
        let life = self.slots[slot].life;
        match action {
            ReplicaAction::Beat => {
                self.beat(slot);
                self.schedule_action(SECOND, slot, life, ReplicaAction::Beat);
                return self.execute_plan(slot);
            }
            ReplicaAction::Sweep => {
                self.sweep(slot, false);
                self.schedule_action(SECOND, slot, life, ReplicaAction::Sweep);
            }
            ReplicaAction::Keep => {
                self.renew(slot, false);
                self.schedule_action(LEASE / 12, slot, life, ReplicaAction::Keep);
            }
            ReplicaAction::Tick { user, number } => return self.on_tick(slot, user, number),
            ReplicaAction::Cut { user, number } => {
                if self.conversation(slot, user, number).is_some() {
                    self.forget(slot, user);
                }
            }
            ReplicaAction::Reload { user, number } => self.load(slot, user, number),
            ReplicaAction::AskPermit { user, number, attempt, mode } => {
                if self.conversation(slot, user, number).is_some_and(|it| it.connecting == Some(attempt)) {
                    self.ask(
                        slot,
                        CallPurpose::Permit { user, number, attempt, mode },
                        StoreRequest::Permit(attempt),
                    );
                }
            }
            ReplicaAction::Answered(call, reply) => return self.answered(slot, *call, reply),
            ReplicaAction::Hinted(hint) => return self.hinted(slot, hint),
            ReplicaAction::Connected { user, number, attempt, socket } => {
                return self.on_connected(slot, user, (number, attempt), socket);
            }
            ReplicaAction::Heard { user, number, socket, input } => {
                return self.on_heard(slot, user, (number, socket), input);
            }
            ReplicaAction::History { user, number, page } => {
                return self.input(slot, user, number, Input::History(page));
            }
        }
        Ok(())
    }

    fn answered(&mut self, slot: usize, call: StoreCall, reply: StoreReply) -> CheckResult {
        let sent = call.sent;
        match call.to {
            CallPurpose::Membership => self.on_membership(slot, sent, &call.ask, reply),
            CallPurpose::Load { user, number } => self.on_loaded(slot, user, number, reply),
            CallPurpose::Lane { user, number } => self.on_lane(slot, user, number, reply),
            CallPurpose::Write { user, number } => self.on_written(slot, user, number, reply),
            CallPurpose::Permit { user, number, attempt, mode } => {
                self.on_permit(slot, (user, number, attempt, mode), &reply)
            }
            CallPurpose::Post(index) => self.on_accepted(slot, index, reply, call.ask),
            CallPurpose::Poll(index, id) => self.on_poll(index, id, reply),
            CallPurpose::Waiters(id) => self.on_waiters(slot, id, reply),
        }
    }

    fn on_membership(
        &mut self,
        slot: usize,
        sent: u64,
        ask: &StoreRequest,
        reply: StoreReply,
    ) -> CheckResult {
        let now = self.now;
        let local = self.slots[slot].local(now);
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        match (ask, reply) {
            (StoreRequest::Heartbeat(_), reply) => {
                let fleet = reply.map(|answer| match answer {
                    StoreAnswer::Fleet(fleet) => fleet,
                    other => panic!("a heartbeat is answered {other:?}"),
                });
                let store_time = fleet.as_ref().ok().map(|fleet| fleet.now);
                replica.membership.on_fleet(local, fleet);
                if let Some(store_time) = store_time {
                    self.slots[slot].observe(store_time, now);
                }
                return self.execute_plan(slot);
            }
            (StoreRequest::Claim(..), Ok(StoreAnswer::Claims(claims))) => {
                let mut won = Vec::new();
                replica.membership.on_claims(sent, &claims);
                for (partition, claim) in claims {
                    if let Some(fence) = claim.fence() {
                        won.push((partition, fence));
                    }
                }
                for &(partition, fence) in &won {
                    // Conversations of an earlier fence leave.
                    self.drop_conversations(slot, partition, Some(fence));
                }
                if !won.is_empty() {
                    self.note(|| format!("{slot} owns {won:?}"));
                    self.ask(slot, CallPurpose::Membership, StoreRequest::Ready(won, true));
                }
            }
            (StoreRequest::Renew(_), Ok(StoreAnswer::Renewed(answers))) => {
                if replica.stale_clock_since.is_some_and(|since| sent >= since) {
                    replica.stale_clock_since = None;
                }
                let mut lost = Vec::new();
                for (partition, fence, answer) in answers {
                    if replica.membership.on_renewed(sent, partition, fence, answer.map(drop)) {
                        lost.push(partition);
                    }
                }
                for partition in lost {
                    self.note(|| format!("{slot} lost {partition}"));
                    self.drop_conversations(slot, partition, None);
                }
                self.check_leases(slot)?;
                return self.execute_plan(slot);
            }
            (StoreRequest::Release(partition, fence), reply) => {
                replica.membership.on_released(*partition, *fence, reply.is_ok());
                return self.execute_plan(slot);
            }
            (StoreRequest::Ready(..), Ok(StoreAnswer::Ready(ready))) => {
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
            (StoreRequest::Claim(..) | StoreRequest::Renew(_), Err(_)) => {
                replica.membership.on_failure(ask, local);
            }
            _ => {}
        }
        Ok(())
    }

    fn hinted(&mut self, slot: usize, hint: Hint) -> CheckResult {
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
                self.complete(slot, &message)
            }
            // The simulation has no subscribers.
            Hint::Appended(_)
            | Hint::Erased(..)
            | Hint::UserErased(_)
            | Hint::Chunk(..)
            | Hint::Signal(..)
            | Hint::Platform(..)
            | Hint::Observed(..)
            | Hint::Asked { .. }
            | Hint::AskedList { .. }
            | Hint::AnsweredList(..)
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
        self.ask(slot, CallPurpose::Membership, StoreRequest::Heartbeat(heartbeat));
    }

    fn renew(&mut self, slot: usize, suspect: bool) {
        let local = self.slots[slot].local(self.now);
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let due = replica.membership.due(local, suspect);
        if !due.is_empty() {
            self.ask(slot, CallPurpose::Membership, StoreRequest::Renew(due));
        }
    }

    /// Tells conversations about changes of their leases.
    fn check_leases(&mut self, slot: usize) -> CheckResult {
        let users: Vec<usize> = match &self.slots[slot].replica {
            Some(replica) => replica.conversations.keys().copied().collect(),
            None => return Ok(()),
        };
        for user in users {
            self.check_lease(slot, user)?;
        }
        Ok(())
    }

    /// Reads lanes, and the messages of waiters if hints do not arrive.
    fn sweep(&mut self, slot: usize, all: bool) {
        let Some(replica) = &self.slots[slot].replica else { return };
        let held = replica.membership.held();
        let missed = all || replica.echoed + 1 < replica.echo;
        let waited: Vec<_> = replica
            .waiters
            .iter()
            .filter(|(_, posts)| missed && !posts.is_empty())
            .map(|(id, _)| *id)
            .collect();
        let incarnation = replica.incarnation;
        if !held.is_empty() {
            self.ask(slot, CallPurpose::Membership, StoreRequest::Ready(held, false));
        }
        for id in waited {
            let Some((message, _)) = self.store.accepted.get(&id) else { continue };
            let name = message.new.conversation.clone();
            self.ask(slot, CallPurpose::Waiters(id), StoreRequest::ReadMessage(name, id, Some(incarnation)));
        }
    }

    /// Handles a refused fence: the partition is lost, or this replica has claimed it again.
    pub(super) fn suspect(&mut self, slot: usize, user: usize) {
        self.forget(slot, user);
        self.renew(slot, true);
    }

    /// Executes the plan of the membership model.
    fn execute_plan(&mut self, slot: usize) -> CheckResult {
        let local = self.slots[slot].local(self.now);
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        let conversations = &replica.conversations;
        let actions = replica.membership.actions(local, |partition| {
            conversations.values().all(|conversation| conversation.partition != partition)
        });
        let incarnation = replica.incarnation;
        let leaving = replica.leaving;
        let mut claims = Vec::new();
        for action in actions {
            match action {
                MembershipAction::Claim(partition, claiming) => claims.push((partition, claiming)),
                MembershipAction::Drain(partition) => {
                    self.note(|| format!("{slot} drains {partition}"));
                    for user in self.in_memory(slot, partition) {
                        self.deliver(slot, user, Input::Drain)?;
                    }
                }
                MembershipAction::Stop(partition) => {
                    for user in self.in_memory(slot, partition) {
                        self.stop(slot, user)?;
                    }
                }
                MembershipAction::Release(partition, fence) => {
                    self.note(|| format!("{slot} releases {partition}"));
                    self.ask(slot, CallPurpose::Membership, StoreRequest::Release(partition, fence));
                }
            }
        }
        if !claims.is_empty() {
            self.ask(slot, CallPurpose::Membership, StoreRequest::Claim(claims, incarnation));
        }
        if let Some(since) = leaving {
            let held = self.slots[slot].replica.as_ref().map(|replica| replica.membership.held().len());
            if held == Some(0) || local > since + DRAIN {
                self.note(|| format!("{slot} ends"));
                self.ask(slot, CallPurpose::Membership, StoreRequest::Leave(incarnation));
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

    /// Removes conversations of a partition from memory, except those of the fence `but`.
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
