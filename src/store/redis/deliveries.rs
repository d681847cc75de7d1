//! Reads of deliveries: one by its id, and lists over all partitions.
//!
//! A list takes two steps. First each partition returns the ids of its newest deliveries, and these are merged. A
//! partition that runs out before the page is full is asked again. Then the deliveries of the page are read.
//! Deliveries that are not on the page are never read.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::RedisStore;
use super::codec::{self, CorruptData};
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use crate::domain::{BotName, Delivery, DeliveryId, DeliveryState, Partition, UserId};
use crate::store::{DeliveryPage, DeliveryQuery, StoreError, journal_page};

/// The limit of deliveries of a page.
const PAGE: usize = 1000;
/// The number of rounds for one page. If few deliveries match, the page may end before it is full.
const ROUNDS: usize = 8;

impl RedisStore {
    pub(in crate::store) async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        Ok(self.read_deliveries(id.partition(), &[id]).await?.pop())
    }

    pub(in crate::store) async fn deliveries(
        &self,
        query: &DeliveryQuery,
    ) -> Result<DeliveryPage, StoreError> {
        if query.bots.as_ref().is_some_and(Vec::is_empty) {
            return Ok(DeliveryPage::default());
        }
        let limit = query.limit.clamp(1, PAGE);
        let partitions = query.partitions();
        // This is about twice a partition's share of the page.
        let mut each = (limit * 2 / partitions.len().max(1) + 8).min(limit);
        let mut merge = DeliveryMerge::new(partitions, query.before);
        for _ in 0..ROUNDS {
            let lists = merge
                .sources_to_ask()
                .map(|source| self.list(query, source.partition, source.older_than, each));
            let lists = try_join_all(lists).await?;
            merge.add_lists(lists);
            if merge.merge(limit + 1) {
                break;
            }
            each = limit;
        }
        let (merged, next) = merge.page(limit);
        let mut parts: BTreeMap<Partition, Vec<DeliveryId>> = BTreeMap::new();
        for id in merged {
            parts.entry(id.partition()).or_default().push(id);
        }
        let read = parts.iter().map(|(&partition, ids)| self.read_deliveries(partition, ids));
        let mut deliveries: Vec<_> = try_join_all(read).await?.into_iter().flatten().collect();
        // A change in between may take one off the page.
        deliveries.retain(|delivery| query.state.is_none_or(|state| state == delivery.state));
        deliveries.sort_unstable_by_key(|delivery| Reverse(delivery.new.id));
        Ok(DeliveryPage { deliveries, next })
    }

    /// Returns the newest matches of a partition that are older than `before`: `limit` of them, and one or a few
    /// more.
    async fn list(
        &self,
        query: &DeliveryQuery,
        partition: Partition,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<DeliveryList, StoreError> {
        let oldest = query.since.map(DeliveryId::first_at);
        let bots = query.bots.as_ref().map(|bots| {
            let names: Vec<_> = bots.iter().map(BotName::as_str).collect();
            format!(" {} ", names.join(" "))
        });
        let mut call = SCRIPTS
            .list
            .call(&[&self.0.keys.partition(partition).lease])
            .arg(before.map_or_else(|| "+".to_owned(), |before| format!("({before}")))
            .arg(oldest.map_or_else(|| "-".to_owned(), |oldest| format!("[{oldest}")))
            .arg(limit)
            .arg(bots.unwrap_or_default())
            .arg(query.user.as_ref().map_or("", UserId::as_str))
            .arg(&*query.user_prefix)
            .background();
        for state in DeliveryState::ALL {
            if query.state.is_none_or(|wanted| wanted == state) {
                call = call.arg(state.as_str());
            }
        }
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let reached = rest.text()?;
        let reached = (!reached.is_empty()).then(|| codec::delivery_id(&reached)).transpose()?;
        let matches = |mut matches: AnswerValues| -> Result<_, CorruptData> {
            Ok((codec::delivery_id(&matches.text()?)?, matches.number()?))
        };
        let matches = rest.lists().map(|one| matches(one?)).collect::<Result<_, CorruptData>>()?;
        Ok(DeliveryList { matches, reached })
    }

    /// Reads deliveries of one partition, without those that are gone.
    async fn read_deliveries(
        &self,
        partition: Partition,
        ids: &[DeliveryId],
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut call = SCRIPTS.deliveries.call(&[&self.0.keys.partition(partition).lease]);
        for id in ids {
            call = call.arg(id.to_string());
        }
        let (_, rest) = self.run(call).await?.expect("OK")?;
        let delivery = |mut delivery: AnswerValues| -> Result<_, CorruptData> {
            let id = codec::delivery_id(&delivery.text()?)?;
            let due = delivery.time_or_none()?;
            codec::delivery(id, due, delivery.values()?.pairs())
        };
        Ok(rest.lists().map(|one| delivery(one?)).collect::<Result<_, CorruptData>>()?)
    }
}

