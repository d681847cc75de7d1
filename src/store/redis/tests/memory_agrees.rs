//! For any sequence of operations, Redis answers as the embedded store does.

use proptest::prelude::*;

use super::*;
use crate::domain::{Cursor, ReadStart};
use crate::store::{
    Clock, ConversationOrder, ConversationQuery, MemoryLimits, MemoryStore, Store, StoreError,
};

/// The owner's epoch of the journal.
const EPOCH: u64 = 7;

#[derive(Debug, Clone)]
enum Step {
    Accept { number: u128, key: Option<u8>, body: u8, max_open: usize, owns: bool, sends: bool },
    Write(Vec<Deed>),
    RepeatLastWrite,
    Stray { number: u64 },
    Claim { incarnation: Incarnation },
    Release,
}

#[derive(Debug, Clone)]
enum Deed {
    Sent(u128),
    Acked(u128),
    Answering(u128),
    HeadSince,
    Reply(Option<u128>),
    Other,
    End(u128),
}

fn deed() -> impl Strategy<Value = Deed> {
    let number = 0..6_u128;
    prop_oneof![
        number.clone().prop_map(Deed::Sent),
        number.clone().prop_map(Deed::Acked),
        number.clone().prop_map(Deed::Answering),
        Just(Deed::HeadSince),
        prop::option::of(number.clone()).prop_map(Deed::Reply),
        Just(Deed::Other),
        number.prop_map(Deed::End),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6_u128, prop::option::of(0..3_u8), 0..2_u8, 1..5_usize, any::<bool>(), any::<bool>()).prop_map(
            |(number, key, body, max_open, owns, sends)| Step::Accept { number, key, body, max_open, owns, sends },
        ),
        8 => prop::collection::vec(deed(), 0..5).prop_map(Step::Write),
        1 => Just(Step::RepeatLastWrite),
        1 => prop_oneof![0..9_u64, Just(u64::MAX)].prop_map(|number| Step::Stray { number }),
        2 => prop::sample::select(vec![ME, OTHER]).prop_map(|incarnation| Step::Claim { incarnation }),
        1 => Just(Step::Release),
    ]
}

/// One of the two stores.
struct Side {
    store: Store,
    fence: Fence,
}

/// Removes the times of the store's clock and the values that depend on them.
fn plain(told: impl std::fmt::Debug) -> String {
    let told = format!("{told:?}");
    let mut plain = String::new();
    let mut digits = String::new();
    for char in told.chars().chain([' ']) {
        if char.is_ascii_digit() {
            digits.push(char);
            continue;
        }
        // Times of the clock have 13 digits; times of the test have few.
        plain.push_str(if digits.len() == 13 { "NOW" } else { &digits });
        digits.clear();
        plain.push(char);
    }
    plain
}

impl Side {
    async fn new(store: Store) -> Self {
        let fence = store.claim(Partition::of(&alice()), ME, LEASE, ClaimMode::Expired).await.unwrap();
        Self { store, fence: fence.fence().unwrap() }
    }

    /// Accepts a message at the owner, or at another replica.
    async fn accept(&self, accept: &AcceptRequest, owns: bool, sends: bool) -> String {
        let owner = owns.then_some(self.fence);
        plain(self.store.accept(AcceptRequest { owner, send_at_accept: sends, ..accept.clone() }).await)
    }

    async fn write(&self, write: &ConversationWrite) -> Result<bool, StoreError> {
        self.store.write(self.fence, &alice(), write).await.map(|written| written.lost)
    }

    /// Reads everything that can be read.
    async fn state(&self) -> String {
        let mut state = String::new();
        let cursors = [(0, 0), (0, 1), (EPOCH, 0), (EPOCH, 2), (EPOCH, 5), (EPOCH, 1000), (EPOCH + 1, 1)];
        let cursors = cursors.map(|(epoch, seq)| ReadStart::Cursor(Cursor { epoch, seq, at: None }));
        for after in [ReadStart::Oldest, ReadStart::Latest].into_iter().chain(cursors) {
            for limit in [1, 3, 1000] {
                state.push_str(&plain(self.store.page(&alice(), after, limit, None).await));
            }
        }
        state.push_str(&plain(self.store.state(&alice(), ME, 1).await));
        for number in 0..6 {
            state.push_str(&plain(self.store.message(&alice(), id(number), None).await));
        }
        for order in [ConversationOrder::NewestFirst, ConversationOrder::ByName] {
            let partition = Some(Partition::of(&alice()));
            let query = ConversationQuery { order, partition, limit: 2, ..ConversationQuery::default() };
            state.push_str(&plain(self.store.conversations(&query).await));
        }
        match self.store.open(self.fence, &alice()).await {
            Ok((open, _)) => state.push_str(&plain(open)),
            Err(refused) => state.push_str(&plain(refused)),
        }
        state + &plain(self.store.ready(Partition::of(&alice()), self.fence, false).await)
    }
}

