//! The kinds of stores, and the helpers of the sentences.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::fixtures::{self, START, new_message};
use rtm_bridge::domain::{
    AcceptedMessage, BotName, ConversationId, ConversationRecord, EndedBy, EntryBody, JournalEntry,
    MessageId, Partition, QuietSource, QuietWait, ReadStart, Timestamp, TurnOutcome,
};
use rtm_bridge::store::fixtures::accept_request;
pub(super) use rtm_bridge::store::fixtures::with_key;
use rtm_bridge::store::{
    AcceptError, AcceptRequest, AcceptResult, ClaimMode, Clock, ConversationChange, ConversationWrite, Fence,
    Heartbeat, Hint, HintStream, Incarnation, ManualClock, MemoryLimits, MemoryStore, RedisStore,
    ReplicaIdentity, Store, StoreError, WriteResult,
};

use crate::support::{Cluster, RedisOptions, RedisServer, Sentinels, Servers, shift, within};

/// These spans are long and differ by [`SLACK`], because Redis' clock runs on during a sentence.
pub(super) const MESSAGE_TTL: Duration = Duration::from_mins(10);
pub(super) const LEASE: Duration = Duration::from_mins(5);
const SLACK: Duration = Duration::from_mins(1);
/// Three replicas.
pub(super) const ME: Incarnation = Incarnation(1);
pub(super) const OTHER: Incarnation = Incarnation(2);
pub(super) const THIRD: Incarnation = Incarnation(0xfedc_ba98_7654_3210);

/// One kind of store, and the control of its clock.
pub(super) struct StoreFixture {
    pub(super) store: Store,
    side: FixtureKind,
}

enum FixtureKind {
    Memory(ManualClock),
    Redis {
        servers: Rc<Servers>,
        prefix: String,
        /// All stores on these servers. Each needs the skew of the clock.
        handles: RefCell<Vec<RedisStore>>,
        passed: Cell<Duration>,
    },
}

impl StoreFixture {
    pub(super) fn memory() -> Self {
        Self::limited(MemoryLimits::new(64 << 20, MESSAGE_TTL))
    }

    pub(super) fn limited(limits: MemoryLimits) -> Self {
        let (clock, hand) = Clock::manual(START);
        Self { store: Store::Memory(MemoryStore::new(limits, clock)), side: FixtureKind::Memory(hand) }
    }

    /// Creates one on servers under a new prefix.
    pub(super) fn on(servers: &Rc<Servers>) -> Self {
        let prefix = format!("test-{:016x}", fastrand::u64(..));
        let redis = connect(servers, &prefix);
        let handles = RefCell::new(vec![redis.clone()]);
        let (servers, passed) = (Rc::clone(servers), Cell::default());
        Self { store: Store::Redis(redis), side: FixtureKind::Redis { servers, prefix, handles, passed } }
    }

    /// Returns another replica's store on the same data. Call it before time passes.
    pub(super) fn second(&self) -> Store {
        match &self.side {
            FixtureKind::Memory(_) => self.store.clone(),
            FixtureKind::Redis { servers, prefix, handles, .. } => {
                let redis = connect(servers, prefix);
                handles.borrow_mut().push(redis.clone());
                Store::Redis(redis)
            }
        }
    }

    pub(super) async fn pass(&self, span: Duration) {
        match &self.side {
            FixtureKind::Memory(clock) => clock.advance(span),
            FixtureKind::Redis { servers, prefix, handles, passed } => {
                self.rest().await;
                passed.set(passed.get() + span);
                for redis in &*handles.borrow() {
                    redis.skew(passed.get());
                }
                shift(&servers.masters().await, prefix, span).await;
            }
        }
    }

    /// Lets the conversations rest that have no open message, as the sweeps of owners do.
    pub(super) async fn rest(&self) {
        if let FixtureKind::Redis { handles, .. } = &self.side {
            let handles = handles.borrow().clone();
            for redis in handles {
                // A partition that another owner has claimed is its own matter.
                redis.rest_all().await.ok();
            }
        }
    }

    /// Lets nearly all of the span pass.
    pub(super) async fn pass_almost(&self, span: Duration) {
        self.pass(span.checked_sub(SLACK).unwrap()).await;
    }

    /// Lets the rest of [`StoreFixture::pass_almost`] pass.
    pub(super) async fn pass_the_rest(&self) {
        self.pass(SLACK).await;
    }

