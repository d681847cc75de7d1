//! The operations against a real server, for the errors that only Redis can have. `tests/store` tests the contract
//! for all stores.

mod command_runner;
mod conversation_index;
mod erasure;
mod fleet;
mod hints;
mod memory_agrees;
mod outbox;
mod retention;
mod rights;
pub(super) mod server;

use std::sync::Arc;
use std::time::Duration;

use self::server::Server;
use crate::domain::fixtures::{self, START, new_message};
use crate::domain::{
    ConversationId, ConversationRecord, EndedBy, EntryBody, JournalEntry, MessageId, Partition, Reply,
    Timestamp, TurnOutcome,
};
use crate::store::fixtures::{accept_request, with_key};
use crate::store::redis::RedisStore;
use crate::store::{
    AcceptRequest, AcceptResult, ClaimMode, ConversationChange, ConversationWrite, Fence, Incarnation,
    StoreError,
};

const MESSAGE_TTL: Duration = Duration::from_mins(10);
const LEASE: Duration = Duration::from_secs(10);
const ME: Incarnation = Incarnation(0xabc);
const OTHER: Incarnation = Incarnation(u64::MAX);

fn alice() -> ConversationId {
    fixtures::conversation("support", "alice / Zoë")
}

fn id(number: u128) -> MessageId {
    MessageId::new(START, number)
}

fn accept(number: u128) -> AcceptRequest {
    accept_request(ME, number, new_message(alice(), &format!("message {number}")))
}

fn reply(seq: u64, at: Timestamp, to: Option<MessageId>, text: &str) -> ConversationChange {
    let reply = Reply { message_id: Some("ms-1".into()), ..fixtures::reply(seq, to, text) };
    ConversationChange::Append(JournalEntry { seq, at, body: EntryBody::Reply(Arc::new(reply)) })
}

fn end(seq: u64, at: Timestamp, message: MessageId) -> ConversationChange {
    let outcome = TurnOutcome::Answered(EndedBy::Quiet(None));
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

async fn renew(store: &RedisStore, fence: Fence) -> Result<Timestamp, StoreError> {
    store.renew(&[(Partition::of(&alice()), fence)], LEASE).await.remove(0)
}

async fn post(store: &RedisStore, number: u128) -> MessageId {
    match store.accept(accept(number)).await.unwrap() {
        AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => accepted.id,
        AcceptResult::Replayed(_) => panic!("it has no key"),
    }
}
