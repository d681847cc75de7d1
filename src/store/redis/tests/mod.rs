//! The operations against a real server: what only Redis can get wrong. The contract itself is tested for every
//! side of the store alike.

mod agreement;
mod fleet;
mod hints;
mod keeping;
mod outbox;
pub(super) mod server;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use self::server::Server;
use crate::domain::{
    BotName, Content, ConversationId, Correlation, EndedBy, Entry, EntryBody, MessageId, NewMessage, Outcome,
    Partition, Record, Reply, Resend, SessionRequest, Timestamp, TraceId, TurnRules, UserId,
};
use crate::store::redis::Redis;
use crate::store::{Accept, Accepted, Change, Claiming, Fence, Idempotency, Incarnation, Write};

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

fn accept(number: u128) -> Accept {
    let message = NewMessage {
        conversation: alice(),
        content: Content::new(format!("message {number}")).unwrap(),
        session: SessionRequest::Continue,
        rules: TurnRules::default(),
        resend: Resend::Never,
        callback: None,
        trace: TraceId::default(),
    };
    Accept { id: id(number), message, idempotency: None, max_open: 32, by: ME, watched: false, sends: None }
}

fn with_key(mut accept: Accept, key: &str, body: u8) -> Accept {
    accept.idempotency = Some(Idempotency { caller: "shop".into(), key: key.into(), body: [body; 32] });
    accept
}

fn reply(seq: u64, at: Timestamp, to: Option<MessageId>, text: &str) -> Change {
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
    Change::Append(Entry { seq, at, body: EntryBody::Reply(Arc::new(reply)) })
}

fn end(seq: u64, at: Timestamp, message: MessageId) -> Change {
    let outcome = Outcome::Answered(EndedBy::Quiet);
    Change::Append(Entry { seq, at, body: EntryBody::Ended { message, outcome } })
}

fn numbered(write: u64, changes: Vec<Change>) -> Write {
    let follows = write.saturating_sub(1);
    Write { record: Record { write, ..Record::default() }, follows, changes, warm_until: None }
}

async fn own(store: &Redis) -> Fence {
    store.claim(Partition::of(&alice()), ME, LEASE, Claiming::Expired).await.unwrap().fence().unwrap()
}

async fn post(store: &Redis, number: u128) -> MessageId {
    match store.accept(accept(number)).await.unwrap() {
        Accepted::New(accepted) | Accepted::Sent(accepted) => accepted.id,
        Accepted::Replayed(_) => panic!("it has no key"),
    }
}
