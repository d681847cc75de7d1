//! The start of a journal read and its gaps: one decision for both variants of the store.
//!
//! A page has no hole. If the store lost places inside a journal, the page ends before them, and the next page has
//! [`JournalPage::gap`]. Each hole is therefore reported once, with any limit.

use crate::domain::{ConversationRecord, Cursor, EntryWithMessage, JournalPage, ReadStart, Timestamp};

/// The limit of entries of one page.
pub(super) const ENTRIES: usize = 1000;
/// The approximate limit of bytes of one page: entries and their messages. A page has at least one entry. Readers join several
/// pages, so that no read holds up Redis or the other commands of its thread.
pub(super) const BYTES: usize = 64 * 1024;

/// A read request, compared with the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageRead {
    epoch: u64,
    /// The reader's place if there is nothing to read.
    place: Cursor,
    from: u64,
    begin: FirstEntry,
}

/// The first entry that leaves no gap before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstEntry {
    /// Any entry.
    Anywhere,
    /// The entry after this place.
    Behind(u64),
    /// No entry: the reader's place belongs to another journal.
    Elsewhere,
}

impl PageRead {
    /// Compares the request with the record of the journal. Without a record there is nothing to read.
    ///
    /// `entry_time` is the time of the entry at the reader's place: at the cursor, or the newest one. It is `None` if that
    /// entry is not stored.
    pub(super) fn new(
        after: ReadStart,
        record: Option<&ConversationRecord>,
        entry_time: Option<Timestamp>,
    ) -> Self {
        let (epoch, last) = record.map_or((0, 0), |record| (record.epoch, record.seq));
        let (place, from, begin) = match after {
            ReadStart::Oldest => (Cursor { epoch, seq: last, at: None }, 0, FirstEntry::Anywhere),
            ReadStart::Latest => {
                (Cursor { epoch, seq: last, at: entry_time }, last, FirstEntry::Behind(last))
            }
            ReadStart::Cursor(cursor)
                if cursor.epoch == epoch
                    && cursor.seq <= last
                    && cursor.at.zip(entry_time).is_none_or(|(read, kept)| read == kept) =>
            {
                (cursor, cursor.seq, FirstEntry::Behind(cursor.seq))
            }
            ReadStart::Cursor(cursor) if cursor == Cursor::default() => (cursor, 0, FirstEntry::Behind(0)),
            ReadStart::Cursor(cursor) => (cursor, 0, FirstEntry::Elsewhere),
        };
        Self { epoch, place, from, begin }
    }

    /// Returns the place after which the read begins.
    pub(super) const fn from(self) -> u64 {
        self.from
    }

