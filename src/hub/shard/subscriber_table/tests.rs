use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::domain::fixtures::sandbox_conversation;
use crate::domain::{
    ConversationRecord, EntryBody, GapReason, JournalEntry, LiveSignal, Partition, ReadStart, Timestamp,
};
use crate::hub::subscription::{Subscription, subscription};
use crate::store::{
    ClaimMode, Clock, ConversationChange, ConversationWrite, Fence, MemoryLimits, MemoryStore,
};

fn piece() -> Arc<ReplyChunk> {
    Arc::new(ReplyChunk { message_id: None, index: 0, text: "…".into(), last: false })
}

const ONE: PublishCount = PublishCount { reached: 1, closed: 0 };
const NONE: PublishCount = PublishCount { reached: 0, closed: 0 };

#[tokio::test]
async fn signals_reach_subscribers_of_the_conversation_only() {
    let mut table = SubscriberTable::default();
    let (alice, bob) = (sandbox_conversation("alice"), sandbox_conversation("bob"));
    let (publisher, mut first) = subscription();
    table.add(alice.clone(), publisher);
    let (publisher, mut other) = subscription();
    table.add(bob.clone(), publisher);
    assert_eq!(table.look(&alice), ONE);
    assert!(matches!(first.next().now_or_never(), Some(Some(LiveSignal::Look))));
    assert!(other.next().now_or_never().is_none());
    assert_eq!(table.chunk(&bob, &piece()), ONE);
    assert!(matches!(other.next().now_or_never(), Some(Some(LiveSignal::Chunk(_)))));
    assert!(first.next().now_or_never().is_none());
    assert_eq!(table.look_all(), PublishCount { reached: 2, closed: 0 });
    assert_eq!(table.look(&sandbox_conversation("carol")), NONE);
    table.close_all();
    assert!(matches!(first.next().now_or_never(), Some(Some(LiveSignal::Look))));
    assert!(matches!(first.next().now_or_never(), Some(None)), "the table closes it");
}

#[tokio::test]
async fn slow_subscriber_is_dropped_and_others_continue() {
    let mut table = SubscriberTable::default();
    let alice = sandbox_conversation("alice");
    let (slow, quick) = (subscription(), subscription());
    table.add(alice.clone(), slow.0);
    table.add(alice.clone(), quick.0);
    let (mut slow, mut quick) = (slow.1, quick.1);
    let mut closed = 0;
    for _ in 0..1000 {
        closed += table.chunk(&alice, &piece()).closed;
        assert!(matches!(quick.next().now_or_never(), Some(Some(LiveSignal::Chunk(_)))));
    }
    assert_eq!((closed, table.subscribers()), (1, 1));
    let mut waited = 0;
    while let Some(Some(_)) = slow.next().now_or_never() {
        waited += 1;
    }
    assert!(waited < 100, "{waited}");
    assert!(matches!(slow.next().now_or_never(), Some(None)));
}

#[tokio::test(start_paused = true)]
async fn sweep_removes_dropped_subscriptions_and_old_notes() {
    let mut table = SubscriberTable::default();
    let readers: Vec<_> = (0..500)
        .map(|number| {
            let (publisher, subscription) = subscription();
            table.add(sandbox_conversation(&format!("user-{}", number / 2)), publisher);
            subscription
        })
        .collect();
    for number in 0..250 {
        table.note_remote(sandbox_conversation(&format!("user-{number}")), Incarnation(1), Instant::now());
    }
    table.sweep(Instant::now());
    assert_eq!((table.subscribers(), table.conversations().len()), (500, 250));
    drop(readers);
    tokio::time::advance(OBSERVED).await;
    table.sweep(Instant::now());
    assert_eq!((table.subscribers(), table.conversations().len()), (0, 0));
    assert!(table.remote.is_empty());
    assert!(table.local.capacity() <= 64 && table.remote.capacity() <= 64);
}

#[tokio::test(start_paused = true)]
async fn remote_notes_expire_and_are_limited() {
    let mut table = SubscriberTable::default();
    let alice = sandbox_conversation("alice");
    let noted = |table: &SubscriberTable| table.remote_replicas(&alice, Instant::now()).collect::<Vec<_>>();
    table.note_remote(alice.clone(), Incarnation(1), Instant::now());
    tokio::time::advance(OBSERVED / 2).await;
    table.note_remote(alice.clone(), Incarnation(2), Instant::now());
    assert_eq!(noted(&table), [Incarnation(1), Incarnation(2)]);
    tokio::time::advance(OBSERVED / 2).await;
    assert_eq!(noted(&table), [Incarnation(2)]);
    table.note_remote(alice.clone(), Incarnation(2), Instant::now());
    tokio::time::advance(OBSERVED / 2).await;
    assert_eq!(noted(&table), [Incarnation(2)], "the note was renewed");
    for number in 0..10_000 {
        table.note_remote(alice.clone(), Incarnation(number), Instant::now());
        table.note_remote(sandbox_conversation(&format!("user-{number}")), Incarnation(1), Instant::now());
    }
    assert_eq!((table.remote.len(), noted(&table).len()), (MAX_REMOTE, MAX_REPLICAS));
}

/// A conversation's journal in a store, and its writer.
struct TestJournal {
    store: Arc<MemoryStore>,
    fence: Fence,
    record: ConversationRecord,
}

