use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::domain::{
    BotName, ConversationRecord, EntryBody, GapReason, JournalEntry, LiveSignal, Partition, ReadStart,
    Timestamp, UserId,
};
use crate::hub::observer::{Subscription, observer};
use crate::store::{
    ClaimMode, Clock, ConversationChange, ConversationWrite, Fence, MemoryLimits, MemoryStore,
};

fn conversation(user: &str) -> ConversationId {
    ConversationId { bot: BotName::sandbox(), user: UserId::new(user).unwrap() }
}

fn piece() -> Arc<ReplyChunk> {
    Arc::new(ReplyChunk { message_id: None, index: 0, text: "…".into(), last: false })
}

const ONE: Told = Told { told: 1, slow: 0 };
const NOBODY: Told = Told { told: 0, slow: 0 };

#[tokio::test]
async fn those_who_read_the_conversation_are_told_and_nobody_else() {
    let mut observers = Observers::default();
    let (alice, bob) = (conversation("alice"), conversation("bob"));
    let (teller, mut reader) = observer();
    observers.add(alice.clone(), teller);
    let (teller, mut other) = observer();
    observers.add(bob.clone(), teller);
    assert_eq!(observers.look(&alice), ONE);
    assert!(matches!(reader.next().now_or_never(), Some(Some(LiveSignal::Look))));
    assert!(other.next().now_or_never().is_none());
    assert_eq!(observers.chunk(&bob, &piece()), ONE);
    assert!(matches!(other.next().now_or_never(), Some(Some(LiveSignal::Chunk(_)))));
    assert!(reader.next().now_or_never().is_none());
    assert_eq!(observers.look_all(), Told { told: 2, slow: 0 });
    assert_eq!(observers.look(&conversation("carol")), NOBODY);
    observers.dismiss();
    assert!(matches!(reader.next().now_or_never(), Some(Some(LiveSignal::Look))));
    assert!(matches!(reader.next().now_or_never(), Some(None)), "the replica goes away");
}

#[tokio::test]
async fn a_slow_reader_is_let_go_of_and_the_others_read_on() {
    let mut observers = Observers::default();
    let alice = conversation("alice");
    let (slow, quick) = (observer(), observer());
    observers.add(alice.clone(), slow.0);
    observers.add(alice.clone(), quick.0);
    let (mut slow, mut quick) = (slow.1, quick.1);
    let mut let_go = 0;
    for _ in 0..1000 {
        let_go += observers.chunk(&alice, &piece()).slow;
        assert!(matches!(quick.next().now_or_never(), Some(Some(LiveSignal::Chunk(_)))));
    }
    assert_eq!((let_go, observers.readers()), (1, 1));
    let mut waited = 0;
    while let Some(Some(_)) = slow.next().now_or_never() {
        waited += 1;
    }
    assert!(waited < 100, "{waited}");
    assert!(matches!(slow.next().now_or_never(), Some(None)));
}

#[tokio::test(start_paused = true)]
async fn who_has_gone_leaves_nothing_behind() {
    let mut observers = Observers::default();
    let readers: Vec<_> = (0..500)
        .map(|number| {
            let (teller, reader) = observer();
            observers.add(conversation(&format!("user-{}", number / 2)), teller);
            reader
        })
        .collect();
    for number in 0..250 {
        observers.note(conversation(&format!("user-{number}")), Incarnation(1), Instant::now());
    }
    observers.sweep(Instant::now());
    assert_eq!((observers.readers(), observers.conversations().len()), (500, 250));
    drop(readers);
    tokio::time::advance(OBSERVED).await;
    observers.sweep(Instant::now());
    assert_eq!((observers.readers(), observers.conversations().len()), (0, 0));
    assert!(observers.elsewhere.is_empty());
    assert!(observers.here.capacity() <= 64 && observers.elsewhere.capacity() <= 64);
}

#[tokio::test(start_paused = true)]
async fn replicas_are_noted_for_a_minute_and_not_without_bound() {
    let mut observers = Observers::default();
    let alice = conversation("alice");
    let noted = |observers: &Observers| observers.elsewhere(&alice, Instant::now()).collect::<Vec<_>>();
    observers.note(alice.clone(), Incarnation(1), Instant::now());
    tokio::time::advance(OBSERVED / 2).await;
    observers.note(alice.clone(), Incarnation(2), Instant::now());
    assert_eq!(noted(&observers), [Incarnation(1), Incarnation(2)]);
    tokio::time::advance(OBSERVED / 2).await;
    assert_eq!(noted(&observers), [Incarnation(2)]);
    observers.note(alice.clone(), Incarnation(2), Instant::now());
    tokio::time::advance(OBSERVED / 2).await;
    assert_eq!(noted(&observers), [Incarnation(2)], "it was renewed");
    for number in 0..10_000 {
        observers.note(alice.clone(), Incarnation(number), Instant::now());
        observers.note(conversation(&format!("user-{number}")), Incarnation(1), Instant::now());
    }
    assert_eq!((observers.elsewhere.len(), noted(&observers).len()), (ELSEWHERE, REPLICAS));
}