/// The matches of a partition: ids and sizes, in no order. All down to `reached` are listed, or all if that is
/// `None`.
struct DeliveryList {
    matches: Vec<(DeliveryId, u64)>,
    reached: Option<DeliveryId>,
}

/// The merged lists of partitions, as far as their order is certain.
struct DeliveryMerge {
    sources: Vec<PartitionSource>,
    /// The merged matches, newest first.
    merged: Vec<(DeliveryId, u64)>,
}

struct PartitionSource {
    partition: Partition,
    /// The matches that are not merged yet, oldest first.
    matches: Vec<(DeliveryId, u64)>,
    /// Whether there may be more, all of them older than `older_than`.
    more: bool,
    older_than: Option<DeliveryId>,
}

/// The newest match that a source may still have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum NextDelivery {
    Nothing,
    /// This match, or one older than it if the source must be asked.
    At(DeliveryId),
    Anything,
}

impl PartitionSource {
    /// Returns whether the source must be asked before an older match is merged.
    const fn must_be_asked(&self) -> bool {
        self.more && self.matches.is_empty()
    }

    fn newest(&self) -> NextDelivery {
        match (self.matches.last(), self.more, self.older_than) {
            (Some(&(id, _)), ..) | (None, true, Some(id)) => NextDelivery::At(id),
            (None, true, None) => NextDelivery::Anything,
            (None, false, _) => NextDelivery::Nothing,
        }
    }
}

impl DeliveryMerge {
    fn new(partitions: Vec<Partition>, before: Option<DeliveryId>) -> Self {
        let source =
            |partition| PartitionSource { partition, matches: Vec::new(), more: true, older_than: before };
        Self { sources: partitions.into_iter().map(source).collect(), merged: Vec::new() }
    }

    /// Returns the sources to ask.
    fn sources_to_ask(&self) -> impl Iterator<Item = &PartitionSource> {
        self.sources.iter().filter(|source| source.must_be_asked())
    }

    /// Takes in the lists of the asked sources, in the same order.
    fn add_lists(&mut self, lists: Vec<DeliveryList>) {
        let sources_to_ask = self.sources.iter_mut().filter(|source| source.must_be_asked());
        for (source, DeliveryList { mut matches, reached }) in sources_to_ask.zip(lists) {
            // The rest is listed again in the next round.
            matches.retain(|(id, _)| reached.is_none_or(|reached| *id >= reached));
            matches.sort_unstable();
            (source.matches, source.more, source.older_than) = (matches, reached.is_some(), reached);
        }
    }

    /// Merges up to `most` matches. Returns false if a source must be asked first.
    fn merge(&mut self, most: usize) -> bool {
        while self.merged.len() < most {
            let Some(source) = self.sources.iter_mut().max_by_key(|source| source.newest()) else {
                return true;
            };
            if source.must_be_asked() {
                return false;
            }
            let Some(newest) = source.matches.pop() else { return true };
            self.merged.push(newest);
        }
        true
    }

