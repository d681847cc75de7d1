//! Who reads the conversations of one partition live, here and elsewhere.
//!
//! Readers of this replica are told by the shard of the partition, whoever owns that. Readers of other replicas are
//! known to the owner by the replica that they read at, for as long as it says so: pieces of streamed replies are sent
//! there. What the owner does not know of, nobody is sent; new entries the store itself hints at.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::observer::{Publisher, Telling};
use crate::domain::{ConversationId, ReplyChunk};
use crate::store::{Incarnation, OBSERVED};

/// Conversations of a partition that are noted as observed elsewhere; of more the pieces of replies are not sent.
const ELSEWHERE: usize = 4096;
/// Replicas that are noted for one conversation.
const REPLICAS: usize = 64;

/// The observers of one partition's conversations.
#[derive(Debug, Default)]
pub(super) struct Observers {
    here: HashMap<ConversationId, Vec<Publisher>>,
    elsewhere: HashMap<ConversationId, Vec<(Incarnation, Instant)>>,
}

/// How many readers were told something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) told: u64,
    /// Let go of, because they did not read.
    pub(super) slow: u64,
}

impl Observers {
    /// Somebody reads the conversation here.
    pub(super) fn add(&mut self, conversation: ConversationId, teller: Publisher) {
        self.here.entry(conversation).or_insert_with(|| Vec::with_capacity(1)).push(teller);
    }

    /// Tells who reads the conversation here to look.
    pub(super) fn look(&mut self, conversation: &ConversationId) -> Told {
        self.tell(conversation, Publisher::look)
    }

    /// Tells who reads the conversation here of a piece of a reply.
    pub(super) fn chunk(&mut self, conversation: &ConversationId, chunk: &Arc<ReplyChunk>) -> Told {
        self.tell(conversation, |teller| teller.chunk(chunk))
    }

    /// Tells all who read here to look.
    pub(super) fn look_all(&self) -> Told {
        let told = self.here.values().flatten().filter(|teller| teller.look() == Telling::Done).count();
        Told { told: count(told), slow: 0 }
    }

    /// What is read here.
    pub(super) fn conversations(&self) -> impl ExactSizeIterator<Item = &ConversationId> {
        self.here.keys()
    }

    /// How many read here.
    pub(super) fn readers(&self) -> usize {
        self.here.values().map(Vec::len).sum()
    }

    /// Somebody reads the conversation at another replica.
    pub(super) fn note(&mut self, conversation: ConversationId, by: Incarnation, now: Instant) {
        if self.elsewhere.len() >= ELSEWHERE && !self.elsewhere.contains_key(&conversation) {
            return;
        }
        let replicas = self.elsewhere.entry(conversation).or_insert_with(|| Vec::with_capacity(1));
        let until = now + OBSERVED;
        if let Some((_, noted)) = replicas.iter_mut().find(|(replica, _)| *replica == by) {
            *noted = until;
        } else if replicas.len() < REPLICAS {
            replicas.push((by, until));
        }
    }

    /// At which other replicas the conversation is read.
    pub(super) fn elsewhere(
        &self,
        conversation: &ConversationId,
        now: Instant,
    ) -> impl Iterator<Item = Incarnation> {
        let replicas = self.elsewhere.get(conversation).into_iter().flatten();
        replicas.filter(move |(_, until)| now < *until).map(|(replica, _)| *replica)
    }

    /// Forgets who has gone.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.here.retain(|_, tellers| {
            tellers.retain(|teller| !teller.is_gone());
            !tellers.is_empty()
        });
        self.elsewhere.retain(|_, replicas| {
            replicas.retain(|(_, until)| now < *until);
            !replicas.is_empty()
        });
        shrink(&mut self.here);
        shrink(&mut self.elsewhere);
    }

    /// Lets all go who read here.
    pub(super) fn dismiss(&mut self) {
        self.here = HashMap::new();
    }

    fn tell(&mut self, conversation: &ConversationId, tell: impl Fn(&Publisher) -> Telling) -> Told {
        let mut told = Told::default();
        let Some(tellers) = self.here.get_mut(conversation) else { return told };
        tellers.retain(|teller| match tell(teller) {
            Telling::Done => {
                told.told += 1;
                true
            }
            Telling::Gone => false,
            Telling::Slow => {
                told.slow += 1;
                false
            }
        });
        told
    }
}

fn shrink<T>(table: &mut HashMap<ConversationId, T>) {
    if table.capacity() > 64 && table.len() * 8 < table.capacity() {
        table.shrink_to_fit();
    }
}

fn count(some: usize) -> u64 {
    u64::try_from(some).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
