//! The index of conversations: a query, a page, and the order of both.
//!
//! The index has each conversation that the store knows. A conversation whose socket stays open is there too, because its
//! owner writes the record of an open link twice a day.
//!
//! A conversation is active if it has an open message or changed within the last 30 s. It counts as active now. Otherwise
//! it is at rest, and counts by the time at which it came to rest. That is its last change or up to a minute later.

use std::cmp::Ordering;

use crate::domain::{BotName, ConversationId, Partition, Timestamp};
use crate::store::Incarnation;

/// The limit of conversations of a page.
pub(super) const PAGE: usize = 1000;

/// The order of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConversationOrder {
    /// Newest activity first. Active conversations, and those that came to rest at one time, follow each other by name,
    /// last name first.
    #[default]
    NewestFirst,
    /// By name, `bot/user`, byte by byte.
    ByName,
}

/// A filter for conversations, with the part of the matches that is wanted.
#[derive(Clone, Debug, Default)]
pub struct ConversationQuery {
    /// Conversations of these bots only; `None` means every bot.
    pub bots: Option<Vec<BotName>>,
    /// Conversations of users whose identity begins with this.
    pub user_prefix: Box<str>,
    /// Conversations of this partition only; `None` merges all partitions.
    pub partition: Option<Partition>,
    /// Active conversations, and those that came to rest at this time or later.
    pub since: Option<Timestamp>,
    /// The order.
    pub order: ConversationOrder,
    /// The end of the page before, [`ConversationPage::next`]; `None` begins.
    pub after: Option<ConversationPlace>,
    /// The limit of the page, 1 to 1000.
    pub limit: usize,
}

/// The place of a conversation in the order of a query. It stays valid if the conversation changes or expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationPlace {
    /// When the conversation came to rest; `None` for an active one. It does not matter in the order by name.
    pub rested_at: Option<Timestamp>,
    /// The conversation.
    pub conversation: ConversationId,
}

/// A conversation in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationSummary {
    /// The conversation.
    pub conversation: ConversationId,
    /// The time of the last write or accept, as in
    /// [`ConversationState::last_activity_at`](crate::domain::ConversationState::last_activity_at).
    pub last_activity_at: Timestamp,
    /// The number of messages that have not ended.
    pub open_messages: u64,
    /// The owner of its partition, also after the end of the lease; `None` for a free partition.
    pub owner: Option<Incarnation>,
}

/// A page of conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationPage {
    /// The conversations, in the order of the query.
    pub conversations: Vec<ConversationSummary>,
    /// The start of the next page ([`ConversationQuery::after`]); `None` after the last one.
    pub next: Option<ConversationPlace>,
}

impl ConversationQuery {
    /// Returns whether the filter covers this conversation, apart from its activity.
    pub(super) fn covers(&self, conversation: &ConversationId) -> bool {
        self.bots.as_ref().is_none_or(|bots| bots.contains(conversation.bot()))
            && conversation.user().as_str().starts_with(&*self.user_prefix)
    }

    /// Returns the partitions that may have matches.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.partition.map_or_else(|| Partition::all().collect(), |partition| vec![partition])
    }

    /// Returns the place in this query's order.
    pub(super) const fn ordered(&self, place: ConversationPlace) -> OrderedPlace {
        OrderedPlace { order: self.order, place }
    }
}

/// A place with its order. Earlier places are less.
#[derive(Clone, Debug)]
pub(super) struct OrderedPlace {
    order: ConversationOrder,
    pub(super) place: ConversationPlace,
}

impl Ord for OrderedPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        let name = || compare_names(&self.place.conversation, &other.place.conversation);
        // An active conversation is newer than any that came to rest.
        let rest = |place: &ConversationPlace| place.rested_at.map_or(u64::MAX, Timestamp::as_millis);
        match self.order {
            ConversationOrder::ByName => name(),
            ConversationOrder::NewestFirst => {
                rest(&other.place).cmp(&rest(&self.place)).then_with(|| name().reverse())
            }
        }
    }
}

impl PartialEq for OrderedPlace {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for OrderedPlace {}

impl PartialOrd for OrderedPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares `bot/user`, which differs from bot and user each by itself if one bot's name begins with another's.
fn compare_names(one: &ConversationId, other: &ConversationId) -> Ordering {
    name_bytes(one).cmp(name_bytes(other))
}

fn name_bytes(of: &ConversationId) -> impl Iterator<Item = u8> {
    of.bot().as_str().bytes().chain([b'/']).chain(of.user().as_str().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::conversation;

    fn sorted(order: ConversationOrder, mut places: Vec<(Option<u64>, &str)>) -> Vec<(Option<u64>, &str)> {
        let ordered = |&(rested_at, name): &(Option<u64>, &str)| {
            let (bot, user) = name.split_once('/').unwrap();
            let rested_at = rested_at.map(Timestamp::from_millis);
            OrderedPlace {
                order,
                place: ConversationPlace { rested_at, conversation: conversation(bot, user) },
            }
        };
        places.sort_by_key(ordered);
        places
    }

    #[test]
    fn names_are_ordered_with_their_slash() {
        let names = [(None, "a-b/x"), (Some(5), "a/B"), (None, "a/b"), (None, "a/é"), (None, "b/a")];
        assert_eq!(sorted(ConversationOrder::ByName, names.into_iter().rev().collect()), names);
    }

    #[test]
    fn active_conversations_are_newest() {
        let places = [(None, "a/b"), (None, "a/a"), (Some(9), "a/y"), (Some(9), "a/x"), (Some(8), "b/z")];
        assert_eq!(sorted(ConversationOrder::NewestFirst, places.into_iter().rev().collect()), places);
    }
}