impl TestJournal {
    fn new() -> Self {
        let store = MemoryStore::new(MemoryLimits::new(1 << 24, Duration::from_mins(1)), Clock::wall());
        let partition = Partition::of(&sandbox_conversation("alice"));
        let claim = store.claim(partition, Incarnation(1), Duration::from_mins(1), ClaimMode::Free);
        Self { store, fence: claim.fence().unwrap(), record: ConversationRecord::default() }
    }

    fn append(&mut self, count: u64) {
        let follows = self.record.write;
        self.record.number_write(self.store.now());
        let changes = (1..=count).map(|place| {
            let body = EntryBody::Gap(GapReason::HistoryTooShort);
            ConversationChange::Append(JournalEntry {
                seq: self.record.seq + place,
                at: Timestamp::from_millis(1),
                body,
            })
        });
        let changes = changes.collect();
        self.record.seq += count;
        let write = ConversationWrite { record: self.record.clone(), follows, changes, warm_until: None };
        self.store.write(self.fence, &sandbox_conversation("alice"), &write).unwrap();
    }
}

/// A subscriber as HTTP has it: it subscribes, reads pages, then follows signals.
struct PageReader {
    subscription: Subscription,
    after: ReadStart,
    read: Vec<u64>,
    looks: bool,
}

impl PageReader {
    fn begin(table: &mut SubscriberTable, after: ReadStart, read: Vec<u64>) -> Self {
        let (publisher, subscription) = subscription();
        table.add(sandbox_conversation("alice"), publisher);
        Self { subscription, after, read, looks: true }
    }

    /// Takes one step, and returns `false` without work.
    fn step(&mut self, journal: &TestJournal) -> bool {
        if self.looks {
            let page =
                journal.store.page(&sandbox_conversation("alice"), self.after, 3, Some(Incarnation(2)));
            assert!(!page.gap, "no entry was lost");
            self.read.extend(page.entries.iter().map(|item| item.entry.seq));
            self.after = ReadStart::Cursor(page.next);
            self.looks = page.more;
            return true;
        }
        match self.subscription.next().now_or_never() {
            Some(Some(LiveSignal::Look)) => self.looks = true,
            Some(Some(LiveSignal::Chunk(_) | LiveSignal::Platform(_))) => {}
            Some(None) => panic!("the subscription is open"),
            None => return false,
        }
        true
    }
}

#[derive(Debug, Clone)]
enum TableStep {
    /// Appends this number of entries, with or without a look at each replica.
    Append(u64, [bool; 2]),
    /// A replica gets a repeated or late look.
    Look(usize),
    Chunk(usize),
    Renew(usize),
    /// The reader takes some steps.
    Read(u8),
    /// The reader moves with its cursor, perhaps to the other replica.
    Move(usize),
}

fn table_step() -> impl Strategy<Value = TableStep> {
    prop_oneof![
        (1..5_u64, any::<[bool; 2]>()).prop_map(|(count, looks)| TableStep::Append(count, looks)),
        (0..2_usize).prop_map(TableStep::Look),
        (0..2_usize).prop_map(TableStep::Chunk),
        (0..2_usize).prop_map(TableStep::Renew),
        (1..6_u8).prop_map(TableStep::Read),
        (0..2_usize).prop_map(TableStep::Move),
    ]
}

proptest! {
    #[test]
    fn each_entry_is_read_once_in_order_despite_lost_looks(
        steps in proptest::collection::vec(table_step(), 0..60),
    ) {
        let mut journal = TestJournal::new();
        let mut replicas = [SubscriberTable::default(), SubscriberTable::default()];
        let mut at = 0;
        let mut reader = PageReader::begin(&mut replicas[at], ReadStart::Oldest, Vec::new());
        // Whether the reader missed a look.
        let mut missed = false;
        for step in steps {
            match step {
                TableStep::Append(count, looks) => {
                    journal.append(count);
                    for (replica, _) in replicas.iter_mut().zip(looks).filter(|(_, looks)| *looks) {
                        replica.look(&sandbox_conversation("alice"));
                    }
                    missed = !looks[at];
                }
                TableStep::Look(replica) => {
                    replicas[replica].look(&sandbox_conversation("alice"));
                    missed &= replica != at;
                }
                TableStep::Chunk(replica) => _ = replicas[replica].chunk(&sandbox_conversation("alice"), &piece()),
                TableStep::Renew(replica) => {
                    replicas[replica].sweep(Instant::now());
                    replicas[replica].look_all();
                    missed &= replica != at;
                }
                TableStep::Read(steps) => _ = (0..steps).all(|_| reader.step(&journal)),
                TableStep::Move(to) => {
                    at = to;
                    let PageReader { after, read, .. } = reader;
                    reader = PageReader::begin(&mut replicas[at], after, read);
                    missed = false;
                }
            }
            prop_assert!(reader.read.iter().copied().zip(1..).all(|(read, place)| read == place), "{:?}", reader.read);
        }
        let all: Vec<_> = (1..=journal.record.seq).collect();
        while reader.step(&journal) {}
        prop_assert!(missed || reader.read == all, "no look is missing, but read {:?} of {all:?}", reader.read);
        // The next renewal replaces the lost look.
        replicas[at].look_all();
        while reader.step(&journal) {}
        prop_assert_eq!(reader.read, all);
    }
}