fn change(deed: &Deed, record: &mut ConversationRecord) -> ConversationChange {
    let at = Timestamp::from_millis(record.write * 10);
    let mut entry = |body| {
        record.seq += 1;
        ConversationChange::Append(JournalEntry { seq: record.seq, at, body })
    };
    match deed {
        Deed::Sent(number) => ConversationChange::Sent { message: id(*number), at },
        Deed::Acked(number) => ConversationChange::Acked { message: id(*number), at },
        Deed::Answering(number) => ConversationChange::Answering { message: id(*number), at },
        Deed::HeadSince => ConversationChange::HeadSince { at },
        Deed::Other => entry(EntryBody::Platform(serde_json::value::to_raw_value("other").unwrap())),
        Deed::End(number) => entry(EntryBody::Ended {
            message: id(*number),
            outcome: TurnOutcome::Answered(EndedBy::Quiet(None)),
        }),
        Deed::Reply(to) => {
            record.seq += 1;
            reply(record.seq, at, to.map(id), "hello")
        }
    }
}

/// Takes the steps. The flag of a step says whether everything is read after it. A read makes the owner's cache complete.
async fn agree(redis: RedisStore, steps: Vec<(Step, bool)>) {
    let memory = MemoryStore::new(MemoryLimits::new(64 << 20, MESSAGE_TTL), Clock::wall());
    let mut sides = [Side::new(Store::Memory(memory)).await, Side::new(Store::Redis(redis)).await];
    let mut record = ConversationRecord { epoch: EPOCH, ..ConversationRecord::default() };
    let mut last = None;
    for (step, look) in steps {
        let [memory, redis] = &mut sides;
        match step {
            Step::Accept { number, key, body, max_open, owns, sends } => {
                let mut wish = AcceptRequest { max_open, watched: body == 0, ..accept(number) };
                if let Some(key) = key {
                    wish = with_key(wish, "shop", &key.to_string(), body);
                }
                let accepted = memory.accept(&wish, owns, sends).await;
                assert_eq!(accepted, redis.accept(&wish, owns, sends).await, "{wish:?}");
            }
            Step::Write(deeds) => {
                let before = record.clone();
                record.write += 1;
                let follows = before.write;
                let changes: Vec<ConversationChange> =
                    deeds.iter().map(|deed| change(deed, &mut record)).collect();
                let write = ConversationWrite { record: record.clone(), follows, changes, warm_until: None };
                let done = memory.write(&write).await;
                assert_eq!(done, redis.write(&write).await, "{deeds:?}");
                if done.is_ok() {
                    last = Some(write);
                } else {
                    record = before;
                }
            }
            Step::RepeatLastWrite => {
                if let Some(write) = &last {
                    assert_eq!(memory.write(write).await, redis.write(write).await);
                }
            }
            Step::Stray { number } => {
                // The last write is repeated elsewhere, and one in step would be carried out.
                if !(record.write..=record.write + 1).contains(&number) {
                    let write = numbered(number, Vec::new());
                    assert_eq!(memory.write(&write).await, redis.write(&write).await, "{number}");
                }
            }
            Step::Claim { incarnation } => {
                let (mut taken, partition) = (Vec::new(), Partition::of(&alice()));
                for side in [memory, redis] {
                    let claim =
                        side.store.claim(partition, incarnation, LEASE, ClaimMode::Free).await.unwrap();
                    // If another owner claimed the partition, ours continues without knowing.
                    if let Some(fence) = claim.fence().filter(|_| incarnation == ME) {
                        side.fence = fence;
                    }
                    taken.push(claim.fence().is_some());
                }
                assert_eq!(taken[0], taken[1]);
            }
            Step::Release => {
                let partition = Partition::of(&alice());
                let released = memory.store.release(partition, memory.fence).await;
                assert_eq!(released, redis.store.release(partition, redis.fence).await);
            }
        }
        let [memory, redis] = &sides;
        if look {
            assert_eq!(memory.state().await, redis.state().await);
        }
    }
    let [memory, redis] = &sides;
    assert_eq!(memory.state().await, redis.state().await);
}

#[test]
fn redis_and_memory_answer_the_same() {
    let server = Server::start();
    let steps = prop::collection::vec((step(), any::<bool>()), 1..40);
    proptest!(ProptestConfig::with_cases(100), |(steps in steps)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            server.ask::<()>(&["FLUSHALL"]).await;
            agree(server.store(), steps).await;
        });
    });
}
