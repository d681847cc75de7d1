//! The changes that wait for a write, in order and within a bound.

use crate::domain::MessageId;
use crate::store::ConversationChange;

/// The most changes that wait for an unavailable store.
pub(super) const MAX_CHANGES: usize = 1000;
/// The most bytes of them by [`weight`].
pub(super) const MAX_WEIGHT: usize = 4 * 1024 * 1024;

/// The number of changes at which no further frame is read before a write. A write is short, because Redis serves no
/// other conversation meanwhile.
pub(super) const CROWDED_CHANGES: usize = 16;
/// The same in bytes.
pub(super) const CROWDED_WEIGHT: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(super) struct PendingChanges {
    changes: Vec<ConversationChange>,
    weight: usize,
}

impl PendingChanges {
    pub(super) fn push(&mut self, change: ConversationChange) {
        self.weight += weight(&change);
        self.changes.push(change);
    }

    pub(super) fn put_first(&mut self, mut changes: Vec<ConversationChange>) {
        self.weight += changes.iter().map(weight).sum::<usize>();
        changes.append(&mut self.changes);
        self.changes = changes;
    }

    pub(super) fn take(&mut self) -> Vec<ConversationChange> {
        self.weight = 0;
        std::mem::take(&mut self.changes)
    }

    /// Drops the changes of this message. The replies of the bot stay.
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

    /// Returns whether no further frame should be read before a write.
    pub(super) const fn is_crowded(&self) -> bool {
        self.changes.len() >= CROWDED_CHANGES || self.weight >= CROWDED_WEIGHT
    }

    /// Returns whether these changes and the others have reached the bound together.
    pub(super) fn is_full_with(&self, others: &[ConversationChange]) -> bool {
        let weight = self.weight + others.iter().map(weight).sum::<usize>();
        self.changes.len() + others.len() >= MAX_CHANGES || weight >= MAX_WEIGHT
    }
}

/// Returns the bytes that count towards the bound. The delivery of an end counts zero: there is one at a time, and
/// the replies that it repeats have their own bound.
fn weight(change: &ConversationChange) -> usize {
    match change {
        ConversationChange::Deliver(delivery) if delivery.kind.is_end() => 0,
        ConversationChange::Deliver(delivery) => delivery.weight(),
        _ => change.weight(),
    }
}
