//! Changes that wait for their write: in order, weighed, and bounded.

use crate::domain::MessageId;
use crate::store::ConversationChange;

/// The most changes that wait for a store that is away.
pub(super) const MAX_CHANGES: usize = 1000;
/// The most bytes of them, by [`weight`].
pub(super) const MAX_WEIGHT: usize = 4 * 1024 * 1024;

/// What waits for its write.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: Vec<ConversationChange>,
    weight: usize,
}

impl Pending {
    pub(super) fn push(&mut self, change: ConversationChange) {
        self.weight += weight(&change);
        self.changes.push(change);
    }

    /// Puts changes before all that wait.
    pub(super) fn put_first(&mut self, mut changes: Vec<ConversationChange>) {
        self.weight += changes.iter().map(weight).sum::<usize>();
        changes.append(&mut self.changes);
        self.changes = changes;
    }

    /// Takes all of it, for a write.
    pub(super) fn take(&mut self) -> Vec<ConversationChange> {
        self.weight = 0;
        std::mem::take(&mut self.changes)
    }

    /// Lets go of what is told of this message itself. What the bot said stays.
    pub(super) fn forget(&mut self, id: MessageId) {
        self.changes.retain(|change| match change {
            ConversationChange::Sent { message, .. }
            | ConversationChange::Acked { message, .. }
            | ConversationChange::Answering { message, .. } => *message != id,
            ConversationChange::HeadSince { .. } => true,
            ConversationChange::Deliver(delivery) => {
                !(delivery.kind.is_end() && delivery.message == Some(id))
            }
            ConversationChange::Append(_) => change.ended().is_none_or(|(message, _)| message != id),
        });
        self.weight = self.changes.iter().map(weight).sum();
    }

    pub(super) fn all(&self) -> &[ConversationChange] {
        &self.changes
    }

    /// Whether so much waits that no more can be taken in.
    pub(super) const fn is_full(&self) -> bool {
        self.changes.len() >= MAX_CHANGES || self.weight >= MAX_WEIGHT
    }
}

/// What counts towards the bound. Of ends there is one at a time, and what it tells has a bound of its own: it does not
/// cost the socket whose replies it repeats.
fn weight(change: &ConversationChange) -> usize {
    match change {
        ConversationChange::Deliver(delivery) if delivery.kind.is_end() => 0,
        ConversationChange::Deliver(delivery) => delivery.weight(),
        _ => change.weight(),
    }
}