    /// Builds the page from the first entries after [`PageRead::from`]. `more` says that others follow.
    pub(super) fn page(self, mut entries: Vec<EntryWithMessage>, mut more: bool) -> JournalPage {
        let Some(first) = entries.first().map(|told| told.entry.seq) else {
            return JournalPage { next: self.place, ..JournalPage::default() };
        };
        let follows = |(index, told): &(usize, &EntryWithMessage)| {
            told.entry.seq.checked_sub(first) == Some(*index as u64)
        };
        let whole = entries.iter().enumerate().take_while(follows).count();
        more |= whole < entries.len();
        entries.truncate(whole);
        let gap = match self.begin {
            FirstEntry::Anywhere => false,
            FirstEntry::Behind(seq) => first.saturating_sub(1) > seq,
            FirstEntry::Elsewhere => true,
        };
        let next = entries.last().map_or(self.place, |told| Cursor::behind(self.epoch, &told.entry));
        JournalPage { entries, next, more, gap }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{EntryBody, GapReason, JournalEntry, Timestamp};

    const EPOCH: u64 = 7;

    fn record(seq: u64) -> ConversationRecord {
        ConversationRecord { epoch: EPOCH, seq, ..ConversationRecord::default() }
    }

    fn written(seq: u64) -> Timestamp {
        Timestamp::from_millis(seq.wrapping_mul(10))
    }

    fn told(seq: u64) -> EntryWithMessage {
        let body = EntryBody::Gap(GapReason::HistoryTooShort);
        EntryWithMessage { entry: JournalEntry { seq, at: written(seq), body }, message: None }
    }

    /// Returns the places read from a journal with these places, and the page.
    fn read(kept: &BTreeSet<u64>, last: u64, after: ReadStart, limit: usize) -> (Vec<u64>, JournalPage) {
        let behind = match after {
            ReadStart::Oldest => None,
            ReadStart::Latest => kept.last(),
            ReadStart::Cursor(cursor) => kept.get(&cursor.seq),
        };
        let reading = PageRead::new(after, Some(&record(last)), behind.copied().map(written));
        let mut rest = kept.iter().copied().filter(|&seq| seq > reading.from());
        let entries = rest.by_ref().take(limit).map(told).collect();
        let page = reading.page(entries, rest.next().is_some());
        (page.entries.iter().map(|told| told.entry.seq).collect(), page)
    }

    fn at(epoch: u64, seq: u64) -> ReadStart {
        ReadStart::Cursor(Cursor { epoch, seq, at: None })
    }

    /// Starts after an entry that was written at this time.
    fn behind(seq: u64, at: Timestamp) -> ReadStart {
        ReadStart::Cursor(Cursor { epoch: EPOCH, seq, at: Some(at) })
    }

    #[test]
    fn missing_next_entry_gives_a_gap() {
        let all = BTreeSet::from([1, 2, 3, 4]);
        let trimmed = BTreeSet::from([3, 4]);
        for (kept, after, places, gap) in [
            (&all, ReadStart::Oldest, 1..5, false),
            (&all, ReadStart::Latest, 5..5, false),
            (&all, at(0, 0), 1..5, false),
            (&all, at(EPOCH, 0), 1..5, false),
            (&all, at(EPOCH, 2), 3..5, false),
            (&all, at(EPOCH, 4), 5..5, false),
            (&all, at(EPOCH, 5), 1..5, true),
            (&all, at(EPOCH, u64::MAX), 1..5, true),
            (&all, at(EPOCH - 1, 2), 1..5, true),
            (&all, at(EPOCH + 1, 2), 1..5, true),
            (&all, at(EPOCH + 1, 0), 1..5, true),
            (&all, at(0, 2), 1..5, true),
            (&all, behind(2, written(2)), 3..5, false),
            (&all, behind(2, written(3)), 1..5, true),
            (&all, behind(4, written(4)), 5..5, false),
            (&all, behind(4, written(5)), 1..5, true),
            (&all, behind(5, written(5)), 1..5, true),
            // The entry at the reader's place is gone, so no time contradicts the cursor.
            (&trimmed, behind(2, written(9)), 3..5, false),
            (&trimmed, behind(3, written(9)), 3..5, true),
            (&trimmed, ReadStart::Oldest, 3..5, false),
            (&trimmed, at(0, 0), 3..5, true),
            (&trimmed, at(EPOCH, 0), 3..5, true),
            (&trimmed, at(EPOCH, 1), 3..5, true),
            (&trimmed, at(EPOCH, 2), 3..5, false),
            (&trimmed, at(EPOCH, 3), 4..5, false),
            (&trimmed, at(EPOCH - 1, 3), 3..5, true),
        ] {
            let (read, page) = read(kept, 4, after, 10);
            assert_eq!((read, page.gap), (places.collect(), gap), "{after:?} of {kept:?}");
            assert!(!page.more);
        }
    }

    #[test]
    fn empty_read_keeps_the_place() {
        let places = [(0, 0), (3, 5), (EPOCH, 9)];
        for (epoch, seq) in places {
            let place = Cursor { epoch, seq, at: None };
            for record in [None, Some(record(4))] {
                let page =
                    PageRead::new(ReadStart::Cursor(place), record.as_ref(), None).page(Vec::new(), false);
                assert_eq!((page.next, page.gap, page.more), (place, false, false));
            }
        }
        let end = Cursor { epoch: EPOCH, seq: 4, at: None };
        for (after, entry_time) in
            [(ReadStart::Oldest, None), (ReadStart::Latest, None), (ReadStart::Latest, Some(written(4)))]
        {
            let at_end = PageRead::new(after, Some(&record(4)), entry_time).page(Vec::new(), false);
            assert_eq!(at_end.next, Cursor { at: entry_time, ..end });
            assert_eq!(PageRead::new(after, None, None).page(Vec::new(), false).next, Cursor::default());
        }
    }

    proptest! {
        /// A reader that follows the pages reads each stored entry once and in order. Each hole is reported exactly
        /// once, with any limits, additions and trims on the way.
        #[test]
        fn reader_gets_each_entry_once_and_each_hole(
            steps in prop::collection::vec((1..5_usize, 0..4_u64, 0..3_usize, any::<bool>()), 1..60),
            from_oldest: bool,
        ) {
            let (mut kept, mut last) = (BTreeSet::new(), 0_u64);
            let mut after = if from_oldest { ReadStart::Oldest } else { ReadStart::Latest };
            let mut position = None;
            for (limit, added, trimmed, lost) in steps {
                for _ in 0..added {
                    last += 1;
                    kept.insert(last);
                }
                // This place stays empty.
                last += u64::from(lost);
                for _ in 0..trimmed {
                    kept.pop_first();
                }
                let (places, page) = read(&kept, last, after, limit);
                let begun = position.unwrap_or(if from_oldest {
                    kept.first().map_or(last, |first| first - 1)
                } else {
                    last
                });
                let expected = kept.range(begun + 1..).next().copied();
                prop_assert_eq!(places.first().copied(), expected);
                prop_assert!(places.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole inside: {:?}", places);
                prop_assert_eq!(page.gap, expected.is_some_and(|first| first > begun + 1));
                let read = places.last().copied().unwrap_or(begun);
                prop_assert_eq!(page.more, places.last().is_some_and(|_| kept.range(read + 1..).next().is_some()));
                prop_assert_eq!(page.next.seq, read);
                position = Some(read);
                after = ReadStart::Cursor(page.next);
            }
        }

        #[test]
        fn any_cursor_is_readable(epoch: u64, seq: u64, last: u64, kept in prop::collection::btree_set(any::<u64>(), 0..5)) {
            let kept: BTreeSet<u64> = kept.into_iter().filter(|&seq| seq > 0 && seq <= last).collect();
            let (places, page) = read(&kept, last, at(epoch, seq), 3);
            let known = epoch == EPOCH && seq <= last;
            prop_assert!(places.iter().all(|&place| !known || place > seq));
            prop_assert!(known || page.gap || places.is_empty() || (epoch, seq) == (0, 0));
        }
    }
}
