//! Deliveries as they stand: one by its id, and lists over all partitions.
//!
//! A list is made in two steps. Each partition tells the ids of its newest, which are put in order, and those that ran
//! out before the page was full are asked again; then those of the page are read. So what is not on the page is not
//! read, however many there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::Redis;
use super::answer::Values;
use super::codec::{self, Corrupt};
use super::scripts::SCRIPTS;
use crate::domain::{BotName, Delivery, DeliveryId, DeliveryState, Partition, UserId};
use crate::store::{DeliveryPage, DeliveryQuery, StoreError, page};

/// The most deliveries of a page.
const PAGE: usize = 1000;
/// How often partitions are asked for one page. Where little fits it may end before it is full.
const ROUNDS: usize = 8;

impl Redis {
    /// A delivery as it stands; see [`crate::store::Store::delivery`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        Ok(self.read_deliveries(id.partition(), &[id]).await?.pop())
    }

    /// Deliveries, newest first; see [`crate::store::Store::deliveries`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        if query.bots.as_ref().is_some_and(Vec::is_empty) {
            return Ok(DeliveryPage::default());
        }
        let limit = query.limit.clamp(1, PAGE);
        let partitions = query.partitions();
        // Twice as many as a partition has on the page, mostly.
        let mut each = (limit * 2 / partitions.len().max(1) + 8).min(limit);
        let mut merge = Merge::new(partitions, query.before);
        for _ in 0..ROUNDS {
            let lists = merge.hungry().map(|source| self.list(query, source.partition, source.older, each));
            let lists = try_join_all(lists).await?;
            merge.feed(lists);
            if merge.choose(limit + 1) {
                break;
            }
            each = limit;
        }
        let (chosen, next) = merge.page(limit);
        let mut parts: BTreeMap<Partition, Vec<DeliveryId>> = BTreeMap::new();
        for id in chosen {
            parts.entry(id.partition()).or_default().push(id);
        }
        let read = parts.iter().map(|(&partition, ids)| self.read_deliveries(partition, ids));
        let mut deliveries: Vec<_> = try_join_all(read).await?.into_iter().flatten().collect();
        // What happened to one meanwhile may take it off the page.
        deliveries.retain(|delivery| query.state.is_none_or(|state| state == delivery.state));
        deliveries.sort_unstable_by_key(|delivery| Reverse(delivery.new.id));
        Ok(DeliveryPage { deliveries, next })
    }

    /// The newest of a partition that are older than `before`, `limit` of them and one or some more.
    async fn list(
        &self,
        query: &DeliveryQuery,
        partition: Partition,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<List, StoreError> {
        let oldest = query.since.map(DeliveryId::first_at);
        let bots = query.bots.as_ref().map(|bots| {
            let names: Vec<_> = bots.iter().map(BotName::as_str).collect();
            format!(" {} ", names.join(" "))
        });
        let mut call = self
            .call(&SCRIPTS.list, &[&self.0.keys.partition(partition).lease])
            .arg(before.map_or_else(|| "+".to_owned(), |before| format!("({before}")))
            .arg(oldest.map_or_else(|| "-".to_owned(), |oldest| format!("[{oldest}")))
            .arg(limit)
            .arg(bots.unwrap_or_default())
            .arg(query.user.as_ref().map_or("", UserId::as_str))
            .arg(&*query.user_prefix)
            .aside();
        for state in DeliveryState::ALL {
            if query.state.is_none_or(|wanted| wanted == state) {
                call = call.arg(state.as_str());
            }
        }
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let reached = rest.text()?;
        let reached = (!reached.is_empty()).then(|| codec::delivery_id(&reached)).transpose()?;
        let told = |mut told: Values| -> Result<_, Corrupt> {
            Ok((codec::delivery_id(&told.text()?)?, told.number()?))
        };
        let told = rest.lists().map(|one| told(one?)).collect::<Result<_, Corrupt>>()?;
        Ok(List { told, reached })
    }

    /// Those of these deliveries of one partition that are still there.
    async fn read_deliveries(
        &self,
        partition: Partition,
        ids: &[DeliveryId],
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut call = self.call(&SCRIPTS.deliveries, &[&self.0.keys.partition(partition).lease]);
        for id in ids {
            call = call.arg(id.to_string());
        }
        let (_, rest) = self.run(call).await?.expect("OK")?;
        let delivery = |mut delivery: Values| -> Result<_, Corrupt> {
            let id = codec::delivery_id(&delivery.text()?)?;
            let due = delivery.time_or_none()?;
            codec::delivery(id, due, delivery.values()?.pairs())
        };
        Ok(rest.lists().map(|one| delivery(one?)).collect::<Result<_, Corrupt>>()?)
    }
}

