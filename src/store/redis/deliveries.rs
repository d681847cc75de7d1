//! Reads of deliveries: one by its id, and lists over all partitions.
//!
//! A list takes two steps. First each partition returns the ids of its newest deliveries, and these are merged. Then the
//! deliveries of the page are read. Deliveries that are not on the page are never read.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::RedisStore;
use super::codec::{self, CorruptData};
use super::conversation_index::bot_filter;
use super::partition_merge::{PartitionList, PartitionMerge};
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use crate::domain::{Delivery, DeliveryId, DeliveryState, Partition, UserId};
use crate::store::{DeliveryPage, DeliveryQuery, StoreError, outbox};

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
        let mut merge = PartitionMerge::new(partitions, query.before.map(Reverse).as_ref());
        for _ in 0..ROUNDS {
            let lists =
                merge.sources_to_ask().map(|source| self.list(query, source.partition, source.after, each));
            let lists = try_join_all(lists).await?;
            merge.add_lists(lists);
            if merge.merge(limit + 1) {
                break;
            }
            each = limit;
        }
        let (merged, next) = merge.page(|matches| fitting(matches, limit));
        let mut parts: BTreeMap<Partition, Vec<DeliveryId>> = BTreeMap::new();
        for (Reverse(id), _) in merged {
            parts.entry(id.partition()).or_default().push(id);
        }
        let read = parts.iter().map(|(&partition, ids)| self.read_deliveries(partition, ids));
        let mut deliveries: Vec<_> = try_join_all(read).await?.into_iter().flatten().collect();
        // A change in between may take one off the page.
        deliveries.retain(|delivery| query.state.is_none_or(|state| state == delivery.state));
        deliveries.sort_unstable_by_key(|delivery| Reverse(delivery.new.id));
        Ok(DeliveryPage { deliveries, next: next.map(|Reverse(id)| id) })
    }

    /// Returns the newest matches of a partition that are older than `before`: `limit` of them, and one or a few
    /// more.
    async fn list(
        &self,
        query: &DeliveryQuery,
        partition: Partition,
        before: Option<Reverse<DeliveryId>>,
        limit: usize,
    ) -> Result<PartitionList<Reverse<DeliveryId>, u64>, StoreError> {
        let oldest = query.since.map(DeliveryId::first_at);
        let mut call = SCRIPTS
            .list
            .call(&[&self.0.keys.partition(partition).lease])
            .arg(before.map_or_else(|| "+".to_owned(), |Reverse(before)| format!("({before}")))
            .arg(oldest.map_or_else(|| "-".to_owned(), |oldest| format!("[{oldest}")))
            .arg(limit)
            .arg(bot_filter(query.bots.as_deref()))
            .arg(query.user.as_ref().map_or("", UserId::as_str))
            .arg(&*query.user_prefix)
            .arg(query.message.map_or_else(String::new, |message| message.to_string()))
            .arg(query.endpoint.as_deref().unwrap_or_default())
            .background();
        for state in DeliveryState::ALL {
            if query.state.is_none_or(|wanted| wanted == state) {
                call = call.arg(state.as_str());
            }
        }
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let reached = rest.text()?;
        let reached = (!reached.is_empty()).then(|| codec::delivery_id(&reached)).transpose()?.map(Reverse);
        let matches = |mut matches: AnswerValues| -> Result<_, CorruptData> {
            Ok((Reverse(codec::delivery_id(&matches.text()?)?), matches.number()?))
        };
        let matches = rest.lists().map(|one| matches(one?)).collect::<Result<_, CorruptData>>()?;
        Ok(PartitionList { matches, reached })
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

/// Returns how many of the merged matches a page holds. Both `limit` and the size bound it.
fn fitting(matches: &[(Reverse<DeliveryId>, u64)], limit: usize) -> usize {
    let mut bytes = 0;
    let fits = matches.iter().take(limit).take_while(|(_, size)| {
        let first = bytes == 0;
        bytes += size;
        first || bytes <= outbox::PAGE_BYTES as u64
    });
    fits.count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Timestamp;

    proptest! {
        #[test]
        fn page_is_bounded_in_bytes_and_never_empty(
            sizes in prop::collection::vec(1..outbox::PAGE_BYTES as u64 * 2, 1..10), limit in 1..12_usize,
        ) {
            let conversation = codec::conversation("sandbox/alice").unwrap();
            let id = |seq| Reverse(DeliveryId::of(&conversation, 7, seq, Timestamp::from_millis(seq)));
            let matches: Vec<_> = sizes.iter().zip(0..).map(|(size, seq)| (id(seq), *size)).collect();
            let count = fitting(&matches, limit);
            let bytes: u64 = sizes.iter().take(count).sum();
            prop_assert!(count == 1 || (count > 0 && bytes <= outbox::PAGE_BYTES as u64));
            let more: u64 = sizes.iter().take(count + 1).sum();
            prop_assert!(count == limit.min(sizes.len()) || more > outbox::PAGE_BYTES as u64);
        }
    }
}
