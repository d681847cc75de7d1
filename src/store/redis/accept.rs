//! The accept of a message.

use std::sync::Arc;

use super::RedisStore;
use super::codec::{self, AcceptStamp, CorruptData};
use super::key_names;
use super::script_answer::ScriptAnswer;
use super::scripts::SCRIPTS;
use crate::domain::{MessageId, NewMessage, Partition};
use crate::store::{AcceptError, AcceptRequest, AcceptResult, StoreError, StoreRefusal};

impl RedisStore {
    pub(in crate::store) async fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        let AcceptRequest { id, message: new, idempotency, max_open, by, watched, send_at_accept } = accept;
        let partition = self.0.keys.partition(Partition::of(&new.conversation));
        let (conversation, message) = (partition.conversation(&new.conversation), partition.message(id));
        let key = idempotency.map(|key| (key_names::digest(key.digest(&new.conversation)), key.body));
        let key_name = key.as_ref().map(|(digest, _)| partition.key_of(digest));
        let body = codec::new_message(&new)?;

        let mut keys = vec![&*partition.lease, &*partition.ready, &*conversation, &*message];
        keys.extend(key_name.as_deref());
        let mut call = SCRIPTS
            .accept
            .call(&keys)
            .arg(new.conversation.to_string())
            .arg(&body)
            .arg(max_open)
            .arg(u8::from(self.0.health.is_full()))
            .arg(by.to_string())
            .arg(u8::from(watched))
            .arg(send_at_accept.map_or_else(String::new, |fence| fence.epoch.to_string()));
        if let Some((digest, body)) = &key {
            call = call.arg(digest).arg(body.as_slice());
        }
        let call = call.durable();

        let answer = match self.run(call).await {
            // An accept is refused if the store is full. An owner's write is not.
            Err(StoreError::Unavailable(StoreRefusal::OutOfMemory)) => return Err(AcceptError::Full),
            answered => answered?,
        };
        accept_result(answer, id, new)
    }
}

fn accept_result(answer: ScriptAnswer, id: MessageId, new: NewMessage) -> Result<AcceptResult, AcceptError> {
    let (word, mut rest) = answer.parts();
    match word.as_slice() {
        b"NEW" | b"SENT" => {
            let stamp = AcceptStamp {
                position: rest.number()?,
                client_message_id: rest.number()?,
                accepted_at: rest.time()?,
            };
            let accepted = Arc::new(stamp.on(id, new));
            Ok(if word == b"SENT" {
                AcceptResult::SentAtAccept(accepted)
            } else {
                AcceptResult::New(accepted)
            })
        }
        b"REPLAYED" => {
            let id = codec::id(&rest.text()?)?;
            Ok(AcceptResult::Replayed(codec::message(&new.conversation, id, rest.values()?.pairs())?))
        }
        b"MISMATCH" => Err(AcceptError::IdempotencyMismatch),
        b"LANE" => Err(AcceptError::LaneFull(usize::try_from(rest.number()?).unwrap_or(usize::MAX))),
        b"FULL" => Err(AcceptError::Full),
        _ => Err(CorruptData("the answer to an accept").into()),
    }
}

impl From<CorruptData> for AcceptError {
    fn from(corrupt: CorruptData) -> Self {
        Self::Store(corrupt.into())
    }
}