/// What a partition told: ids and the bytes of their data, in no order. All down to `reached` are told; where that is
/// none, all that there are.
struct List {
    told: Vec<(DeliveryId, u64)>,
    reached: Option<DeliveryId>,
}

/// What partitions told, put in order as far as no other can have something in between.
struct Merge {
    sources: Vec<Source>,
    /// Newest first.
    chosen: Vec<(DeliveryId, u64)>,
}

struct Source {
    partition: Partition,
    /// What is not chosen yet, oldest first.
    told: Vec<(DeliveryId, u64)>,
    /// Whether there may be more, all of it older than this.
    more: bool,
    older: Option<DeliveryId>,
}

/// The newest that a source may still give.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Newest {
    Nothing,
    /// This one, or where it must be asked one that is older than this.
    At(DeliveryId),
    Anything,
}

impl Source {
    /// Whether it has to be asked before something older than what it told is chosen.
    const fn is_hungry(&self) -> bool {
        self.more && self.told.is_empty()
    }

    fn newest(&self) -> Newest {
        match (self.told.last(), self.more, self.older) {
            (Some(&(id, _)), ..) | (None, true, Some(id)) => Newest::At(id),
            (None, true, None) => Newest::Anything,
            (None, false, _) => Newest::Nothing,
        }
    }
}

impl Merge {
    fn new(partitions: Vec<Partition>, before: Option<DeliveryId>) -> Self {
        let source = |partition| Source { partition, told: Vec::new(), more: true, older: before };
        Self { sources: partitions.into_iter().map(source).collect(), chosen: Vec::new() }
    }

    /// Those that are to be asked.
    fn hungry(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.is_hungry())
    }

    /// What those that were to be asked told, in the same order.
    fn feed(&mut self, lists: Vec<List>) {
        let hungry = self.sources.iter_mut().filter(|source| source.is_hungry());
        for (source, List { mut told, reached }) in hungry.zip(lists) {
            // What is told behind it is told again.
            told.retain(|(id, _)| reached.is_none_or(|reached| *id >= reached));
            told.sort_unstable();
            (source.told, source.more, source.older) = (told, reached.is_some(), reached);
        }
    }

    /// Chooses up to so many; false where some must be asked before.
    fn choose(&mut self, most: usize) -> bool {
        while self.chosen.len() < most {
            let Some(source) = self.sources.iter_mut().max_by_key(|source| source.newest()) else {
                return true;
            };
            if source.is_hungry() {
                return false;
            }
            let Some(newest) = source.told.pop() else { return true };
            self.chosen.push(newest);
        }
        true
    }

    /// The ids of a page of so many at most and of a bounded size, and where the next one goes on.
    fn page(mut self, limit: usize) -> (Vec<DeliveryId>, Option<DeliveryId>) {
        let full = self.chosen.len();
        self.chosen.truncate(limit);
        let mut bytes = 0;
        let fits = self.chosen.iter().take_while(|(_, size)| {
            let first = bytes == 0;
            bytes += size;
            first || bytes <= page::BYTES as u64
        });
        let fitting = fits.count();
        self.chosen.truncate(fitting);
        let next = if fitting < full {
            self.chosen.last().map(|(id, _)| *id)
        } else {
            self.hungry().filter_map(|source| source.older).max()
        };
        (self.chosen.into_iter().map(|(id, _)| id).collect(), next)
    }
}