    /// Returns the servers and the prefix, if there are some. Sentences about lost data need them.
    pub(super) fn redis(&self) -> Option<(&Servers, &str)> {
        match &self.side {
            FixtureKind::Memory(_) => None,
            FixtureKind::Redis { servers, prefix, .. } => Some((&**servers, prefix)),
        }
    }

    /// Carries out a command on this key without the store. Returns false on memory.
    pub(super) async fn tamper(&self, command: &str, key: &str, more: &[&str]) -> bool {
        let Some((servers, prefix)) = self.redis() else { return false };
        let key = format!("{prefix}:{key}");
        let words: Vec<_> = [command, &key].into_iter().chain(more.iter().copied()).collect();
        servers.master_of(&key).await.command(&words).await;
        true
    }

    /// Listens to the hints for a replica.
    pub(super) async fn listen(&self, incarnation: Incarnation) -> HintRecorder {
        let mut ear = HintRecorder(self.store.listen(incarnation));
        ear.until("it listens", |hint| matches!(hint, Hint::Subscribed).then_some(())).await;
        ear
    }

    /// Returns all journal entries, page by page.
    pub(super) async fn entries(&self, conversation: &ConversationId) -> Vec<JournalEntry> {
        entries(&self.store, conversation).await
    }

    pub(super) async fn own(&self, conversation: &ConversationId) -> Owner<'_> {
        let fence =
            self.store.claim(Partition::of(conversation), ME, LEASE, ClaimMode::Expired).await.unwrap();
        let fence = fence.fence().unwrap();
        Owner {
            store: &self.store,
            fence,
            conversation: conversation.clone(),
            record: ConversationRecord::default(),
        }
    }

    /// Accepts a plain message.
    pub(super) async fn post(&self, conversation: &ConversationId, number: u128) -> MessageId {
        match self.store.accept(accept(conversation, number)).await.unwrap() {
            AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => accepted.id,
            AcceptResult::Replayed(_) => panic!("it has no key"),
        }
    }
}

/// Returns all journal entries, page by page.
pub(super) async fn entries(store: &Store, conversation: &ConversationId) -> Vec<JournalEntry> {
    let (mut entries, mut after) = (Vec::new(), ReadStart::Oldest);
    loop {
        let page = store.page(conversation, after, 7, None).await.unwrap();
        entries.extend(page.entries.into_iter().map(|told| told.entry));
        if !page.more {
            return entries;
        }
        after = ReadStart::Cursor(page.next);
    }
}

fn connect(servers: &Servers, prefix: &str) -> RedisStore {
    let mut config = servers.config();
    prefix.clone_into(&mut config.key_prefix);
    config.message_ttl = MESSAGE_TTL;
    // The timeout is longer than any answer, because these sentences are not about timeouts.
    config.command_timeout = Duration::from_secs(5);
    RedisStore::new(&config).unwrap()
}

/// Creates one on a server of its own.
pub(super) async fn alone() -> Rc<Servers> {
    Rc::new(Servers::Alone(Box::new(RedisServer::start(RedisOptions::default()).await)))
}

/// Creates one on a group under sentinels.
pub(super) async fn sentinels() -> Rc<Servers> {
    Rc::new(Servers::Sentinels(Sentinels::start().await))
}

/// Creates one on a cluster.
pub(super) async fn cluster() -> Rc<Servers> {
    Rc::new(Servers::Cluster(Cluster::start().await))
}

/// The hints for one replica.
pub(super) struct HintRecorder(HintStream);

impl HintRecorder {
    /// Returns the next hint, which must come.
    pub(super) async fn next(&mut self) -> Hint {
        tokio::time::timeout(Duration::from_secs(10), self.0.next()).await.expect("a hint")
    }