    /// Returns the ids of a page and the start of the next one. Both `limit` and the size bound the page.
    fn page(mut self, limit: usize) -> (Vec<DeliveryId>, Option<DeliveryId>) {
        let full = self.merged.len();
        self.merged.truncate(limit);
        let mut bytes = 0;
        let fits = self.merged.iter().take_while(|(_, size)| {
            let first = bytes == 0;
            bytes += size;
            first || bytes <= journal_page::BYTES as u64
        });
        let fitting = fits.count();
        self.merged.truncate(fitting);
        let next = if fitting < full {
            self.merged.last().map(|(id, _)| *id)
        } else {
            self.sources_to_ask().filter_map(|source| source.older_than).max()
        };
        (self.merged.into_iter().map(|(id, _)| id).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{ConversationId, Timestamp};

    /// Returns a partition's matches after a look at `look` deliveries at most.
    fn list(
        kept: &BTreeSet<DeliveryId>,
        before: Option<DeliveryId>,
        limit: usize,
        look: usize,
    ) -> DeliveryList {
        let (mut matches, mut reached) = (Vec::new(), None);
        let mut rest = kept.iter().rev().filter(|&&id| before.is_none_or(|before| id < before)).peekable();
        let mut looked = 0;
        while let Some(&id) = rest.next() {
            looked += 1;
            if fits(id) {
                matches.push((id, 1));
            }
            if (matches.len() > limit || looked >= look) && rest.peek().is_some() {
                reached = Some(id);
                break;
            }
        }
        // Matches of another state may follow, in no order.
        matches.extend(rest.filter(|&&id| reached.is_some() && fits(id)).take(2).map(|&id| (id, 1)));
        matches.reverse();
        DeliveryList { matches, reached }
    }

    fn fits(id: DeliveryId) -> bool {
        id.to_string().bytes().map(u32::from).sum::<u32>() % 3 > 0
    }

    proptest! {
        /// For any distribution over partitions and any list size, pages are in order and complete.
        #[test]
        fn pages_list_all_matches_once_and_in_order(
            made in prop::collection::vec((0..12_u8, 0..20_u64), 0..200),
            limit in 1..20_usize, each in 1..9_usize, look in 1..30_usize, rounds in 1..4_usize,
        ) {
            let mut kept: BTreeMap<Partition, BTreeSet<DeliveryId>> = BTreeMap::new();
            for (seq, (user, at)) in made.iter().enumerate() {
                let name = format!("sandbox/user {user}");
                let conversation: ConversationId = codec::conversation(&name).unwrap();
                let id = DeliveryId::of(&conversation, 7, seq as u64, Timestamp::from_millis(*at));
                kept.entry(id.partition()).or_default().insert(id);
            }
            let expected = kept.values().flatten().copied().filter(|&id| fits(id)).collect::<BTreeSet<_>>();
            let (mut read, mut before) = (Vec::new(), None);
            loop {
                let mut merge = DeliveryMerge::new(kept.keys().copied().collect(), before);
                for _ in 0..rounds {
                    let lists = merge
                        .sources_to_ask()
                        .map(|source| list(&kept[&source.partition], source.older_than, each, look))
                        .collect();
                    merge.add_lists(lists);
                    if merge.merge(limit + 1) {
                        break;
                    }
                }
                let (page, next) = merge.page(limit);
                prop_assert!(page.len() <= limit);
                read.extend(page);
                let Some(next) = next else { break };
                prop_assert!(before.is_none_or(|before| next < before), "it goes on");
                before = Some(next);
            }
            prop_assert_eq!(read, expected.into_iter().rev().collect::<Vec<_>>());
        }

        #[test]
        fn page_is_bounded_in_bytes_and_never_empty(
            sizes in prop::collection::vec(1..journal_page::BYTES as u64 * 2, 1..10), limit in 1..12_usize,
        ) {
            let conversation = codec::conversation("sandbox/alice").unwrap();
            let id = |seq| DeliveryId::of(&conversation, 7, seq, Timestamp::from_millis(seq));
            let matches = sizes.iter().zip(0..).map(|(size, seq)| (id(seq), *size)).collect();
            let mut merge = DeliveryMerge::new(vec![Partition::of(&conversation)], None);
            merge.add_lists(vec![DeliveryList { matches, reached: None }]);
            prop_assert!(merge.merge(limit + 1));
            let (page, next) = merge.page(limit);
            let bytes: u64 = sizes.iter().rev().take(page.len()).sum();
            prop_assert!(page.len() == 1 || (!page.is_empty() && bytes <= journal_page::BYTES as u64));
            prop_assert_eq!(next, page.last().copied().filter(|_| page.len() < sizes.len()));
        }
    }
}
