//! Pages of conversations in memory.

use std::time::Duration;

use super::conversation::ConversationEntry;
use super::{MemoryLimits, MemoryStore};
use crate::domain::{ConversationId, Timestamp};
use crate::store::conversation_index::{OrderedPlace, PAGE};
use crate::store::conversation_state::last_activity;
use crate::store::{
    ConversationPage, ConversationPlace, ConversationQuery, ConversationSummary, Incarnation,
};

/// The time after its last change at which a conversation without open messages comes to rest.
const REST_AFTER: Duration = Duration::from_secs(30);

#[expect(missing_docs, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    pub fn conversations(&self, query: &ConversationQuery) -> ConversationPage {
        let limit = query.limit.clamp(1, PAGE);
        let after = query.after.clone().map(|place| query.ordered(place));
        let mut matches: Vec<(OrderedPlace, ConversationSummary)> = Vec::new();
        for partition in query.partitions() {
            let step = self.step(partition);
            let (now, owner) = (step.now, step.lease.owner());
            let held = step.conversations.iter().filter(|(name, _)| query.covers(name));
            let listed = held.filter_map(|(name, entry)| {
                let place = place(name, entry, now, &self.limits)?;
                let old = place.rested_at.zip(query.since).is_some_and(|(at, since)| at < since);
                let place = query.ordered(place);
                let fits = !old && after.as_ref().is_none_or(|after| place > *after);
                fits.then(|| (place, summary(name, entry, owner, now)))
            });
            matches.extend(listed);
        }
        matches.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let full = matches.len();
        matches.truncate(limit);
        let next = matches.last().filter(|_| limit < full).map(|(place, _)| place.place.clone());
        ConversationPage { conversations: matches.into_iter().map(|(_, summary)| summary).collect(), next }
    }
}

/// Returns the place of a conversation, or `None` if it has expired.
fn place(
    name: &ConversationId,
    entry: &ConversationEntry,
    now: Timestamp,
    limits: &MemoryLimits,
) -> Option<ConversationPlace> {
    if entry.lane.is_empty() && entry.touched + limits.journal_ttl <= now {
        return None;
    }
    let active = !entry.lane.is_empty() || now < entry.touched + REST_AFTER;
    Some(ConversationPlace { rested_at: (!active).then_some(entry.touched), conversation: name.clone() })
}

fn summary(
    name: &ConversationId,
    entry: &ConversationEntry,
    owner: Option<Incarnation>,
    now: Timestamp,
) -> ConversationSummary {
    let written = entry.record.as_ref().map(|record| record.write);
    // The first `clientMessageId` is above 0.
    let accepted = Some(entry.last_client_message_id).filter(|&last| last > 0);
    ConversationSummary {
        conversation: name.clone(),
        last_activity_at: last_activity(written, accepted, now).unwrap_or_default(),
        open_messages: entry.lane.len() as u64,
        owner,
    }
}
