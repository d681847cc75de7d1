//! The sides of the store, and what the tests say to them.

use std::time::Duration;

use rtm_bridge::domain::{
    BotName, Content, ConversationId, Correlation, EndedBy, Entry, EntryBody, MessageId, NewMessage, Outcome,
    Partition, Record, Reply, Resend, SessionRequest, Timestamp, TurnRules, UserId,
};
use rtm_bridge::store::{
    Accept, AcceptError, Accepted, Change, Claiming, Clock, Fence, Idempotency, Incarnation, ManualClock,
    Memory, MemoryLimits, Store, StoreError, Write, Written,
};

pub(super) const START: Timestamp = Timestamp::from_millis(1_763_845_000_000);
pub(super) const MESSAGE_TTL: Duration = Duration::from_secs(2);
/// Two replicas.
pub(super) const ME: Incarnation = Incarnation(1);
pub(super) const OTHER: Incarnation = Incarnation(2);
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// One side of the store and the way to let time pass on it.
pub(super) struct Shape {
    pub(super) store: Store,
    pub(super) clock: ManualClock,
}

impl Shape {
    pub(super) fn memory() -> Self {
        Self::limited(MemoryLimits::new(64 << 20, MESSAGE_TTL))
    }

    pub(super) fn limited(limits: MemoryLimits) -> Self {
        let (clock, hand) = Clock::manual(START);
        Self { store: Store::Memory(Memory::new(limits, clock)), clock: hand }
    }

    pub(super) fn pass(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// Lets all but a millisecond of it pass.
    pub(super) fn pass_almost(&self, span: Duration) {
        self.pass(span.saturating_sub(Duration::from_millis(1)));
    }

    pub(super) async fn own(&self, conversation: &ConversationId) -> Owner<'_> {
        let fence =
            self.store.claim(Partition::of(conversation), ME, LEASE, Claiming::Expired).await.unwrap();
        let fence = fence.fence().unwrap();
        Owner { store: &self.store, fence, conversation: conversation.clone(), record: Record::default() }
    }

    /// Accepts a plain message.
    pub(super) async fn post(&self, conversation: &ConversationId, number: u128) -> MessageId {
        match self.store.accept(accept(conversation, number)).await.unwrap() {
            Accepted::New(accepted) => accepted.id,
            Accepted::Replayed(_) => panic!("it has no key"),
        }
    }
}

pub(super) fn conversation(user: &str) -> ConversationId {
    ConversationId::new(BotName::new("support").unwrap(), UserId::new(user).unwrap())
}

/// Two conversations of one partition.
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

pub(super) fn accept(conversation: &ConversationId, number: u128) -> Accept {
    let message = NewMessage {
        conversation: conversation.clone(),
        content: Content::new(format!("message {number}")).unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: Resend::Never,
        callback: None,
        trace: rtm_bridge::domain::TraceId::default(),
    };
    Accept { id: id(number), message, idempotency: None, max_open: 32, by: ME, watched: false }
}

pub(super) fn with_key(mut accept: Accept, caller: &str, key: &str, body: u8) -> Accept {
    accept.idempotency = Some(Idempotency { caller: caller.into(), key: key.into(), body: [body; 32] });
    accept
}

pub(super) fn new(
    accepted: Result<Accepted, AcceptError>,
) -> std::sync::Arc<rtm_bridge::domain::AcceptedMessage> {
    match accepted.unwrap() {
        Accepted::New(accepted) => accepted,
        Accepted::Replayed(message) => panic!("replayed: {message:?}"),
    }
}

/// An owner as it should be: it counts its writes and the places of the journal.
pub(super) struct Owner<'a> {
    pub(super) store: &'a Store,
    pub(super) fence: Fence,
    pub(super) conversation: ConversationId,
    pub(super) record: Record,
}

impl Owner<'_> {
    pub(super) async fn write(&mut self, changes: Vec<Change>) -> Result<Written, StoreError> {
        self.record.write += 1;
        let write = Write { record: self.record.clone(), changes, warm_until: None };
        self.store.write(self.fence, &self.conversation, &write).await
    }

    pub(super) async fn now(&self) -> Timestamp {
        self.store.now().await.unwrap()
    }

    pub(super) fn entry(&mut self, at: Timestamp, body: EntryBody) -> Change {
        self.record.seq += 1;
        Change::Append(Entry { seq: self.record.seq, at, body })
    }

    pub(super) fn reply(&mut self, at: Timestamp, to: Option<MessageId>, text: &str) -> Change {
        let reply = Reply {
            seq: self.record.seq + 1,
            message_id: None,
            in_reply_to: to,
            correlation: Correlation::Window,
            late: false,
            text: text.into(),
            agent: false,
            created_on: None,
            event: serde_json::value::to_raw_value(text).unwrap(),
        };
        self.entry(at, EntryBody::Reply(reply.into()))
    }

    pub(super) fn end(&mut self, at: Timestamp, message: MessageId) -> Change {
        self.entry(at, EntryBody::Ended { message, outcome: Outcome::Answered(EndedBy::Quiet) })
    }

    /// Ends a message now.
    pub(super) async fn settle(&mut self, message: MessageId) {
        let end = self.end(self.now().await, message);
        self.write(vec![end]).await.unwrap();
    }
}
