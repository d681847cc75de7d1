//! What must be true whatever happens, checked from outside.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rtm_bridge::domain::{AcceptedMessage, EntryBody, Message, MessageId};
use rtm_bridge::store::{AcceptError, AcceptResult};

use super::keeper::deal;
use super::store::{Answer, Ask};
use super::world::{Outcome, World};

/// What was promised and told in a run, and what it saw.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    promised: BTreeSet<MessageId>,
    ends: BTreeMap<MessageId, String>,
    lost: BTreeSet<MessageId>,
    /// The message of each key, and the store's life in which it was accepted.
    keys: BTreeMap<(Box<str>, u32), MessageId>,
    /// What was done in the documented gaps: a pause between the look at the lease and the deed, or a clock that
    /// stood still with its replica.
    pub(super) gaps: u32,
    /// What was done beside a new owner, in the first lease after the store was emptied under the old one.
    pub(super) emptied: u32,
    pub(super) sends: u32,
    pub(super) connects: u32,
    pub(super) outcomes: BTreeMap<&'static str, u32>,
}

/// What lets a replica act although the partition is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excuse {
    None,
    /// It stood still between the look at the lease and the deed.
    Stopped,
}

impl Ledger {
    /// A caller was answered with 2xx.
    pub(super) fn promise(&mut self, id: MessageId) {
        self.promised.insert(id);
    }

    /// A caller was told how its message ended.
    pub(super) fn told(&mut self, message: &Message) -> Outcome {
        let id = message.accepted.id;
        let end = format!("{:?} at {:?}", message.progress.outcome, message.progress.ended_at);
        if !message.progress.has_ended() {
            return Err(format!("{id} is told and has not ended"));
        }
        let first = self.ends.entry(id).or_insert_with(|| end.clone());
        if *first != end {
            return Err(format!("{id} is told as {first}, and then as {end}"));
        }
        Ok(())
    }
}

impl World {
    /// A caller was told that its message is lost.
    pub(super) fn told_lost(&mut self, id: MessageId) -> Outcome {
        let life = self.store.accepted.get(&id).map(|(_, life)| *life);
        if life.is_none_or(|life| life == self.store.life) {
            return Err(format!("{id} is told as lost, but the store did not lose it"));
        }
        self.ledger.lost.insert(id);
        Ok(())
    }

    /// A replica sends or begins a connect: no other may hold the partition.
    pub(super) fn audit_deed(&mut self, slot: usize, user: usize, what: &str, excuse: Excuse) -> Outcome {
        let Some(me) = self.slots[slot].incarnation() else { return Ok(()) };
        let holder = self.store.holder(self.users[user].partition);
        let Some(holder) = holder.filter(|&holder| holder != me) else { return Ok(()) };
        let deceived = self.slots[slot].replica.as_ref().is_some_and(|replica| replica.deceived.is_some());
        if excuse == Excuse::Stopped || deceived {
            self.ledger.gaps += 1;
            return Ok(());
        }
        // The new owner did not know that there was another: the store had forgotten.
        if self.store.life > 0 && super::START + self.now < self.store.emptied_at + super::LEASE {
            self.ledger.emptied += 1;
            return Ok(());
        }
        Err(format!("{slot} {what} for user {user}, but {} is {holder}'s", self.users[user].partition))
    }

    /// Bytes of a message leave: the store knows that they do, and not that it has ended.
    pub(super) fn audit_send(
        &mut self,
        slot: usize,
        user: usize,
        message: &AcceptedMessage,
        excuse: Excuse,
    ) -> Outcome {
        self.ledger.sends += 1;
        self.audit_deed(slot, user, "sends", excuse)?;
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
        if stored.progress.has_ended() && excuse == Excuse::None {
            return Err(format!("{id} is sent after its end"));
        }
        Ok(())
    }

    fn lost_by_the_store(&self, id: MessageId) -> bool {
        self.store.accepted.get(&id).is_some_and(|(_, life)| *life != self.store.life)
    }

    /// A replica says that the store lost a message.
    pub(super) fn audit_forget(&self, id: MessageId) -> Outcome {
        if self.lost_by_the_store(id) { Ok(()) } else { Err(format!("{id} is given up as lost and is not")) }
    }

    /// What a replica tells is what is stored.
    pub(super) fn audit_tell(&mut self, message: &Message) -> Outcome {
        let id = message.accepted.id;
        match self.store.message(&message.accepted.new.conversation, id) {
            Some(stored) if stored.progress.outcome == message.progress.outcome => Ok(()),
            Some(_) => Err(format!("{id} is told otherwise than it is stored")),
            None if self.lost_by_the_store(id) => Ok(()),
            None => Err(format!("{id} is told and is not stored")),
        }
    }

    /// What the store answered: one message for one key.
    pub(super) fn audit_answer(&mut self, ask: &Ask, answer: &Answer) -> Outcome {
        let (Ask::Accept(accept), Answer::Accepted(accepted)) = (ask, answer) else { return Ok(()) };
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

    /// Every journal: places without a gap, no reply twice, no end twice.
    pub(super) fn audit_journals(&self) -> Outcome {
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

    /// Whether each partition is owned by the one live replica that should.
    pub(super) fn check_owners(&self) -> Outcome {
        let live: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.replica.as_ref().is_some_and(|replica| replica.leaving.is_none()))
            .filter_map(|slot| Some(slot.peer(slot.incarnation()?)))
            .collect();
        let deal = deal(&live);
        for &partition in &self.partitions {
            let should = deal.owner(partition);
            let holder = self.store.holder(partition);
            if holder.is_none() || holder != should {
                return Err(format!("{partition} is held by {holder:?} and not by {should:?}"));
            }
            let knows = self.slots.iter().filter_map(|slot| slot.replica.as_ref());
            let owners = knows.filter(|replica| replica.keeper.fence(partition).is_some()).count();
            if owners != 1 {
                return Err(format!("{owners} replicas believe that they own {partition}"));
            }
        }
        Ok(())
    }

    /// Every message that was accepted has ended, once, unless the store lost it.
    pub(super) fn at_the_end(&mut self) -> Outcome {
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
                        self.ledger.told(stored)?;
                    }
                }
                Some(_) => return Err(format!("{id} has not ended")),
                None if life != self.store.life => *self.ledger.outcomes.entry("lost").or_default() += 1,
                None => return Err(format!("{id} is gone")),
            }
            if life == self.store.life && self.ledger.lost.contains(&id) {
                return Err(format!("{id} was told as lost and is there"));
            }
        }
        let unknown = self.ledger.promised.iter().find(|id| !self.store.accepted.contains_key(id));
        unknown.map_or(Ok(()), |id| Err(format!("{id} was promised and never accepted")))
    }
}
