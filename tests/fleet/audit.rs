//! The invariants of a run, checked from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rtm_bridge::domain::{AcceptedMessage, EntryBody, Message, MessageId};
use rtm_bridge::store::{AcceptError, AcceptResult, IdempotencyKey};

use super::membership::assignment;
use super::store::{StoreAnswer, StoreRequest};
use super::world::{CheckResult, FleetWorld};

/// The promises and reports of a run, and its counts.
#[derive(Debug, Default)]
pub(super) struct AuditLedger {
    promised: BTreeSet<MessageId>,
    ends: BTreeMap<MessageId, String>,
    lost: BTreeSet<MessageId>,
    /// The message of each idempotency key and life of the store.
    keys: HashMap<(IdempotencyKey, u32), MessageId>,
    /// Actions in the documented gaps: after a pause between the lease check and the action, or after a frozen clock.
    pub(super) gaps: u32,
    /// Actions beside a new owner, in the first lease after the store was emptied.
    pub(super) emptied: u32,
    pub(super) sends: u32,
    pub(super) connects: u32,
    pub(super) outcomes: BTreeMap<&'static str, u32>,
}

/// A documented gap of fencing, in which a replica may act for a partition of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FencingGap {
    None,
    /// A pause between the lease check and the action.
    Stopped,
}

impl AuditLedger {
    /// Records a 2xx answer to a caller.
    pub(super) fn promise(&mut self, id: MessageId) {
        self.promised.insert(id);
    }

    /// Records an end that a caller got.
    pub(super) fn ended(&mut self, message: &Message) -> CheckResult {
        let id = message.accepted.id;
        let end = format!("{:?} at {:?}", message.progress.outcome, message.progress.ended_at);
        if !message.progress.has_ended() {
            return Err(format!("{id} is reported and has not ended"));
        }
        let first = self.ends.entry(id).or_insert_with(|| end.clone());
        if *first != end {
            return Err(format!("{id} is reported as {first}, and then as {end}"));
        }
        Ok(())
    }
}

impl FleetWorld {
    /// Records a loss that a caller got.
    pub(super) fn complete_lost(&mut self, id: MessageId) -> CheckResult {
        let life = self.store.accepted.get(&id).map(|(_, life)| *life);
        if life.is_none_or(|life| life == self.store.life) {
            return Err(format!("{id} is reported as lost, but the store did not lose it"));
        }
        self.ledger.lost.insert(id);
        Ok(())
    }

    /// Checks a send or connect: no other replica may own the partition.
    pub(super) fn audit_action(
        &mut self,
        slot: usize,
        user: usize,
        what: &str,
        excuse: FencingGap,
    ) -> CheckResult {
        let Some(me) = self.slots[slot].incarnation() else { return Ok(()) };
        let holder = self.store.holder(self.users[user].partition);
        let Some(holder) = holder.filter(|&holder| holder != me) else { return Ok(()) };
        let stale_clock_since =
            self.slots[slot].replica.as_ref().is_some_and(|replica| replica.stale_clock_since.is_some());
        if excuse == FencingGap::Stopped || stale_clock_since {
            self.ledger.gaps += 1;
            return Ok(());
        }
        // The emptied store did not know the old owner.
        if self.store.life > 0 && super::START + self.now < self.store.emptied_at + super::LEASE {
            self.ledger.emptied += 1;
            return Ok(());
        }
        Err(format!("{slot} {what} for user {user}, but {} is {holder}'s", self.users[user].partition))
    }

    /// Checks a send: the store has recorded it, and the message has not ended.
    pub(super) fn audit_send(
        &mut self,
        slot: usize,
        user: usize,
        message: &AcceptedMessage,
        excuse: FencingGap,
    ) -> CheckResult {
        self.ledger.sends += 1;
        self.audit_action(slot, user, "sends", excuse)?;
        let me = self.slots[slot].incarnation();
        if self.store.holder(self.users[user].partition) != me {
            return Ok(());
        }
        let id = message.id;
        let Some(stored) = self.store.message(&message.new.conversation, id) else {
            return if self.lost_by_the_store(id) {
                Ok(())
            } else {
                Err(format!("{id} is sent and not stored"))
            };
        };
        if stored.progress.sent_at.is_none() {
            return Err(format!("{id} is sent before the store knows"));
        }
        if stored.progress.has_ended() && excuse == FencingGap::None {
            return Err(format!("{id} is sent after its end"));
        }
        Ok(())
    }

    fn lost_by_the_store(&self, id: MessageId) -> bool {
        self.store.accepted.get(&id).is_some_and(|(_, life)| *life != self.store.life)
    }

    /// Checks a loss that a replica reports.
    pub(super) fn audit_forget(&self, id: MessageId) -> CheckResult {
        if self.lost_by_the_store(id) {
            Ok(())
        } else {
            Err(format!("{id} is reported as lost and is stored"))
        }
    }