    /// Returns what `wanted` finds in the first hint that has it.
    pub(super) async fn until<T>(&mut self, what: &str, wanted: impl Fn(&Hint) -> Option<T>) -> T {
        let mut found = None;
        within(Duration::from_secs(10), what, async || {
            let hint = self.0.next().await;
            found = wanted(&hint);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Returns the hints so far, with at least that many messages, entries and observers. Hints of one server come in
    /// order, so an echo follows all earlier ones. Hints of other servers may come later.
    pub(super) async fn all(&mut self, store: &Store, of: Incarnation, messages: usize) -> Vec<Hint> {
        let echo = fastrand::u64(..);
        store.heartbeat(&heartbeat(of, echo)).await.unwrap();
        let mut told: Vec<Hint> = Vec::new();
        within(Duration::from_secs(10), "the echo is back", async || {
            told.push(self.0.next().await);
            let of_messages = |hint: &&Hint| {
                matches!(hint, Hint::Accepted(_) | Hint::Ended(_) | Hint::Appended(_) | Hint::Observed(..))
            };
            told.iter().any(|hint| matches!(hint, Hint::Echo(number) if *number == echo))
                && told.iter().filter(of_messages).count() >= messages
        })
        .await;
        told
    }
}

/// The name of a replica, with all characters that a name may have.
pub(super) fn name_of(incarnation: Incarnation) -> Box<str> {
    format!("replica: {} / ä", incarnation.0).into()
}

/// Sends a heartbeat that counts for a lease's time.
pub(super) fn heartbeat(incarnation: Incarnation, echo: u64) -> Heartbeat {
    let peer = ReplicaIdentity { name: name_of(incarnation), incarnation };
    Heartbeat { peer, bots: vec![BotName::new("support").unwrap()], ttl: LEASE, echo }
}

pub(super) fn conversation(user: &str) -> ConversationId {
    fixtures::conversation("support", user)
}

/// Returns two conversations of one partition.
pub(super) fn neighbours() -> (ConversationId, ConversationId) {
    let one = conversation("alice");
    let two = (0..100_000)
        .map(|number| conversation(&format!("user-{number}")))
        .find(|two| Partition::of(two) == Partition::of(&one))
        .unwrap();
    (one, two)
}

pub(super) fn id(number: u128) -> MessageId {
    MessageId::new(START, number)
}

pub(super) fn accept(conversation: &ConversationId, number: u128) -> AcceptRequest {
    accept_request(ME, number, new_message(conversation.clone(), &format!("message {number}")))
}

pub(super) fn new(accepted: Result<AcceptResult, AcceptError>) -> Arc<AcceptedMessage> {
    match accepted.unwrap() {
        AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => accepted,
        AcceptResult::Replayed(message) => panic!("replayed: {message:?}"),
    }
}

/// A correct owner: it counts its writes and the places of the journal.
pub(super) struct Owner<'a> {
    pub(super) store: &'a Store,
    pub(super) fence: Fence,
    pub(super) conversation: ConversationId,
    pub(super) record: ConversationRecord,
}

impl Owner<'_> {
    pub(super) async fn write(
        &mut self,
        changes: Vec<ConversationChange>,
    ) -> Result<WriteResult, StoreError> {
        self.record.write += 1;
        self.store.write(self.fence, &self.conversation, &self.last(changes)).await
    }

    /// Returns the last counted write.
    pub(super) fn last(&self, changes: Vec<ConversationChange>) -> ConversationWrite {
        let follows = self.record.write - 1;
        ConversationWrite { record: self.record.clone(), follows, changes, warm_until: None }
    }

    /// Continues with the next write from what the store has.
    pub(super) async fn take_up(&mut self) {
        let (open, _) = self.store.open(self.fence, &self.conversation).await.unwrap();
        self.record.write = open.record.write;
    }

    pub(super) async fn now(&self) -> Timestamp {
        self.store.now().await.unwrap()
    }

    pub(super) fn entry(&mut self, at: Timestamp, body: EntryBody) -> ConversationChange {
        self.record.seq += 1;
        ConversationChange::Append(JournalEntry { seq: self.record.seq, at, body })
    }

    pub(super) fn reply(&mut self, at: Timestamp, to: Option<MessageId>, text: &str) -> ConversationChange {
        let reply = fixtures::reply(self.record.seq + 1, to, text);
        self.entry(at, EntryBody::Reply(reply.into()))
    }

    pub(super) fn end(&mut self, at: Timestamp, message: MessageId) -> ConversationChange {
        self.entry(at, EntryBody::Ended { message, outcome: answered() })
    }

    /// Ends a message now.
    pub(super) async fn settle(&mut self, message: MessageId) {
        let end = self.end(self.now().await, message);
        self.write(vec![end]).await.unwrap();
    }
}

/// Returns the end of a turn by a learned quiet time.
pub(super) fn answered() -> TurnOutcome {
    let wait = QuietWait { wait: Duration::from_millis(140), by: QuietSource::Learned };
    TurnOutcome::Answered(EndedBy::Quiet(Some(wait)))
}
