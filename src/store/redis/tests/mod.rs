//! The operations against a real server, for the errors that only Redis can have. `tests/store` tests the contract
//! for all stores.

mod command_runner;
mod fleet;
mod hints;
mod memory_agrees;
mod outbox;
mod retention;
pub(super) mod server;

use std::sync::Arc;
use std::time::Duration;

use self::server::Server;
use crate::domain::{
    BotName, ConversationId, ConversationRecord, Correlation, EndedBy, EntryBody, JournalEntry,
    MessageContent, MessageId, NewMessage, Partition, Reply, ResendPolicy, SessionRequest, Timestamp,
    TraceId, TurnOutcome, TurnRules, UserId,
};
use crate::store::redis::RedisStore;
use crate::store::{
    AcceptRequest, AcceptResult, ClaimMode, ConversationChange, ConversationWrite, Fence, IdempotencyRequest,
    Incarnation,
};

const MESSAGE_TTL: Duration = Duration::from_mins(10);
const LEASE: Duration = Duration::from_secs(10);
const ME: Incarnation = Incarnation(0xabc);
const OTHER: Incarnation = Incarnation(u64::MAX);

fn alice() -> ConversationId {
    ConversationId::new(BotName::new("support").unwrap(), UserId::new("alice / Zoë").unwrap())
}

fn id(number: u128) -> MessageId {
    MessageId::new(Timestamp::from_millis(1_763_845_000_000), number)
}

fn accept(number: u128) -> AcceptRequest {
    let message = NewMessage {
        conversation: alice(),
        content: MessageContent::new(format!("message {number}")).unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: ResendPolicy::Never,
        callback: None,
        trace: TraceId::default(),
    };
    AcceptRequest {
        id: id(number),
        message,
        idempotency: None,
        max_open: 32,
        by: ME,
        watched: false,
        send_at_accept: None,
    }
}

fn with_key(mut accept: AcceptRequest, key: &str, body: u8) -> AcceptRequest {
    accept.idempotency =
        Some(IdempotencyRequest { caller: "shop".into(), key: key.into(), body: [body; 32] });
    accept
}

fn reply(seq: u64, at: Timestamp, to: Option<MessageId>, text: &str) -> ConversationChange {
    let reply = Reply {
        seq,
        message_id: Some("ms-1".into()),
        in_reply_to: to,
        correlation: Correlation::Window,
        late: false,
        text: text.into(),
        agent: false,
        created_on: None,
        event: serde_json::value::to_raw_value(text).unwrap(),
    };
    ConversationChange::Append(JournalEntry { seq, at, body: EntryBody::Reply(Arc::new(reply)) })
}

fn end(seq: u64, at: Timestamp, message: MessageId) -> ConversationChange {
    let outcome = TurnOutcome::Answered(EndedBy::Quiet);
    ConversationChange::Append(JournalEntry { seq, at, body: EntryBody::Ended { message, outcome } })
}

fn numbered(write: u64, changes: Vec<ConversationChange>) -> ConversationWrite {
    let follows = write.saturating_sub(1);
    ConversationWrite {
        record: ConversationRecord { write, ..ConversationRecord::default() },
        follows,
        changes,
        warm_until: None,
    }
}

async fn own(store: &RedisStore) -> Fence {
    store.claim(Partition::of(&alice()), ME, LEASE, ClaimMode::Expired).await.unwrap().fence().unwrap()
}

async fn post(store: &RedisStore, number: u128) -> MessageId {
    match store.accept(accept(number)).await.unwrap() {
        AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => accepted.id,
        AcceptResult::Replayed(_) => panic!("it has no key"),
    }
}
