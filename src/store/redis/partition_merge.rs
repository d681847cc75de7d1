//! The merge of ordered lists of partitions into one page. A partition that runs out before the page is full is asked
//! again. No I/O.

use crate::domain::Partition;

/// The matches of a partition, in no order. All up to `reached` are listed, or all if that is `None`.
pub(super) struct PartitionList<K, V> {
    pub(super) matches: Vec<(K, V)>,
    pub(super) reached: Option<K>,
}

/// The merged lists, as far as their order is certain. A page begins with the least key.
pub(super) struct PartitionMerge<K, V> {
    sources: Vec<PartitionSource<K, V>>,
    merged: Vec<(K, V)>,
}

pub(super) struct PartitionSource<K, V> {
    pub(super) partition: Partition,
    /// The matches that are not merged yet, the next one last.
    matches: Vec<(K, V)>,
    /// Whether there may be more, all of them behind `after`.
    more: bool,
    pub(super) after: Option<K>,
}

/// The next match that a source may have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum NextMatch<K> {
    Anything,
    /// This match, or one behind it if the source must be asked.
    At(K),
    Nothing,
}

impl<K: Ord + Clone, V> PartitionSource<K, V> {
    /// Returns whether the source must be asked before a later match is merged.
    const fn must_be_asked(&self) -> bool {
        self.more && self.matches.is_empty()
    }

    fn next(&self) -> NextMatch<&K> {
        match (self.matches.last(), self.more, &self.after) {
            (Some((key, _)), ..) | (None, true, Some(key)) => NextMatch::At(key),
            (None, true, None) => NextMatch::Anything,
            (None, false, _) => NextMatch::Nothing,
        }
    }
}

impl<K: Ord + Clone, V> PartitionMerge<K, V> {
    pub(super) fn new(partitions: Vec<Partition>, after: Option<&K>) -> Self {
        let source =
            |partition| PartitionSource { partition, matches: Vec::new(), more: true, after: after.cloned() };
        Self { sources: partitions.into_iter().map(source).collect(), merged: Vec::new() }
    }

    /// Returns the sources to ask.
    pub(super) fn sources_to_ask(&self) -> impl Iterator<Item = &PartitionSource<K, V>> {
        self.sources.iter().filter(|source| source.must_be_asked())
    }

    /// Takes in the lists of the asked sources, in the same order.
    pub(super) fn add_lists(&mut self, lists: Vec<PartitionList<K, V>>) {
        let sources_to_ask = self.sources.iter_mut().filter(|source| source.must_be_asked());
        for (source, PartitionList { mut matches, reached }) in sources_to_ask.zip(lists) {
            // The rest is listed again in the next round.
            matches.retain(|(key, _)| reached.as_ref().is_none_or(|reached| key <= reached));
            matches.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
            (source.matches, source.more, source.after) = (matches, reached.is_some(), reached);
        }
    }

    /// Merges up to `most` matches. Returns false if a source must be asked first.
    pub(super) fn merge(&mut self, most: usize) -> bool {
        while self.merged.len() < most {
            let next = self.sources.iter_mut().min_by(|one, other| one.next().cmp(&other.next()));
            let Some(source) = next else { return true };
            if source.must_be_asked() {
                return false;
            }
            let Some(next) = source.matches.pop() else { return true };
            self.merged.push(next);
        }
        true
    }

    /// Returns the matches of a page and the start of the next one. `fitting` counts the merged matches that fit.
    pub(super) fn page(mut self, fitting: impl FnOnce(&[(K, V)]) -> usize) -> (Vec<(K, V)>, Option<K>) {
        let (full, fitting) = (self.merged.len(), fitting(&self.merged));
        self.merged.truncate(fitting);
        let next = if fitting < full {
            self.merged.last().map(|(key, _)| key.clone())
        } else {
            self.sources_to_ask().filter_map(|source| source.after.clone()).min()
        };
        (self.merged, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Returns a partition's matches after a look at `look` keys at most.
    fn list(kept: &BTreeSet<u32>, after: Option<u32>, limit: usize, look: usize) -> PartitionList<u32, ()> {
        let (mut matches, mut reached) = (Vec::new(), None);
        let mut rest = kept.iter().filter(|&&key| after.is_none_or(|after| key > after)).peekable();
        let mut looked = 0;
        while let Some(&key) = rest.next() {
            looked += 1;
            if fits(key) {
                matches.push((key, ()));
            }
            if (matches.len() > limit || looked >= look) && rest.peek().is_some() {
                reached = Some(key);
                break;
            }
        }
        // Matches behind it may follow, in no order.
        matches.extend(rest.filter(|&&key| reached.is_some() && fits(key)).take(2).map(|&key| (key, ())));
        matches.reverse();
        PartitionList { matches, reached }
    }

    fn fits(key: u32) -> bool {
        !key.is_multiple_of(3)
    }

    proptest! {
        /// For any distribution over partitions and any list size, pages are in order and complete.
        #[test]
        fn pages_list_all_matches_once_and_in_order(
            keys in prop::collection::btree_map(any::<u32>(), 0..12_u8, 0..200),
            limit in 1..20_usize, each in 1..9_usize, look in 1..30_usize, rounds in 1..4_usize,
        ) {
            let mut kept: BTreeMap<Partition, BTreeSet<u32>> = BTreeMap::new();
            for (&key, &partition) in &keys {
                kept.entry(Partition::from_byte(partition)).or_default().insert(key);
            }
            let expected: Vec<u32> = keys.into_keys().filter(|&key| fits(key)).collect();
            let (mut read, mut after) = (Vec::new(), None);
            loop {
                let mut merge = PartitionMerge::new(kept.keys().copied().collect(), after.as_ref());
                for _ in 0..rounds {
                    let lists = merge
                        .sources_to_ask()
                        .map(|source| list(&kept[&source.partition], source.after, each, look))
                        .collect();
                    merge.add_lists(lists);
                    if merge.merge(limit + 1) {
                        break;
                    }
                }
                let (page, next) = merge.page(|merged| merged.len().min(limit));
                prop_assert!(page.len() <= limit);
                read.extend(page.into_iter().map(|(key, ())| key));
                let Some(next) = next else { break };
                prop_assert!(after.is_none_or(|after| next > after), "it goes on");
                after = Some(next);
            }
            prop_assert_eq!(read, expected);
        }
    }
}