/// A conversation's journal in a store, and who appends to it.
struct Journal {
    store: Arc<MemoryStore>,
    fence: Fence,
    record: ConversationRecord,
}

impl Journal {
    fn new() -> Self {
        let store = MemoryStore::new(MemoryLimits::new(1 << 24, Duration::from_mins(1)), Clock::wall());
        let partition = Partition::of(&conversation("alice"));
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
        self.store.write(self.fence, &conversation("alice"), &write).unwrap();
    }
}

/// A reader as HTTP has it: known first, then page by page, then told.
struct Reader {
    observer: Subscription,
    after: ReadStart,
    read: Vec<u64>,
    looks: bool,
}

impl Reader {
    fn begin(observers: &mut Observers, after: ReadStart, read: Vec<u64>) -> Self {
        let (teller, observer) = observer();
        observers.add(conversation("alice"), teller);
        Self { observer, after, read, looks: true }
    }

    /// One step; false where it has nothing to do.
    fn step(&mut self, journal: &Journal) -> bool {
        if self.looks {
            let page = journal.store.page(&conversation("alice"), self.after, 3, Some(Incarnation(2)));
            assert!(!page.gap, "nothing was lost");
            self.read.extend(page.entries.iter().map(|told| told.entry.seq));
            self.after = ReadStart::Cursor(page.next);
            self.looks = page.more;
            return true;
        }
        match self.observer.next().now_or_never() {
            Some(Some(LiveSignal::Look)) => self.looks = true,
            Some(Some(LiveSignal::Chunk(_))) => {}
            Some(None) => panic!("nobody let it go"),
            None => return false,
        }
        true
    }
}

#[derive(Debug, Clone)]
enum Deed {
    /// So many entries; whether each replica is told of them.
    Append(u64, [bool; 2]),
    /// A replica is told of something that it was told of before, or late.
    Look(usize),
    Chunk(usize),
    Renew(usize),
    /// The reader takes a few steps.
    Read(u8),
    /// It goes with its cursor, perhaps to the other replica.
    Move(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (1..5_u64, any::<[bool; 2]>()).prop_map(|(count, told)| Deed::Append(count, told)),
        (0..2_usize).prop_map(Deed::Look),
        (0..2_usize).prop_map(Deed::Chunk),
        (0..2_usize).prop_map(Deed::Renew),
        (1..6_u8).prop_map(Deed::Read),
        (0..2_usize).prop_map(Deed::Move),
    ]
}

proptest! {
    #[test]
    fn each_entry_is_read_once_and_in_order_whatever_is_told_or_lost(
        deeds in proptest::collection::vec(deed(), 0..60),
    ) {
        let mut journal = Journal::new();
        let mut replicas = [Observers::default(), Observers::default()];
        let mut at = 0;
        let mut reader = Reader::begin(&mut replicas[at], ReadStart::Oldest, Vec::new());
        // Whether the reader was not told of something.
        let mut missed = false;
        for deed in deeds {
            match deed {
                Deed::Append(count, told) => {
                    journal.append(count);
                    for (replica, _) in replicas.iter_mut().zip(told).filter(|(_, told)| *told) {
                        replica.look(&conversation("alice"));
                    }
                    missed = !told[at];
                }
                Deed::Look(replica) => {
                    replicas[replica].look(&conversation("alice"));
                    missed &= replica != at;
                }
                Deed::Chunk(replica) => _ = replicas[replica].chunk(&conversation("alice"), &piece()),
                Deed::Renew(replica) => {
                    replicas[replica].sweep(Instant::now());
                    replicas[replica].look_all();
                    missed &= replica != at;
                }
                Deed::Read(steps) => _ = (0..steps).all(|_| reader.step(&journal)),
                Deed::Move(to) => {
                    at = to;
                    let Reader { after, read, .. } = reader;
                    reader = Reader::begin(&mut replicas[at], after, read);
                    missed = false;
                }
            }
            prop_assert!(reader.read.iter().copied().zip(1..).all(|(read, place)| read == place), "{:?}", reader.read);
        }
        let all: Vec<_> = (1..=journal.record.seq).collect();
        while reader.step(&journal) {}
        prop_assert!(missed || reader.read == all, "told of all, and read {:?} of {all:?}", reader.read);
        // The next renewal makes good what was lost.
        replicas[at].look_all();
        while reader.step(&journal) {}
        prop_assert_eq!(reader.read, all);
    }
}