    /// Checks that a replica reports the stored end.
    pub(super) fn audit_tell(&mut self, message: &Message) -> CheckResult {
        let id = message.accepted.id;
        match self.store.message(&message.accepted.new.conversation, id) {
            Some(stored) if stored.progress.outcome == message.progress.outcome => Ok(()),
            Some(_) => Err(format!("{id} is reported with another end than stored")),
            None if self.lost_by_the_store(id) => Ok(()),
            None => Err(format!("{id} is reported and is not stored")),
        }
    }

    /// Checks an answer of the store: one key has one message.
    pub(super) fn audit_answer(&mut self, ask: &StoreRequest, answer: &StoreAnswer) -> CheckResult {
        let (StoreRequest::Accept(accept), StoreAnswer::Accepted(accepted)) = (ask, answer) else {
            return Ok(());
        };
        let Some(key) = &accept.idempotency else { return Ok(()) };
        let id = match accepted {
            Ok(AcceptResult::New(message) | AcceptResult::SentAtAccept(message)) => message.id,
            Ok(AcceptResult::Replayed(message)) => message.accepted.id,
            Err(AcceptError::Store(_) | AcceptError::LaneFull(_)) => return Ok(()),
            Err(error) => return Err(format!("an accept is refused: {error}")),
        };
        let first = *self.ledger.keys.entry((key.key.clone(), self.store.life)).or_insert(id);
        if first == id { Ok(()) } else { Err(format!("one key, two messages: {first}, {id}")) }
    }

    /// Checks every journal: no gap, no duplicate reply, no duplicate end.
    pub(super) fn audit_journals(&self) -> CheckResult {
        for user in &self.users {
            let (mut replies, mut ended, mut seq) = (HashSet::new(), HashSet::new(), 0);
            for entry in self.store.journal(&user.name) {
                if seq != 0 && entry.seq != seq + 1 {
                    return Err(format!("the journal of {} goes from {seq} to {}", user.name, entry.seq));
                }
                seq = entry.seq;
                match &entry.body {
                    EntryBody::Reply(reply) => {
                        if let Some(id) = &reply.message_id
                            && !replies.insert(id.clone())
                        {
                            return Err(format!("{id} is in the journal twice"));
                        }
                    }
                    EntryBody::Ended { message, .. } | EntryBody::Closed { message, .. }
                        if !ended.insert(*message) =>
                    {
                        return Err(format!("{message} is in the journal as ended twice"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Checks that each partition has its assigned owner.
    pub(super) fn check_owners(&self) -> CheckResult {
        let live: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.replica.as_ref().is_some_and(|replica| replica.leaving.is_none()))
            .filter_map(|slot| Some(slot.peer(slot.incarnation()?)))
            .collect();
        let assignment = assignment(&live);
        for &partition in &self.partitions {
            let should = assignment.owner(partition);
            let holder = self.store.holder(partition);
            if holder.is_none() || holder != should {
                return Err(format!("{partition} is held by {holder:?} and not by {should:?}"));
            }
            let knows = self.slots.iter().filter_map(|slot| slot.replica.as_ref());
            let owners = knows.filter(|replica| replica.membership.fence(partition).is_some()).count();
            if owners != 1 {
                return Err(format!("{owners} replicas believe that they own {partition}"));
            }
        }
        Ok(())
    }

    /// Checks that every accepted message has ended once, unless the store lost it.
    pub(super) fn at_the_end(&mut self) -> CheckResult {
        self.audit_journals()?;
        for (id, (message, life)) in self.store.accepted.clone() {
            let stored = self.store.message(&message.new.conversation, id);
            match &stored {
                Some(stored) if stored.progress.has_ended() => {
                    let end = match &stored.progress.outcome {
                        Some(rtm_bridge::domain::TurnOutcome::Answered(by)) => by.as_str(),
                        Some(rtm_bridge::domain::TurnOutcome::Failed(problem)) => problem.kind.slug(),
                        None => "none",
                    };
                    *self.ledger.outcomes.entry(end).or_default() += 1;
                    if self.ledger.ends.contains_key(&id) {
                        self.ledger.ended(stored)?;
                    }
                }
                Some(_) => return Err(format!("{id} has not ended")),
                None if life != self.store.life => *self.ledger.outcomes.entry("lost").or_default() += 1,
                None => return Err(format!("{id} is gone")),
            }
            if life == self.store.life && self.ledger.lost.contains(&id) {
                return Err(format!("{id} was reported as lost and is stored"));
            }
        }
        let unknown = self.ledger.promised.iter().find(|id| !self.store.accepted.contains_key(id));
        unknown.map_or(Ok(()), |id| Err(format!("{id} was promised and never accepted")))
    }
}
