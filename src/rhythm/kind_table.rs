//! A bounded table of records by kind.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::kind_record::KindRecord;
use super::reply_kind::ReplyKind;
use crate::domain::Fingerprint;

/// At most `MOST` records. A new one takes the place of one that was not used since the last round (the clock algorithm).
#[derive(Clone, Debug, Default)]
pub(super) struct KindTable<const MOST: usize> {
    entries: HashMap<u64, TableEntry, BuildHasherDefault<FingerprintHasher>>,
    /// The kinds in the order in which they are asked to go.
    order: VecDeque<u64>,
}

/// The hash of a fingerprint: itself, because it is a hash. A flood of equal ones is no attack on so small a table.
#[derive(Clone, Copy, Debug, Default)]
struct FingerprintHasher(u64);

impl Hasher for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq)]
struct TableEntry {
    template: Fingerprint,
    record: KindRecord,
    used: bool,
}

impl<const MOST: usize> PartialEq for KindTable<MOST> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<const MOST: usize> KindTable<MOST> {
    /// Returns the record of a kind.
    pub(super) fn get(&self, kind: Fingerprint) -> Option<&KindRecord> {
        self.entries.get(&kind.bits()).map(|entry| &entry.record)
    }

    /// Returns the record of a kind, a new one of this template if there is none.
    pub(super) fn entry(&mut self, kind: ReplyKind) -> &mut KindRecord {
        let known = self.entries.contains_key(&kind.exact.bits());
        if !known {
            self.insert(kind, KindRecord::default());
        }
        let entry = self.entries.entry(kind.exact.bits()).or_insert_with(|| TableEntry::new(kind));
        // One that was seen once is the first to go.
        entry.used = known;
        &mut entry.record
    }

    /// Puts in a record whose kind is new.
    pub(super) fn insert(&mut self, kind: ReplyKind, record: KindRecord) {
        while self.entries.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            let stays = self.entries.get_mut(&oldest).is_some_and(|entry| std::mem::take(&mut entry.used));
            if stays {
                self.order.push_back(oldest);
            } else {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(kind.exact.bits(), TableEntry { record, ..TableEntry::new(kind) });
        self.order.push_back(kind.exact.bits());
    }

    /// Returns all records with their kinds, in a fixed order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ReplyKind, &KindRecord)> {
        self.order.iter().filter_map(|exact| {
            let entry = self.entries.get(exact)?;
            let kind = ReplyKind { exact: Fingerprint::from_bits(*exact), template: entry.template };
            Some((kind, &entry.record))
        })
    }

    /// Returns all records.
    pub(super) fn records_mut(&mut self) -> impl Iterator<Item = &mut KindRecord> {
        self.entries.values_mut().map(|entry| &mut entry.record)
    }

    /// Returns the number of records.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl TableEntry {
    fn new(kind: ReplyKind) -> Self {
        Self { template: kind.template, record: KindRecord::default(), used: false }
    }
}
